"""Counts each reply for GET /metrics: by method, route and status, of which no client can make new ones."""

from __future__ import annotations

from flask import Flask, Response, request

from flansible.store import AnsweredRequest
from flansible.web.context import web_context

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"})
_OTHER = "other"


def register(app: Flask) -> None:
    app.after_request(_count)


def _count(response: Response) -> Response:
    counts = web_context().request_counts
    if counts is not None:
        method = request.method if request.method in _METHODS else _OTHER
        route = request.url_rule.rule if request.url_rule is not None else _OTHER
        counts.add(AnsweredRequest(method, route, response.status_code))
    return response
