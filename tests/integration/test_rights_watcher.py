"""A changed rbac.json cancels what it would refuse now, seen with a real Redis, by one web process and by several."""

from __future__ import annotations

import contextlib
import io
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from flansible.audit import verify
from flansible.authorization import authorize
from flansible.authorization.isolation import Isolation
from flansible.config import Settings
from flansible.models import AdhocRequest, AuthorizedRun, GitRequest, Kind, PlaybookRequest, State, TaskStatus
from flansible.store import Claim, Store
from flansible.web import create_app
from flansible.web.context import WebContext
from flansible.web.rights_watcher import RightsWatcher
from tests.helpers.redis_server import RedisServer
from tests.helpers.runs import make_run, new_id
from tests.helpers.waiting import eventually
from tests.helpers.webserver import DEV, WebServer

pytestmark = pytest.mark.usefixtures("broker")

Entry = dict[str, Any]
FULL: Entry = {"inventories": ["dev", "stage"], "writable": ["out"]}
WITHIN_SECONDS = 10  # five, and as many for a busy machine


class Site:
    """The web processes of one machine, and the files that they share."""

    def __init__(self, make_settings: Callable[..., Settings], redis_url: str, **entry: Any) -> None:
        urls = {"CELERY_BROKER_URL": redis_url, "CELERY_RESULT_BACKEND": redis_url, "audit_stdout": False}
        self.settings = make_settings(**urls, isolation="none")
        self.settings.playbook_root.mkdir()
        for name in ("dev", "stage", "prod"):
            (self.settings.base_dir / name).write_text("web1\nweb2\n")
        (self.settings.playbook_root / "site.yml").write_text("- hosts: all\n")
        self.write(dev=FULL | entry)
        self._apps: list[Flask] = []
        self.watchers: list[RightsWatcher] = []
        self.begin()

    def write(self, in_groups: dict[str, Entry] | None = None, **entries: Entry) -> None:
        """Replaces rbac.json: admin and these users, and groups."""
        users = [{"user": "admin", "password": "root"}]
        users += [{"user": name, "password": "secret", **entry} for name, entry in entries.items()]
        groups = [{"name": name, **entry} for name, entry in (in_groups or {}).items()]
        new = self.settings.base_dir / "new"
        new.write_text(json.dumps({"rbac": users, "groups": groups}))
        new.replace(self.settings.rbac_file)

    def begin(self) -> RightsWatcher:
        """Begins a web process, and has it look at rbac.json once."""
        self._apps.append(create_app(self.settings))
        watcher = RightsWatcher(self.context)
        self.watchers.append(watcher)
        watcher.tick()
        return watcher

    @property
    def context(self) -> WebContext:
        found: WebContext = self._apps[-1].extensions["flansible"]
        return found

    @property
    def client(self) -> FlaskClient:
        return self._apps[-1].test_client()

    @property
    def store(self) -> Store:
        return self.context.store

    def submit(self, user: str = "dev", kind: Kind = "adhoc", **fields: Any) -> str:
        """Records a task that the user may start now."""
        task_id = new_id()
        self.store.submit(task_id, self.authorized(user, kind, **fields))
        return task_id

    def authorized(self, user: str = "dev", kind: Kind = "adhoc", **fields: Any) -> AuthorizedRun:
        given, settings, found = Isolation("none"), self.settings, self.context.rbac.users()[user]
        body = {"inventory": str(settings.base_dir / "dev"), **fields}
        if kind == "adhoc":
            request = AdhocRequest.model_validate({"module": "ping", "host_pattern": "web1", **body})
            return authorize.authorize_adhoc(found, request, settings, given)
        if kind == "playbook":
            play = PlaybookRequest.model_validate({"playbook": "site.yml", **body})
            return authorize.authorize_playbook(found, play, settings, given)
        return authorize.authorize_git(found, GitRequest(playbook_dir="."), settings)

    def claim(self, task_id: str) -> None:
        assert isinstance(self.store.claim(task_id, "worker"), Claim)

    def status(self, task_id: str) -> TaskStatus:
        found = self.store.task(task_id)
        assert found is not None
        return found

    def requests(self, *task_ids: str) -> dict[str, str]:
        return self.store.cancel_requests(list(task_ids))

    def log(self, *events: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.settings.audit_file.read_text().splitlines()]
        return [line for line in lines if line["event"] in events]

    def close(self) -> None:
        for watcher in self.watchers:
            watcher.stop()
            if watcher._thread.ident:
                watcher._thread.join(10)
        for app in self._apps:
            app.extensions["flansible"].store.close()


