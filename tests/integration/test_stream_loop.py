"""The stream loop with a real server and a real Redis: each follower gets everything once, and costs no thread."""

from __future__ import annotations

import contextlib
import json
import random
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from flansible.identity import tokens
from flansible.models import State
from flansible.store import Store, StoredEvent
from tests.helpers import certificates
from tests.helpers.redis_server import RedisServer
from tests.helpers.waiting import eventually
from tests.helpers.webserver import (
    ADMIN,
    DEV,
    RecordedRun,
    WebServer,
    descriptors,
    read_head,
    read_to_end,
    result,
    task_start,
)

MOST_FOLLOWERS = 300
STREAM = {"Accept": "text/event-stream"}
# Gunicorn's own, those that answer, one for all followers, one for rbac.json, one for submissions that got a 503, three
# for what starts by itself.
THREADS_AT_MOST = 1 + 4 + 1 + 1 + 1 + 3


@pytest.fixture(scope="module")
def server(shared_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    running = WebServer(tmp_path_factory.mktemp("web"), shared_redis.url, most_followers=MOST_FOLLOWERS)
    yield running
    running.stop()
    # Neither a client that was handed over nor one that has left is worth a word.
    assert "Traceback" not in running.log.read_text() and "ERROR" not in running.log.read_text()


@pytest.fixture(scope="module")
def limited_server(shared_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    """With limits for a user and an address, behind a proxy; its log may have errors."""
    limits = {"max_followers_per_user": 4, "max_followers_per_address": 2, "trusted_proxies": "127.0.0.1"}
    running = WebServer(tmp_path_factory.mktemp("limited"), shared_redis.url, **limits)
    yield running
    running.stop()


@pytest.fixture
def limited(limited_server: WebServer) -> WebServer:
    eventually(lambda: limited_server.clients() == 0)  # those of the test before are counted no more
    return limited_server


@pytest.fixture
def client(server: WebServer) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


@pytest.fixture
def run(server: WebServer, store: Store) -> RecordedRun:
    return RecordedRun(store)


@pytest.fixture
def background() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


def seqs(stream: str) -> list[int]:
    return [int(line.removeprefix("id: ")) for line in stream.splitlines() if line.startswith("id: ")]


def test_output_comes_as_it_is_stored_and_ends_with_the_task(client: httpx.Client, run: RecordedRun) -> None:
    run.write(b"one\n")
    with client.stream("GET", run.output_path, params={"follow": "true"}) as reply:
        lines = reply.iter_lines()
        assert next(lines) == "one"
        run.write(b"two\n")
        assert next(lines) == "two"
        run.write(b"three\n")
        run.end()
        assert list(lines) == ["three"]
    assert reply.headers["Transfer-Encoding"] == "chunked"
    assert reply.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert (reply.headers["X-Content-Type-Options"], reply.headers["Cache-Control"]) == ("nosniff", "no-store")


def test_events_come_as_a_stream_up_to_the_final_one(client: httpx.Client, run: RecordedRun) -> None:
    run.write(b"", result("a"), result("b", "failed"))
    with client.stream("GET", run.events_path, headers=STREAM) as reply:
        text = reply.iter_text()
        got = next(text)
        while seqs(got) != [1, 2]:
            got += next(text)
        run.end(State.FAILED)
        got += "".join(text)
    assert reply.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    opening, *messages = [block for block in got.split("\n\n") if block and not block.startswith(":")]
    assert opening == "retry: 1000"
    assert [block.split("\n")[:2] for block in messages] == [
        ["id: 1", "event: host_result"],
        ["id: 2", "event: host_result"],
        ["id: 3", "event: final"],
    ]
    final = json.loads(messages[-1].split("\n")[2].removeprefix("data: "))
    assert (final["seq"], final["state"], final["returncode"]) == (3, "failed", 2)
    assert None not in final.values() and "host" not in final


def test_many_followers_cost_no_thread_and_hear_at_once(server: WebServer, store: Store) -> None:
    runs = [RecordedRun(store) for _ in range(200)]
    with contextlib.ExitStack() as stack:
        connections = []
        for number, run in enumerate(runs):
            path = run.events_path if number % 2 else f"{run.output_path}?follow=true"
            connections.append(stack.enter_context(server.connect(path, "Accept: text/event-stream")))
        for connection in connections:
            assert " 200 " in read_head(connection)[0]
        assert server.process().num_threads() <= THREADS_AT_MOST
        seconds = []
        for _ in range(100):
            number = random.randrange(len(runs))
            began = time.perf_counter()
            runs[number].write(b"marker\n", result("marker"))
            got = b""
            while b"marker" not in got:
                got += connections[number].recv(65536)
            seconds.append(time.perf_counter() - began)
        assert statistics.median(seconds) < 0.05  # 2 ms on an idle machine
        before = descriptors(server.process())
    eventually(lambda: descriptors(server.process()) <= before - len(runs))


def test_one_too_many_is_told_when_to_come_back(server: WebServer, client: httpx.Client, run: RecordedRun) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(MOST_FOLLOWERS):
            connection = stack.enter_context(server.connect(f"{run.output_path}?follow=true"))
            assert " 200 " in read_head(connection)[0]
        for path, headers in ((f"{run.output_path}?follow=true", {}), (run.events_path, STREAM)):
            refused = client.get(path, headers=headers)
            assert (refused.status_code, refused.json()["code"]) == (503, "too_many_followers")
            assert int(refused.headers["Retry-After"]) > 0
        assert client.get(f"/api/ansibletaskstatus/{run.task_id}").status_code == 200
    # Those who left give their places back, though the task prints nothing.
    eventually(lambda: is_followed(client, run))


def is_followed(client: httpx.Client, run: RecordedRun) -> bool:
    with client.stream("GET", run.output_path, params={"follow": "true"}) as reply:
        return reply.status_code == 200


def test_one_that_does_not_read_holds_up_nobody_and_costs_no_memory(
    server: WebServer, client: httpx.Client, run: RecordedRun
) -> None:
    line = b"x" * 99 + b"\n"
    for _ in range(50):
        run.write(line * 10000)
    run.end()
    client.get(run.output_path, params={"offset": 10**9})
    before = server.process().memory_info().rss
    with contextlib.ExitStack() as stack:
        idlers = [stack.enter_context(server.connect(f"{run.output_path}?follow=true")) for _ in range(20)]
        for idler in idlers:
            read_head(idler)
        assert client.get(run.output_path, params={"follow": "true"}).content == line * 500_000
        assert server.process().memory_info().rss - before < 16 * 1024 * 1024
        # It gets the rest when it does.
        gathered = read_to_end(idlers[0])
    assert gathered.count(b"\n") > 480_000 and gathered.endswith(b"\r\n0\r\n\r\n")


def test_a_stream_that_is_cut_at_random_and_resumed_gives_each_seq_once(
    server: WebServer, run: RecordedRun, background: ThreadPoolExecutor
) -> None:
    def happen() -> None:
        for number in range(400):
            run.write(b"line\n", *(result(f"host{number}-{one}", text="x" * 200) for one in range(3)))
        run.end()

    happened = background.submit(happen)
    got: list[int] = []
    cuts = 0
    ended = False
    while not ended:
        with server.connect(
            run.events_path, "Accept: text/event-stream", f"Last-Event-ID: {got[-1] if got else ''}"
        ) as it:
            text, ended = read_some(it, random.randrange(100, 25_000) if cuts < 20 else 1 << 30)
        cuts += not ended
        # What is not ended by an empty line was not said.
        got += seqs(text.rpartition("\n\n")[0])
    happened.result()
    assert cuts >= 20
    assert got == list(range(1, 1202))


def read_some(connection: socket.socket, most_bytes: int) -> tuple[str, bool]:
    """Decodes the complete chunks in the first bytes of a reply; returns also whether they end it."""
    head, data = read_head(connection)
    assert " 200 " in head
    while len(data) < most_bytes and (more := connection.recv(4096)):
        data += more
    text = b""
    data = data[:most_bytes]
    while b"\r\n" in data:
        size, _, rest = data.partition(b"\r\n")
        if int(size, 16) == 0:
            return text.decode(), True
        text, data = text + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    return text.decode(), False


def test_a_follower_outlives_redis(own_redis: RedisServer, tmp_path: Path, background: ThreadPoolExecutor) -> None:
    server = WebServer(tmp_path, own_redis.url)
    store = Store(own_redis.url)
    try:
        run = RecordedRun(store)
        run.write(b"before\n", result("before"))
        assert follow(server, run.events_path, {"after": "0"}, {})  # the password is known from here on
        waiting = background.submit(lambda: follow(server, run.events_path, {"after": "1", "wait": "10"}, {}))
        eventually(lambda: server.clients() == 1)
        begun = [threading.Event(), threading.Event()]
        output = background.submit(lambda: follow(server, run.output_path, {"follow": "true"}, begun=begun[0]))
        events = background.submit(lambda: follow(server, run.events_path, {}, begun=begun[1]))
        # Whose first bytes have come is served by the stream loop, and so is who came before them.
        assert all(event.wait(30) for event in begun)
        own_redis.kill()
        assert json.loads(waiting.result()) == {
            "task_id": run.task_id,
            "state": "running",
            "events": [],
            "next_after": 1,
            "final": False,
        }
        own_redis.start()
        run.write(b"after\n", result("after"))
        run.end()
        assert output.result() == "before\nafter\n"
        assert seqs(events.result()) == [1, 2, 3]
        quiet = events.result().partition("id: 2")[0]
        assert quiet.count(": keep-alive\n\n") >= 3  # one each 0.2 s
    finally:
        server.stop()
        store.close()


def follow(
    server: WebServer,
    path: str,
    query: dict[str, str],
    headers: dict[str, str] = STREAM,
    begun: threading.Event | None = None,
) -> str:
    """The whole body. begun: set once its first bytes have come."""
    body = b""
    with server.client() as client, client.stream("GET", path, params=query, headers=headers) as reply:
        for chunk in reply.iter_bytes():
            body += chunk
            if begun is not None:
                begun.set()
    return body.decode()


def test_a_wait_ends_with_the_first_event_with_the_task_or_with_the_time(
    client: httpx.Client, run: RecordedRun, background: ThreadPoolExecutor
) -> None:
    def waited(**query: str) -> dict[str, Any]:
        reply = client.get(run.events_path, params={"wait": "10", **query})
        assert reply.status_code == 200 and int(reply.headers["Content-Length"]) == len(reply.content)
        page: dict[str, Any] = reply.json()
        assert ("next" in reply.links) == (not page["final"])
        return page

    began = time.monotonic()
    late = waited(wait="0.3")
    assert 0.3 <= time.monotonic() - began < 5
    assert (late["events"], late["next_after"], late["final"]) == ([], 0, False)
    first = background.submit(waited)
    time.sleep(0.2)
    run.write(b"", result("a"))
    assert [event["seq"] for event in first.result()["events"]] == [1]
    # What the filter leaves out does not wake; what comes before it is not asked for again.
    failed = background.submit(lambda: waited(after="1", verdict="failed"))
    run.write(b"", *(result(f"host{number}") for number in range(700)))
    time.sleep(0.2)
    assert not failed.done()
    run.write(b"", result("b", "failed"))
    assert [event["host"] for event in failed.result()["events"]] == ["b"]
    end = background.submit(lambda: waited(after="702"))
    time.sleep(0.2)
    run.end()
    assert [event["event"] for event in end.result()["events"]] == ["final"]
    assert end.result()["final"] is True
    assert waited(after="703")["events"] == []
    assert time.monotonic() - began < 10


def test_a_client_of_http_1_0_gets_no_chunks(server: WebServer, run: RecordedRun) -> None:
    run.write(b"one\n")
    run.end()
    with server.connect(f"{run.output_path}?follow=true", version="HTTP/1.0") as connection:
        head, body = read_head(connection)
        assert "Transfer-Encoding" not in head and "Connection: close" in head
        assert body + read_to_end(connection) == b"one\n"


def test_a_request_sent_behind_it_is_neither_answered_nor_taken_for_leaving(
    server: WebServer, run: RecordedRun
) -> None:
    with server.connect(f"{run.output_path}?follow=true") as connection:
        read_head(connection)
        connection.sendall(b"GET /api/ansibletasks HTTP/1.1\r\nHost: x\r\n\r\n" * 100)
        time.sleep(0.1)
        run.write(b"one\n" * 10000)
        run.end()
        assert read_to_end(connection).endswith(b"0\r\n\r\n")


def test_a_connection_that_was_used_before_can_be_followed_on(client: httpx.Client, run: RecordedRun) -> None:
    for _ in range(3):
        assert client.get(f"/api/ansibletaskstatus/{run.task_id}").headers["Connection"] == "keep-alive"
    run.write(b"one\n")
    run.end()
    for _ in range(3):
        assert client.get(run.output_path, params={"follow": "true"}).text == "one\n"
        assert client.get(f"/api/ansibletaskstatus/{run.task_id}").status_code == 200


def test_a_head_request_is_answered_at_once(server: WebServer, run: RecordedRun) -> None:
    for path in (f"{run.output_path}?follow=true", f"{run.events_path}?wait=30"):
        with server.connect(path, "Connection: close", method="HEAD") as connection:
            head, body = read_head(connection)
            assert " 200 " in head and body + read_to_end(connection) == b""


def test_a_stream_has_nothing_to_say_after_the_final_event(client: httpx.Client, run: RecordedRun) -> None:
    run.write(b"", result("a"), result("b"))
    run.end()

    def stream(last: str, **query: Any) -> httpx.Response:
        headers = {"Accept": "text/event-stream", "Last-Event-ID": last}
        return client.get(run.events_path, params=query, headers=headers)

    assert stream("3").status_code == 204 and stream("3").content == b""
    # It wins over `after`; the final event passes each filter.
    assert [line for line in stream("1", after=3).text.split("\n") if line.startswith("id")] == ["id: 2", "id: 3"]
    for query in ({"host": "a"}, {"host": "nobody"}, {"verdict": "failed"}):
        assert stream("1", **query).text.split("\n\n")[1].startswith("id: 3\nevent: final\n")


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("*/*", "application/json"),
        ("text/html", "application/json"),
        ("application/json, text/event-stream", "application/json"),
        ("text/event-stream", "text/event-stream"),
        ("text/event-stream, application/json;q=0.5", "text/event-stream"),
        ("text/event-stream, */*", "text/event-stream"),
    ],
)
def test_who_asks_for_a_stream_gets_one(client: httpx.Client, run: RecordedRun, accept: str, media_type: str) -> None:
    run.end()
    reply = client.get(run.events_path, headers={"Accept": accept})
    assert reply.headers["Content-Type"].partition(";")[0] == media_type


