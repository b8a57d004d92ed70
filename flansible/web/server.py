"""gunicorn, configured from settings: the process behind `flansible web`."""

from __future__ import annotations

import socket
from typing import Any

from gunicorn import util
from gunicorn.app.base import BaseApplication

from flansible import passwords
from flansible.config import Settings
from flansible.models import ErrorBody
from flansible.web import create_app

_CODES = {414: "uri_too_long", 431: "headers_too_large", 500: "internal_error", 501: "unsupported_transfer_coding"}


def _write_error(client: socket.socket, status: int, reason: str, message: str) -> None:
    """What gunicorn says to a request that never reaches the app, in our one shape."""
    what = message if message else reason
    body = ErrorBody(message=what, code=_CODES.get(status, "invalid_request"), errors=[]).model_dump_json().encode()
    head = (
        f"HTTP/1.1 {status} {reason}\r\nConnection: close\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    util.write_nonblock(client, head.encode("latin-1") + body)


class _Server(BaseApplication):  # type: ignore[misc]
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        super().__init__()

    def load_config(self) -> None:
        settings = self._settings
        address = f"[{settings.Flask_tcp_ip}]" if ":" in settings.Flask_tcp_ip else settings.Flask_tcp_ip
        options: dict[str, Any] = {
            "bind": f"{address}:{settings.Flask_tcp_port}",
            "workers": settings.web_workers,
            "threads": settings.web_threads,
            "worker_class": "gthread",
            "proc_name": "flansible-web",
            "graceful_timeout": 3,
            "timeout": 120,
            "keepalive": 30,
            "accesslog": None,
            "loglevel": "warning",
            "control_socket_disable": True,
        }
        for key, value in options.items():
            if key in self.cfg.settings:
                self.cfg.set(key, value)

    def load(self) -> Any:
        # In each process, after the fork: connections and locks must not be shared.
        return create_app(self._settings)


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT. Raises ConfigurationError before anything listens when rbac.json is wrong."""
    create_app(settings)
    # gunicorn has no setting for it; its workers look the function up in this module each time.
    util.write_error = _write_error
    passwords.refuse_default_admin(settings.rbac_file, [settings.Flask_tcp_ip])
    _Server(settings).run()
