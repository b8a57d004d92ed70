"""The Celery worker: claims a task, starts its run in a fork server, supervises it and records its final state.

Run by the Celery worker; start reading at celery_task.py. May import `broker`, `store`, `sealing`,
`authorization.isolation`, `config` and what stands below.
"""
