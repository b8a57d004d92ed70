"""Writes and deletes what search finds: a task's record (playbook, hosts, messages of failures), and pieces of output.

A record is one text of several parts, a piece at most 64 KiB of whole lines. Their words are in two tables of each
database's own kind, keyed by the task, and by task and number of the piece:

| `search_record_words`, `search_output_words` are | in         |
|--------------------------------------------------|------------|
| FTS5, without the text and without places        | SQLite     |
| a tsvector without places, with an index GIN     | PostgreSQL |

FTS5 forgets a word only if it is told the word again. So who deletes a task or its output calls `remove` before.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, bindparam, delete, insert, select, text, update

from flansible.errors import HistoryUnavailable
from flansible.history import encoding, schema
from flansible.history.search_words import words_of

log = logging.getLogger(__name__)

PIECES = 1 << 20  # more than a task can have: the key of a piece is the task's, times this, plus its number
_PIECE_BYTES = 64 * 1024
_MOST_MESSAGES, _MESSAGE_CHARACTERS = 1000, 2000
_MESSAGE_FIELDS = ("msg", "message", "stderr", "module_stderr", "exception", "stdout", "module_stdout")
_FAILED = ("failed", "unreachable")
# Of events: only those that may be failures, or a new beginning, are parsed.
_MAY_MATTER = re.compile(rb'"(?:failed|unreachable|restart)"')
MESSAGE = "message"


class SearchText(NamedTuple):
    """A part of a task's record. field: `playbook`, `host` or `message`; host, seq: of a message."""

    field: str
    text: str
    host: str | None = None
    seq: int | None = None


