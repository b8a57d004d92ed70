"""What the web server's departures from the plain libraries save: each against the plain way, in turn.

In one process, requests for the status of a final task go through the server's code over a socket pair, ten at a
time for each variant in random order, so that all variants meet the same noise; the figure is CPU time of the thread.
What a lingering thread saves lies between threads, so `without lingering` is measured with wrk on two servers instead.
Prints a Markdown table. Not part of the tests.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import math
import os
import random
import re
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from typing import Any

import httpx
import psutil
from flask import Flask, Response

from benchmarks.service import ADMIN, Running, machine, running
from benchmarks.web import BASIC, CONNECTIONS, finished_task, hash_password, worker_held
from flansible import config
from flansible.web import create_app, gunicorn_server
from flansible.web.middleware import security_headers
from flansible.web.server.client_connection import ClientConnection
from flansible.web.server.connection_table import ConnectionTable
from flansible.web.server.request_threads import RequestThreads
from flansible.web.streaming.follow import stream_loop_of

OURS, PLAIN_CONFIG, PLAIN_HEADERS = "as it is", "gunicorn's own configuration", "setdefault for each security header"
_SLICE = 10


class _Handler:
    """Handles requests of one connection, called directly."""

    def __init__(self, settings: config.Settings, app: Flask, variant: str) -> None:
        server = gunicorn_server._Server(settings, app)
        cfg: Any = server.cfg if variant == PLAIN_CONFIG else server.freeze(server.cfg)
        ours, self.client = socket.socketpair()
        ours.setblocking(False)
        self.connection = ClientConnection(ours, ("127.0.0.1", 1), ("127.0.0.1", 80), "127.0.0.1", math.inf)
        self.is_whole = lambda connection: connection.parse(cfg, settings.max_body_bytes)
        loop, table = stream_loop_of(app), ConnectionTable(1)
        self.threads = RequestThreads(app, cfg, loop, table, self.is_whole, lambda connection, error: None)

    def microseconds(self, request: bytes) -> float:
        began = time.thread_time_ns()
        for _ in range(_SLICE):
            self.client.sendall(request)
            assert self.connection.receive() and self.is_whole(self.connection)
            assert self.threads._begin(self.connection) and self.threads._continue(self.connection)
            assert self.client.recv(1 << 20).startswith(b"HTTP/1.1 200 ")
        return (time.thread_time_ns() - began) / _SLICE / 1000


def _app(settings: config.Settings, variant: str) -> Flask:
    app = create_app(settings)
    if variant == PLAIN_HEADERS:

        def complete(response: Response) -> Response:
            for name, value in security_headers.default_headers(settings.is_tls):
                response.headers.setdefault(name, value)
            return response

        functions = app.after_request_funcs[None]
        [index] = [i for i, function in enumerate(functions) if function.__module__ == security_headers.__name__]
        functions[index] = complete
    return app


def in_process(settings: config.Settings, request: bytes, seconds: float) -> dict[str, list[float]]:
    """CPU microseconds per request, slice by slice, of each variant."""
    variants = (OURS, PLAIN_CONFIG, PLAIN_HEADERS)
    handlers = {name: _Handler(settings, _app(settings, name), name) for name in variants}
    for handler in handlers.values():
        handler.microseconds(request)
    gc.freeze()
    found: dict[str, list[float]] = {name: [] for name in handlers}
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for name in random.sample(variants, len(variants)):
            found[name].append(handlers[name].microseconds(request))
    return found


def serve(lingers: bool) -> None:
    """In a process of its own, configured by FLANSIBLE_CONFIG and FLANSIBLE_FLASK_TCP_PORT."""
    if not lingers:
        RequestThreads._sends_again = lambda self, connection: False  # type: ignore[method-assign]
    gunicorn_server.serve(config.load())


@contextlib.contextmanager
def _server(service: Running, which: str, path: str) -> Any:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    given = {"FLANSIBLE_FLASK_TCP_PORT": str(port), "FLANSIBLE_WEB_WORKERS": "1"}
    process = subprocess.Popen([sys.executable, "-m", __spec__.name, "--serve", which], env={**os.environ, **given})
    try:
        url = f"http://127.0.0.1:{port}{path}"
        for _ in range(600):
            with contextlib.suppress(httpx.TransportError):
                httpx.get(url, auth=ADMIN, timeout=30).raise_for_status()
                break
            time.sleep(0.05)
        yield process.pid, url
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def with_wrk(service: Running, path: str, rounds: int, connections: int) -> dict[str, list[float]]:
    """CPU microseconds per request of the whole web process, round by round."""

    def cpu(pid: int) -> float:
        times = [child.cpu_times() for child in psutil.Process(pid).children()]
        return sum(one.user + one.system for one in times)

    found: dict[str, list[float]] = {"lingers": [], "plain": []}
    with _server(service, "lingers", path) as first, _server(service, "plain", path) as second:
        servers = {"lingers": first, "plain": second}
        for number in range(rounds):
            for name in sorted(servers, reverse=bool(number % 2)):
                pid, url = servers[name]
                before = cpu(pid)
                command = ["wrk", "-t1", f"-c{connections}", "-d2s", "-H", BASIC, url]
                said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
                count = re.search(r"(\d+) requests in", said)
                assert count is not None and "Non-2xx" not in said
                found[name].append((cpu(pid) - before) * 1e6 / int(count[1]))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=120, help="of the comparison within one process")
    parser.add_argument("--rounds", type=int, default=24, help="of the comparison with wrk")
    parser.add_argument("--serve", choices=("lingers", "plain"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(given.serve == "lingers")
        return
    with running(web_workers=1) as service:
        hash_password(service)
        os.environ["FLANSIBLE_CONFIG"] = str(service.root / "config.ini")
        with service.client() as client:
            path = f"/api/ansibletaskstatus/{finished_task(client)}"
        request = f"GET {path} HTTP/1.1\r\nHost: x\r\n{BASIC}\r\n\r\n".encode()
        print(f"{machine()}, load {os.getloadavg()[0]:.1f}, {threading.active_count()} thread\n")
        print("| what | CPU time per request (us) | ratio |\n|---|---|---|")
        with worker_held(service):
            medians = {
                name: statistics.median(values)
                for name, values in in_process(config.load(), request, given.seconds).items()
            }
            for name, median in medians.items():
                print(f"| {name} | {median:.0f} | {median / medians[OURS]:.3f} |", flush=True)
            for connections in (CONNECTIONS, 2):
                rounds = with_wrk(service, path, given.rounds, connections)
                ours, plain = (statistics.median(rounds[name]) for name in ("lingers", "plain"))
                print(f"| wrk, {connections} connections | {ours:.0f} | 1.000 |")
                print(f"| without lingering | {plain:.0f} | {plain / ours:.3f} |", flush=True)


if __name__ == "__main__":
    main()
