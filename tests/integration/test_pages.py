"""Paging of events, results by host and the task list; and a cancel that waits for the end."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from flansible.config import Settings
from flansible.models import AuthorizedRun, State, Step
from flansible.store import Store
from flansible.web import create_app
from flansible.web.resources import results
from tests.helpers.redis_server import RedisServer
from tests.helpers.runs import new_id
from tests.helpers.waiting import eventually
from tests.helpers.webserver import ADMIN, DEV, RecordedRun, counts, result


@pytest.fixture(scope="module")
def app(shared_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    base = tmp_path_factory.mktemp("pages")
    users = [{"user": name, "password": password, "inventories": []} for name, password in (ADMIN, DEV)]
    (base / "rbac.json").write_text(json.dumps({"rbac": users}))
    url = shared_redis.url
    app = create_app(
        Settings(
            CELERY_BROKER_URL=url,
            CELERY_RESULT_BACKEND=url,
            rbac_file=base / "rbac.json",
            secret_key_file=base / "secret.key",
            token_file=base / "tokens.json",
            audit_file=base / "audit.log",
            base_dir=Path(base),
        )
    )
    # Its connections to Redis are there before the first test, and are nobody's leak.
    assert app.test_client().get("/api/ansibletasks", auth=ADMIN).status_code == 200
    yield app
    app.extensions["flansible"].store.close()


@pytest.fixture
def client(app: Flask, store: Store) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def run(store: Store) -> RecordedRun:
    return RecordedRun(store)


def get(client: FlaskClient, path: str, auth: tuple[str, str] = ADMIN, **query: Any) -> dict[str, Any]:
    reply = client.get(path, query_string=query, auth=auth)
    assert reply.status_code == 200, reply.text
    page: dict[str, Any] = reply.get_json()
    return page


def pages(client: FlaskClient, path: str, **query: Any) -> Iterator[dict[str, Any]]:
    """Yields every page, following the Link headers."""
    reply = client.get(path, query_string=query, auth=ADMIN)
    while True:
        assert reply.status_code == 200, reply.text
        yield reply.get_json()
        link = reply.headers.get("Link")
        if link is None:
            return
        assert link.endswith('>; rel="next"')
        reply = client.get(link.removeprefix("<").partition(">")[0], auth=ADMIN)


def refused(reply: TestResponse, field: str) -> bool:
    return reply.status_code == 400 and [item["field"] for item in reply.get_json()["errors"]] == [field]


# Events


def test_pages_of_events_put_together_are_all_of_them_and_the_last_says_so(
    client: FlaskClient, run: RecordedRun
) -> None:
    run.write(b"", *(result(f"h{number}") for number in range(7)))
    run.end()
    found = list(pages(client, run.events_path, limit=3))
    assert [[event["seq"] for event in page["events"]] for page in found] == [[1, 2, 3], [4, 5, 6], [7, 8]]
    assert [page["next_after"] for page in found] == [3, 6, 8]
    assert [page["final"] for page in found] == [False, False, True]
    assert get(client, run.events_path, after=8) == {**found[2], "events": []}


def test_a_page_of_a_task_that_goes_on_is_not_final_and_links_to_what_comes(
    client: FlaskClient, run: RecordedRun
) -> None:
    run.write(b"", result("a"))
    reply = client.get(run.events_path, query_string={"host": "a", "limit": 5}, auth=ADMIN)
    assert reply.get_json()["final"] is False
    assert reply.headers["Link"] == f'<{run.events_path}?host=a&limit=5&after=1>; rel="next"'


def test_an_event_has_no_field_that_is_null(client: FlaskClient, run: RecordedRun) -> None:
    run.write(b"", result("a", nothing=None), counts(a=1))
    run.end()
    host_result, stats, final = get(client, run.events_path)["events"]
    for event in (host_result, stats, final):
        assert None not in event.values() and {"seq", "event", "output_start", "output_end"} <= event.keys()
    assert host_result["result"] == {"changed": False, "nothing": None}
    assert "host" not in final and "state" not in host_result


@pytest.mark.parametrize(
    ("query", "seqs"),
    [
        ({"host": "b"}, [2, 5]),
        ({"verdict": "failed"}, [2, 4]),
        ({"verdict": "failed,unreachable"}, [2, 4, 5]),
        ({"host": "b", "verdict": "failed"}, [2]),
        ({"host": "b", "after": "2"}, [5]),
        ({"host": "nobody"}, []),
        ({"verdict": "rescued"}, []),
        ({"verdict": "failed", "limit": "1", "after": "2"}, [4]),
    ],
)
def test_filters_leave_out_all_else(
    client: FlaskClient, run: RecordedRun, query: dict[str, str], seqs: list[int]
) -> None:
    run.write(b"", result("a"), result("b", "failed"), result("c"), result("a", "failed"), result("b", "unreachable"))
    run.end()
    found = list(pages(client, run.events_path, **query))
    assert [event["seq"] for page in found for event in page["events"]][: len(seqs)] == seqs
    assert found[-1]["final"] is True and found[-1]["next_after"] == 6


def test_few_among_very_many_are_found_over_several_short_pages(client: FlaskClient, run: RecordedRun) -> None:
    for number in range(12):
        run.write(b"", *(result(f"h{number}-{one}", text="x" * 5000) for one in range(100)))
    run.write(b"", result("last", "failed"))
    run.end()
    found = list(pages(client, run.events_path, verdict="failed"))
    assert 1 < len(found) < 5
    assert [event["host"] for page in found for event in page["events"]] == ["last"]


def test_a_task_that_was_canceled_while_queued_has_one_event_the_final_one(client: FlaskClient, store: Store) -> None:
    task_id = queued(store)
    assert get(client, f"/api/ansibletaskevents/{task_id}") == {
        "task_id": task_id,
        "state": "queued",
        "events": [],
        "next_after": 0,
        "final": False,
    }
    assert cancel(client, task_id).status_code == 200
    page = get(client, f"/api/ansibletaskevents/{task_id}")
    [final] = page["events"]
    assert (final["seq"], final["event"], final["state"]) == (1, "final", "canceled")
    assert (page["final"], page["next_after"]) == (True, 1)


@pytest.mark.parametrize(
    "query",
    ["after=x", "after=-1", "after=9999999999999999", "limit=0", "limit=5001", "wait=61", "wait=nan", "wait=-1"]
    + ["verdict=bad", "verdict=", "verdict=ok,", "verdict=ok&verdict=failed", "host=", "colour=1"],
)
def test_a_bad_query_names_the_field(client: FlaskClient, run: RecordedRun, query: str) -> None:
    assert refused(client.get(f"{run.events_path}?{query}", auth=ADMIN), query.partition("=")[0])


@pytest.mark.parametrize("value", ["x", "-1", "1.5", "9" * 30, "1 2"])
def test_a_bad_last_event_id_names_the_header(client: FlaskClient, run: RecordedRun, value: str) -> None:
    headers = {"Accept": "text/event-stream", "Last-Event-ID": value}
    assert refused(client.get(run.events_path, headers=headers, auth=ADMIN), "Last-Event-ID")
    # Pages have `after`, and no use for it.
    assert refused(client.get(run.events_path, headers={"Last-Event-ID": value}, auth=ADMIN), "Last-Event-ID")
    assert client.get(run.events_path, headers={"Last-Event-ID": "7"}, auth=ADMIN).status_code == 200


# Results


def test_pages_of_results_put_together_are_all_of_them_failures_first(client: FlaskClient, run: RecordedRun) -> None:
    hosts = [f"h{number:02}" for number in range(25)]
    for task in ("one", "two"):
        verdicts = {"h20": "failed", "h07": "ignored"} if task == "two" else {}
        run.write(b"", *(result(host, verdicts.get(host, "ok"), task) for host in hosts))
    run.write(b"", result("dark", "unreachable"), counts(**dict.fromkeys(hosts, 2), dark=0, **{"elsewhere": 1}))
    run.end()
    path = f"/api/ansibletaskresult/{run.task_id}"
    [whole] = pages(client, path)
    found = list(pages(client, path, limit=10))
    assert [len(page["contacted"]) + len(page["dark"]) for page in found] == [10, 10, 6]
    assert list(whole["contacted"])[:2] == ["h20", "h00"] and list(whole["dark"]) == ["dark"]
    assert [item["task"] for item in whole["contacted"]["h20"]] == ["one", "two"]
    assert merged(found, "contacted") == whole["contacted"] and list(merged(found, "contacted")) == list(
        whole["contacted"]
    )
    assert merged(found, "dark") == whole["dark"]
    # Counts stand with their hosts; those without a result, on the last page.
    assert [len(page["stats"]) for page in found] == [10, 10, 7]
    assert merged(found, "stats") == whole["stats"] and len(whole["stats"]) == 27
    assert all(page["custom_stats"] == {"word": 1} for page in found)
    assert [page["next_after"] is None for page in found] == [False, False, True]


def merged(found: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return {host: value for page in found for host, value in page[name].items()}


def test_a_page_is_bounded_in_bytes_too_and_a_host_goes_on_on_the_next(
    client: FlaskClient, run: RecordedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "_PAGE_BYTES", 10_000)
    run.write(b"", *(result("many", "ok", f"t{number}", text="x" * 900) for number in range(40)))
    run.write(b"", *(result(f"other{number}", text="x" * 3000) for number in range(10)))
    run.end()
    found = list(pages(client, f"/api/ansibletaskresult/{run.task_id}"))
    assert len(found) > 5
    assert all(len(json.dumps(page)) < 20_000 for page in found)
    many = [item["task"] for page in found for item in page["contacted"].get("many", [])]
    assert many == [f"t{number}" for number in range(40)]
    assert len(merged(found, "contacted")) == 11


@pytest.mark.parametrize("after", ["", "x", "1", "-1-1", "1-x", "1-1-1", "1" * 30 + "-1", " 1-1"])
def test_a_cursor_that_is_none_names_the_field(client: FlaskClient, run: RecordedRun, after: str) -> None:
    path = f"/api/ansibletaskresult/{run.task_id}"
    assert refused(client.get(path, query_string={"after": after}, auth=ADMIN), "after")


def test_behind_the_last_host_there_is_an_empty_page(client: FlaskClient, run: RecordedRun) -> None:
    run.write(b"", result("a"))
    page = get(client, f"/api/ansibletaskresult/{run.task_id}", after="7-0")
    assert (page["contacted"], page["dark"], page["next_after"]) == ({}, {}, None)


# Output


def test_a_page_of_html_is_bounded_and_leads_to_the_rest(client: FlaskClient, run: RecordedRun) -> None:
    run.write(b"x" * 99 + b"\n", result("a"))
    for _ in range(3):
        run.write((b"y" * 99 + b"\n") * 5000)
    run.end()
    first = client.get(run.output_path, query_string={"format": "html"}, auth=ADMIN)
    offset = first.headers["Flansible-Next-Offset"]
    assert (offset, first.headers["Flansible-Final"]) == (str(1024 * 1024), "false")
    assert f'<a href="?format=html&amp;offset={offset}">' in first.text
    rest = client.get(run.output_path, query_string={"format": "html", "offset": offset}, auth=ADMIN)
    assert (rest.headers["Flansible-Next-Offset"], rest.headers["Flansible-Final"]) == ("1500100", "true")
    assert "href" not in rest.text
    assert (first.text + rest.text).count("y") >= 99 * 15000


# The list


def queued(store: Store, user: str = "admin", kind: str = "adhoc", summary: str = "a run") -> str:
    task_id = new_id()
    step = Step(program="ansible", argv=("--", "localhost"), cwd="/")
    run = AuthorizedRun.model_validate({"kind": kind, "user": user, "summary": summary, "steps": (step,)})
    store.submit(task_id, run)
    return task_id


def test_the_list_filters_by_user_kind_and_text(client: FlaskClient, store: Store) -> None:
    mine = queued(store, "admin", "adhoc", "admin: ping on web1")
    devs = queued(store, "dev", "playbook", "dev: Site.yml in /srv/web")
    third = queued(store, "dev", "git", "dev: update of /srv/web")

    def ids(auth: tuple[str, str] = ADMIN, **query: str) -> list[str]:
        return [task["task_id"] for task in get(client, "/api/ansibletasks", auth, **query)["tasks"]]

    assert ids() == [third, devs, mine]
    assert ids(user="dev") == [third, devs] and ids(user="admin") == [mine] and ids(user="nobody") == []
    assert ids(kind="playbook") == [devs] and ids(kind="git", user="admin") == []
    assert ids(text="site.yml") == [devs] and ids(text="WEB") == [third, devs, mine]
    assert ids(text="web", user="dev", kind="git", state="queued") == [third]
    assert ids(DEV) == ids(DEV, user="dev") == [third, devs]
    assert ids(DEV, text="ping") == []


def test_the_tasks_of_others_are_refused_whether_there_are_any_or_not(client: FlaskClient, store: Store) -> None:
    queued(store, "admin")
    for name in ("admin", "nobody"):
        reply = client.get("/api/ansibletasks", query_string={"user": name}, auth=DEV)
        assert (reply.status_code, reply.get_json()["code"]) == (403, "forbidden")
        assert reply.get_json()["errors"][0]["field"] == "user"


def test_links_lead_through_the_list_with_its_filters(client: FlaskClient, store: Store) -> None:
    wanted = [queued(store, "dev", summary=f"dev: needle {number} & more") for number in range(5)]
    queued(store, "dev")
    found = list(pages(client, "/api/ansibletasks", text="needle", user="dev", limit=2))
    assert [task["task_id"] for page in found for task in page["tasks"]] == wanted[::-1]


def test_a_status_has_its_newer_fields_only_when_they_say_something(client: FlaskClient, store: Store) -> None:
    newer = {"queue_position", "reason", "expected_start", "attempt", "ended"}
    waiting = get(client, f"/api/ansibletaskstatus/{queued(store)}")
    assert newer & waiting.keys() == {"queue_position", "reason"}
    assert waiting["returncode"] is None and waiting["started_at"] is None
    run = RecordedRun(store)
    assert newer & get(client, f"/api/ansibletaskstatus/{run.task_id}").keys() == set()
    store.settle(run.task_id, State.CANCELED, "canceled by admin", ended=("ansible (1)", "sleep (2)"))
    assert get(client, f"/api/ansibletaskstatus/{run.task_id}")["ended"] == ["ansible (1)", "sleep (2)"]
    assert newer & get(client, "/api/ansibletasks")["tasks"][0].keys() == {"ended"}


# Cancel


def cancel(client: FlaskClient, task_id: str, **query: Any) -> TestResponse:
    return client.post(f"/api/ansibletaskcancel/{task_id}", query_string=query, auth=ADMIN)


def test_a_cancel_waits_until_the_run_has_been_ended(client: FlaskClient, store: Store, run: RecordedRun) -> None:
    def worker() -> None:
        by = eventually(lambda: store.cancel_requests([run.task_id]).get(run.task_id))
        store.settle(run.task_id, State.CANCELED, f"canceled by {by}", ended=("ansible (1)",))

    ending = threading.Thread(target=worker)
    ending.start()
    reply = cancel(client, run.task_id, wait=20)
    ending.join()
    assert reply.status_code == 200
    body = reply.get_json()
    assert (body["state"], body["description"], body["ended"]) == ("canceled", "canceled by admin", ["ansible (1)"])
    again = cancel(client, run.task_id)
    assert (again.status_code, again.get_json()) == (200, body)


def test_a_cancel_that_has_waited_long_enough_says_what_goes_on(client: FlaskClient, run: RecordedRun) -> None:
    began = time.monotonic()
    reply = cancel(client, run.task_id, wait=0.2)
    assert 0.2 <= time.monotonic() - began < 5
    assert (reply.status_code, reply.get_json()["state"]) == (202, "running")
    assert reply.get_json()["description"] == "running on worker; admin canceled it, and it is being ended"


def test_a_run_that_ends_in_another_way_meanwhile_was_not_canceled(client: FlaskClient, run: RecordedRun) -> None:
    ending = threading.Timer(0.2, run.end)
    ending.start()
    replies = [cancel(client, run.task_id, wait=20), cancel(client, run.task_id)]
    ending.join()
    for reply in replies:
        assert (reply.status_code, reply.get_json()["code"]) == (409, "task_final")
        assert "succeeded" in reply.get_json()["message"]
    audit_file = client.application.extensions["flansible"].settings.audit_file
    lines = [json.loads(line) for line in audit_file.read_text().splitlines()]
    found = [
        line["event"] for line in lines if line.get("task_id") == run.task_id or run.task_id in line.get("request", "")
    ]
    assert found == ["cancel", "cancel"], "one for each request"


@pytest.mark.parametrize("query", ["wait=-1", "wait=61", "wait=x", "wait=nan", "now=1"])
def test_a_bad_query_of_a_cancel_cancels_nothing(client: FlaskClient, store: Store, query: str) -> None:
    task_id = queued(store)
    reply = client.post(f"/api/ansibletaskcancel/{task_id}?{query}", auth=ADMIN)
    assert refused(reply, query.partition("=")[0])
    assert get(client, f"/api/ansibletaskstatus/{task_id}")["state"] == "queued"
