"""The Celery task: claims a task by its id, has it supervised, settles the record.

Loaded by Celery in the worker process (`include` in celery_app). The message is an id and receiving it twice is
harmless: whoever loses the claim does nothing.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
import uuid
from dataclasses import dataclass
from typing import Any

from celery import Task
from celery.signals import worker_init, worker_ready, worker_shutdown, worker_shutting_down

from flansible.celery_app import RUN_TASK, app, settings
from flansible.errors import ConfigurationError, IllegalMove, RunnerError, SealError, StoreUnavailable
from flansible.models import AuthorizedRun, State
from flansible.sealing import Sealer
from flansible.store import Store
from flansible.versions import require_tested_ansible
from flansible.worker.cancellations import Cancellation, Cancellations
from flansible.worker.forkservers import ForkServers
from flansible.worker.leases import Leases
from flansible.worker.recorder import Recorder
from flansible.worker.shutdown import Shutdown
from flansible.worker.supervisor import Outcome, Supervisor

log = logging.getLogger(__name__)

_SETTLE_RETRY_SECONDS = 1.0
# How long the end of a run may wait for a store that is away before the worker gives up on it.
_STORE_AWAY_SECONDS = 24 * 3600.0
_STOPPING_STORE_AWAY_SECONDS = 2.0
_EXIT_CONFIGURATION = 2  # as every command of ours ends when its configuration must be mended


@dataclass(frozen=True)
class _Parts:
    store: Store
    fork_servers: ForkServers
    cancellations: Cancellations
    leases: Leases
    shutdown: Shutdown


_lock = threading.Lock()
_parts: _Parts | None = None


def _worker() -> _Parts:
    """What the supervisors of this process share; made when first needed, after any fork of the pool."""
    global _parts
    with _lock:
        if _parts is None:
            found = settings()
            store = Store(found.store_url, found.retention_days)
            cancellations = Cancellations(store)
            _parts = _Parts(
                store=store,
                fork_servers=ForkServers(found.fork_servers),
                cancellations=cancellations,
                leases=Leases(store, cancellations.task_ids, found.worker_concurrency),
                shutdown=Shutdown(),
            )
            _parts.leases.start()
        return _parts


@app.task(name=RUN_TASK, bind=True, ignore_result=True)
def run_task(self: Task[Any, Any], task_id: str) -> str:
    """Run the task of this id if nobody else has; returns its final state, for Celery's log."""
    parts = _worker()
    run = _claim(parts, task_id, self.request.hostname or "worker")
    if run is None:
        return "not queued"
    recorder = Recorder(parts.store, task_id)
    # Until it is settled it must be spoken for: storing the rest of a long output takes its time.
    with parts.cancellations.follow(task_id) as cancellation:
        outcome = _supervise(parts, recorder, task_id, run, cancellation)
        _settle(parts, task_id, recorder, outcome)
    return outcome.state.value


def _claim(parts: _Parts, task_id: str, hostname: str) -> AuthorizedRun | None:
    token = uuid.uuid4().hex
    while True:
        try:
            return parts.store.claim(task_id, hostname, token)
        except StoreUnavailable as error:
            if parts.shutdown.seconds_left() is not None:
                return None
            log.warning("task %s cannot be claimed yet: %s", task_id, error)
            time.sleep(_SETTLE_RETRY_SECONDS)


def _supervise(
    parts: _Parts, recorder: Recorder, task_id: str, run: AuthorizedRun, cancellation: Cancellation
) -> Outcome:
    found = settings()
    supervisor = Supervisor(
        parts.fork_servers,
        recorder,
        parts.shutdown,
        timeout_seconds=float(found.CELERY_TASK_TIMEOUT),
        grace_seconds=found.grace_seconds,
        cancellation=cancellation,
    )
    try:
        sealed = parts.store.take_secrets(task_id)
        return supervisor.carry_out(run, Sealer(found.secret_key_file).open(sealed) if sealed else None)
    except (RunnerError, SealError, StoreUnavailable) as error:
        return Outcome(State.ERROR, str(error))
    except Exception as error:
        # The border: whatever else went wrong, the task must end, and say that the fault is ours.
        log.exception("a run failed inside Flansible")
        return Outcome(State.ERROR, f"internal error: {type(error).__name__}; the worker's log has the details")


def _settle(parts: _Parts, task_id: str, recorder: Recorder, outcome: Outcome) -> None:
    """Store what is left, then make the task final: in this order, so that final means complete."""
    stopping = parts.shutdown.seconds_left() is not None
    patience = _STOPPING_STORE_AWAY_SECONDS if stopping else _STORE_AWAY_SECONDS
    give_up_at = time.monotonic() + patience
    if not recorder.flush_all(give_up_at):
        log.error("task %s: the store did not come back; its last output is lost", task_id)
    while True:
        try:
            return parts.store.settle(task_id, outcome.state, outcome.description, outcome.returncode)
        except IllegalMove as error:
            log.warning("%s", error)
            return
        except StoreUnavailable as error:
            if time.monotonic() > give_up_at:
                log.error("task %s stays unsettled (%s): %s", task_id, outcome.state, error)
                return
            time.sleep(_SETTLE_RETRY_SECONDS)


@worker_init.connect
def _refuse_untested_ansible(**_: Any) -> None:
    """Before anything is received. Celery logs what its signal's handlers raise and goes on, unless they exit."""
    try:
        require_tested_ansible(settings().allow_untested_ansible)
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        sys.exit(_EXIT_CONFIGURATION)


@worker_ready.connect
def _warm_up(**_: Any) -> None:
    """Load Ansible before the first request wants it; a failure shows when a run needs it, with its text."""

    def warm_up() -> None:
        try:
            _worker().fork_servers.warm_up(str(settings().playbook_root))
        except (RunnerError, OSError) as error:
            log.warning("no warm fork server yet: %s", error)

    threading.Thread(target=warm_up, name="warm-up", daemon=True).start()


@worker_shutting_down.connect
def _begin_shutdown(**_: Any) -> None:
    _worker().shutdown.begin(settings().drain_seconds)


@worker_shutdown.connect
def _close(**_: Any) -> None:
    if _parts is not None:
        _parts.leases.stop()
        _parts.fork_servers.close()
        _parts.store.close()
