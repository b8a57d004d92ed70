"""A look at what a run would touch: recorded, run by a worker and waited for, within one request.

It executes nothing and is in no list (`flansible.authorization.preview_request`). When there is no answer in time it
is canceled, and what is said instead is why.
"""

from __future__ import annotations

import contextlib
import re
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

from flansible.broker import app as broker_app
from flansible.errors import BrokerUnavailable, StoreUnavailable
from flansible.models import FINAL_STATES, AuthorizedRun, State, TaskStatus
from flansible.store import Store
from flansible.web.context import services
from flansible.web.streaming import thread_slots

WAIT_SECONDS = 15.0
_PAUSE_SECONDS = 0.02
_MESSAGE_BYTES = 64 * 1024
_MOST_MESSAGES = 100
# Where Ansible begins to say something new; what follows belongs to it.
_BEGINS = re.compile(r"\[(?:WARNING|ERROR|DEPRECATION WARNING)\]|ERROR")
_WAITS = {
    "no_worker": "no worker answers",
    "workers_busy": "all workers are busy",
    "starting": "no worker has taken it",
}


@dataclass(frozen=True)
class Look:
    """plan: what the run has told, None when there is none, and `detail` says why; messages: what Ansible said."""

    plan: dict[str, Any] | None = None
    messages: list[str] = field(default_factory=list)
    detail: str | None = None


def carry_out(run: AuthorizedRun) -> Look:
    """Raises StoreUnavailable, BrokerUnavailable, SealError."""
    with thread_slots.one() as may_wait:
        if not may_wait:
            return Look(detail="too many requests are waiting for something; try again in a moment")
        return _carry_out(run)


def _carry_out(run: AuthorizedRun) -> Look:
    task_id, store = str(uuid.uuid4()), services().store
    store.submit(task_id, run, services().sealer.seal(run.secrets) if run.secrets else b"")
    try:
        broker_app.enqueue(task_id, run.summary, soon=True)
    except BrokerUnavailable:
        store.discard(task_id)
        raise
    try:
        task = _wait(store, task_id)
        if task is not None and task.state not in FINAL_STATES:
            return Look(messages=_messages(store, task_id), detail=_why_not(task))
    finally:
        # Also when Redis was away in between: what nobody waits for any more is not to be carried out.
        with contextlib.suppress(StoreUnavailable):
            store.cancel(task_id, run.user)
    return _found(store, task_id, task)


def _wait(store: Store, task_id: str) -> TaskStatus | None:
    """The task as it ended, or as it was when nobody would wait any longer."""
    give_up_at = time.monotonic() + WAIT_SECONDS
    while True:
        task = store.task(task_id)
        if task is None or task.state in FINAL_STATES or task.reason == "no_worker":
            return task
        if time.monotonic() > give_up_at:
            return task
        time.sleep(_PAUSE_SECONDS)


def _why_not(task: TaskStatus) -> str:
    if task.state is State.RUNNING:
        return f"Ansible did not answer within {WAIT_SECONDS:g} seconds, and was ended"
    reason = task.reason or ""
    waits = "another look of yours is not over" if reason.startswith("locked_by") else _WAITS.get(reason, reason)
    return f"{waits}; try again"


def _found(store: Store, task_id: str, task: TaskStatus | None) -> Look:
    if task is None:
        return Look(detail="its record is gone; try again")
    messages = _messages(store, task_id)
    told = [event for event in store.event_page(task_id) if event["event"] == "plan"]
    if task.state is not State.SUCCEEDED or not told:
        return Look(messages=messages, detail=task.description)
    if told[0]["too_large"]:
        return Look(messages=messages, detail="there is more of it than a reply can hold")
    return Look(plan=told[0]["plan"], messages=messages)


def _messages(store: Store, task_id: str) -> list[str]:
    """What Ansible printed, message by message."""
    messages: list[str] = []
    for line in store.output(task_id, 0, _MESSAGE_BYTES).decode(errors="replace").splitlines():
        if not messages or _BEGINS.match(line):
            messages.append(line)
        else:
            messages[-1] += "\n" + line
    return [text.strip() for text in messages[:_MOST_MESSAGES] if text.strip()]