def test_a_record_that_cannot_be_read_costs_the_others_nothing(limited: WebServer, store: Store) -> None:
    broken, sound = RecordedRun(store), RecordedRun(store)
    with (
        limited.connect(broken.events_path, "Accept: text/event-stream") as one,
        limited.connect(sound.events_path, "Accept: text/event-stream") as other,
    ):
        read_head(one)
        read_head(other)
        broken.write(b"", StoredEvent("this is no JSON"))
        assert not read_to_end(one).endswith(b"0\r\n\r\n")
        sound.end()
        assert read_to_end(other).endswith(b"0\r\n\r\n")
    assert f"followers of task {broken.task_id} are disconnected" in limited.log.read_text()


def test_a_server_that_stops_waits_for_no_follower_and_ends_none(
    shared_redis: RedisServer, store: Store, tmp_path: Path
) -> None:
    server = WebServer(tmp_path, shared_redis.url)
    run = RecordedRun(store)
    run.write(b"one\n")
    with server.connect(f"{run.output_path}?follow=true") as connection:
        _, body = read_head(connection)
        began = time.monotonic()
        server.stop()
        assert time.monotonic() - began < 8  # half a second on an idle machine
        # The client sees that there was more to come.
        assert body + read_to_end(connection) == b"4\r\none\n\r\n"


