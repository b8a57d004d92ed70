"""Compares the results of two tasks, host by host: which play tasks ended otherwise, and what only one of them has.

Reads both tasks wherever they are, in pages: what is in memory at once are the results of some hosts. The n-th result
of a play task of one name on a host is compared with the n-th of the same name in the other task.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from flansible.history.host_results import HostResult
from flansible.store import Store

OnlyIn = Literal["task", "other"]
MAX_RESULTS = 2000  # of a host in one task that are compared
MAX_CHARACTERS = 2000  # of a message
_MAX_DIFFERENCES = 5000  # of one page, after which it ends
_HOSTS_AT_ONCE = 50
_EVENTS, _EVENT_BYTES, _AHEAD_BYTES = 500, 1024 * 1024, 80 * 1024
_LIST = 1000
# A duration differs when it is so much longer, and so many times as long: others are noise.
_LONGER_SECONDS, _LONGER_TIMES = 1.0, 2.0
_FAILED = frozenset({"failed", "unreachable", "ignored", "rescued"})
_OUTPUTS = ("stderr", "module_stderr", "exception", "stdout", "module_stdout")
_EMPTY_WORDS = ("non-zero return code", "MODULE FAILURE", "One or more items failed")


@dataclass(frozen=True)
class ResultSummary:
    """A result of a play task on a host. message: its `msg`; of a failure whose `msg` says nothing, what it printed."""

    verdict: str
    changed: bool
    message: str
    duration_seconds: float


@dataclass(frozen=True)
class DifferentPlayTask:
    """A play task that ended otherwise on a host. differs: in what; None: it has no result in this task."""

    play: str
    play_task: str
    module: str
    differs: tuple[str, ...]
    result: ResultSummary | None
    other_result: ResultSummary | None


@dataclass(frozen=True)
class DifferentHost:
    """A host that fared otherwise. verdict, other_verdict: its own in each task, None where it has no results.

    play_tasks: empty for a host that only one task has; is_partial: it has more results than are compared.
    """

    host: str
    verdict: str | None
    other_verdict: str | None
    play_tasks: tuple[DifferentPlayTask, ...]
    is_partial: bool


@dataclass(frozen=True)
class DifferentHosts:
    """A page of hosts that fared otherwise, by name. compared: how many hosts were; next_after continues it, None: all
    were compared."""

    hosts: tuple[DifferentHost, ...]
    compared: int
    next_after: str | None


@dataclass(frozen=True)
class _Row:
    play: str
    play_task: str
    module: str
    outcome: ResultSummary


def compare_hosts(store: Store, task_id: str, other_id: str, after: str, limit: int, seconds: float) -> DifferentHosts:
    """Compares the hosts behind `after`, by name; ends at so many that differ, or when the time is over."""
    give_up_at = time.monotonic() + seconds
    own, others = set(_hosts(store, task_id)), set(_hosts(store, other_id))
    names = sorted(name for name in own | others if name > after)
    found: list[DifferentHost] = []
    count = differences = 0
    for begin in range(0, len(names), _HOSTS_AT_ONCE):
        part = names[begin : begin + _HOSTS_AT_ONCE]
        ahead = _first_events(store, task_id, [name for name in part if name in own])
        other_ahead = _first_events(store, other_id, [name for name in part if name in others])
        for name in part:
            count += 1
            rows, is_cut = _rows(store, task_id, name, ahead.get(name))
            other_rows, is_other_cut = _rows(store, other_id, name, other_ahead.get(name))
            if (host := _compare(name, rows, other_rows, is_cut or is_other_cut)) is not None:
                found.append(host)
                differences += len(host.play_tasks)
            is_full = len(found) == limit or differences > _MAX_DIFFERENCES or time.monotonic() > give_up_at
            if is_full and count < len(names):
                return DifferentHosts(tuple(found), count, name)
    return DifferentHosts(tuple(found), count, None)


def _hosts(store: Store, task_id: str) -> Iterator[str]:
    first = 0
    while page := store.hosts(task_id, first, _LIST):
        yield from page
        first += len(page)


def _first_events(store: Store, task_id: str, hosts: list[str]) -> dict[str, list[dict[str, Any]]]:
    found = store.host_events(task_id, hosts, _EVENTS, _AHEAD_BYTES) if hosts else []
    return dict(zip(hosts, found, strict=True))


def _rows(store: Store, task_id: str, host: str, first: list[dict[str, Any]] | None) -> tuple[list[_Row], bool]:
    """Returns a host's results, of which the first are read already, and whether it has more than are compared; first:
    None where the task has no results of it."""
    rows: list[_Row] = []
    page = first or []
    while page:
        rows += map(_row, page)
        if len(rows) > MAX_RESULTS:
            return rows[:MAX_RESULTS], True
        page = store.event_page(task_id, page[-1]["seq"], _EVENTS, _EVENT_BYTES, host)
    return rows, False


def _row(event: Mapping[str, Any]) -> _Row:
    result = event.get("result")
    result = result if isinstance(result, dict) else {}
    verdict = str(event.get("verdict", ""))
    outcome = ResultSummary(
        verdict=verdict,
        changed=bool(result.get("changed")),
        message=_message(result, verdict in _FAILED)[:MAX_CHARACTERS],
        duration_seconds=float(event.get("duration_seconds") or 0.0),
    )
    return _Row(str(event.get("play", "")), str(event.get("task", "")), str(event.get("module", "")), outcome)


def _message(result: Mapping[str, Any], has_failed: bool) -> str:
    message = _text(result.get("msg"))
    if not has_failed or (message and not message.startswith(_EMPTY_WORDS)):
        return message
    items = result.get("results")
    for item in items if isinstance(items, list) else ():
        if isinstance(item, dict) and (item.get("failed") or item.get("unreachable")):
            return _message({**item, "results": None}, True) or message
    return next((text for name in _OUTPUTS if (text := _text(result.get(name)))), message)


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value.strip() if isinstance(value, str) else json.dumps(value)


def _compare(host: str, rows: list[_Row], other_rows: list[_Row], is_partial: bool) -> DifferentHost | None:
    verdict, other_verdict = _verdict(host, rows), _verdict(host, other_rows)
    if not rows or not other_rows:
        return DifferentHost(host, verdict, other_verdict, (), is_partial) if rows or other_rows else None
    numbered, other_numbered = _numbered(rows), _numbered(other_rows)
    found = []
    for key in dict.fromkeys((*numbered, *other_numbered)):
        row, other = numbered.get(key), other_numbered.get(key)
        result, other_result = row.outcome if row else None, other.outcome if other else None
        if differs := _differs(result, other_result):
            named = row or other
            assert named is not None
            found.append(DifferentPlayTask(named.play, named.play_task, named.module, differs, result, other_result))
    return DifferentHost(host, verdict, other_verdict, tuple(found), is_partial) if found or is_partial else None


def _verdict(host: str, rows: list[_Row]) -> str | None:
    return HostResult(host, Counter(row.outcome.verdict for row in rows)).verdict if rows else None


def _numbered(rows: list[_Row]) -> dict[tuple[str, str, int], _Row]:
    """Returns the rows by play, play task, and how many of these were before."""
    counts: Counter[tuple[str, str]] = Counter()
    found = {}
    for row in rows:
        name = (row.play, row.play_task)
        found[*name, counts[name]] = row
        counts[name] += 1
    return found


def _differs(result: ResultSummary | None, other: ResultSummary | None) -> tuple[str, ...]:
    """Returns in what two results differ, the most important first; `result`: only one of them is there."""
    if result is None or other is None:
        return ("result",)
    found = [name for name in ("verdict", "changed", "message") if getattr(result, name) != getattr(other, name)]
    shorter, longer = sorted((result.duration_seconds, other.duration_seconds))
    if longer - shorter >= _LONGER_SECONDS and longer >= _LONGER_TIMES * shorter:
        found.append("duration")
    return tuple(found)
