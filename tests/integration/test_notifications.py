"""From the end of a task to a receiver: the outbox, the deliveries in the database, attempts, who is told of what."""

from __future__ import annotations

import base64
import contextlib
import json
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from flask import Flask
from standardwebhooks.webhooks import Webhook

from flansible.config import Settings
from flansible.definitions.definition_store import Definitions
from flansible.definitions.stored_credentials import Credentials
from flansible.errors import DeliveryFailed, DeliveryRefused, HistoryUnavailable
from flansible.history.archive import Archive
from flansible.history.definition_rows import DefinitionRows, StoredDefinition
from flansible.history.delivery_rows import DeliveryRows, NewDelivery, StoredDelivery
from flansible.history.hook_call_rows import HookCallRows
from flansible.history.limits import HistoryLimits
from flansible.history.merged_records import Records
from flansible.identity.users import RbacFile, User
from flansible.models import About, State, Visibility
from flansible.notifications import apprise_sender, sending, webhook_sender
from flansible.notifications import dispatcher as dispatcher_module
from flansible.notifications.dispatcher import Dispatcher
from flansible.notifications.recipients import Notifications, Recipients
from flansible.notifications.sending import Sender
from flansible.sealing import Sealer
from flansible.store import LateSchedule, Store, StoredEvent
from flansible.worker.archiver import Archiver
from tests.helpers import certificates
from tests.helpers.history import Databases
from tests.helpers.receivers import Receiver
from tests.helpers.redis_server import RedisServer
from tests.helpers.runs import make_run, new_id
from tests.helpers.waiting import eventually
from tests.helpers.webserver import ADMIN, DEV, RecordedRun, WebServer, result, task_start

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
OLD_SECRET = "whsec_" + base64.b64encode(bytes(range(1, 33))).decode()


class Bench:
    """A dispatcher in this process, whose rounds the test makes, and the definitions that it reads."""

    def __init__(self, redis_url: str, history_url: str, folder: Path, settings: Settings) -> None:
        self.store = Records(redis_url, Archive(history_url, 10.0))
        self.store._redis.flushall()
        assert self.store.archive is not None
        self.definitions = DefinitionRows(self.store.archive.database)
        self.rows = DeliveryRows(self.store.archive.database)
        self.sealer = Sealer(folder / "secret.key")
        self.file = folder / "rbac.json"
        self.grant()
        self.settings = settings
        self.dispatcher = self.new_dispatcher()

    def grant(self, **more: Any) -> None:
        users = [{"user": "admin", "password": "a"}, {"user": "dev", "password": "b", "inventories": [], **more}]
        self.file.write_text(json.dumps({"rbac": users}))
        self.file.chmod(0o600)

    def users(self) -> dict[str, User]:
        return RbacFile(self.file, lambda *_: None, self.settings).users()

    def new_dispatcher(self) -> Dispatcher:
        notifications = Notifications(self.definitions, self.sealer)
        recipients = Recipients(self.store, self.users, "https://flansible.example.org")
        credentials = Credentials(Definitions(self.definitions, self.sealer))
        sender = Sender(notifications, credentials, self.users, self.settings)
        return Dispatcher(self.store, self.rows, HookCallRows(self.rows._database), notifications, recipients, sender)

    def define(self, name: str, url: str | None, *on: str, owner: str = "admin", **more: Any) -> None:
        spec = {"kind": "webhook", "url": url, "on": list(on), "allow_private": True, **more}
        secret = {key: spec.pop(key) for key in ("secret", "previous_secret", "apprise_url") if key in spec}
        sealed = self.sealer.encrypt(json.dumps(secret).encode()) if secret else None
        found = StoredDefinition("notifications", name, owner, spec, "r", 0, 0, sealed, tuple(secret))
        self.store.expect_notifications()
        with self.definitions.writing() as writer:
            writer.put(found, is_new=writer.get("notifications", name) is None)

    def define_credential(self, name: str, token: str | None, kind: str = "http", owner: str = "dev") -> None:
        sealed = self.sealer.encrypt(json.dumps({"token": token}).encode())
        found = StoredDefinition("credentials", name, owner, {"kind": kind}, "r", 0, 0, sealed, ("token",))
        with self.definitions.writing() as writer:
            writer.put(found, is_new=writer.get("credentials", name) is None)

    def forget(self, name: str) -> None:
        with self.definitions.writing() as writer:
            writer.delete("notifications", name)

    def until(self, probe: Callable[[], Any], seconds: float = 60.0) -> Any:
        """Makes rounds until the probe is true."""

        def round_() -> Any:
            self.dispatcher.tick()
            return probe()

        return eventually(round_, seconds)

    def deliveries(self) -> list[StoredDelivery]:
        return self.rows.page(None, None, 1000, None, None)

    def states(self) -> dict[str, str]:
        return {one.event: one.state for one in self.deliveries()}

    def look(self) -> None:
        """A round in which it looks at what is written to the outbox."""
        self.dispatcher._look_at = 0.0
        self.dispatcher.tick()

    def close(self) -> None:
        # Threads that still send would be taken for a leak.
        eventually(lambda: not self.dispatcher._sending)
        self.store.close()


