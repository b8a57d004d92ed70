"""Choices of a template's variables that are read at each launch: the hosts of a group of the inventory."""

from __future__ import annotations

from flansible.authorization import authorize, isolation, preview_request
from flansible.errors import FieldError, InvalidRequest, Unavailable
from flansible.identity.users import User
from flansible.models.template_specs import TemplateSpec
from flansible.web.context import WebContext
from flansible.web.preview_run import run_preview


def filled(context: WebContext, spec: TemplateSpec, rights: User) -> TemplateSpec:
    """Returns the template with all choices of its variables. Raises InvalidRequest, Unavailable, Forbidden."""
    wanted = {name: one.choices_from for name, one in spec.variables.items() if one.choices_from is not None}
    if not wanted:
        return spec
    groups = _groups(context, spec, rights)
    variables = dict(spec.variables)
    for name, source in wanted.items():
        hosts = sorted(groups.get(source.group, ()))
        if not hosts:
            message = f"has no choices: the inventory has no hosts in group {source.group}"
            raise InvalidRequest(
                f"extra_vars.{name} {message}", code="no_choices", errors=[FieldError(f"extra_vars.{name}", message)]
            )
        variables[name] = spec.variables[name].model_copy(update={"choices": hosts})
    return spec.model_copy(update={"variables": variables})


def _groups(context: WebContext, spec: TemplateSpec, rights: User) -> dict[str, list[str]]:
    settings = context.settings
    inventory = spec.request.get("inventory") or settings.default_inventory
    if not isinstance(inventory, str):
        message = "choices_from needs one inventory in the request"
        raise InvalidRequest(message, errors=[FieldError("request.inventory", message)])
    confined = isolation.for_user(rights, settings.isolation)
    run = authorize.authorize_inventory(rights, inventory, settings, confined)
    found = run_preview(preview_request.preview_of(run, "inventory"))
    if found.content is None or not isinstance(found.content.get("groups"), dict):
        raise Unavailable(f"The choices cannot be read: {found.detail or 'no reply'}", code="choices_unknown")
    groups: dict[str, list[str]] = found.content["groups"]
    return groups
