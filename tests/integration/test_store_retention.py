"""What the store keeps and for how long: by age, by count, by bytes; and that nothing is left of what is forgotten."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import redis

import flansible.store
from flansible.launcher import embedded_redis
from flansible.models import About, RetryPlan, Rights, State, Visibility
from flansible.store import (
    Batch,
    Claim,
    ClaimRefusal,
    ColourMark,
    Idempotency,
    KeptTree,
    KnownCommit,
    ListFilter,
    LoginLimits,
    Progress,
    RemoteState,
    Retention,
    Session,
    Store,
    StoredEvent,
)
from flansible.store.recordings import COLOURS_PER_SEGMENT, SEGMENT_BYTES
from tests.helpers.redis_server import RedisServer
from tests.helpers.runs import make_run, new_id

MONTH_SECONDS = 30 * 86400
USERS = ["dev", "a b", "x succeeded", "ünï", "%S+", "queued", "ops 12", "12", "x lost 12", " ", "a  ", "tasks", "*"]


@pytest.fixture
def raw(shared_redis: RedisServer) -> Iterator[redis.Redis]:
    client = shared_redis.client()
    yield client
    client.close()


@pytest.fixture
def short(redis_url: str) -> Iterator[Store]:
    """A store whose tasks expire as they end."""
    store = Store(redis_url, Retention(days=0))
    yield store
    store.close()


def running(store: Store, user: str = "dev", **changes: Any) -> tuple[str, str]:
    """A new run and its claim."""
    task_id = new_id()
    store.submit(task_id, make_run(user, **changes), b"sealed")
    store.mark_enqueued(task_id)
    claim = store.claim(task_id, "worker")
    assert isinstance(claim, Claim)
    return task_id, claim.token


def ended(store: Store, user: str = "dev", state: State = State.SUCCEEDED, output: bytes = b"") -> str:
    task_id, token = running(store, user)
    if output:
        store.append(task_id, token, Batch(Progress(), output, ()))
    store.settle(task_id, state, "the end", 0, token=token)
    return task_id


def fill(store: Store, task_id: str, token: str) -> None:
    """Output of three segments, colours of two keys, events, hosts and counts."""
    colours = tuple(ColourMark(n, "0") for n in range(COLOURS_PER_SEGMENT + 1))
    events = (StoredEvent('{"n": 1}', "web1"), StoredEvent('{"n": 2}', "web2", True), StoredEvent("{}", is_stats=True))
    store.append(task_id, token, Batch(Progress(), b"x" * (2 * SEGMENT_BYTES + 1), events, colours, 9))


def parts(raw: redis.Redis, task_id: str) -> set[str]:
    prefix = f"flansible:task:{task_id}"
    return {key.decode().removeprefix(prefix) for key in raw.keys(prefix + "*")}


def listed(store: Store, user: str | None = None, state: State | None = None) -> list[str]:
    return [task.task_id for task in store.tasks(user, state, None, 1000).tasks]


def content(raw: redis.Redis, key: bytes) -> Any:
    kind = raw.type(key)
    if kind == b"string":
        return raw.get(key)
    if kind == b"hash":
        return raw.hgetall(key)
    if kind == b"zset":
        return raw.zrange(key, 0, -1)
    return raw.smembers(key) if kind == b"set" else raw.xrange(key)


def mentions(raw: redis.Redis, task_id: str) -> list[bytes]:
    """The keys in whose name or content the task is found, but for the ids that lists are told of for a while."""
    keys = (key for key in raw.keys() if key != b"flansible:listed")
    return [key for key in keys if task_id in key.decode() or task_id in str(content(raw, key))]


# Expiry


def test_everything_of_a_final_task_expires_and_nothing_before(store: Store, raw: redis.Redis) -> None:
    task_id, token = running(store)
    fill(store, task_id, token)
    running_parts = parts(raw, task_id)
    segments = {":output:0", ":output:1", ":output:2", ":colours:0", ":colours:1"}
    assert running_parts == {"", ":run", ":secrets", ":events", ":hosts", ":by_host"} | segments
    assert {raw.ttl(f"flansible:task:{task_id}{part}") for part in running_parts} == {-1}
    store.settle(task_id, State.SUCCEEDED, "", 0)
    assert parts(raw, task_id) == running_parts - {":secrets"}
    for part in parts(raw, task_id):
        assert MONTH_SECONDS - 60 < raw.ttl(f"flansible:task:{task_id}{part}") <= MONTH_SECONDS, part


@pytest.mark.parametrize("size", [0, SEGMENT_BYTES - 1, SEGMENT_BYTES, SEGMENT_BYTES + 1])
def test_the_last_segment_expires_wherever_output_ends(store: Store, raw: redis.Redis, size: int) -> None:
    task_id = ended(store, output=b"x" * size)
    assert all(raw.ttl(f"flansible:task:{task_id}{part}") > 0 for part in parts(raw, task_id))


def test_a_task_that_was_canceled_before_it_ran_expires_too(store: Store, raw: redis.Redis) -> None:
    task_id = new_id()
    store.submit(task_id, make_run(locks=("db",)), b"sealed")
    store.cancel(task_id, "dev")
    assert parts(raw, task_id) == {"", ":run", ":events"}
    assert all(raw.ttl(f"flansible:task:{task_id}{part}") > 0 for part in parts(raw, task_id))


def test_a_task_that_begins_again_does_not_expire(store: Store, raw: redis.Redis) -> None:
    task_id, token = running(store, on_lost="requeue")
    fill(store, task_id, token)
    store.mark_lost(task_id, "killed", token)
    assert {raw.ttl(f"flansible:task:{task_id}{part}") for part in parts(raw, task_id)} == {-1}


def test_what_comes_too_late_does_not_take_the_expiry_away(store: Store, raw: redis.Redis) -> None:
    task_id, token = running(store)
    fill(store, task_id, token)
    store.settle(task_id, State.SUCCEEDED, "", 0)
    store.append(task_id, token, Batch(Progress(), b"late", ()))
    store.mark_enqueued(task_id)
    store.cancel(task_id, "dev")
    store.claim(task_id, "worker")
    store.renew_leases("worker", 1, [(task_id, token)])
    assert all(raw.ttl(f"flansible:task:{task_id}{part}") > 0 for part in parts(raw, task_id))


# Pruning


@pytest.mark.by_day(9)
@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("state", [State.SUCCEEDED, State.TIMED_OUT])
def test_of_what_has_expired_nothing_is_left(
    short: Store, store: Store, raw: redis.Redis, user: str, state: State
) -> None:
    task_id, token = running(short, user)
    fill(short, task_id, token)
    short.settle(task_id, state, "", 0)
    kept = ended(store, user, state)
    assert short.prune() == 1
    assert mentions(raw, task_id) == []
    assert listed(store) == listed(store, user, state) == listed(store, user) == listed(store, None, state) == [kept]
    assert store.count(state) == 1
    assert short.prune() == 0


@pytest.mark.by_day(5)
@pytest.mark.parametrize("user", USERS)
def test_above_the_count_the_oldest_are_forgotten_whole(
    redis_url: str, store: Store, raw: redis.Redis, user: str
) -> None:
    few = Store(redis_url, Retention(tasks=2))
    task_id, token = running(few, user)
    fill(few, task_id, token)
    few.settle(task_id, State.SUCCEEDED, "", 0)
    busy, _ = running(few, user)
    assert few.prune() == 0
    kept = [ended(few, user) for _ in range(2)]
    assert few.prune() == 1
    assert mentions(raw, task_id) == []
    assert listed(store) == [*kept[::-1], busy]
    few.close()


def test_above_the_bytes_the_oldest_are_forgotten(redis_url: str, raw: redis.Redis) -> None:
    small = Store(redis_url, Retention(bytes=2_000_000))
    tasks = [ended(small, output=b"x" * 900_000) for _ in range(5)]
    assert small.prune() == 3
    assert listed(small) == tasks[:2:-1]
    assert [mentions(raw, task_id) for task_id in tasks[:3]] == [[]] * 3
    small.close()


def test_all_that_takes_room_is_counted(store: Store, raw: redis.Redis) -> None:
    """Output, colours and what was submitted, to the byte; events by their text."""
    task_id, token = running(store)
    fill(store, task_id, token)
    store.settle(task_id, State.SUCCEEDED, "", 0)
    strings = [key for key in raw.keys(f"flansible:task:{task_id}:*") if raw.type(key) == b"string"]
    stored = int(raw.get("flansible:stored_bytes") or 0)
    assert stored == sum(raw.strlen(key) for key in strings) + len('{"n": 1}{"n": 2}{}')


def test_what_is_not_final_is_never_forgotten(redis_url: str, raw: redis.Redis) -> None:
    tiny = Store(redis_url, Retention(tasks=1, bytes=1))
    busy, token = running(tiny)
    fill(tiny, busy, token)
    queued = new_id()
    tiny.submit(queued, make_run())
    ended(tiny)
    assert tiny.prune() == 1
    assert listed(tiny) == [queued, busy]
    tiny.close()


def test_a_hundred_are_forgotten_at_once_and_the_rest_when_called_again(short: Store, raw: redis.Redis) -> None:
    """Redis answers nobody else meanwhile."""
    for _ in range(250):
        ended(short)
    assert [short.prune() for _ in range(4)] == [100, 100, 50, 0]
    assert raw.keys("flansible:task*[0-9]") == raw.keys("flansible:expiring") == []


@pytest.mark.parametrize("retention", [Retention(tasks=10), Retention(bytes=1), Retention(days=0)])
def test_of_many_that_prune_at_once_none_forgets_too_much(
    redis_url: str, raw: redis.Redis, retention: Retention
) -> None:
    store = Store(redis_url, retention)
    for _ in range(60):
        ended(store)
    with ThreadPoolExecutor(8) as pool:
        counts = [done.result() for done in [pool.submit(store.prune) for _ in range(8)]]
    assert sum(counts) == 60 - retention.tasks
    stored = raw.get("flansible:stored_bytes")
    assert (int(stored or 0) > 0) == (retention.tasks > 0)
    assert len(listed(store)) == retention.tasks
    store.close()


def test_after_all_is_forgotten_no_bytes_are_counted(redis_url: str, store: Store, raw: redis.Redis) -> None:
    for user in USERS:
        ended(store, user, output=b"x" * 1000)
    assert int(raw.get("flansible:stored_bytes") or 0) > 1000 * len(USERS)
    none = Store(redis_url, Retention(bytes=1))
    assert none.prune() == len(USERS)
    assert int(raw.get("flansible:stored_bytes") or 0) == 0
    none.close()


def test_no_limit_is_no_limit(store: Store) -> None:
    tasks = [ended(store, output=b"x" * 1000) for _ in range(5)]
    assert store.prune() == 0
    assert listed(store) == tasks[::-1]


@pytest.mark.parametrize("user", ["ops", "ops 12", "x succeeded"])
def test_what_version_0_1_0_has_left_is_forgotten_when_it_expires(store: Store, raw: redis.Redis, user: str) -> None:
    """Its members had three words, and its output lay in one key."""
    task_id, kept = "old", ended(store, user)
    indexes = ("tasks", f"tasks:user:{user}", "tasks:state:timed_out", f"tasks:user:{user}:timed_out")
    for index in indexes:
        raw.zadd(f"flansible:{index}", {task_id: 0.5})
    raw.zadd("flansible:expiring", {f"{task_id} {user} timed_out": time.time() - 1, "rubbish": 1, "": 2})
    assert store.prune() == 1
    assert mentions(raw, task_id) == []
    assert listed(store) == listed(store, user) == [kept]
    assert raw.zcard("flansible:expiring") == 1


def test_a_task_that_version_0_1_0_queued_runs_and_ends(store: Store, raw: redis.Redis) -> None:
    task_id, run = new_id(), make_run("ops")
    fields = {"seq": 1, "user": "ops", "kind": "adhoc", "summary": "s", "state": "queued", "description": "d"}
    raw.hset(f"flansible:task:{task_id}", mapping={**fields, "submitted_at": "t", "output_bytes": 0, "events": 0})
    raw.set(f"flansible:task:{task_id}:run", run.model_dump_json(exclude={"locks", "on_lost", "max_running"}))
    for index in ("tasks", "tasks:user:ops", "tasks:state:queued", "tasks:user:ops:queued"):
        raw.zadd(f"flansible:{index}", {task_id: 1})
    assert [task.task_id for task in store.oldest_queued(9)] == [task_id]
    claim = store.claim(task_id, "worker")
    assert isinstance(claim, Claim)
    assert (claim.run, claim.attempt, claim.progress) == (run, 1, Progress())
    colours = (ColourMark(0, "0;32"),)
    store.append(task_id, claim.token, Batch(claim.progress, b"x", (StoredEvent("{}", "web1"),), colours, 1))
    store.settle(task_id, State.SUCCEEDED, "", 0, token=claim.token)
    assert all(raw.ttl(f"flansible:task:{task_id}{part}") > 0 for part in parts(raw, task_id))


def test_a_redis_without_room_can_still_be_pruned(own_redis: RedisServer) -> None:
    store, client = Store(own_redis.url, Retention(tasks=1)), own_redis.client()
    tasks = [ended(store, output=b"x" * 100_000) for _ in range(5)]
    client.config_set("maxmemory", 1)
    assert store.prune() == 4
    client.config_set("maxmemory", 0)
    assert listed(store) == tasks[-1:]
    client.close()
    store.close()


# The table of keys


def table() -> list[tuple[re.Pattern[str], str, str, str]]:
    """The rows that stand at the head of the package: a pattern for the key, its name there, its type and expiry."""
    rows = []
    for line in (flansible.store.__doc__ or "").splitlines():
        if line.startswith("| flansible:"):
            name, kind, _, _, expiry = (cell.strip() for cell in line.strip("|").split("|"))
            pattern = re.escape(name).replace("<n>", r"\d+").replace("<id>", "[0-9a-f-]+").replace("<user>", "[^:]+")
            pattern = pattern.replace("<e>", "(?:user|group):[^:]+")
            rows.append((re.compile(re.sub("<[a-z]+>", ".+", pattern), re.DOTALL), name, kind, expiry))
    return rows


def servers() -> list[str]:
    """Every redis-server of this machine."""
    places = [*os.get_exec_path(), "/usr/bin", "/usr/local/bin"]
    programs = [shutil.which(name, path=place) for place in places for name in ("redis-server", "valkey-server")]
    found = {Path(program).resolve(): program for program in [embedded_redis.find_program(), *programs] if program}
    return list(found.values())


@pytest.fixture(params=servers() or ["none"])
def any_redis(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    if request.param == "none":
        request.getfixturevalue("shared_redis")  # tells that there is none
    server = RedisServer(request.param, persistent=True)
    server.start()
    yield server
    server.remove()


def live(store: Store, few: Store) -> None:
    """Every script, with whatever makes a key."""
    store.check_writes()
    assert store.elect_dispatcher("its process", 30.0)
    assert store.hold_scheduler_lease("token", 6.0)
    store.keep_commit("shop", "https://h/x", "main", KnownCommit("c" * 40, "main", 0.0))
    store.keep_remote_state("shop", RemoteState(0.0))
    store.report_trees("w@host", "shop", [KeptTree("c" * 40, True, 0.0, 0.0, 1)])
    store.announce_lookup(new_id(), "default")
    assert store.count_launch("deploy") == 1
    store.expect_notifications()
    store.publish_rights({"a b": Rights(entry="digest", confinement=None)})
    store.renew_leases("worker", 4, [])
    store._redis.hset("flansible:store", "run_id", "another")
    assert store.runs() == [] and store.awaited_workers() == ["worker"]
    store.renew_leases("worker", 4, [])
    task_id, token = running(store, "a b", locks=("db",), max_running=1, on_lost="requeue")
    waiters = [new_id() for _ in range(3)]
    seen = Visibility(inventories=("/prod",), entries=("group:ops",))
    locked = make_run("c", locks=("db",), visibility=seen)
    store.submit(waiters[0], locked, b"", Idempotency("key", "digest"))
    store.submit(waiters[1], make_run("a b", max_running=1))
    assert store.submit(waiters[2], locked, b"", Idempotency("key", "digest")).outcome == "in_flight"
    assert [isinstance(store.claim(one, "worker"), ClaimRefusal) for one in waiters[:2]] == [True, True]
    assert store.ready_tasks() == ()
    status = store.task(waiters[0])
    assert status is not None and (status.queue_position, status.reason) == (1, f"locked_by: {task_id}")
    alone = new_id()
    store.submit(alone, make_run("c", exclusive="hosts"))
    store.set_hosts(alone, ["web1"])
    assert store.claim(alone, "worker") == ClaimRefusal(f"host_held_by: {task_id}")
    store.cancel(alone, "c")
    store.keep_choices("url x", ["1"], 30)
    assert store.known_choices("url x") == ["1"] and store.ready_tasks() == ()
    fill(store, task_id, token)
    mark = ColourMark(COLOURS_PER_SEGMENT, "0")
    assert store.colours(task_id, COLOURS_PER_SEGMENT, COLOURS_PER_SEGMENT) == [mark]
    assert [event["seq"] for event in store.events(task_id)] == [1, 2, 3]
    assert store.hosts(task_id, 0, 9) == ["web2", "web1"]
    assert [[event["n"] for event in found] for found in store.host_events(task_id, ["web1"], 9, 999)] == [[1]]
    assert [run.task_id for run in store.runs()] == [task_id]
    store.cancel_requests([task_id])
    assert {one.task_id for one in store.mark_lost(task_id, "killed", token).ready} == set(waiters[:2])
    assert [one.task_id for one in store.oldest_queued(9)] == [task_id, *waiters[:2]]
    again = store.claim(task_id, "worker")
    assert isinstance(again, Claim) and again.progress == Progress(
        2 * SEGMENT_BYTES + 1, 65537, 4, 2 * SEGMENT_BYTES + 1
    )
    assert store.cancel(task_id, "ann") is State.RUNNING
    store.settle(task_id, State.CANCELED, "", token=again.token)
    claim = store.claim(waiters[0], "worker")
    assert isinstance(claim, Claim)
    few.settle(waiters[0], State.FAILED, "", 2, token=claim.token)
    store.cancel(waiters[1], "dev")
    found = store.search(ListFilter(kind="adhoc", words="A B: AD"), None, 9)
    assert [task.task_id for task in found.tasks] == [waiters[1], task_id]
    store.report_worker("worker@host", "its process", "")
    assert store.elect_archiver("its process", 30.0) is not None
    assert [record.name for record in store.worker_records()] == ["worker@host"]
    store.remove_worker_record("worker@host", "its process")
    failing = new_id()
    store.submit(failing, make_run("c", retry=RetryPlan(hosts="failed", delay_seconds=9)))
    claim = store.claim(failing, "worker")
    assert isinstance(claim, Claim)
    store.settle(failing, State.FAILED, "", 2, token=claim.token)
    assert store.take_retry(60) is None
    playbook = new_id()
    store.submit(playbook, make_run("c", about=About(playbook="site.yml")))
    claim = store.claim(playbook, "worker")
    assert isinstance(claim, Claim)
    store.append(playbook, claim.token, Batch(Progress(), b"", (StoredEvent("{}", play_task="first"),)))
    store.settle(playbook, State.SUCCEEDED, "", 0, token=claim.token)
    store.keep_while_read([playbook])
    discarded = new_id()
    store.submit(discarded, make_run())
    store.discard(discarded)
    store.remove_worker("worker")
    assert not store.count_failed_login("a stranger", "2001:db8::1", LoginLimits())
    assert store.login_blocked_seconds("a stranger", "2001:db8::1", LoginLimits()) == 0
    store.begin_session("cookie", Session("dev", "csrf", "digest", 0.0), 60)
    assert store.session("cookie", 60) == Session("dev", "csrf", "digest", 0.0)
    assert store.counts("dev", 2).days and store.workers() == [] and store.queued_and_running(None) == (0, 0)


def test_every_key_is_in_the_table_with_its_type_and_its_expiry(any_redis: RedisServer) -> None:
    """On every redis-server of this machine."""
    store, raw = Store(any_redis.url), any_redis.client()
    few, none = Store(any_redis.url, Retention(tasks=1)), Store(any_redis.url, Retention(bytes=1))
    rows = table()
    unseen = {name for _, name, _, _ in rows}

    def look() -> None:
        for key in raw.keys():
            name, kind, expiry = next(row[1:] for row in rows if row[0].fullmatch(key.decode()))
            unseen.discard(name)
            assert raw.type(key).decode() == kind, key
            ttl = raw.ttl(key)
            assert (expiry in ("24 hours", "an hour", "5 minutes", "a minute", "6 seconds")) <= (0 < ttl <= 86400), (
                key,
                ttl,
            )
            assert (expiry in ("none", "pruned", "its end", "10,000")) <= (ttl == -1), (key, ttl)
            if expiry == "retention":
                seconds = MONTH_SECONDS if is_final(key.decode().split(":")[2]) else -1
                assert abs(ttl - seconds) < 60, (key, ttl)

    def is_final(task_id: str) -> bool:
        return store.task(task_id).state not in (State.QUEUED, State.RUNNING)  # type: ignore[union-attr]

    class Watched(Store):
        def _run(self, name: str, *args: Any) -> Any:
            answer = super()._run(name, *args)
            look()
            return answer

    watched = Watched(any_redis.url)
    live(watched, few)
    assert unseen == set()
    few.prune()
    assert len(raw.zrange("flansible:tasks", 0, -1)) == 1
    raw.delete("flansible:reading")
    none.prune()
    left = {key.decode(): raw.ttl(key) for key in raw.keys()}
    assert {key for key, ttl in left.items() if ttl == -1} == {
        "flansible:archiver",
        "flansible:rights",
        "flansible:sequence",
        "flansible:store",
        "flansible:token",
        "flansible:stored_bytes",
        "flansible:durations",
        "flansible:metrics",
        "flansible:dispatcher",
        "flansible:launches",
        "flansible:retries",
        "flansible:notified",
        "flansible:outbox",
        "flansible:outcomes",
        "flansible:task:all",
        "flansible:listed",
    }
    counted = {key: ttl for key, ttl in left.items() if key.startswith("flansible:stats:")}
    assert len(counted) == 3 and all(99 * 86400 < ttl <= 100 * 86400 for ttl in counted.values())
    assert 0 < left.pop(next(key for key in left if key.startswith("flansible:session:"))) <= 60
    short = (
        "flansible:logins:",
        "flansible:stats:",
        "flansible:commit:shop:",
        "flansible:host_set:",
        "flansible:choices:",
        "flansible:lookups:",
    )
    expiring = {key for key, ttl in left.items() if ttl > 0 and not key.startswith(short)}
    assert expiring - {"flansible:scheduler"} == {  # which may be gone after its six seconds
        "flansible:idempotency:c:key",
        "flansible:play_tasks",
        "flansible:checked",
        "flansible:project:shop",
        "flansible:trees:shop",
    }
    assert all(0 < ttl <= 300 for key, ttl in left.items() if key.startswith("flansible:logins:"))
    for one in (store, few, none, watched):
        one.close()
    raw.close()
