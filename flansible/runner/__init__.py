"""The processes that hold Ansible: started by exec, never part of the Celery worker. No Flask, Celery, Redis.

Start reading at forkserver.py, then keeper.py, which also ends a run, then play.py.
May import `wire`, `errors`, `system` and `authorization.reserved_variables`: every run pays for what they load.
"""
