"""`flansible compare`: what differs between two tasks, in lines for people, or as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from flansible.client.profile import Profile
from flansible.client.terminal import write_lines

_TIMEOUT_SECONDS = 60.0


def compare(login: Profile, task_id: str, other_id: str | None, as_json: bool) -> int:
    """Prints what differs. Returns the exit code: 0, also when something does."""
    with login.client(_TIMEOUT_SECONDS) as client:
        found = client.compare(task_id, other_id)
    write_lines([json.dumps(found, indent=2)] if as_json else _lines(found))
    return 0


def _lines(found: dict[str, Any]) -> Iterator[str]:
    for sign, task in (("-", found["other"]), ("+", found["task"])):
        yield f"{sign} {task['task_id']}  {task['submitted_at']}  {task['state']}  {task['summary']}"
    failures = found["failures_between"]
    if failures is not None:
        yield "no run between them failed" if failures == 0 else f"{failures} runs between them failed"
    if found["request"]:
        yield "request:"
    for change in found["request"]:
        yield f"  {change['field']}: {_value(change['other_value'])} -> {_value(change['value'])}"
    if found["masked"]:
        yield f"  masked, and not compared: {', '.join(found['masked'])}"
    for host in found["hosts"]:
        yield from _host_lines(host)
    count = len(found["hosts"])
    yield f"{count} of {found['compared_hosts']} hosts {'differs' if count == 1 else 'differ'}"


def _host_lines(host: dict[str, Any]) -> Iterator[str]:
    if host["verdict"] is None or host["other_verdict"] is None:
        where = "-" if host["verdict"] is None else "+"
        yield f"{where} {host['host']}: only there"
        return
    yield f"{host['host']}: {host['other_verdict']} -> {host['verdict']}"
    for found in host["play_tasks"]:
        yield f"  {found['play']} / {found['task']}: {', '.join(found['differs'])}"
        for sign, result in (("-", found["other_result"]), ("+", found["result"])):
            if result is not None:
                yield f"    {sign} {_result(result)}"
    if host["is_partial"]:
        yield "  it has more results than are compared"


def _result(result: dict[str, Any]) -> str:
    words = [result["verdict"], f"{result['duration_seconds']:.1f} s"]
    if result["changed"] and result["verdict"] != "changed":
        words.append("changed")
    if result["message"]:
        words.append(result["message"].replace("\n", "\n      "))
    return "  ".join(words)


def _value(value: Any) -> str:
    return "not given" if value is None else json.dumps(value, ensure_ascii=False)
