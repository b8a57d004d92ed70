"""What a kind of definitions may have of its own: a check when one is written, fields computed for a reader.

The table of them is flansible.web.kind_table; the modules that are named there use this one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from flansible.definitions.definition_store import Find
from flansible.errors import FieldError, InvalidRequest
from flansible.history.definition_rows import StoredDefinition
from flansible.identity.users import User
from flansible.models.definition_specs import Spec
from flansible.web.context import WebContext


@dataclass(frozen=True)
class Written:
    """A definition that is about to be written. What `find` finds is compared again when it is.

    user: who writes it; find: looks others up, as they will be then; where: its place in the body, if it is not the
    body.
    """

    context: WebContext
    user: User
    name: str
    spec: Spec
    find: Find
    where: str = ""

    def refuse(self, errors: Iterable[FieldError]) -> None:
        """Raises InvalidRequest for these fields of the spec, if there are any."""
        named = [FieldError(f"{self.where}.{one.field}" if self.where else one.field, one.message) for one in errors]
        if named:
            message = "; ".join(f"{one.field}: {one.message}" for one in named[:5])
            raise InvalidRequest(message, code="invalid_field", errors=named)


@dataclass(frozen=True)
class KindRules:
    """check: raises the refusal; compute: returns the fields of the kind's model `computed`; its last argument is
    whether it is for one definition alone, and not for a list: then it may take time."""

    check: Callable[[Written], None] | None = None
    compute: Callable[[WebContext, User, StoredDefinition, bool], dict[str, Any]] | None = None
