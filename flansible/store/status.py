"""Makes a task's status, as the API shows it, from its record."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import ValidationError

from flansible.errors import RecordUnreadable
from flansible.models import FINAL_STATES, STATES, State, TaskStatus, Visibility
from flansible.store.connection import text
from flansible.store.record_parsing import validation_reason
from flansible.system.timestamps import timestamp

# The description of a queued task, by why it waits; a task that was lost and queued again keeps its own.
_SUBMITTED = "waiting for a worker"
_WAITS = {
    "no_worker": "waiting for a worker: none is running",
    "workers_busy": "waiting for a worker: all are busy",
    "user_limit": "waiting until another run of this user ends",
    "starting": _SUBMITTED,
}

# What is read of a record for a status; the state first, as lua/status.lua expects it.
STATUS_FIELDS = (
    "state",
    "description",
    "returncode",
    "user",
    "kind",
    "summary",
    "submitted_at",
    "started_at",
    "finished_at",
    "attempt",
    "ended",
    "about",
    "counts",
    "warning",
    "play_task",
    "expected_play_tasks",
    "visibility",
    "queue",
)


def status(task_id: str, values: list[Any], waiting: list[Any] | None = None) -> TaskStatus | None:
    """Returns the status, or None without a record. values: those of STATUS_FIELDS; waiting: what `lua/status.lua`
    returns besides for a queued task. Raises RecordUnreadable."""
    try:
        return _status(task_id, values, waiting)
    except ValidationError as error:
        raise RecordUnreadable(task_id, validation_reason(error)) from error
    except KeyError as error:
        raise RecordUnreadable(task_id, f"its field {error} is missing") from error
    except (
        ValueError,
        TypeError,
        AttributeError,
    ) as error:  # no number, no JSON, or a state of a later version
        raise RecordUnreadable(task_id, "a field of it has an unknown form") from error


def _status(task_id: str, values: list[Any], waiting: list[Any] | None) -> TaskStatus | None:
    found = {name: text(value) for name, value in zip(STATUS_FIELDS, values, strict=True) if value is not None}
    if "state" not in found:
        return None
    state = State(found["state"])
    word = STATES[state].status
    attempt = int(found.get("attempt", 1))
    queue = _queue(waiting) if waiting else {}
    if queue and found["description"] == _SUBMITTED:
        found["description"] = _WAITS.get(queue["reason"]) or _held_words(queue)
        if queue["reason"] == "no_worker" and "queue" in found:
            found["description"] = f"waiting for a worker: none is running that serves queue {found['queue']}"
    shown = TaskStatus(
        task_id=task_id,
        Status=f"{word}: {found['description']}" if state is State.ERROR else word,
        state=state,
        description=found["description"],
        returncode=int(found["returncode"]) if "returncode" in found else None,
        user=found["user"],
        kind=found["kind"],  # type: ignore[arg-type]  # validated by the model
        summary=found["summary"],
        submitted_at=found["submitted_at"],
        started_at=found.get("started_at"),
        finished_at=found.get("finished_at"),
        attempt=attempt if attempt > 1 else None,
        warning=found.get("warning"),
        ended=json.loads(found["ended"]) if "ended" in found else None,
        queue=found.get("queue") if state not in FINAL_STATES else None,
        **_shown_in_lists(found),
        **queue,
    )
    return (
        shown.with_visibility(Visibility.model_validate_json(found["visibility"])) if "visibility" in found else shown
    )


def _held_words(queue: dict[str, Any]) -> str:
    if queue["reason"].startswith("host_held_by: "):
        return f"waiting for {queue['waiting_host'] or 'hosts'}: another task runs there, or comes first"
    return "waiting for a lock that another task holds"


def _shown_in_lists(found: dict[str, str]) -> dict[str, Any]:
    counts = json.loads(found["counts"]) if "counts" in found else {}
    about = json.loads(found["about"]) if "about" in found else {}
    totals = {"host_count": counts.pop("hosts", 0), "play_task_count": counts.pop("play_tasks", 0)}
    expected = int(found["expected_play_tasks"]) if "expected_play_tasks" in found else None
    now = {"play_task": found.get("play_task"), "expected_play_tasks": expected}
    changed = counts.get("changed", 0) > 0 if State(found["state"]) in FINAL_STATES else None
    return {**totals, **now, "changed": changed, "counts": counts, **about}


def _queue(waiting: list[Any]) -> dict[str, Any]:
    """Returns a queued task's position, why it waits, and its estimated start, from recent run times."""
    position, waits_for, slots, running, mean, moment, since, ahead, most, host = (text(value) for value in waiting)
    reason = waits_for or "starting"
    if not waits_for and int(slots) == 0:
        reason = "no_worker"
    elif not waits_for and int(running) >= int(slots):
        reason = "workers_busy"
    wait_seconds: float | None = None
    if reason == "starting":
        wait_seconds = 0.0
    elif mean and reason == "workers_busy":
        wait_seconds = float(mean) * (int(position) - 0.5) / int(slots)
    elif mean and reason == "user_limit":
        wait_seconds = float(mean) * (int(ahead) + 0.5) / int(most)
    elif mean and since:
        wait_seconds = max(0.0, float(since) + float(mean) - float(moment)) + float(mean) * int(ahead)
    expected = None if wait_seconds is None else timestamp(datetime.now(UTC) + timedelta(seconds=wait_seconds))
    return {
        "queue_position": int(position),
        "reason": reason,
        "waiting_host": host or None,
        "expected_start": expected,
    }
