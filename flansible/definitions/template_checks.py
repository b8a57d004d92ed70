"""What a template may be: what it may leave open, and whether its variables make sense. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic_core import SchemaError

from flansible.authorization.redaction import SECRET_FIELDS
from flansible.authorization.rules import strings
from flansible.definitions.template_values import SECRETS, VARIABLES, matcher, value_faults
from flansible.errors import FieldError
from flansible.models import AdhocRequest, GitRequest, PlaybookRequest, TaskOptions
from flansible.models.template_specs import TemplateSpec, TemplateVariable

MODELS: dict[str, type[TaskOptions]] = {"adhoc": AdhocRequest, "playbook": PlaybookRequest, "git": GitRequest}
_OF_ALL = ("time_limit", "ref", "credentials", "queue")
_OF_RUNS = (
    *("limit", "check", "diff", "verbose_level", "forks", "timeout", "become"),
    *("connection_password", "become_password", "vault_password", "private_key", "private_key_passphrase"),
)
OPENABLE: dict[str, frozenset[str]] = {
    "adhoc": frozenset((*_OF_ALL, *_OF_RUNS, "host_pattern", "task_timeout", "module_args", "inventory")),
    "playbook": frozenset((*_OF_ALL, *_OF_RUNS, "tags", "skip_tags", "start_at_task", "force_handlers", "inventory")),
    "git": frozenset((*_OF_ALL, "branch_name")),
}
# With admin's rights an inventory may be any file, and arguments of modules are templates.
NOT_WITH_ADMINS_RIGHTS = frozenset({"inventory", "module_args"})


def check_spec(spec: TemplateSpec, *, is_of_admin: bool) -> list[FieldError]:
    """Returns what is wrong with a template whose fields are valid each by itself. is_of_admin: with admin's rights."""
    errors = [
        FieldError(f"request.{name}", "write no secret into a template: leave it open, or declare a secret variable")
        for name in sorted(SECRET_FIELDS & spec.request.keys())
    ]
    for number, name in enumerate(spec.open):
        if (message := _not_openable(spec, name, is_of_admin)) is not None:
            errors.append(FieldError(f"open[{number}]", message))
        elif spec.retry is not None and (name in SECRET_FIELDS or name.startswith(f"{SECRETS}.")):
            errors.append(FieldError(f"open[{number}]", "secrets are used once: a template with retry cannot have any"))
    for name, variable in spec.variables.items():
        errors += [FieldError(f"variables.{name}{part}", message) for part, message in _faults(spec, name, variable)]
    if spec.kind == "git":
        given: dict[str, Any] = {
            **{"require_limit": spec.require_limit, "max_hosts": spec.max_hosts},
            **{"retry": spec.retry, "exclusive": spec.exclusive},
        }
        errors += [FieldError(name, "is for runs on hosts, not for git") for name, value in given.items() if value]
    return errors


def _not_openable(spec: TemplateSpec, given: str, is_of_admin: bool) -> str | None:
    group, _, name = given.partition(".")
    if name:
        if group not in (VARIABLES, SECRETS) or spec.kind == "git":
            return f"only single variables are opened so: {VARIABLES}.name, {SECRETS}.name"
        if name in spec.variables:
            return None
        return "decides where and how Ansible connects; it cannot be open" if strings.is_reserved(name) else None
    if given not in OPENABLE[spec.kind] or given not in MODELS[spec.kind].model_fields:
        known = sorted(OPENABLE[spec.kind] & MODELS[spec.kind].model_fields.keys())
        return f"cannot be open; fields that can: {', '.join(known)}, {VARIABLES}.name, {SECRETS}.name"
    if is_of_admin and given in NOT_WITH_ADMINS_RIGHTS:
        return "cannot be open in a template with admin's rights; set run_as to a user whose rights limit it"
    return None


def _faults(spec: TemplateSpec, name: str, variable: TemplateVariable) -> Iterable[tuple[str, str]]:
    """Yields what is wrong with a declared variable: the part of it, and the message."""
    if strings.is_reserved(name):
        yield "", "decides where and how Ansible connects; a template cannot declare it"
    if spec.kind == "git":
        yield "", "git takes no variables"
    if variable.secret:
        if variable.type != "string":
            yield ".type", "a secret variable is a string"
        if variable.default is not None:
            yield ".default", "write no secret into a template"
        if spec.retry is not None:
            yield ".secret", "secrets are used once: a template with retry cannot have any"
    if variable.pattern is not None:
        if variable.type != "string":
            yield ".pattern", "is for strings"
        try:
            matcher(variable.pattern)
        except SchemaError:
            yield ".pattern", "is no regular expression (Rust's syntax)"
            return
    if (source := variable.choices_from) is not None:
        if variable.choices is not None:
            yield ".choices_from", "and choices exclude each other: give one of them"
        if variable.type != "string":
            yield ".choices_from", "gives strings: the type must be string"
        if source.tags is not None and not isinstance(spec.request.get("project"), str):
            yield ".choices_from.tags", "are of a project: name one in the request"
    plain = variable.model_copy(update={"choices": None, "choices_from": None})
    for number, choice in enumerate(variable.choices or ()):
        yield from ((f".choices[{number}]", one.message) for one in value_faults("", choice, plain))
    if variable.default is not None and not variable.secret:
        yield from ((".default", one.message) for one in value_faults("", variable.default, variable))
