"""Leases as their worker and the keepers keep them: runs end in time whoever is stopped, cut off or refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from flansible.models import State, Step
from flansible.store import Claim, Store
from flansible.worker import lease_renewal
from flansible.worker.lease_renewal import Lease, LeaseRenewal, now
from tests.helpers.direct_runs import DirectRun
from tests.helpers.process_tree import keeper_of, new_mark, sleeping
from tests.helpers.redis_server import RedisServer
from tests.helpers.runs import Worker, adhoc, make_run, new_id
from tests.helpers.waiting import eventually


def sleep_step(mark: str) -> Step:
    return adhoc("-m", "ansible.builtin.command", "-a", f"sleep {mark}", "--", "localhost")


def direct(worker: Worker, place: Path, mark: str, stop_in: float, kill_in: float) -> DirectRun:
    argv = ("-m", "ansible.builtin.command", "-a", f"sleep {mark}", "--", "localhost")
    return DirectRun(worker.fork_servers, place, *argv, program="ansible", lease=(now() + stop_in, now() + kill_in))


# The keeper


def test_a_keeper_ends_its_run_at_the_deadline_without_anybodys_word(ansible: Worker) -> None:
    mark = new_mark()
    with direct(ansible, Path("/"), mark, 5.0, 60.0) as run:
        began = now()
        eventually(lambda: sleeping(mark))
        run.wait(30)
        assert run.exited is not None and run.exited["stopped_count"] > 0
        assert now() - began >= 4.9 and not sleeping(mark)


def test_a_keeper_kills_what_is_left_when_the_lease_is_about_to_end(ansible: Worker) -> None:
    """The grace of a request to stop does not last longer than that."""
    mark = new_mark()
    argv = ("-m", "ansible.builtin.shell", "-a", f"trap '' TERM; sleep {mark} & wait; wait", "--", "localhost")
    deadline = now() + 8
    with DirectRun(ansible.fork_servers, Path("/"), *argv, program="ansible", lease=(now() + 60, deadline)) as run:
        eventually(lambda: sleeping(mark))
        run.stop(300.0)
        run.wait(30)
        assert run.exited is not None and not sleeping(mark)
        assert deadline - 0.1 <= now() < deadline + 10


def test_what_ignores_a_request_to_stop_has_its_grace_however_late_the_threads_of_the_run_end(ansible: Worker) -> None:
    """Its first thread ends first: the worker passes to the others, and to the keeper when these have ended."""
    mark = new_mark()
    argv = ("-m", "ansible.builtin.shell", "-a", f"trap '' TERM; sleep {mark} & wait; wait", "--", "localhost")
    with DirectRun(ansible.fork_servers, Path("/"), *argv, program="ansible") as run:
        (sleeper,) = eventually(lambda: sleeping(mark))
        others = [thread.id for thread in psutil.Process(run.pid).threads() if thread.id != run.pid]
        assert others, "such as the one that takes results"
        with busy_processor() as number:
            for thread in others:
                os.sched_setaffinity(thread, {number})
                os.sched_setscheduler(thread, os.SCHED_IDLE, os.sched_param(0))
            run.stop(1.5)
            began = now()
            run.wait(30)
        assert now() - began > 1.4 and not sleeping(mark)
        assert run.exited is not None and sleeper.pid in [ended["pid"] for ended in run.exited["stopped"]]


@contextmanager
def busy_processor() -> Iterator[int]:
    """A processor on which whatever runs only when others do not hardly runs at all."""
    number = min(os.sched_getaffinity(0))
    program = (
        f"import os\nos.sched_setaffinity(0, {{{number}}})\nparent = os.getppid()\nwhile os.getppid() == parent: pass"
    )
    running = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(2)]
    try:
        yield number
    finally:
        for process in running:
            process.kill()
            process.wait()


def test_a_lease_frame_gives_the_run_more_time(ansible: Worker) -> None:
    mark = new_mark()
    with direct(ansible, Path("/"), mark, 4.0, 60.0) as run:
        began = now()
        run.extend(began + 7, began + 60)
        eventually(lambda: sleeping(mark))
        run.wait(30)
        assert now() - began >= 6.9


def test_a_run_whose_lease_is_over_is_not_started_any_more(ansible: Worker) -> None:
    """Its keeper, or the fork server, was stopped before it could fork it."""
    with direct(ansible, Path("/"), new_mark(), -1.0, 1.0) as run:
        run.wait(30)
        assert run.keeper_frames == [] and run.output == b""


# The supervisor


@pytest.fixture
def leased(ansible: Worker, monkeypatch: pytest.MonkeyPatch) -> Worker:
    """A worker with leases of ten seconds, of which a run has five; nobody renews them."""
    monkeypatch.setattr(lease_renewal, "_LEAST_MARGIN_SECONDS", 4.0)
    ansible.lease_seconds = 10
    return ansible


def test_a_run_that_no_renewal_was_granted_for_is_lost_and_says_so(leased: Worker) -> None:
    mark = new_mark()
    ended = leased.run_steps(sleep_step(mark))
    assert leased.lease is not None and now() < leased.lease.stop_at + 4
    assert ended.outcome.state is State.LOST and "store was out of reach" in ended.outcome.description
    assert not sleeping(mark)


def test_a_run_goes_on_for_as_long_as_its_lease_is_renewed(leased: Worker, background: ThreadPoolExecutor) -> None:
    command = adhoc("-m", "ansible.builtin.command", "-a", "sleep 9", "--", "localhost")
    running = background.submit(leased.run_steps, command)
    lease = eventually(lambda: leased.lease)
    assert isinstance(lease, Lease)
    while not running.done():
        lease.extend(now())
        time.sleep(0.2)
    assert running.result().outcome.state is State.SUCCEEDED


def test_a_refused_run_is_killed_at_once(ansible: Worker, background: ThreadPoolExecutor) -> None:
    ansible.lease_seconds, mark = 600, new_mark()
    running = background.submit(ansible.run_steps, sleep_step(mark))
    eventually(lambda: sleeping(mark))
    assert ansible.lease is not None
    ansible.lease.refuse("begun again")
    eventually(lambda: not sleeping(mark), 10)
    assert running.result(20).outcome.state is State.CANCELED


@pytest.mark.parametrize("who", ["keeper", "keeper and fork server"])
def test_a_stopped_keeper_is_killed_by_its_worker_with_all_below_it(
    cold: Worker, background: ThreadPoolExecutor, who: str
) -> None:
    cold.lease_seconds, mark = 600, new_mark()
    running = background.submit(cold.run_steps, sleep_step(mark))
    (sleeper,) = eventually(lambda: sleeping(mark))
    keeper, server = keeper_of(sleeper)
    stopped = [keeper] if who == "keeper" else [keeper, server]
    for process in stopped:
        process.send_signal(signal.SIGSTOP)
    assert cold.lease is not None
    cold.lease.stop_at = 0.0
    ended = running.result(30)
    assert ended.outcome.state is State.LOST and not sleeping(mark)
    assert any("sleep" in name for name in ended.outcome.ended), "and it says what it has killed"
    eventually(lambda: not keeper.is_running() or keeper.status() == psutil.STATUS_ZOMBIE)
    assert cold.run("-m", "ansible.builtin.debug", "--", "localhost").outcome.state is State.SUCCEEDED


# The renewal


@pytest.fixture
def renewal(own_redis: RedisServer) -> Iterator[tuple[LeaseRenewal, Store]]:
    store = Store(own_redis.url, reply_timeout_seconds=0.5)
    yield LeaseRenewal(store, 4, 60), store
    store.close()


def begin(store: Store, process: str = "") -> tuple[str, Claim]:
    task_id = new_id()
    store.submit(task_id, make_run(on_lost="requeue"))
    claim = store.claim(task_id, "worker", process=process)
    assert isinstance(claim, Claim)
    return task_id, claim


def test_a_lease_counts_from_when_it_was_requested_and_ends_before_the_stores(store: Store) -> None:
    task_id, claim = begin(store)
    lease = Lease(task_id, claim, 1000.0, lambda _: None)
    assert (lease.stop_at, lease.kill_at) == (1052.5, 1056.25)
    lease.extend(999.0)
    assert lease.stop_at == 1052.5
    lease.extend(1001.0)
    assert lease.stop_at == 1053.5


def test_only_a_store_that_answers_or_is_known_to_be_away_extends_a_lease(
    renewal: tuple[LeaseRenewal, Store], own_redis: RedisServer
) -> None:
    renewing, store = renewal
    task_id, claim = begin(store)
    with renewing.hold(task_id, claim, now() - 30, lambda _: None) as lease:

        def extends() -> bool:
            lease.stop_at = 0.0
            renewing.renew()
            return lease.stop_at > now() + 40

        assert extends()
        own_redis.freeze()
        assert not extends()
        own_redis.thaw()
        eventually(extends)
        own_redis.kill()
        assert extends()
        own_redis.socket.unlink(missing_ok=True)
        assert extends()
        own_redis.start()
        assert extends()
    assert renewing.count == 0


def test_a_claim_that_the_store_has_lost_is_restored_and_one_it_gave_to_another_is_refused(
    renewal: tuple[LeaseRenewal, Store],
) -> None:
    renewing, store = renewal
    task_id, claim = begin(store)
    refused: list[str] = []
    record = f"flansible:task:{task_id}"
    with renewing.hold(task_id, claim, now(), refused.append):
        store._redis.hset(record, "state", "queued")
        store._redis.hdel(record, "token", "claim")
        renewing.renew()
        task = store.task(task_id)
        assert refused == [] and task is not None and task.state is State.RUNNING
        store.mark_lost(task_id, "silent", claim.token)
        again = store.claim(task_id, "another worker")
        assert isinstance(again, Claim)
        with renewing.hold(task_id, again, now(), refused.append):
            renewing.renew()
            assert refused == ["begun again"], "and a later claim of the same worker is renewed"
    assert [run.token for run in store.runs()] == [again.token]


def test_a_claim_that_an_empty_store_does_not_know_is_refused(
    own_redis: RedisServer, renewal: tuple[LeaseRenewal, Store]
) -> None:
    one, store = renewal
    task_id, claim = begin(store)
    refused: list[str] = []
    with one.hold(task_id, claim, now(), refused.append):
        one.renew()
        client = own_redis.client()
        client.flushall()
        client.close()
        one.renew()
        assert refused == ["missing"]


def test_a_run_that_is_over_is_not_refused(renewal: tuple[LeaseRenewal, Store]) -> None:
    renewing, store = renewal
    task_id, claim = begin(store)
    with renewing.hold(task_id, claim, now(), lambda _: pytest.fail("refused")) as lease:
        lease.is_released = True
        store.settle(task_id, State.SUCCEEDED, "", 0, token=claim.token)
        renewing.renew()