@pytest.fixture
def site(make_settings: Callable[..., Settings], redis_url: str) -> Iterator[Site]:
    made = Site(make_settings, redis_url)
    yield made
    made.close()


LOST: dict[str, tuple[Kind, Entry | None, str]] = {
    "the account": ("adhoc", None, "rights_lost"),
    "the role": ("adhoc", FULL | {"role": "viewer"}, "role_forbidden"),
    "the inventory": ("adhoc", FULL | {"inventories": ["stage"]}, "inventory_forbidden"),
    "another inventory": ("adhoc", FULL | {"inventories": ["dev"]}, "rights_lost"),
    "the module": ("adhoc", FULL | {"modules": ["setup"]}, "module_forbidden"),
    "the host": ("adhoc", FULL | {"hosts": ["web2"]}, "host_forbidden"),
    "the playbook": ("playbook", FULL | {"playbooks": ["other/*"]}, "playbook_forbidden"),
    "a writable folder": ("playbook", {"inventories": ["dev", "stage"]}, "rights_lost"),
    "git": ("git", FULL | {"git": False}, "git_forbidden"),
}


@pytest.mark.by_day(4)
@pytest.mark.parametrize("name", LOST)
def test_what_a_changed_rbac_json_would_refuse_is_canceled_queued_or_running(site: Site, name: str) -> None:
    kind, after, code = LOST[name]
    others = {"ops": {"inventories": ["dev"]}}
    site.write(dev=FULL, **others)
    site.watchers[0].tick()
    queued, running = site.submit(kind=kind), site.submit(kind=kind)
    own, ops = site.submit("admin"), site.submit("ops")
    for task_id in (running, ops):
        site.claim(task_id)
    site.write(**({"dev": after} if after else {}), **others)
    site.watchers[0].tick()
    assert site.status(queued).state is State.CANCELED
    assert site.status(queued).description == f"canceled by rbac.json ({code}) before it started"
    assert site.requests(running, own, ops) == {running: f"rbac.json ({code})"}
    assert site.status(own).state is State.QUEUED
    lines = site.log("cancel")
    assert {(line["task_id"], line["user"], line["code"], line["outcome"]) for line in lines} == {
        (task_id, "rbac.json", code, "canceled") for task_id in (queued, running)
    }
    assert len(lines) == 2 and all("dev: " in line["what"] for line in lines)


OPS: Entry = {"inventories": ["prod"], "playbooks": ["site.yml"]}
# The groups after the change, those that dev is in then, and the code of the refusal; '': none.
GROUPS: dict[str, tuple[dict[str, Entry], list[str], str]] = {
    "dev leaves the group": ({"ops": OPS}, [], "rights_lost"),
    "the group is removed": ({}, [], "rights_lost"),
    "a user gets its name": ({"web": OPS}, ["web"], "rights_lost"),
    "the group loses the playbook": ({"ops": OPS | {"playbooks": []}}, ["ops"], "playbook_forbidden"),
    "the group loses the inventory": ({"ops": OPS | {"inventories": ["stage"]}}, ["ops"], "inventory_forbidden"),
    "the group has other hosts": ({"ops": OPS | {"hosts": ["web1"]}}, ["ops"], "rights_lost"),
    "another group is added": ({"ops": OPS, "web": {}}, ["ops", "web"], ""),
}


@pytest.mark.by_day(3)
@pytest.mark.parametrize("name", GROUPS)
def test_what_a_group_allowed_ends_with_the_group_and_nothing_else_does(site: Site, name: str) -> None:
    groups, member_of, code = GROUPS[name]
    site.write(dev=FULL | {"groups": ["ops"]}, pat={"groups": ["ops"]}, in_groups={"ops": OPS})
    site.watchers[0].tick()
    prod = str(site.settings.base_dir / "prod")
    queued, running, other = (site.submit(user, "playbook", inventory=prod) for user in ("dev", "dev", "pat"))
    own = site.submit(kind="playbook")
    for task_id in (running, own):
        site.claim(task_id)
    assert site.status(queued).state is State.QUEUED
    kept = {"groups": ["ops"]} if "ops" in groups else {"inventories": ["prod"]}
    site.write(dev=FULL | {"groups": member_of}, pat=kept, in_groups=groups)
    site.watchers[0].tick()
    assert site.status(queued).state is (State.CANCELED if code else State.QUEUED)
    assert site.requests(running, own) == ({running: f"rbac.json ({code})"} if code else {})
    is_unchanged = groups.get("ops") == OPS
    assert site.status(other).state is (State.QUEUED if is_unchanged else State.CANCELED)
    lost = [line["what"].partition(":group:")[0] for line in site.log("rights_lost")]
    assert ("dev" in lost) == (code == "rights_lost" or code == "inventory_forbidden")