def test_followers_over_tls_cost_no_thread(shared_redis: RedisServer, store: Store, tmp_path: Path) -> None:
    server = WebServer(tmp_path, shared_redis.url, trusted=certificates.authority(tmp_path))
    run, line = RecordedRun(store), b"x" * 99 + b"\n"
    try:
        with contextlib.ExitStack() as stack, server.client() as client:
            output, events, wait = f"{run.output_path}?follow=true", run.events_path, f"{run.events_path}?wait=20"
            waiting = [stack.enter_context(server.connect(wait)) for _ in range(8)]
            streams = [stack.enter_context(server.connect(path, "Accept: text/event-stream")) for path in [events] * 8]
            followed = [stack.enter_context(server.connect(output)) for _ in range(8)]
            for connection in (*streams, *followed):
                assert " 200 " in read_head(connection)[0]
            assert client.get(f"/api/ansibletaskstatus/{run.task_id}").status_code == 200
            assert server.process().num_threads() <= THREADS_AT_MOST
            for _ in range(10):  # more than the buffers of a connection hold
                run.write(line * 10_000)
            run.write(b"", result("a"))
            run.end()
            assert all(b'"seq":1' in read_to_end(connection) for connection in waiting)
            assert all(b"event: final" in read_to_end(connection) for connection in streams)
            for connection in followed:
                got = read_to_end(connection)
                assert got.count(b"\n") > 95_000 and got.endswith(b"\r\n0\r\n\r\n")
    finally:
        server.stop()
    assert "Traceback" not in server.log.read_text()


