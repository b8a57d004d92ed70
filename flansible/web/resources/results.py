"""The results of a task by host, page by page: memory use is that of one page, however many hosts there are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any

from flask import Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from flansible.models import PlayTaskResult, TaskStatus
from flansible.store import Store
from flansible.web import serialization
from flansible.web.context import web_context
from flansible.web.login.authentication import PrivateResource
from flansible.web.parsing import parse_query
from flansible.web.resources.tasks import recorded_position, visible_task
from flansible.web.serialization import dumps, json_object

_PAGE_BYTES = 8 * 1024 * 1024
_READ_BYTES = 1024 * 1024
_READ_EVENTS = 500
_HOSTS_AT_ONCE = 100
_AHEAD_BYTES = 80 * 1024  # of each of these: what is archived is unpacked once for all of them
_CURSOR = re.compile(r"([0-9]{1,9})-([0-9]{1,12})")


def _valid_cursor(value: str) -> str:
    if not _CURSOR.fullmatch(value):
        raise ValueError("is not the `next_after` of a page")
    return value


class ResultQuery(BaseModel):
    """`?limit=&after=` of the results."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(1000, ge=1, le=5000, description="Maximum number of hosts per page.")
    after: Annotated[str, AfterValidator(_valid_cursor)] | None = Field(
        None,
        description="Cursor: `next_after` of the page before this one.",
        json_schema_extra={"pattern": f"^{_CURSOR.pattern}$"},
    )


class AnsibleTaskResult(PrivateResource):
    """The result of each play task on each host.

    A page ends after `limit` hosts, or after 8 MiB of results; a host with very many continues on the next page.
    """

    def get(self, task_id: str) -> Response:
        """Read a task's results by host"""
        query = parse_query(ResultQuery)
        recorded_position(task_id)
        task = visible_task(task_id)
        rank, seq = (int(part) for part in (query.after or "0-0").split("-"))
        page = _Page(rank, seq)
        store = web_context().store
        store.keep_while_read([task_id])
        page.fill(store, task_id, query.limit)
        response = Response(page.body(task, store), mimetype="application/json")
        store.recorded_position(task_id)  # what was read is all there is, if it is still there
        if page.cursor:
            store.keep_while_read([task_id])  # until the client has read the next page
            response.headers.add(*serialization.request_url().next_page(after=page.cursor))
        return response


@dataclass
class _Page:
    """The hosts from a rank on, the first of them from an event on; results are kept as JSON, to count their bytes.

    cursor: where the next page starts, '' on the last page: the number of completed hosts, and the last event sent of
    the host after them.
    """

    rank: int
    seq: int
    contacted: dict[str, list[str]] = field(default_factory=dict)
    dark: dict[str, str] = field(default_factory=dict)
    hosts: list[str] = field(default_factory=list)
    bytes: int = 0
    cursor: str = ""

    def fill(self, store: Store, task_id: str, limit: int) -> None:
        while len(self.hosts) < limit:
            hosts = store.hosts(task_id, self.rank, min(_HOSTS_AT_ONCE, limit - len(self.hosts)))
            if not hosts:
                return
            # A host in the middle of which the page before has ended is read from there.
            ahead = (
                store.host_events(task_id, hosts, _READ_EVENTS, _AHEAD_BYTES) if not self.seq else [[] for _ in hosts]
            )
            for host, first in zip(hosts, ahead, strict=True):
                if self.is_full or not self._add(store, task_id, host, first):
                    self.cursor = f"{self.rank}-{self.seq}"
                    return
        if store.hosts(task_id, self.rank, 1):
            self.cursor = f"{self.rank}-0"

    @property
    def is_full(self) -> bool:
        return self.bytes >= _PAGE_BYTES

    def body(self, task: TaskStatus, store: Store) -> str:
        """Builds TaskResult as JSON."""
        event = store.stats_event(task.task_id) or {}
        stats = event.get("stats", {})
        hosts = self.hosts
        if not self.cursor and len(stats) != self.rank:
            # Hosts with counts but without results.
            hosts = [*hosts, *sorted(stats.keys() - set(_all_hosts(store, task.task_id)))]
        shown = {host: stats[host] for host in hosts if host in stats}
        contacted = {host: f"[{','.join(results)}]" for host, results in self.contacted.items()}
        fields = {
            "task_id": dumps(task.task_id),
            "state": dumps(task.state),
            "returncode": dumps(task.returncode),
            "contacted": json_object(contacted),
            "dark": json_object(self.dark),
            "stats": dumps(shown),
            "custom_stats": dumps(event.get("custom_stats", {})),
            "next_after": dumps(self.cursor or None),
        }
        return json_object(fields) + "\n"

    def _add(self, store: Store, task_id: str, host: str, first: list[dict[str, Any]]) -> bool:
        """Adds the results of a host, of which the first are read already; returns False when the page is full before
        the last."""
        self.hosts.append(host)
        for event in _results(store, task_id, host, self.seq, first):
            if self.is_full:
                return False
            text = dumps({name: event[name] for name in PlayTaskResult.model_fields})
            self.bytes += len(text)
            self.seq = event["seq"]
            if event["verdict"] == "unreachable":
                self.dark[host] = text
            else:
                self.contacted.setdefault(host, []).append(text)
        self.rank, self.seq = self.rank + 1, 0
        return True


def _results(
    store: Store, task_id: str, host: str, after: int, first: list[dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    yield from first
    after = first[-1]["seq"] if first else after
    while page := store.event_page(task_id, after, _READ_EVENTS, _READ_BYTES, host):
        yield from page
        after = page[-1]["seq"]


def _all_hosts(store: Store, task_id: str) -> Iterator[str]:
    rank = 0
    while hosts := store.hosts(task_id, rank, 1000):
        yield from hosts
        rank += len(hosts)