def test_the_workers_get_to_know_the_rights_of_each_entry(site: Site) -> None:
    site.write(dev=FULL | {"groups": ["ops"]}, in_groups={"ops": OPS})
    site.watchers[0].tick()
    found = site.store.rights()
    assert set(found) == {"admin", "dev", "dev:group:ops"}
    own, ops = found["dev"].confinement, found["dev:group:ops"].confinement
    assert own is not None and ops is not None
    assert ops.readable == (str(site.settings.base_dir / "prod"),) and not set(ops.readable) & set(own.readable)


@pytest.mark.parametrize(
    "after",
    [FULL | {"password": "another"}, FULL | {"inventories": ["dev", "stage", "prod"]}, FULL | {"modules": ["ping"]}],
    ids=["a new password", "more", "what it does not use"],
)
def test_what_would_be_allowed_now_goes_on(site: Site, after: Entry) -> None:
    queued, running = site.submit(), site.submit()
    site.claim(running)
    site.write(dev=after)
    site.watchers[0].tick()
    assert site.status(queued).state is State.QUEUED and site.requests(running) == {}
    assert site.log("cancel", "rights_lost") == []


def test_a_broken_rbac_json_cancels_nothing(site: Site) -> None:
    task_id = site.submit()
    site.settings.rbac_file.write_text('{"rbac": [')
    site.watchers[0].tick()
    site.settings.rbac_file.unlink()
    site.watchers[0].tick()
    assert site.status(task_id).state is State.QUEUED


def test_a_playbook_that_is_gone_is_no_lost_right(site: Site) -> None:
    task_id = site.submit(kind="playbook")
    (site.settings.playbook_root / "site.yml").unlink()
    site.write(dev=FULL | {"modules": ["ping"]})
    site.watchers[0].tick()
    assert site.status(task_id).state is State.QUEUED


def renamed(path: Path, text: str) -> None:
    new = path.with_name("new")
    new.write_text(text)
    new.replace(path)


def in_place(path: Path, text: str) -> None:
    with path.open("r+") as file:
        file.write(text)
        file.truncate()


def link_swapped(path: Path, text: str) -> None:
    (path.parent / "version2").mkdir()
    (path.parent / "version2/rbac.json").write_text(text)
    link = path.parent / "link"
    link.symlink_to("version2/rbac.json")
    link.replace(path)


def with_the_same_size_and_mtime(path: Path, text: str) -> None:
    before = path.stat()
    in_place(path, text.ljust(before.st_size))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


@pytest.mark.parametrize("replace", [renamed, in_place, link_swapped, with_the_same_size_and_mtime])
def test_no_request_is_needed_however_the_file_is_replaced(site: Site, replace: Callable[[Path, str], None]) -> None:
    task_id = site.submit()
    site.watchers[0].start()
    path = site.settings.rbac_file
    text = json.dumps({"rbac": [{"user": "admin", "password": "root"}]})
    assert len(text) < path.stat().st_size
    replace(path, text)
    eventually(lambda: site.status(task_id).state is State.CANCELED, WITHIN_SECONDS)


def test_of_several_processes_that_see_the_change_at_once_one_writes_each_line(site: Site) -> None:
    for _ in range(3):
        site.begin()
    queued = [site.submit() for _ in range(20)]
    running = [site.submit() for _ in range(5)]
    for task_id in running:
        site.claim(task_id)
    site.write(dev=FULL | {"inventories": ["stage"]})
    together = threading.Barrier(len(site.watchers))

    def look(watcher: RightsWatcher) -> None:
        together.wait(10)
        watcher.tick()

    with ThreadPoolExecutor(len(site.watchers)) as pool:
        list(pool.map(look, site.watchers))
    assert sorted(line["task_id"] for line in site.log("cancel")) == sorted(queued + running)
    assert len(site.log("rights_lost")) == 1
    key = verify.read_key(site.settings.secret_key_file)
    assert isinstance(verify.verify([site.settings.audit_file], site.settings.audit_file, key), verify.Verified)


def test_a_task_that_its_user_has_canceled_gets_no_second_line(site: Site) -> None:
    task_id = site.submit()
    site.claim(task_id)
    site.store.cancel(task_id, "dev")
    site.write()
    site.watchers[0].tick()
    assert site.requests(task_id) == {task_id: "dev"} and site.log("cancel") == []