def test_an_ipv6_address_is_counted_with_its_network(limited: WebServer, store: Store) -> None:
    run, codes = RecordedRun(store), []
    with contextlib.ExitStack() as stack:
        for address in ("2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8:0:1::1"):
            path = f"{run.output_path}?follow=true"
            connection = stack.enter_context(limited.connect(path, f"X-Forwarded-For: {address}"))
            codes.append(int(read_head(connection)[0].split()[1]))
    assert codes == [200, 200, 429, 200]


@pytest.mark.parametrize("login", ["a token", "a password"])
def test_a_stream_ends_with_the_login_that_asked_for_it(limited: WebServer, store: Store, login: str) -> None:
    folder, run = limited.log.parent, RecordedRun(store, user=DEV[0])
    made = tokens.make(DEV[0], "read", None, datetime.now(UTC))
    tokens.add(folder / "data/tokens.json", made.token)
    headers = {"Authorization": f"Bearer {made.text}"} if login == "a token" else {}
    users = (folder / "rbac.json").read_text()
    with contextlib.ExitStack() as stack:

        def follow(path: str) -> Iterator[str]:
            client = stack.enter_context(limited.client(DEV))
            request = client.build_request("GET", path, headers=STREAM | headers)
            if headers:
                request.headers["Authorization"] = headers["Authorization"]
            reply = client.send(request, stream=True, auth=None if headers else httpx.USE_CLIENT_DEFAULT)
            assert reply.status_code == 200
            return reply.iter_lines()

        followed = [follow(run.events_path), follow("/api/ansibletasks")]
        for lines in followed:
            next(lines)
        if login == "a token":
            tokens.remove(folder / "data/tokens.json", made.token.id)
        else:
            document = json.loads(users)
            document["rbac"][1]["password"] = "another secret"
            replace(folder / "rbac.json", json.dumps(document))
            stack.callback(replace, folder / "rbac.json", users)
        time.sleep(1.5)  # a password is looked at each second
        run.write(b"", task_start("secret"))
        for lines in followed:
            got: list[str] = []
            with pytest.raises(httpx.RemoteProtocolError):  # what is cut off does not look whole
                got.extend(lines)
            assert "secret" not in "".join(got)


