"""Ansible's worker processes: records those that fail to start, and ends what dead ones leave behind.

Dead by a parent's death, or killed: by the kernel for its memory, or by hand. Called in the run process, before Ansible
starts any.
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

_PARENT_DIED = signal.SIGUSR2  # from the kernel; not TERM: Ansible handles and forwards that
_KEEPER_DIED = signal.SIGUSR1  # from the run to its workers
_WAIT_SECONDS = 2.0
_KILL_SECONDS = 10.0
_END_SECONDS = 10.0
STUCK = "an Ansible worker process was killed, and Ansible did not end after that"


class WorkerStartMonitor:
    """Records why a worker process could not be started.

    It cannot in a daemonic process, or when no process can be forked. Ansible's strategy takes that for an abort,
    ignores it and ends with exit code 0 and nothing executed.
    """

    def __init__(self) -> None:
        self.failure: str | None = None

    def watch(self) -> None:
        """Records failures in this process."""

        def watched_start(worker: WorkerProcess) -> None:
            try:
                start(worker)
            except (EOFError, OSError, AssertionError) as error:
                self.failure = f"Ansible could not start a worker process: {error}"
                raise

        start = replace(WorkerProcess, "start", watched_start)


def install_parent_death_handlers(files: RunFiles) -> None:
    """Installs handlers of the parent death signal (SIGUSR2) in the run and in each of Ansible's workers.

    The kernel sends it for each thread of a dying parent that children pass to, the last time when they have a new
    parent; as long as the run is the parent, it says nothing. So the run has a signal of its own for its workers.

    The tree is `fork server ─ keeper ─ run ─ worker ─ module`; a module may ignore TERM or have a separate session.

    | what dies      | the kernel signals | what happens                                                           |
    |----------------|--------------------|------------------------------------------------------------------------|
    | run            | workers            | end_worker: the parent is now the keeper (subreaper), so it does        |
    |                |                    | nothing: the keeper ends the tree, and reports which processes it ended |
    | keeper         | run                | end_run: sends each worker SIGUSR1, waits for them, kills the rest,      |
    |                |                    | removes the run's files. end_descendants: the worker kills its own.     |
    |                |                    | The fork server also ends what it adopts                                |
    | keeper and run | workers            | end_worker: the parent is the fork server or init, so it kills its own  |
    |                |                    | descendants: no other process of ours might be left to do it            |
    | parent, before | none               | the check after arming: the run exits, a worker does not begin          |
    | arming         |                    |                                                                        |
    """
    keeper, run = os.getppid(), os.getpid()

    def end_run(_number: int, _frame: Any) -> None:
        if os.getppid() == keeper:
            return
        signal.signal(_PARENT_DIED, signal.SIG_IGN)
        for child in psutil.Process().children():
            # A worker ends its descendants, and would do so without this signal if we were killed now.
            process_tree.send(child, _KEEPER_DIED)
        process_tree.wait_for_descendants(_WAIT_SECONDS)
        process_tree.kill_descendants(_KILL_SECONDS)
        files.remove()
        os._exit(1)

    def end_worker(number: int, frame: Any) -> None:
        # A live keeper is our parent now and about to end us: it must find our descendants, to give them the grace and
        # to report them. The run while the rest of its threads end: it is about to be the keeper.
        if os.getppid() not in (keeper, run):
            end_descendants(number, frame)

    def end_descendants(_number: int, _frame: Any) -> None:
        # Our next parent may die as well: its signal must not restart this halfway through.
        signal.signal(_PARENT_DIED, signal.SIG_IGN)
        signal.signal(_KEEPER_DIED, signal.SIG_IGN)
        process_tree.kill_descendants(_KILL_SECONDS)
        os._exit(1)

    def supervised_work(worker: WorkerProcess) -> None:
        signal.signal(_KEEPER_DIED, end_descendants)
        signal.signal(_PARENT_DIED, end_worker)
        process_tree.set_parent_death_signal(_PARENT_DIED)
        if os.getppid() == run:
            work(worker)

    work = replace(WorkerProcess, "run", supervised_work)
    signal.signal(_PARENT_DIED, end_run)
    process_tree.set_parent_death_signal(_PARENT_DIED)
    if os.getppid() != keeper:
        os._exit(1)


class KilledWorkerMonitor:
    """Ends the module of a killed worker, and the run if Ansible then waits for ever.

    The module runs on in the session that was its worker's. And a worker killed while it sends a result leaves half of
    it in the queue, or the queue locked: Ansible notices that the worker is dead and then waits for the rest.
    """

    def __init__(self) -> None:
        self._watched: list[WorkerProcess | None] = []

    def watch(self, give_up: Callable[[], None]) -> None:
        """Watches the workers of this process; calls give_up in a thread when the run then takes too long to end."""

        def has_dead_workers(manager: TaskQueueManager) -> bool:
            found = bool(original(manager))
            if found and not self._watched and any(_was_killed(worker) for worker in manager._workers):
                self._watched = manager._workers
                timer = threading.Timer(_END_SECONDS, give_up)
                timer.daemon = True
                timer.start()
            return found

        original = replace(TaskQueueManager, "has_dead_workers", has_dead_workers)

    def finish(self) -> None:
        """Ends the sessions of killed workers. Called when Ansible has finished and ordered all its workers to end."""
        for worker in filter(None, self._watched):
            worker.join(_WAIT_SECONDS)
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
    # The keeper reaps them, and removes the run's files only when none of them is left.
    psutil.wait_procs(members, timeout=_WAIT_SECONDS)
