"""The Celery app: where web hands a task id to a worker.

`celery -A flansible.celery_app worker` and `flower` find `app` here. It reads its configuration when Celery first asks
for it, never at import; `configure` may hand settings in before that.

A broker may be gone, or be there and say nothing. Whatever is asked of it here ends within a few seconds, with an
answer or with BrokerUnavailable. A message is no more than an id: losing one, and sending one twice, are harmless.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery import Celery
from celery.utils.nodenames import host_format
from kombu import Connection, Exchange, Queue
from kombu.exceptions import KombuError, OperationalError

from flansible import config
from flansible.config import Settings
from flansible.errors import BrokerUnavailable

RUN_TASK = "flansible.run"
QUEUE = "flansible"
# For tasks whose turn has come after a wait of another kind: they must not wait behind all others once more.
PRIORITY_QUEUE = "flansible.next"
CONNECT_TIMEOUT_SECONDS = 3
REPLY_TIMEOUT_SECONDS = 3
PING_SECONDS = 1.5
# Of a connection that was at rest: it may have died in its sleep, and that is no reason to refuse a task.
_AT_ONCE_SECONDS = 1.0
_HEARTBEAT_SECONDS = 10
_POOL_CONNECTIONS = 10  # at most, in a worker; a web process has one for each of its threads
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


def _transport_options(broker_url: str) -> dict[str, Any]:
    """What kombu's transports call these differs; each ignores what it does not know.

    Without timeouts for replies a process that asks a frozen broker waits until it thaws.
    """
    # One attempt to connect: whoever needs the broker for longer than one request asks again by itself.
    shared = {"max_retries": 0}
    if broker_url.startswith("amqp"):
        return {
            **shared,
            "confirm_publish": True,
            "read_timeout": REPLY_TIMEOUT_SECONDS,
            "write_timeout": REPLY_TIMEOUT_SECONDS,
        }
    return {
        **shared,
        "visibility_timeout": _VISIBILITY_TIMEOUT_SECONDS,
        "socket_connect_timeout": CONNECT_TIMEOUT_SECONDS,
        "socket_timeout": REPLY_TIMEOUT_SECONDS,
        "socket_keepalive": not broker_url.startswith("redis+socket"),
        "health_check_interval": _HEARTBEAT_SECONDS,
        "global_keyprefix": "flansible:broker:",
        # First what is to be taken first. Left to itself kombu would take turns.
        "queue_order_strategy": "priority",
    }


def _queues() -> list[Queue]:
    exchange = Exchange(QUEUE, "direct")
    return [Queue(name, exchange, routing_key=name) for name in (PRIORITY_QUEUE, QUEUE)]


def _defaults() -> dict[str, Any]:
    found = settings()
    return {
        "broker_url": found.broker_url,
        "broker_connection_timeout": CONNECT_TIMEOUT_SECONDS,
        "broker_connection_retry": True,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        # RabbitMQ closes the channel of a consumer that leaves a message unacknowledged for half an hour.
        "broker_channel_error_retry": True,
        "broker_heartbeat": _HEARTBEAT_SECONDS,
        "broker_pool_limit": max(_POOL_CONNECTIONS, found.web_threads),
        "broker_pool_acquire_timeout": REPLY_TIMEOUT_SECONDS,
        "broker_transport_options": _transport_options(found.broker_url),
        "include": ["flansible.worker.celery_task"],
        "task_queues": _queues(),
        "task_default_queue": QUEUE,
        "task_ignore_result": True,
        "task_store_errors_even_if_ignored": False,
        "task_serializer": "json",
        "accept_content": ["json"],
        # Acknowledged as the task begins. What a worker takes down with it, its record brings back (worker/leases);
        # a message held for as long as a run goes on is what brokers and reconnecting workers stumble over.
        "task_acks_late": False,
        "task_reject_on_worker_lost": False,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_enable_prefetch_count_reduction": False,
        "worker_consumer": "flansible.worker.consumer:Consumer",
        # Supervisors wait, they do not compute: a thread each. Ansible itself is never in this process.
        "worker_pool": "flansible.worker.thread_pool:TaskPool",
        # A message is asked for when a slot is free. RabbitMQ cannot be asked like this, and gives one more.
        "worker_disable_prefetch": not found.broker_url.startswith("amqp"),
        "worker_concurrency": found.worker_concurrency,
        "worker_hijack_root_logger": True,
        "worker_send_task_events": True,
        "task_send_sent_event": True,
        "enable_utc": True,
    }


app = Celery("flansible")
app.add_defaults(_defaults)


def preload() -> None:
    """Load what publishing and asking need, and connect to nothing: processes forked after this share it."""
    app.finalize()
    _ = app.amqp.queues, app.amqp.send_task_message, app.control, app.events
    with app.connection_for_write() as connection:
        _ = connection.transport


def run_worker(name: str, log_level: str) -> int:
    """Be a worker until told to stop; returns the exit code. Main thread only.

    Not by way of Celery's own command line, which loads its shell and Flower's server as well.
    """
    worker = app.Worker(
        hostname=host_format(f"{name}@%h"),
        loglevel=log_level.upper(),
        quiet=True,
        # Mingle waits a second for neighbours that have nothing to tell; gossip is chatter nobody here listens to.
        without_mingle=True,
        without_gossip=True,
    )
    worker.start()
    return int(worker.exitcode or 0)


def enqueue(task_id: str, summary: str, priority: bool = False) -> None:
    """Put the id of a recorded task on the queue; `summary` is what Flower shows. Raises BrokerUnavailable.

    priority: ahead of all that was not put there in the same way.
    """
    began = time.monotonic()
    with _translated("the broker does not take messages"):
        try:
            _publish(task_id, summary, PRIORITY_QUEUE if priority else QUEUE)
        except _BROKER_ERRORS:
            if time.monotonic() - began > _AT_ONCE_SECONDS:
                raise
            _publish(task_id, summary, PRIORITY_QUEUE if priority else QUEUE)


def _publish(task_id: str, summary: str, queue: str) -> None:
    with app.producer_or_acquire() as producer:
        try:
            app.send_task(
                RUN_TASK,
                args=(task_id,),
                task_id=task_id,
                queue=queue,
                argsrepr=f"({summary})",
                kwargsrepr="{}",
                retry=False,
                producer=producer,
            )
        except _BROKER_ERRORS:
            # Back in the pool it would fail the next one too, or take an answer that comes late for its own.
            producer.connection.collect()
            raise


def ping_broker() -> None:
    """Raises BrokerUnavailable when no connection to the broker can be made."""
    with _translated("the broker does not answer"), _connection():
        pass


def ping_worker() -> str | None:
    """The name of the first worker that answers, None when none does in time. Raises BrokerUnavailable."""
    with _translated("the broker does not answer"), _connection() as connection:
        replies = app.control.ping(timeout=PING_SECONDS, limit=1, connection=connection)
    return next((name for reply in replies or [] for name in reply), None)


def revoke(task_id: str) -> None:
    """Tell the workers that a task will not be run, whose record says so already. Raises BrokerUnavailable."""
    with _translated("the broker does not take messages"), _connection() as connection:
        app.control.revoke(task_id, connection=connection)


@contextmanager
def _connection() -> Iterator[Connection]:
    """One of its own: what is asked of it is whether it can be had."""
    with app.connection_for_write() as connection:
        connection.ensure_connection(max_retries=0)
        yield connection


_BROKER_ERRORS = (OperationalError, KombuError, OSError)


@contextmanager
def _translated(what: str) -> Iterator[None]:
    try:
        yield
    except _BROKER_ERRORS as error:
        raise BrokerUnavailable(f"{what}: {error}") from error