def test_a_change_while_no_web_process_ran_is_seen_at_the_next_start(site: Site) -> None:
    task_id = site.submit()
    site.write(dev=FULL | {"inventories": ["stage"]})
    site.begin()
    assert site.status(task_id).state is State.CANCELED


def test_a_start_with_the_same_rbac_json_looks_at_no_task(site: Site) -> None:
    """A task that goes beyond its user's rights, as none that was authorized does."""
    wide = site.authorized().model_copy(update={"confinement": None, "user": "ghost"})
    task_id = new_id()
    site.store.submit(task_id, wide)
    site.begin()
    assert site.status(task_id).state is State.QUEUED


def test_tasks_of_a_process_that_sees_the_change_last_are_found_by_that_process(site: Site) -> None:
    """It has accepted them under the rights of before, when another process had looked already."""
    late = site.begin()
    before = site.authorized()
    site.write(dev=FULL | {"inventories": ["stage"]})
    site.watchers[0].tick()
    task_id = new_id()
    site.store.submit(task_id, before)
    site.watchers[0].tick()
    assert site.status(task_id).state is State.QUEUED
    late.tick()
    assert site.status(task_id).state is State.CANCELED


def test_what_a_process_that_died_has_not_looked_at_is_looked_at(site: Site) -> None:
    """It publishes the limits first, and says last that the tasks were looked at."""
    task_id = site.submit()
    site.write(dev=FULL | {"inventories": ["stage"]})

    class Killed(BaseException):
        """As SIGKILL: nothing comes after it."""

    class Dying(RightsWatcher):
        def _check_queued(self, *_: Any) -> None:
            raise Killed

    with pytest.raises(Killed):
        Dying(site.context).tick()
    assert site.status(task_id).state is State.QUEUED and len(site.log("rights_lost")) == 1
    site.begin()
    assert site.status(task_id).state is State.CANCELED and len(site.log("rights_lost")) == 1


def test_a_task_that_is_claimed_or_queued_again_in_that_moment_is_found(site: Site) -> None:
    task_ids = [site.submit(on_lost="requeue") for _ in range(150)]
    site.write(dev=FULL | {"inventories": ["stage"]})
    is_over = threading.Event()

    def move() -> None:
        while not is_over.is_set():
            for task_id in task_ids:
                claim = site.store.claim(task_id, "worker")
                if isinstance(claim, Claim) and claim.attempt < 2:
                    with contextlib.suppress(Exception):
                        site.store.end_lost_run(task_id, "lost", "requeue", claim.attempt, f"claim:{claim.token}")

    mover = threading.Thread(target=move)
    mover.start()
    try:
        site.watchers[0].tick()
    finally:
        is_over.set()
        mover.join()
    left = [task_id for task_id in task_ids if site.status(task_id).state is not State.CANCELED]
    assert set(site.requests(*left)) == set(left)
    assert sorted(line["task_id"] for line in site.log("cancel")) == sorted(task_ids)


def test_a_task_that_starts_between_the_looks_at_running_and_at_queued_ones_is_found(site: Site) -> None:
    task_id = site.submit()

    class Late(RightsWatcher):
        def _check_queued(self, *which: Any) -> None:
            site.claim(task_id)
            super()._check_queued(*which)

    site.write(dev=FULL | {"inventories": ["stage"]})
    Late(site.context).tick()
    assert site.requests(task_id) == {task_id: "rbac.json (inventory_forbidden)"}


def test_a_request_that_is_on_its_way_is_judged_by_the_rights_of_now(site: Site) -> None:
    """The change comes between its login and its record, where the watcher does not find it."""

    class Body(io.BytesIO):
        def _changed(self) -> None:
            site.write(dev=FULL | {"inventories": ["stage"]})
            site.watchers[0].tick()

        def read(self, size: int | None = -1) -> bytes:
            self._changed()
            return super().read(size)

        def readinto(self, buffer: Any) -> int:
            self._changed()
            return super().readinto(buffer)

    sent = {"module": "ping", "host_pattern": "web1", "inventory": str(site.settings.base_dir / "dev")}
    text = json.dumps(sent).encode()
    reply = site.client.post(
        "/api/ansiblecommand",
        input_stream=Body(text),
        content_length=len(text),
        content_type="application/json",
        auth=("dev", "secret"),
    )
    assert (reply.status_code, reply.get_json()["code"]) == (403, "inventory_forbidden")
    assert site.store.tasks(None, None, None, 10).tasks == ()


