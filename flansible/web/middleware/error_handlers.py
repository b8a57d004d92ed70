"""Maps exceptions to error replies: one JSON shape for every status, made only here."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from flask import Flask, Response, g, jsonify, request
from flask_restful import Api
from werkzeug.exceptions import HTTPException

from flansible.errors import (
    AuditUnavailable,
    BrokerUnavailable,
    Expired,
    HistoryUnavailable,
    OutputExpired,
    RecordUnreadable,
    RequestError,
    SealError,
    StoreUnavailable,
    TaskDeleted,
)
from flansible.models import ErrorBody, ErrorItem
from flansible.web.middleware import audit_context

log = logging.getLogger(__name__)

RETRY_AFTER_SECONDS = 5
REALM = 'Basic realm="flansible", charset="UTF-8"'
TOKEN_REALM = 'Bearer realm="flansible"'

# Werkzeug's HTTP errors: status -> (code, message).
_HTTP_MESSAGES = {
    400: ("invalid_request", "The request is malformed."),
    404: ("not_found", "There is nothing at this address. /api/docs lists every address."),
    405: ("method_not_allowed", "This address does not support this method."),
    408: ("request_timeout", "The request took too long to arrive."),
    413: ("body_too_large", "The body is over the limit; make it smaller, or raise max_body_bytes."),
    414: ("uri_too_long", "The address is too long."),
    415: ("unsupported_media_type", "Send JSON, with the header Content-Type: application/json."),
    431: ("headers_too_large", "The headers are too large."),
}


class UniformErrorApi(Api):  # type: ignore[misc]
    """flask-restful's Api with errors left to the app's own handler.

    Api would match the URL again to find out whether an error is its own, and fail on an invalid Host header.
    """

    def error_router(self, original_handler: Callable[[Exception], Response], error: Exception) -> Response:
        return original_handler(error)


def register(app: Flask) -> None:
    app.register_error_handler(Exception, error_response)


def error_response(error: Exception) -> Response:
    """Returns the reply to a request whose handler raised."""
    if isinstance(error, RequestError):
        items = [ErrorItem(field=item.field, message=item.message) for item in error.errors]
        return _reply(error.status, error.code, error.message, items, error.retry_after_seconds)
    if isinstance(error, RecordUnreadable):
        log.warning("%s", error)
        message = f"The record of this task cannot be read; it may be damaged, or of another version ({error.why})."
        return _reply(404, "record_unreadable", message, [])
    if isinstance(error, OutputExpired):
        return error_response(Expired(str(error)))
    if isinstance(error, TaskDeleted):
        log.info("%s", error)
        return _reply(404, "task_not_found", "Task not found", [])
    if isinstance(error, HistoryUnavailable):
        log.warning("%s", error)
        return _unavailable("history", f"The history database {error.reason}.")
    if isinstance(error, StoreUnavailable):
        log.warning("%s", error)
        return _unavailable("store", f"The record store (Redis) {error.reason}.")
    if isinstance(error, BrokerUnavailable):
        log.warning("%s", error)
        return _unavailable("broker", f"The message broker {error.reason}.")
    if isinstance(error, SealError):
        log.error("%s", error)
        return _unavailable("seal", "Passwords cannot be sealed: the key (secret_key_file) cannot be used.")
    if isinstance(error, AuditUnavailable):
        log.error("%s", error)
        return _unavailable("audit", "The audit log cannot be written (audit_file).")
    if isinstance(error, HTTPException) and error.code is not None:
        return _http_error(error)
    log.exception("%s %s failed (request %s)", request.method, request.path, audit_context.request_id())
    return _reply(500, "internal_error", "Something failed on our side; the web server's log has the details.", [])


def _unavailable(part: str, message: str) -> Response:
    outcome = "Nothing was queued; try again." if request.method == "POST" else "Try again."
    return _reply(503, f"{part}_unavailable", f"{message} {outcome}", [], RETRY_AFTER_SECONDS)


def _http_error(error: HTTPException) -> Response:
    status = error.code or 500
    if 300 <= status < 400:
        return Response(error.get_response().get_data(), status, error.get_response().headers)
    code, message = _HTTP_MESSAGES.get(status, ("http_error", error.description or error.name))
    response = _reply(status, code, message, [])
    allowed = getattr(error, "valid_methods", None)
    if allowed:
        response.headers["Allow"] = ", ".join(sorted(allowed))
    return response


def _reply(
    status: int, code: str, message: str, items: list[ErrorItem], retry_after_seconds: int | None = None
) -> Response:
    body: dict[str, Any] = ErrorBody(message=message, code=code, errors=items).model_dump()
    response = jsonify(body)
    response.status_code = status
    if retry_after_seconds is not None:
        response.headers["Retry-After"] = str(retry_after_seconds)
    if status == 401:
        # A Basic challenge makes the browser open its login dialog; the console has a login page instead.
        if request.headers.get("X-Requested-With") != "flansible":
            response.headers.add("WWW-Authenticate", REALM)
        response.headers.add("WWW-Authenticate", TOKEN_REALM)
    g.error_code = code
    return response
