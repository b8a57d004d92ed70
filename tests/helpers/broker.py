"""The broker of the Celery app of this test process."""

from __future__ import annotations

from kombu import pools

from flansible.broker import app as broker_app
from flansible.config import Settings


def use_broker(settings: Settings) -> None:
    """Makes the app publish to the broker of these settings. It reads its URL once, maybe that of an earlier test."""
    broker_app.configure(settings)
    pools.reset()
    broker_app.app._after_fork()  # forgets its pools
    broker_app.app.conf.update(broker_app._defaults())
