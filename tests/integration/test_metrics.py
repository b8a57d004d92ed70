"""GET /metrics: what is counted, who may read it, and that no counter falls."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import redis
from flask import Flask
from prometheus_client.parser import text_string_to_metric_families

from flansible.models import ForkServerCounts, State
from flansible.store import METRIC_BOUNDS, Store
from flansible.store.scripts import SCRIPTS
from flansible.web.request_counts import FLUSH_SECONDS
from tests.helpers.history import Databases
from tests.helpers.ports import free_port
from tests.helpers.redis_server import RedisServer
from tests.helpers.runs import make_run, new_id, token_of
from tests.helpers.waiting import eventually, require_program
from tests.helpers.webserver import ADMIN, RecordedRun, WebServer

TOKEN = "a token for the tests"
Figures = dict[str, float]


@pytest.fixture(scope="module")
def server(shared_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    folder = tmp_path_factory.mktemp("web")
    (folder / "metrics.token").write_text(TOKEN + "\n")
    running = WebServer(
        folder, shared_redis.url, metrics=True, metrics_token_file=str(folder / "metrics.token"), web_threads=4
    )
    yield running
    running.stop()


@pytest.fixture
def empty(server: WebServer, store: Store) -> Store:
    store._redis.flushall()
    return store


@pytest.fixture
def raw(shared_redis: RedisServer) -> Iterator[redis.Redis]:
    client = shared_redis.client()
    yield client
    client.close()


def text(server: WebServer) -> str:
    reply = httpx.get(f"{server.url}/metrics", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=20)
    assert reply.status_code == 200, reply.text
    assert reply.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    return reply.text


def figures(server: WebServer) -> Figures:
    return samples(text(server))


def samples(shown: str) -> Figures:
    """Each sample by its name and the values of its labels, which are sorted by their names."""
    return {
        " ".join([sample.name, *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(shown)
        for sample in family.samples
    }


def test_tasks_are_counted_by_kind_and_state_with_their_times(server: WebServer, empty: Store) -> None:
    RecordedRun(empty, kind="playbook").end(State.FAILED)
    RecordedRun(empty).end()
    RecordedRun(empty)
    queued, canceled = new_id(), new_id()
    for task_id in (queued, canceled):
        empty.submit(task_id, make_run("dev"))
    empty.cancel(canceled, "dev")
    empty.submit(new_id(), make_run("dev", hidden=True))
    found = figures(server)
    assert found["flansible_tasks_submitted_total adhoc"] == 4
    assert found["flansible_tasks_finished_total playbook failed"] == 1
    assert found["flansible_tasks_finished_total adhoc succeeded"] == 1
    assert found["flansible_tasks_finished_total adhoc canceled"] == 1
    assert (found["flansible_tasks_queued"], found["flansible_tasks_running"]) == (1, 1)
    assert found["flansible_run_duration_seconds_count adhoc"] == 1, "what was canceled before its start did not run"
    assert found["flansible_run_duration_seconds_count playbook"] == 1
    assert found["flansible_task_wait_seconds_count adhoc"] == 2
    assert found["flansible_task_wait_seconds_bucket adhoc 86400"] == 2
    assert 0 < found["flansible_queue_oldest_seconds"] < 60


def test_durations_go_to_the_first_bucket_that_takes_them(server: WebServer, empty: Store, raw: redis.Redis) -> None:
    for seconds in (31.0, 181.0, 100_000.0):  # far below their bounds: what this test itself takes comes to them
        run = RecordedRun(empty)
        raw.hincrbyfloat(f"flansible:task:{run.task_id}", "started", -seconds)
        run.end()
    found = figures(server)
    name = "flansible_run_duration_seconds"
    counts = [found[f"{name}_bucket adhoc {bound:g}"] for bound in METRIC_BOUNDS]
    assert counts == [float(bound >= 60) + float(bound >= 600) for bound in METRIC_BOUNDS]
    assert found[f"{name}_bucket adhoc +Inf"] == found[f"{name}_count adhoc"] == 3
    assert 100_212 <= found[f"{name}_sum adhoc"] < 100_300


def test_the_script_and_the_reader_have_the_same_bounds() -> None:
    written = SCRIPTS["move"].source.split("local BOUNDS = {")[1].split("}")[0]
    assert [float(word.strip(" '")) for word in written.split(",")] == list(METRIC_BOUNDS)


def test_counters_survive_archiving_retention_and_a_new_web_process(
    server: WebServer, empty: Store, raw: redis.Redis, make_app: Callable[..., Flask]
) -> None:
    for _ in range(3):
        RecordedRun(empty).end()
    before = figures(server)
    raw.delete(*raw.keys("flansible:task*"), "flansible:expiring")  # as if archived, or pruned
    other = make_app(metrics=True, metrics_addresses="127.0.0.1").test_client()
    reply = other.get("/metrics")  # from an allowed address, without a token
    assert reply.status_code == 200 and "flansible_tasks_finished_total" in reply.text
    after = figures(server)
    counters = [name for name in before if name.split()[0].endswith(("_total", "_count", "_sum"))]
    assert len(counters) > 20 and [name for name in counters if after[name] < before[name]] == []
    assert after["flansible_tasks_finished_total adhoc succeeded"] == 3


def test_requests_are_counted_by_route_and_status(server: WebServer, empty: Store) -> None:
    with server.client() as client:
        for number in range(5):
            assert client.get(f"/api/ansibletaskstatus/{new_id()}").status_code == 404
            assert client.get(f"/made/up/by/a/client/{number}").status_code == 404
        assert client.request("NONSENSE", "/api/stats").status_code == 405
    route = "flansible_http_requests_total 404 GET /api/ansibletaskstatus/<string:task_id>"
    eventually(lambda: figures(server).get(route) == 5)
    found = figures(server)
    assert found["flansible_http_requests_total 404 GET other"] == 5
    assert found["flansible_http_requests_total 405 other other"] == 1
    assert "made" not in text(server) and "NONSENSE" not in text(server)


def test_a_status_poll_is_one_command_while_requests_are_counted(
    server: WebServer, empty: Store, raw: redis.Redis
) -> None:
    run = RecordedRun(empty)
    with server.client() as client:

        def poll() -> None:
            assert client.get(f"/api/ansibletaskstatus/{run.task_id}").status_code == 200

        poll()
        seen = calls(raw)
        for _ in range(100):
            poll()
    spent = calls(raw) - seen
    assert 100 <= spent < 150, "the others are those of its threads: a flush or two, and looks at rbac.json"


def calls(raw: redis.Redis) -> int:
    return int(raw.info("commandstats").get("cmdstat_evalsha", {"calls": 0})["calls"]) + sum(
        int(raw.info("commandstats").get(f"cmdstat_{name}", {"calls": 0})["calls"]) for name in ("hincrby", "eval")
    )


def test_starts_are_counted_across_restarts_of_a_worker(server: WebServer, empty: Store) -> None:
    def report(process: str, warm: int, cold: int) -> None:
        counts = ForkServerCounts(worker="w", kept=1, warm=warm, forked=1, started={"x": cold}, evicted=0)
        assert empty.report_worker("w", process, "", dead="one", counts=counts)

    for process, warm, cold in (("one", 3, 1), ("one", 5, 1), ("two", 2, 2), ("two", 2, 2)):
        report(process, warm, cold)
    found = figures(server)
    assert found["flansible_run_starts_total warm"] == 7
    assert found["flansible_run_starts_total forked"] == 2
    assert found["flansible_run_starts_total cold"] == 3


def test_schedules_have_their_last_success_and_the_reasons_of_skips(server: WebServer, empty: Store) -> None:
    empty.note_schedule_success("nightly", 1.8e9)
    empty.note_schedule_success("deleted", 1.8e9)
    empty.keep_schedule_successes(["nightly", "new"])
    empty.count_schedule_skips({"late": 2, "queue is full": 1})
    empty.count_schedule_skips({"late": 1})
    found = {name: value for name, value in figures(server).items() if name.startswith("flansible_schedule_") and value}
    assert found == {
        "flansible_schedule_last_success_timestamp_seconds nightly": 1.8e9,
        "flansible_schedule_skips_total late": 3,
        "flansible_schedule_skips_total queue_is_full": 1,
    }


def test_workers_and_their_slots(server: WebServer, empty: Store) -> None:
    for worker, slots in (("one", 8), ("two", 3)):
        task_id = new_id()
        empty.submit(task_id, make_run("dev"))
        empty.claim(task_id, worker, process=worker)
        empty.renew_leases(worker, slots, [(task_id, token_of(empty, task_id))])
    found = figures(server)
    assert (found["flansible_workers"], found["flansible_worker_slots"]) == (2, 11)


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", f"Basic {TOKEN}", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", "Bearer ü"],
)
def test_without_the_token_it_is_401(server: WebServer, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header.encode()}
    reply = httpx.get(f"{server.url}/metrics", headers=headers, timeout=20)
    assert (reply.status_code, reply.json()["code"]) == (401, "not_authenticated")


def test_a_login_of_rbac_json_does_not_read_it(server: WebServer) -> None:
    with server.client() as client:
        assert client.get("/metrics").status_code == 401


def test_a_new_token_counts_at_once_and_a_short_one_never(server: WebServer, empty: Store) -> None:
    file = server.log.with_name("metrics.token")
    try:
        for given, expected in (("another token of many letters", 401), ("short", 401), ("", 401)):
            file.write_text(given)
            reply = httpx.get(f"{server.url}/metrics", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=20)
            assert reply.status_code == expected
            headers = {"Authorization": f"Bearer {given}".strip()}
            reply = httpx.get(f"{server.url}/metrics", headers=headers, timeout=20)
            assert reply.status_code == (200 if len(given) > 16 else 401)
    finally:
        file.write_text(TOKEN)


def test_another_address_is_403_and_without_the_setting_it_is_404(make_app: Callable[..., Flask]) -> None:
    closed, off = make_app(metrics=True, metrics_addresses="10.0.0.0/8"), make_app()
    for app, expected in ((closed, (403, "metrics_forbidden")), (off, (404, "metrics_off"))):
        reply = app.test_client().get("/metrics", auth=ADMIN)
        assert (reply.status_code, reply.get_json()["code"]) == expected


def test_the_archive_is_there_with_a_history_database(
    make_app: Callable[..., Flask], store: Store, databases: Databases, tmp_path: Path
) -> None:
    store._redis.flushall()
    run = RecordedRun(store)
    run.end()
    store._redis.hincrbyfloat(f"flansible:task:{run.task_id}", "finished", -100)
    url = databases.migrated("postgresql", tmp_path)
    app = make_app(metrics=True, metrics_addresses="127.0.0.1", DATABASE_URL=url)
    found = samples(app.test_client().get("/metrics").text)
    assert found["flansible_archive_waiting_tasks"] == 1
    assert 100 <= found["flansible_archive_delay_seconds"] < 160


@pytest.mark.nightly
def test_promtool_has_no_complaint_and_prometheus_scrapes_it(
    server: WebServer, empty: Store, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    RecordedRun(empty).end()
    empty.note_schedule_success("nightly", 1.8e9)
    promtool, prometheus = require_program("promtool"), require_program("prometheus")
    checked = subprocess.run([promtool, "check", "metrics"], input=text(server), text=True, capture_output=True)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
    port = free_port()
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "prometheus.yml").write_text(
        json.dumps(
            {
                "scrape_configs": [
                    {
                        "job_name": "flansible",
                        "scrape_interval": "1s",
                        "authorization": {"credentials_file": str(tmp_path / "token")},
                        "static_configs": [{"targets": [f"127.0.0.1:{server.port}"]}],
                    }
                ]
            }
        )
    )
    command = [
        prometheus,
        f"--config.file={tmp_path / 'prometheus.yml'}",
        f"--storage.tsdb.path={tmp_path / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=error",
    ]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, cwd=tmp_path)

    def end() -> None:
        process.terminate()
        process.wait(30)
        shutil.rmtree(tmp_path / "data", ignore_errors=True)

    request.addfinalizer(end)

    def value(query: str) -> Callable[[], str]:
        def ask() -> str:
            try:
                asked = urllib.parse.urlencode({"query": query})
                reply = httpx.get(f"http://127.0.0.1:{port}/api/v1/query?{asked}", timeout=20).json()
            except httpx.TransportError:
                return ""
            found = reply["data"]["result"]
            return str(found[0]["value"][1]) if found else ""

        return ask

    assert eventually(value('up{job="flansible"}'), 60) == "1"
    assert eventually(value('flansible_tasks_finished_total{kind="adhoc",state="succeeded"}')) == "1"
    RecordedRun(empty).end()
    eventually(lambda: value('flansible_tasks_finished_total{kind="adhoc",state="succeeded"}')() == "2")


def test_the_flush_interval_is_within_what_the_page_promises() -> None:
    assert FLUSH_SECONDS <= 1.0