def replace(path: Path, text: str) -> None:
    new = path.with_name("new")
    new.write_text(text)
    new.chmod(0o600)
    new.replace(path)


def test_one_user_and_one_address_follow_so_many_replies_and_no_more(limited: WebServer, store: Store) -> None:
    run = RecordedRun(store, user=DEV[0])
    with contextlib.ExitStack() as stack:

        def follow_as(login: tuple[str, str], number: int) -> httpx.Response:
            """From the address of this number."""
            client = stack.enter_context(limited.client(login))
            headers = STREAM | {"X-Forwarded-For": f"192.0.2.{number}"}
            return client.send(client.build_request("GET", run.events_path, headers=headers), stream=True)

        first = [follow_as(DEV, number) for number in (1, 1, 2, 3)]
        assert [reply.status_code for reply in first] == [200] * 4
        for refused, key in (
            (follow_as(DEV, 4), "max_followers_per_user"),
            (follow_as(ADMIN, 2), ""),
            (follow_as(ADMIN, 1), "max_followers_per_address"),
            (follow_as(ADMIN, 2), "max_followers_per_address"),
            (follow_as(ADMIN, 4), ""),
        ):
            if not key:
                assert refused.status_code == 200
                continue
            body = json.loads(refused.read())
            assert (refused.status_code, body["code"]) == (429, "follower_limit") and key in body["message"]
            assert int(refused.headers["Retry-After"]) > 0
        # Whoever leaves gives the place back.
        first[0].close()
        eventually(lambda: follow_as(DEV, 4).status_code == 200)
