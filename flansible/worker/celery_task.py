"""The Celery task: claims a task by its id, has it supervised, settles the record.

Loaded by Celery in the worker process (`include` in celery_app). The message is an id and receiving it twice is
harmless: whoever loses the claim does nothing.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
import uuid
from dataclasses import dataclass
from typing import Any

from celery import Task
from celery.signals import worker_init, worker_ready, worker_shutdown

from flansible.authorization import isolation
from flansible.broker import recovery
from flansible.broker.app import RUN_TASK, app, settings
from flansible.broker.recovery import Reaper
from flansible.config.ansible_version import require_tested_ansible
from flansible.errors import ConfigurationError, IllegalMove, RunnerError, SealError, StoreUnavailable
from flansible.models import State
from flansible.sealing import Sealer
from flansible.store import Claim, Moved, Refusal, Retention, Store, Woken
from flansible.system import process_identity, rlimits
from flansible.system.ssh_control import ControlMasters
from flansible.worker import celery_revoke, signal_handling
from flansible.worker.cancel_watcher import Cancellation, CancelWatcher
from flansible.worker.forkserver_pool import ForkServerPool
from flansible.worker.lease_renewal import LeaseRenewal
from flansible.worker.outcome import Outcome
from flansible.worker.recorder import Recorder
from flansible.worker.sandbox import Sandboxes
from flansible.worker.shutdown import Shutdown
from flansible.worker.store_writer import StoreWriter
from flansible.worker.supervisor import Supervisor

log = logging.getLogger(__name__)

_SETTLE_RETRY_SECONDS = 1.0
_PROMPT_SECONDS = 2.0
# How long the end of a run may wait for a store that is away before the worker gives up on it.
_STORE_AWAY_SECONDS = 24 * 3600.0
_STOPPING_STORE_AWAY_SECONDS = 2.0
_EXIT_CONFIGURATION = 2  # as every command of ours ends when its configuration must be mended


@dataclass(frozen=True)
class _Parts:
    store: Store
    fork_servers: ForkServerPool
    cancel_watcher: CancelWatcher
    writer: StoreWriter
    leases: LeaseRenewal
    reaper: Reaper
    shutdown: Shutdown
    ssh_masters: ControlMasters | None


_lock = threading.Lock()
_parts: _Parts | None = None
_limits_before: tuple[int, int] | None = None


def _worker() -> _Parts:
    """What the supervisors of this process share; made when first needed, after any fork of the pool."""
    global _parts
    with _lock:
        if _parts is None:
            found = settings()
            retention = Retention(found.retention_days, found.retention_tasks, found.retention_bytes)
            store = Store(found.store_url, retention)
            # Leases are soon too late: whoever speaks for them, or judges them, must not wait long for an answer.
            prompt_store = Store(found.store_url, retention, _PROMPT_SECONDS)
            cancel_watcher = CancelWatcher(store)
            _parts = _Parts(
                store=store,
                fork_servers=ForkServerPool(found.fork_servers, limits=_limits_before),
                cancel_watcher=cancel_watcher,
                writer=StoreWriter(store),
                leases=LeaseRenewal(prompt_store, cancel_watcher.task_ids, found.worker_concurrency),
                reaper=Reaper(prompt_store),
                shutdown=Shutdown(),
                ssh_masters=_ssh_masters(),
            )
            _parts.leases.start()
            _parts.reaper.start()
        return _parts


def _ssh_masters() -> ControlMasters | None:
    found = settings()
    if found.ssh_profile == "default":
        return None
    try:
        return ControlMasters(found.ssh_masters_dir)
    except OSError as error:
        # Runs are slower without; that is no reason to refuse them.
        log.warning("the fast ssh profile is not in use, its directory cannot be made: %s", error)
        return None


@app.task(name=RUN_TASK, bind=True, ignore_result=True)
def run_task(self: Task[Any, Any], task_id: str) -> str:
    """Run the task of this id if nobody else has; returns its final state, for Celery's log."""
    parts = _worker()
    claim = _claim(parts, task_id, self.request.hostname or "worker")
    if isinstance(claim, Refusal):
        recovery.send(claim.woken)
        return f"not started: {claim.reason}"
    found = settings()
    spill = found.data_dir if found.data_dir.is_dir() else None
    recorder = Recorder(task_id, claim, found.max_output_bytes, spill, parts.writer.wake)
    try:
        # Until it is settled it must be spoken for: storing the rest of a long output takes its time.
        with parts.cancel_watcher.follow(task_id) as cancellation, parts.writer.serve(recorder):
            outcome = _supervise(parts, recorder, cancellation)
            recorder.finish()
            _settle(parts, recorder, outcome)
    finally:
        recorder.close()
    return outcome.state.value


def _claim(parts: _Parts, task_id: str, hostname: str) -> Claim | Refusal:
    token = uuid.uuid4().hex
    while True:
        if parts.shutdown.seconds_left() is not None:
            _pass_on(parts.store, task_id)
            return Refusal("the worker is being stopped")
        try:
            return parts.store.claim(task_id, hostname, token, process_identity.own_identity())
        except StoreUnavailable as error:
            log.warning("task %s cannot be claimed yet: %s", task_id, error)
            time.sleep(_SETTLE_RETRY_SECONDS)


