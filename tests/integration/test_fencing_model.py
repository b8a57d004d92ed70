"""Fencing, tried out: workers, keepers, links, clocks and a Redis that are stopped, cut, put back and set, at random.

What is real: every script, on a real Redis whose clock and run_id are this model's, and the code that renews,
restores, judges and recovers (Store, LeaseRenewal, Lease, Recovery). What is a model: runs, keepers, links and
clocks. Each second every actor acts once; after each act no task has two runs, no lock two holders, and no host of an
exclusive run another run. In the end everything is healed, and every task comes to its end.
docs/architecture/fencing.md has the argument.
"""

from __future__ import annotations

import random
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from hashlib import sha1
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from flansible.broker import app as broker_app
from flansible.broker.recovery import Recovery
from flansible.errors import IllegalMove, StoreUnavailable
from flansible.models import FINAL_STATES, State, Visibility
from flansible.store import HOSTS_NEEDED, Claim, Store
from flansible.store.scripts import SCRIPTS
from flansible.system import process_identity, runner_processes
from flansible.worker import lease_renewal
from flansible.worker.lease_renewal import Lease, LeaseRenewal
from tests.helpers.redis_server import RedisServer
from tests.helpers.runs import make_run, new_id

SLOTS = 2
ORPHAN_SECONDS = 5.0  # a keeper without its supervisor takes so long, and so does this model's
DRIFT = (0.99, 1.0, 1.01)  # how fast the workers' clocks run
INVENTORY = Visibility(inventories=("/inventory",))
HOSTS = [("one",), ("two",), ("one", "two"), ("three",)]


class World:
    """Redis' clock, what is away, and who acts."""

    url = ""

    def __init__(self) -> None:
        self.time = 1_800_000_000.0
        self.clock_error = 0.0
        self.run_id = uuid.uuid4().hex
        self.down = self.frozen = False
        self.actor: Machine | None = None

    def show_clock(self, client: redis.Redis) -> None:
        seconds, rest = divmod(self.time + self.clock_error, 1)
        pipeline = client.pipeline()
        pipeline.delete("test:time")
        pipeline.rpush("test:time", int(seconds), int(rest * 1e6))
        pipeline.set("test:info", f"run_id:{self.run_id}")
        pipeline.execute()


@dataclass(eq=False)
class Running:
    """A run and its keeper. stop_at, kill_at: what the keeper knows; both clocks are the machine's."""

    task_id: str
    claim: Claim
    lease: Lease
    kill_at: float
    hold: Any
    stopped_keeper: bool = False
    executes: bool = True
    orphan_until: float = 0.0


@dataclass(eq=False)
class Machine:
    """A worker's machine. cut: requests ("out") or replies ("in") do not pass."""

    name: str
    rate: float
    cut: str = ""
    frozen: bool = False
    worker_stopped: bool = False
    dead: set[str] = field(default_factory=set)  # names of earlier workers here
    runs: list[Running] = field(default_factory=list)
    orphans: list[Running] = field(default_factory=list)  # of dead workers
    pending: tuple[str, str] | None = None  # a claim whose reply was lost: the task and the nonce
    store: Any = None
    renewal: Any = None
    recovery: Any = None

    def clock(self, world: World) -> float:
        return (world.time - 1_800_000_000.0) * self.rate + 1000


class LinkedStore(Store):
    """A store at the end of a link that may be cut."""

    def __init__(self, world: World, machine: Machine, client: redis.Redis) -> None:
        self.world, self.machine, self.is_linked = world, machine, False
        super().__init__(World.url)
        self._client.close()
        self._client, self.is_linked = client, True

    @property
    def _redis(self) -> redis.Redis:  # type: ignore[override]
        self._pass("out")
        return self._client

    @_redis.setter
    def _redis(self, client: redis.Redis) -> None:
        self._client = client

    def _run(self, name: str, *args: Any) -> Any:
        self._pass("out")
        answer = super()._run(name, *args)
        self._pass("in")
        return answer

    def close(self) -> None:
        self._connections.close()  # the client is shared

    def _pass(self, direction: str) -> None:
        if not self.is_linked:
            return
        if self.machine.cut in (direction, "both") or self.world.frozen:
            raise StoreUnavailable("no answer")
        if self.world.down:
            raise StoreUnavailable("refused", is_away=True)


