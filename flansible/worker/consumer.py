"""Celery's consumer, which takes messages from the broker, made to outlive the broker's absence.

Runs in the worker's main thread; named in celery_app (`worker_consumer`). Supervisors go on in their threads meanwhile
and never notice: a run is no message, and none waits to be acknowledged while it goes on.
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
# For kombu's critical lines, with a traceback each, about messages that cannot be acknowledged: it is harmless here.
_UNHEARD = logging.getLogger(f"{__name__}.unheard")
_UNHEARD.disabled = True

_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 2.0
# At hand beside those that run: without one a free slot would wait for the broker, and any more could be run elsewhere.
_PREFETCHED = 1


# The types that are published for Celery know half of it.
_CeleryConsumer: Any = consumer.Consumer
_RUN: Any = bootsteps.RUN  # type: ignore[attr-defined]


class Consumer(_CeleryConsumer):  # type: ignore[misc]
    """Celery's, without the habits that keep a worker from working: for long, or for good."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "initial_prefetch_count": _PREFETCHED})
        # About a setting that celery_app makes, and that this warning is blind to.
        warnings.filterwarnings("ignore", category=CPendingDeprecationWarning)

    def ensure_connected(self, conn: Any) -> Any:
        """Ask until there is one. Celery's pauses grow to half a minute, and the return would be noticed as late."""
        asked_since: float | None = None

        def say(error: Exception, _pause: float) -> None:
            nonlocal asked_since
            if asked_since is None:
                asked_since = time.monotonic()
                log.warning("the broker %s is away and is asked until it is back: %s", conn.as_uri(), error)

        connected = conn.ensure_connection(
            say,
            interval_start=_FIRST_PAUSE_SECONDS,
            interval_step=_FIRST_PAUSE_SECONDS,
            interval_max=_LONGEST_PAUSE_SECONDS,
            callback=maybe_shutdown,
        )
        if asked_since is not None:
            log.warning("the broker %s is back after %.1f s", conn.as_uri(), time.monotonic() - asked_since)
        self.first_connection_attempt = False
        self.broker_connection_retry_attempt = 0
        return connected

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Let go of a dead connection. On Redis Celery closes it twice, and the second time ends the worker.

        (The first close fails where it waits for a message; the second finds a channel without a transport.)
        """
        try:
            super().on_connection_error_after_connected(exc)
        except Exception as error:
            log.debug("a dead connection was not closed cleanly: %r", error)

    def call_soon_ack(self, p: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Acknowledge or reject in the event loop; `p` is the message's method, `args` begins with a logger and errors.

        Celery logs those errors and goes on, but a channel that waits for an acknowledgement in vain delivers nothing
        more: there is to be a new one. Of a channel that is gone any error may come, and none may end the loop.
        """
        _logger, _errors, *rest = args

        def settle() -> None:
            try:
                p(_UNHEARD, (), *rest, **kwargs)
            except Exception as error:
                log.debug("a message was not acknowledged: %r", error)
                if isinstance(error, self.connection_errors):
                    # In its next round: now the loop may be cleaning up after the very same loss.
                    super(Consumer, self).call_soon_ack(self._reconnect, p, error)

        return super().call_soon_ack(settle)

    def _reconnect(self, settle: Callable[..., Any], error: Exception) -> None:
        """What the loop raises makes it reconnect; not for a message of a channel that has been replaced already."""
        if self._delivers(settle):
            raise error

    def _delivers(self, settle: Callable[..., Any]) -> bool:
        """Whether a message came on the channel that messages come on now."""
        message = getattr(settle, "__self__", None)
        running = self.blueprint.state == _RUN and self.task_consumer is not None
        return running and getattr(message, "channel", None) is self.task_consumer.channel
