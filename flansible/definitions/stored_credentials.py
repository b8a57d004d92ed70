"""Opens stored secrets for the service's own use: for requests that name them, and for other definitions.

The one way to a secret's value. Who asks is a user of rbac.json, never the service itself: the caller of a request, or
the owner of the definition (a project, a webhook) that names it. Called by the web process; `Credential` must reach no
record, message or log.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import ValidationError

from flansible import wording
from flansible.authorization import credential_rights
from flansible.definitions import secret_source
from flansible.definitions.definition_store import Definitions
from flansible.definitions.kinds import CREDENTIALS
from flansible.definitions.secret_source import SecretFunction, SecretRequest
from flansible.errors import FieldError, Forbidden, NotFound, SecretUnavailable, Unavailable
from flansible.history.definition_rows import StoredDefinition
from flansible.identity.users import User
from flansible.models.credential_spec import CredentialSpec

_RETRY_AFTER_SECONDS = 5


@dataclass(frozen=True)
class Credential:
    """A credential with its secret. owner: the user who wrote it last; its repr leaves out what is sealed."""

    name: str
    owner: str
    spec: CredentialSpec


class Credentials:
    """The stored secrets of one service."""

    def __init__(self, definitions: Definitions, function: SecretFunction | None = None) -> None:
        """function: of the setting `secret_function`."""
        self._definitions = definitions
        self._function = function

    def open(self, user: User, name: str, field: str = "credential") -> Credential:
        """Returns a credential with its secret, if the user may use it; errors name the field.

        Raises Forbidden for one that the user may not use, whether or not there is one; NotFound; Unavailable when its
        external store fails; SealError; HistoryUnavailable.
        """
        found = self._definitions.find(CREDENTIALS.name, name)
        if not credential_rights.may_use(user, name, found.owner if found else None):
            raise forbidden(name, field)
        if found is None:
            message = f"there is no credential {name}"
            raise NotFound(f"{field}: {message}", code="credential_not_found", errors=[FieldError(field, message)])
        try:
            return Credential(name, found.owner, self._spec(found))
        except SecretUnavailable as error:
            message = f"the secret of credential {name} cannot be had: {error}"
            raise Unavailable(
                f"{field}: {message}",
                code="secret_unavailable",
                errors=[FieldError(field, message)],
                retry_after_seconds=_RETRY_AFTER_SECONDS,
            ) from error

    def _spec(self, found: StoredDefinition) -> CredentialSpec:
        source = found.spec.get("source")
        if source is None:
            return CredentialSpec.model_validate({**found.spec, **self._definitions.opened(found)})
        kind = found.spec["kind"]
        fetched = secret_source.fetch(self._function, SecretRequest(found.name, kind, source))
        if unknown := fetched.keys() - CREDENTIALS.sealed - {"user"}:
            raise SecretUnavailable(f"secret_function returned {len(unknown)} fields that no credential has")
        document = {name: value for name, value in found.spec.items() if name != "source"}
        try:
            return CredentialSpec.model_validate({**document, **fetched})
        except ValidationError as error:
            # Of what is wrong the words of ours, never what was given.
            found_wrong = error.errors(include_url=False, include_context=False, include_input=False)
            words = [f"{(*item['loc'], 'it')[0]} {wording.plain(item['msg'])}" for item in found_wrong]
            message = f"secret_function returned no secret of the kind {kind}: {', '.join(dict.fromkeys(words))}"
            raise SecretUnavailable(message) from None


def forbidden(name: str, field: str) -> Forbidden:
    """Returns the error for a credential that a user may not use, whether or not there is one."""
    message = f"You may not use credential {name}. Ask an admin to add it to credentials in rbac.json."
    return Forbidden(f"{field}: {message}", code="credential_forbidden", errors=[FieldError(field, message)])
