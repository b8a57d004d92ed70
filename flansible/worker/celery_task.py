"""The Celery task `flansible.run`, and what the worker process starts and stops around it. The map of `worker/`.

Celery calls `run_task` with a task id, in a thread of thread_pool.py:

1. `_claim`        claims the record: Redis lets exactly one worker win. The message is an id and receiving it twice is
                   harmless: without the claim nothing is done. Where Redis has to know the task's hosts first,
                   run_hosts.py finds them by a preview run
2. `recorder.py`   buffers output and events; store_writer.py (one thread) writes them to Redis, spill_queue.py keeps
                   them while Redis is away
3. `_supervise`    runs it: project_tasks.py has a project's commit made ready first; supervisor.py, with a fork server
                   of forkserver_pool.py, masking.py, colour_parser.py, frame_validation.py, key_agent.py for stored ssh
                   keys, and sandbox.py for confined users; outcome.py decides the final state
4. `_record_final_state`  waits until all output is stored, then makes the record final: final means complete

Meanwhile, one thread each per worker, which services.py makes: lease_renewal.py renews the leases, cancel_watcher.py
reads cancel requests, message_resend.py sends lost messages again, project_lookups.py (two) finds commits while all
slots are taken, broker/recovery.py recovers what dead workers left, sandbox_revocation.py ends sandboxes when rights
are lost, preparation.py makes fork servers ready ahead, project_upkeep.py makes room for trees of projects;
readiness.py reports whether the worker can run tasks. signal_handling.py and shutdown.py stop runs in time,
celery_revoke.py answers Celery's `revoke`, consumer.py survives a lost broker.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import sys
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

from celery import Task
from celery.signals import worker_init, worker_shutdown

from flansible.authorization import isolation
from flansible.broker import recovery
from flansible.broker.app import RUN_TASK, app, settings
from flansible.config.ansible_version import require_tested_ansible
from flansible.errors import (
    ConfigurationError,
    IllegalMove,
    RecordUnreadable,
    RunnerError,
    SealError,
    StoreUnavailable,
)
from flansible.models import DEFAULT_QUEUE, ForkServerCounts, State
from flansible.sealing import Sealer
from flansible.store import (
    AWAITS_REPORTS,
    HOSTS_NEEDED,
    OTHER_REFUSAL,
    Claim,
    ClaimRefusal,
    ReadyTask,
    Store,
    Transition,
)
from flansible.system import account, process_identity, rlimits, runner_processes
from flansible.worker import celery_revoke, project_tasks, run_hosts, services, signal_handling
from flansible.worker.ansible_config import configuration_of
from flansible.worker.cancel_watcher import Cancellation
from flansible.worker.lease_renewal import Lease, now
from flansible.worker.outcome import Outcome
from flansible.worker.readiness import Readiness, run_nothing
from flansible.worker.recorder import Recorder
from flansible.worker.sandbox import Sandboxes
from flansible.worker.services import LEASE_REPLY_SECONDS, Services
from flansible.worker.supervisor import NO_RIGHTS, Supervisor

log = logging.getLogger(__name__)

_STORE_RETRY_SECONDS = 1.0
_KNOWN_POLL_SECONDS = 0.05
# How long the final state waits for a store that is away; then it is not recorded.
_STORE_AWAY_SECONDS = 24 * 3600.0
_STOPPING_STORE_AWAY_SECONDS = 2.0
_EXIT_CONFIGURATION = 2  # the exit code of all flansible commands for a wrong configuration


_lock = threading.Lock()
_services: Services | None = None
_readiness: Readiness | None = None
_limits_before: tuple[int, int] | None = None


def _worker_services() -> Services:
    """Returns what the supervisors of this process share; made on first use, after any fork of the pool."""
    global _services
    with _lock:
        if _services is None:
            name = _readiness.name if _readiness else "worker"
            carry_out_hidden = functools.partial(_carry_out_hidden, hostname=name)
            _services = services.make(settings(), name, _limits_before, carry_out_hidden)
            _services.start()
        return _services


@app.task(name=RUN_TASK, bind=True, ignore_result=True)
def run_task(self: Task[Any, Any], task_id: str) -> str:
    """Claims the task of this id and runs it; returns its final state, or why it was not started, for Celery's log."""
    shared = _worker_services()
    claim, asked_at = _claim(shared, task_id, self.request.hostname or "worker")
    if isinstance(claim, ClaimRefusal):
        recovery.send_messages(claim.ready)
        return f"not started: {claim.reason}"
    return _run_claimed(shared, task_id, claim, asked_at).state.value


