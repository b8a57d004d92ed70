"""Refuses starts while a freeze is in force."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from flansible.definitions.kinds import FREEZES
from flansible.definitions.schedule_times import Freeze
from flansible.errors import Forbidden
from flansible.history.definition_rows import StoredDefinition
from flansible.identity.users import User
from flansible.models.schedule_specs import FreezeSpec
from flansible.web.context import WebContext


def freezes_of(context: WebContext) -> list[Freeze]:
    """Returns all freezes."""
    stored: Iterable[StoredDefinition] = context.definitions.all(FREEZES.name) if context.definitions else ()
    return [Freeze(one.name, FreezeSpec.model_validate(one.spec)) for one in stored]


def check(context: WebContext, template: str, user: User, *, is_meant: bool) -> None:
    """Raises Forbidden for a template that may not start now. is_meant: who launches it said so; admin need not."""
    if user.is_admin or is_meant:
        return
    now = datetime.now(UTC)
    name = next((freeze.name for freeze in freezes_of(context) if freeze.holds(now, template)), None)
    if name is not None:
        message = f"Nothing starts during the freeze {name}. Start it with ?during_freeze=true if it has to be now."
        raise Forbidden(message, code="frozen")
