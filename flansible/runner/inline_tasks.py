"""Runs play tasks that need no other process in the run itself: Ansible forks a worker for each task of each host.

A fork costs more than all that `debug`, `set_fact` or a skipped task does. Installed in the run process, before Ansible
starts. What runs here is Ansible's own code for workers, on copies of what a worker changes in its copy of the process;
its messages to the main process are encoded and decoded like a worker's. Where anything in play could tell the
difference, inline_guards raises NeedsWorker, what was said is discarded, and the task runs in a worker after all.

| Ansible's strategy                  | with a worker process       | here                                     |
|-------------------------------------|-----------------------------|------------------------------------------|
| `WorkerProcess(...)`                | a process object            | make_worker: an InlineWorker, if allowed |
| `start()`                           | forks                       | runs the task, keeps its messages        |
| takes a worker that has ended       | prints, has a result        | `close()` hands out what is kept         |
| waits for the results of all        | prints, has the results     | all that is kept is handed out           |

So a result is seen when `forks` more hosts were started: as if all workers were busy for as long. A host that reads
variables of hosts before it finds what it usually finds on the command line, and with one fork the text is in the same
order.
"""

from __future__ import annotations

import copy
import pickle  # nosec B403: of messages of this process
import time
from collections import Counter, deque
from collections.abc import Iterator
from multiprocessing.reduction import ForkingPickler
from typing import Any

import ansible.plugins.strategy
from ansible.executor.process.worker import WorkerProcess
from ansible.executor.task_queue_manager import CallbackSend, FinalQueue
from ansible.playbook.block import Block
from ansible.playbook.task import Task
from ansible.plugins.strategy import StrategyBase, StrategySentinel, results_thread_main

from flansible.errors import NeedsWorker
from flansible.runner import compat, inline_guards
from flansible.runner.ansible_internals import replace

# Of processor time on one host. What takes longer than the first is better done by workers, side by side; at the second
# a loop is given up.
_SLOW_SECONDS = 0.02
_LONGEST_SECONDS = 0.1
_MOST_UNSUITED = 2  # hosts
_DRAIN_SECONDS = 1.0
_POLL_SECONDS = 0.0005