def _run_claimed(shared: Services, task_id: str, claim: Claim, asked_at: float) -> Outcome:
    """Runs a claimed task and makes it final, whatever fails: otherwise it would end as lost, without the cause."""
    found = settings()
    spill = found.data_dir if os.path.isdir(found.data_dir) else None
    try:
        recorder = Recorder(task_id, claim, found.max_output_bytes, spill, shared.writer.wake)
    except OSError as error:
        outcome = _denied(task_id, error)
        with shared.leases.hold(task_id, claim, asked_at, lambda _standing: None) as lease:
            lease.is_released = True
            _settle(shared, task_id, claim, outcome, time.monotonic())
        return outcome
    try:
        with (
            # Until the record is final: storing a long output takes time.
            shared.leases.hold(task_id, claim, asked_at, recorder.refuse) as lease,
            shared.writer.serve(recorder),
        ):
            outcome = _supervise(shared, recorder, lease)
            lease.is_released = True
            recorder.finish()
            _record_final_state(shared, recorder, outcome)
    finally:
        recorder.close()
    return outcome


def _claim(shared: Services, task_id: str, hostname: str) -> tuple[Claim | ClaimRefusal, float]:
    """Claims the task; returns the answer, and when it was requested."""
    nonce, process, seconds = uuid.uuid4().hex, process_identity.own_identity(), settings().lease_seconds
    while True:
        if shared.shutdown.seconds_left() is not None:
            _requeue(shared.store, task_id)
            return ClaimRefusal("the worker is being stopped"), 0.0
        if not shared.leases.may_claim:  # only at the worker's start
            time.sleep(_KNOWN_POLL_SECONDS)
            continue
        asked_at = now()
        try:
            answer = shared.store.claim(task_id, hostname, nonce, process, seconds)
            if isinstance(answer, ClaimRefusal) and answer.reason == HOSTS_NEEDED:
                sealer = Sealer(settings().secret_key_file)
                carry_out = functools.partial(_carry_out_hidden, hostname=hostname)
                run_hosts.find_hosts(shared.store, sealer, task_id, carry_out)
                continue
            if not isinstance(answer, ClaimRefusal) or answer.reason != AWAITS_REPORTS:
                return answer, asked_at
        except StoreUnavailable as error:
            if error.reason == OTHER_REFUSAL:
                # Redis answers, and would say the same again: a damaged record must not keep this slot for ever. Its
                # message is sent again from time to time.
                log.error("task %s cannot be claimed: %s", task_id, error)
                return ClaimRefusal(str(error)), asked_at
            log.warning("task %s cannot be claimed yet and is tried again: %s", task_id, error)
        time.sleep(_STORE_RETRY_SECONDS)


def _carry_out_hidden(task_id: str, hostname: str) -> None:
    """Runs a hidden task without a slot of its own, if nobody else does. Raises StoreUnavailable."""
    shared = _worker_services()
    process, seconds, asked_at = process_identity.own_identity(), settings().lease_seconds, now()
    claim = shared.store.claim(task_id, hostname, process=process, lease_seconds=seconds)
    if isinstance(claim, Claim):
        _run_claimed(shared, task_id, claim, asked_at)


def _requeue(store: Store, task_id: str) -> None:
    """Sends the task's message again, for another worker: the one received is acknowledged already."""
    with contextlib.suppress(StoreUnavailable, RecordUnreadable):
        task = store.task(task_id)
        if task is not None and task.state is State.QUEUED:
            recovery.send_messages([ReadyTask(task_id, task.summary, task.queue or DEFAULT_QUEUE)])


