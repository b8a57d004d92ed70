"""How fast a service answers: status polls, submissions, and polls beside a long queue and many idle followers.

Starts a private service with two web workers, admin's password hashed, and loads it over loopback with wrk, 16
connections kept alive. Beside it, in turn, a bare Flask-RESTful resource that reads one hash from the same Redis: once
on the same server (flansible.web.gunicorn_server), once on gunicorn's own threads. The machine is shared by all of
them, so what counts are the ratios within a round. Prints a Markdown table. Not part of the tests.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import redis
from flask import Flask
from flask_restful import Api, Resource
from gunicorn.app.base import BaseApplication
from werkzeug.security import generate_password_hash

from benchmarks.service import ADMIN, Running, machine, megabytes, running, usage_by_role
from flansible import config
from flansible.models import AuthorizedRun, Step
from flansible.store import Store
from flansible.web import create_app, gunicorn_server

CONNECTIONS = 16
FOLLOWERS = 500
QUEUED = 10_000
BASIC = "Authorization: Basic " + base64.b64encode(":".join(ADMIN).encode()).decode()
SUBMISSION = {"module": "debug"}
_UNITS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}


@dataclass(frozen=True)
class Load:
    """What wrk has seen; latencies in milliseconds."""

    per_second: float
    p50: float
    p99: float
    refused: int


def load(url: str, seconds: float, body: Path | None = None) -> Load:
    """wrk for so long. body: a Lua script that makes it post."""
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds:g}s", "--latency", "-H", BASIC]
    command += ["-s", str(body)] if body else []
    said = subprocess.run([*command, url], capture_output=True, text=True, check=True).stdout
    found = {part: float(number) * _UNITS[unit] for part, number, unit in re.findall(r"(50|99)%\s+([\d.]+)(\w+)", said)}
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", said)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    return Load(float(rate[1]) if rate else 0.0, found["50"], found["99"], int(refused[1]) if refused else 0)


def poster(root: Path) -> Path:
    """A script for wrk: each request is a submission."""
    path = root / "submit.lua"
    lines = ['wrk.method = "POST"', f"wrk.body = {json.dumps(json.dumps(SUBMISSION))}"]
    path.write_text("\n".join([*lines, 'wrk.headers["Content-Type"] = "application/json"']))
    return path


# What it is compared with


def bare_app(redis_socket: str) -> Flask:
    """The least that could answer: one resource, one read."""
    client = redis.Redis(unix_socket_path=redis_socket, decode_responses=True)

    class Record(Resource):  # type: ignore[misc]
        def get(self, task_id: str) -> Any:
            return client.hgetall(f"flansible:task:{task_id}")

    app = Flask("bare")
    Api(app).add_resource(Record, "/<string:task_id>")
    return app


class _SameServer(gunicorn_server._Server):
    """The bare app on the service's own server."""

    def __init__(self, settings: config.Settings) -> None:
        app = bare_app(str(settings.redis_socket))
        app.extensions |= create_app(settings).extensions  # which the server's processes ask for
        super().__init__(settings, app)


class _Gunicorn(BaseApplication):  # type: ignore[misc]
    """The bare app on gunicorn's threads."""

    def __init__(self, settings: config.Settings) -> None:
        self._settings = settings
        super().__init__()

    def load_config(self) -> None:
        settings = self._settings
        options = {"bind": f"127.0.0.1:{settings.Flask_tcp_port}", "workers": settings.web_workers}
        options |= {"threads": settings.web_threads, "worker_class": "gthread", "keepalive": 30, "loglevel": "warning"}
        for key, value in options.items():
            self.cfg.set(key, value)

    def load(self) -> Any:
        return bare_app(str(self._settings.redis_socket))


def serve_bare(which: str) -> None:
    """Runs in a separate process, configured by FLANSIBLE_CONFIG and FLANSIBLE_FLASK_TCP_PORT."""
    settings = config.load()
    (_SameServer if which == "same" else _Gunicorn)(settings).run()


