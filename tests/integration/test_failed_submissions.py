"""A submission that fails while Redis is frozen leaves no task, though Redis executes later what it was sent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from flansible.broker import app as broker_app
from flansible.config import Settings
from flansible.errors import BrokerUnavailable, StoreUnavailable
from flansible.store import Store
from flansible.web import create_app
from flansible.web.context import WebContext
from tests.helpers.redis_server import RedisServer
from tests.helpers.waiting import eventually

pytestmark = pytest.mark.usefixtures("broker")

BODY = {"module": "ping", "host_pattern": "localhost"}


class Site:
    """A web process whose records are in a Redis of its own, and the moments at which that is frozen."""

    def __init__(self, app: Flask, redis: RedisServer, chance: pytest.MonkeyPatch) -> None:
        self.client = app.test_client()
        self.context: WebContext = app.extensions["flansible"]
        self._redis = redis
        self._chance = chance

    def post(self, key: str = "key") -> TestResponse:
        headers = {"Idempotency-Key": key}
        return self.client.post("/api/ansiblecommand", json=BODY, headers=headers, auth=("admin", "root"))

    def post_frozen(self) -> TestResponse:
        """Submits, and Redis stands still from when the record is sent to it until the answer was given.

        It must have a connection and know the script: not the first submission.
        """
        submit = Store.submit

        def submit_frozen(store: Store, *arguments: Any) -> object:
            self._redis.freeze()
            return submit(store, *arguments)

        with self._chance.context() as patch:
            patch.setattr(Store, "submit", submit_frozen)
            try:
                return self.post()
            finally:
                self._redis.thaw()

    def tasks(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.client.get("/api/ansibletasks", auth=("admin", "root")).get_json()["tasks"]
        return found


@pytest.fixture
def site(
    make_settings: Callable[..., Settings], own_redis: RedisServer, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Site]:
    settings = make_settings(
        CELERY_BROKER_URL=redis_url, CELERY_RESULT_BACKEND=own_redis.url, audit_stdout=False, isolation="none"
    )
    settings.playbook_root.mkdir()
    settings.rbac_file.write_text('{"rbac": [{"user": "admin", "password": "root"}]}')
    made = Site(create_app(settings), own_redis, monkeypatch)
    yield made
    failed = made.context.failed_submissions
    failed.stop()
    if failed._thread.ident:
        failed._thread.join(10)
    made.context.store.close()


def test_a_task_that_redis_records_after_its_submission_failed_is_deleted(site: Site) -> None:
    first = site.post("another").get_json()["task_id"]
    assert site.post_frozen().status_code == 503
    eventually(lambda: len(site.tasks()) == 2)
    assert {task["state"] for task in site.tasks()} == {"queued"}, "and nobody would ever run it"
    site.context.failed_submissions.start()
    eventually(lambda: [task["task_id"] for task in site.tasks()] == [first], 5)
    again = site.post()
    assert again.status_code == 202, "its idempotency key is free again"
    assert {task["task_id"] for task in site.tasks()} == {first, again.get_json()["task_id"]}


def test_one_that_redis_gets_only_later_is_deleted_too(site: Site) -> None:
    """As what was sent over a link that was cut."""
    failed, clock = site.context.failed_submissions, [0.0]
    failed._clock = lambda: clock[0]
    store = site.context.store
    failed.add("00000000-0000-4000-8000-000000000001")
    failed.tick()
    clock[0] = 120.0
    accepted = site.post("another").get_json()["task_id"]
    late = site.post_frozen()
    assert late.status_code == 503
    eventually(lambda: len(site.tasks()) == 2)
    failed.tick()
    assert [task["task_id"] for task in site.tasks()] == [accepted]
    assert store.discard("00000000-0000-4000-8000-000000000001") is False
    for clock[0] in (131.0, 200.0, 300.0):
        failed.tick()
    assert not failed._due, "in the end they are forgotten"


def test_attempts_are_made_for_two_minutes_after_the_first_answer_and_ten_seconds_apart_at_most(
    site: Site, own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed, clock, asked = site.context.failed_submissions, [0.0], list[float]()
    failed._clock = lambda: clock[0]
    discard = Store.discard

    def noted(store: Store, task_id: str) -> bool:
        is_deleted = discard(store, task_id)
        asked.append(clock[0])
        return is_deleted

    monkeypatch.setattr(Store, "discard", noted)
    failed.add("00000000-0000-4000-8000-000000000001")
    own_redis.freeze()
    failed.tick()
    own_redis.thaw()
    assert asked == []
    for second in range(1000, 1200):
        clock[0] = float(second)
        failed.tick()
    assert asked[0] == 1000.0 and 1130.0 <= asked[-1] <= 1140.0
    assert max(later - earlier for earlier, later in zip(asked, asked[1:], strict=False)) == 10.0


def test_a_task_that_could_be_neither_enqueued_nor_deleted_is_deleted_later(
    site: Site, own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        own_redis.freeze()
        raise BrokerUnavailable("it is away")

    monkeypatch.setattr(broker_app, "enqueue", refuse)
    assert site.post().status_code == 503
    own_redis.thaw()
    assert len(site.tasks()) == 1
    site.context.failed_submissions.tick()
    assert site.tasks() == []


def test_that_a_task_is_on_the_queue_is_noted_when_the_store_answers_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ended as an error after ten minutes of busy workers, though its submission had got 202."""

    def refuse(*_: object) -> None:
        raise StoreUnavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "mark_enqueued", refuse)
        reply = site.post()
    assert reply.status_code == 202
    store = site.context.store
    assert [task.task_id for task in store.oldest_queued(10, was_sent=False)] == [reply.get_json()["task_id"]]
    site.context.failed_submissions.tick()
    assert store.oldest_queued(10, was_sent=False) == []
