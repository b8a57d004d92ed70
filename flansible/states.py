"""The states of a task, in one table: what each means and what may follow it.

API documents, the store's moves, the commands, Flower and the day statistics read it; tests hold the documents, the
console (states.js) and `DayStats` in models/responses.py to it. Standard library only: the client on a user's machine
loads it as well.
"""

from __future__ import annotations

from collections.abc import Set
from enum import StrEnum
from typing import NamedTuple


class State(StrEnum):
    """The precise state of a task."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"
    TIMED_OUT = "timed_out"
    LOST = "lost"
    ERROR = "error"


class StateFacts(NamedTuple):
    """What holds for one state.

    status: the word that old clients poll: PROGRESS means "poll again", anything else is final.
    next_states: the legal moves, which the store's scripts enforce; a final state has none.
    """

    status: str
    meaning: str
    next_states: Set[State] = frozenset()


# Ansible or git ran to its end: `returncode` is its exit code.
COMPLETED_STATES = frozenset({State.SUCCEEDED, State.FAILED})
_BROKEN_OFF = frozenset({State.CANCELED, State.TIMED_OUT, State.LOST, State.ERROR})

STATES: dict[State, StateFacts] = {
    State.QUEUED: StateFacts("PROGRESS", "recorded; no worker has claimed it yet", {State.RUNNING, *_BROKEN_OFF}),
    # Back to queued: lost, and to be run again (`on_lost`).
    State.RUNNING: StateFacts(
        "PROGRESS", "claimed by exactly one worker", {State.QUEUED, *COMPLETED_STATES, *_BROKEN_OFF}
    ),
    State.SUCCEEDED: StateFacts("SUCCESS", "exit code 0, and Ansible or git did what was requested"),
    State.FAILED: StateFacts(
        "FLANSIBLE_TASK_FAILURE", "Ansible or git reported a failure; `returncode` is its exit code"
    ),
    State.CANCELED: StateFacts("CANCELED", "ended on a user's request, or because rbac.json would refuse it now"),
    State.TIMED_OUT: StateFacts("TIMEOUT", "ended because its time limit had passed"),
    State.LOST: StateFacts("LOST", "the worker was stopped or died, or the run was killed, while it ran"),
    State.ERROR: StateFacts("CELERY_FAILURE", "Flansible failed before or around Ansible"),
}
FINAL_STATES = frozenset(state for state, facts in STATES.items() if not facts.next_states)
