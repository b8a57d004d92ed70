"""Ansible's callback methods as events: a callback beside Ansible's own that writes frames to the run's event pipe.

Runs in the run process and writes to its pipes only: no network, no Redis, no threads. An event has `time` (seconds
since 1970) and `mark`, the number of a mark written to the output just before it: text and events are aligned where
bytes arrive, whoever wrote them, a vault password script included. Nothing here may raise: Ansible would print a
warning that the command line does not.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from ansible.executor.stats import AggregateStats
from ansible.executor.task_queue_manager import TaskQueueManager
from ansible.executor.task_result import CallbackTaskResult
from ansible.playbook.play import Play
from ansible.playbook.task import Task
from ansible.plugins.callback import CallbackBase
from ansible.utils.display import Display

from flansible import wire

MAX_RESULT_BYTES = 4 * 1024 * 1024
LEFT_OUT = "flansible_left_out"
_KEPT_KEYS = ("changed", "failed", "rc", "skipped", "unreachable", "msg")
_KEPT_CHARACTERS = 4096
_MAX_GROUPS = 100
_GROUP_CHARACTERS = 255


class EventPipe:
    """Writes the run's event frames, each after a mark in the output (flansible.worker.colour_parser)."""

    def __init__(self, descriptor: int, colour_mark: str) -> None:
        self._descriptor = descriptor
        self._output = os.dup(sys.stdout.fileno())  # a play task's plugin may put something else in its place
        self._mark = colour_mark.encode()
        self._count = 0
        self._readable = True
        # Ansible's lock, held while anything is printed: the thread that receives the workers' messages prints too.
        self._print_lock = Display()._lock

    def send(self, event: dict[str, Any]) -> None:
        """Writes one whole frame, after flushing and marking the output printed before it."""
        with self._print_lock:
            sys.stdout.flush()
            sys.stderr.flush()
            self._count = number = self._count + 1
            try:
                # Short enough to be written at once: nothing of another process gets in between.
                os.write(self._output, b"%b[%de" % (self._mark, number))
            except OSError:
                self._readable = False
        data = memoryview(wire.encode({**event, "time": time.time(), "mark": number}))
        while data and self._readable:
            try:
                data = data[os.write(self._descriptor, data) :]
            except OSError:
                # The supervisor no longer reads, so it does not wait for the end frame: the keeper is about to end us.
                self._readable = False


class EventCallback(CallbackBase):
    """Sends an event for each callback method; counts, to detect a run that executed nothing."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "flansible"
    _load_name = "flansible"

    def __init__(self, pipe: EventPipe) -> None:
        super().__init__()
        self._pipe = pipe
        self._play = ""
        self._started: dict[tuple[str, str], float] = {}
        self._names: dict[str, str] = {}
        self._placed: set[str] = set()  # hosts whose groups were sent
        self._counts = AggregateStats()
        self._rescued: dict[str, int] = {}
        self.plays = 0
        self.plays_without_hosts = 0
        self.starts = 0
        self.results = 0
        self.stats: dict[str, dict[str, int]] = {}
        self.custom_stats: dict[str, Any] = {}

    def use_stats(self, counts: AggregateStats) -> None:
        """Sets Ansible's own statistics, updated before our callback is called: only they say what was rescued."""
        self._counts = counts

    def v2_playbook_on_play_start(self, play: Play) -> None:
        self.plays += 1
        self._play = _name(play.get_name())
        self._pipe.send({"type": "event", "event": "play_start", "play": self._play})

    def v2_playbook_on_no_hosts_matched(self) -> None:
        self.plays_without_hosts += 1

    def v2_playbook_on_task_start(self, task: Task, is_conditional: bool) -> None:
        self._task_start(task)

    def v2_playbook_on_handler_task_start(self, task: Task) -> None:
        self._task_start(task, {"handler": True})

    def v2_playbook_on_cleanup_task_start(self, task: Task) -> None:
        self._task_start(task)

    def v2_runner_on_start(self, host: Any, task: Task) -> None:
        self.starts += 1
        self._started[host.get_name(), task._uuid] = time.monotonic()

    def v2_runner_on_ok(self, result: CallbackTaskResult) -> None:
        self._result(result, "changed" if result.is_changed() else "ok")

    def v2_runner_on_failed(self, result: CallbackTaskResult, ignore_errors: bool = False) -> None:
        if ignore_errors:
            verdict = "ignored"
        else:
            verdict = "rescued" if self._was_rescued(result.host.get_name()) else "failed"
        self._result(result, verdict)

    def v2_runner_on_unreachable(self, result: CallbackTaskResult) -> None:
        self._result(result, "ignored" if result.task.ignore_unreachable else "unreachable")

    def v2_runner_on_skipped(self, result: CallbackTaskResult) -> None:
        self._result(result, "skipped")

    def v2_playbook_on_stats(self, stats: AggregateStats) -> None:
        self.stats = {str(host): stats.summarize(host) for host in sorted(stats.processed)}
        self.custom_stats = bounded_result(lambda: stats.custom)

    def _was_rescued(self, host: str) -> bool:
        count = self._counts.rescued.get(host, 0)
        before = self._rescued.get(host, 0)
        self._rescued[host] = count
        return bool(count > before)

    def _task_start(self, task: Task, more: dict[str, bool] | None = None) -> None:
        # Its results use this name too: later, Ansible has the name without its role, or not templated.
        name = self._names[task._uuid] = _name(task.get_name())
        names = {"play": self._play, "task": name, "module": _truncate(task.action)}
        self._pipe.send({"type": "event", "event": "task_start", **names, **(more or {})})

    def _result(self, result: CallbackTaskResult, verdict: str) -> None:
        self.results += 1
        host = result.host.get_name()
        began = self._started.pop((host, result.task._uuid), None)
        more: dict[str, list[str]] = {}
        if host not in self._placed:
            self._placed.add(host)
            more = {"groups": _groups(result.host)}
        self._pipe.send(
            {
                "type": "event",
                "event": "host_result",
                "host": _truncate(host),
                "play": self._play,
                "task": self._names.get(result.task._uuid) or _name(result.task_name),
                "module": _truncate(result.task.action),
                "verdict": verdict,
                "duration_seconds": round(time.monotonic() - began, 4) if began is not None else 0.0,
                "result": bounded_result(lambda: result.result),
                **more,
            }
        )


