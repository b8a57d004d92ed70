"""Runs a preview: recorded, run by a worker and waited for, within one request.

The preview run executes nothing and is in no list (`flansible.authorization.preview_request`). When it has no result
in time it is canceled, and the reply says why.
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
from flansible.models import DEFAULT_QUEUE, FINAL_STATES, AuthorizedRun, State, TaskStatus
from flansible.store import Store
from flansible.web.context import web_context
from flansible.web.streaming import thread_slots

WAIT_SECONDS = 15.0
_POLL_SECONDS = 0.02
_MESSAGE_BYTES = 64 * 1024
_MOST_MESSAGES = 100
# The start of a message of Ansible's; the lines after it belong to it.
_MESSAGE_START = re.compile(r"\[(?:WARNING|ERROR|DEPRECATION WARNING)\]|ERROR|\[flansible\] ")
_QUEUED_REASONS = {
    "workers_busy": "all workers are busy",
    "starting": "no worker has taken it",
}


@dataclass(frozen=True)
class PreviewResult:
    """content: what the preview run reported; None: nothing, and `detail` says why. messages: what Ansible printed."""

    content: dict[str, Any] | None = None
    messages: list[str] = field(default_factory=list)
    detail: str | None = None


def run_preview(run: AuthorizedRun, wait_seconds: float = WAIT_SECONDS) -> PreviewResult:
    """Has a worker carry out the preview run, and waits for its result.

    Raises StoreUnavailable, BrokerUnavailable, SealError.
    """
    with thread_slots.slot(run.user) as may_wait:
        if not may_wait:
            return PreviewResult(detail="too many requests are waiting for something; try again in a moment")
        return _submit_and_wait(run, wait_seconds)


def _submit_and_wait(run: AuthorizedRun, wait_seconds: float) -> PreviewResult:
    task_id, store = str(uuid.uuid4()), web_context().store
    store.submit(task_id, run, web_context().sealer.seal(run.secrets) if run.secrets else b"")
    try:
        broker_app.enqueue(task_id, run.summary, priority=True, queue=run.queue)
    except BrokerUnavailable:
        store.discard(task_id)
        raise
    try:
        if run.steps[0].program == "project":
            store.announce_lookup(task_id, run.queue)
        task = _wait(store, task_id, wait_seconds)
        if task is not None and task.state not in FINAL_STATES:
            return PreviewResult(messages=_messages(store, task_id), detail=_unfinished_reason(task, wait_seconds))
    finally:
        # Also when Redis was down in between: a preview that no request waits for must not start.
        with contextlib.suppress(StoreUnavailable):
            store.cancel(task_id, run.user)
    return _result(store, task_id, task)


def _wait(store: Store, task_id: str, wait_seconds: float) -> TaskStatus | None:
    """Polls until the task is final, cannot start, or the time is over; returns its last status."""
    deadline = time.monotonic() + wait_seconds
    while True:
        task = store.task(task_id)
        if task is None or task.state in FINAL_STATES or task.reason == "no_worker":
            return task
        if time.monotonic() > deadline:
            return task
        time.sleep(_POLL_SECONDS)


def _unfinished_reason(task: TaskStatus, wait_seconds: float) -> str:
    if task.state is State.RUNNING:
        return f"it did not finish within {wait_seconds:g} seconds, and was ended"
    reason = task.reason or ""
    if reason == "no_worker":
        queue = task.queue or DEFAULT_QUEUE
        return (
            f"no worker serves queue {queue}; start one with `flansible worker --queues {queue}`, "
            "or name another queue in the request or its project"
        )
    if reason.startswith("locked_by"):
        return "another preview of yours is still running; try again"
    return f"{_QUEUED_REASONS.get(reason, reason)}; try again"


def _result(store: Store, task_id: str, task: TaskStatus | None) -> PreviewResult:
    if task is None:
        return PreviewResult(detail="its record has expired; try again")
    messages = _messages(store, task_id)
    events = [event for event in store.event_page(task_id) if event["event"] == "plan"]
    if task.state is not State.SUCCEEDED or not events:
        return PreviewResult(messages=messages, detail=task.description)
    if events[0]["too_large"]:
        return PreviewResult(messages=messages, detail="there is more of it than a reply can hold")
    return PreviewResult(content=events[0]["plan"], messages=messages)


def _messages(store: Store, task_id: str) -> list[str]:
    """Splits the output of Ansible into messages."""
    messages: list[str] = []
    for line in store.output(task_id, 0, _MESSAGE_BYTES).decode(errors="replace").splitlines():
        if not messages or _MESSAGE_START.match(line):
            messages.append(line)
        else:
            messages[-1] += "\n" + line
    return [text.strip() for text in messages[:_MOST_MESSAGES] if text.strip()]
