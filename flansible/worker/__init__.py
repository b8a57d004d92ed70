"""The worker side: claims a task, starts its run in a fork server, supervises it and settles the record.

Run by the Celery worker. May import `broker`, `store`, `sealing`, `authorization.isolation`, `config` and what stands
below.
"""
