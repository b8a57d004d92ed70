"""Reads and writes definitions: conditions, sealed fields, rights and audit lines, the same for every kind.

One instance in each web process. The rules of who may are in flansible.authorization.definition_rights.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol

from flansible.authorization import definition_rights
from flansible.definitions.kinds import KINDS, DefinitionKind
from flansible.errors import FieldError, InvalidRequest, NotFound, PreconditionFailed, Unavailable
from flansible.history.definition_rows import DefinitionRows, DefinitionWriter, StoredDefinition
from flansible.identity.users import User
from flansible.models.definition_specs import Spec
from flansible.sealing import Sealer

_PAGE = 1000
_MOST_TRIES = 20  # of a change, while others change what it depends on
Action = Literal["created", "changed", "unchanged", "deleted"]
# Parses a document into a kind's spec, or raises InvalidRequest that names each field.
ParseSpec = Callable[[type[Spec], dict[str, Any]], Spec]
# Looks a definition up as it is, or will be when what is written together with it is.
Find = Callable[[str, str], StoredDefinition | None]
# Writes the audit line of `<kind>/<name>`; raises AuditUnavailable, and then nothing is written.
NoteChange = Callable[[str, Action], None]


@dataclass(frozen=True)
class Condition:
    """What must hold before a write. if_match: ETags of which the present version must have one, `*` for any version;
    is_new: there must be none yet (`If-None-Match: *`)."""

    if_match: tuple[str, ...] | None = None
    is_new: bool = False

    def check(self, current: StoredDefinition | None) -> None:
        """Raises PreconditionFailed."""
        if self.is_new and current is not None:
            raise PreconditionFailed("There is one of this name already (If-None-Match: *).", code="exists")
        if self.if_match is None:
            return
        if current is None or not {"*", etag(current)} & set(self.if_match):
            message = "It is not the version that If-Match names: somebody else has changed it. Read it again."
            raise PreconditionFailed(message, code="changed_meanwhile")


@dataclass(frozen=True)
class NewDefinition:
    """A definition as a client gives it. document: of its spec, parsed from JSON and not validated; where: its place
    in the body, if it is not the body."""

    kind: DefinitionKind
    name: str
    document: Mapping[str, Any]
    where: str = ""


class CheckSpec(Protocol):
    """Raises the refusal of a definition whose fields are valid each by itself: what it names, the writer's rights."""

    def __call__(self, given: NewDefinition, spec: Spec, find: Find) -> None: ...


@dataclass(frozen=True)
class Change:
    """What was done to a definition; `stored` is its state afterwards, or before it was deleted."""

    action: Action
    stored: StoredDefinition


class _Reader:
    """Reads what a change depends on, each definition once."""

    def __init__(self, rows: DefinitionRows) -> None:
        self._rows = rows
        self._read: dict[tuple[str, str], StoredDefinition | None] = {}
        # As they will be: what is written together.
        self.planned: dict[tuple[str, str], StoredDefinition] = {}

    def get(self, kind: str, name: str) -> StoredDefinition | None:
        if (kind, name) not in self._read:
            self._read[kind, name] = self._rows.get(kind, name)
        return self._read[kind, name]

    def find(self, kind: str, name: str) -> StoredDefinition | None:
        return self.planned.get((kind, name)) or self.get(kind, name)

    def of_set(self, set_name: str) -> list[StoredDefinition]:
        found = self._rows.of_set(set_name)
        self._read |= {(row.kind, row.name): row for row in found if (row.kind, row.name) not in self._read}
        return found

    def is_current(self, writer: DefinitionWriter) -> bool:
        """Whether all of it is still what was read."""
        return all(_revision(writer.get(*key)) == _revision(found) for key, found in self._read.items())


def etag(found: StoredDefinition) -> str:
    return f'"{found.revision}"'


def accept(given: NewDefinition, spec: Spec, find: Find) -> None:
    """A CheckSpec that refuses nothing."""


