"""The description of each route, independent of the documentation format.

Everything comes from the routes, the resources' docstrings and the pydantic models; `openapi31` and `swagger12` only
convert it to their formats. Runs when one of them is first asked for.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from flansible import models
from flansible.models.account_bodies import AccountToken
from flansible.models.definition_specs import DefinitionFields
from flansible.models.hook_specs import HookCall
from flansible.models.notification_specs import DeliveryFields
from flansible.web.middleware.audit_context import REQUEST_ID
from flansible.web.middleware.error_handlers import REALM, RETRY_AFTER_SECONDS, TOKEN_REALM
from flansible.web.openapi import examples, failure_examples
from flansible.web.route_types import Header, Route
from flansible.web.serialization import JSON, OMITTED_WHEN_NULL

Schema = dict[str, Any]

_CONVERTER = re.compile(r"<(?:[^:<>]+:)?([^<>]+)>")
_RETRY_AFTER = Header(
    "Retry-After",
    "Seconds to wait before trying again.",
    {"type": "integer", "minimum": 0, "examples": [RETRY_AFTER_SECONDS]},
)
_REQUEST_ID = Header(
    REQUEST_ID,
    "The request's id in the audit log and the web server's log: the one that the request sent, if it is 1 to 64 "
    "characters of `A-Za-z0-9._-`, else a new one.",
    {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"},
)
_STATUS_HEADERS = {
    401: (Header("WWW-Authenticate", f"`{REALM}` and `{TOKEN_REALM}`", {"type": "string"}),),
    429: (_RETRY_AFTER,),
    503: (_RETRY_AFTER,),
}
# Error statuses of every route. What is too long, or takes too long to arrive, is refused before the route is known.
ANYWHERE = (400, 408, 414, 431, 500)
_REFERENCE = "#/components/schemas/{model}"


@dataclass(frozen=True)
class DocumentedReply:
    """One status that a route can return.

    model: of the JSON body; examples: such bodies by name; texts: an example of each other media type. With neither
    there is no body.
    """

    status: int
    description: str
    model: type[BaseModel] | None = None
    examples: dict[str, Any] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    headers: tuple[Header, ...] = ()


@dataclass(frozen=True)
class Operation:
    """A described route: `about` from its resource's docstring, `summary` and `details` from its method's.

    path: with its parameters in braces; parameters: their names and descriptions.
    """

    route: Route
    path: str
    parameters: dict[str, str]
    about: str
    summary: str
    details: str
    tag: str
    replies: tuple[DocumentedReply, ...]

    @property
    def notes(self) -> str:
        return "\n\n".join(filter(None, (self.about, self.details)))


def operations(routes: Iterable[Route]) -> list[Operation]:
    """Describes each route, in their order."""
    return [_operation(route) for route in routes]


def tags(routes: Iterable[Route]) -> dict[str, str]:
    """Returns the groups of operations: each resource's module, and the first paragraph of its docstring."""
    found: dict[str, str] = {}
    for route in routes:
        paragraph = _doc(sys.modules[route.resource.__module__]).partition("\n\n")[0]
        found.setdefault(_tag(route), paragraph.replace("\n", " "))
    return found


def schemas(routes: Iterable[Route]) -> dict[str, Schema]:
    """Returns the JSON schema of each model that the routes use, and of those within them, by name."""
    sides: dict[tuple[type[BaseModel], Any], None] = {(models.ErrorBody, "serialization"): None}
    for route in routes:
        sides |= {(model, "validation"): None for model in (route.body, route.query) if model}
        sides |= {(model, "serialization"): None for model in (route.reply, *(route.other or ())[1:]) if model}
    _, found = models_json_schema(list(sides), ref_template=_REFERENCE, schema_generator=_Schemas)
    defined: dict[str, Schema] = found["$defs"]
    for model, names in OMITTED_WHEN_NULL.items():
        _make_optional(defined[model.__name__], names)
    return defined


def _make_optional(schema: Schema, names: frozenset[str]) -> None:
    """Marks fields that are omitted where they would be null."""
    schema["required"] = [name for name in schema["required"] if name not in names]
    for name in names:
        [schema["properties"][name]] = branches(schema["properties"][name])


def referenced_model(schema: Schema) -> str | None:
    """Returns the name of the model that a schema refers to."""
    reference = schema.get("$ref")
    return reference.rpartition("/")[2] if isinstance(reference, str) else None


