"""The Celery app: where web hands a task id to a worker.

`celery -A flansible.celery_app worker` and `flower` find `app` here. It reads its configuration when Celery first asks
for it, never at import; `configure` may hand settings in before that.
"""

from __future__ import annotations

from typing import Any

from celery import Celery
from kombu.exceptions import KombuError, OperationalError

from flansible import config
from flansible.config import Settings
from flansible.errors import BrokerUnavailable

RUN_TASK = "flansible.run"
QUEUE = "flansible"
CONNECT_TIMEOUT_SECONDS = 3
PING_SECONDS = 1.5
# An unacknowledged message is delivered again after this long. The claim makes that harmless; a day keeps it rare.
_VISIBILITY_TIMEOUT_SECONDS = 24 * 3600

_settings: Settings | None = None


def configure(settings: Settings) -> None:
    """Hand the process' settings to Celery; call it before the app is used."""
    global _settings
    _settings = settings


def settings() -> Settings:
    """The settings of this process; read from config.ini when nobody handed any in (`celery -A` by hand)."""
    global _settings
    if _settings is None:
        _settings = config.load()
    return _settings


def _defaults() -> dict[str, Any]:
    found = settings()
    is_redis = not found.broker_url.startswith("amqp")
    # What kombu's Redis transport and its AMQP transport call these differs; each ignores nothing it does not know.
    transport = (
        {
            "visibility_timeout": _VISIBILITY_TIMEOUT_SECONDS,
            "socket_connect_timeout": CONNECT_TIMEOUT_SECONDS,
            "socket_keepalive": not found.broker_url.startswith("redis+socket"),
            "global_keyprefix": "flansible:broker:",
        }
        if is_redis
        else {"confirm_publish": True}
    )
    return {
        "broker_url": found.broker_url,
        "broker_connection_timeout": CONNECT_TIMEOUT_SECONDS,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_transport_options": transport,
        "include": ["flansible.worker.celery_task"],
        "task_default_queue": QUEUE,
        "task_ignore_result": True,
        "task_store_errors_even_if_ignored": False,
        "task_serializer": "json",
        "accept_content": ["json"],
        # Acknowledged when the run is over: a message whose worker died before the claim is delivered again.
        "task_acks_late": True,
        "task_reject_on_worker_lost": False,
        "worker_prefetch_multiplier": 1,
        # Supervisors wait, they do not compute: a thread each. Ansible itself is never in this process.
        "worker_pool": "threads",
        "worker_concurrency": found.worker_concurrency,
        "worker_hijack_root_logger": True,
        "worker_send_task_events": True,
        "task_send_sent_event": True,
        "enable_utc": True,
    }


app = Celery("flansible")
app.add_defaults(_defaults)


def enqueue(task_id: str, summary: str) -> None:
    """Put the id of a recorded task on the queue; `summary` is what Flower shows. Raises BrokerUnavailable."""
    try:
        app.send_task(
            RUN_TASK,
            args=(task_id,),
            task_id=task_id,
            queue=QUEUE,
            argsrepr=f"({summary})",
            kwargsrepr="{}",
            retry=False,
        )
    except (OperationalError, KombuError, OSError) as error:
        raise BrokerUnavailable(f"the broker does not take messages: {error}") from error


def ping_broker() -> None:
    """Raises BrokerUnavailable when no connection to the broker can be made."""
    try:
        with app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, timeout=CONNECT_TIMEOUT_SECONDS, interval_start=0)
    except (OperationalError, KombuError, OSError) as error:
        raise BrokerUnavailable(f"the broker does not answer: {error}") from error


def ping_worker() -> str | None:
    """The name of the first worker that answers, None when none does in time. Raises BrokerUnavailable."""
    try:
        replies = app.control.ping(timeout=PING_SECONDS, limit=1)
    except (OperationalError, KombuError, OSError) as error:
        raise BrokerUnavailable(f"the broker does not answer: {error}") from error
    return next((name for reply in replies or [] for name in reply), None)
