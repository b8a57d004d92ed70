"""The rows of definitions: reading, and writing within one transaction that no other writer interrupts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, text, update

from flansible.history.database import Database
from flansible.history.schema import definitions

_LOCK = 0x666C6465  # a number of ours among PostgreSQL's advisory locks


@dataclass(frozen=True)
class StoredDefinition:
    """A definition as stored.

    spec: its fields that are not sealed; sealed: the others, encrypted, None without any; sealed_names: theirs;
    sealed_digest: a keyed digest, to find out whether they changed; revision: of this version; set_name: of the
    `apply` that wrote it; created, updated: milliseconds since 1970.
    """

    kind: str
    name: str
    owner: str
    spec: dict[str, Any]
    revision: str
    created: int
    updated: int
    sealed: bytes | None = field(default=None, repr=False)
    sealed_names: tuple[str, ...] = ()
    sealed_digest: str = field(default="", repr=False)
    set_name: str | None = None


class DefinitionRows:
    """Reads definitions, and opens transactions that write them. Every method raises HistoryUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, kind: str, name: str) -> StoredDefinition | None:
        with self._database.reading() as connection:
            return _get(connection, kind, name)

    def page(self, kind: str, after: str, limit: int) -> list[StoredDefinition]:
        """Returns those of a kind by name, from the first one behind `after`."""
        query = select(definitions).where(definitions.c.kind == kind, definitions.c.name > after)
        with self._database.reading() as connection:
            return [_parse(row) for row in connection.execute(query.order_by(definitions.c.name).limit(limit))]

    def of_set(self, set_name: str) -> list[StoredDefinition]:
        """Returns what was applied with this set, by kind and name."""
        query = select(definitions).where(definitions.c.set_name == set_name)
        with self._database.reading() as connection:
            rows = connection.execute(query.order_by(definitions.c.kind, definitions.c.name))
            return [_parse(row) for row in rows]

    @contextmanager
    def writing(self) -> Iterator[DefinitionWriter]:
        """Opens a transaction; until it ends every other writer waits. It is rolled back by any error.

        On SQLite every other writer of the whole database fails after some seconds: nothing slow belongs in it.
        """
        with self._database.writing() as connection:
            if not self._database.is_sqlite:  # SQLite's transactions that write exclude each other
                connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
            yield DefinitionWriter(connection)


class DefinitionWriter:
    """Reads and writes within one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def get(self, kind: str, name: str) -> StoredDefinition | None:
        return _get(self._connection, kind, name)

    def put(self, found: StoredDefinition, is_new: bool) -> None:
        """Writes a definition; is_new: there is none of this kind and name."""
        values = {
            "owner": found.owner,
            "spec": json.dumps(found.spec),
            "sealed": found.sealed,
            "sealed_names": json.dumps(found.sealed_names),
            "sealed_digest": found.sealed_digest,
            "revision": found.revision,
            "set_name": found.set_name,
            "created": found.created,
            "updated": found.updated,
        }
        key = {"kind": found.kind, "name": found.name}
        if is_new:
            self._connection.execute(insert(definitions).values(**key, **values))
        else:
            self._connection.execute(update(definitions).filter_by(**key).values(**values))

    def delete(self, kind: str, name: str) -> None:
        self._connection.execute(delete(definitions).filter_by(kind=kind, name=name))


def _get(connection: Connection, kind: str, name: str) -> StoredDefinition | None:
    row = connection.execute(select(definitions).filter_by(kind=kind, name=name)).first()
    return None if row is None else _parse(row)


def _parse(row: Row[Any]) -> StoredDefinition:
    return StoredDefinition(
        kind=row.kind,
        name=row.name,
        owner=row.owner,
        spec=json.loads(row.spec),
        sealed=row.sealed,
        sealed_names=tuple(json.loads(row.sealed_names)),
        sealed_digest=row.sealed_digest,
        revision=row.revision,
        set_name=row.set_name,
        created=row.created,
        updated=row.updated,
    )