class SearchIndex:
    """The words of all tasks, within one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._is_sqlite = connection.dialect.name == "sqlite"

    def add(self, table: str, rows: Sequence[tuple[int, set[str]]]) -> None:
        """Adds texts: each a key and its words."""
        rows = [row for row in rows if row[1]]
        if not rows:
            return
        if self._is_sqlite:
            statement = text(f"INSERT INTO {table} (rowid, words) VALUES (:key, :words)")  # noqa: S608  # nosec B608
        else:
            statement = text(
                f"INSERT INTO {table} (key, words) "  # noqa: S608  # nosec B608
                "VALUES (:key, array_to_tsvector(CAST(:words AS text[]))) ON CONFLICT (key) DO NOTHING"
            )
        self._connection.execute(statement, [self._row(key, words) for key, words in rows])

    def remove(self, keys: Sequence[int]) -> None:
        """Forgets tasks; their rows must still be there."""
        records = schema.search_records
        found = self._connection.execute(select(records).where(records.c.task_key.in_(keys))).all()
        self._forget("search_record_words", [(row.task_key, _words(row.data)) for row in found])
        self._connection.execute(delete(records).where(records.c.task_key.in_(keys)))
        self._remove_output(keys)

    def remove_recordings(self, keys: Sequence[int]) -> None:
        """Forgets the output and the messages of tasks, of which only playbook and hosts stay."""
        self._remove_output(keys)
        records = schema.search_records
        for row in self._connection.execute(select(records).where(records.c.task_key.in_(keys))).all():
            texts = unpack(row.data)
            kept = [one for one in texts if one.field != MESSAGE]
            if len(kept) == len(texts):
                continue
            self._forget("search_record_words", [(row.task_key, _words(row.data))])
            data = pack(kept)
            changed = update(records).where(records.c.task_key == row.task_key).values(data=data)
            self._connection.execute(changed)
            self.add("search_record_words", [(row.task_key, _words(data))])

    def _remove_output(self, keys: Sequence[int]) -> None:
        pieces = schema.search_pieces
        wanted = select(pieces).where(pieces.c.task_key.in_(keys)).order_by(pieces.c.task_key, pieces.c.piece)
        for row in self._connection.execute(wanted).all():
            words = words_of(piece_text(self._connection, row)) if self._is_sqlite else set()
            self._forget("search_output_words", [(row.task_key * PIECES + row.piece, words)])
        self._connection.execute(delete(pieces).where(pieces.c.task_key.in_(keys)))

    def _forget(self, table: str, rows: Sequence[tuple[int, set[str]]]) -> None:
        if self._is_sqlite:
            statement = text(
                f"INSERT INTO {table} ({table}, rowid, words) VALUES ('delete', :key, :words)"  # noqa: S608  # nosec B608
            )
            rows = [row for row in rows if row[1]]
        else:
            statement = text(f"DELETE FROM {table} WHERE key = :key")  # noqa: S608  # nosec B608
        if rows:
            given = [self._row(key, words) if self._is_sqlite else {"key": key} for key, words in rows]
            self._connection.execute(statement, given)

    def _row(self, key: int, words: set[str]) -> dict[str, Any]:
        return {"key": key, "words": " ".join(words) if self._is_sqlite else list(words)}


class TaskIndexer:
    """Makes one task searchable: takes its output and events in, in order, and writes what it found."""

    def __init__(self, connection: Connection, task_key: int) -> None:
        self._connection = connection
        self._index = SearchIndex(connection)
        self._key = task_key
        self._rest = b""
        self._start = self._piece = 0
        self._line = 1
        self._messages: list[SearchText] = []
        self.bytes = 0  # of the words that were written

    def add_output(self, data: bytes) -> None:
        self._rest += data
        while len(self._rest) > _PIECE_BYTES:
            end = self._rest.rfind(b"\n", 0, _PIECE_BYTES) + 1 or self._rest.rfind(b" ", 0, _PIECE_BYTES) + 1
            self._write_piece(self._rest[: end or _PIECE_BYTES])

    def add_events(self, first_seq: int, texts: Sequence[bytes]) -> None:
        for seq, line in enumerate(texts, first_seq):
            if not _MAY_MATTER.search(line):
                continue
            event = json.loads(line)
            if event.get("event") == "restart":
                self._messages.clear()  # results are those of the last attempt
            elif event.get("verdict") in _FAILED and len(self._messages) < _MOST_MESSAGES:
                message = "\n".join(_messages_of(event.get("result")))
                if message:
                    found = SearchText(MESSAGE, _cut(message), str(event.get("host", "")), seq)
                    self._messages.append(found)

    def finish(self, playbook: str | None, hosts: Iterable[str]) -> None:
        """Writes the last piece, and the record."""
        if self._rest:
            self._write_piece(self._rest)
        texts = [SearchText("playbook", playbook)] if playbook else []
        texts += [*self._messages, *(SearchText("host", host) for host in hosts)]
        data = pack(texts)
        row = {"task_key": self._key, "data": data}
        self._connection.execute(insert(schema.search_records).values(row))
        self._add("search_record_words", self._key, words_of("\n".join(one.text for one in texts)))
        self.bytes += len(data)

    def _write_piece(self, data: bytes) -> None:
        row = {
            "task_key": self._key,
            "piece": self._piece,
            "start": self._start,
            "size": len(data),
            "first_line": self._line,
        }
        if (words := words_of(_decoded(data))) and self._piece < PIECES:
            self._connection.execute(insert(schema.search_pieces).values(row))
            self._add("search_output_words", self._key * PIECES + self._piece, words)
            self._piece += 1
        self._rest = self._rest[len(data) :]
        self._start += len(data)
        self._line += data.count(b"\n")

    def _add(self, table: str, key: int, words: set[str]) -> None:
        self._index.add(table, [(key, words)])
        self.bytes += sum(map(len, words))


def pack(texts: Sequence[SearchText]) -> bytes:
    return encoding.pack(json.dumps(texts, separators=(",", ":")).encode())


def unpack(stored: bytes) -> list[SearchText]:
    """Gives back what `pack` was given; nothing of what was damaged on the disk."""
    try:
        return [SearchText(*fields) for fields in json.loads(encoding.unpack(stored) or b"[]")]
    except (HistoryUnavailable, ValueError) as error:
        log.error("a task cannot be searched: %s", error)
        return []


def piece_text(connection: Connection, row: Any) -> str:
    """Reads a piece of output: a row of search_pieces. Bytes that are no UTF-8 are escaped as `surrogateescape` does;
    of output that cannot be unpacked, what comes before."""
    chunks = schema.output_chunks
    end = row.start + row.size
    wanted = (
        select(chunks.c.start, chunks.c.data)
        .where(
            chunks.c.task_key == bindparam("task_key"), chunks.c.start < end, chunks.c.start + chunks.c.size > row.start
        )
        .order_by(chunks.c.start)
    )
    found = b""
    chunks_of_piece = connection.execute(wanted, {"task_key": row.task_key}).all()
    try:
        for chunk in chunks_of_piece:
            data = encoding.unpack(chunk.data)
            found += data[max(0, row.start - chunk.start) : end - chunk.start]
    except HistoryUnavailable as error:
        log.error("output cannot be searched: %s", error)
    return _decoded(found)


def _decoded(data: bytes) -> str:
    return data.decode(errors="surrogateescape")


def _words(data: bytes) -> set[str]:
    return words_of("\n".join(one.text for one in unpack(data)))


def _messages_of(result: Any) -> Iterator[str]:
    """Yields what a module's result says of its failure; of a loop, what its failed items say."""
    if not isinstance(result, dict):
        return
    said = set()
    for name in _MESSAGE_FIELDS:
        value = result.get(name)
        if isinstance(value, str) and value.strip() and value not in said:
            said.add(value)
            yield value
    items = result.get("results")
    for item in items if isinstance(items, list) else ():
        if isinstance(item, dict) and (item.get("failed") or item.get("unreachable")):
            yield from _messages_of({name: item.get(name) for name in _MESSAGE_FIELDS})


def _cut(message: str) -> str:
    """Keeps both ends: the end of an output says most, and its beginning what it is."""
    message = encoding.to_text(message)
    if len(message) <= _MESSAGE_CHARACTERS:
        return message
    half = _MESSAGE_CHARACTERS // 2
    return f"{message[:half]}\n…\n{message[-half:]}"
