"""How web reaches workers: the Celery app, and recovery of orphaned tasks; run by web, worker and Flower processes.

May import `store`, `config`, `system`, `models` and `errors`.
"""
