"""gunicorn, configured from settings: the process behind `flansible web`."""

from __future__ import annotations

import contextlib
import gc
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from flask import Flask
from gunicorn import util
from gunicorn.app.base import BaseApplication
from gunicorn.workers.gthread import TConn, ThreadWorker

from flansible.broker import app as broker_app
from flansible.broker.recovery import Recovery
from flansible.config import Settings, tls
from flansible.config.tls import ServerContext
from flansible.identity import passwords
from flansible.models import ErrorBody
from flansible.system import rlimits, standard_output
from flansible.web import create_app, parsing
from flansible.web.middleware import security_headers
from flansible.web.streaming import socket_handoff

_CODES = {414: "uri_too_long", 431: "headers_too_large", 500: "internal_error", 501: "unsupported_transfer_coding"}
_LINGER_MILLISECONDS = 5
# Time limits for a whole head and a whole body, against clients that send slowly on purpose: each holds a thread.
HEAD_SECONDS = 10.0
BODY_SECONDS = 120.0


def _error_writer(is_tls: bool) -> Callable[[socket.socket, int, str, str], None]:
    """Returns a writer of gunicorn's own error replies in the API's shape, for requests that never reach the app."""
    headers = "".join(f"{name}: {value}\r\n" for name, value in security_headers.default_headers(is_tls))

    def write(client: socket.socket, status: int, reason: str, message: str) -> None:
        body = (
            ErrorBody(message=message or reason, code=_CODES.get(status, "invalid_request"), errors=[])
            .model_dump_json()
            .encode()
        )
        head = (
            f"HTTP/1.1 {status} {reason}\r\nConnection: close\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n{headers}\r\n"
        )
        util.write_nonblock(client, head.encode("latin-1") + body)

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


class _Worker(ThreadWorker):  # type: ignore[misc]
    """gunicorn's threaded worker, with socket handoff (flansible.web.streaming.socket_handoff) and time limits.

    A duplicate of the descriptor would not do for the handoff: gunicorn 27 ends a connection with shutdown(), which
    ends it for every descriptor, and then waits in its main thread, two seconds at most, for the client to close. So
    the descriptor is detached from gunicorn's socket object. gunicorn cannot close that object any more, and would
    count the connection as closed twice.
    """

    wsgi: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # One thread in four never lingers, so that a new client finds a free one.
        self.cfg: Any = _FrozenSettings(self.cfg)
        self._may_linger = threading.Semaphore(self.cfg.threads * 3 // 4)
        # Per thread: the connection it reads from, and its deadline. A thread changes only its own entry; `notify`
        # checks all.
        self._reading: dict[int, tuple[TConn, float]] = {}

    def load_wsgi(self) -> None:
        super().load_wsgi()
        app = self.wsgi

        def with_socket(environ: dict[str, Any], start_response: Any) -> Any:
            connection, _ = self._reading.pop(threading.get_ident())
            environ[parsing.BODY_TIME_LIMIT] = lambda: self._time_limit(connection, BODY_SECONDS)
            client = environ["gunicorn.socket"]
            # An SSLSocket keeps state above the descriptor, and in HTTP/2 several requests share the connection.
            if type(client) is socket.socket and environ["SERVER_PROTOCOL"] in ("HTTP/1.0", "HTTP/1.1"):
                environ[socket_handoff.TAKE_SOCKET] = lambda: socket.socket(fileno=client.detach())
            return app(environ, start_response)

        self.wsgi = with_socket
        self._stream_loop = socket_handoff.stream_loop_of(app)

    def handle(self, conn: TConn) -> Any:
        keep = self._handle_one(conn)
        # A client that sends its next request at once stays with this thread. The way through the main thread, its
        # poller and the pool's queue takes 20 % more CPU time per status poll of 16 connections (779 against 650 us;
        # 2026-11-29, `python -m benchmarks.web_parts`).
        while keep is True and self.alive and self._sends_again(conn):
            keep = self._handle_one(conn)
        if conn.sock.fileno() < 0:
            conn.close = lambda graceful=False: None
        return keep

    def _handle_one(self, conn: TConn) -> Any:
        with self._time_limit(conn, HEAD_SECONDS):
            return super().handle(conn)

    @contextmanager
    def _time_limit(self, conn: TConn, seconds: float) -> Iterator[None]:
        """Shuts the connection down if this thread has not finished reading from it within `seconds`."""
        self._reading[threading.get_ident()] = (conn, time.monotonic() + seconds)
        try:
            yield
        finally:
            self._reading.pop(threading.get_ident(), None)

    def notify(self) -> None:
        """The main thread's heartbeat, about once a second; also enforces the time limits of reading threads."""
        super().notify()
        now = time.monotonic()
        for conn, deadline in tuple(self._reading.values()):
            if now > deadline:
                # The reading thread sees a disconnect. (An SSLSocket's own shutdown would destroy its TLS state.)
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(conn.sock, socket.SHUT_RDWR)

    def _sends_again(self, conn: TConn) -> bool:
        """Waits a moment for a client's next request; returns whether it came."""
        if type(conn.sock) is not socket.socket or not self._may_linger.acquire(blocking=False):
            return False
        try:
            poll = select.poll()
            poll.register(conn.sock, select.POLLIN)
            return bool(poll.poll(_LINGER_MILLISECONDS))
        finally:
            self._may_linger.release()

    def run(self) -> None:
        try:
            super().run()
        finally:
            self._stream_loop.close()


class _Server(BaseApplication):  # type: ignore[misc]
    def __init__(self, settings: Settings, app: Flask) -> None:
        self._settings = settings
        self._app = app
        super().__init__()

    def load_config(self) -> None:
        settings = self._settings
        address = f"[{settings.Flask_tcp_ip}]" if ":" in settings.Flask_tcp_ip else settings.Flask_tcp_ip
        options: dict[str, Any] = {
            "bind": f"{address}:{settings.Flask_tcp_port}",
            "workers": settings.web_workers,
            "threads": settings.web_threads,
            "worker_class": _Worker,
            "proc_name": "flansible-web",
            "graceful_timeout": 3,
            "timeout": 120,
            "keepalive": 30,
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
            secure = ServerContext(settings.tls_certificate, settings.tls_key)
            options |= {
                "certfile": str(settings.tls_certificate),
                "keyfile": str(settings.tls_key),
                "ssl_context": lambda cfg, default: secure.current(),
            }
        for key, value in options.items():
            if key in self.cfg.settings:
                self.cfg.set(key, value)

    def load(self) -> Any:
        # Runs in each process after the fork: connections and threads must not be shared.
        Recovery(self._app.extensions["flansible"].store).start()
        return self._app


def serve(settings: Settings) -> None:
    """Serves until SIGTERM or SIGINT. Raises ConfigurationError before anything listens when rbac.json is wrong."""
    app = create_app(settings)
    tls.check(settings)
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