class Fencing(RuleBasedStateMachine):
    client: redis.Redis

    @initialize(seed=st.integers(0, 2**32))
    def begin(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.world = World()
        self.client.flushall()
        self.world.show_clock(self.client)
        self.tasks: dict[str, tuple[str, ...]] = {}  # with the hosts of each
        self.machines = [Machine(f"worker{number}", DRIFT[number]) for number in range(3)]
        self.web = LinkedStore(self.world, Machine("web", 1.0), self.client)
        for machine in self.machines:
            self.boot(machine)
        PATCHED["world"] = self.world
        self.submit(4, "", "requeue")

    def boot(self, machine: Machine) -> None:
        machine.store = LinkedStore(self.world, machine, self.client)
        machine.renewal = LeaseRenewal(machine.store, SLOTS, leases_length())
        machine.recovery = Recovery(machine.store, lambda: self.world.time)

    # What happens to them

    @rule(
        count=st.integers(1, 4),
        lock=st.sampled_from(["", "", "a"]),
        on_lost=st.sampled_from(["fail", "requeue"]),
        hosts=st.sampled_from(HOSTS),
        exclusive=st.sampled_from([None, None, "hosts"]),
    )
    def submit(
        self,
        count: int,
        lock: str,
        on_lost: str,
        hosts: tuple[str, ...] = ("three",),
        exclusive: str | None = None,
    ) -> None:
        for _ in range(count):
            self.submit_one(lock, on_lost, hosts, exclusive)

    def submit_one(
        self, lock: str, on_lost: str, hosts: tuple[str, ...] = ("three",), exclusive: str | None = None
    ) -> str:
        task_id = new_id()
        locks = (lock,) if lock else ()
        run = make_run(locks=locks, on_lost=on_lost, exclusive=exclusive, visibility=INVENTORY)
        try:
            self.web.submit(task_id, run)
        except StoreUnavailable:
            return task_id
        self.client.zrem("flansible:unsent", task_id)
        self.tasks[task_id] = hosts
        return task_id

    @rule(number=st.integers(0, 2), how=st.sampled_from(["in", "out", "both", ""]))
    def cut(self, number: int, how: str) -> None:
        self.machines[number].cut = how

    @rule(number=st.integers(0, 2), frozen=st.booleans())
    def freeze_machine(self, number: int, frozen: bool) -> None:
        machine = self.machines[number]
        if not self.is_left_alone(machine):  # as the page says
            machine.frozen = frozen
            self.keep(machine)  # when it wakes its keepers act first

    def is_left_alone(self, machine: Machine) -> bool:
        """Whether a run here has a stopped keeper, and a worker that is stopped too, or dead."""
        alone = [*machine.orphans, *(machine.runs if machine.worker_stopped else ())]
        return any(run.stopped_keeper for run in alone)

    @rule(number=st.integers(0, 2), stopped=st.booleans())
    def stop_worker(self, number: int, stopped: bool) -> None:
        if not self.machines[number].frozen:
            self.machines[number].worker_stopped = stopped

    @rule(number=st.integers(0, 2), stopped=st.booleans())
    def stop_keepers(self, number: int, stopped: bool) -> None:
        if not self.machines[number].frozen:
            for run in (*self.machines[number].runs, *self.machines[number].orphans):
                run.stopped_keeper = stopped

    @rule(number=st.integers(0, 2))
    def kill_worker(self, number: int) -> None:
        machine = self.machines[number]
        if not machine.frozen:
            for run in machine.runs:
                run.orphan_until = machine.clock(self.world) + ORPHAN_SECONDS
            machine.dead.add(machine.name)
            machine.orphans += machine.runs
            machine.runs, machine.pending, machine.worker_stopped = [], None, False
            # It is started again at once.
            machine.store.close()
            machine.name = f"worker{number}-{len(machine.dead)}"
            self.boot(machine)

    @rule(away=st.integers(0, 90), put_back=st.booleans())
    def restart_store(self, away: int, put_back: bool) -> None:
        self.submit_one("a", "fail")  # for a claim in the last second
        before = self.dump()
        self.advance(1)
        after = before if put_back else self.dump()
        self.world.down = True
        self.client.flushall()
        self.world.show_clock(self.client)
        self.advance(away)
        self.restore(after)
        self.world.run_id, self.world.down = uuid.uuid4().hex, False
        self.world.show_clock(self.client)

    @rule(seconds=st.integers(1, 90))
    def freeze_store(self, seconds: int) -> None:
        self.world.frozen = True
        self.advance(seconds)
        self.world.frozen = False

    @rule(seconds=st.sampled_from([-3600.0, -30.0, -2.0, 2.0, 30.0, 3600.0]))
    def set_clock_of_redis(self, seconds: float) -> None:
        self.world.clock_error += seconds
        self.advance(10)  # small steps that follow each other at once would be one large step

    @rule(chance=st.integers(0, 2**32))
    def end_a_run(self, chance: int) -> None:
        candidates = [(m, run) for m in self.machines if self.acts(m) for run in m.runs if run.executes]
        if candidates:
            machine, run = random.Random(chance).choice(candidates)
            run.executes = False

    @rule(chance=st.integers(0, 2**32))
    def cancel(self, chance: int) -> None:
        if self.tasks:
            try:
                self.web.cancel(random.Random(chance).choice(sorted(self.tasks)), "dev")
            except StoreUnavailable:
                pass

    @rule(seconds=st.integers(1, 40))
    def wait(self, seconds: int) -> None:
        self.advance(seconds)

    # What they do each second

    def acts(self, machine: Machine) -> bool:
        return not (machine.frozen or machine.worker_stopped)

    def advance(self, seconds: int, serve: bool = True) -> None:
        for _ in range(seconds):
            self.world.time += 1
            self.world.show_clock(self.client)
            for machine in self.chance.sample(self.machines, len(self.machines)):
                if not machine.frozen:
                    self.keep(machine)
                    self.check()
                self.world.actor = machine
                acts = (self.renew, self.serve) if serve else (self.renew,)
                for act in acts if self.acts(machine) else ():
                    act(machine)
                    self.check()
                if not machine.frozen:  # a web process does it as well
                    self.recover(machine)
                    self.check()

    def keep(self, machine: Machine) -> None:
        """The keepers: as late as they may be."""
        moment = machine.clock(self.world)
        for run in (*machine.runs, *machine.orphans):
            due = run.kill_at if not run.orphan_until else min(run.kill_at, run.orphan_until)
            if run.executes and not run.stopped_keeper and moment >= due:
                run.executes = False
            if run.executes and self.acts(machine) and not run.orphan_until and moment >= run.lease.kill_at:
                run.executes = False  # from outside
        machine.orphans = [run for run in machine.orphans if run.executes]

    def renew(self, machine: Machine) -> None:
        machine.renewal.renew()
        for run in machine.runs:
            if not run.stopped_keeper:
                run.kill_at = run.lease.kill_at

    def serve(self, machine: Machine) -> None:
        for run in [run for run in machine.runs if not run.executes]:
            run.lease.is_released = True
            if self.settle(machine.store, run):
                run.hold.__exit__(None, None, None)
                machine.runs.remove(run)
        if len(machine.runs) < SLOTS and machine.renewal.may_claim:
            task_id, nonce = machine.pending or (self.next_task(), uuid.uuid4().hex)
            if task_id:
                self.claim(machine, task_id, nonce)

    def settle(self, store: Store, run: Running) -> bool:
        """As celery_task makes a record final; False when the store is away."""
        try:
            store.settle(run.task_id, State.SUCCEEDED, "done", 0, token=run.claim.token)
        except IllegalMove as error:
            return error.standing != "forgotten" or not self.restores(store, run)
        except StoreUnavailable:
            return False
        return True

    def restores(self, store: Store, run: Running) -> bool:
        try:
            return store.restore(run.task_id, run.claim)
        except StoreUnavailable:
            return True

    def claim(self, machine: Machine, task_id: str, nonce: str) -> None:
        asked_at = machine.clock(self.world)
        try:
            claim = machine.store.claim(task_id, machine.name, nonce, machine.name, leases_length())
            if not isinstance(claim, Claim) and claim.reason == HOSTS_NEEDED:
                # Now and then they cannot be found.
                machine.store.set_hosts(task_id, self.chance.choice([self.tasks[task_id]] * 3 + [None]))
                claim = machine.store.claim(task_id, machine.name, nonce, machine.name, leases_length())
        except StoreUnavailable:
            machine.pending = (task_id, nonce)
            return
        machine.pending = None
        if isinstance(claim, Claim):
            runs: list[Running] = []
            hold = machine.renewal.hold(task_id, claim, asked_at, lambda _: self.end(runs[0]))
            lease = hold.__enter__()
            runs.append(Running(task_id, claim, lease, lease.kill_at, hold))
            runs[0].executes = machine.clock(self.world) < lease.stop_at
            machine.runs.append(runs[0])

    @staticmethod
    def end(run: Running) -> None:
        run.executes = False

    def next_task(self) -> str | None:
        if self.world.down or self.world.frozen:
            return self.chance.choice(sorted(self.tasks)) if self.tasks else None
        queued: Any = self.client.zrange("flansible:tasks:state:queued", 0, -1)
        return self.chance.choice(queued).decode() if queued else None

    def recover(self, machine: Machine) -> None:
        machine.recovery.end_left_runs()
        try:
            machine.recovery.run_round()
        except StoreUnavailable:
            machine.recovery._suspects.clear()

    def check(self) -> None:
        # What is frozen does nothing. When it wakes its keepers act first, within a second.
        awake = [machine for machine in self.machines if not machine.frozen]
        executing = [run for machine in awake for run in (*machine.runs, *machine.orphans) if run.executes]
        tasks = Counter(run.task_id for run in executing)
        assert max(tasks.values(), default=0) <= 1, f"two runs of {tasks.most_common(1)}"
        locks = Counter(lock for run in executing for lock in run.claim.run.locks)
        assert max(locks.values(), default=0) <= 1, f"two holders of {locks.most_common(1)}"
        hosts = Counter(host for run in executing for host in self.tasks[run.task_id])
        alone = {host for run in executing if run.claim.run.exclusive for host in self.tasks[run.task_id]}
        assert all(hosts[host] == 1 for host in alone), f"another run on a host of an exclusive one: {hosts}"

    # Redis' memory

    def dump(self) -> dict[bytes, tuple[bytes, int]]:
        found: Any = self.client.keys("flansible:*")
        return {key: (self.client.dump(key), max(0, self.client.pttl(key))) for key in found}  # type: ignore[misc]

    def restore(self, memory: dict[bytes, tuple[bytes, int]]) -> None:
        self.client.flushall()
        for key, (value, milliseconds) in memory.items():
            if value is not None:
                self.client.restore(key, milliseconds, value)

    def teardown(self) -> None:
        if not hasattr(self, "machines"):
            return
        try:
            self.world.down = self.world.frozen = False
            for machine in self.machines:
                machine.cut, machine.frozen, machine.worker_stopped = "", False, False
                for run in machine.runs:
                    run.stopped_keeper = False
                self.keep(machine)
            for _ in range(60 * len(self.tasks) + 300):
                self.advance(1)
                for machine in self.machines:
                    for run in machine.runs:
                        run.executes = False
                if not self.open_tasks():
                    break
            assert self.open_tasks() == {}
        finally:
            for store in (self.web, *(machine.store for machine in self.machines)):
                store.close()

    def open_tasks(self) -> dict[str, str]:
        pipeline = self.client.pipeline()
        for task_id in self.tasks:
            pipeline.hmget(f"flansible:task:{task_id}", "state", "description")
        rows = zip(self.tasks, pipeline.execute(), strict=True)
        return {task: str(row) for task, row in rows if row[0] and State(row[0].decode()) not in FINAL_STATES}


PATCHED: dict[str, Any] = {}


def leases_length() -> int:
    return 60


@pytest.fixture
def model(shared_redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Fencing]]:
    for name, script in SCRIPTS.items():
        source = script.source.replace("redis.call('TIME')", "redis.call('LRANGE', 'test:time', 0, -1)")
        source = source.replace("redis.call('INFO', 'server')", "redis.call('GET', 'test:info')")
        digest = sha1(source.encode(), usedforsecurity=False).hexdigest()
        monkeypatch.setitem(SCRIPTS, name, replace(script, source=source, digest=digest))

    def is_dead(identity: str) -> bool:
        """As seen from the machine of whoever looks."""
        return identity in PATCHED["world"].actor.dead

    def runs_here() -> list[Running]:
        actor = PATCHED["world"].actor
        return [run for run in (*actor.runs, *actor.orphans) if run.executes]

    def of_worker(identity: str) -> set[int]:
        return {id(run) for run in runs_here() if run.claim.process == identity}

    def kill(pids: set[int]) -> None:
        for run in runs_here():
            run.executes = run.executes and id(run) not in pids

    def resume(pids: set[int]) -> set[int]:
        stopped = [run for run in runs_here() if id(run) in pids and run.stopped_keeper]
        for run in stopped:
            run.stopped_keeper = False
        return {id(run) for run in stopped}

    def tags() -> dict[str, set[int]]:
        return {run.claim.process: of_worker(run.claim.process) for run in runs_here()}

    def is_stopped(identity: str) -> bool:
        actor = PATCHED["world"].actor
        return bool(identity == actor.name and actor.worker_stopped)

    monkeypatch.setattr(lease_renewal, "now", lambda: PATCHED["world"].actor.clock(PATCHED["world"]))
    monkeypatch.setattr(process_identity, "own_identity", lambda: PATCHED["world"].actor.name)
    monkeypatch.setattr(process_identity, "explain_death", lambda identity: "dead" if is_dead(identity) else None)
    monkeypatch.setattr(process_identity, "is_tag_of_dead", is_dead)
    monkeypatch.setattr(process_identity, "is_tag_of_stopped", is_stopped)
    for function in (of_worker, kill, resume, tags):
        monkeypatch.setattr(runner_processes, function.__name__, function)
    monkeypatch.setattr(broker_app, "enqueue", lambda *_, **__: None)
    World.url = shared_redis.url
    Fencing.client = shared_redis.client()
    yield Fencing
    Fencing.client.flushall()
    Fencing.client.close()


