"""Runs to put into a store, and what a worker does with them, without Celery."""

from __future__ import annotations

import itertools
import os
import subprocess
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flansible.config import Settings
from flansible.errors import RunnerError
from flansible.models import AuthorizedRun, Confinement, Secrets, State, Step
from flansible.store import Claim, Store
from flansible.worker import lease_renewal
from flansible.worker.cancel_watcher import Cancellation
from flansible.worker.forkserver_pool import ForkServerPool
from flansible.worker.lease_renewal import Lease
from flansible.worker.outcome import Outcome
from flansible.worker.recorder import MEMORY_BYTES, Recorder
from flansible.worker.sandbox import Sandboxes
from flansible.worker.shutdown import Shutdown
from flansible.worker.store_writer import StoreWriter
from flansible.worker.supervisor import Supervisor
from tests.helpers.waiting import require_program

GRACE_SECONDS = 0.2
CLAIM = "the claim of a test"  # its nonce
_numbers = itertools.count(1)


def new_id() -> str:
    return f"00000000-0000-4000-8000-{next(_numbers):012x}"


def make_run(user: str = "dev", **changes: Any) -> AuthorizedRun:
    step = Step(program="ansible", argv=("--", "localhost"), cwd="/")
    return AuthorizedRun(**{"kind": "adhoc", "user": user, "summary": f"{user}: adhoc", "steps": (step,), **changes})


def token_of(store: Store, task_id: str) -> int:
    """The token of a task's latest claim."""
    return int(store._redis.hget(f"flansible:task:{task_id}", "token") or 0)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Ended:
    """A run that is over, and what the store has of it."""

    outcome: Outcome
    output: bytes
    events: list[dict[str, Any]]
    seconds: float

    @property
    def text(self) -> str:
        return self.output.decode()


class Worker:
    """What a Celery worker does with a task, without Celery."""

    def __init__(self, store: Store, *module: str) -> None:
        """module: what is started as the fork server, if not the real one."""
        self.store = store
        self.fork_servers = ForkServerPool(2, *module)
        self.shutdown = Shutdown()
        self.writer = StoreWriter(store)
        self.timeout_seconds = 60.0
        self.max_output_bytes = 1 << 30
        self.memory_bytes = MEMORY_BYTES
        self.lease: Lease | None = None  # of the latest run, with lease_seconds
        self.lease_seconds: int | None = None

    def run(self, *argv: str, cwd: str = "/", program: str = "ansible") -> Ended:
        return self.run_steps(Step(program=program, argv=argv, cwd=cwd))  # type: ignore[arg-type]

    def run_steps(
        self,
        *steps: Step,
        task_id: str | None = None,
        cancellation: Cancellation | None = None,
        secrets: Secrets | None = None,
        credentials: tuple[str, ...] = (),
    ) -> Ended:
        task_id = task_id or new_id()
        confined = bool(credentials) or any(step.data_only for step in steps)
        confinement = Confinement(readable=()) if confined else None
        self.store.submit(task_id, make_run(steps=steps, confinement=confinement, credentials=credentials))
        claim = self.store.claim(task_id, "worker")
        assert isinstance(claim, Claim)
        recorder = Recorder(task_id, claim, self.max_output_bytes, None, self.writer.wake, self.memory_bytes)
        began = time.monotonic()
        supervisor = Supervisor(
            self.fork_servers,
            recorder,
            self.shutdown,
            self.timeout_seconds,
            GRACE_SECONDS,
            cancellation,
            sandboxes=Sandboxes(Settings(isolation="none")),
            lease=self._begin_lease(recorder),
        )
        with self.writer.serve(recorder):
            try:
                outcome = supervisor.carry_out(claim.run, secrets)
            except RunnerError as error:
                outcome = Outcome(State.ERROR, str(error))
            seconds = time.monotonic() - began
            recorder.finish()
            assert recorder.wait_until_stored(30) or recorder.standing != State.RUNNING
        recorder.close()
        return Ended(outcome, self.output_of(task_id), list(self.store.events(task_id)), seconds)

    def _begin_lease(self, recorder: Recorder) -> Lease | None:
        """A lease that nobody renews, if this worker has any."""
        if self.lease_seconds is None:
            return None
        claim = replace(recorder.claim, lease_seconds=self.lease_seconds)
        self.lease = Lease(recorder.task_id, claim, lease_renewal.now(), recorder.refuse)
        return self.lease

    def output_of(self, task_id: str) -> bytes:
        return self.store.output(task_id, 0, 1 << 30)

    def close(self) -> None:
        self.fork_servers.close()
        # A Shutdown lives as long as its process and has no close of its own.
        os.close(self.shutdown.descriptor)
        os.close(self.shutdown._write_end)


def adhoc(*argv: str, cwd: str = "/", **more: Any) -> Step:
    return Step(program="ansible", argv=argv, cwd=cwd, **more)


def command_line(*argv: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """The same by the command line, output and errors in the order they came."""
    program = require_program(argv[0])
    return subprocess.run(
        [program, *argv[1:]],
        cwd=cwd,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **environ},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )


def temp_dirs(home: Path) -> list[Path]:
    return list(home.glob(".ansible/tmp/ansible-local-*"))
