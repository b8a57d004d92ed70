"""What only admin may write in a notification, and have sent. Pure."""

from __future__ import annotations

from flansible.errors import FieldError, Forbidden
from flansible.identity.users import User
from flansible.models.notification_specs import NotificationSpec


def needs_admin(spec: NotificationSpec) -> bool:
    """Whether only admin may own it: what dials by itself, or may reach private addresses."""
    return spec.kind == "apprise" or spec.allow_private


def check_definition(user: User, spec: NotificationSpec) -> None:
    """Raises Forbidden. The owner's rights are looked at again when it is sent."""
    if needs_admin(spec) and not user.is_admin:
        field = "allow_private" if spec.allow_private else "kind"
        message = "only admin may set this, since it reaches what users may not"
        raise Forbidden(f"{field}: {message}", code="admin_only", errors=[FieldError(field, message)])
