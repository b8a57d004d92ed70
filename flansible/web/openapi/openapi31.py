"""The API as an OpenAPI 3.1 document, made from the routes and the pydantic models.

Called by flansible.web.openapi.views once in each web process; the page at /api/docs and any client generator read the
result.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from flansible import __version__
from flansible.web.openapi.operations import DocumentedReply, Operation, Schema, branches, operations, schemas, tags
from flansible.web.route_types import Route
from flansible.web.serialization import JSON

_SECURITY, _TOKEN = "basic", "token"

_DESCRIPTION = """\
Run Ansible ad-hoc commands and playbooks: post a request, get a `task_id`, and read status, output and results with it.

Every error, whatever its status, has the shape of `ErrorBody`. An unknown field is an error that names it.
"""


def document(routes: Sequence[Route]) -> dict[str, Any]:
    """Builds the whole document, ready for JSON."""
    defined = schemas(routes)
    described = operations(routes)
    paths: dict[str, dict[str, Any]] = {}
    for item in described:
        paths.setdefault(item.path, {})[item.route.method] = _operation(item, defined)
    queries = {item.route.query.__name__ for item in described if item.route.query}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Flansible",
            "version": __version__,
            "description": _DESCRIPTION,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        # Relative to this document's URL, so that it is right behind a proxy's path prefix too.
        "servers": [{"url": ".."}],
        "tags": [{"name": name, "description": text} for name, text in tags(routes).items()],
        "paths": paths,
        "components": {
            "responses": _share_refusals(paths),
            "securitySchemes": {
                _SECURITY: {"type": "http", "scheme": "basic", "description": "A user and password of rbac.json."},
                _TOKEN: {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A token, as `flansible token create` prints it.",
                },
            },
            "schemas": {name: schema for name, schema in defined.items() if name not in queries},
        },
    }


def _share_refusals(paths: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Puts a reference where several operations refuse with the same reply; returns these replies by name.

    Most of the document would be the same errors again and again, and a page of all operations took seconds to draw.
    """
    places: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for replies in (operation["responses"] for methods in paths.values() for operation in methods.values()):
        for status, reply in replies.items():
            if int(status) >= HTTPStatus.BAD_REQUEST:
                places.setdefault((status, json.dumps(reply)), []).append(replies)
    shared: dict[str, Any] = {}
    counts: dict[str, int] = {}
    for (status, _), found in places.items():
        if len(found) > 1:
            counts[status] = counts.get(status, 0) + 1
            phrase = "".join(filter(str.isalpha, HTTPStatus(int(status)).phrase))
            name = phrase if counts[status] == 1 else f"{phrase}{counts[status]}"
            shared[name] = found[0][status]
            for replies in found:
                replies[status] = {"$ref": f"#/components/responses/{name}"}
    return shared


def _operation(item: Operation, defined: dict[str, Schema]) -> dict[str, Any]:
    route = item.route
    described: dict[str, Any] = {
        "operationId": route.endpoint,
        "summary": item.summary,
        "description": item.notes,
        "tags": [item.tag],
        "security": [] if route.public else [{_SECURITY: []}, {_TOKEN: []}],
        "responses": {str(reply.status): _response(reply) for reply in item.replies},
    }
    parameters = _path_parameters(item) + _query_parameters(item, defined) + _header_parameters(item)
    if parameters:
        described["parameters"] = parameters
    if route.body:
        content: dict[str, Any] = {"schema": _reference(route.body)}
        if "example" in defined[route.body.__name__]:
            content["example"] = defined[route.body.__name__]["example"]
        described["requestBody"] = {"required": True, "content": {JSON: content}}
    return described


def _path_parameters(item: Operation) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "description": description, "schema": {"type": "string"}}
        for name, description in item.parameters.items()
    ]


def _query_parameters(item: Operation, defined: dict[str, Schema]) -> list[dict[str, Any]]:
    if item.route.query is None:
        return []
    model = defined[item.route.query.__name__]
    found = []
    for name, schema in model["properties"].items():
        kinds = branches({key: value for key, value in schema.items() if key != "description"})
        found.append(
            {
                "name": name,
                "in": "query",
                "required": name in model.get("required", ()),
                "description": schema.get("description", ""),
                "schema": kinds[0] if len(kinds) == 1 else {"anyOf": kinds},
            }
        )
    return found


def _header_parameters(item: Operation) -> list[dict[str, Any]]:
    return [
        {
            "name": header.name,
            "in": "header",
            "required": False,
            "description": header.description,
            "schema": header.schema,
        }
        for header in item.route.headers
    ]


def _response(reply: DocumentedReply) -> dict[str, Any]:
    described: dict[str, Any] = {"description": reply.description}
    content: dict[str, Any] = {}
    if reply.model:
        examples = {name: {"value": value} for name, value in reply.examples.items()}
        content[JSON] = {"schema": _reference(reply.model)} | ({"examples": examples} if examples else {})
    for media_type, example in reply.texts.items():
        content[media_type] = {"schema": {"type": "string"}, "examples": {"reply": {"value": example}}}
    if content:
        described["content"] = content
    if reply.headers:
        described["headers"] = {
            header.name: {"description": header.description, "schema": header.schema} for header in reply.headers
        }
    return described


def _reference(model: type) -> Schema:
    return {"$ref": f"#/components/schemas/{model.__name__}"}