def test_no_task_has_two_runs_and_each_comes_to_its_end(model: type[Fencing]) -> None:
    run_state_machine_as_test(model, settings=scaled(40, 30, derandomize=True))


def test_a_claim_that_is_restored_late_takes_no_lock_from_another_run(model: type[Fencing]) -> None:
    """Of one that Redis has lost, its worker cut off until another may have the lock."""
    fencing = model()
    fencing.begin(0)
    first, second, third = (fencing.submit_one("a", "fail") for _ in range(3))
    cut_off, other = fencing.machines[:2]

    def claim(machine: Machine, task_id: str) -> list[Running]:
        fencing.world.actor = machine
        fencing.claim(machine, task_id, uuid.uuid4().hex)
        fencing.check()
        return [run for run in machine.runs if run.task_id == task_id]

    try:
        before = fencing.dump()
        [lost] = claim(cut_off, first)
        cut_off.cut = "both"
        fencing.restore(before)
        fencing.world.run_id = uuid.uuid4().hex
        fencing.advance(90, serve=False)
        assert not lost.executes and claim(other, second)
        cut_off.cut, fencing.world.actor = "", cut_off
        assert not fencing.settle(cut_off.store, lost), "it was forgotten, and is restored"
        assert fencing.settle(cut_off.store, lost)
        assert not claim(other, third), "the second has the lock"
    finally:
        fencing.teardown()


@pytest.mark.nightly
def test_no_task_has_two_runs_in_long_histories(model: type[Fencing]) -> None:
    run_state_machine_as_test(model, settings=scaled(600, 50))


def scaled(examples: int, steps: int, derandomize: bool = False) -> settings:
    """derandomize: the same histories each time, so that a commit is not judged by chance; nightly draws new ones."""
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large]
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=checks,
        database=None,
        derandomize=derandomize,
        # Not made smaller: that takes minutes.
        phases=(Phase.generate,),
    )
