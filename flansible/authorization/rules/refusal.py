"""The one form of a refusal: the field, a code for programs, and a message that says what to do."""

from __future__ import annotations

from flansible.errors import FieldError, Forbidden

ASK = "Ask an admin to add it to rbac.json."


def forbidden(field: str, code: str, message: str) -> Forbidden:
    return Forbidden(f"{field}: {message}", code=code, errors=[FieldError(field, message)])
