"""Tasks that are started without a request: as the POST does it, with what started them and whose rights they have."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from flask import Flask

from flansible.broker import app as broker_app
from flansible.config import Settings
from flansible.errors import BrokerUnavailable, Conflict, Forbidden, InvalidRequest
from flansible.models import AuthorizedRun, Origin, State
from flansible.web import create_app, task_launch
from flansible.web.context import WebContext
from flansible.web.rights_watcher import RightsWatcher
from tests.helpers.redis_server import RedisServer

pytestmark = pytest.mark.usefixtures("broker")

PING = {"module": "ping", "host_pattern": "web1"}
FROM_TEMPLATE = Origin(trigger="schedule", template="deploy", template_digest="d1", run_as="dev")


class Site:
    """One web app over a real store, whose admin and dev may act."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        settings.playbook_root.mkdir(exist_ok=True)
        (settings.base_dir / "dev").write_text("web1\nweb2\n")
        self.write_users(dev={"inventories": ["dev"]}, pat={"inventories": []})
        self.app: Flask = create_app(settings)
        self.context: WebContext = self.app.extensions["flansible"]

    def write_users(self, **entries: dict[str, Any]) -> None:
        users = [{"user": name, "password": "secret", **entry} for name, entry in entries.items()]
        new = self.settings.base_dir / "new"
        new.write_text(json.dumps({"rbac": [{"user": "admin", "password": "root"}, *users]}))
        new.replace(self.settings.rbac_file)

    def body(self, **fields: Any) -> dict[str, Any]:
        return {**PING, "inventory": str(self.settings.base_dir / "dev"), **fields}

    def launch(
        self, user: str = "dev", key: str | None = None, origin: Origin = task_launch.BY_REQUEST, **fields: Any
    ) -> str:
        found = self.context.rbac.users()[user]
        event = task_launch.background_event(user, "a test")
        return task_launch.launch_request(self.context, found, "adhoc", self.body(**fields), event, origin, key).task_id

    def run(self, task_id: str) -> AuthorizedRun:
        found = self.context.store.authorized_run(task_id)
        assert found is not None
        return found

    def log(self, task_id: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.settings.audit_file.read_text().splitlines()]
        return [line for line in lines if line.get("task_id") == task_id]


@pytest.fixture
def site(make_settings: Callable[..., Settings], redis_url: str) -> Iterator[Site]:
    urls = {"CELERY_BROKER_URL": redis_url, "CELERY_RESULT_BACKEND": redis_url, "audit_stdout": False}
    made = Site(make_settings(**urls, isolation="none"))
    yield made
    made.context.store.close()


def test_without_a_request_the_same_task_is_recorded_as_by_its_post(site: Site) -> None:
    sent = site.app.test_client().post("/api/ansiblecommand", json=site.body(check=True), auth=("dev", "secret"))
    assert sent.status_code == 202, sent.text
    assert site.run(site.launch(check=True)) == site.run(sent.get_json()["task_id"])
    refused = [site.body(module_args=5), site.body(nonsense=1), {**site.body(), "host_pattern": "{{ x }}"}]
    for body in refused:
        reply = site.app.test_client().post("/api/ansiblecommand", json=body, auth=("dev", "secret"))
        with pytest.raises((InvalidRequest, Forbidden)) as caught:
            user = site.context.rbac.users()["dev"]
            task_launch.launch_request(site.context, user, "adhoc", body, task_launch.background_event("dev", "a test"))
        assert (caught.value.status, caught.value.code) == (reply.status_code, reply.get_json()["code"])


def test_the_audit_log_says_what_started_it_and_with_whose_rights(site: Site) -> None:
    task_id = site.launch(origin=FROM_TEMPLATE)
    [line] = site.log(task_id)
    assert (line["event"], line["user"], line["request"], line["outcome"]) == ("submission", "dev", "a test", "allowed")
    assert line["what"].endswith("(from template deploy with the rights of dev)")


