"""Refuses starts while a freeze is in force."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import UTC, datetime

from flansible.definitions.kinds import FREEZES
from flansible.definitions.schedule_times import Freeze
from flansible.errors import Forbidden
from flansible.history.definition_rows import StoredDefinition
from flansible.identity.users import User
from flansible.models import Trigger
from flansible.models.schedule_specs import FreezeSpec
from flansible.web.context import WebContext

log = logging.getLogger(__name__)


def freezes_of(context: WebContext) -> list[Freeze]:
    """Returns all freezes but those that cannot be read, such as after an upgrade without their zone: they are logged,
    and hold nothing."""
    stored: Iterable[StoredDefinition] = context.definitions.all(FREEZES.name) if context.definitions else ()
    found = []
    for one in stored:
        try:
            found.append(Freeze(one.name, FreezeSpec.model_validate(one.spec)))
        except Exception as error:  # it must not refuse each launch
            log.error("freeze %s cannot be read, and holds nothing: %r", one.name, error)
    return found


def holding(freezes: Iterable[Freeze], now: datetime, template: str) -> str | None:
    """Returns the name of a freeze in which nothing of a template may start now."""
    for freeze in freezes:
        try:
            if freeze.holds(now, template):
                return freeze.name
        except Exception:  # it must not refuse each launch
            log.exception("freeze %s cannot be computed, and holds nothing", freeze.name)
    return None


def check(context: WebContext, template: str, user: User, trigger: Trigger, *, is_meant: bool) -> None:
    """Raises Forbidden for a template that may not start now. is_meant: who launches it said so; admin need not, but
    what starts by itself has to wait, whose ever it is."""
    if is_meant or user.is_admin and trigger == "api":
        return
    now = datetime.now(UTC)
    name = holding(freezes_of(context), now, template)
    if name is not None:
        message = f"Nothing starts during the freeze {name}. Start it with ?during_freeze=true if it has to be now."
        raise Forbidden(message, code="frozen")
