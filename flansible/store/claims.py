"""Claims: the atomic step by which one worker gets a queued task, and what only that worker reads and writes of it.

A task waits for a lock, for hosts or for its user's other runs in wait queues, which the same step keeps.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from flansible.errors import RecordUnreadable, StoreUnavailable
from flansible.models import AuthorizedRun, State
from flansible.store import keys, record_parsing
from flansible.store.connection import text, translated
from flansible.store.keys import task_key, task_keys
from flansible.store.recordings import Progress
from flansible.store.task_records import ReadyTask, Tasks, joined_places, ready_tasks_of
from flansible.system.timestamps import timestamp

LEASE_SECONDS = 60
AWAITS_REPORTS = "reports are awaited"
HOSTS_NEEDED = "hosts are needed"
_HOST_SET_SECONDS = 2 * 86400
_MOST_HOSTS = 20_000  # of one run; more count as all of the inventory
_READY_AT_ONCE = 100  # wait queues checked in one step


@dataclass(frozen=True)
class Claim:
    """A task that this worker runs. token: proves that, and is higher than that of each earlier claim; progress: what
    earlier attempts have stored; nonce: makes repeating the claim harmless; worker, process: who claimed it."""

    run: AuthorizedRun
    token: int
    attempt: int
    progress: Progress
    nonce: str = ""
    worker: str = ""
    process: str = ""
    lease_seconds: int = LEASE_SECONDS


@dataclass(frozen=True)
class ClaimRefusal:
    """Why a task cannot be claimed: it waits (for a lock, for hosts, or for its user's other runs), it is not queued,
    its record cannot be read (it is final now), AWAITS_REPORTS: this Redis has restarted, and some worker has not
    reported yet what it runs, or HOSTS_NEEDED: `set_hosts` has to say first where it will run.

    ready: tasks that may start in its place.
    """

    reason: str
    ready: tuple[ReadyTask, ...] = ()


class Claims(Tasks):
    """The part of Store for claims."""

    def claim(
        self,
        task_id: str,
        worker: str,
        nonce: str = "",
        process: str = "",
        lease_seconds: int = LEASE_SECONDS,
    ) -> Claim | ClaimRefusal:
        """Moves a task from queued to running, unless it has to wait.

        nonce: identifies the request: repeating one whose reply was lost returns the same reply. process: the worker's,
        as flansible.system.process_identity writes it.
        """
        return self._claim(task_id, worker, nonce or uuid.uuid4().hex, process, lease_seconds)

    def restore(self, task_id: str, claim: Claim) -> bool:
        """Records a claim again that this Redis has lost; whether the task is the worker's again."""
        more = (claim.token, claim.attempt)
        found = self._claim(task_id, claim.worker, claim.nonce, claim.process, claim.lease_seconds, *more)
        return isinstance(found, Claim) and found.token == claim.token

    def _claim(
        self,
        task_id: str,
        worker: str,
        nonce: str,
        process: str,
        lease_seconds: int,
        restored: int | str = "",
        attempt: int | str = "",
    ) -> Claim | ClaimRefusal:
        answer: Any = self._run(
            "claim",
            [*task_keys(task_id, "run"), keys.LEASES, keys.LOCKS, keys.WAITING],
            nonce,
            timestamp(),
            worker,
            process,
            lease_seconds,
            restored,
            attempt,
        )
        what = text(answer[0])
        if what == "claimed":
            try:
                run = record_parsing.authorized_run(task_id, answer[1])
                progress = Progress(*(int(value) for value in answer[4:8]))
            except (RecordUnreadable, ValueError, TypeError) as error:
                return self._refuse_unreadable(task_id, int(answer[2]), error)
            return Claim(run, int(answer[2]), int(answer[3]), progress, nonce, worker, process, lease_seconds)
        if what == "waits":
            return ClaimRefusal(text(answer[1]), ready_tasks_of(answer[2:]))
        return ClaimRefusal(what)

    def _refuse_unreadable(self, task_id: str, token: int, error: Exception) -> ClaimRefusal:
        """Ends a task that was claimed just now and cannot be run by anybody."""
        why = error.why if isinstance(error, RecordUnreadable) else "a number in it is none"
        description = f"its record cannot be read, it may be of another version ({why}); submit it again"
        moved = self.settle(task_id, State.ERROR, description, token=token)
        return ClaimRefusal(description, moved.ready)

    def set_hosts(self, task_id: str, hosts: Iterable[str] | None, places: tuple[str, ...] | None = None) -> None:
        """Records on which hosts a queued task will run; None: not known, so all of its inventories. places: its
        inventories, as `AuthorizedRun.places`, where the run does not know them."""
        names = sorted({host.encode(errors="replace") for host in hosts or ()})
        # No host at all: a play may make its own hosts.
        is_known = 0 < len(names) <= _MOST_HOSTS
        digest = sha256(b"\0".join(names)).hexdigest() if is_known else ""
        self._run(
            "set_hosts",
            [task_key(task_id), keys.host_set_key(digest)],
            digest,
            _HOST_SET_SECONDS,
            "" if places is None else 1,
            joined_places(places or ()),
            *(names if is_known else ()),
        )

    def ready_tasks(self) -> tuple[ReadyTask, ...]:
        """Returns waiting tasks that may start although their messages were not sent: the sender has died."""
        return ready_tasks_of(self._run("ready_tasks", [keys.WAITING], _READY_AT_ONCE))

    def secrets(self, task_id: str) -> bytes | None:
        """Reads a task's sealed secrets. The worker that claimed it then calls `delete_secrets`."""
        with translated():
            sealed: Any = self._redis.get(task_key(task_id, "secrets"))
        return bytes(sealed) if sealed else None

    def delete_secrets(self, task_id: str) -> None:
        """Deletes a task's secrets. When Redis is away now, the task's final move deletes them."""
        try:
            with translated():
                self._redis.delete(task_key(task_id, "secrets"))
        except StoreUnavailable:
            pass
