"""Copies one final task from Redis to the database, in one transaction, and reads it back.

Called by the archiver (flansible.worker.archiver). The same call after a crash at any moment writes nothing twice: the
task's id is unique, and a copy that is there already is only checked.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from flansible.errors import ArchiverReplaced, HistoryUnavailable, RecordUnreadable
from flansible.history import encoding, host_summaries, read_back, schema, summaries
from flansible.history.database import Database
from flansible.history.encoding import milliseconds
from flansible.history.host_results import HostResults
from flansible.history.host_summaries import HostEnd
from flansible.history.read_back import Digests
from flansible.history.search_index import SearchIndex, TaskIndexer
from flansible.models import Origin
from flansible.store import ColourMark, FinalRecord, Progress, Store

log = logging.getLogger(__name__)

_READ_BYTES = 1024 * 1024
_READ_EVENTS = 1000
_ROWS = 500  # of hosts in one statement
_ABOUT = {"playbook", "module", "hosts", "inventory", "project", "ref", "commit"}
_ROW_BYTES = 400  # of a task's row and its entries in the indexes, about


@dataclass
class _Written:
    """What was written of a task so far. bytes: of all but its hosts."""

    digests: Digests = field(default_factory=Digests)
    bytes: int = _ROW_BYTES


class ArchiveWriter:
    """Copies tasks for the archiver with one token. still_elected: renews the election; False: another one has it;
    keep_facts: whether the facts of hosts are kept."""

    def __init__(
        self,
        store: Store,
        database: Database,
        token: int,
        still_elected: Callable[[], bool],
        keep_facts: bool = True,
    ) -> None:
        self._store = store
        self._database = database
        self._token = token
        self._still_elected = still_elected
        self._keep_facts = keep_facts

    def archive(self, record: FinalRecord) -> Progress:
        """Copies a task, unless it was copied before, and checks the copy. Returns how much of it Redis has.

        Raises StoreUnavailable, HistoryUnavailable, RecordUnreadable for output or events that are missing, and
        ArchiverReplaced when another archiver was elected; nothing was written then.
        """
        if (key := self._known(record.status.task_id)) is not None:
            if self._is_whole(key, record):
                return record.stored
            log.error(
                "what the history database has of task %s is not whole: it is copied again", record.status.task_id
            )
            self._delete(key)
        with self._database.writing() as connection:
            self.fence(connection)
            key = self._insert_task(connection, record)
            written = self._write_recordings(connection, key, record)
            # Last: what its size is. A reader sees the row when it is committed.
            size = {"stored_bytes": written.bytes + host_summaries.bytes_of_hosts()}
            connection.execute(update(schema.tasks).where(schema.tasks.c.key == key).values(size))
        self._check(key, record, written.digests)
        return record.stored

    def _known(self, task_id: str) -> int | None:
        with self._database.reading() as connection:
            return connection.execute(select(schema.tasks.c.key).where(schema.tasks.c.id == task_id)).scalar()

    def fence(self, connection: Connection) -> None:
        """Refuses the transaction of an archiver after which another one has written: raises ArchiverReplaced."""
        if not self._still_elected():
            raise ArchiverReplaced("another worker archives")
        table = schema.archiver
        mine = update(table).where(table.c.token <= self._token).values(token=self._token)
        if connection.execute(mine).rowcount != 1:
            raise ArchiverReplaced("another worker archives")

    def _is_whole(self, key: int, record: FinalRecord) -> bool:
        with self._database.reading() as connection:
            found = read_back.digests(connection, key)
            row = connection.execute(select(schema.tasks).where(schema.tasks.c.key == key)).one()
        stored = record.stored
        if (row.output_bytes, row.event_count) != (stored.output_bytes, stored.events):
            # Redis has come back with another course of it. What lasts counts.
            log.warning("task %s is in the history database already: that is kept", record.status.task_id)
        if row.output_expired is not None:
            return True  # the columns still count what was deleted since
        return (found.output_bytes, found.events) == (row.output_bytes, row.event_count)

    def _check(self, key: int, record: FinalRecord, written: Digests) -> None:
        with self._database.reading() as connection:
            found = read_back.digests(connection, key)
        if found.summary() == written.summary():
            return
        self._delete(key)
        reason = f"does not give back what was written of task {record.status.task_id}"
        raise HistoryUnavailable(f"the history database {reason}", reason)

    def _delete(self, key: int) -> None:
        with self._database.writing() as connection:
            self.fence(connection)
            SearchIndex(connection).remove([key])
            summaries.delete_unused(connection, [key], delete(schema.tasks).where(schema.tasks.c.key == key))

    def _insert_task(self, connection: Connection, record: FinalRecord) -> int:
        status, stored = record.status, record.stored
        about = {
            name: None if value is None else encoding.to_text(value)
            for name, value in status.model_dump(include=_ABOUT).items()
        }
        counts = json.loads(record.counts)
        plain = ("kind", "state", "returncode", "submitted_at", "started_at", "finished_at")
        values: dict[str, Any] = {
            **{name: getattr(status, name) for name in plain},
            **about,
            "id": status.task_id,
            "number": record.number,
            "username": encoding.to_text(status.user),
            "changed": bool(counts.get("changed")),
            "description": encoding.to_text(status.description),
            "summary": encoding.to_text(status.summary),
            "summary_key": summaries.key_of(connection, encoding.to_text(status.summary)),
            "warning": status.warning,
            "attempt": status.attempt or 1,
            "ended": None if status.ended is None else json.dumps(status.ended),
            "counts": record.counts,
            "host_count": status.host_count,
            "play_task_count": status.play_task_count,
            "submitted": milliseconds(status.submitted_at),
            "finished": milliseconds(status.finished_at or status.submitted_at),
            "finished_at": status.finished_at or status.submitted_at,
            "run": encoding.pack(record.run),
            "output_bytes": stored.output_bytes,
            "colour_count": stored.colours,
            "event_count": stored.events,
            "stored_bytes": 0,
            "archived": int(time.time() * 1000),
            "template": status.template,
            "origin": json.dumps(status.model_dump(include=set(Origin.model_fields), exclude_none=True)),
            "visibility": json.dumps(status.visibility.model_dump(mode="json")) if status.visibility else None,
        }
        key = connection.execute(insert(schema.tasks).values(values)).inserted_primary_key
        assert key is not None
        readers = dict.fromkeys(map(encoding.to_text, status.visibility.entries)) if status.visibility else {}
        rows = [{"task_key": int(key[0]), "entry": entry, "number": record.number} for entry in readers]
        if rows:
            connection.execute(insert(schema.task_readers), rows)
        return int(key[0])

    def _write_recordings(self, connection: Connection, key: int, record: FinalRecord) -> _Written:
        written = _Written()
        written.bytes += len(record.run) // 2
        indexer = TaskIndexer(connection, key)
        self._write_output(connection, key, record, written, indexer)
        results = self._write_events(connection, key, record, written, indexer)
        scope = self._enter_scope(connection, key)
        self._write_hosts(connection, key, record, results, scope)
        playbook = encoding.to_text(record.status.playbook or "")
        indexer.finish(playbook, (encoding.to_text(host.name) for host in results.in_order()))
        written.bytes += indexer.bytes
        if results.stats_seq is not None:
            found = update(schema.tasks).where(schema.tasks.c.key == key).values(stats_seq=results.stats_seq)
            connection.execute(found)
        return written

    def _write_output(
        self, connection: Connection, key: int, record: FinalRecord, written: _Written, indexer: TaskIndexer
    ) -> None:
        task_id, end = record.status.task_id, record.stored.output_bytes
        last: ColourMark | None = None
        start = 0
        while start < end or (start == 0 and record.stored.colours):
            data = self._store.output(task_id, start, min(encoding.OUTPUT_BYTES, end - start))
            stop = start + len(data)
            is_last = stop == end
            if not data and end:
                raise RecordUnreadable(task_id, "output of it is missing")
            marks = self._store.colours(task_id, start, stop if is_last else stop - 1)
            row = {
                "task_key": key,
                "start": start,
                "size": len(data),
                "data": encoding.pack(data),
                "marks": encoding.pack_marks(marks),
                "before": encoding.pack_marks([last] if last else []),
            }
            connection.execute(insert(schema.output_chunks).values(row))
            written.digests.add_output(data, marks)
            indexer.add_output(data)
            written.bytes += len(row["data"]) + len(row["marks"]) + 40  # type: ignore[arg-type]
            last = marks[-1] if marks else last
            start = stop
            self._keep_elected()
            if is_last:
                return

    def _write_events(
        self, connection: Connection, key: int, record: FinalRecord, written: _Written, indexer: TaskIndexer
    ) -> HostResults:
        results = HostResults(self._keep_facts)
        for first, texts in self._segments(record.status.task_id):
            verdicts = results.add(first, texts)
            packed = encoding.pack(b"\n".join(texts))
            row = {
                "task_key": key,
                "first_seq": first,
                "last_seq": first + len(texts) - 1,
                "size": sum(map(len, texts)),
                "verdicts": verdicts,
                "data": packed,
            }
            connection.execute(insert(schema.event_segments).values(row))
            written.digests.add_events(first, texts)
            indexer.add_events(first, texts)
            written.bytes += len(packed) + 40
            self._keep_elected()
        if written.digests.events < record.stored.events:
            raise RecordUnreadable(record.status.task_id, "events of it are missing")
        return results

    def _segments(self, task_id: str) -> Iterator[tuple[int, list[bytes]]]:
        """Yields the first seq and the events of each segment; those of one have no gap between their seqs."""
        texts: list[bytes] = []
        first, size, after = 1, 0, 0
        while page := self._store.event_texts(task_id, after, _READ_EVENTS, _READ_BYTES):
            for seq, line in page:
                if texts and (size + len(line) > encoding.EVENT_BYTES or seq != first + len(texts)):
                    yield first, texts
                    texts, size = [], 0
                if not texts:
                    first = seq
                texts.append(line)
                size += len(line)
            after = page[-1][0]
        if texts:
            yield first, texts

    def _enter_scope(self, connection: Connection, key: int) -> int:
        table = schema.tasks
        wanted = select(table.c.username, table.c.visibility).where(table.c.key == key)
        row = connection.execute(wanted).one()
        scope = host_summaries.scope_key(connection, row.username, row.visibility)
        connection.execute(update(table).where(table.c.key == key).values(scope_key=scope))
        return scope

    def _write_hosts(
        self, connection: Connection, key: int, record: FinalRecord, results: HostResults, scope: int
    ) -> None:
        """Writes each host's row, how it fared last, and its facts."""
        inventory = encoding.to_text(record.status.inventory or "")
        finished = milliseconds(record.status.finished_at or record.status.submitted_at)
        found = list(results.in_order())
        for begin in range(0, len(found), _ROWS):
            part = found[begin : begin + _ROWS]
            names = [encoding.host_name(host.name) for host in part]
            keys = _host_keys(connection, inventory, names)
            rows = [
                {
                    "task_key": key,
                    "position": begin + place,
                    "host_key": keys[name],
                    "number": record.number,
                    "verdict": host.verdict,
                    "changed": bool(host.counts.get("changed")),
                    "counts": json.dumps(host.counts, separators=(",", ":")),
                    "seqs": encoding.pack_numbers(host.seqs),
                    "scope_key": scope,
                }
                for place, (host, name) in enumerate(zip(part, names, strict=True))
            ]
            connection.execute(insert(schema.task_hosts), rows)
            ends = (
                HostEnd(keys[name], record.number, finished, host.verdict, bool(host.counts["changed"]), host.groups)
                for host, name in zip(part, names, strict=True)
            )
            host_summaries.note(connection, scope, ends)
            by_name = {host.name: keys[name] for host, name in zip(part, names, strict=True)}
            if self._keep_facts:
                self._write_facts(connection, key, scope, results, by_name)
            self._keep_elected()

    def _write_facts(
        self, connection: Connection, key: int, scope: int, results: HostResults, host_keys: dict[str, int]
    ) -> None:
        """Writes facts. The tasks whose facts they replace take less then."""
        before = host_summaries.bytes_of_facts(connection, scope, host_keys.values())
        results.facts.write(connection, key, scope, host_keys)
        after = host_summaries.bytes_of_facts(connection, scope, host_keys.values())
        table = schema.tasks
        for other, size in before.items():
            if less := size - after.get(other, 0):
                changed = {"stored_bytes": table.c.stored_bytes - less}
                connection.execute(update(table).where(table.c.key == other).values(changed))

    def _keep_elected(self) -> None:
        if not self._still_elected():
            raise ArchiverReplaced("another worker archives")


def _host_keys(connection: Connection, inventory: str, names: list[str]) -> dict[str, int]:
    """Returns the keys of these hosts of an inventory; makes those that are new. (Nobody else does at the same time:
    the transaction has the lock on the archiver's row.)"""
    table = schema.hosts
    wanted = select(table.c.name, table.c.key).where(
        table.c.inventory == inventory, table.c.name.in_(bindparam("names", expanding=True))
    )

    def read() -> dict[str, int]:
        return {name: int(key) for name, key in connection.execute(wanted, {"names": names})}

    found = read()
    if new := [name for name in dict.fromkeys(names) if name not in found]:
        connection.execute(insert(table), [{"name": name, "inventory": inventory} for name in new])
        found = read()
    return found
