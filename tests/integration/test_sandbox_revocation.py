"""A worker ends real sandboxes with more than their user's present rights, whenever it gets to know them."""

from __future__ import annotations

import random
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from flansible.models import Confinement, Rights
from flansible.store import Store
from flansible.worker.sandbox_revocation import SandboxRevocation
from tests.helpers.confined_runs import ConfinedPool, begin, played
from tests.helpers.process_tree import sleeping
from tests.helpers.redis_server import RedisServer
from tests.helpers.waiting import eventually, require_program

GRACE_SECONDS = 1.0


@pytest.fixture
def place() -> Iterator[Path]:
    require_program("bwrap")
    path = Path(tempfile.mkdtemp(prefix="flansible-revoked-"))
    for name in ("playbooks", "one", "two"):
        (path / name).mkdir()
    yield path
    shutil.rmtree(path)


def limits(place: Path, *folders: str, hosts: tuple[str, ...] | None = None) -> Confinement:
    paths = tuple(str(place / folder) for folder in folders)
    return Confinement(readable=paths, inventories=paths, hosts=hosts, lasting_processes=True)


class Watched:
    """A pool whose user has left a process in the sandbox, and what ends it."""

    def __init__(self, store: Store, place: Path, confinement: Confinement, principal: str = "dev") -> None:
        self.store, self.place = store, place
        self.mark = f"{random.randrange(10**6, 10**7)}.25"
        self.pool = ConfinedPool(place, user=principal, confinement=confinement)
        self.busy: set[str] = set()
        self.revocation = SandboxRevocation(store, self.pool, lambda: self.busy, GRACE_SECONDS)
        self.leave()

    def leave(self, folder: str = "playbooks") -> None:
        played(self.pool, self.place, f"setsid nohup sleep {self.mark} >/dev/null 2>&1 &", False, folder)
        eventually(lambda: self.goes_on)  # the shell does not wait until it has begun

    @property
    def goes_on(self) -> bool:
        return bool(sleeping(self.mark))

    def publish(self, **users: Confinement | None) -> None:
        self.store.publish_rights({name: Rights(entry="x", confinement=found) for name, found in users.items()})


@pytest.fixture
def watched(store: Store, place: Path) -> Iterator[Watched]:
    made = Watched(store, place, limits(place, "one", "two", hosts=("web1", "web2")))
    yield made
    made.pool.close()


@pytest.mark.parametrize("lost", ["an inventory", "hosts", "the account", "the role", "lasting processes"])
def test_what_a_user_has_left_ends_with_the_rights(lost: str, watched: Watched, place: Path) -> None:
    both = limits(place, "one", "two", hosts=("web1", "web2"))
    after: dict[str, Confinement | None] = {
        "an inventory": limits(place, "one", hosts=("web1", "web2")),
        "hosts": limits(place, "one", "two", hosts=("web1",)),
        "the role": None,
        "lasting processes": both.model_copy(update={"lasting_processes": False}),
    }
    watched.publish(admin=None, **({} if lost == "the account" else {"dev": after[lost]}))
    watched.revocation.tick()
    eventually(lambda: not watched.goes_on)
    assert watched.pool.sandboxed() == {}
    assert played(watched.pool, place, "echo again").text.count("<<again>>") == 1


def test_a_sandbox_of_a_group_ends_with_that_groups_rights_alone(store: Store, place: Path) -> None:
    """And what the same user has by another entry goes on."""
    own = Watched(store, place, limits(place, "one"))
    ops = Watched(store, place, limits(place, "two"), "dev:group:ops")
    try:
        own.publish(**{"dev": limits(place, "one"), "dev:group:ops": limits(place, "two")})
        for watched in (own, ops):
            watched.revocation.tick()
        assert own.goes_on and ops.goes_on
        own.publish(dev=limits(place, "one", "two"), ops=limits(place, "two"))
        for watched in (own, ops):
            watched.revocation.tick()
        eventually(lambda: not ops.goes_on)
        assert own.goes_on
    finally:
        own.pool.close()
        ops.pool.close()