@pytest.fixture
def bench(redis_url: str, history_url: str, tmp_path: Path, make_settings: Callable[..., Settings]) -> Iterator[Bench]:
    made = Bench(redis_url, history_url, tmp_path, make_settings(callback_hosts="127.0.0.1", callback_private=True))
    yield made
    made.close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    found = Receiver()
    yield found
    found.stop()


@pytest.fixture
def raw(shared_redis: RedisServer) -> Iterator[redis.Redis]:
    client = shared_redis.client()
    yield client
    client.close()


DISCORD = "discord://4174216298/the-token_of-the-webhook/?rto=1"
STAND_IN = """\
import socket

look_up = socket.getaddrinfo


def stand_in(host, port, *more, **named):
    if host == "discord.com":
        host, port = "127.0.0.1", {port}
    return look_up(host, port, *more, **named)


socket.getaddrinfo = stand_in
"""


@pytest.fixture
def discord(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """Stands in for Discord: a server with a certificate for its name, at whose address the process that sends finds
    the name. What the real one says to the content is not tried."""
    pytest.importorskip("apprise")
    folder = tmp_path / "stand-in"
    folder.mkdir()
    trusted = certificates.authority(folder)
    pair = certificates.signed(folder, trusted, host="discord.com")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(pair.certificate, pair.key)
    found = Receiver(tls)
    (folder / "sitecustomize.py").write_text(STAND_IN.format(port=found.port))
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(trusted.certificate))
    yield found
    found.stop()


def playbook_run(store: Store, user: str = "dev", **fields: Any) -> RecordedRun:
    about = About(playbook="site.yml", inventory="dev")
    return RecordedRun(store, user, "dev: site.yml", **{"kind": "playbook", "about": about, **fields})


def test_every_way_a_task_ends_is_told(bench: Bench, receiver: Receiver) -> None:
    bench.define("all", receiver.url, "succeeded", "failed", "timed_out", "lost", "canceled", "started")
    expected: list[tuple[str, str]] = []
    for state in (State.SUCCEEDED, State.FAILED, State.TIMED_OUT, State.ERROR):
        run = RecordedRun(bench.store)
        run.end(state)
        expected += [(run.task_id, "started"), (run.task_id, "failed" if state is State.ERROR else state.value)]
    queued = new_id()
    bench.store.submit(queued, make_run("dev"))
    bench.store.cancel(queued, "dev")
    never_sent = new_id()
    bench.store.submit(never_sent, make_run("dev"))
    bench.store.settle(never_sent, State.ERROR, "its message was never sent")  # as recovery does
    lost = RecordedRun(bench.store)
    bench.store._redis.zadd("flansible:leases", {lost.task_id: 1.0})
    bench.store.mark_lost(lost.task_id, "its worker died")
    expected += [(queued, "canceled"), (never_sent, "failed"), (lost.task_id, "started"), (lost.task_id, "lost")]
    bench.until(lambda: len(receiver.received) >= len(expected))
    got = [(one.json["data"]["task_id"], one.event) for one in receiver.received]
    assert sorted(got) == sorted(expected)
    assert len({one.id for one in receiver.received}) == len(expected)
    assert bench.store.outbox_length() == 0


def test_the_content_has_counts_hosts_the_first_failure_and_links_and_no_output(
    bench: Bench, receiver: Receiver
) -> None:
    bench.define("ops", receiver.url, "failed")
    run = playbook_run(bench.store, request={"extra_vars": {"version": "7"}})
    run.write(b"marker of the output\n", task_start("Install"), result("web1"), result("web2"))
    run.write(b"", task_start("Restart"), result("web1", task="Restart"), result("web2", "failed", "Restart"))
    run.write(b"", result("web3", "unreachable", "Restart"))
    stats = {name: dict.fromkeys(("ok", "changed", "unreachable", "failures"), 0) for name in ("web1", "web2", "web3")}
    stats["web2"]["failures"] = stats["web3"]["unreachable"] = 1
    event = {"event": "stats", "stats": stats, "custom_stats": {}, "output_start": 0, "output_end": 0}
    run.write(b"", StoredEvent(json.dumps(event), is_stats=True))
    run.end(State.FAILED)
    bench.until(lambda: receiver.received)
    [got] = receiver.received
    data = got.json["data"]
    assert got.json["type"] == "task.failed"
    assert (data["task_id"], data["state"], data["returncode"]) == (run.task_id, "failed", 2)
    assert (data["user"], data["playbook"], data["inventory"], data["kind"]) == ("dev", "site.yml", "dev", "playbook")
    assert (data["failed_host_count"], data["failed_hosts"]) == (2, ["web2", "web3"])
    assert data["first_failure"] == {"play": "all", "play_task": "Restart", "host": "web2"}
    assert data["counts"]["failed"] == 1
    assert data["links"]["status"] == f"https://flansible.example.org/api/ansibletaskstatus/{run.task_id}"
    assert b"marker" not in got.body and b"version" not in got.body
    assert not {"output", "variables"} & set(data)