def _supervise(shared: Services, recorder: Recorder, lease: Lease) -> Outcome:
    """Supervises the run; returns how it ended, also when it could not be started."""
    try:
        with shared.cancel_watcher.follow(recorder.task_id) as cancellation:
            return _carry_out(shared, recorder, cancellation, lease)
    except (RunnerError, SealError, StoreUnavailable) as error:
        return Outcome(State.ERROR, str(error))
    except OSError as error:
        return _denied(recorder.task_id, error)
    except Exception as error:
        # The border: the task must end whatever went wrong, and its description must call it a fault of Flansible.
        log.exception("task %s failed inside Flansible", recorder.task_id)
        return Outcome(State.ERROR, f"internal error: {type(error).__name__}; the worker's log has the details")


def _denied(task_id: str, error: OSError) -> Outcome:
    """Returns the outcome of a task for which the worker's machine has no descriptor, disk space or process left."""
    log.exception("task %s could not be run", task_id)
    where = f": {error.filename}" if error.filename else ""
    return Outcome(State.ERROR, f"the worker could not run it: {error.strerror or error}{where}")


def _carry_out(shared: Services, recorder: Recorder, cancellation: Cancellation, lease: Lease) -> Outcome:
    claim, found = recorder.claim, settings()
    if not claim.run.has_rights:
        return Outcome(State.ERROR, NO_RIGHTS)
    limit, limit_name = found.CELERY_TASK_TIMEOUT, "CELERY_TASK_TIMEOUT"
    if claim.run.time_limit is not None and claim.run.time_limit < limit:
        limit, limit_name = claim.run.time_limit, "time_limit"
    if claim.attempt > 1:
        recorder.add_output(f"[flansible] Attempt {claim.attempt}: the run begins again.\n".encode(), [])
    supervisor = Supervisor(
        shared.fork_servers,
        recorder,
        shared.shutdown,
        timeout_seconds=float(limit),
        grace_seconds=found.grace_seconds,
        cancellation=cancellation,
        timeout_name=limit_name,
        ssh_masters=shared.masters_directory(claim.run.principal),
        sandboxes=Sandboxes(found),
        lease=lease,
    )
    sealed = shared.store.secrets(recorder.task_id)
    if sealed and claim.run.on_lost == "fail":
        shared.store.delete_secrets(recorder.task_id)
    secrets = Sealer(found.secret_key_file).open(sealed) if sealed else None
    if claim.run.project is not None:
        with shared.upkeep.following():
            return project_tasks.carry_out(supervisor, recorder, claim.run, claim.run.project, secrets, found)
    return supervisor.carry_out(claim.run, secrets)


def _record_final_state(shared: Services, recorder: Recorder, outcome: Outcome) -> None:
    """Waits until all output is stored, then makes the record final: in this order, so that final means complete."""
    began = time.monotonic()

    def store_all() -> bool:
        while not recorder.wait_until_stored(_STORE_RETRY_SECONDS):
            if recorder.standing != State.RUNNING or _waited_too_long(shared, began):
                return False
        return True

    def store_again() -> None:
        recorder.finish()  # asks once more whether the store has everything
        store_all()

    if not store_all():
        log.error("task %s: its last output was not stored (record: %s)", recorder.task_id, recorder.standing)
    _settle(shared, recorder.task_id, recorder.claim, outcome, began, store_again)


def _settle(
    shared: Services,
    task_id: str,
    claim: Claim,
    outcome: Outcome,
    began: float,
    store_again: Callable[[], None] = lambda: None,
) -> None:
    """Makes the record final, as soon as the store takes that.

    began: since when that is to be done; store_again: called when the store may have lost its last second.
    """
    while True:
        try:
            try:
                moved = _move_to_final(shared.store, claim, task_id, outcome)
                return recovery.send_ready(shared.store, task_id, moved)
            except IllegalMove as error:
                # A Redis that was killed just now may have lost the claim.
                if error.standing != "forgotten" or not shared.store.restore(task_id, claim):
                    log.warning("%s", error)
                    return
        except StoreUnavailable as error:
            if _waited_too_long(shared, began):
                log.error("task %s: its final state %s was not recorded: %s", task_id, outcome.state, error)
                return
            time.sleep(_STORE_RETRY_SECONDS)
        store_again()


