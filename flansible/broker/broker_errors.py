"""Turns the errors of the broker's clients into BrokerUnavailable, with the reason in words.

kombu passes most of them on as its transport raises them: those of redis-py (flansible.store.redis_errors has their
words), and those of amqp, which are no OSError and no KombuError. Used by flansible.broker.app alone.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import amqp
from amqp import exceptions as refusals
from amqp.exceptions import Blocked as _Blocked  # type: ignore[attr-defined]  # the stubs lack it
from kombu.exceptions import KombuError

from flansible.errors import BrokerUnavailable
from flansible.store.redis_errors import REDIS_ERRORS, redis_reason

BROKER_ERRORS: tuple[type[Exception], ...] = (
    KombuError,
    amqp.AMQPError,
    refusals.MessageNacked,
    *REDIS_ERRORS,
    OSError,
)
NO_ANSWER = "does not answer"
_OTHER_REFUSAL = "refused a request; its log has the details"
# What follows "The message broker"; the first class that fits. Refusals at login come as AccessRefused too.
_REASONS: tuple[tuple[type[Exception], str], ...] = (
    (_Blocked, "is blocked: RabbitMQ is short of memory or disk (its alarms)"),
    (refusals.AccessRefused, "refuses the user or password of its URL, or does not permit this user its queues"),
    (refusals.NotAllowed, "has no such vhost as its URL names, or does not permit this user to enter it"),
    (refusals.NotFound, "has lost its exchange or a queue"),
    (refusals.PreconditionFailed, "has a queue of the same name with other settings: delete that queue"),
    (refusals.ResourceLocked, "has a queue that another connection uses alone"),
    (refusals.ResourceError, "has no resources left"),
    (refusals.ContentTooLarge, "refused a message as too large"),
    (refusals.MessageNacked, "did not take a message (is a queue full?)"),
    (refusals.ConnectionForced, "closed the connection: an operator or a shutdown did that"),
    (amqp.AMQPError, _OTHER_REFUSAL),
)
_thread = threading.local()


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Turns the errors of the broker's clients into BrokerUnavailable, whose message begins with `what`."""
    before = getattr(_thread, "is_sending", False)
    _thread.is_sending = True
    try:
        yield
    except BROKER_ERRORS as error:
        reason = _reason(error)
        words = what if reason == NO_ANSWER else f"the broker {reason}"
        raise BrokerUnavailable(f"{words}: {error}", reason) from error
    finally:
        _thread.is_sending = before


def on_blocked(message: str) -> None:
    """Raises amqp's Blocked in a thread that sends, when RabbitMQ blocks its connection.

    RabbitMQ goes on without reading from such a connection: the sender would wait for its confirmation until it times
    out, and could not say why. A worker's consumers are not concerned: messages are still delivered.
    """
    if getattr(_thread, "is_sending", False):
        raise _Blocked(message)


def _reason(error: BaseException) -> str:
    """Returns why the broker did not do what was requested, as a predicate. kombu's own errors have a cause."""
    cause: BaseException | None = error
    while cause is not None:
        for kind, reason in _REASONS:
            if isinstance(cause, kind):
                return reason
        if isinstance(cause, REDIS_ERRORS):
            return redis_reason(cause)
        cause = cause.__cause__
    return NO_ANSWER