def _pass_on(store: Store, task_id: str) -> None:
    """Its message is acknowledged: send another one, for whoever takes it next."""
    with contextlib.suppress(StoreUnavailable):
        task = store.task(task_id)
        if task is not None and task.state is State.QUEUED:
            recovery.send([Woken(task_id, task.summary)])


def _supervise(parts: _Parts, recorder: Recorder, cancellation: Cancellation) -> Outcome:
    claim, found = recorder.claim, settings()
    limit, limit_name = found.CELERY_TASK_TIMEOUT, "CELERY_TASK_TIMEOUT"
    if claim.run.time_limit is not None and claim.run.time_limit < limit:
        limit, limit_name = claim.run.time_limit, "time_limit"
    if claim.attempt > 1:
        recorder.add_output(f"[flansible] Attempt {claim.attempt}: the run begins again.\n".encode(), [])
    supervisor = Supervisor(
        parts.fork_servers,
        recorder,
        parts.shutdown,
        timeout_seconds=float(limit),
        grace_seconds=found.grace_seconds,
        cancellation=cancellation,
        timeout_name=limit_name,
        ssh_masters=_masters_directory(parts, claim.run.user),
        sandboxes=Sandboxes(found),
    )
    try:
        sealed = parts.store.secrets(recorder.task_id)
        if sealed and claim.run.on_lost == "fail":
            parts.store.forget_secrets(recorder.task_id)
        return supervisor.carry_out(claim.run, Sealer(found.secret_key_file).open(sealed) if sealed else None)
    except (RunnerError, SealError, StoreUnavailable) as error:
        return Outcome(State.ERROR, str(error))
    except Exception as error:
        # The border: whatever else went wrong, the task must end, and say that the fault is ours.
        log.exception("a run failed inside Flansible")
        return Outcome(State.ERROR, f"internal error: {type(error).__name__}; the worker's log has the details")


def _masters_directory(parts: _Parts, user: str) -> str | None:
    try:
        return parts.ssh_masters.directory_of(user) if parts.ssh_masters else None
    except OSError as error:
        log.warning("this run of %s goes without the fast ssh profile: %s", user, error)
        return None


def _settle(parts: _Parts, recorder: Recorder, outcome: Outcome) -> None:
    """Store what is left, then make the task final: in this order, so that final means complete."""
    task_id = recorder.task_id
    began = time.monotonic()
    while not recorder.wait_until_stored(_SETTLE_RETRY_SECONDS):
        if recorder.standing != State.RUNNING or _gives_up(parts, began):
            log.error("task %s: its last output is not stored: %s", task_id, recorder.standing)
            break
    while True:
        try:
            return recovery.announce(parts.store, task_id, _end(parts.store, recorder.claim, task_id, outcome))
        except IllegalMove as error:
            log.warning("%s", error)
            return
        except StoreUnavailable as error:
            if _gives_up(parts, began):
                log.error("task %s stays unsettled (%s): %s", task_id, outcome.state, error)
                return
            time.sleep(_SETTLE_RETRY_SECONDS)


def _end(store: Store, claim: Claim, task_id: str, outcome: Outcome) -> Moved:
    if outcome.state is State.LOST and claim.run.on_lost == "requeue":
        return store.end_lost(task_id, outcome.description, "requeue", claim.attempt, f"claim:{claim.token}")
    return store.settle(task_id, outcome.state, outcome.description, outcome.returncode, outcome.ended, claim.token)


def _gives_up(parts: _Parts, began: float) -> bool:
    """A store that is away is waited for, but not for ever, and hardly while the worker is being stopped."""
    stopping = parts.shutdown.seconds_left() is not None
    return time.monotonic() - began > (_STOPPING_STORE_AWAY_SECONDS if stopping else _STORE_AWAY_SECONDS)


@worker_init.connect
def _refuse_to_start(**_: Any) -> None:
    """Before anything is received. Celery logs what its signal's handlers raise and goes on, unless they exit."""
    try:
        require_tested_ansible(settings().allow_untested_ansible)
        isolation.require(settings().isolation)
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        sys.exit(_EXIT_CONFIGURATION)


@worker_init.connect
def _prepare(**_: Any) -> None:
    """Before Celery makes the steps of which its worker consists."""
    global _limits_before
    _limits_before = rlimits.raise_open_files_limit()
    signal_handling.install(app, lambda: _worker().shutdown, lambda: settings().drain_seconds)
    celery_revoke.install(lambda: _worker().store)


@worker_ready.connect
def _warm_up(**_: Any) -> None:
    """Load Ansible before the first request wants it; a failure shows when a run needs it, with its text."""

    def warm_up() -> None:
        try:
            _worker().fork_servers.warm_up(str(settings().playbook_root), pack_usual=True)
        except (RunnerError, OSError) as error:
            log.warning("no warm fork server yet: %s", error)

    threading.Thread(target=warm_up, name="warm-up", daemon=True).start()


@worker_shutdown.connect
def _close(**_: Any) -> None:
    if _parts is not None:
        _parts.reaper.stop()
        _parts.leases.stop()
        # With it the sandboxes end, in which somebody may still write where the masters have their sockets.
        _parts.fork_servers.close()
        if _parts.ssh_masters is not None:
            _parts.ssh_masters.close()
        _parts.store.close()
    signal_handling.ignore_signals()