def test_a_key_of_the_service_starts_one_task_however_the_request_has_changed(site: Site) -> None:
    first = site.launch(key="schedule nightly 1")
    assert site.launch(key="schedule nightly 1", check=True) == first != site.launch(key="schedule nightly 2")
    client = site.launch(key="typed")
    assert site.launch(key="typed") == client
    with pytest.raises(Conflict):
        site.launch(key="typed", check=True)
    with pytest.raises(InvalidRequest):
        task_launch.check_key("schedule nightly 1")


def test_what_cannot_be_enqueued_leaves_no_task(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise BrokerUnavailable("full")

    monkeypatch.setattr(broker_app, "enqueue", refuse)
    with pytest.raises(BrokerUnavailable):
        site.launch()
    assert site.context.store.tasks(None, None, None, 10).tasks == ()


def test_status_and_lists_say_what_started_a_task(site: Site) -> None:
    plain, launched = site.launch(), site.launch(origin=FROM_TEMPLATE)
    client = site.app.test_client()

    def get(path: str) -> Any:
        return client.get(path, auth=("dev", "secret")).get_json()

    assert get(f"/api/ansibletaskstatus/{plain}")["trigger"] == "api"
    assert not {"template", "template_digest", "run_as", "retry_of"} & get(f"/api/ansibletaskstatus/{plain}").keys()
    found = get(f"/api/ansibletaskstatus/{launched}")
    assert {name: found[name] for name in ("trigger", "template", "template_digest", "run_as")} == {
        "trigger": "schedule",
        "template": "deploy",
        "template_digest": "d1",
        "run_as": "dev",
    }
    listed = get("/api/ansibletasks?template=deploy")["tasks"]
    assert [task["task_id"] for task in listed] == [launched] and listed[0]["trigger"] == "schedule"
    assert get("/api/ansibletasks?template=other")["tasks"] == []


def test_a_task_with_the_rights_of_another_is_canceled_when_that_user_loses_them_and_not_its_launcher(
    site: Site,
) -> None:
    users = site.context.rbac.users()
    task_launch_run = task_launch.authorize_request(
        site.context, users["dev"], task_launch.parse_request("adhoc", site.body())
    )
    run = task_launch_run.model_copy(update={"user": "pat", "origin": FROM_TEMPLATE})
    task_id = task_launch.submit(site.context, run, users["dev"], task_launch.background_event("pat", "a test")).task_id
    assert run.principal == "dev" and run.has_rights
    watcher = RightsWatcher(site.context)
    watcher.tick()
    site.write_users(dev={"inventories": ["dev"]}, pat={"inventories": [], "role": "viewer"})
    watcher.tick()
    found = site.context.store.task(task_id)
    assert found is not None and found.state is State.QUEUED
    site.write_users(dev={"inventories": []}, pat={"inventories": []})
    watcher.tick()
    found = site.context.store.task(task_id)
    assert found is not None and found.state is State.CANCELED


def test_a_user_who_has_changed_since_is_judged_by_the_rights_of_now(site: Site) -> None:
    before = replace(site.context.rbac.users()["dev"], role="operator")
    site.write_users(dev={"inventories": ["dev"], "role": "viewer"})
    run = task_launch.authorize_request(site.context, before, task_launch.parse_request("adhoc", site.body()))
    with pytest.raises(Forbidden):
        task_launch.submit(site.context, run, before, task_launch.background_event("dev", "a test"))
    assert site.context.store.tasks(None, None, None, 10).tasks == ()


def test_a_repetition_sends_what_a_process_that_died_has_recorded_and_not_sent(
    site: Site, redis_url: str, shared_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: Any, **__: Any) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(broker_app, "enqueue", die)
        with pytest.raises(SystemExit):
            site.launch(key="one")
    with contextlib.closing(shared_redis.client()) as raw:
        (key,) = raw.keys("flansible:idempotency:*")
        task_id = raw.hget(key, "task").decode()
        with pytest.raises(Conflict):
            site.launch(key="one")
        raw.hset(key, "at", time.time() - 31)
    sent: list[str] = []
    monkeypatch.setattr(broker_app, "enqueue", lambda found, *_, **__: sent.append(found))
    assert [site.launch(key="one"), site.launch(key="one")] == [task_id, task_id]
    assert sent == [task_id]
