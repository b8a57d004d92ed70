"""How a rule refuses: one shape, with the field, a code for programs and what to do."""

from __future__ import annotations

from flansible.errors import FieldError, Forbidden


def forbidden(field: str, code: str, message: str) -> Forbidden:
    return Forbidden(f"{field}: {message}", code=code, errors=[FieldError(field, message)])