@contextlib.contextmanager
def bare(which: str, service: Running) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    given = {"FLANSIBLE_CONFIG": str(service.root / "config.ini"), "FLANSIBLE_FLASK_TCP_PORT": str(port)}
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.web", "--bare", which], env={**os.environ, **given})
    try:
        url = f"http://127.0.0.1:{port}/{uuid.uuid4()}"
        for _ in range(300):
            with contextlib.suppress(httpx.TransportError):
                httpx.get(url)
                break
            time.sleep(0.05)
        yield url.rpartition("/")[0]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


# What is measured


def hash_password(service: Running) -> None:
    """As `flansible passwd` stores it."""
    path = service.root / "rbac.json"
    document = json.loads(path.read_text())
    document["rbac"][0]["password"] = generate_password_hash(ADMIN[1])
    path.write_text(json.dumps(document))


def finished_task(client: httpx.Client) -> str:
    task_id = str(client.post("/api/ansiblecommand", json=SUBMISSION).raise_for_status().json()["task_id"])
    while client.get(f"/api/ansibletaskstatus/{task_id}").json()["Status"] == "PROGRESS":
        time.sleep(0.02)
    return task_id


def round_trips(raw: redis.Redis, client: httpx.Client, method: str, path: str, **body: Any) -> str:
    """What one request sends to Redis, by command; what scripts do within Redis does not count.

    The service does other things as well: the fewest of several looks are the request's own.
    """

    def look() -> list[str]:
        mark = uuid.uuid4().hex
        sent: list[str] = []
        with raw.monitor() as monitor:
            client.request(method, path, **body).raise_for_status()
            raw.echo(mark)
            for command in monitor.listen():
                if mark in command["command"]:
                    return sent
                if command["client_type"] != "lua":
                    sent.append(command["command"].split()[0])
        return sent

    fewest = min((look() for _ in range(20)), key=len)
    return f"{len(fewest)} ({', '.join(fewest)})"


@contextlib.contextmanager
def worker_held(service: Running) -> Iterator[None]:
    """Without a worker what is submitted stays in the queue, and the machine is left to the web server."""
    import psutil

    workers = [child for child in psutil.Process(service.process.pid).children() if "worker" in child.cmdline()]
    for worker in workers:
        worker.suspend()
    try:
        yield
    finally:
        for worker in workers:
            worker.resume()


def queue(store: Store, count: int) -> list[str]:
    """So many queued tasks, straight into the store."""
    step = Step(program="ansible", argv=("--", "localhost"), cwd="/")
    run = AuthorizedRun(kind="adhoc", user="admin", summary="admin: adhoc debug on localhost", steps=(step,))
    task_ids = [str(uuid.uuid4()) for _ in range(count)]
    for task_id in task_ids:
        store.submit(task_id, run)
    return task_ids


@contextlib.contextmanager
def followers(service: Running, task_id: str, count: int) -> Iterator[int]:
    """Idle connections that follow a queued task's events; how many were accepted."""
    port = int(service.url.rpartition(":")[2])
    request = (
        f"GET /api/ansibletaskevents/{task_id} HTTP/1.1\r\nHost: x\r\n{BASIC}\r\nAccept: text/event-stream\r\n\r\n"
    )
    with contextlib.ExitStack() as stack:
        accepted = 0
        for _ in range(count):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), 20))
            connection.sendall(request.encode())
            accepted += b" 200 " in connection.recv(64)
        yield accepted


class Table:
    def __init__(self) -> None:
        print("| what | requests/s | p50 (ms) | p99 (ms) | refused |\n|---|---|---|---|---|", flush=True)

    def add(self, what: str, loads: list[Load]) -> None:
        """The median of several rounds."""
        rate, p50, p99 = (
            statistics.median(getattr(one, name) for one in loads) for name in ("per_second", "p50", "p99")
        )
        refused = sum(one.refused for one in loads)
        print(f"| {what} | {rate:,.0f} | {p50:.1f} | {p99:.1f} | {refused} |", flush=True)


