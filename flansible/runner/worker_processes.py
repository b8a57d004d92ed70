"""Ansible's worker processes, as a run needs them: one that cannot be started is noted, and none is left alone.

Nor is what a worker leaves that was killed, by the kernel for its memory or by hand.

Called in the run process, before Ansible starts any.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

import psutil
from ansible.executor.process.worker import WorkerProcess
from ansible.executor.task_queue_manager import TaskQueueManager

from flansible.runner import process_tree
from flansible.runner.ansible_internals import replace
from flansible.runner.cleanup import RunFiles

_PARENT_DIED = signal.SIGUSR2  # Ansible handles TERM, passing it on
_PATIENCE_SECONDS = 2.0
_KILL_SECONDS = 10.0
_WAIT_FOR_THE_END_SECONDS = 10.0
STUCK = "a worker process of Ansible's was killed, and Ansible did not come to its end after that"


class WorkerStarts:
    """Notes when a worker process could not be started.

    Ansible's strategy takes that for an abort, swallows it and ends with exit code 0 and nothing done: in a daemonic
    process, or when no process can be forked.
    """

    def __init__(self) -> None:
        self.failure: str | None = None

    def watch(self) -> None:
        """From now on, in this process."""

        def watched_start(worker: WorkerProcess) -> None:
            try:
                start(worker)
            except (EOFError, OSError, AssertionError) as error:
                self.failure = f"Ansible could not start a worker process: {error}"
                raise

        start = replace(WorkerProcess, "start", watched_start)


def end_with_their_parents(files: RunFiles) -> None:
    """Have this run end all it has started when its keeper dies, and each worker what it has when the run dies.

    When one of them dies alone, keeper or fork server end what it leaves. When they die in one moment, nobody is left
    to do it; and what ignores TERM, or has moved to a session of its own, would go on.
    """
    keeper, run = os.getppid(), os.getpid()

    def end_run(_number: int, _frame: Any) -> None:
        if os.getppid() == keeper:
            return
        signal.signal(_PARENT_DIED, signal.SIG_IGN)
        for child in psutil.Process().children():
            # A worker ends what is its own, and would do so without us: should we be killed now, nothing gets away.
            process_tree.send(child, _PARENT_DIED)
        process_tree.await_descendants(_PATIENCE_SECONDS)
        process_tree.kill_descendants(_KILL_SECONDS)
        files.remove()
        os._exit(1)

    def end_worker(_number: int, _frame: Any) -> None:
        # A keeper that lives is our parent now, and about to end us: it is to see what there is to end.
        if os.getppid() != keeper:
            # Whoever is our parent next may die as well: that must not begin this anew, halfway through.
            signal.signal(_PARENT_DIED, signal.SIG_IGN)
            process_tree.kill_descendants(_KILL_SECONDS)
            os._exit(1)

    def supervised_work(worker: WorkerProcess) -> None:
        signal.signal(_PARENT_DIED, end_worker)
        process_tree.be_told_of_parents_death(_PARENT_DIED)
        if os.getppid() == run:
            work(worker)

    work = replace(WorkerProcess, "run", supervised_work)
    signal.signal(_PARENT_DIED, end_run)
    process_tree.be_told_of_parents_death(_PARENT_DIED)
    if os.getppid() != keeper:
        os._exit(1)


class KilledWorkers:
    """Ends the module of a worker that was killed, and a run that waits for what will never come after that.

    The module goes on, in the session that was its worker's. And a worker that is killed while it tells a result leaves
    half of it in the queue, or the queue locked; Ansible notices that the worker is dead and then waits for the rest.
    """

    def __init__(self) -> None:
        self._watched: list[WorkerProcess | None] = []

    def watch(self, give_up: Callable[[], None]) -> None:
        """From now on, in this process; give_up is called in a thread when the run then takes too long to end."""

        def has_dead_workers(manager: TaskQueueManager) -> bool:
            found = bool(look(manager))
            if found and not self._watched and any(_was_killed(worker) for worker in manager._workers):
                self._watched = manager._workers
                timer = threading.Timer(_WAIT_FOR_THE_END_SECONDS, give_up)
                timer.daemon = True
                timer.start()
            return found

        look = replace(TaskQueueManager, "has_dead_workers", has_dead_workers)

    def finish(self) -> None:
        """Ansible is done, and has told the others to end as well."""
        for worker in filter(None, self._watched):
            worker.join(_PATIENCE_SECONDS)
            if worker.is_alive():
                worker.kill()
                worker.join()
            if _was_killed(worker):
                _end_session(worker.pid)


def _was_killed(worker: WorkerProcess | None) -> bool:
    return worker is not None and (worker.exitcode or 0) < 0


def _end_session(leader: int) -> None:
    members = []
    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError):
            if os.getsid(process.pid) == leader:
                members.append(process)
    process_tree.kill(members)
    # The keeper takes note of their ends, and removes what the run leaves only when none of them is left.
    psutil.wait_procs(members, timeout=_PATIENCE_SECONDS)
