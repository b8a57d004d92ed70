"""Worker records: whether each worker can run tasks, and which process has its name."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from flansible.models import DEFAULT_QUEUE, ForkServerCounts
from flansible.store.connection import Connection, text, translated
from flansible.store.keys import WORKER_RECORDS

# Without a report for this long a worker does not count as able to run tasks, and another may take its name.
REPORT_LOST_SECONDS = 10.0


@dataclass(frozen=True)
class WorkerRecord:
    """What a worker reported last.

    name: its Celery name; process: as flansible.system.process_identity writes it; problem: why it cannot run tasks,
    empty when it can; age_seconds: since the report, by Redis' clock; counts: of its fork servers, None
    of an older worker; queues: those that it serves.
    """

    name: str
    process: str
    problem: str
    age_seconds: float
    counts: ForkServerCounts | None = None
    queues: tuple[str, ...] = (DEFAULT_QUEUE,)

    @property
    def is_live(self) -> bool:
        return self.age_seconds < REPORT_LOST_SECONDS


class WorkerRecords(Connection):
    """The part of Store for what workers report about themselves."""

    def report_worker(
        self,
        name: str,
        process: str,
        problem: str,
        dead: str = "",
        counts: ForkServerCounts | None = None,
        queues: Iterable[str] = (DEFAULT_QUEUE,),
    ) -> bool:
        """Writes a worker's record. False, and nothing is written, while another process has the name: one that
        reported within REPORT_LOST_SECONDS and is not `dead`, a process known to have ended."""
        encoded = counts.model_dump_json() if counts else ""
        arguments = name, process, problem, dead, REPORT_LOST_SECONDS, "write", encoded, ",".join(queues)
        return bool(self._run("report_worker", [WORKER_RECORDS], *arguments))

    def remove_worker_record(self, name: str, process: str) -> None:
        """Removes the record of a worker that is about to end, unless another process has its name by now."""
        self._run("report_worker", [WORKER_RECORDS], name, process, "", "", REPORT_LOST_SECONDS, "remove", "", "")

    def worker_records(self) -> list[WorkerRecord]:
        """Lists the records by name, those of workers that are no longer live included."""
        with translated():
            pipeline = self._redis.pipeline(transaction=False)
            pipeline.hgetall(WORKER_RECORDS)
            pipeline.time()
            found, (seconds, microseconds) = pipeline.execute()
        now = seconds + microseconds / 1e6
        records: dict[str, dict[str, Any]] = {text(name): json.loads(value) for name, value in found.items()}
        return [
            WorkerRecord(
                name,
                record["process"],
                record["problem"],
                now - record["time"],
                _counts(record.get("counts")),
                tuple(record.get("queues", DEFAULT_QUEUE).split(",")),
            )
            for name, record in sorted(records.items())
        ]


def _counts(encoded: str | None) -> ForkServerCounts | None:
    return ForkServerCounts.model_validate_json(encoded) if encoded else None
