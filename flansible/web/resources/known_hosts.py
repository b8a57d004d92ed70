"""Hosts: what tasks did to each, and its facts, as far as the caller sees the tasks."""

from __future__ import annotations

import base64

from flask import Response, jsonify
from pydantic import BaseModel, ConfigDict, Field

from flansible.authorization import visibility
from flansible.errors import NotFound, Unavailable
from flansible.history.encoding import milliseconds
from flansible.history.host_history import HostHistory
from flansible.history.host_records import HostFilter, HostSummary, HostTask, TaskOnHost, TaskViewer
from flansible.models import TaskStatus, Verdict
from flansible.models.host_replies import HostDetails, HostFactsReply, HostLastTask, HostList, HostRun, KnownHost
from flansible.system.timestamps import from_milliseconds
from flansible.web import serialization
from flansible.web.context import web_context
from flansible.web.login.authentication import PrivateResource, current_user
from flansible.web.parsing import MAX_NUMBER, parse_query
from flansible.web.resources.tasks import MOMENT, MOMENT_PATTERN, Moment

_INVENTORY = "Only hosts of this inventory, as requests name it; empty for Ansible's own."
# Base64 for addresses, without padding: of each length but those that leave one over four.
_CURSOR_PATTERN = r"^([A-Za-z0-9_-]{4})*([A-Za-z0-9_-]{2,3})?$"


def _cursor(name: str, inventory: str) -> str:
    """Encodes the last host of a page."""
    return base64.urlsafe_b64encode(f"{name}\0{inventory}".encode(errors="replace")).decode().rstrip("=")


def _decoded(cursor: str) -> tuple[str, str]:
    """Decodes a cursor. Whatever has its form is a place in the list: nothing that fits it is refused."""
    text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode(errors="replace")
    name, _, inventory = text.partition("\0")
    return name, inventory


class HostsQuery(BaseModel):
    """`?limit=&after=` and filters of the hosts."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(100, ge=1, le=1000, description="Hosts per page.")
    after: str | None = Field(
        None,
        min_length=2,
        max_length=5000,
        pattern=_CURSOR_PATTERN,
        description="Cursor: `next_after` of the page before this one.",
    )
    name: str | None = Field(
        None, min_length=1, max_length=255, description="Only hosts with this text in their name; case does not matter."
    )
    inventory: str | None = Field(None, max_length=2000, description=_INVENTORY)
    verdict: Verdict | None = Field(None, description="Only hosts that fared so in their last task.")
    group: str | None = Field(
        None, min_length=1, max_length=255, description="Only hosts that were in this group when their last task ran."
    )
    stale_since: Moment | None = Field(
        None,
        description=f"Only hosts that no task has touched since then: {MOMENT}.",
        json_schema_extra={"pattern": MOMENT_PATTERN},
    )


class HostQuery(BaseModel):
    """`?inventory=&limit=&before=` of one host."""

    model_config = ConfigDict(extra="forbid")

    inventory: str | None = Field(None, max_length=2000, description=_INVENTORY)
    limit: int = Field(50, ge=1, le=500, description="Tasks per page.")
    before: int | None = Field(
        None, ge=0, le=MAX_NUMBER, description="Cursor: `next_before` of the page before this one."
    )


class FactsQuery(BaseModel):
    """`?inventory=` of a host's facts."""

    model_config = ConfigDict(extra="forbid")

    inventory: str | None = Field(None, max_length=2000, description=_INVENTORY)


class Hosts(PrivateResource):
    """The hosts of the tasks that the caller sees, by name; one of each inventory that has it.

    A task counts once it is archived, half a minute after its end (`archive_after_seconds`). With filters a page may
    have fewer hosts than `limit`, or none, even if more pages follow.
    """

    def get(self) -> Response:
        """List hosts"""
        query = parse_query(HostsQuery)
        wanted = HostFilter(
            name=query.name or "",
            inventory=query.inventory,
            verdict=query.verdict or "",
            group=query.group or "",
            stale_since=milliseconds(query.stale_since) if query.stale_since else None,
        )
        page = _history().page(wanted, _decoded(query.after) if query.after else None, query.limit)
        next_after = _cursor(*page.next_after) if page.next_after else None
        found = HostList(hosts=[_known(host) for host in page.hosts], next_after=next_after)
        response = jsonify(found.model_dump(mode="json"))
        if next_after is not None:
            response.headers.add(*serialization.request_url().next_page(after=next_after))
        return response


