"""The service's figures for Prometheus. Off until `metrics` is set; for a token, or addresses, that settings name."""

from __future__ import annotations

import hmac
import ipaddress
import logging
from pathlib import Path

from flask import Response, request
from flask_restful import Resource

from flansible import __version__
from flansible.config import Settings
from flansible.errors import Forbidden, NotAuthenticated, NotFound
from flansible.web.context import web_context
from flansible.web.parsing import NoFields, parse_query
from flansible.web.resources import prometheus_text

log = logging.getLogger(__name__)

_LEAST_TOKEN_CHARACTERS = 16
_MOST_TOKEN_BYTES = 4096


class MetricsResource(Resource):  # type: ignore[misc]
    """The service's figures for Prometheus: of all its processes, in the text format. Counters never fall."""

    def get(self) -> Response:
        """Read metrics"""
        parse_query(NoFields)
        settings, store = web_context().settings, web_context().store
        if not settings.metrics:
            raise NotFound("Metrics are off; an operator can set metrics = true in config.ini.", code="metrics_off")
        if not (_is_address_allowed(settings) or _has_token(settings)):
            if settings.metrics_token_file is not None:
                raise NotAuthenticated("Send the token of metrics_token_file, as Authorization: Bearer.")
            raise Forbidden("This address is not in metrics_addresses.", code="metrics_forbidden")
        body = prometheus_text.text(store.metrics(), __version__, has_archive=store.archive is not None)
        response = Response(body, content_type=prometheus_text.CONTENT_TYPE)
        response.headers["Cache-Control"] = "no-store"
        return response


def _is_address_allowed(settings: Settings) -> bool:
    try:
        address = ipaddress.ip_address(request.remote_addr or "")
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return any((mapped or address) in network for network in settings.metrics_networks)


def _has_token(settings: Settings) -> bool:
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    if settings.metrics_token_file is None or scheme.lower() != "bearer":
        return False
    token = _read_token(settings.metrics_token_file)
    return bool(token) and hmac.compare_digest(given.strip().encode(errors="replace"), token)


def _read_token(path: Path) -> bytes:
    """Reads the file each time, so that a new token needs no restart; empty when it holds none."""
    try:
        with path.open("rb") as file:
            token = file.read(_MOST_TOKEN_BYTES).strip()
    except OSError as error:
        log.error("metrics_token_file cannot be read: %s", error)
        return b""
    if len(token) < _LEAST_TOKEN_CHARACTERS:
        log.error("the token in metrics_token_file needs %d characters or more", _LEAST_TOKEN_CHARACTERS)
        return b""
    return token
