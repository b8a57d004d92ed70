"""API documentation (made from ROUTES and the models)."""

from __future__ import annotations

from flask import Flask


def register(app: Flask) -> None:
    """Placeholder until the documentation routes stand."""
