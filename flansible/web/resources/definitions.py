"""Definitions: what is set up once and used by name. The same operations for every kind.

`PUT` makes or changes one, with its whole body; `ETag`, `If-Match` and `If-None-Match: *` guard against two who write
at once. Fields that are sealed are never returned: one that a PUT leaves out stays, and `null` removes it. Users with
`may_define` in rbac.json write those kinds, and change what they own; admin all.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any, ClassVar

from flask import Response, jsonify, request
from pydantic import BaseModel, ConfigDict, Field

from flansible import wording
from flansible.authorization import definition_rights
from flansible.definitions.definition_store import (
    Action,
    Change,
    Condition,
    Find,
    NewDefinition,
    etag,
    not_found,
)
from flansible.definitions.kinds import KINDS, DefinitionKind
from flansible.errors import FieldError, InvalidRequest
from flansible.history.definition_rows import StoredDefinition
from flansible.models.definition_specs import (
    MAX_NAME_CHARACTERS,
    NAME_PATTERN,
    ApplyReply,
    ApplyRequest,
    DefinitionChange,
    KindDescription,
    KindList,
    Spec,
)
from flansible.system.timestamps import from_milliseconds
from flansible.web import kind_table, serialization
from flansible.web.context import definitions_of, web_context
from flansible.web.login.authentication import PrivateResource, current_user
from flansible.web.middleware import audit_context
from flansible.web.parsing import NoFields, parse_body, parse_object, parse_query, require_no_body, validate

_ETAG = re.compile(r'\s*(?:W/)?("[^"]*"|\*)\s*')
_KINDS = {kind.name: kind for kind in KINDS}


class DefinitionsQuery(BaseModel):
    """`?limit=&after=` of a list of definitions."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(100, ge=1, le=1000, description="Definitions per page.")
    after: str = Field("", max_length=MAX_NAME_CHARACTERS, description="Cursor: `next_after` of the page before.")


class DefinitionResource(PrivateResource):
    """One definition."""

    kind: ClassVar[DefinitionKind]

    def get(self, name: str) -> Response:
        """Read a definition"""
        parse_query(NoFields)
        find_name(self.kind, name)
        return reply(self.kind, definitions_of(web_context()).get(current_user(), self.kind, name))

    def put(self, name: str) -> Response:
        """Make or change a definition"""
        parse_query(NoFields)
        _check_name(name)
        given = NewDefinition(self.kind, name, parse_object())
        change = definitions_of(web_context()).put(current_user(), given, _condition(), _parse, _note, _check)
        response = reply(self.kind, change.stored)
        response.status_code = 201 if change.action == "created" else 200
        return response

    def delete(self, name: str) -> Response:
        """Delete a definition"""
        parse_query(NoFields)
        require_no_body()
        find_name(self.kind, name)
        definitions_of(web_context()).delete(current_user(), self.kind, name, _condition(), _note)
        response = Response(status=204)
        del response.headers["Content-Type"]
        return response


class DefinitionListResource(PrivateResource):
    """The definitions of a kind that the caller may read, by name."""

    kind: ClassVar[DefinitionKind]

    def get(self) -> Response:
        """List definitions"""
        query = parse_query(DefinitionsQuery)
        if web_context().definitions is None:
            return jsonify({"items": [], "next_after": None})
        found, next_after = definitions_of(web_context()).page(current_user(), self.kind, query.after, query.limit)
        response = jsonify({"items": [_fields(self.kind, row) for row in found], "next_after": next_after})
        if next_after is not None:
            response.headers.add(*serialization.request_url().next_page(after=next_after))
        return response


class DefinitionKinds(PrivateResource):
    """The kinds of definitions, each with the JSON Schema of its body."""

    def get(self) -> Response:
        """List the kinds of definitions"""
        parse_query(NoFields)
        user = current_user()
        kinds = [
            KindDescription(
                kind=kind.name,
                title=kind.title,
                may_define=definition_rights.may_define(user, kind.name),
                json_schema=kind.spec.model_json_schema(),
            )
            for kind in KINDS
        ]
        return jsonify(KindList(kinds=kinds).model_dump(mode="json"))


class Apply(PrivateResource):
    """Write many definitions in one step: all of them, or none.

    What is the same already stays as it is. `prune` deletes what was applied earlier with the same `set` and is no
    longer among them. Errors name each faulty definition by its number.
    """

    def post(self) -> Response:
        """Apply definitions"""
        body = parse_body(ApplyRequest)
        given = _given(body)
        changes = definitions_of(web_context()).apply(
            current_user(),
            given,
            body.set,
            lambda number: partial(_parse, where=f"definitions[{number}].spec"),
            _note,
            _check,
            prune=body.prune,
            dry_run=body.dry_run,
        )
        return jsonify(ApplyReply(dry_run=body.dry_run, changes=[_change(change) for change in changes]).model_dump())


