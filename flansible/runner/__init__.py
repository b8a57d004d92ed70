"""The processes that hold Ansible: started by exec, never part of the Celery worker. Flask, Celery and Redis stay out."""
