"""The processes that hold Ansible: started by exec, never part of the Celery worker. No Flask, Celery, Redis."""