class Host(PrivateResource):
    """A host: how it fared last, and each task with results of it, ad-hoc commands too, newest first.

    A name that several inventories have is one host in each. Tasks that are queued or running count as well.
    """

    def get(self, name: str) -> Response:
        """Read a host"""
        query = parse_query(HostQuery)
        history = _history()
        page = history.runs(name, query.inventory, query.before, query.limit)
        hosts = history.named(name, query.inventory, page.live)
        if not hosts and not page.runs:
            raise _host_not_found()
        gathered = history.facts_gathered(name, query.inventory)
        found = HostDetails(
            name=name,
            hosts=[_known(host) for host in hosts],
            tasks=[_run(run, status) for run, status in page.runs],
            next_before=page.next_before,
            facts_gathered_at=None if gathered is None else from_milliseconds(gathered),
        )
        response = jsonify(found.model_dump(mode="json"))
        if found.next_before is not None:
            response.headers.add(*serialization.request_url().next_page(before=found.next_before))
        return response


class HostFacts(PrivateResource):
    """The facts of a host that the latest run gathered, of those that the caller sees; with `gather_facts` or `setup`.

    They are kept as long as that run's task. Secrets of its request are masked, as in its results.
    """

    def get(self, name: str) -> Response:
        """Read a host's facts"""
        query = parse_query(FactsQuery)
        found = _history().facts(name, query.inventory)
        if found is None:
            if not web_context().settings.keep_facts:
                raise NotFound("Facts are not kept here (keep_facts).", code="facts_not_found")
            raise NotFound("No run that you see has gathered facts of this host.", code="facts_not_found")
        reply = HostFactsReply(
            name=name,
            inventory=found.inventory,
            gathered_at=from_milliseconds(found.gathered),
            task_id=found.task_id,
            facts=found.facts,
        )
        return jsonify(reply.model_dump(mode="json"))


def _history() -> HostHistory:
    records, user = web_context().store, current_user()
    if records.archive is None:
        message = (
            "This service has no database, which keeps what is known of hosts. An operator has to set DATABASE_URL."
        )
        raise Unavailable(message, code="no_database")
    viewer = TaskViewer(
        user=None if user.sees_all else user.name,
        entries=visibility.readers(user),
        sees=lambda found: visibility.may_see_of_others(user, found),
    )
    return HostHistory(records, viewer)


def _host_not_found() -> NotFound:
    return NotFound("No task that you see has results of this host.", code="host_not_found")


def _known(host: HostSummary) -> KnownHost:
    return KnownHost(
        name=host.name,
        inventory=host.inventory,
        groups=None if host.groups is None else list(host.groups),
        verdict=host.verdict,  # type: ignore[arg-type]  # validated by the model
        last_task=_task(host.last),
        last_changed=_task(host.changed) if host.changed else None,
        last_failed=_task(host.failed) if host.failed else None,
    )


def _task(task: HostTask) -> HostLastTask:
    return HostLastTask.model_validate(
        {
            "task_id": task.task_id,
            "finished_at": from_milliseconds(task.finished),
            "kind": task.kind,
            "user": task.user,
            "summary": task.summary,
            "state": task.state,
        }
    )


def _run(run: TaskOnHost, status: TaskStatus) -> HostRun:
    return HostRun.model_validate(
        {
            **status.model_dump(include={"task_id", "kind", "user", "summary", "state", "submitted_at", "finished_at"}),
            "inventory": run.inventory,
            "verdict": run.verdict,
            "changed": run.changed,
            "counts": run.counts,
        }
    )
