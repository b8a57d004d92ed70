"""What the archiver needs of Redis: who it is, which tasks are final, all of one, and forgetting it.

Used by flansible.history, which copies final tasks to the history database. A task is forgotten only by the archiver
that was elected last, and only as it was copied.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flansible.errors import RecordUnreadable
from flansible.models import FINAL_STATES, TaskStatus
from flansible.store import keys, status
from flansible.store.connection import Connection, text, translated
from flansible.store.keys import task_key
from flansible.store.recordings import COLOURS_PER_SEGMENT, SEGMENT_BYTES, Progress


@dataclass(frozen=True)
class FinalRecord:
    """A final task as Redis has it. number: orders the lists; counts: the record's own JSON; run: the AuthorizedRun as
    JSON; stored: how much there is of output, colours and events."""

    number: int
    status: TaskStatus
    counts: str
    run: bytes
    stored: Progress


@dataclass(frozen=True)
class FinishedTask:
    """A final task that waits to be archived. member: what flansible:expiring has of it."""

    task_id: str
    member: str


@dataclass(frozen=True)
class ArchiverReport:
    """What the elected worker reported last. problem: why it cannot archive, '' when it can; age_seconds: since then;
    None: never."""

    problem: str = ""
    age_seconds: float | None = None


class ArchiveQueue(Connection):
    """The part of Store for moving final tasks to the history database."""

    def elect_archiver(self, holder: str, seconds: float) -> int | None:
        """Makes this process the archiver for so long, unless another one is. Returns its token, None: another one is.

        holder: the process, as flansible.system.process_identity writes it.
        """
        answer: Any = self._run("elect_archiver", [keys.ARCHIVER], holder, seconds)
        return int(answer) if text(answer) else None

    def has_archiver(self) -> bool:
        """Whether some process is the archiver now."""
        with translated():
            pipeline = self._redis.pipeline(transaction=False)
            pipeline.hget(keys.ARCHIVER, "until")
            pipeline.time()
            ends, (seconds, microseconds) = pipeline.execute()
        return ends is not None and float(ends) > seconds + microseconds / 1e6

    def run_id(self) -> str:
        """Identifies the run of this Redis: another one may have lost what was written last."""
        with translated():
            return str(self._redis.info("server").get("run_id", ""))

    def report_archiver(self, token: int, problem: str) -> None:
        """Notes whether the archiver with this token can archive; does nothing for an earlier one."""
        self._run("report_archiver", [keys.ARCHIVER], token, problem)

    def archiver_report(self) -> ArchiverReport:
        """Reads what the archiver reported last."""
        with translated():
            pipeline = self._redis.pipeline(transaction=False)
            pipeline.hmget(keys.ARCHIVER, ["problem", "reported"])
            pipeline.time()
            (problem, reported), (seconds, microseconds) = pipeline.execute()
        if reported is None:
            return ArchiverReport()
        return ArchiverReport(text(problem or ""), seconds + microseconds / 1e6 - float(reported))

    def finished_count(self) -> int:
        """Counts the final tasks, hidden ones apart."""
        with translated():
            return int(self._redis.zcard(keys.EXPIRING))

    def finished(self, first: int, limit: int) -> list[FinishedTask]:
        """Lists final tasks, those first that ended first, from position `first` on."""
        with translated():
            found: Any = self._redis.zrange(keys.EXPIRING, first, first + limit - 1)
        members = [text(member) for member in found]
        return [FinishedTask(member.partition(" ")[0], member) for member in members]

    def final_record(self, task_id: str) -> FinalRecord | None:
        """Reads a final task; None when it is gone, or not final. Raises RecordUnreadable."""
        more = ("seq", "counts", "output_bytes", "colours", "events", "events_end")
        with translated():
            pipeline = self._redis.pipeline(transaction=True)
            pipeline.hmget(task_key(task_id), [*status.STATUS_FIELDS, *more])
            pipeline.get(task_key(task_id, "run"))
            values, run = pipeline.execute()
        found = status.status(task_id, values[: len(status.STATUS_FIELDS)])
        if found is None or found.state not in FINAL_STATES:
            return None
        number, counts, *stored = values[len(status.STATUS_FIELDS) :]
        try:
            progress = Progress(*(int(value or 0) for value in stored))
            return FinalRecord(int(number), found, text(counts or "{}"), bytes(run or b""), progress)
        except (TypeError, ValueError) as error:
            raise RecordUnreadable(task_id, "a number in it is none") from error

    def event_texts(self, task_id: str, after: int, limit: int, max_bytes: int) -> list[tuple[int, bytes]]:
        """Reads events with a seq above `after` as they are stored, like `event_page`."""
        names = [task_key(task_id, "events"), task_key(task_id, "by_host")]
        row: Any = self._run("events", names, after, limit, max_bytes, "")
        return [(int(seq), bytes(event)) for seq, event in zip(row[::2], row[1::2], strict=True)]

    def forget(self, task: FinishedTask, token: int, stored: Progress) -> bool:
        """Deletes a task of which so much was copied; whether nothing is left of it. False: another archiver was
        elected, or the task is not as it was copied."""
        answer: Any = self._run(
            "forget",
            [task_key(task.task_id), keys.ARCHIVER],
            token,
            task.member,
            SEGMENT_BYTES,
            COLOURS_PER_SEGMENT,
            stored.output_bytes,
            stored.events,
        )
        return bool(answer)
