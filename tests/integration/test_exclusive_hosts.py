"""Runs that want their hosts for themselves: who waits for whom, decided by the claims of real Redis."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis

from flansible.models import ProjectRun, State, Step, TaskStatus, Visibility, inventory_place
from flansible.store import HOSTS_NEEDED, Claim, ClaimRefusal, Store
from flansible.worker import run_hosts
from tests.helpers.redis_server import RedisServer
from tests.helpers.runs import make_run, new_id

PROD = "/srv/prod"


@pytest.fixture
def raw(shared_redis: RedisServer) -> Iterator[redis.Redis]:
    client = shared_redis.client()
    yield client
    client.close()


@pytest.fixture(autouse=True)
def _worker(store: Store) -> None:
    """A live one: what no worker serves holds back nobody."""
    store.renew_leases("worker", 8, [])


def task(
    store: Store,
    *hosts: str,
    exclusive: bool = False,
    inventories: tuple[str, ...] | None = (PROD,),
    is_resolved: bool = True,
    **changes: Any,
) -> str:
    """A queued task; its hosts are recorded if there are some."""
    task_id = new_id()
    found = None if inventories is None else Visibility(inventories=inventories)
    run = make_run(exclusive="hosts" if exclusive else None, visibility=found, **changes)
    store.submit(task_id, run)
    store.mark_enqueued(task_id)
    if is_resolved:
        store.set_hosts(task_id, hosts or None)
    return task_id


def runs(store: Store, task_id: str) -> bool:
    return isinstance(store.claim(task_id, "worker"), Claim)


def reason(store: Store, task_id: str) -> str:
    found = store.claim(task_id, "worker")
    assert isinstance(found, ClaimRefusal), found
    return found.reason


def end(store: Store, task_id: str) -> set[str]:
    return {one.task_id for one in store.settle(task_id, State.SUCCEEDED, "fine", 0).ready}


def status(store: Store, task_id: str) -> TaskStatus:
    found = store.task(task_id)
    assert found is not None
    return found


def test_it_waits_for_a_plain_run_on_one_of_its_hosts_and_says_which(store: Store) -> None:
    plain, alone = task(store, "web1", "db1"), task(store, "web2", "web1", exclusive=True)
    store.set_hosts(plain, ["web1", "db1"])
    assert runs(store, plain)
    assert reason(store, alone) == f"host_held_by: {plain}"
    found = status(store, alone)
    assert (found.reason, found.waiting_host) == (f"host_held_by: {plain}", "web1")
    assert found.description == "waiting for web1: another task runs there, or comes first"
    assert end(store, plain) == {alone}
    assert status(store, alone).waiting_host is None and runs(store, alone)


def test_while_it_runs_others_wait_on_its_hosts_alone_and_all_are_told_of_its_end(store: Store) -> None:
    alone = task(store, "web1", exclusive=True)
    assert runs(store, alone)
    overlapping = [task(store, "web1", f"web{number}") for number in range(2, 140)]
    assert {reason(store, one) for one in overlapping} == {f"host_held_by: {alone}"}
    assert runs(store, task(store, "web2"))
    assert runs(store, task(store, "web1", inventories=("/srv/dev",))), "another machine of that name"
    assert runs(store, task(store, "web200", exclusive=True))
    told = end(store, alone)
    assert len(told) == 100 and all(runs(store, one) for one in told)
    rest = {one.task_id for one in store.ready_tasks()}
    assert told | rest == set(overlapping) and all(runs(store, one) for one in rest)


def test_without_such_a_task_nothing_is_asked_of_a_plain_one(store: Store, raw: redis.Redis) -> None:
    first = task(store, is_resolved=False)
    assert runs(store, first)
    assert not raw.hexists(f"flansible:task:{first}", "host_set") and not raw.exists("flansible:exclusive")
    alone = task(store, is_resolved=False, exclusive=True)
    assert reason(store, alone) == HOSTS_NEEDED
    assert runs(store, task(store, is_resolved=False)), "it does not wait for hosts yet"


def test_a_plain_one_is_asked_for_its_hosts_on_the_same_inventory_only(store: Store) -> None:
    assert runs(store, task(store, "web1", exclusive=True))
    assert reason(store, task(store, is_resolved=False)) == HOSTS_NEEDED
    assert reason(store, task(store, is_resolved=False, inventories=None)) == HOSTS_NEEDED
    assert runs(store, task(store, is_resolved=False, inventories=("/srv/dev", "/srv/other")))
    git = new_id()
    store.submit(git, make_run(kind="git"))
    assert runs(store, git)


@pytest.mark.parametrize("inventories", [("/srv",), ("/srv/prod/web",), ("/srv/dev", "/srv/prod"), None])
def test_an_inventory_that_contains_the_other_is_the_same(store: Store, inventories: tuple[str, ...] | None) -> None:
    alone = task(store, "web1", exclusive=True)
    assert runs(store, alone)
    assert reason(store, task(store, "web1", inventories=inventories)) == f"host_held_by: {alone}"


def test_names_that_begin_alike_are_different_inventories(store: Store) -> None:
    assert runs(store, task(store, exclusive=True))
    for name in ("/srv/production", "/srv/pro", "/", "shop:hosts"):
        assert runs(store, task(store, inventories=(name,))) == (name != "/"), name


def test_projects_inventories_are_compared_below_their_project(store: Store) -> None:
    assert runs(store, task(store, exclusive=True, inventories=("shop:hosts/prod",)))
    expected = {"shop:hosts/prod": False, "shop:.": False, "shop:hosts": False, "shop:hosts/dev": True, "sho:.": True}
    assert {one: runs(store, task(store, inventories=(one,))) for one in expected} == expected


def test_what_cannot_be_found_counts_as_all_of_the_inventory(store: Store) -> None:
    unknown = task(store)
    assert runs(store, unknown)
    alone = task(store, "web1", exclusive=True)
    assert reason(store, alone) == f"host_held_by: {unknown}"
    assert status(store, alone).waiting_host is None
    end(store, unknown)
    assert runs(store, alone)
    everywhere = task(store, exclusive=True)
    assert reason(store, everywhere) == f"host_held_by: {alone}"
    end(store, alone)
    assert runs(store, everywhere)
    assert reason(store, task(store, "web1")) == f"host_held_by: {everywhere}"


def test_a_plain_run_of_before_counts_as_all_of_its_inventory(store: Store) -> None:
    plain = task(store, is_resolved=False)
    assert runs(store, plain)
    assert reason(store, task(store, "web1", exclusive=True)) == f"host_held_by: {plain}"


def test_a_stream_of_plain_runs_does_not_overtake_it(store: Store) -> None:
    earlier, running = task(store, "web1"), task(store, "web1")
    assert runs(store, running)
    alone = task(store, "web1", "web2", exclusive=True)
    later, elsewhere = task(store, "web2"), task(store, "web9")
    assert runs(store, earlier) and runs(store, elsewhere)
    assert reason(store, alone) == f"host_held_by: {earlier}"
    assert reason(store, later) == f"host_held_by: {alone}"
    assert (status(store, later).reason, status(store, later).waiting_host) == (f"host_held_by: {alone}", "web2")
    assert end(store, earlier) == {alone}
    assert reason(store, alone) == f"host_held_by: {running}" and reason(store, later) == f"host_held_by: {alone}"
    assert end(store, running) == {alone}
    assert reason(store, later) == f"host_held_by: {alone}", "told, and not claimed yet"
    assert runs(store, alone) and end(store, alone) == {later} and runs(store, later)


def test_two_of_them_go_in_their_order(store: Store) -> None:
    plain = task(store, "web1")
    assert runs(store, plain)
    first, second = (task(store, "web1", exclusive=True) for _ in range(2))
    assert reason(store, first) == f"host_held_by: {plain}"
    assert reason(store, second) == f"host_held_by: {first}"
    assert end(store, plain) == {first}
    assert reason(store, second) == f"host_held_by: {first}"
    assert runs(store, first) and end(store, first) == {second} and runs(store, second)


def test_of_many_on_one_host_each_end_announces_the_next_one_alone(store: Store) -> None:
    running = task(store, "web1", exclusive=True)
    assert runs(store, running)
    queue = [task(store, "web1", exclusive=True) for _ in range(6)]
    assert {reason(store, one) for one in queue} == {f"host_held_by: {running}"}
    for one in queue:
        assert end(store, running) == {one}, "or each end would have all of them claim"
        assert runs(store, one)
        running = one


def waiting_behind(store: Store, **changes: Any) -> tuple[str, str, str]:
    """A run, an exclusive task that waits for it, and a plain one that waits for that."""
    running = task(store, "web1")
    assert runs(store, running)
    alone, later = task(store, "web1", "web2", exclusive=True, **changes), task(store, "web2")
    assert reason(store, alone) == f"host_held_by: {running}"
    return running, alone, later


def test_one_that_is_canceled_while_it_waits_lets_the_others_go(store: Store) -> None:
    _, alone, later = waiting_behind(store)
    assert reason(store, later) == f"host_held_by: {alone}"
    store.cancel(alone, "dev")
    assert [one.task_id for one in store.ready_tasks()] == [later]
    assert runs(store, later)


def test_one_that_waits_for_its_user_or_a_lock_as_well_holds_back_nobody(store: Store) -> None:
    running, alone, later = waiting_behind(store, user="lee", max_running=1, locks=("a",))
    assert reason(store, later) == f"host_held_by: {alone}"
    other = task(store, "elsewhere", user="lee", max_running=1)
    assert runs(store, other)
    assert end(store, running) == {alone}
    found = store.claim(alone, "worker")
    assert isinstance(found, ClaimRefusal) and found.reason == "user_limit"
    assert [one.task_id for one in found.ready] == [later] and runs(store, later)


def test_one_whose_queue_no_worker_serves_holds_back_nobody(store: Store) -> None:
    _, alone, later = waiting_behind(store, queue="dmz")
    assert runs(store, later), "or it would wait for ever"
    store.renew_leases("other", 1, [], queues=("dmz",))
    assert reason(store, task(store, "web2")) == f"host_held_by: {alone}"
    store.remove_worker("other")
    assert len(store.ready_tasks()) == 1


def test_one_whose_workers_are_busy_is_not_overtaken(store: Store, raw: redis.Redis) -> None:
    running, alone, _ = waiting_behind(store)
    behind = task(store, "web1")
    assert reason(store, behind) == f"host_held_by: {alone}"
    assert end(store, running) == {alone}
    raw.hincrbyfloat(f"flansible:task:{alone}", "told", -31)
    assert store.ready_tasks() == () and reason(store, behind) == f"host_held_by: {alone}"
    assert runs(store, alone) and end(store, alone) == {behind}


def test_one_that_is_lost_and_begins_again_lets_the_others_go(store: Store) -> None:
    alone, plain = task(store, "web1", exclusive=True, on_lost="requeue"), task(store, "web1")
    claim = store.claim(alone, "worker")
    assert isinstance(claim, Claim)
    assert reason(store, plain) == f"host_held_by: {alone}"
    moved = store.mark_lost(alone, "gone", claim.token)
    assert moved.state is State.QUEUED and {one.task_id for one in moved.ready} == {plain}
    assert reason(store, alone) == HOSTS_NEEDED, "its inventory may have changed"
    assert runs(store, plain)


def test_a_claim_that_redis_has_lost_is_restored_with_its_hosts(store: Store, raw: redis.Redis) -> None:
    alone = task(store, "web1", exclusive=True)
    before = {key: raw.dump(key) for key in raw.keys()}
    claim = store.claim(alone, "worker")
    assert isinstance(claim, Claim)
    raw.flushall()
    for key, value in before.items():
        raw.restore(key, 0, value)
    assert store.restore(alone, claim)
    assert reason(store, task(store, "web1")) == f"host_held_by: {alone}"
    assert runs(store, task(store, "web2"))


def test_hosts_that_were_found_long_ago_are_found_again(store: Store, raw: redis.Redis) -> None:
    plain = task(store, "web1")
    alone = task(store, "web1", exclusive=True)
    assert runs(store, plain) and reason(store, alone) == f"host_held_by: {plain}"
    end(store, plain)
    raw.hincrbyfloat(f"flansible:task:{alone}", "hosts_at", -31)
    assert reason(store, alone) == HOSTS_NEEDED
    assert status(store, alone).reason == "starting", "it was told that it may start"
    store.set_hosts(alone, ["web2"])
    assert runs(store, alone)
    stale = task(store, "web9")
    raw.hincrbyfloat(f"flansible:task:{stale}", "hosts_at", -31)
    assert reason(store, stale) == HOSTS_NEEDED
    end(store, alone)
    assert runs(store, stale)
    assert reason(store, task(store, "web1", exclusive=True)) == f"host_held_by: {stale}", "it may be anywhere now"


def test_hosts_whose_set_has_expired_count_as_all(store: Store, raw: redis.Redis) -> None:
    alone = task(store, "web1", exclusive=True)
    assert runs(store, alone)
    [name] = raw.keys("flansible:host_set:*")
    assert 0 < raw.ttl(name) <= 2 * 86400
    raw.delete(name)
    assert reason(store, task(store, "web2")) == f"host_held_by: {alone}"


def test_of_very_many_hosts_tasks_share_one_set_and_too_many_count_as_all(store: Store, raw: redis.Redis) -> None:
    fleet = [f"host{number:05}.example.org" for number in range(3000)]
    before = int(raw.info("memory")["used_memory"])  # type: ignore[index]
    tasks = [task(store, *fleet, exclusive=True) for _ in range(100)]
    assert len(raw.keys("flansible:host_set:*")) == 1
    assert int(raw.info("memory")["used_memory"]) - before < 4_000_000  # type: ignore[index]
    assert runs(store, tasks[0]) and reason(store, tasks[1]) == f"host_held_by: {tasks[0]}"
    assert runs(store, task(store, "another"))
    huge = task(store, *(f"h{number}" for number in range(20_001)))
    assert len(raw.keys("flansible:host_set:*")) == 2
    assert reason(store, huge) == f"host_held_by: {tasks[0]}"


def test_names_that_are_no_text_are_compared_as_bytes(store: Store) -> None:
    odd = "/srv/\udcff\udce9"
    alone = task(store, "\ud800", exclusive=True, inventories=(odd,))
    assert runs(store, alone)
    assert reason(store, task(store, "\ud800", inventories=(odd,))) == f"host_held_by: {alone}"
    assert runs(store, task(store, "\ud800", inventories=("/srv/\udcff",)))


# What a worker makes of a preview


@pytest.mark.parametrize(
    ("cwd", "source", "project", "expected"),
    [
        ("/srv/playbooks", "/etc/ansible/hosts", None, "/etc/ansible/hosts/"),
        ("/srv/playbooks", "web1,web2", None, ","),
        ("/data/t/abc/play", "/data/t/abc/inventories/prod", "shop", "shop:inventories/prod/"),
        ("/data/t/abc/play", "/data/t/abc", "shop", "shop:"),
        ("/data/t/abc/play", "/data/t/abcd/hosts", "shop", "/data/t/abcd/hosts/"),
    ],
)
def test_inventories_that_ansible_found_are_named_as_requests_name_them(
    cwd: str, source: str, project: str | None, expected: str
) -> None:
    folder = "play" if project else cwd
    step = Step(program="ansible", argv=(), cwd=folder)
    named = ProjectRun(name=project, url="u") if project else None
    run = make_run("admin", project=named).model_copy(update={"steps": (step,)})
    assert run_hosts._places(run, {"inventories": [source], "cwd": cwd}) == (expected,)
    assert inventory_place("shop:.") == "shop:"


def test_a_run_that_names_its_inventory_cannot_have_another() -> None:
    plan = {"inventories": ["/srv/other"], "cwd": "/"}
    known = make_run(visibility=Visibility(inventories=(PROD,)))
    assert run_hosts._places(known, plan) is None