class ObservedTaskQueueManager(TaskQueueManager):
    """Adds the event callback to Ansible's TaskQueueManager, after all callbacks that Ansible loads."""

    event_callback: EventCallback

    def load_callbacks(self) -> None:
        super().load_callbacks()
        self.event_callback.use_stats(self._stats)
        if self.event_callback not in self._callback_plugins:
            # A callback object in this list gets no events until this method was called.
            self.event_callback._init_callback_methods()
            self._callback_plugins.append(self.event_callback)


def plain(value: Any) -> Any:
    """Converts to JSON types: Ansible's tagged types become native, NaN and types that JSON lacks become text."""
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


def bounded_result(value: Callable[[], Any]) -> dict[str, Any]:
    """Returns a result, or the statistics of `set_stats`, without Ansible's internal keys and within the size limit."""
    try:
        public = {key: item for key, item in value().items() if not str(key).startswith("_ansible_")}
        # Estimated first: to copy and encode a result of a million lines takes longer than to print it.
        if not _is_large(public):
            public = dict(plain(public))
            if len(json.dumps(public, separators=(",", ":"))) <= MAX_RESULT_BYTES:
                return public
        kept = {key: plain(public[key]) for key in _KEPT_KEYS if isinstance(public.get(key), str | int | float)}
    except Exception as error:  # what an action plugin returns can be anything, and nested without end
        return {LEFT_OUT: f"the result cannot be written as JSON: {type(error).__name__}"}
    kept = {key: _truncate(item) if isinstance(item, str) else item for key, item in kept.items()}
    return {LEFT_OUT: f"the result is over the limit of {MAX_RESULT_BYTES} bytes", **kept}


def _is_large(value: Any) -> bool:
    """Estimates, without encoding it, whether a value is over the limit as JSON; False may turn out to be wrong."""
    waiting, size = [value], 0
    while waiting and size <= MAX_RESULT_BYTES:
        item = waiting.pop()
        size += 1
        if isinstance(item, str | bytes):
            size += len(item)
        elif isinstance(item, dict):
            waiting += [*item, *item.values()]
        elif isinstance(item, list | tuple | set | frozenset):
            waiting += item
    return size > MAX_RESULT_BYTES


def _groups(host: Any) -> list[str]:
    """Returns the names of a host's groups, without the two that Ansible makes itself."""
    try:
        names = {str(group.get_name()) for group in host.get_groups()} - {"all", "ungrouped"}
    except Exception:  # a host of a strategy plugin can be anything
        return []
    return sorted(name for name in names if len(name) <= _GROUP_CHARACTERS)[:_MAX_GROUPS]


def _truncate(text: Any) -> str:
    """Limits the length of a name or message: a template can make it arbitrarily long."""
    return str(text)[:_KEPT_CHARACTERS]


def _name(value: Any) -> str:
    """Returns a name as text: YAML reads `name: 2024` as a number, and other names as dates or truth values."""
    return _truncate(str(value).strip())
