"""What webhooks have of their own as definitions: the template has to be there, and the writer may launch it."""

from __future__ import annotations

from flansible.errors import FieldError
from flansible.models.hook_specs import WebhookSpec
from flansible.web import template_launch
from flansible.web.kind_rules import Written


def check(written: Written) -> None:
    """Raises InvalidRequest. A call looks at it all again."""
    assert isinstance(written.spec, WebhookSpec)
    spec = written.spec
    found = written.find("templates", spec.template)
    if found is None or not template_launch.may_launch(written.user, found):
        written.refuse([FieldError("template", "there is no such template that you may launch")])
        return
    declared = found.spec.get("variables") or {}
    is_open = set(found.spec.get("open") or ())
    unknown = [name for name in spec.variables if name not in declared and f"extra_vars.{name}" not in is_open]
    errors = [FieldError(f"variables.{name}", "is no variable of this template") for name in unknown]
    if spec.event_commit and ("ref" not in is_open or not found.spec["request"].get("project")):
        errors.append(FieldError("event_commit", "the template has to have a project, and ref in open"))
    written.refuse(errors)
