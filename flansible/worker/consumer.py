"""Celery's consumer, which takes messages from the broker, made to survive a broker that is away.

Runs in the worker's main thread; named in broker/app.py (`worker_consumer`). Supervisors continue in their threads
meanwhile: messages are acknowledged before their run starts, so no run depends on the connection.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable
from typing import Any

from celery import bootsteps
from celery.exceptions import CPendingDeprecationWarning
from celery.worker import consumer
from celery.worker.state import maybe_shutdown

log = logging.getLogger(__name__)
# Takes kombu's CRITICAL lines and tracebacks about messages that cannot be acknowledged: harmless here, so disabled.
_MUTED_LOG = logging.getLogger(f"{__name__}.muted")
_MUTED_LOG.disabled = True

_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 2.0
# Messages held beside those that run: with none a free slot would wait for the broker; more could run on other workers.
_PREFETCHED = 1


# Typed Any: Celery's published types are incomplete.
_CeleryConsumer: Any = consumer.Consumer
_RUN: Any = bootsteps.RUN  # type: ignore[attr-defined]


class Consumer(_CeleryConsumer):  # type: ignore[misc]
    """Celery's consumer, without the faults that stop a worker for long or for good when the broker goes away."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "initial_prefetch_count": _PREFETCHED})
        # The setting that it warns about is made in broker/app.py; the warning does not check it.
        warnings.filterwarnings("ignore", category=CPendingDeprecationWarning)

    def ensure_connected(self, conn: Any) -> Any:
        """Retries until connected, at most two seconds apart: Celery's own pauses grow to half a minute."""
        away_since: float | None = None

        def log_once(error: Exception, _pause: float) -> None:
            nonlocal away_since
            if away_since is None:
                away_since = time.monotonic()
                log.warning("the broker %s does not answer; retrying until it does: %s", conn.as_uri(), error)

        connected = conn.ensure_connection(
            log_once,
            interval_start=_FIRST_PAUSE_SECONDS,
            interval_step=_FIRST_PAUSE_SECONDS,
            interval_max=_LONGEST_PAUSE_SECONDS,
            callback=maybe_shutdown,
        )
        if away_since is not None:
            log.warning("the broker %s answers again after %.1f s", conn.as_uri(), time.monotonic() - away_since)
        self.first_connection_attempt = False
        self.broker_connection_retry_attempt = 0
        return connected

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Closes a dead connection without failing: on Redis Celery closes it twice, and the second ends the worker.

        (The first close fails where it waits for a message; the second finds a channel without a transport.)
        """
        try:
            super().on_connection_error_after_connected(exc)
        except Exception as error:
            log.debug("a dead connection was not closed cleanly: %r", error)

    def call_soon_ack(self, p: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Acknowledges or rejects in the event loop. p: the message's method; args: a logger, errors, p's arguments.

        Celery logs those errors and continues, but a channel that misses an acknowledgement delivers nothing more: it
        must be replaced. A closed channel can raise any error, and none may end the loop.
        """
        _logger, _errors, *rest = args

        def settle() -> None:
            try:
                p(_MUTED_LOG, (), *rest, **kwargs)
            except Exception as error:
                log.debug("a message was not acknowledged: %r", error)
                if isinstance(error, self.connection_errors):
                    # In the loop's next round: in this one it may already be handling the same loss.
                    super(Consumer, self).call_soon_ack(self._reconnect, p, error)

        return super().call_soon_ack(settle)

    def _reconnect(self, settle: Callable[..., Any], error: Exception) -> None:
        """Raises the error in the loop, which makes it reconnect; unless the message's channel is replaced already."""
        if self._is_current_channel(settle):
            raise error

    def _is_current_channel(self, settle: Callable[..., Any]) -> bool:
        """Whether the message came on the channel now in use."""
        message = getattr(settle, "__self__", None)
        running = self.blueprint.state == _RUN and self.task_consumer is not None
        return running and getattr(message, "channel", None) is self.task_consumer.channel
