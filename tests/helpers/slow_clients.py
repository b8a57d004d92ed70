"""Connections that send slowly, or never read what they asked for, held open by a process of their own.

A connection that the server closes is opened again a second later. Also used by benchmarks.slowloris.
"""

from __future__ import annotations

import base64
import contextlib
import heapq
import http.client
import itertools
import json
import resource
import select
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

KINDS = ("heads", "bodies", "trickles", "deaf")
HONEST = "127.0.0.2"
_AGAIN_SECONDS = 1.0
_CONNECTS_AT_ONCE = 20
_WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


@dataclass(frozen=True)
class Crowd:
    """Slow clients. kinds: of KINDS, in turn; addresses: so many loopback addresses; path: what is posted to."""

    port: int
    count: int
    addresses: int = 1
    kinds: tuple[str, ...] = KINDS
    is_tls: bool = False
    path: str = "/api/session"
    login: str = ""

    def source(self, number: int) -> str:
        return f"127.0.{1 + number % self.addresses // 200}.{1 + number % self.addresses % 200}"

    def beginning(self, kind: str) -> bytes:
        """What is sent at once."""
        login = f"Authorization: Basic {self.login}\r\n" if self.login else ""
        post = f"POST {self.path} HTTP/1.1\r\nHost: x\r\n{login}Content-Type: application/json\r\nContent-Length: "
        if kind == "bodies":
            return f'{post}1000\r\n\r\n{{"user": "'.encode()
        if kind == "deaf":  # replies of 150 kB and more, none of which is read
            return f"GET /api/openapi.json HTTP/1.1\r\nHost: x\r\n{login}\r\n".encode() * 20
        return b"POST " if kind == "trickles" else f"{post}10\r\nX-More: ".encode()


@dataclass
class _Client:
    kind: str
    source: str
    sock: socket.socket | None = None
    unsent: bytes = b""
    due: float = 0.0  # its one timer: to connect again, or to send a byte


@dataclass
class _Holder:
    """Keeps all connections of a crowd open, until it is ended."""

    crowd: Crowd
    clients: list[_Client]
    epoll: Any = field(default_factory=select.epoll)
    by_descriptor: dict[int, _Client] = field(default_factory=dict)
    due: list[tuple[float, int, _Client]] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=itertools.count)
    connects: int = 0

    def run(self) -> None:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        now = time.monotonic()
        for number, client in enumerate(self.clients):
            self._later(client, now + number // _CONNECTS_AT_ONCE * 0.02)
        is_reported = False
        while True:
            pause = min(0.5, self.due[0][0] - time.monotonic()) if self.due else 0.5
            for descriptor, events in self.epoll.poll(max(0.0, pause)):
                if descriptor in self.by_descriptor:
                    self._event(self.by_descriptor[descriptor], events)
            while self.due and self.due[0][0] <= time.monotonic():
                moment, _, client = heapq.heappop(self.due)
                if moment != client.due:
                    continue
                if client.sock is None:
                    self._connect(client, context)
                elif client.kind == "trickles":
                    self._trickle(client)
            if not is_reported and self.connects >= len(self.clients):
                is_reported = True
                print("held", flush=True)

    def _later(self, client: _Client, moment: float) -> None:
        client.due = moment
        heapq.heappush(self.due, (moment, next(self.numbers), client))

    def _connect(self, client: _Client, context: ssl.SSLContext) -> None:
        self.connects += 1
        raw = socket.socket()
        try:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            raw.bind((client.source, 0))
            raw.settimeout(10)
            raw.connect(("127.0.0.1", self.crowd.port))
            raw.setblocking(False)
            client.sock = context.wrap_socket(raw, do_handshake_on_connect=False) if self.crowd.is_tls else raw
        except OSError:
            raw.close()
            client.sock = None
            self._later(client, time.monotonic() + _AGAIN_SECONDS)
            return
        self.by_descriptor[client.sock.fileno()] = client
        client.unsent = self.crowd.beginning(client.kind)
        self.epoll.register(client.sock, select.EPOLLRDHUP | select.EPOLLIN)
        self._send(client)
        if client.kind == "trickles" and client.sock is not None:
            self._later(client, time.monotonic() + 1)

    def _trickle(self, client: _Client) -> None:
        client.unsent += b"x"
        self._send(client)
        if client.sock is not None:
            self._later(client, time.monotonic() + 1)

    def _send(self, client: _Client) -> None:
        """Sends what it can; with TLS the handshake first, which continues when the server has answered."""
        assert client.sock is not None
        try:
            client.unsent = client.unsent[client.sock.send(client.unsent) :] if client.unsent else b""
        except _WOULD_BLOCK:
            return
        except OSError:
            self._close(client)
            return
        if client.kind == "deaf":
            self.epoll.modify(client.sock, select.EPOLLRDHUP)

    def _event(self, client: _Client, events: int) -> None:
        assert client.sock is not None
        if client.unsent and not events & (select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR):
            self._send(client)
            return
        try:
            if events & select.EPOLLIN and client.kind != "deaf" and client.sock.recv(4096):
                return
        except _WOULD_BLOCK:
            return
        except OSError:
            pass
        self._close(client)

    def _close(self, client: _Client) -> None:
        assert client.sock is not None
        del self.by_descriptor[client.sock.fileno()]
        client.sock.close()
        client.sock = None
        self._later(client, time.monotonic() + _AGAIN_SECONDS)


def basic(user: tuple[str, str]) -> str:
    return base64.b64encode(":".join(user).encode()).decode()


def hold(crowd: Crowd) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    kinds = itertools.cycle(crowd.kinds)
    _Holder(crowd, [_Client(next(kinds), crowd.source(number)) for number in range(crowd.count)]).run()


@contextlib.contextmanager
def held(crowd: Crowd) -> Iterator[None]:
    """Slow clients in a process of their own; all of them have connected at least once."""
    command = [sys.executable, "-m", "tests.helpers.slow_clients", json.dumps(asdict(crowd))]
    root = Path(__file__).parents[2]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root)
    try:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        yield
    finally:
        process.kill()
        process.communicate()


def poll(port: int, path: str, login: str, seconds: float, context: ssl.SSLContext | None = None) -> list[float]:
    """Polls from an address of its own, 20 ms apart, each third on a new connection; returns their seconds."""
    found: list[float] = []
    headers = {"Authorization": f"Basic {login}"}
    end = time.monotonic() + seconds
    connection: http.client.HTTPConnection | None = None
    while time.monotonic() < end:
        began = time.perf_counter()
        if connection is None or len(found) % 3 == 0:
            if connection is not None:
                connection.close()
            given: dict[str, Any] = {"timeout": 130, "source_address": (HONEST, 0)}
            if context is None:
                connection = http.client.HTTPConnection("127.0.0.1", port, **given)
            else:
                connection = http.client.HTTPSConnection("127.0.0.1", port, context=context, **given)
        connection.request("GET", path, headers=headers)
        reply = connection.getresponse()
        reply.read()
        assert reply.status == 200, reply.status
        found.append(time.perf_counter() - began)
        time.sleep(0.02)
    if connection is not None:
        connection.close()
    return found


def p99(seconds: list[float]) -> float:
    """In milliseconds."""
    return sorted(seconds)[int(len(seconds) * 0.99)] * 1000


if __name__ == "__main__":
    hold(Crowd(**json.loads(sys.argv[1])))