def test_output_and_variables_are_there_if_asked_for(bench: Bench, receiver: Receiver) -> None:
    bench.define("ops", receiver.url, "failed", include=["output", "variables"])
    run = playbook_run(bench.store, request={"extra_vars": {"version": "7"}})
    run.write(b"x" * 5000 + b"the end\n")
    run.end(State.FAILED)
    bench.until(lambda: receiver.received)
    data = receiver.received[0].json["data"]
    assert data["output"].endswith("the end\n") and len(data["output"]) == 4096
    assert data["variables"] == {"version": "7"}


def test_a_webhook_is_signed_by_both_secrets_while_they_rotate(bench: Bench, receiver: Receiver) -> None:
    bench.define("ops", receiver.url, "succeeded", secret=SECRET, previous_secret=OLD_SECRET)
    RecordedRun(bench.store).end()
    bench.until(lambda: receiver.received)
    [got] = receiver.received
    for secret in (SECRET, OLD_SECRET):
        Webhook(secret).verify(got.body, got.headers)
    assert got.headers["content-type"] == "application/json"


def test_recovered_and_first_failure_compare_with_the_run_before(bench: Bench, receiver: Receiver) -> None:
    bench.define("ops", receiver.url, "recovered", "first_failure")
    states = [State.FAILED, State.FAILED, State.CANCELED, State.SUCCEEDED, State.SUCCEEDED, State.LOST, State.FAILED]
    tasks = []
    for state in states:
        run = playbook_run(bench.store)
        run.end(state)
        tasks.append(run.task_id)
    other = playbook_run(bench.store, about=About(playbook="site.yml", inventory="prod"))
    other.end(State.FAILED)
    bench.until(lambda: len(receiver.received) >= 4)
    bench.dispatcher.tick()
    got = {(one.json["data"]["task_id"], one.event) for one in receiver.received}
    assert got == {
        (tasks[0], "first_failure"),
        (tasks[3], "recovered"),
        (tasks[5], "first_failure"),
        (other.task_id, "first_failure"),
    }


def test_nothing_is_written_while_nobody_asks(bench: Bench, receiver: Receiver, raw: redis.Redis) -> None:
    RecordedRun(bench.store).end()
    assert raw.xlen("flansible:outbox") == 0
    bench.define("ops", receiver.url, "failed")
    RecordedRun(bench.store).end()
    assert raw.xlen("flansible:outbox") == 2, "everything, until it is known what is asked for"
    bench.until(lambda: raw.xlen("flansible:outbox") == 0)
    for _ in range(2):
        bench.look()
    assert bench.store.notified()[1] == {"final"}
    run = RecordedRun(bench.store)
    assert raw.xlen("flansible:outbox") == 0, "nobody asks for starts"
    run.end()
    assert raw.xlen("flansible:outbox") == 1
    bench.forget("ops")
    for _ in range(2):
        bench.look()
    assert bench.store.notified()[1] == frozenset()
    RecordedRun(bench.store).end()
    assert raw.xlen("flansible:outbox") == 0


def test_a_definition_that_is_being_written_is_not_forgotten(bench: Bench, receiver: Receiver) -> None:
    for _ in range(2):
        bench.look()
    bench.store.expect_notifications()  # its transaction is not over yet
    bench.look()
    RecordedRun(bench.store).end()
    assert bench.store.outbox_length() == 2


def test_a_redis_that_was_emptied_learns_what_is_asked_for(bench: Bench, receiver: Receiver) -> None:
    bench.define("ops", receiver.url, "succeeded")
    bench.look()
    bench.store._redis.flushall()
    bench.store.raise_sequence(1)
    bench.dispatcher._renew_at = 0.0
    bench.look()
    RecordedRun(bench.store).end()
    bench.until(lambda: receiver.events() == ["succeeded"])