def _move_to_final(store: Store, claim: Claim, task_id: str, outcome: Outcome) -> Transition:
    if outcome.state is State.LOST and claim.run.on_lost == "requeue":
        return store.end_lost_run(task_id, outcome.description, "requeue", claim.attempt, f"claim:{claim.token}")
    return store.settle(
        task_id,
        outcome.state,
        outcome.description,
        outcome.returncode,
        outcome.ended,
        claim.token,
        warning=outcome.warning,
    )


def _waited_too_long(shared: Services, began: float) -> bool:
    """Whether to give up a store that is away: after a day, or after two seconds while the worker is being stopped."""
    stopping = shared.shutdown.seconds_left() is not None
    return time.monotonic() - began > (_STOPPING_STORE_AWAY_SECONDS if stopping else _STORE_AWAY_SECONDS)


@worker_init.connect
def _check_configuration(sender: Any, **_: Any) -> None:
    """Exits on a wrong configuration, before any message is received. sender: Celery's worker.

    Celery only logs what handlers of its signals raise, and continues; so this one exits.
    """
    global _readiness
    found = settings()
    try:
        require_tested_ansible(found.allow_untested_ansible)
        isolation.require(found.isolation)
        account.require_home()
        account.warn()
        _readiness = Readiness(
            Store(found.store_url, reply_timeout_seconds=LEASE_REPLY_SECONDS),
            sender.hostname,
            _probe,
            _resume_stopped,
            _count_fork_servers,
            found.queues,
        )
        _readiness.take_name()
    except (ConfigurationError, OSError) as error:
        with contextlib.suppress(OSError):
            print(error, file=sys.stderr, flush=True)
        sys.exit(_EXIT_CONFIGURATION)


@worker_init.connect
def _install_handlers(**_: Any) -> None:
    """Installs what must be in place before Celery makes its worker's bootsteps."""
    global _limits_before
    _limits_before = rlimits.raise_open_files_limit()
    signal_handling.install(app, lambda: _worker_services().shutdown, lambda: settings().drain_seconds)
    celery_revoke.install(lambda: _worker_services().store)
    if _readiness is not None:
        # Ansible loads in a process of its own, while this one connects to the broker.
        _readiness.watch()


def _probe() -> str:
    """Returns why no run can succeed, '' if one did; then looks whether Ansible loads with the project's configuration.

    The run is made outside the project: what its ansible.cfg says is no matter of this worker, may be repaired by a
    task, and may start callbacks that nobody asked for.
    """
    shared, root = _worker_services(), str(settings().playbook_root)
    problem = run_nothing(shared.fork_servers, shared.shutdown)
    if not problem and os.path.isdir(root) and configuration_of(root) != configuration_of("/"):
        threading.Thread(target=_try_configuration, args=(shared, root), name="try-configuration", daemon=True).start()
    return problem


def _count_fork_servers(name: str) -> ForkServerCounts | None:
    return _services.fork_servers.counts(name) if _services is not None else None


def _resume_stopped() -> str:
    """Continues what was stopped of the runner; returns the problem that this was, '' if no fork server was."""
    stopped = runner_processes.resume(runner_processes.of_worker(process_identity.own_identity()))
    if stopped:
        log.warning("processes of runs were stopped by a signal, and are continued: %s", sorted(stopped))
    if stopped & _worker_services().fork_servers.unconfined_pids:
        return "its fork server was stopped by a signal (SIGSTOP); it is continued"
    return ""


def _try_configuration(shared: Services, root: str) -> None:
    try:
        with shared.fork_servers.briefly_warm(root, runs=0):
            pass
    except (RunnerError, OSError) as error:
        if shared.shutdown.seconds_left() is None:
            log.warning("Ansible does not load with the configuration of %s: %s", root, error)


@worker_shutdown.connect
def _close(**_: Any) -> None:
    if _readiness is not None:
        _readiness.stop()
    if _services is not None:
        _services.close()
    signal_handling.ignore_signals()