class Definitions:
    """The definitions of one service. Every method raises HistoryUnavailable; those that write also SealError."""

    def __init__(self, rows: DefinitionRows, sealer: Sealer, prepare: Callable[[], None] = lambda: None) -> None:
        """prepare: makes the tables, called at the first use; raises HistoryUnavailable."""
        self._made_rows = rows
        self._sealer = sealer
        self._prepare = prepare
        self._is_prepared = False

    @property
    def _rows(self) -> DefinitionRows:
        if not self._is_prepared:
            self._prepare()
            self._is_prepared = True
        return self._made_rows

    def get(self, user: User, kind: DefinitionKind, name: str) -> StoredDefinition:
        """Returns a definition. Raises the same NotFound for one that the user may not read and for none."""
        found = self._rows.get(kind.name, name)
        if found is None or not _may_read(user, kind, found):
            raise not_found(kind, name)
        return found

    def find(self, kind: str, name: str) -> StoredDefinition | None:
        """Returns a definition, whoever asks: for what uses it, which has rules of its own."""
        return self._rows.get(kind, name)

    def all(self, kind: str) -> list[StoredDefinition]:
        """Returns every definition of a kind, for the service's own use."""
        found: list[StoredDefinition] = []
        after = ""
        while True:
            rows = self._rows.page(kind, after, _PAGE)
            found += rows
            if len(rows) < _PAGE:
                return found
            after = rows[-1].name

    def opened(self, found: StoredDefinition) -> dict[str, Any]:
        """Returns the sealed fields of a definition, for the service's own use. Raises SealError."""
        return self._open(found)

    def page(
        self, user: User, kind: DefinitionKind, after: str, limit: int
    ) -> tuple[list[StoredDefinition], str | None]:
        """Returns those that the user may read, by name, and the name to continue after, None on the last page."""
        found: list[StoredDefinition] = []
        while True:
            rows = self._rows.page(kind.name, after, limit + 1)
            for row in rows:
                if _may_read(user, kind, row):
                    found.append(row)
            if len(found) > limit:
                return found[:limit], found[limit - 1].name
            if len(rows) <= limit:
                return found, None
            after = rows[-1].name

    def put(
        self,
        user: User,
        given: NewDefinition,
        condition: Condition,
        parse: ParseSpec,
        note: NoteChange,
        check: CheckSpec = accept,
    ) -> Change:
        """Makes or changes one definition. Raises Forbidden, PreconditionFailed and what `parse` and `check` raise."""
        definition_rights.check_may_define(user, given.kind.name)

        def decide(reader: _Reader) -> list[Change]:
            current = reader.get(given.kind.name, given.name)
            if current is not None:
                definition_rights.check_may_change(user, given.kind.name, given.name, current.owner)
            condition.check(current)
            set_name = current.set_name if current else None
            return [self._next(user, given, current, parse, set_name, lambda spec: check(given, spec, reader.find))]

        return self._write_decided(decide, note)[0]

    def delete(self, user: User, kind: DefinitionKind, name: str, condition: Condition, note: NoteChange) -> None:
        """Deletes one definition. Raises Forbidden, PreconditionFailed, and NotFound for one that may not be read."""
        definition_rights.check_may_define(user, kind.name)
        with self._rows.writing() as writer:
            current = writer.get(kind.name, name)
            if current is None or not _may_read(user, kind, current):
                raise not_found(kind, name)
            definition_rights.check_may_change(user, kind.name, name, current.owner)
            condition.check(current)
            _write(writer, Change("deleted", current), note)

    def apply(
        self,
        user: User,
        given: Sequence[NewDefinition],
        set_name: str,
        parse: Callable[[int], ParseSpec],
        note: NoteChange,
        check: CheckSpec = accept,
        *,
        prune: bool,
        dry_run: bool,
    ) -> list[Change]:
        """Writes all of these definitions or none, and returns what became of each, then those deleted.

        parse: for the definition with this number. prune: delete what was applied with this set, is not among them,
        and is the user's to change.
        """

        def decide(reader: _Reader) -> list[Change]:
            changes: list[Change] = []
            errors: list[FieldError] = []
            # Whatever file they come from: a schedule is written after the template that it names.
            for number, item in sorted(enumerate(given), key=_place):
                definition_rights.check_may_define(user, item.kind.name)
                current = reader.get(item.kind.name, item.name)
                if current is not None:
                    definition_rights.check_may_change(user, item.kind.name, item.name, current.owner)
                checked = partial(check, item, find=reader.find)
                try:
                    change = self._next(user, item, current, parse(number), set_name, checked)
                except InvalidRequest as error:
                    errors += error.errors
                    continue
                changes.append(change)
                reader.planned[item.kind.name, item.name] = change.stored
            if errors:
                raise InvalidRequest(f"{errors[0].field}: {errors[0].message}", code="invalid_field", errors=errors)
            if prune:
                kept = {(item.kind.name, item.name) for item in given}
                for row in reversed(reader.of_set(set_name)):
                    # Another user may have a set of the same name: a refusal would name what is theirs.
                    if (row.kind, row.name) not in kept and definition_rights.may_change(user, row.owner):
                        definition_rights.check_may_define(user, row.kind)
                        changes.append(Change("deleted", row))
            return changes

        return decide(_Reader(self._rows)) if dry_run else self._write_decided(decide, note)

    def _write_decided(self, decide: Callable[[_Reader], list[Change]], note: NoteChange) -> list[Change]:
        """Writes what `decide` returns, and decides again when others have changed what it has read.

        It is not within the transaction, for which every other writer waits: the checks of a kind read files, and fetch
        secrets over the network. Raises Unavailable.
        """
        for _ in range(_MOST_TRIES):
            reader = _Reader(self._rows)
            changes = decide(reader)
            with self._rows.writing() as writer:
                if reader.is_current(writer):
                    for change in changes:
                        _write(writer, change, note)
                    return changes
        message = "Others kept changing this, or what it names, while it was checked. Send it again."
        raise Unavailable(message, retry_after_seconds=1)

    def _next(
        self,
        user: User,
        given: NewDefinition,
        current: StoredDefinition | None,
        parse: ParseSpec,
        set_name: str | None,
        check: Callable[[Spec], None],
    ) -> Change:
        """Returns what the definition becomes. A sealed field that is not given stays; null removes it."""
        kind = given.kind
        hidden = {name: value for name, value in self._open(current).items() if name not in given.document}
        spec = parse(kind.spec, {**given.document, **hidden})
        if kind.check is not None:
            kind.check(user, spec)
        check(spec)
        document = spec.model_dump(mode="json", exclude_unset=True)
        secret = {name: document.pop(name) for name in sorted(kind.sealed) if document.get(name) is not None}
        document = {name: value for name, value in document.items() if name not in kind.sealed}
        digest = self._sealer.digest(json.dumps(secret).encode()) if secret else ""
        now = time.time_ns() // 1_000_000
        found = StoredDefinition(
            kind=kind.name,
            name=given.name,
            owner=user.name,
            spec=document,
            revision=secrets.token_hex(8),
            created=current.created if current else now,
            updated=now,
            sealed=self._sealer.encrypt(json.dumps(secret).encode()) if secret else None,
            sealed_names=tuple(secret),
            sealed_digest=digest,
            set_name=set_name,
        )
        if current is None:
            return Change("created", found)
        compared = ("owner", "spec", "sealed_digest", "set_name")
        if all(getattr(found, name) == getattr(current, name) for name in compared):
            return Change("unchanged", current)
        return Change("changed", found)

    def _open(self, current: StoredDefinition | None) -> dict[str, Any]:
        if current is None or current.sealed is None:
            return {}
        opened: dict[str, Any] = json.loads(self._sealer.decrypt(current.sealed))
        return opened


def _may_read(user: User, kind: DefinitionKind, found: StoredDefinition) -> bool:
    is_shared = definition_rights.may_read(user, found.owner, kind.shared_with(found.spec))
    return is_shared or kind.is_granted(user, found.name)


_ORDER = {kind.name: place for place, kind in enumerate(KINDS)}


def _place(numbered: tuple[int, NewDefinition]) -> tuple[int, int]:
    number, item = numbered
    return _ORDER.get(item.kind.name, len(_ORDER)), number


def _revision(found: StoredDefinition | None) -> str | None:
    return None if found is None else found.revision


def _write(writer: DefinitionWriter, change: Change, note: NoteChange) -> None:
    stored = change.stored
    if change.action == "unchanged":
        return
    if change.action == "deleted":
        writer.delete(stored.kind, stored.name)
    else:
        writer.put(stored, is_new=change.action == "created")
    # Within the transaction: what cannot be audited is rolled back.
    note(f"{stored.kind}/{stored.name}", change.action)


def not_found(kind: DefinitionKind, name: str) -> NotFound:
    """Returns the error for a definition that does not exist, or may not be read."""
    return NotFound(f"There is no {name} among {kind.name}.", code="definition_not_found")