def for_kind(kind: DefinitionKind) -> tuple[type[DefinitionResource], type[DefinitionListResource]]:
    """Makes the resources of a kind."""
    name = kind.reply.__name__
    base: dict[str, Any] = {"kind": kind, "__module__": __name__}
    one = type(name, (DefinitionResource,), {**base, "__doc__": f"{kind.title}: one of them."})
    many = type(f"{name}s", (DefinitionListResource,), {**base, "__doc__": f"{kind.title}: those the caller may read."})
    return one, many


def _given(body: ApplyRequest) -> list[NewDefinition]:
    """Converts the definitions of an apply. Raises InvalidRequest for all unknown kinds and those that occur twice."""
    errors, found, seen = [], [], set()
    for number, item in enumerate(body.definitions):
        kind = _KINDS.get(item.kind)
        if kind is None:
            near = wording.nearest(item.kind, _KINDS)
            message = f"unknown kind; did you mean {near}?" if near else f"unknown kind; there are {', '.join(_KINDS)}"
            errors.append(FieldError(f"definitions[{number}].kind", message))
        elif (item.kind, item.name) in seen:
            errors.append(FieldError(f"definitions[{number}].name", "occurs more than once"))
        else:
            found.append(NewDefinition(kind, item.name, item.spec, f"definitions[{number}].spec"))
        seen.add((item.kind, item.name))
    if errors:
        raise InvalidRequest(f"{errors[0].field}: {errors[0].message}", code="invalid_field", errors=errors)
    return found


def _parse(spec: type[Spec], document: dict[str, Any], where: str = "") -> Spec:
    return validate(spec, document, where)


def _check(given: NewDefinition, spec: Spec, find: Find) -> None:
    kind_table.check(web_context(), current_user(), given, spec, find)


def _note(what: str, action: Action) -> None:
    if what.startswith("notifications/"):
        # Before the transaction ends: what happens to tasks from now on is kept for it.
        web_context().store.expect_notifications()
    web_context().audit.write(audit_context.event("definition", what=what, outcome=action))


def _check_name(name: str) -> None:
    if not re.fullmatch(NAME_PATTERN, name):
        message = f"must be 1 to {MAX_NAME_CHARACTERS} letters, digits, dots, dashes or underscores, not a sign first"
        raise InvalidRequest(f"name: {message}", code="invalid_field", errors=[FieldError("name", message)])


def find_name(kind: DefinitionKind, name: str) -> None:
    """Raises NotFound for what no definition is called: a database need not be able to hold it."""
    if not re.fullmatch(NAME_PATTERN, name):
        raise not_found(kind, name)


def _condition() -> Condition:
    """Reads If-Match and If-None-Match. Raises InvalidRequest for what is neither."""
    given, none_match = request.headers.get("If-Match"), request.headers.get("If-None-Match")
    if none_match is not None and none_match.strip() != "*":
        message = "If-None-Match takes only * here: write it only if there is none of this name"
        raise InvalidRequest(message, errors=[FieldError("If-None-Match", message)])
    if given is None:
        return Condition(is_new=none_match is not None)
    found = [_ETAG.fullmatch(part) for part in given.split(",")]
    tags = tuple(match[1] for match in found if match)
    if len(tags) != len(found):
        message = 'If-Match takes ETags as the service sent them, such as "0123456789abcdef", or *'
        raise InvalidRequest(message, errors=[FieldError("If-Match", message)])
    return Condition(if_match=tags, is_new=none_match is not None)


def reply(kind: DefinitionKind, found: StoredDefinition) -> Response:
    response = jsonify(_fields(kind, found, is_whole=True))
    response.headers["ETag"] = etag(found)
    return response


def _fields(kind: DefinitionKind, found: StoredDefinition, *, is_whole: bool = False) -> dict[str, Any]:
    computed = kind_table.computed(web_context(), current_user(), found, is_whole)
    fields = kind.reply.model_validate(
        {
            **found.spec,
            "name": found.name,
            "owner": found.owner,
            "set": found.set_name,
            "created_at": from_milliseconds(found.created),
            "updated_at": from_milliseconds(found.updated),
            "etag": etag(found),
            "sealed": list(found.sealed_names),
            **computed,
        }
    ).model_dump(mode="json")
    # Within a field as it was written: sent back, it must not name what it left to its default.
    return {**fields, **{name: value for name, value in found.spec.items() if name in fields and name not in computed}}


def _change(change: Change) -> DefinitionChange:
    return DefinitionChange(kind=change.stored.kind, name=change.stored.name, action=change.action)
