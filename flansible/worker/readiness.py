"""Reports to the store whether this worker can run tasks: Ansible is loaded, and a run of nothing succeeded.

Two threads per worker. One finds out: at the start, later whether Ansible can still write below HOME and no fork
server is stopped, and all of it again after a failure, ever more seldom. One reports, in time whatever the other waits
for; health reads the reports, and the name is taken as long as they come. celery_task.py starts both.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Callable

from flansible.errors import ConfigurationError, Fault, RunnerError, StoreUnavailable
from flansible.models import DEFAULT_QUEUE, AuthorizedRun, ForkServerCounts, Secrets, State, Step
from flansible.store import Claim, Progress, Store
from flansible.system import account, process_identity, standard_output
from flansible.worker.forkserver_pool import ForkServerPool
from flansible.worker.recorder import Recorder
from flansible.worker.shutdown import Shutdown
from flansible.worker.supervisor import Supervisor

log = logging.getLogger(__name__)

REPORT_SECONDS = 2.0
CHECK_SECONDS = 5.0
LONGEST_PAUSE_SECONDS = 60.0
_NAME_POLL_SECONDS = 0.5
_PROBE_SECONDS = 60.0
_GRACE_SECONDS = 1.0
_OUTPUT_BYTES = 16 * 1024
_LONGEST_PROBLEM = 500
_STARTING = "it is starting"
_NOT_LOADED = "Ansible does not load; the worker's log has the details"
_ANY_PASSWORD = "no password"


class Readiness:
    """Whether this worker can run tasks.

    probe: makes a run of nothing and returns why it failed, '' if it did not; look: returns a problem that is seen at
    once, or ''; count: returns how often runs found a warm fork server, under this worker's name; queues: those that
    it serves.
    """

    def __init__(
        self,
        store: Store,
        name: str,
        probe: Callable[[], str],
        look: Callable[[], str] = lambda: "",
        count: Callable[[str], ForkServerCounts | None] = lambda _name: None,
        queues: tuple[str, ...] = (DEFAULT_QUEUE,),
    ) -> None:
        self._queues = queues
        self._store = store
        self.name = name
        self._probe = probe
        self._look = look
        self._count = count
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
                other = next((one for one in self._store.worker_records() if one.name == self.name), None)
                age = other.age_seconds if other else math.inf
                if other and (process_identity.lives_here(other.process) or age < last_age < math.inf):
                    where = process_identity.describe(other.process)
                    message = f"a worker of this name is running ({where}); stop it, or give this one another --name"
                    raise ConfigurationError([Fault("flansible worker", self.name, message)])
                dead = other.process if other and process_identity.explain_death(other.process) else ""
                if self._store.report_worker(
                    self.name, process_identity.own_identity(), self._problem, dead, queues=self._queues
                ):
                    break
                last_age = age
                time.sleep(_NAME_POLL_SECONDS)
        except StoreUnavailable as error:
            log.debug("whether another worker has the name %s is not known: %s", self.name, error)
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
            self._store.remove_worker_record(self.name, process_identity.own_identity())
        except StoreUnavailable as error:
            log.debug("the worker's record is not removed: %s", error)
        self._store.close()

    def _watch(self) -> None:
        worked, pause = False, CHECK_SECONDS
        while not self._stopped.is_set():
            problem, probe_failed = self._find_problem(worked)
            worked = not problem
            if problem != self._problem and not self._stopped.is_set():
                self._publish(problem)
            self._stopped.wait(pause if probe_failed else CHECK_SECONDS)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS) if probe_failed else CHECK_SECONDS

    def _find_problem(self, worked: bool) -> tuple[str, bool]:
        """Returns why this worker cannot run tasks, '' if it can, and whether it was the probe that failed."""
        try:
            if fault := account.home_fault() or self._look():
                return fault, False
            problem = "" if worked else self._probe()
        except Exception as error:
            # The border: a watcher that ends would leave its last report in force.
            log.exception("whether this worker can run tasks is not known")
            problem = _sentence(f"internal error: {type(error).__name__}: {error}")
        return problem, bool(problem)

    def _publish(self, problem: str) -> None:
        before, self._problem = self._problem, problem
        self._changed.set()
        if problem:
            log.error("this worker cannot run tasks: %s", problem)
        elif before == _STARTING:
            standard_output.write_line(f"Worker {self.name} is ready")
        else:
            log.warning("this worker can run tasks again")

    def _report(self) -> None:
        was_refused = False
        while not self._stopped.is_set():
            try:
                own, counts = process_identity.own_identity(), self._count(self.name)
                is_written = self._store.report_worker(
                    self.name, own, self._problem, counts=counts, queues=self._queues
                )
                if not is_written and not was_refused:
                    log.error("another worker has taken the name %s", self.name)
                was_refused = not is_written
            except StoreUnavailable as error:
                log.debug("the worker's record is not written: %s", error)
            self._changed.wait(REPORT_SECONDS)
            self._changed.clear()


def run_nothing(fork_servers: ForkServerPool, shutdown: Shutdown, directory: str = "/") -> str:
    """Loads Ansible and has it run `debug`, on no host; returns why that failed, '' when it worked.

    Under the configuration of `directory`, by default the service's own: its environment, ~/.ansible.cfg, and
    /etc/ansible/ansible.cfg. It may prompt for passwords: any will do.
    """
    # An empty inventory for the plugin `ini`, which more configurations enable than `host_list`.
    options = (f"--inventory={os.devnull}", "--connection=local", "--module-name=debug", "--", "localhost")
    run = AuthorizedRun(
        kind="adhoc",
        user="admin",
        summary="a run of nothing",
        steps=(Step(program="ansible", argv=options, cwd=directory),),
    )
    recorder = Recorder("", Claim(run, 0, 1, Progress()), _OUTPUT_BYTES, None, lambda: None)
    try:
        with fork_servers.briefly_warm(directory, runs=1):
            supervisor = Supervisor(fork_servers, recorder, shutdown, _PROBE_SECONDS, _GRACE_SECONDS)
            outcome = supervisor.carry_out(run, Secrets(vault_passwords={"default": _ANY_PASSWORD}))
        batch = recorder.next_batch()
    except (RunnerError, OSError) as error:
        return _sentence(str(error))
    finally:
        recorder.close()
    if outcome.state is State.SUCCEEDED:
        return ""
    printed = batch.output.decode(errors="replace") if batch else ""
    # Warnings come first.
    return _sentence(f"{outcome.description}: {printed[max(0, printed.find('ERROR')) :]}")


def _sentence(message: str) -> str:
    """Returns the message on one line, without the traceback that may follow it: that is logged."""
    said, traceback, _ = message.partition("Traceback")
    if traceback:
        log.error("why this worker cannot run tasks: %s", message)
    return " ".join(said.split())[:_LONGEST_PROBLEM] or _NOT_LOADED
