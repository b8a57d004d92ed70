"""Builds what a notification says of a task: counts, failed hosts, the first failing play task, links.

No output and no variables, unless the notification asks for them; both are as the records have them, masked.
"""

from __future__ import annotations

from typing import Any

from flansible.models import TaskStatus
from flansible.models.event_names import EventName
from flansible.store import LateSchedule, Store
from flansible.system.timestamps import from_milliseconds

MOST_HOSTS = 100
_LOOKED_AT_HOSTS = 20  # for the first failing play task
_EVENTS_EACH = 200
_MOST_BYTES = 64 * 1024  # of the events of each
_OUTPUT_BYTES = 4096
_FIELDS = {
    *("task_id", "state", "description", "returncode", "user", "kind", "summary", "playbook", "module", "hosts"),
    *("inventory", "template", "trigger", "counts", "host_count", "submitted_at", "started_at", "finished_at"),
}


def payload(
    store: Store, task: TaskStatus, event: EventName, at: int, base_url: str, include: tuple[str, ...]
) -> dict[str, Any]:
    """Returns the body of a webhook. at: when it happened; base_url: of the service, for the links.

    Raises StoreUnavailable and RecordUnreadable.
    """
    data: dict[str, Any] = task.model_dump(mode="json", include=_FIELDS) | _failures(store, task)
    data["links"] = {
        "console": f"{base_url}/#/task/{task.task_id}",
        "status": f"{base_url}/api/ansibletaskstatus/{task.task_id}",
        "output": f"{base_url}/api/ansibletaskoutput/{task.task_id}",
    }
    if "output" in include:
        data["output"] = _last_output(store, task.task_id)
    if "variables" in include:
        data["variables"] = _variables(store, task.task_id)
    return {"type": f"task.{event}", "timestamp": from_milliseconds(at), "data": data}


def of_late_schedule(late: LateSchedule, at: int, base_url: str) -> dict[str, Any]:
    """Returns the body of a webhook for a schedule that could not start in time."""
    data = {
        "schedule": late.name,
        "template": late.template,
        "owner": late.owner,
        "due_at": from_milliseconds(late.due),
        "links": {"console": f"{base_url}/#/definitions?kind=schedules&name={late.name}"},
    }
    return {"type": "schedule.late", "timestamp": from_milliseconds(at), "data": data}


def _failures(store: Store, task: TaskStatus) -> dict[str, Any]:
    """Returns the failed and unreachable hosts, a hundred of them, and the first play task that failed."""
    stats = (store.stats_event(task.task_id) or {}).get("stats", {})
    bad = [host for host, counts in stats.items() if counts.get("failures") or counts.get("unreachable")]
    hosts = bad or _hosts_with_failures(store, task.task_id)
    return {
        "failed_host_count": len(bad) if bad else None if not stats and hosts else len(hosts),
        "failed_hosts": hosts[:MOST_HOSTS],
        "first_failure": _first_failure(store, task.task_id, hosts[:_LOOKED_AT_HOSTS]),
    }


def _hosts_with_failures(store: Store, task_id: str) -> list[str]:
    """Returns hosts with a failed result, of a run that ended before its recap: they are listed first."""
    found: list[str] = []
    hosts = store.hosts(task_id, 0, MOST_HOSTS)
    for host, events in zip(hosts, store.host_events(task_id, hosts, _EVENTS_EACH, _MOST_BYTES), strict=True):
        if not any(_is_failure(event) for event in events):
            break
        found.append(host)
    return found


def _first_failure(store: Store, task_id: str, hosts: list[str]) -> dict[str, Any] | None:
    if not hosts:
        return None
    rows = store.host_events(task_id, hosts, _EVENTS_EACH, _MOST_BYTES)
    failed = [event for events in rows for event in events if _is_failure(event)]
    if not failed:
        return None
    first = min(failed, key=lambda event: int(event.get("seq", 0)))
    return {"play": first.get("play"), "play_task": first.get("task"), "host": first.get("host")}


def _is_failure(event: dict[str, Any]) -> bool:
    return event.get("verdict") in ("failed", "unreachable")


def _last_output(store: Store, task_id: str) -> str:
    size = store.position(task_id).output_bytes
    return store.output(task_id, max(0, size - _OUTPUT_BYTES), _OUTPUT_BYTES).decode(errors="replace")


def _variables(store: Store, task_id: str) -> Any:
    run = store.authorized_run(task_id)
    return None if run is None else run.request.get("extra_vars", run.request.get("extra_args"))


def sentence(body: dict[str, Any]) -> str:
    """Returns one line for people: the subject of a mail."""
    data = body["data"]
    what = data.get("template") or data.get("playbook") or data.get("summary") or data.get("schedule", "")
    line = f"Flansible: {what} {body['type'].partition('.')[2].replace('_', ' ')}"
    return " ".join(line.split())[:200]


def text(body: dict[str, Any]) -> str:
    """Returns the payload for people: the text of a mail."""
    data = body["data"]
    lines = [sentence(body), ""]
    for name, word in (("summary", "Task"), ("state", "State"), ("description", "Why"), ("finished_at", "Ended")):
        if data.get(name):
            lines.append(f"{word}: {data[name]}")
    if counts := data.get("counts"):
        lines.append("Results: " + ", ".join(f"{number} {verdict}" for verdict, number in counts.items() if number))
    if hosts := data.get("failed_hosts"):
        lines.append(f"Failed hosts: {', '.join(hosts)}")
    if first := data.get("first_failure"):
        lines.append(f"First failure: {first['play_task']} on {first['host']}")
    if links := data.get("links"):
        lines += ["", links["console"]]
    if output := data.get("output"):
        lines += ["", output]
    return "\n".join(lines) + "\n"
