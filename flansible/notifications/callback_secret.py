"""The secret that signs a request's `callback`: the token of a stored credential, which is opened when it is used.

A record has the credential's name and that of the user whose rights are asked, at the launch and at each attempt.
"""

from __future__ import annotations

from flansible.definitions.stored_credentials import Credentials
from flansible.errors import FieldError, InvalidRequest
from flansible.identity.users import User
from flansible.models.notification_specs import secret_bytes

FIELD = "callback.credential"
_KIND = "http"


def find(credentials: Credentials, user: User, name: str) -> str:
    """Returns the secret. Raises what `Credentials.open` raises, and InvalidRequest for a credential with none of the
    form of Standard Webhooks."""
    found = credentials.open(user, name, FIELD).spec
    try:
        if found.kind != _KIND:
            raise ValueError(f"is of the kind {found.kind}; only one of the kind {_KIND} signs callbacks")
        secret_bytes(found.token or "")
    except ValueError as error:
        message = f"credential {name}: its token {error}" if found.kind == _KIND else f"credential {name} {error}"
        raise InvalidRequest(f"{FIELD}: {message}", code="invalid_field", errors=[FieldError(FIELD, message)]) from None
    return found.token or ""
