"""The JSON Schema of what a launch of a template may set, with what its playbook says about the variables. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from flansible.definitions.template_checks import MODELS
from flansible.definitions.template_values import SECRETS, VARIABLES, value_faults
from flansible.models import ListedVariable
from flansible.models.template_specs import TemplateSpec, TemplateVariable

_JSON_TYPES = {
    **{"string": "string", "integer": "integer", "number": "number"},
    **{"boolean": "boolean", "list": "array", "object": "object"},
}
_LISTED_TYPES = {
    **{"str": "string", "path": "string", "raw": "string", "int": "integer", "float": "number", "bool": "boolean"},
    **{"list": "list", "dict": "object"},
}
# Where one is given, the type stays: of another one it would mean something else, or nothing, as a pattern does.
_MADE_FOR_TYPE = ("pattern", "choices", "choices_from", "default", "secret")


def launch_schema(spec: TemplateSpec) -> dict[str, Any]:
    """Returns the JSON Schema of what a launch may set."""
    of_model = MODELS[spec.kind].model_json_schema()
    properties: dict[str, Any] = {
        name: of_model["properties"][name] for name in spec.open if name in of_model["properties"]
    }
    groups: dict[str, dict[str, Any]] = {VARIABLES: {}, SECRETS: {}}
    needed: dict[str, list[str]] = {VARIABLES: [], SECRETS: []}
    for name, variable in spec.variables.items():
        group = SECRETS if variable.secret else VARIABLES
        groups[group][name] = _variable_schema(variable)
        if variable.required and variable.default is None:
            needed[group].append(name)
    for given in spec.open:
        group, _, name = given.partition(".")
        if name:
            groups[group].setdefault(name, {"type": "string", "format": "password"} if group == SECRETS else {})
    for group, found in groups.items():
        if found:
            properties[group] = {"type": "object", "properties": found, "additionalProperties": False}
            if needed[group]:
                properties[group]["required"] = needed[group]
    required = [group for group, names in needed.items() if names]
    required += ["limit"] if spec.require_limit and "limit" in spec.open and "limit" not in spec.request else []
    schema = {"type": "object", "properties": properties, "additionalProperties": False, "required": required}
    return schema | ({"$defs": of_model["$defs"]} if "$ref" in str(properties) and "$defs" in of_model else {})


def with_listed(spec: TemplateSpec, listed: Iterable[ListedVariable]) -> TemplateSpec:
    """Fills in what `argument_specs` and prompts of the playbook say about the template's variables."""
    known: dict[str, ListedVariable] = {}
    for one in listed:
        if one.source != "vars":
            known.setdefault(one.name, one)
    filled = {name: _filled(variable, known.get(name)) for name, variable in spec.variables.items()}
    return spec.model_copy(update={"variables": filled})


def _filled(variable: TemplateVariable, listed: ListedVariable | None) -> TemplateVariable:
    if listed is None:
        return variable
    given, found = variable.model_fields_set, dict[str, Any](description=listed.description)
    if "type" not in given and all(getattr(variable, name) in (None, False) for name in _MADE_FOR_TYPE):
        found["type"] = _LISTED_TYPES[listed.type]
    if found.get("type", variable.type) == _LISTED_TYPES[listed.type]:
        found["choices"] = listed.choices
    if not (variable.secret or listed.private):
        found["default"] = listed.default
    changes = {name: value for name, value in found.items() if value not in (None, "") and name not in given}
    filled = variable.model_copy(update=changes)
    # What the role says is no fault of whoever launches: a default that does not fit is left to it.
    if "default" in changes and value_faults("", filled.default, filled):
        filled = filled.model_copy(update={"default": None})
    return filled


def _variable_schema(variable: TemplateVariable) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": _JSON_TYPES[variable.type]}
    if variable.description:
        schema["description"] = variable.description
    if variable.choices is not None:
        schema["enum"] = variable.choices
    if variable.default is not None:
        schema["default"] = variable.default
    if variable.pattern is not None:
        schema["pattern"] = f"^(?:{variable.pattern})$"
    if variable.secret:
        schema |= {"format": "password", "writeOnly": True}
    least, most = {"string": ("minLength", "maxLength"), "list": ("minItems", "maxItems")}.get(
        variable.type, ("minimum", "maximum")
    )
    if variable.min is not None:
        schema[least] = variable.min
    if variable.max is not None:
        schema[most] = variable.max
    return schema