def test_while_the_store_is_away_nothing_is_forgotten(
    make_settings: Callable[..., Settings], own_redis: RedisServer
) -> None:
    site = Site(make_settings, own_redis.url)
    try:
        task_id = site.submit()
        own_redis.kill()
        site.write(dev=FULL | {"inventories": ["stage"]})
        site.watchers[0].tick()
        own_redis.start()
        site.watchers[0].tick()
        assert site.status(task_id).state is State.CANCELED
    finally:
        site.close()


def test_what_a_store_loses_in_the_second_of_the_change_is_done_again(
    make_settings: Callable[..., Settings], own_redis: RedisServer
) -> None:
    site = Site(make_settings, own_redis.url)
    try:
        task_id = site.submit()
        held = own_redis.client()
        held.config_set("appendfsync", "no")
        held.config_set("appendonly", "no")  # what comes now is not kept
        held.close()
        site.write(dev=FULL | {"inventories": ["stage"]})
        site.watchers[0].tick()
        assert site.status(task_id).state is State.CANCELED
        own_redis.kill()
        site.watchers[0].tick()
        own_redis.start()
        assert site.status(task_id).state is State.QUEUED
        site.watchers[0].tick()
        assert site.status(task_id).state is State.CANCELED
    finally:
        site.close()


def test_rights_that_the_store_has_lost_are_published_again(site: Site, shared_redis: RedisServer) -> None:
    client = shared_redis.client()
    client.flushall()
    client.close()
    assert site.store.rights() == {}
    site.watchers[0].tick()
    assert set(site.store.rights()) == {"admin", "dev"}


def test_a_record_that_cannot_be_read_stops_nothing(site: Site, shared_redis: RedisServer) -> None:
    older, damaged, newer = site.submit(), site.submit(), site.submit()
    client = shared_redis.client()
    client.set(f"flansible:task:{damaged}:run", "{")
    client.close()
    site.write(dev=FULL | {"inventories": ["stage"]})
    site.watchers[0].tick()
    assert [site.status(task_id).state for task_id in (older, damaged, newer)] == ["canceled", "queued", "canceled"]


# The real server


@pytest.fixture
def served(tmp_path: Path, redis_url: str) -> Iterator[WebServer]:
    for name in ("dev", "stage"):
        (tmp_path / name).write_text("web1\n")
    running = WebServer(tmp_path, redis_url, inventories=("dev", "stage"))
    yield running
    running.stop()


def take_away(folder: Path, *inventories: str) -> None:
    path = folder / "rbac.json"
    document = json.loads(path.read_text())
    document["rbac"][1]["inventories"] = list(inventories)
    renamed(path, json.dumps(document))
    path.chmod(0o600)


def test_a_web_server_that_gets_no_request_cancels_within_five_seconds(
    served: WebServer, tmp_path: Path, store: Store
) -> None:
    body = {"module": "ping", "host_pattern": "web1", "inventory": str(tmp_path / "dev")}
    with served.client(DEV) as client:
        task_id = client.post("/api/ansiblecommand", json=body).json()["task_id"]
    take_away(tmp_path, "stage")

    def is_canceled() -> bool:
        task = store.task(task_id)
        return task is not None and task.state is State.CANCELED

    eventually(is_canceled, WITHIN_SECONDS)


def test_very_many_queued_tasks_hold_up_no_request_and_a_running_one_is_found_first(
    served: WebServer, tmp_path: Path, store: Store
) -> None:
    body = {"module": "ping", "host_pattern": "web1", "inventory": str(tmp_path / "dev")}
    with served.client(DEV) as client:
        first = client.post("/api/ansiblecommand", json=body).json()["task_id"]
        assert isinstance(store.claim(first, "worker"), Claim)
        run = store.authorized_run(first)
        assert run is not None
        for number in range(1500):
            store.submit(new_id(), run.model_copy(update={"summary": f"dev: {number}"}))
        take_away(tmp_path, "stage")
        eventually(lambda: store.cancel_requests([first]), WITHIN_SECONDS)
        slowest = 0.0
        give_up_at = time.monotonic() + 120
        while (left := store.count(State.QUEUED)) and time.monotonic() < give_up_at:
            began = time.monotonic()
            assert client.get(f"/api/ansibletaskstatus/{first}").status_code == 200
            slowest = max(slowest, time.monotonic() - began)
            time.sleep(0.02)
        assert left == 0
        assert slowest < 1.0


def test_a_record_of_an_older_version_is_left_to_its_worker(site: Site) -> None:
    task_id = new_id()
    site.store.submit(task_id, make_run("dev"))
    site.write(dev=FULL | {"inventories": ["stage"]})
    site.watchers[0].tick()
    assert site.status(task_id).state is State.QUEUED
