"""What a worker reports about itself: whether it can run tasks, under a name that no other worker has."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import redis

from flansible.config import Settings
from flansible.errors import ConfigurationError
from flansible.store import Store
from flansible.system import account, process_identity
from flansible.worker import celery_task, readiness
from flansible.worker.readiness import Readiness, run_nothing
from tests.helpers.runs import Worker
from tests.helpers.waiting import eventually
from tests.helpers.webserver import ADMIN, WebServer

RECORDS = "flansible:workers:records"
ELSEWHERE = "other-machine some-boot pid:[1] 4711 99"


@pytest.fixture
def raw(redis_url: str) -> Iterator[redis.Redis]:
    client = redis.Redis.from_url(redis_url.replace("redis+socket://", "unix://"))
    yield client
    client.close()


@pytest.fixture
def alive() -> Iterator[str]:
    """The identity of another process of this machine."""
    code = "from flansible.system import process_identity as p; print(p.own_identity(), flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()


def age(raw: redis.Redis, name: str, seconds: float) -> None:
    """Makes the record of this worker so much older."""
    record = json.loads(raw.hget(RECORDS, name) or b"")  # type: ignore[arg-type]
    raw.hset(RECORDS, name, json.dumps({**record, "time": record["time"] - seconds}))


# The records.


def test_a_worker_reports_under_its_name(store: Store) -> None:
    assert store.worker_records() == []
    assert store.report_worker("b", "two", "HOME is full")
    assert store.report_worker("a", "one", "")
    first, second = store.worker_records()
    assert (first.name, first.process, first.problem) == ("a", "one", "")
    assert (second.name, second.problem) == ("b", "HOME is full")
    assert 0 <= first.age_seconds < 5 and first.is_live


def test_a_name_is_taken_while_its_process_reports_and_is_not_known_to_be_dead(store: Store, raw: redis.Redis) -> None:
    assert store.report_worker("w", "one", "")
    assert not store.report_worker("w", "two", "")
    assert not store.report_worker("w", "two", "", dead="three")
    assert store.worker_records()[0].process == "one"
    assert store.report_worker("w", "two", "", dead="one")
    age(raw, "w", 9)
    assert not store.report_worker("w", "one", "")
    age(raw, "w", 2)
    assert store.report_worker("w", "one", "")


def test_a_record_goes_with_its_worker_or_an_hour_after_it(store: Store, raw: redis.Redis) -> None:
    for name in ("ended", "lost", "stays"):
        store.report_worker(name, name, "")
    store.remove_worker_record("ended", "ended")
    store.remove_worker_record("stays", "another process of its name")
    age(raw, "lost", 3601)
    store.report_worker("stays", "stays", "")
    assert [record.name for record in store.worker_records()] == ["stays"]


# The name.


def taker(store: Store, probe: Callable[[], str] = lambda: "") -> Readiness:
    return Readiness(store, "w@host", probe)


def test_a_name_whose_worker_lives_here_is_refused_even_when_it_is_silent(
    store: Store, raw: redis.Redis, alive: str
) -> None:
    store.report_worker("w@host", alive, "")
    for silent_seconds in (0, 60):
        age(raw, "w@host", silent_seconds)
        with pytest.raises(ConfigurationError, match=f"process {alive.split()[3]}.*--name"):
            taker(store).take_name()


def test_the_name_of_a_dead_process_is_taken_at_once(store: Store, alive: str) -> None:
    host, boot, namespace, pid, ticks, machine = alive.split()
    store.report_worker("w@host", f"{host} {boot} {namespace} {pid} {int(ticks) + 1} {machine}", "")
    found = taker(store)
    began = time.monotonic()
    found.take_name()
    assert time.monotonic() - began < 5
    assert store.worker_records()[0].process == process_identity.own_identity()
    found.stop()
    assert store.worker_records() == []


def test_a_worker_out_of_sight_keeps_its_name_while_it_reports(store: Store) -> None:
    store.report_worker("w@host", ELSEWHERE, "")
    ended = threading.Event()

    def report() -> None:
        while not ended.wait(0.2):
            store.report_worker("w@host", ELSEWHERE, "")

    thread = threading.Thread(target=report)
    thread.start()
    try:
        with pytest.raises(ConfigurationError, match="other-machine"):
            taker(store).take_name()
    finally:
        ended.set()
        thread.join()


def test_a_worker_out_of_sight_that_is_silent_loses_its_name_in_ten_seconds(store: Store, raw: redis.Redis) -> None:
    store.report_worker("w@host", ELSEWHERE, "")
    age(raw, "w@host", 9)
    found = taker(store)
    found.take_name()
    assert store.worker_records()[0].process == process_identity.own_identity()
    found.stop()


# What it reports.


def test_it_reports_why_it_cannot_run_tasks_and_when_it_can_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readiness, "CHECK_SECONDS", 0.01)
    problem = ["Ansible does not load"]
    found = taker(store, lambda: problem[0])

    def reported() -> str:
        return store.worker_records()[0].problem

    found.take_name()
    assert reported() == "it is starting"
    found.watch()
    eventually(lambda: reported() == "Ansible does not load")
    problem[0] = ""
    eventually(lambda: reported() == "")
    monkeypatch.setenv("ANSIBLE_HOME", "/dev/null/home")
    eventually(lambda: "cannot write in /dev/null/home" in reported())
    problem[0] = "after a failure all is tried again"
    monkeypatch.delenv("ANSIBLE_HOME")
    eventually(lambda: reported() == problem[0])
    found.stop()
    eventually(lambda: "readiness" not in {thread.name for thread in threading.enumerate()})


def test_a_worker_prints_a_line_once_it_can_run_tasks(store: Store, capfd: pytest.CaptureFixture[str]) -> None:
    found = taker(store)
    found.take_name()
    found.watch()
    eventually(lambda: store.worker_records()[0].problem == "")
    found.stop()
    assert capfd.readouterr().out == "Worker w@host is ready\n"


def test_a_worker_whose_line_cannot_be_written_is_ready_and_still_watches(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readiness, "CHECK_SECONDS", 0.01)
    found = taker(store)
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "__stdout__", full)
        found.take_name()
        found.watch()
        eventually(lambda: store.worker_records()[0].problem == "")
        monkeypatch.setenv("ANSIBLE_HOME", "/dev/null/home")
        eventually(lambda: "cannot write in /dev/null/home" in store.worker_records()[0].problem)
        found.stop()


def test_an_unexpected_error_is_reported_and_all_is_tried_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "CHECK_SECONDS", 0.01)
    faults: list[Exception] = [ValueError("no such thing")]

    def probe() -> str:
        if faults:
            raise faults[0]
        return ""

    found = taker(store, probe)
    found.take_name()
    found.watch()
    eventually(lambda: store.worker_records()[0].problem == "internal error: ValueError: no such thing")
    faults.clear()
    eventually(lambda: store.worker_records()[0].problem == "")
    found.stop()


def test_a_run_of_nothing_that_fails_is_repeated_ever_more_seldom(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []

    class Stopped(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            pauses.append(timeout or 0)
            if len(pauses) == 9:
                self.set()
            return self.is_set()

    problems = ["broken"] * 6 + ["", "never asked for"]
    found = taker(store, lambda: problems.pop(0))
    monkeypatch.setattr(found, "_stopped", Stopped())
    found._watch()
    assert pauses == [5, 10, 20, 40, 60, 60, 5, 5, 5]


def test_a_worker_whose_start_fails_unexpectedly_does_not_go_on_without_readiness(
    make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(celery_task, "settings", lambda: make_settings(isolation="none"))
    monkeypatch.setattr(account, "require_home", fail)
    with pytest.raises(SystemExit) as raised:
        celery_task._check_configuration(None)
    assert raised.value.code == 2
    assert "Input/output error" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("configuration", "loads"),
    [
        ("[inventory]\nenable_plugins = yaml\nany_unparsed_is_failed = true\n", True),
        ("nothing that can be read", False),
    ],
)
def test_a_project_s_configuration_is_loaded_but_decides_nothing(
    cold: Worker,
    tmp_path: Path,
    make_settings: Callable[..., Settings],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    configuration: str,
    loads: bool,
) -> None:
    (tmp_path / "ansible.cfg").write_text(configuration)
    monkeypatch.setattr(celery_task, "_worker_services", lambda: cold)  # its two that a probe uses
    monkeypatch.setattr(celery_task, "settings", lambda: make_settings(playbook_root=tmp_path))
    assert celery_task._probe() == ""
    eventually(lambda: "try-configuration" not in {thread.name for thread in threading.enumerate()})
    assert cold.fork_servers.counts("w").forked == (2 if loads else 1)
    assert not cold.fork_servers._servers
    assert (f"Ansible does not load with the configuration of {tmp_path}" in caplog.text) is not loads


def test_a_run_of_nothing_leaves_a_fork_server_only_where_other_runs_have_used_it(cold: Worker, tmp_path: Path) -> None:
    assert run_nothing(cold.fork_servers, cold.shutdown, str(tmp_path)) == ""
    assert not cold.fork_servers._servers and not cold.fork_servers.used_lately()
    [zygote] = cold.fork_servers._zygotes.all()
    cold.run("localhost", "-m", "debug", cwd=str(tmp_path))
    [used] = cold.fork_servers._servers.values()
    assert run_nothing(cold.fork_servers, cold.shutdown, str(tmp_path)) == ""
    assert list(cold.fork_servers._servers.values()) == [used] and used.is_usable
    assert cold.fork_servers._zygotes.all() == [zygote]


def test_a_run_of_nothing_needs_no_plugin_for_inventories_but_the_usual(cold: Worker, tmp_path: Path) -> None:
    usual = "[inventory]\nenable_plugins = ini, yaml\nany_unparsed_is_failed = true\nunparsed_is_failed = true\n"
    prompts = "[defaults]\nask_vault_pass = true\n[privilege_escalation]\nbecome_ask_pass = true\n"
    (tmp_path / "ansible.cfg").write_text(usual + prompts)
    assert run_nothing(cold.fork_servers, cold.shutdown, str(tmp_path)) == ""


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("it ended.\nTraceback (most recent call last):\n  File x\nKeyError: 1", "it ended."),
        ("Traceback (most recent call last):\nKeyError: 1", "Ansible does not load; the worker's log has the details"),
    ],
)
def test_a_problem_is_a_sentence_and_its_traceback_is_in_the_log(
    caplog: pytest.LogCaptureFixture, message: str, said: str
) -> None:
    assert readiness._sentence(message) == said
    assert "KeyError: 1" in caplog.text


def test_a_run_of_nothing_that_fails_says_why(cold: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ansible.cfg").write_text("[defaults]\nstrategy = no_such_strategy\n")
    said = run_nothing(cold.fork_servers, cold.shutdown, str(tmp_path))
    assert "ansible ended with exit code 1: an error: ERROR]: Invalid play strategy" in said
    monkeypatch.setenv("ANSIBLE_HOME", "/dev/null/home")
    assert "/dev/null/home" in run_nothing(cold.fork_servers, cold.shutdown)


# Health.


def test_health_is_well_only_with_a_worker_that_can_run_tasks(store: Store, server: WebServer) -> None:
    def workers(auth: tuple[str, str] | None) -> tuple[int, dict[str, str]]:
        reply = httpx.get(f"{server.url}/api/health", auth=auth)
        return reply.status_code, reply.json()["parts"]["workers"]

    assert workers(ADMIN) == (503, {"ok": False, "detail": "no worker answers; start one with `flansible worker`"})
    store.report_worker("w@host", "one", "nobody cannot write in /nonexistent")
    said = "w@host cannot run tasks: nobody cannot write in /nonexistent"
    eventually(lambda: workers(ADMIN) == (503, {"ok": False, "detail": said}))
    assert workers(None) == (503, {"ok": False, "detail": "has a problem; admin sees the details"})
    assert f"Web server is ready at {server.url}\n" in server.log.read_text()


def test_a_web_server_whose_line_cannot_be_written_serves(tmp_path: Path, redis_url: str) -> None:
    full = WebServer(tmp_path, redis_url, before="import os; os.dup2(os.open('/dev/full', os.O_WRONLY), 1)\n")
    full.stop()


def test_own_identity_is_not_another_process(alive: str) -> None:
    assert process_identity.lives_here(alive)
    assert not process_identity.lives_here(process_identity.own_identity())
    assert not process_identity.lives_here(ELSEWHERE) and not process_identity.lives_here("")