def test_the_outbox_is_bounded_and_what_is_lost_is_counted(
    bench: Bench, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.store.expect_notifications()
    pipeline = raw.pipeline()
    for _ in range(10_000):
        pipeline.xadd("flansible:outbox", {"task": "x", "event": "wake"})
    pipeline.execute()
    RecordedRun(bench.store).end()
    assert raw.xlen("flansible:outbox") == 10_000
    assert bench.store.metrics().count("outbox", "lost") == 2


def test_a_receiver_that_fails_is_tried_again_with_the_same_id(
    bench: Bench, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "PAUSES", (0.2, 0.2, 0.2))
    answers = iter([500, 302, 503])
    receiver.answer = lambda _: (next(answers, 200), {"Location": "http://127.0.0.1:1/"}, b"")
    bench.define("ops", receiver.url, "succeeded")
    RecordedRun(bench.store).end()
    bench.until(lambda: bench.states() == {"succeeded": "delivered"})
    assert len(receiver.received) == 4 and len({one.id for one in receiver.received}) == 1
    [found] = bench.deliveries()
    assert [one["detail"].partition(":")[0] for one in found.attempts] == ["500", "302", "503", "200"]
    assert [one["ok"] for one in found.attempts] == [False, False, False, True]
    assert bench.store.metrics().count("deliveries", "webhook", "failed") == 3
    assert bench.store.metrics().count("deliveries", "webhook", "delivered") == 1


def test_after_the_last_attempt_it_is_dead_and_a_redelivery_revives_it(
    bench: Bench, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "PAUSES", (0.1,))
    receiver.answer = lambda _: (500, {}, b"")
    bench.define("ops", receiver.url, "succeeded")
    RecordedRun(bench.store).end()
    bench.until(lambda: bench.states() == {"succeeded": "dead"})
    assert len(receiver.received) == 2
    bench.dispatcher.tick()
    receiver.answer = lambda _: (200, {}, b"")
    [found] = bench.deliveries()
    bench.rows.redeliver(found.id, int(time.time() * 1000))
    bench.store.wake_dispatcher()
    bench.until(lambda: bench.states() == {"succeeded": "delivered"})
    assert len({one.id for one in receiver.received}) == 1


def test_a_service_of_apprise_gets_the_content_and_is_tried_again_until_it_does(
    bench: Bench, discord: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "PAUSES", (0.1,) * 3)
    answers = iter([(500, {}, b""), None])
    discord.answer = lambda _: next(answers, (204, {}, b""))
    bench.define("chat", None, "failed", kind="apprise", apprise_url=DISCORD)
    playbook_run(bench.store).end(State.FAILED)
    bench.until(lambda: bench.states() == {"failed": "delivered"})
    [found] = bench.deliveries()
    details = [(one["ok"], one["detail"]) for one in found.attempts]
    assert details == [(False, "the service did not accept it")] * 2 + [(True, "discord")]
    for got in discord.received:
        assert got.path.startswith("/api/webhooks/4174216298/the-token_of-the-webhook")
        assert "Flansible: site.yml failed" in got.json["content"] and "Task: dev: site.yml" in got.json["content"]
    assert len(discord.received) == 3
    assert bench.store.metrics().count("deliveries", "apprise", "failed") == 2
    assert bench.store.metrics().count("deliveries", "apprise", "delivered") == 1


def test_a_service_of_apprise_whose_certificate_is_not_trusted_gets_nothing(
    bench: Bench, discord: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "PAUSES", (0.1,))
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    bench.define("chat", None, "failed", kind="apprise", apprise_url=DISCORD)
    playbook_run(bench.store).end(State.FAILED)
    bench.until(lambda: bench.states() == {"failed": "dead"})
    [found] = bench.deliveries()
    assert [one["ok"] for one in found.attempts] == [False, False] and discord.received == []


@pytest.mark.parametrize("between", [" ", ","])
def test_apprise_sends_to_the_one_service_whose_scheme_was_checked(
    discord: Receiver, receiver: Receiver, between: str
) -> None:
    with contextlib.suppress(DeliveryFailed, DeliveryRefused):
        apprise_sender.send(f"{DISCORD}{between}json://127.0.0.1:{receiver.port}/", "title", "text")
    assert receiver.received == []


def test_the_pauses_grow_over_a_day() -> None:
    assert 23 * 3600 < sum(sending.PAUSES) <= 24 * 3600 and list(sending.PAUSES) == sorted(sending.PAUSES)


def test_an_attempt_that_fails_inside_flansible_counts_as_one(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sending, "PAUSES", (0.1,))
    now = int(time.time() * 1000)
    damaged = NewDelivery(
        "msg_1", "task", "ops", "failed", "webhook", "admin", "notifications/ops", "no JSON", now, now
    )
    bench.rows.add([damaged])
    bench.until(lambda: bench.states() == {"failed": "dead"})
    [found] = bench.deliveries()
    assert ["log of the web server" in one["detail"] for one in found.attempts] == [True, True]
    assert "JSONDecodeError" in caplog.text


def test_410_and_a_forbidden_address_are_dead_at_once(bench: Bench, receiver: Receiver) -> None:
    receiver.answer = lambda _: (410, {}, b"")
    bench.define("gone", receiver.url, "succeeded")
    bench.define("inside", receiver.url, "failed", allow_private=False)
    RecordedRun(bench.store).end()
    RecordedRun(bench.store).end(State.FAILED)
    bench.until(lambda: bench.states() == {"succeeded": "dead", "failed": "dead"})
    assert [one.event for one in receiver.received] == ["succeeded"]
    details = {one.notification: one.attempts[0]["detail"] for one in bench.deliveries()}
    assert "allow_private" in details["inside"]


def test_a_receiver_that_hangs_holds_up_no_other_one(bench: Bench, receiver: Receiver) -> None:
    slow = Receiver()
    slow.answer = lambda _: None
    try:
        bench.define("slow", slow.url, "succeeded")
        bench.define("fast", receiver.url, "succeeded")
        began = time.monotonic()
        for _ in range(12):
            RecordedRun(bench.store).end()
        bench.until(lambda: len(receiver.received) == 12)
        # Each of its threads waits for a reply, and is cut off when the time is over.
        turns = 1 + (time.monotonic() - began) // webhook_sender.TOTAL_SECONDS
        assert len(slow.received) <= turns * dispatcher_module.MOST_OF_RECEIVER
    finally:
        slow.stop()


def test_a_notification_tells_only_of_what_its_owner_may_see(bench: Bench, receiver: Receiver) -> None:
    bench.define("own", receiver.url, "succeeded", owner="dev", allow_private=False)
    others, own = RecordedRun(bench.store, "admin"), RecordedRun(bench.store, "dev")
    seen = Visibility(inventories=("/x/dev",), entries=("user:dev",))
    shared = RecordedRun(bench.store, "admin", visibility=seen)
    for run in (others, own, shared):
        run.end()
    bench.until(lambda: bench.deliveries())
    assert [one.task_id for one in bench.deliveries()] == [own.task_id]
    bench.grant(inventories=["/x/dev"], sees="inventories")
    again = RecordedRun(bench.store, "admin", visibility=seen)
    again.end()
    bench.until(lambda: len(bench.deliveries()) == 2)
    assert bench.deliveries()[0].task_id == again.task_id
    bench.file.write_text(json.dumps({"rbac": [{"user": "admin", "password": "a"}]}))
    RecordedRun(bench.store, "dev").end()
    bench.until(lambda: bench.store.outbox_length() == 0)
    assert len(bench.deliveries()) == 2, "who is gone is told nothing"


def test_what_only_admin_may_is_not_sent_for_one_who_is_not(bench: Bench, receiver: Receiver) -> None:
    bench.define("own", receiver.url, "succeeded", owner="dev", allow_private=True)
    RecordedRun(bench.store, "dev").end()
    bench.until(lambda: bench.states() == {"succeeded": "dead"})
    assert receiver.received == []


def test_a_delivery_is_not_sent_to_who_takes_the_name_of_its_notification(
    bench: Bench, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "PAUSES", (0.2,))
    bench.define("ops", "http://receiver.invalid/", "succeeded", owner="dev", allow_private=False)
    RecordedRun(bench.store, "dev").end()
    bench.until(lambda: bench.deliveries() and bench.deliveries()[0].attempts)
    bench.define("ops", receiver.url, "succeeded")
    bench.until(lambda: bench.states() == {"succeeded": "dead"})
    assert receiver.received == []
    assert "another user's" in bench.deliveries()[0].attempts[-1]["detail"]


def test_conditions_are_looked_at(bench: Bench, receiver: Receiver) -> None:
    bench.define("a", receiver.url, "succeeded", match={"playbook": "other.yml"})
    bench.define("b", receiver.url, "succeeded", match={"playbook": "site.yml", "user": "dev", "inventory": "dev"})
    playbook_run(bench.store).end()
    bench.until(lambda: receiver.received and bench.store.outbox_length() == 0)
    assert [one.notification for one in bench.deliveries()] == ["b"]


def test_a_late_schedule_is_told_of(bench: Bench, receiver: Receiver) -> None:
    late = LateSchedule("nightly", "dev", "deploy", 1_790_000_000_000)
    bench.store.add_late_schedule(late)
    assert bench.store.outbox_length() == 0, "nobody asks for anything"
    bench.define("ops", receiver.url, "schedule_late", match={"template": "deploy"})
    bench.define("other", receiver.url, "schedule_late", match={"template": "other"})
    bench.define("devs", receiver.url, "schedule_late", owner="dev", allow_private=False)
    for _ in range(2):
        bench.store.add_late_schedule(late)
    bench.until(lambda: len(bench.deliveries()) == 2 and receiver.received)
    assert {one.notification for one in bench.deliveries()} == {"ops", "devs"}, "each once"
    [got] = receiver.received
    assert got.json["type"] == "schedule.late" and got.json["data"]["due_at"] == "2026-09-21T14:13:20.000Z"


def test_in_quiet_hours_it_waits(bench: Bench, receiver: Receiver) -> None:
    hours = {"begin": "00:00", "end": "23:59", "timezone": "UTC"}
    if time.gmtime()[3:5] == (23, 59):
        hours = {"begin": "23:00", "end": "22:00", "timezone": "UTC"}
    bench.define("quiet", receiver.url, "succeeded", quiet_hours=hours)
    RecordedRun(bench.store).end()
    bench.until(lambda: bench.deliveries())
    bench.dispatcher.tick()
    [found] = bench.deliveries()
    assert found.state == "pending" and found.next > time.time() * 1000 and receiver.received == []


def test_a_task_that_was_archived_meanwhile_is_told_of(
    bench: Bench, receiver: Receiver, redis_url: str, history_url: str
) -> None:
    bench.define("ops", receiver.url, "failed")
    run = playbook_run(bench.store)
    run.write(b"text\n", task_start("Restart"), result("web2", "failed", "Restart"))
    run.end(State.FAILED)
    archiver = Archiver(Store(redis_url), history_url, 0.0, HistoryLimits(365))
    archiver.run_round()
    archiver.close()
    bench.until(lambda: receiver.received)
    assert receiver.received[0].json["data"]["failed_hosts"] == ["web2"]


def test_a_callback_is_called_for_the_end_or_for_what_it_names(bench: Bench, receiver: Receiver) -> None:
    RecordedRun(bench.store, "dev", request={"callback": {"url": receiver.url}}).end(State.FAILED)
    RecordedRun(bench.store, "dev", request={"callback": {"url": receiver.url, "on": ["started"]}}).end()
    bench.until(lambda: len(receiver.received) == 2)
    assert sorted(receiver.events()) == ["failed", "started"]
    found = bench.deliveries()
    assert {(one.kind, one.owner, one.notification) for one in found} == {("callback", "dev", "")}
    assert "webhook-signature" not in receiver.received[0].headers


def test_a_callback_is_signed_with_the_credential_that_it_names_as_it_is_then(bench: Bench, receiver: Receiver) -> None:
    bench.define_credential("ci", OLD_SECRET)
    RecordedRun(bench.store, "dev", request={"callback": {"url": receiver.url, "credential": "ci"}}).end()
    bench.define_credential("ci", SECRET)
    bench.until(lambda: receiver.received)
    Webhook(SECRET).verify(receiver.received[0].body, receiver.received[0].headers)
    [found] = bench.deliveries()
    assert SECRET not in found.payload and json.loads(found.payload)["credential"] == "ci"


@pytest.mark.parametrize("change", ("taken over by another user", "gone", "without a secret to sign with", "user gone"))
def test_a_callback_that_cannot_be_signed_any_more_is_not_sent(bench: Bench, receiver: Receiver, change: str) -> None:
    bench.define_credential("ci", SECRET)
    RecordedRun(bench.store, "dev", request={"callback": {"url": receiver.url, "credential": "ci"}}).end()
    if change == "taken over by another user":
        bench.define_credential("ci", SECRET, owner="admin")
    elif change == "gone":
        with bench.definitions.writing() as writer:
            writer.delete("credentials", "ci")
    elif change == "without a secret to sign with":
        bench.define_credential("ci", "a token of another form")
    else:
        bench.grant(user="other")
    bench.until(lambda: bench.states() == {"succeeded": "dead"})
    [found] = bench.deliveries()
    assert not receiver.received and "token of another form" not in found.attempts[0]["detail"]


def test_of_two_dispatchers_one_delivers_and_the_other_takes_over(bench: Bench, receiver: Receiver) -> None:
    bench.define("ops", receiver.url, "succeeded")
    first, other = bench.dispatcher, bench.new_dispatcher()
    first.tick()
    bench.store._redis.hset("flansible:dispatcher", "holder", "another process")
    other.tick()
    assert not other._is_elected
    bench.store._redis.hset("flansible:dispatcher", "until", 0)
    other._renew_at = 0.0
    RecordedRun(bench.store).end()
    bench.dispatcher = other
    bench.until(lambda: receiver.received)
    assert other._is_elected


def test_two_that_are_elected_at_once_send_each_delivery_once(bench: Bench, receiver: Receiver) -> None:
    """As after one was stopped for a while: rows are taken by one of them."""
    bench.define("ops", receiver.url, "succeeded")
    others = [bench.new_dispatcher() for _ in range(2)]
    for one in (bench.dispatcher, *others):
        one._elected = lambda: True  # type: ignore[method-assign]
    for _ in range(12):
        RecordedRun(bench.store).end()

    def round_() -> bool:
        for one in others:
            one.tick()
        return len(receiver.received) >= 12

    bench.until(round_, 60)
    eventually(lambda: not any(one._sending for one in (bench.dispatcher, *others)))
    for one in (bench.dispatcher, *others):
        one.tick()
    assert len(receiver.received) == len({one.id for one in receiver.received}) == 12


def test_an_outage_of_the_database_delays_and_loses_nothing(
    databases: Databases, bench: Bench, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.define("ops", receiver.url, "succeeded")
    bench.dispatcher.tick()
    add = bench.rows.add

    def away(_found: Any) -> None:
        raise HistoryUnavailable("the history database is away", "is away")

    monkeypatch.setattr(bench.rows, "add", away)
    RecordedRun(bench.store).end()
    for _ in range(3):
        bench.dispatcher.tick()
    assert bench.store.outbox_length() == 2
    monkeypatch.setattr(bench.rows, "add", add)
    bench.until(lambda: receiver.events() == ["succeeded"])


# Through the web server, whose dispatcher takes what a `bench` would


@pytest.fixture(scope="module")
def server(
    shared_redis: RedisServer, databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[WebServer]:
    folder = tmp_path_factory.mktemp("web")
    url = databases.migrated("postgresql", folder)
    settings = {"DATABASE_URL": url, "callback_hosts": "127.0.0.1,*.example.org", "callback_private": True}
    running = WebServer(folder, shared_redis.url, **settings)
    rbac = json.loads((folder / "rbac.json").read_text())
    for entry in rbac["rbac"]:
        if entry["user"] == "dev":
            entry["may_define"] = ["notifications"]
    (folder / "rbac.json").write_text(json.dumps(rbac))
    yield running
    running.stop()


def body(receiver: Receiver, **more: Any) -> dict[str, Any]:
    return {"kind": "webhook", "url": receiver.url, "on": ["failed"], "allow_private": True, **more}


def test_a_notification_through_the_api_and_a_failed_one_delivered_again(
    server: WebServer, store: Store, receiver: Receiver
) -> None:
    receiver.answer = lambda _: (410, {}, b"")
    with server.client() as client:
        made = client.put("/api/notifications/ops", json=body(receiver, secret=SECRET))
        assert made.status_code == 201 and made.json()["sealed"] == ["secret"] and "whsec_" not in made.text
        run = RecordedRun(store)
        run.end(State.FAILED)
        of_ops = {"notification": "ops", "state": "dead"}
        [found] = eventually(lambda: client.get("/api/deliveries", params=of_ops).json()["items"])
        assert (found["task_id"], found["event"], found["kind"]) == (run.task_id, "failed", "webhook")
        assert found["attempts"][0]["detail"].startswith("410")
        receiver.answer = lambda _: (200, {}, b"")
        path = f"/api/deliveries/{found['delivery_id']}"
        again = client.post(f"{path}/redeliver")
        assert again.status_code == 202 and again.json()["state"] == "pending"
        eventually(lambda: client.get(path).json()["state"] == "delivered")
        assert client.delete("/api/notifications/ops").status_code == 204
    assert [one.id for one in receiver.received] == [found["delivery_id"]] * 2
    Webhook(SECRET).verify(receiver.received[1].body, receiver.received[1].headers)


def test_a_delivery_is_sent_again_by_its_own_notification_alone(
    server: WebServer, store: Store, receiver: Receiver
) -> None:
    with server.client() as admin, server.client(DEV) as dev:
        of_dev = body(receiver, url="https://receiver.invalid/", allow_private=False)
        dev.put("/api/notifications/taken", json=of_dev).raise_for_status()
        RecordedRun(store, "dev").end(State.FAILED)
        [found] = eventually(lambda: dev.get("/api/deliveries", params={"notification": "taken"}).json()["items"])
        dev.delete("/api/notifications/taken").raise_for_status()
        for change in ("deleted", "another's"):
            if change == "another's":
                admin.put("/api/notifications/taken", json=body(receiver)).raise_for_status()
            for client in (dev, admin):
                reply = client.post(f"/api/deliveries/{found['delivery_id']}/redeliver")
                assert (reply.status_code, reply.json()["code"]) == (404, "definition_not_found")
        admin.delete("/api/notifications/taken").raise_for_status()
    assert receiver.received == []


def test_deliveries_are_their_owners(server: WebServer, store: Store, receiver: Receiver) -> None:
    with server.client() as admin, server.client(DEV) as dev:
        admin.put("/api/notifications/admins", json=body(receiver)).raise_for_status()
        RecordedRun(store, "dev").end(State.FAILED)
        [found] = eventually(lambda: admin.get("/api/deliveries", params={"notification": "admins"}).json()["items"])
        path = f"/api/deliveries/{found['delivery_id']}"
        assert dev.get("/api/deliveries", params={"notification": "admins"}).json()["items"] == []
        for reply in (dev.get(path), dev.post(f"{path}/redeliver"), dev.get("/api/deliveries/msg_x")):
            assert (reply.status_code, reply.json()["code"]) == (404, "delivery_not_found")
        admin.delete("/api/notifications/admins").raise_for_status()


@pytest.mark.parametrize(
    "more", [{"allow_private": True}, {"kind": "apprise", "apprise_url": "slack://a/b/c"}], ids=["private", "apprise"]
)
def test_only_admin_reaches_private_addresses_and_apprise(
    server: WebServer, receiver: Receiver, more: dict[str, Any]
) -> None:
    plain = {"kind": "webhook", "url": "https://hooks.example.org/", "on": ["failed"]}
    with server.client(DEV) as dev:
        assert dev.put("/api/notifications/mine", json=plain).status_code == 201
        reply = dev.put("/api/notifications/mine", json={**plain, **more})
        assert (reply.status_code, reply.json()["code"]) == (403, "admin_only")
        applied = {"definitions": [{"kind": "notifications", "name": "mine", "spec": {**plain, **more}}]}
        assert dev.post("/api/apply", json=applied).json()["code"] == "admin_only"
        dev.delete("/api/notifications/mine").raise_for_status()


def test_a_callback_of_a_host_that_is_not_allowed_is_refused(server: WebServer) -> None:
    with server.client() as client:
        for url, code in (
            ("http://evil.example.net/", "callback_forbidden"),
            ("http://127.0.0.2/", "callback_forbidden"),
            ("http://x@127.0.0.1/", "invalid_field"),
            ("file:///etc/passwd", "invalid_field"),
        ):
            reply = client.post("/api/ansiblecommand", json={"module": "ping", "callback": {"url": url}})
            assert reply.json()["code"] == code and "callback" in reply.json()["errors"][0]["field"]


def test_a_callback_is_signed_only_with_an_own_secret_of_the_right_form(server: WebServer, store: Store) -> None:
    asked = {"module": "ping", "callback": {"url": "http://127.0.0.1/", "credential": "ci"}}
    with server.client() as admin, server.client(DEV) as dev:

        def refusal(client: httpx.Client) -> tuple[str, str]:
            reply = client.post("/api/ansiblecommand", json=asked)
            assert "callback.credential" in reply.json()["message"]
            return reply.json()["code"], reply.json()["errors"][0]["field"]

        assert refusal(admin) == ("credential_not_found", "callback.credential")
        admin.put("/api/credentials/ci", json={"kind": "become", "password": "x"}).raise_for_status()
        assert refusal(admin) == ("invalid_field", "callback.credential")
        admin.put("/api/credentials/ci", json={"kind": "http", "token": "no", "password": None}).raise_for_status()
        assert refusal(admin) == ("invalid_field", "callback.credential")
        admin.put("/api/credentials/ci", json={"kind": "http", "token": SECRET}).raise_for_status()
        assert refusal(dev) == ("credential_forbidden", "callback.credential")
        accepted = admin.post("/api/ansiblecommand", json=asked)
        assert accepted.status_code == 202, accepted.text
        assert SECRET not in json.dumps(admin.get(f"/api/ansibletaskrequest/{accepted.json()['task_id']}").json())
        admin.delete("/api/credentials/ci").raise_for_status()


def test_pages_of_deliveries(server: WebServer, store: Store, receiver: Receiver) -> None:
    with server.client() as client:
        client.put("/api/notifications/many", json=body(receiver)).raise_for_status()
        for _ in range(5):
            RecordedRun(store).end(State.FAILED)
        eventually(lambda: len(receiver.received) == 5)
        seen, before = [], None
        while True:
            params = {"notification": "many", "limit": 2, **({"before": before} if before else {})}
            page = client.get("/api/deliveries", params=params).json()
            seen += [one["delivery_id"] for one in page["items"]]
            if (before := page["next_before"]) is None:
                break
        assert len(seen) == len(set(seen)) == 5
        client.delete("/api/notifications/many").raise_for_status()


def test_without_a_database_there_are_none(make_app: Callable[..., Flask]) -> None:
    client = make_app(callback_hosts="127.0.0.1").test_client()
    assert client.get("/api/deliveries", auth=ADMIN).get_json() == {"items": [], "next_before": None}
    asked = {"module": "ping", "callback": {"url": "http://127.0.0.1/"}}
    command = client.post("/api/ansiblecommand", json=asked, auth=ADMIN)
    for reply in (client.get("/api/deliveries/x", auth=ADMIN), command):
        assert (reply.status_code, reply.get_json()["code"]) == (503, "no_database")