def test_where_nothing_is_lost_or_known_nothing_ends(watched: Watched, place: Path, shared_redis: RedisServer) -> None:
    watched.revocation.tick()  # nothing was published: an older web process
    watched.publish(dev=limits(place, "one", "two"), ops=None)
    watched.revocation.tick()
    client = shared_redis.client()
    client.flushall()
    client.close()
    watched.revocation.tick()
    assert watched.goes_on and list(watched.pool.sandboxed().values()) == ["dev"]


def test_a_run_gets_its_grace_and_no_more(watched: Watched, place: Path) -> None:
    mark = f"{random.randrange(10**6, 10**7)}.75"
    with begin(watched.pool, place, f"sleep {mark}") as run:
        eventually(lambda: sleeping(mark))
        watched.busy = {"dev"}
        watched.publish(dev=limits(place, "one"))
        began = time.monotonic()
        watched.revocation.tick()
        assert sleeping(mark), "it may end by itself"
        while sleeping(mark) and time.monotonic() - began < 10:
            watched.revocation.tick()
            time.sleep(0.05)
        assert GRACE_SECONDS <= time.monotonic() - began < GRACE_SECONDS + 4
        run.wait()
        assert run.exited is None
    assert not watched.goes_on


def test_a_sandbox_that_runs_of_wider_limits_have_shared_ends_with_those(watched: Watched, place: Path) -> None:
    """Limits on hosts make no other sandbox: the run finds the fork server of an earlier one."""
    before = list(watched.pool.sandboxed())
    watched.pool.confine(limits(place, "one", "two", hosts=("web1", "web2", "web3")))
    watched.leave()
    assert list(watched.pool.sandboxed()) == before
    watched.publish(dev=limits(place, "one", "two", hosts=("web1", "web2")))
    watched.revocation.tick()
    eventually(lambda: not watched.goes_on)


def test_sandboxes_of_earlier_versions_end_too(watched: Watched, place: Path) -> None:
    """Dropped fork servers, of which a process has stayed."""
    watched.pool.confine(limits(place, "one"))
    assert "<<new>>" in played(watched.pool, place, "echo new").text
    assert watched.goes_on and len(watched.pool.sandboxed()) == 2
    watched.publish(dev=limits(place, "one"))
    watched.revocation.tick()
    eventually(lambda: not watched.goes_on)
    assert len(watched.pool.sandboxed()) == 1


def test_stopped_fork_servers_hold_nothing_up(watched: Watched, place: Path) -> None:
    """A user's processes can stop the fork servers of their sandboxes: waiting for each would take minutes."""
    for name in ("a", "b", "c"):  # a fork server each
        (place / "playbooks" / name).mkdir()
        (place / "playbooks" / name / "ansible.cfg").write_text("[defaults]\n")
        watched.leave(f"playbooks/{name}")
    assert len(watched.pool._servers) == 4
    [sandbox] = watched.pool.sandboxed()
    for process in psutil.Process(sandbox.pid).children(recursive=True):
        process.suspend()
    watched.publish(dev=limits(place, "one"))
    began = time.monotonic()
    watched.revocation.tick()
    eventually(lambda: not watched.goes_on)
    assert time.monotonic() - began < 3


def test_a_store_that_is_away_holds_up_no_sandbox_that_must_end(place: Path, own_redis: RedisServer) -> None:
    store = Store(own_redis.url)
    watched = Watched(store, place, limits(place, "one", "two"))
    try:
        watched.busy = {"dev"}
        watched.publish(dev=limits(place, "one"))
        watched.revocation.tick()
        own_redis.kill()
        watched.busy = set()
        watched.revocation.tick()
        eventually(lambda: not watched.goes_on)
    finally:
        watched.pool.close()
        store.close()
