"""Reports to the store whether this worker can run tasks: a fork server is warm, and a run of nothing succeeded.

Two threads per worker. One finds out: at the start, later whether Ansible can still write below HOME, and all of it
again after a failure. One reports, in time whatever the other waits for; health reads the reports, and the name is
taken as long as they come. celery_task.py starts both.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Callable

from flansible.errors import ConfigurationError, Fault, RunnerError, StoreUnavailable
from flansible.models import AuthorizedRun, Secrets, State, Step
from flansible.store import Claim, Progress, Store
from flansible.system import account, process_identity
from flansible.worker.forkserver_pool import ForkServerPool
from flansible.worker.recorder import Recorder
from flansible.worker.shutdown import Shutdown
from flansible.worker.supervisor import Supervisor

log = logging.getLogger(__name__)

REPORT_SECONDS = 2.0
CHECK_SECONDS = 5.0
_NAME_POLL_SECONDS = 0.5
_PROBE_SECONDS = 60.0
_GRACE_SECONDS = 1.0
_OUTPUT_BYTES = 16 * 1024
_LONGEST_PROBLEM = 500
_STANDARD_OUTPUT = 1
_STARTING = "it is starting"
_ANY_PASSWORD = "no password"


class Readiness:
    """Whether this worker can run tasks. probe: makes a run of nothing and returns why it failed, '' if it did not."""

    def __init__(self, store: Store, name: str, probe: Callable[[], str]) -> None:
        self._store = store
        self._name = name
        self._probe = probe
        self._problem = _STARTING
        self._stopped = threading.Event()
        self._changed = threading.Event()
        self._reporter = threading.Thread(target=self._report, name="readiness-report", daemon=True)

    def take_name(self) -> None:
        """Takes the worker's name and keeps it by reporting. Raises ConfigurationError when another worker has it.

        Where the other one cannot be seen, on another machine or in another container, it has the name while it
        reports; then this waits until its last report is too old, or a new one comes.
        """
        last_age = math.inf
        try:
            while True:
                other = next((one for one in self._store.worker_records() if one.name == self._name), None)
                age = other.age_seconds if other else math.inf
                if other and (process_identity.lives_here(other.process) or age < last_age < math.inf):
                    where = process_identity.describe(other.process)
                    message = f"a worker of this name is running ({where}); stop it, or give this one another --name"
                    raise ConfigurationError([Fault("flansible worker", self._name, message)])
                dead = other.process if other and process_identity.explain_death(other.process) else ""
                if self._store.report_worker(self._name, process_identity.own_identity(), self._problem, dead):
                    break
                last_age = age
                time.sleep(_NAME_POLL_SECONDS)
        except StoreUnavailable as error:
            log.debug("whether another worker has the name %s is not known: %s", self._name, error)
        self._reporter.start()

    def watch(self) -> None:
        """Starts to find out whether this worker can run tasks, and prints a line once it can."""
        threading.Thread(target=self._watch, name="readiness", daemon=True).start()

    def stop(self) -> None:
        """Stops reporting and removes the record."""
        self._stopped.set()
        self._changed.set()
        self._reporter.join(REPORT_SECONDS)
        try:
            self._store.remove_worker_record(self._name, process_identity.own_identity())
        except StoreUnavailable as error:
            log.debug("the worker's record is not removed: %s", error)
        self._store.close()

    def _watch(self) -> None:
        worked = False
        while not self._stopped.is_set():
            problem = account.home_fault() or ("" if worked else self._probe())
            worked = not problem
            if problem != self._problem and not self._stopped.is_set():
                if problem:
                    log.error("this worker cannot run tasks: %s", problem)
                elif self._problem == _STARTING:
                    os.write(_STANDARD_OUTPUT, f"Worker {self._name} is ready\n".encode())
                else:
                    log.warning("this worker can run tasks again")
                self._problem = problem
                self._changed.set()
            self._stopped.wait(CHECK_SECONDS)

    def _report(self) -> None:
        was_refused = False
        while not self._stopped.is_set():
            try:
                is_written = self._store.report_worker(self._name, process_identity.own_identity(), self._problem)
                if not is_written and not was_refused:
                    log.error("another worker has taken the name %s", self._name)
                was_refused = not is_written
            except StoreUnavailable as error:
                log.debug("the worker's record is not written: %s", error)
            self._changed.wait(REPORT_SECONDS)
            self._changed.clear()


def run_nothing(fork_servers: ForkServerPool, directory: str, shutdown: Shutdown) -> str:
    """Loads Ansible and has it run `debug`, on no host; returns why that failed, '' when it worked.

    Under the configuration of `directory`, which may prompt for passwords: any will do.
    """
    options = ("--inventory=localhost,", "--connection=local", "--module-name=debug", "--", "localhost")
    run = AuthorizedRun(
        kind="adhoc",
        user="admin",
        summary="a run of nothing",
        steps=(Step(program="ansible", argv=options, cwd=directory),),
    )
    recorder = Recorder("", Claim(run, 0, 1, Progress()), _OUTPUT_BYTES, None, lambda: None)
    try:
        fork_servers.warm_up(directory, pack_usual=True)
        supervisor = Supervisor(fork_servers, recorder, shutdown, _PROBE_SECONDS, _GRACE_SECONDS)
        outcome = supervisor.carry_out(run, Secrets(vault_passwords={"default": _ANY_PASSWORD}))
        batch = recorder.next_batch()
    except (RunnerError, OSError) as error:
        return _line(str(error))
    finally:
        recorder.close()
    if outcome.state is State.SUCCEEDED:
        return ""
    printed = batch.output.decode(errors="replace") if batch else ""
    # Warnings come first.
    return _line(f"{outcome.description}: {printed[max(0, printed.find('ERROR')) :]}")


def _line(message: str) -> str:
    return " ".join(message.split())[:_LONGEST_PROBLEM]
