"""Look-ups in projects that take no slot: which thread takes which, and which are left to other workers."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from flansible.models import ProjectRun
from flansible.store import Store
from flansible.worker import project_lookups
from flansible.worker.project_lookups import LookupOrder
from tests.helpers.runs import make_run, new_id
from tests.helpers.waiting import eventually


class Threads:
    """A worker's two threads, whose remote of project `dead` does not answer."""

    def __init__(self, store: Store, url: str) -> None:
        self.store = store
        self.done: list[str] = []
        self.answers = threading.Event()
        self.may_take = True
        self.names: dict[str, str] = {}
        order = LookupOrder(("default",), lambda: self.may_take, self.carry_out)
        self.threads = project_lookups.threads(lambda: Store(url), order)
        for one in self.threads:
            one.start()

    def carry_out(self, task_id: str) -> None:
        if self.names[task_id] == "dead":
            assert self.answers.wait(30)
        self.done.append(self.names[task_id])

    def announce(self, *projects: str) -> None:
        for name in projects:
            task_id = new_id()
            self.names[task_id] = name
            self.store.submit(task_id, make_run(hidden=True, project=ProjectRun(name=name, url="u")))
            self.store.announce_lookup(task_id, "default")

    def close(self) -> None:
        self.answers.set()
        for one in self.threads:
            one.stop()
            one._thread.join(5)
            one._store.close()


@pytest.fixture
def threads(store: Store, redis_url: str) -> Iterator[Threads]:
    made = Threads(store, redis_url)
    yield made
    made.close()


def test_a_remote_that_does_not_answer_leaves_a_thread_for_other_projects(threads: Threads) -> None:
    threads.announce("dead", "dead", "dead", "shop", "lists")
    eventually(lambda: threads.done == ["shop", "lists"])
    threads.answers.set()
    eventually(lambda: threads.done == ["shop", "lists", "dead", "dead", "dead"])


def test_a_worker_that_may_claim_nothing_leaves_them_to_others(threads: Threads) -> None:
    threads.may_take = False
    eventually(lambda: threads.store._redis.info("clients")["blocked_clients"] == 0)
    threads.announce("shop")
    assert threads.store.next_lookup(("default",), 1) is not None and threads.done == []