def install() -> None:
    """Lets this process run such tasks itself, where this version of Ansible can."""
    if not compat.can_execute_tasks():
        return
    inline_guards.install()
    inline = _InlineTasks()

    def queue_task(strategy: StrategyBase, host: Any, task: Task, task_vars: Any, play_context: Any) -> None:
        inline.strategy = strategy
        original_queue_task(strategy, host, task, task_vars, play_context)

    def process_results(strategy: StrategyBase, iterator: Any, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("max_passes") is None:  # the strategy waits for whatever there is
            inline.deliver_all()
        return original_process_results(strategy, iterator, *args, **kwargs)

    original_queue_task = replace(StrategyBase, "_queue_task", queue_task)
    original_process_results = replace(StrategyBase, "_process_pending_results", process_results)
    replace(ansible.plugins.strategy, "WorkerProcess", inline.make_worker)


class _InlineTasks:
    """Decides per play task, by its last hosts; keeps messages until a worker would have had to end."""

    strategy: StrategyBase

    def __init__(self) -> None:
        self._allowed: dict[str, inline_guards.Allowed] = {}
        # By a play task's id: for how many hosts in a row a worker would have been better, since it was slow here or
        # needed one after all. From _MOST_UNSUITED on all its other hosts get workers; a very slow one counts as many.
        self._unsuited: Counter[str] = Counter()
        self._kept: deque[InlineWorker] = deque()
        self._lost = 0  # results that never came, of workers that were killed

    def make_worker(self, **arguments: Any) -> WorkerProcess | InlineWorker:
        """Returns what the strategy takes for its worker process."""
        task = arguments["task"]
        if task._uuid not in self._allowed:
            self._allowed[task._uuid] = inline_guards.allowed(self.strategy, task)
        allowed = self._allowed[task._uuid]
        if allowed is inline_guards.Allowed.NOTHING or self._unsuited[task._uuid] >= _MOST_UNSUITED:
            return WorkerProcess(**arguments)
        return InlineWorker(self, arguments, allowed)

    def run(self, worker: InlineWorker, arguments: dict[str, Any], allowed: inline_guards.Allowed) -> None:
        """Runs the task; in a worker process, if it turns out to need one."""
        uuid = arguments["task"]._uuid
        self._await_ended_workers()
        began = time.thread_time()
        messages = _messages_of(arguments, allowed, began + _LONGEST_SECONDS)
        seconds = time.thread_time() - began
        if messages is not None and seconds <= _SLOW_SECONDS:
            self._unsuited[uuid] = 0
        else:
            self._unsuited[uuid] += _MOST_UNSUITED if seconds > _LONGEST_SECONDS else 1
        if messages is None:
            process = self.strategy._workers[arguments["worker_id"]] = WorkerProcess(**arguments)
            process.start()
            return
        worker.messages = messages
        self._kept.append(worker)

    def deliver(self, worker: InlineWorker) -> None:
        """Hands out what was said up to this worker's result, in the order in which the tasks were started."""
        while worker in self._kept:
            self._deliver_first()

    def deliver_all(self) -> None:
        """Hands out all that is kept."""
        while self._kept:
            self._deliver_first()

    def _deliver_first(self) -> None:
        results_thread_main(_Delivery(self.strategy, self._kept.popleft().messages))

    def _await_ended_workers(self) -> None:
        """Waits for what workers sent that have all ended: with one fork, the order of hosts is that of the text."""
        give_up_at = time.monotonic() + _DRAIN_SECONDS
        while (missing := self._missing_results()) > self._lost and not self._has_workers():
            if time.monotonic() >= give_up_at:
                self._lost = missing  # or each host would wait, until the strategy looks for dead workers
            time.sleep(_POLL_SECONDS)
        self._lost = min(self._lost, missing)

    def _missing_results(self) -> int:
        """How many tasks were started and have no result yet, here or in the strategy's queue."""
        return int(self.strategy._pending_results) - len(self.strategy._results) - len(self._kept)

    def _has_workers(self) -> bool:
        return any(worker and worker.is_alive() for worker in self.strategy._workers)


class InlineWorker:
    """Takes the place of a worker process in the strategy's list: one that has ended by itself."""

    exitcode = 0
    pid = None

    def __init__(self, tasks: _InlineTasks, arguments: dict[str, Any], allowed: inline_guards.Allowed) -> None:
        self._tasks = tasks
        self._arguments: dict[str, Any] | None = arguments
        self._allowed = allowed
        self.messages: list[bytes] = []

    def start(self) -> None:
        """Runs the task, in this process or in one that takes this worker's place."""
        arguments, self._arguments = self._arguments, None  # they hold all variables of the host
        if arguments is not None:
            self._tasks.run(self, arguments, self._allowed)

    def is_alive(self) -> bool:
        """Returns False: the strategy may use this worker again."""
        return False

    def close(self) -> None:
        """Hands out the messages: another host's task takes this worker's place."""
        self._tasks.deliver(self)

    def terminate(self) -> None:
        """Does nothing, as for a process that has ended."""

    def join(self, timeout: float | None = None) -> None:
        """Does nothing, as for a process that has ended."""


class _Messages(FinalQueue):
    """Takes what a worker sends to the main process, encoded as it would be in the pipe."""

    def __init__(self, deadline: float) -> None:
        # Not the base class's: it opens a pipe.
        self.encoded: list[bytes] = []
        self._deadline = deadline

    def put(self, message: Any) -> None:
        # At an item, since more may follow: a result is kept whatever it took.
        if isinstance(message, CallbackSend) and time.thread_time() > self._deadline:
            raise NeedsWorker("it takes long")
        self.encoded.append(bytes(ForkingPickler.dumps(message)))

    def send_prompt(self, **_options: Any) -> None:
        raise NeedsWorker("it asks something")


def _messages_of(arguments: dict[str, Any], allowed: inline_guards.Allowed, deadline: float) -> list[bytes] | None:
    """Runs a task on a host; returns what a worker would have sent, the result last; None: it needs a worker.

    Raises nothing: a worker that is started while an exception is handled has that as the context of its own.
    """
    queue = _Messages(deadline)
    copied = {
        **arguments,
        "task": _copy_of_task(arguments["task"]),
        "task_vars": dict(arguments["task_vars"]),
        "final_q": queue,
    }
    try:
        with inline_guards.guarded(queue, allowed):
            compat.execute_task(copied)
    except (Exception, NeedsWorker, SystemExit):  # a worker reports its own errors
        return None
    return queue.encoded


def _copy_of_task(task: Task) -> Task:
    """Copies what a worker changes of a task: its fields, and those of what includes it; of a block only the name."""
    copied: Task = task.copy(exclude_parent=True, exclude_tasks=True)
    parent = task._parent
    if isinstance(parent, Task):
        parent = _copy_of_task(parent)
    elif isinstance(parent, Block):
        parent = copy.copy(parent)
    copied._parent = parent
    return copied


class _Delivery:
    """Is to Ansible's results thread a strategy whose queue holds these messages and then ends."""

    def __init__(self, strategy: StrategyBase, messages: list[bytes]) -> None:
        self._strategy = strategy
        self._decoded: Iterator[Any] = map(pickle.loads, messages)  # nosec B301: our own, from above
        self._final_q = self

    def get(self) -> Any:
        return next(self._decoded, None) or StrategySentinel()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._strategy, name)
