"""The Celery app, and what web and workers do with the broker: enqueue tasks, ping, revoke.

`celery -A flansible.celery_app worker` and `flower` use `app`. Its configuration is read when Celery first needs it,
never at import; `configure` may set it before.

A broker may be down, or accept connections and never reply. Each function here returns within a few seconds or raises
BrokerUnavailable. A message is only a task id: losing one, or sending one twice, is harmless.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from celery import Celery
from celery.utils.nodenames import host_format
from kombu import Connection, Exchange, Queue

from flansible import config
from flansible.broker.broker_errors import BROKER_ERRORS, on_blocked, translated
from flansible.config import Settings
from flansible.models import DEFAULT_QUEUE

RUN_TASK = "flansible.run"
_EXCHANGE = "flansible"
_NO_QUEUE = "flansible.check"
CONNECT_TIMEOUT_SECONDS = 3
REPLY_TIMEOUT_SECONDS = 3
PING_SECONDS = 1.5
# An idle connection may have died meanwhile. A failure within this time is taken for that, and tried again once.
_STALE_CONNECTION_SECONDS = 1.0
_HEARTBEAT_SECONDS = 10
_POOL_CONNECTIONS = 10  # at most, in a worker; a web process has one for each of its threads
# An unacknowledged message is delivered again after this long. The claim makes that harmless; a day keeps it rare.
_VISIBILITY_TIMEOUT_SECONDS = 24 * 3600

_settings: Settings | None = None


def configure(settings: Settings) -> None:
    """Sets the settings of this process. Call it before the app is used."""
    global _settings
    _settings = settings


def settings() -> Settings:
    """Returns the settings of this process; reads config.ini unless `configure` was called (`celery -A` by hand)."""
    global _settings
    if _settings is None:
        _settings = config.load()
    return _settings


def _transport_options(broker_url: str) -> dict[str, Any]:
    """Returns the options of the broker's transport; kombu's transports have different names for them.

    Without reply timeouts, a process would wait for a frozen broker until it continues.
    """
    # One attempt to connect: callers that need the broker for longer than one request try again themselves.
    shared = {"max_retries": 0}
    if broker_url.startswith("amqp"):
        return {
            **shared,
            "confirm_publish": True,
            "on_blocked": on_blocked,
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
        # The priority queue first. By default kombu takes from the queues in turn.
        "queue_order_strategy": "priority",
    }


def _queue(name: str, priority: bool) -> Queue:
    """Returns the broker's queue for tasks of this queue.

    priority: for tasks that have waited already, for a lock or a limit: they must not wait behind all others as well.
    """
    base = _EXCHANGE if name == DEFAULT_QUEUE else f"{_EXCHANGE}.queue.{name}"
    in_broker = f"{base}.next" if priority else base
    return Queue(in_broker, Exchange(_EXCHANGE, "direct"), routing_key=in_broker)


def _queues(names: Iterable[str]) -> list[Queue]:
    """Returns the broker's queues of these queues: a worker takes first from those that come first."""
    return [_queue(name, priority) for priority in (True, False) for name in names]


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
        "task_queues": _queues(found.queues),
        "task_default_queue": _EXCHANGE,
        "task_ignore_result": True,
        "task_store_errors_even_if_ignored": False,
        "task_serializer": "json",
        "accept_content": ["json"],
        # Acknowledged when the task begins. If the worker dies, recovery finds the task by its lease; a message that
        # stays unacknowledged during a whole run causes trouble with brokers and with workers that reconnect.
        "task_acks_late": False,
        "task_reject_on_worker_lost": False,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_enable_prefetch_count_reduction": False,
        "worker_consumer": "flansible.worker.consumer:Consumer",
        # Supervisors wait rather than compute, so each has a thread. Ansible itself is never in this process.
        "worker_pool": "flansible.worker.thread_pool:TaskPool",
        # A worker fetches a message only when a slot is free. With RabbitMQ that is impossible: it sends one ahead.
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
    """Loads what publishing and control commands need, without connecting; processes forked later share it."""
    app.finalize()
    _ = app.amqp.queues, app.amqp.send_task_message, app.control, app.events
    with app.connection_for_write() as connection:
        _ = connection.transport


def run_worker(name: str, log_level: str) -> int:
    """Runs the Celery worker until it is stopped; returns the exit code. Main thread only.

    Celery's own command line would load its shell and Flower's server as well.
    """
    worker = app.Worker(
        hostname=host_format(f"{name}@%h"),
        loglevel=log_level.upper(),
        quiet=True,
        # Mingle delays the start by a second; gossip sends messages between workers. Neither is used here.
        without_mingle=True,
        without_gossip=True,
    )
    worker.start()
    return int(worker.exitcode or 0)


def enqueue(task_id: str, summary: str, priority: bool = False, queue: str = DEFAULT_QUEUE) -> None:
    """Puts the id of a recorded task on its queue; Flower shows the summary. Raises BrokerUnavailable.

    priority: before all tasks that were enqueued without it.
    """
    began = time.monotonic()
    with translated("the broker does not take messages"):
        try:
            _publish(task_id, summary, _queue(queue, priority))
        except BROKER_ERRORS:
            if time.monotonic() - began > _STALE_CONNECTION_SECONDS:
                raise
            _publish(task_id, summary, _queue(queue, priority))


def _publish(task_id: str, summary: str, queue: Queue) -> None:
    with app.producer_or_acquire() as producer:
        try:
            app.send_task(
                RUN_TASK,
                args=(task_id,),
                task_id=task_id,
                queue=queue,  # type: ignore[arg-type]  # the stubs know names alone
                argsrepr=f"({summary})",
                kwargsrepr="{}",
                retry=False,
                producer=producer,
            )
        except BROKER_ERRORS:
            # Back in the pool, the connection would fail again, or take a late reply for that to the next command.
            producer.connection.collect()
            raise


def check_broker() -> None:
    """Checks that the broker takes messages: does what `enqueue` does, with one that goes to no queue.

    One that only accepts connections may be full, read-only, or not permit the queues. Raises BrokerUnavailable.
    """
    with translated("the broker does not answer"), _connection() as connection:
        channel = connection.default_channel
        for queue in app.amqp.queues.values():
            queue(channel).declare()
        with app.amqp.Producer(channel) as producer:
            producer.publish({}, exchange=_EXCHANGE, routing_key=_NO_QUEUE, retry=False)


def ping_worker(names: list[str]) -> str | None:
    """Returns the first of these workers that replies, None when none does in time. Raises BrokerUnavailable."""
    with translated("the broker does not answer"), _connection() as connection:
        replies = app.control.ping(destination=names, timeout=PING_SECONDS, limit=1, connection=connection)
    return next((name for reply in replies or [] for name in reply), None)


def revoke(task_id: str) -> None:
    """Revokes a Celery task whose record is canceled already. Raises BrokerUnavailable."""
    with translated("the broker does not take messages"), _connection() as connection:
        app.control.revoke(task_id, connection=connection)


@contextmanager
def _connection() -> Iterator[Connection]:
    """Opens a new connection: callers check whether the broker accepts one."""
    with app.connection_for_write() as connection:
        connection.ensure_connection(max_retries=0)
        yield connection
