"""A store on a real Redis, runs to put into it, and what a worker does with them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from flansible.broker import app as broker_app
from flansible.config import Settings
from flansible.identity import users
from flansible.store import Claim, Store
from flansible.web import create_app
from flansible.worker.store_writer import StoreWriter
from tests.helpers.broker import use_broker
from tests.helpers.passwords import CHEAP_HASHES
from tests.helpers.redis_server import RedisServer
from tests.helpers.runs import CLAIM, Worker, make_run, new_id
from tests.helpers.waiting import require_program
from tests.helpers.webserver import ADMIN, WebServer


@pytest.fixture(scope="module", autouse=True)
def _cheap_hashes() -> Iterator[None]:
    """Checking a password takes next to no time in this process; `WebServer` does the same in its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(users, "_OUR_METHOD", CHEAP_HASHES)
        yield


@pytest.fixture
def store(redis_url: str) -> Iterator[Store]:
    store = Store(redis_url)
    yield store
    store.close()


@pytest.fixture(scope="module")
def server(shared_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    """A web server of one process, as `flansible web` starts it. Its threads work on the shared Redis: it must be gone
    when another file comes, whose schedulers would find their leases taken."""
    running = WebServer(tmp_path_factory.mktemp("web"), shared_redis.url)
    yield running
    running.stop()


@pytest.fixture
def make_app(
    make_settings: Callable[..., Settings], redis_url: str, settings_folder: Path
) -> Iterator[Callable[..., Flask]]:
    """Makes web applications in this process, over an empty Redis, for the user admin: without a server and threads."""
    made: list[Flask] = []

    def make(**settings: Any) -> Flask:
        (settings_folder / "playbooks").mkdir(exist_ok=True)
        (settings_folder / "rbac.json").write_text(json.dumps({"rbac": [{"user": ADMIN[0], "password": ADMIN[1]}]}))
        made.append(create_app(make_settings(CELERY_RESULT_BACKEND=redis_url, **settings)))
        return made[-1]

    yield make
    for app in made:
        app.extensions["flansible"].store.close()


@pytest.fixture(scope="module")
def broker(shared_redis: RedisServer) -> None:
    """Has this process publish to the shared Redis. Its connections belong to the process: opened before the first
    test, they are no test's leak."""
    use_broker(Settings(CELERY_BROKER_URL=shared_redis.url, CELERY_RESULT_BACKEND=shared_redis.url))
    broker_app.enqueue("00000000-0000-4000-8000-000000000000", "")


@pytest.fixture
def submitted(store: Store) -> Callable[..., str]:
    """Records a new task and gives its id."""

    def submit(user: str = "dev") -> str:
        task_id = new_id()
        store.submit(task_id, make_run(user))
        return task_id

    return submit


@pytest.fixture
def running(store: Store, submitted: Callable[..., str]) -> Callable[..., str]:
    """Records a new task, claims it and gives its id."""

    def start(user: str = "dev") -> str:
        task_id = submitted(user)
        assert isinstance(store.claim(task_id, "worker", CLAIM), Claim)
        return task_id

    return start


@pytest.fixture
def background() -> Iterator[ThreadPoolExecutor]:
    """Threads for runs that go on while the test does something to them."""
    with ThreadPoolExecutor(8) as pool:
        yield pool


@pytest.fixture(scope="module")
def warm(shared_redis: RedisServer) -> Iterator[Worker]:
    """One warm fork server for all the runs that need no configuration of their own."""
    require_program("ansible")
    store = Store(shared_redis.url)
    worker = Worker(store)
    worker.fork_servers.warm_up("/")
    yield worker
    worker.close()
    store.close()


@pytest.fixture
def ansible(warm: Worker, store: Store) -> Iterator[Worker]:
    """The warm worker with a store of this test's own."""
    before = warm.store, warm.writer
    warm.store, warm.writer = store, StoreWriter(store)
    yield warm
    warm.store, warm.writer = before
    warm.timeout_seconds = 60.0
    warm.lease = warm.lease_seconds = None


@pytest.fixture
def cold(store: Store) -> Iterator[Worker]:
    """A worker whose fork servers the test starts and loses."""
    worker = Worker(store)
    yield worker
    worker.close()
