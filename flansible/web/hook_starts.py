"""Starts the calls of webhooks that have waited for others (`debounce`), in the process that starts schedules.

A call is taken for a while before it is started, and its task has a key: whoever goes on after a process that died
starts nothing twice.
"""

from __future__ import annotations

import logging
import time

from flansible.errors import NotFound, RequestError, TooManyRequests
from flansible.history.hook_call_rows import REFUSED, STARTED, HookCallRows, StoredHookCall
from flansible.web import hook_calls, task_launch
from flansible.web.context import WebContext

log = logging.getLogger(__name__)

_TAKEN_MS = 60_000  # longer than a launch takes
_PAUSE_MS = 10_000
_GIVEN_UP_MS = 2 * 3600 * 1000  # after it was received
_MOST_SECONDS = 2.0  # at a time: schedules are started by the same thread


def start_due(context: WebContext) -> None:
    """Starts the calls that are due. Raises StoreUnavailable."""
    rows, give_way_at = context.hook_calls, time.monotonic() + _MOST_SECONDS
    while rows is not None and time.monotonic() < give_way_at:
        call = rows.take_due(_now(), _now() + _TAKEN_MS)
        if call is None:
            return
        _start(context, rows, call)


def _start(context: WebContext, rows: HookCallRows, call: StoredHookCall) -> None:
    try:
        launched = _launch(context, call)
    except (*task_launch.MAY_SUCCEED_LATER, TooManyRequests) as error:
        if _now() < call.received + _GIVEN_UP_MS:
            log.info("call %s of webhook %s is started later: %s", call.id, call.webhook, error)
            rows.postpone(call.id, _now() + _PAUSE_MS)
        else:
            rows.settle(call.id, REFUSED, None, f"could not be started in time: {error}"[:500])
    except RequestError as error:
        rows.settle(call.id, REFUSED, None, hook_calls.reason_of(error))
    except Exception:  # one that cannot be started must not hold up the others
        log.exception("call %s of webhook %s cannot be started", call.id, call.webhook)
        rows.settle(call.id, REFUSED, None, "internal_error: see the log of the web server")
    else:
        rows.settle(call.id, STARTED, launched)


def _launch(context: WebContext, call: StoredHookCall) -> str:
    webhook = hook_calls.of_call(context, call)
    if webhook.owner != call.owner:
        raise NotFound("The webhook of this call is another user's now.", code="definition_not_found")
    event = task_launch.background_event(call.owner, f"webhook {call.webhook}")
    return webhook.launch(call, f"hook call {call.id}", event).task_id


def _now() -> int:
    return time.time_ns() // 1_000_000
