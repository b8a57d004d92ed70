"""gunicorn, configured from settings: the process behind `flansible web`."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

from flask import Flask
from gunicorn import util
from gunicorn.app.base import BaseApplication

from flansible.broker import app as broker_app
from flansible.broker.recovery import Recovery
from flansible.config import Settings, tls
from flansible.config.tls import ServerContext
from flansible.identity import passwords
from flansible.models import ErrorBody
from flansible.system import rlimits, standard_output
from flansible.web import background, create_app
from flansible.web.context import WebContext
from flansible.web.dispatching import notification_dispatcher
from flansible.web.middleware import security_headers
from flansible.web.parsing import PUBLIC_BODY_BYTES
from flansible.web.rights_watcher import RightsWatcher
from flansible.web.routes import ROUTES
from flansible.web.server.worker import FrontWorker

_CODES = {
    408: "request_timeout",
    414: "uri_too_long",
    429: "connection_limit",
    431: "headers_too_large",
    500: "internal_error",
    501: "unsupported_transfer_coding",
    503: "too_many_connections",
}
_RETRY = {429: "Retry-After: 5\r\n", 503: "Retry-After: 5\r\n"}


def _error_writer(is_tls: bool) -> Callable[[Any, int, str, str], None]:
    """Returns a writer of error replies in the API's shape, for requests that never reach the app."""
    headers = "".join(f"{name}: {value}\r\n" for name, value in security_headers.default_headers(is_tls))

    def write(client: Any, status: int, reason: str, message: str) -> None:
        body = (
            ErrorBody(message=message or reason, code=_CODES.get(status, "invalid_request"), errors=[])
            .model_dump_json()
            .encode()
        )
        head = (
            f"HTTP/1.1 {status} {reason}\r\nConnection: close\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n{_RETRY.get(status, '')}{headers}\r\n"
        )
        client.sendall(head.encode("latin-1") + body)

    return write


class _FrozenSettings:
    """gunicorn's configuration as plain attributes, once it is final.

    gunicorn looks each value up in two steps of Python, some thirty times per request, which takes 4.8 % more CPU time
    per status poll (1074 against 1025 us; 2026-11-29, `python -m benchmarks.web_parts`).
    """

    def __init__(self, cfg: Any) -> None:
        self._cfg = cfg
        vars(self).update({name: getattr(cfg, name) for name in (*cfg.settings, "is_ssl")})

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cfg, name)


class _Server(BaseApplication):  # type: ignore[misc]
    """settings, tls, is_public and public_body_bytes are read by the worker."""

    freeze = _FrozenSettings
    public_body_bytes = PUBLIC_BODY_BYTES
    _public_paths = frozenset(route.path for route in ROUTES if route.public and "<" not in route.path)
    _public_prefixes = tuple(route.path.partition("<")[0] for route in ROUTES if route.public and "<" in route.path)

    def __init__(self, settings: Settings, app: Flask) -> None:
        self.settings = settings
        self._app = app
        self.tls: ServerContext | None = None
        super().__init__()

    def is_public(self, path: str) -> bool:
        """Whether requests for this path need no login."""
        return path in self._public_paths or (bool(self._public_prefixes) and path.startswith(self._public_prefixes))

    def load_config(self) -> None:
        settings = self.settings
        address = f"[{settings.Flask_tcp_ip}]" if ":" in settings.Flask_tcp_ip else settings.Flask_tcp_ip
        options: dict[str, Any] = {
            "bind": f"{address}:{settings.Flask_tcp_port}",
            "workers": settings.web_workers,
            "threads": settings.web_threads,
            "worker_class": FrontWorker,
            "proc_name": "flansible-web",
            "graceful_timeout": 3,
            "timeout": 120,
            # Proxy headers are read by flansible.web.middleware.proxy_headers; gunicorn would trust 127.0.0.1.
            "forwarded_allow_ips": "",
            "secure_scheme_headers": {},
            "forwarder_headers": "",
            "limit_request_line": 8190,
            "limit_request_fields": 100,
            "limit_request_field_size": 8190,
            "accesslog": None,
            "loglevel": "warning",
            "control_socket_disable": True,
            "when_ready": lambda _arbiter: standard_output.write_line(f"Web server is ready at {settings.url}"),
        }
        if settings.tls_certificate and settings.tls_key:
            self.tls = ServerContext(settings.tls_certificate, settings.tls_key)
            options |= {"certfile": str(settings.tls_certificate), "keyfile": str(settings.tls_key)}
        for key, value in options.items():
            if key in self.cfg.settings:
                self.cfg.set(key, value)

    def load(self) -> Any:
        # Runs in each process after the fork: connections and threads must not be shared.
        context: WebContext = self._app.extensions["flansible"]
        Recovery(context.store).start()
        context.failed_submissions.start()
        RightsWatcher(context).start()
        if (dispatcher := notification_dispatcher(context)) is not None:
            dispatcher.start()
        if context.request_counts is not None:
            context.request_counts.start()
        background.start(self._app)
        return self._app


def serve(settings: Settings) -> None:
    """Serves until SIGTERM or SIGINT. Raises ConfigurationError before anything listens when rbac.json is wrong."""
    app = create_app(settings)
    tls.check(settings)
    context: WebContext = app.extensions["flansible"]
    if context.store.archive is not None:
        context.store.archive.require_known_version()
    # gunicorn has no setting for it; its workers look the function up in `util` at each call.
    util.write_error = _error_writer(settings.is_tls)
    passwords.refuse_default_admin(settings.rbac_file, [settings.Flask_tcp_ip])
    rlimits.raise_open_files_limit()
    server = _Server(settings, app)
    broker_app.preload()
    # The objects that exist now stay. Frozen, garbage collections skip them: each would visit 83,000 objects,
    # during 55 ms in which no request is served (2026-11-29), and write to pages that the processes share.
    gc.collect()
    gc.freeze()
    server.run()
