"""The kind `credentials`: secrets that are stored sealed and used by name.

One model for all kinds of them; `_FORMS` says which fields each has. The sealed fields are those that hold the secret:
they are written and never returned. With `source` they are not stored here, and come from the operator's own
`secret_function` (flansible.definitions.secret_source).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, JsonValue, ValidationInfo, field_validator, model_validator

from flansible.models import private_keys
from flansible.models.definition_specs import Sealed, SealedMark, Spec
from flansible.models.request_fields import MAX_LIST_ITEMS, EnvironmentName, Password, Secret, VariableName
from flansible.models.requests import DEFAULT_VAULT_ID

CredentialKind = Literal["ssh", "become", "vault", "git", "environment", "http"]
SealedPassword = Annotated[Password, SealedMark(), Field(json_schema_extra={"format": "password", "writeOnly": True})]
SealedVariables = Annotated[
    dict[EnvironmentName, Secret],
    SealedMark(),
    Field(min_length=1, max_length=MAX_LIST_ITEMS, json_schema_extra={"writeOnly": True}),
]
LoginName = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[^\s\x00-\x1f\x7f-][^\s\x00-\x1f\x7f]*$")]
VaultId = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")]


@dataclass(frozen=True)
class _Form:
    """The fields of one kind. secrets: those of which it has exactly one; others: those that it may have besides."""

    secrets: tuple[str, ...]
    others: tuple[str, ...] = ()

    @property
    def fields(self) -> tuple[str, ...]:
        return (*self.others, *self.secrets)


_FORMS: dict[str, _Form] = {
    "ssh": _Form(("password", "private_key"), ("user", "private_key_passphrase")),
    "become": _Form(("password",), ("user",)),
    "vault": _Form(("password",), ("vault_id",)),
    "git": _Form(("password", "token", "private_key"), ("user", "private_key_passphrase")),
    "environment": _Form(("variables",), ("names",)),
    "http": _Form(("token",), ("variable",)),
}
# Checked even when they are not given; in the order of the model, so that each sees those it depends on.
_REQUIRED_AT = {kind: form.secrets[-1] for kind, form in _FORMS.items()}


class CredentialSpec(Spec):
    """A secret that is stored sealed and used by name: it is written and never returned."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"kind": "become", "user": "root", "password": "the password for sudo"}}
    )

    kind: CredentialKind = Field(
        description="What it is for: `ssh` logs in to hosts, `become` is the password for become, `vault` opens vault "
        "files, `git` fetches projects, `environment` has variables of the run's environment, `http` has a token."
    )
    source: dict[str, JsonValue] | None = Field(
        None,
        max_length=100,
        description="Where `secret_function` of the service finds the secret, in the words of that function; instead "
        "of the fields that are sealed.",
    )
    vault_id: VaultId | None = Field(
        None, description=f"`vault`: the vault id of the password; by default `{DEFAULT_VAULT_ID}`."
    )
    variable: VariableName | None = Field(
        None, description="`http`: the variable in which a run that uses it gets the token, as one of `secret_vars`."
    )
    names: list[EnvironmentName] | None = Field(
        None,
        max_length=MAX_LIST_ITEMS,
        description="`environment`: the names in `variables`, which are not secret. Follows from those; what is sent "
        "is ignored.",
    )
    private_key_passphrase: Sealed | None = Field(
        None, validate_default=True, description="`ssh`, `git`: the passphrase of an encrypted `private_key`."
    )
    password: SealedPassword | None = Field(
        None, validate_default=True, description="`ssh`, `become`, `vault`, `git`: the password."
    )
    token: Sealed | None = Field(None, validate_default=True, description="`git`, `http`: the token.")
    private_key: Sealed | None = Field(
        None,
        validate_default=True,
        description="`ssh`, `git`: the private key. Runs can log in with that of kind `ssh`, and not read it.",
    )
    variables: SealedVariables | None = Field(
        None, validate_default=True, description="`environment`: the values by the names of the variables."
    )
    user: LoginName | None = Field(
        None,
        validate_default=True,
        description="`ssh`: the user to connect as, if the request names none; `become`: the user to become, likewise; "
        "`git`: the user of a password or token.",
    )

    @model_validator(mode="before")
    @classmethod
    def _name_variables(cls, given: Any) -> Any:
        if not isinstance(given, dict) or not isinstance(given.get("variables"), dict):
            return given
        return {**given, "names": sorted(filter(_is_name, given["variables"]))}

    @field_validator(*dict.fromkeys(name for form in _FORMS.values() for name in form.fields), mode="after")
    @classmethod
    def _suits_its_kind(cls, value: Any, info: ValidationInfo) -> Any:
        kind, name = info.data.get("kind"), info.field_name or ""
        if kind is None:
            return value  # it has its own error
        form = _FORMS[kind]
        others = {field: info.data[field] for field in form.secrets if info.data.get(field) is not None}
        if value is None:
            has_faulty = not {"source", *form.secrets} - {name} <= info.data.keys()  # given, with an error of its own
            if name == _REQUIRED_AT[kind] and not others and not has_faulty and info.data["source"] is None:
                raise ValueError(_missing(form))
            return value
        if name not in form.fields:
            raise ValueError(f"is no field of the kind {kind}, which has {', '.join(sorted(form.fields))}")
        if name in (*form.secrets, "private_key_passphrase"):
            if info.data.get("source") is not None:
                raise ValueError("comes from source; leave it out, or send null to remove the one that is stored")
            if name in form.secrets and others:
                raise ValueError(f"and {', '.join(others)} exclude each other: send null for the one to remove")
        return value

    @field_validator("private_key")
    @classmethod
    def _is_a_key(cls, value: str | None, info: ValidationInfo) -> str | None:
        passphrase = info.data.get("private_key_passphrase")
        if value is None:
            if passphrase is not None:
                raise ValueError("is missing: private_key_passphrase is for it; send null for that to remove it")
            return value
        key = private_keys.mended(value)
        if not private_keys.is_private_key(key):
            raise ValueError("is no private key: it needs all lines from -----BEGIN to -----END ... PRIVATE KEY-----")
        if private_keys.is_encrypted(key) and passphrase is None:
            raise ValueError("is encrypted: private_key_passphrase is missing")
        if not private_keys.is_encrypted(key) and passphrase is not None:
            raise ValueError("is not encrypted: leave private_key_passphrase out, or send null to remove it")
        return key

    @field_validator("user")
    @classmethod
    def _is_there_for_git(cls, value: str | None, info: ValidationInfo) -> str | None:
        given = [name for name in ("password", "token") if info.data.get(name) is not None]
        if value is None and info.data.get("kind") == "git" and given:
            raise ValueError(f"is missing: a {given[0]} of the kind git needs it")
        return value


def _is_name(text: Any) -> bool:
    return isinstance(text, str) and text.isascii() and text.isidentifier()


def _missing(form: _Form) -> str:
    names = " or ".join(reversed(form.secrets))
    return f"is missing: this kind needs {names}, or source"
