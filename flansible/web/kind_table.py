"""The table of what kinds of definitions have of their own. A kind without a line has nothing."""

from __future__ import annotations

from typing import Any

from flansible.definitions.definition_store import Find, NewDefinition
from flansible.history.definition_rows import StoredDefinition
from flansible.identity.users import User
from flansible.models.definition_specs import Spec
from flansible.web import hook_rules, project_rules, schedule_rules, template_rules
from flansible.web.context import WebContext
from flansible.web.kind_rules import KindRules, Written

RULES: dict[str, KindRules] = {
    "projects": KindRules(project_rules.check, project_rules.compute),
    "templates": KindRules(template_rules.check, template_rules.compute),
    "schedules": KindRules(schedule_rules.check, schedule_rules.compute),
    "freezes": KindRules(schedule_rules.check_freeze, schedule_rules.compute_freeze),
    "webhooks": KindRules(hook_rules.check),
}


def check(context: WebContext, user: User, given: NewDefinition, spec: Spec, find: Find) -> None:
    """Raises what refuses a definition: InvalidRequest, Forbidden."""
    rules = RULES.get(given.kind.name)
    if rules is not None and rules.check is not None:
        rules.check(Written(context, user, given.name, spec, find, given.where))


def computed(context: WebContext, user: User, found: StoredDefinition, is_whole: bool) -> dict[str, Any]:
    """Returns the computed fields of a definition, for this reader. is_whole: alone, not in a list."""
    rules = RULES.get(found.kind)
    return {} if rules is None or rules.compute is None else rules.compute(context, user, found, is_whole)