def branches(schema: Schema) -> list[Schema]:
    """Returns the schemas a field may have, without null, each with the keywords of the field as a whole."""
    whole = {key: value for key, value in schema.items() if key != "anyOf" and not (key == "default" and value is None)}
    return [{**whole, **branch} for branch in schema.get("anyOf", [{}]) if branch.get("type") != "null"]


class _Schemas(GenerateJsonSchema):
    """Schemas without a title per field; every field of a reply is required, except those of OMITTED_WHEN_NULL."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    _of_request = False  # a model of requests that is part of a reply: it has one schema for both

    def model_schema(self, schema: Any) -> Any:
        outer, self._of_request = self._of_request, issubclass(schema["cls"], models.Request)
        try:
            return super().model_schema(schema)
        finally:
            self._of_request = outer

    def field_is_required(self, field: Any, total: bool) -> bool:
        is_of_reply = self.mode == "serialization" and not self._of_request
        return is_of_reply or super().field_is_required(field, total)


def _operation(route: Route) -> Operation:
    summary, _, details = _doc(getattr(route.resource, route.method)).partition("\n")
    # Fields that describe the path parameters.
    fields = {
        **DefinitionFields.model_fields,
        **models.Accepted.model_fields,
        **DeliveryFields.model_fields,
        **HookCall.model_fields,
        "token_id": AccountToken.model_fields["id"],
    }
    names = _CONVERTER.findall(route.path)
    return Operation(
        route=route,
        path=_CONVERTER.sub(r"{\1}", route.path),
        parameters={name: fields[name].description or "" if name in fields else "" for name in names},
        about=_doc(route.resource),
        summary=summary,
        details=details.strip(),
        tag=_tag(route),
        replies=_replies(route),
    )


def _replies(route: Route) -> tuple[DocumentedReply, ...]:
    replies = [_reply(status, route) for status in (route.status, *route.also)]
    if route.other is not None:
        status, model = route.other
        headers = (*_STATUS_HEADERS.get(status, ()), _REQUEST_ID)
        replies.append(
            DocumentedReply(status, _description(status), model, _example(route, status, model), {}, headers)
        )
    replies += [DocumentedReply(status, _description(status), headers=(_REQUEST_ID,)) for status in route.empty]
    statuses = {*ANYWHERE, *route.errors}
    if not route.public:
        statuses |= {401, 429} | ({403} if route.method == "post" else set())
    failures = [_failure(status, route) for status in statuses]
    return tuple(sorted((*replies, *failures), key=lambda reply: reply.status))


def _reply(status: int, route: Route) -> DocumentedReply:
    texts = {media_type: examples.TEXTS[media_type] for media_type in route.media_types if media_type != JSON}
    headers = (*route.reply_headers, *_STATUS_HEADERS.get(status, ()), _REQUEST_ID)
    if route.reply is None:
        return DocumentedReply(status, _description(status), texts=texts, headers=headers)
    shown = _example(route, status, route.reply)
    return DocumentedReply(status, _description(status), route.reply, shown, texts, headers)


def _example(route: Route, status: int, model: type[BaseModel]) -> dict[str, Any]:
    found = examples.ROUTE_REPLIES.get((route.endpoint, status)) or examples.REPLIES.get(model)
    return {"reply": found.model_dump(mode="json", exclude_unset=True)} if found else {}


def _failure(status: int, route: Route) -> DocumentedReply:
    known = failure_examples.FAILURES | (failure_examples.BODY_FAILURES if route.body else {})
    more = failure_examples.ROUTE_FAILURES.get((route.endpoint, status), ())
    fields = {name for model in (route.body, route.query) if model for name in model.model_fields}
    shown = {
        body.code: body.model_dump(mode="json")
        for body in (*known.get(status, ()), *more)
        # A refused field is an example only where that field exists; an unknown field is an example everywhere.
        if status == 400 or all(item.field in fields for item in body.errors)
    }
    headers = (*_STATUS_HEADERS.get(status, ()), _REQUEST_ID)
    return DocumentedReply(status, _description(status), models.ErrorBody, shown, headers=headers)


def _description(status: int) -> str:
    return examples.STATUS_DESCRIPTIONS.get(status) or HTTPStatus(status).phrase


def _tag(route: Route) -> str:
    return str(route.resource.__module__.rpartition(".")[2])


def _doc(thing: object) -> str:
    return inspect.getdoc(thing) or ""
