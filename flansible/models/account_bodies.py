"""Bodies and replies about one's own account, and for admin about all users."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from flansible.models.records import Record
from flansible.models.request_fields import MAX_TEXT_CHARACTERS, Request, Secret

MIN_PASSWORD_CHARACTERS = 8

NewPassword = Annotated[
    str,
    Field(
        min_length=MIN_PASSWORD_CHARACTERS,
        max_length=MAX_TEXT_CHARACTERS,
        json_schema_extra={"format": "password"},
    ),
]


class PasswordChange(Request):
    """`PUT /api/account/password`."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"current_password": "the old one", "new_password": "another, longer one"}}
    )

    current_password: Secret = Field(repr=False, description="The password of now.")
    new_password: NewPassword = Field(
        repr=False, description=f"The new one, of {MIN_PASSWORD_CHARACTERS} characters or more."
    )


class TokenRequest(Request):
    """`POST /api/account/tokens`."""

    model_config = ConfigDict(json_schema_extra={"example": {"scope": "read", "expires": "30d"}})

    scope: Literal["read", "run"] = Field("run", description="`read`: the token cannot start or cancel tasks.")
    expires: str = Field(
        "90d",
        min_length=1,
        max_length=20,
        description="`30d`, `12h`, `90m`, a date such as `2027-01-31` (its beginning, UTC), or `never`.",
    )


class AccountToken(Record):
    """A token, without its secret."""

    id: str = Field(description="Its id, which the audit log names.")
    scope: Literal["read", "run"] = Field(description="What it may do.")
    created: str = Field(description="When it was made, UTC.")
    expires: str | None = Field(description="When it ends, UTC; null: never.")
    is_expired: bool = Field(description="Whether it has ended.")


class NewAccountToken(AccountToken):
    """A token just made, the only time with its text."""

    token: str = Field(repr=False, description="Its text: `Authorization: Bearer <token>`. It cannot be shown again.")


class AccountTokens(Record):
    """The caller's tokens."""

    tokens: list[AccountToken] = Field(description="The tokens, oldest first.")


class DescribedUser(Record):
    """A user of rbac.json, for admin."""

    user: str = Field(description="Name of the user.")
    role: str = Field(description="The role of the user's own entry.")
    groups: list[str] = Field(description="The groups the user is a member of.")
    tokens: int = Field(description="How many tokens are in force.")
    rights: list[str] = Field(description="What the user may reach, in words.")


class DescribedUsers(Record):
    """All users of rbac.json, for admin."""

    users: list[DescribedUser] = Field(description="The users, by name.")