def ratio(ours: list[Load], theirs: list[Load]) -> str:
    ratios = sorted(one.per_second / other.per_second for one, other in zip(ours, theirs, strict=True))
    return f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"


def measure(service: Running, rounds: int, seconds: float) -> None:
    notes: list[str] = []
    raw = redis.Redis(unix_socket_path=str(service.redis_socket), decode_responses=True)
    store = Store(f"redis+socket://{service.redis_socket}")
    hash_password(service)
    with service.client() as client, bare("same", service) as same, bare("gunicorn", service) as plain:
        task_id = finished_task(client)
        status = f"/api/ansibletaskstatus/{task_id}"
        targets = {"status": service.url + status, "same": f"{same}/{task_id}", "plain": f"{plain}/{task_id}"}
        for target in targets.values():
            load(target, 1)
        table = Table()
        with worker_held(service):
            notes += ["round trips of a status: " + round_trips(raw, client, "GET", status)]
            sent = round_trips(raw, client, "POST", "/api/ansiblecommand", json=SUBMISSION)
            notes += ["round trips of a submit: " + sent]
            seen: dict[str, list[Load]] = {name: [] for name in targets}
            for _ in range(rounds):
                for name, target in targets.items():
                    seen[name].append(load(target, seconds))
            table.add("status of a final task", seen["status"])
            table.add("bare resource, same server", seen["same"])
            table.add("bare resource, gunicorn's threads", seen["plain"])
            notes += [f"status / bare on the same server: {ratio(seen['status'], seen['same'])}"]
            notes += [f"status / bare on gunicorn's threads: {ratio(seen['status'], seen['plain'])}"]

            post = poster(service.root)
            submit = f"{service.url}/api/ansiblecommand"
            short = [load(submit, seconds, post) for _ in range(rounds)]
            table.add("submit", short)
            raw_queued = int(raw.zcard("flansible:tasks:state:queued"))
            task_ids = queue(store, max(1, QUEUED - raw_queued))
            final, last, long = [], [], []
            for _ in range(rounds):
                final.append(load(service.url + status, seconds))
                last.append(load(f"{service.url}/api/ansibletaskstatus/{task_ids[-1]}", seconds))
                long.append(load(submit, seconds, post))
            queued = int(raw.zcard("flansible:tasks:state:queued"))
            table.add(f"status of a final task, {QUEUED:,} to {queued:,} queued", final)
            table.add("status of the last queued task then", last)
            table.add("submit then", long)

            with followers(service, task_ids[0], FOLLOWERS) as accepted:
                loads = [load(service.url + status, seconds) for _ in range(rounds)]
            table.add(f"status, {accepted} idle followers", loads)
    store.close()
    print("\n" + "\n".join(f"- {note}" for note in notes))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5, help="of each load")
    parser.add_argument("--bare", choices=("same", "gunicorn"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.bare:
        serve_bare(given.bare)
        return
    if shutil.which("wrk") is None:
        sys.exit("this benchmark needs wrk: apt-get install wrk")
    unlimited = {"max_followers_per_user": 0, "max_followers_per_address": 0}
    with running(web_workers=2, **unlimited) as service:
        time.sleep(3)
        usage = usage_by_role(service.process.pid)
        print(f"{machine()}, {CONNECTIONS} connections, 2 web workers, load {os.getloadavg()[0]:.1f}\n")
        measure(service, given.rounds, given.seconds)
        idle = ", ".join(f"{role} {megabytes(one.pss)}" for role, one in usage.items())
        print(f"- PSS of an idle service (MB): {idle}; together {megabytes(sum(one.pss for one in usage.values()))}")


if __name__ == "__main__":
    main()
