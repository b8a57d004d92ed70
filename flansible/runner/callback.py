"""What happened, as events: a callback beside Ansible's own that writes frames to the run's event pipe.

Lives in the run process. It writes to its pipe and nothing else: no network, no Redis, no threads. Each event carries
`offset`, the output bytes the run had written by then, so that text and events can be put side by side.
"""

from __future__ import annotations

import math
import os
import re
import sys
import time
from collections.abc import Callable
from typing import Any

from ansible.executor.process.worker import WorkerProcess
from ansible.executor.stats import AggregateStats
from ansible.executor.task_queue_manager import TaskQueueManager
from ansible.executor.task_result import CallbackTaskResult
from ansible.playbook.play import Play
from ansible.playbook.task import Task
from ansible.plugins.callback import CallbackBase

from flansible import wire


class EventPipe:
    """The writing end of the run's events, and the count of the output bytes that go before each."""

    def __init__(self, descriptor: int, colour_mark: str) -> None:
        self._descriptor = descriptor
        self._mark = colour_mark.encode()
        self._marks = re.compile(re.escape(self._mark) + rb"\[[0-9;]*m")
        self._written = 0
        for stream in (sys.stdout, sys.stderr):
            # Ansible has put its own wrapper there already, and Python calls whatever the attribute holds.
            stream.buffer.write = self._counting(stream.buffer.write)  # type: ignore[method-assign]

    def send(self, event: dict[str, Any]) -> None:
        """Write one frame, whole, after the output that was printed before it."""
        sys.stdout.flush()
        sys.stderr.flush()
        data = memoryview(wire.encode({**event, "offset": self._written}))
        while data:
            data = data[os.write(self._descriptor, data) :]

    def _counting(self, write: Callable[[Any], int]) -> Callable[[Any], int]:
        def counting_write(data: Any) -> int:
            count = write(data)
            # The marks are no output: the supervisor takes them out.
            text = bytes(data)
            self._written += len(self._marks.sub(b"", text)) if self._mark in text else count
            return count

        return counting_write


class EventCallback(CallbackBase):
    """Turns Ansible's callback methods into events; also counts what a silent failure would leave out."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "flansible"
    _load_name = "flansible"

    def __init__(self, pipe: EventPipe) -> None:
        super().__init__()
        self._pipe = pipe
        self._play = ""
        self._started: dict[tuple[str, str], float] = {}
        self.starts = 0
        self.results = 0
        self.stats: dict[str, dict[str, int]] = {}
        self.custom_stats: dict[str, Any] = {}

    def v2_playbook_on_play_start(self, play: Play) -> None:
        self._play = play.get_name().strip()
        self._pipe.send({"type": "event", "event": "play_start", "play": self._play})

    def v2_playbook_on_task_start(self, task: Task, is_conditional: bool) -> None:
        self._task_start(task)

    def v2_playbook_on_handler_task_start(self, task: Task) -> None:
        self._task_start(task)

    def v2_playbook_on_cleanup_task_start(self, task: Task) -> None:
        self._task_start(task)

    def v2_runner_on_start(self, host: Any, task: Task) -> None:
        self.starts += 1
        self._started[host.get_name(), task._uuid] = time.monotonic()

    def v2_runner_on_ok(self, result: CallbackTaskResult) -> None:
        self._result(result, "changed" if result.is_changed() else "ok")

    def v2_runner_on_failed(self, result: CallbackTaskResult, ignore_errors: bool = False) -> None:
        self._result(result, "ignored" if ignore_errors else "failed")

    def v2_runner_on_unreachable(self, result: CallbackTaskResult) -> None:
        self._result(result, "unreachable")

    def v2_runner_on_skipped(self, result: CallbackTaskResult) -> None:
        self._result(result, "skipped")

    def v2_playbook_on_stats(self, stats: AggregateStats) -> None:
        self.stats = {str(host): stats.summarize(host) for host in sorted(stats.processed)}
        self.custom_stats = plain(stats.custom)

    def _task_start(self, task: Task) -> None:
        fields = {"play": self._play, "task": task.get_name().strip(), "module": task.action}
        self._pipe.send({"type": "event", "event": "task_start", **fields})

    def _result(self, result: CallbackTaskResult, verdict: str) -> None:
        self.results += 1
        host = result.host.get_name()
        began = self._started.pop((host, result.task._uuid), None)
        self._pipe.send(
            {
                "type": "event",
                "event": "host_result",
                "host": host,
                "play": self._play,
                "task": result.task_name.strip(),
                "module": result.task.action,
                "verdict": verdict,
                "duration_seconds": round(time.monotonic() - began, 4) if began is not None else 0.0,
                "result": _public(result.result),
            }
        )


class ObservedTaskQueueManager(TaskQueueManager):
    """Ansible's TaskQueueManager with the event callback after all the callbacks Ansible itself loads."""

    event_callback: EventCallback

    def load_callbacks(self) -> None:
        super().load_callbacks()
        if self.event_callback not in self._callback_plugins:
            # An object put in this list gets no events until its methods were looked up.
            self.event_callback._init_callback_methods()
            self._callback_plugins.append(self.event_callback)


class WorkerStarts:
    """Notes when a worker process could not be started.

    Ansible's strategy takes that for an abort, swallows it and ends with exit code 0 and nothing done: in a daemonic
    process, or when no process can be forked.
    """

    def __init__(self) -> None:
        self.failure: str | None = None

    def watch(self) -> None:
        """From now on, in this process."""
        start = WorkerProcess.start

        def watched_start(worker: WorkerProcess) -> None:
            try:
                start(worker)
            except (EOFError, OSError, AssertionError) as error:
                self.failure = f"Ansible could not start a worker process: {error}"
                raise

        WorkerProcess.start = watched_start


def plain(value: Any) -> Any:
    """`value` as JSON can carry it: Ansible's tagged types made native, NaN and what else JSON lacks made text."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(value)
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return str(value)


def _public(result: Any) -> dict[str, Any]:
    return {key: value for key, value in plain(result).items() if not key.startswith("_ansible_")}
