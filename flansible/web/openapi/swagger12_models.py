"""Converts the pydantic models to Swagger 1.2: to classes for flask-restful-swagger, and to single parameters.

Called by flansible.web.openapi.swagger12 when the app is made.
"""

from __future__ import annotations

from typing import Any

from flask_restful import fields

from flansible.web.openapi.operations import Schema, branches, referenced_model

_TYPES: dict[str, Any] = {
    "string": fields.String,
    "integer": fields.Integer,
    "number": fields.Float,
    "boolean": fields.Boolean,
    "array": fields.List(fields.Raw),
}


def as_class(name: str, schema: Schema, defined: dict[str, Schema]) -> type:
    """Builds a class for the library: `resource_fields` gives each field's type, `swagger_metadata` all else."""
    metadata = {field: as_property(found, defined) for field, found in schema["properties"].items()}
    attributes = {
        "__doc__": schema.get("description", ""),
        "resource_fields": {field: _TYPES.get(found["type"], fields.Raw) for field, found in metadata.items()},
        "required": schema.get("required", []),
        "swagger_metadata": metadata,
    }
    return type(name, (), attributes)


def as_property(schema: Schema, defined: dict[str, Schema]) -> Schema:
    """Describes a field. Swagger 1.2 has one type per field and no maps: further types go into the description."""
    kinds = branches(schema)
    found = _type(kinds[0], defined)
    words = [_words(kind, defined) for kind in kinds]
    plain = f"array of {_words(kinds[0]['items'], defined)}" if found["type"] == "array" else found["type"]
    exact = "" if words == [plain] else f" ({' or '.join(words)})"
    found["description"] = (schema.get("description", "") + exact).strip()
    if "default" in kinds[0]:
        found["defaultValue"] = kinds[0]["default"]
    # In Swagger 1.2 bounds are strings.
    return found | {bound: str(kinds[0][bound]) for bound in ("minimum", "maximum") if bound in kinds[0]}


def _type(schema: Schema, defined: dict[str, Schema]) -> Schema:
    name = referenced_model(schema)
    if name and "properties" in defined[name]:
        return {"type": name}
    plain = defined[name] if name else schema
    found: Schema = {"type": plain.get("type", "object")}
    if "enum" in plain:
        found["enum"] = plain["enum"]
    if found["type"] == "array":
        inner = _type(plain["items"], defined)["type"]
        found["items"] = {"$ref": inner} if inner in defined else {"type": inner}
    return found


def _words(schema: Schema, defined: dict[str, Schema]) -> str:
    name = referenced_model(schema)
    if name and "properties" in defined[name]:
        return name
    plain = defined[name] if name else schema
    if "anyOf" in plain:
        return " or ".join(_words(kind, defined) for kind in branches(plain))
    if plain.get("type") == "array":
        return f"array of {_words(plain['items'], defined)}"
    values = plain.get("additionalProperties")
    if isinstance(values, dict) and referenced_model(values) != "JsonValue":
        return f"object with values: {_words(values, defined)}"
    return str(plain.get("type", "any JSON value"))
