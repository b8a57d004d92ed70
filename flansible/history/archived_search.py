"""Searches the archived tasks by the words of their records or of their output, newest first.

The index names candidates (search_index.py), the text of each decides (search_words.py). What the caller does not see
is left out by the same conditions as in lists. Candidates are read in windows of keys, for a limited time; a page may
be short, then, and its cursor continues it.
"""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, cast, column, func, literal_column, select, table
from sqlalchemy.dialects.postgresql import TSQUERY

from flansible.errors import RecordUnreadable
from flansible.history import schema, search_index
from flansible.history.archived_tasks import READ, is_seen_by, status_of
from flansible.history.database import Database
from flansible.history.search_index import MESSAGE, PIECES, SearchText
from flansible.history.search_words import SearchTerms
from flansible.models import TaskStatus

log = logging.getLogger(__name__)

_FIRST_WINDOW, _LARGEST_WINDOW = 4_000, 128_000  # tasks
_CANDIDATES = 50  # of one statement
_MOST_PLACES = 5  # of one task


@dataclass(frozen=True)
class SearchFilter:
    """What is searched, and for whom. user: whose own, None for all users'; entries: with them those that these entries
    of rbac.json see; in_output: in the output, else in playbooks, hosts and messages of failures."""

    query: SearchTerms
    user: str | None = None
    entries: tuple[str, ...] = ()
    in_output: bool = False


@dataclass(frozen=True)
class FoundPlace:
    """Where a task has what was searched for.

    field: `playbook`, `host`, `message` or `output`; text: a part of it. host, seq: of a message; line, from 1, and
    offset of that line: in the output.
    """

    field: str
    text: str
    host: str | None = None
    seq: int | None = None
    line: int | None = None
    offset: int | None = None


@dataclass(frozen=True)
class FoundTask:
    """A hit: a task may be one several times, for several pieces of its output."""

    status: TaskStatus
    places: tuple[FoundPlace, ...]


@dataclass(frozen=True)
class FoundPage:
    """One page of hits; next_before continues it, None when this is the last."""

    tasks: tuple[FoundTask, ...]
    next_before: int | None


class ArchivedSearch:
    """Searches in one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def page(self, wanted: SearchFilter, before: int | None, limit: int, give_up_at: float = math.inf) -> FoundPage:
        """Finds tasks, those that were archived last first. before: `next_before` of the page above."""
        unit = PIECES if wanted.in_output else 1
        found: list[FoundTask] = []
        with self._database.reading() as connection:
            highest = connection.execute(select(func.max(schema.tasks.c.key))).scalar() or 0
            end = (highest + 1) * unit
            before = end if before is None else min(before, end)
            window = _FIRST_WINDOW * unit
            while before > 0 and len(found) < limit:
                floor = max(0, before - window)
                rows = connection.execute(self._statement(wanted, before, floor)).all()
                for row in rows:
                    before = int(row.found)
                    if (hit := self._hit(connection, wanted, row)) is not None:
                        found.append(hit)
                    if len(found) == limit or time.monotonic() > give_up_at:
                        break
                else:
                    if len(rows) < _CANDIDATES:
                        before = floor
                        window = min(2 * window, _LARGEST_WINDOW * unit)
                if time.monotonic() > give_up_at:
                    break
        return FoundPage(tuple(found), before if before > 0 else None)

    def _hit(self, connection: Connection, wanted: SearchFilter, row: Row[Any]) -> FoundTask | None:
        """Looks for the terms in the text of a candidate; None where it does not have them."""
        places = self._output_places(connection, wanted, row) if wanted.in_output else _places(wanted.query, row)
        return _found(row, places) if places else None

    def _statement(self, wanted: SearchFilter, before: int, floor: int) -> Select[Any]:
        name = "search_output_words" if wanted.in_output else "search_record_words"
        words = table(name, column("rowid"), column("key"), column("words"))
        key, task = (words.c.rowid if self._database.is_sqlite else words.c.key), schema.tasks
        if wanted.in_output:
            of_output = schema.search_pieces
            statement = (
                select(*READ, key.label("found"), of_output)
                .select_from(words)
                .join(task, task.c.key == key.op(">>")(20))
                .join(of_output, (of_output.c.task_key == task.c.key) & (of_output.c.piece == key.op("&")(PIECES - 1)))
            )
        else:
            records = schema.search_records
            statement = (
                select(*READ, key.label("found"), records.c.data)
                .select_from(words)
                .join(task, task.c.key == key)
                .join(records, records.c.task_key == key)
            )
        if wanted.user is not None:
            statement = statement.where(is_seen_by(wanted.user, wanted.entries))
        matches = self._matches(name, words.c.words, wanted.query)
        return statement.where(matches, key < before, key >= floor).order_by(key.desc()).limit(_CANDIDATES)

    def _matches(self, name: str, words: ColumnElement[Any], query: SearchTerms) -> ColumnElement[bool]:
        # Words have letters and digits only, so the quotes make each of them a plain word.
        if self._database.is_sqlite:
            return literal_column(name).op("MATCH")(" ".join(f'"{word}"' for word in query.words))
        return words.op("@@")(cast(" & ".join(f"'{word}'" for word in query.words), TSQUERY))

    def _output_places(self, connection: Connection, wanted: SearchFilter, row: Row[Any]) -> tuple[FoundPlace, ...]:
        text = search_index.piece_text(connection, row)
        found = wanted.query.first_line(text)
        if found is None:
            return ()
        start, line = found
        before = text[:start]
        snippet = _printable(wanted.query.snippet(line))
        offset = row.start + len(before.encode(errors="surrogateescape"))
        return (FoundPlace("output", snippet, line=row.first_line + before.count("\n"), offset=offset),)


def _places(query: SearchTerms, row: Row[Any]) -> tuple[FoundPlace, ...]:
    """The parts of a record that have a term; none if a term is in no part."""
    missing = set(query.terms)
    found: list[FoundPlace] = []
    for part in search_index.unpack(row.data):
        here = set(query.terms).difference(query.missing(part.text))
        missing -= here
        if here and len(found) < _MOST_PLACES:
            found.append(_place(query, part))
        if not missing and len(found) == _MOST_PLACES:
            break
    return () if missing else tuple(found)


def _place(query: SearchTerms, part: SearchText) -> FoundPlace:
    text = query.snippet(part.text) if part.field == MESSAGE else part.text
    return FoundPlace(part.field, text, part.host, part.seq)


def _found(row: Row[Any], places: tuple[FoundPlace, ...]) -> FoundTask | None:
    try:
        return FoundTask(status_of(row), places)
    except RecordUnreadable as error:
        log.warning("%s", error)
        return None


def _printable(text: str) -> str:
    return text.encode(errors="surrogateescape").decode(errors="replace")
