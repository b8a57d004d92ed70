"""The public address of the Celery app: `celery -A flansible.celery_app worker`; the app itself is in broker/app.py."""

from flansible.broker.app import app

__all__ = ["app"]
