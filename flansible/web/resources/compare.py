"""What differs between two tasks: by default between a task and the last success of the same."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from flask import Response, jsonify
from pydantic import BaseModel, ConfigDict, Field, create_model

from flansible.authorization import redaction, visibility
from flansible.errors import NotFound
from flansible.history.baseline import Baseline, last_success
from flansible.history.comparison import DifferentHost, compare_hosts
from flansible.history.request_differences import request_differences
from flansible.models import AuthorizedRun, TaskStatus, comparison_replies
from flansible.store import ListFilter, Store
from flansible.web import serialization
from flansible.web.context import web_context
from flansible.web.login.authentication import PrivateResource, current_user
from flansible.web.parsing import parse_query
from flansible.web.resources.tasks import recorded_position, task_not_found, visible_task

_SECONDS = 2.0  # for which results are read; then the page ends


class _Paging(BaseModel):
    model_config = ConfigDict(extra="forbid")

    limit: int = Field(200, ge=1, le=1000, description="Hosts that differ per page.")
    after: str | None = Field(
        None, min_length=1, max_length=4096, description="Cursor: `next_after` of the page before this one."
    )
    if_any: bool = Field(
        False, description="Without `with`: answer 204 instead of 404 where no earlier run of the same has succeeded."
    )


# `with` cannot be written as a field of a class.
_FIELDS: dict[str, Any] = {
    "task": (str, Field(min_length=1, max_length=100, description="The task.")),
    "with": (
        str | None,
        Field(
            None,
            min_length=1,
            max_length=100,
            description="The task that it is compared with; default: the last one before it that succeeded, of the "
            "same playbook or module, inventory and limit.",
        ),
    ),
}
CompareQuery = create_model("CompareQuery", __base__=_Paging, __doc__="`?task=&with=` of a comparison.", **_FIELDS)


class Compare(PrivateResource):
    """What differs between two tasks: in their requests, and in the results of each host.

    A page ends after `limit` hosts that differ, after 5,000 play tasks that do, or after two seconds; `next_after`
    continues it. Secrets are masked in both.
    """

    def get(self) -> Response:
        """Compare two tasks"""
        query = parse_query(CompareQuery).model_dump()
        task = visible_task(query["task"])
        recorded_position(task.task_id)
        found = None if query["with"] else _baseline(task)
        if found is None and not query["with"]:
            if query["if_any"]:
                return _nothing()
            message = "No earlier run of the same that you see has succeeded. Name another task in `with`."
            raise NotFound(message, code="no_earlier_success")
        other = visible_task(query["with"] or _id_of(found))
        recorded_position(other.task_id)
        store = web_context().store
        store.keep_while_read([task.task_id, other.task_id])
        hosts = compare_hosts(store, task.task_id, other.task_id, query["after"] or "", query["limit"], _SECONDS)
        run, other_run = _run(store, task), _run(store, other)
        masked = {*redaction.masked_fields(run.request), *redaction.masked_fields(other_run.request)}
        for one in (task, other):
            store.recorded_position(one.task_id)  # what was read is all there is, if it is still there
        reply = {
            "task": serialization.reply_fields(task),
            "other": serialization.reply_fields(other),
            "failures_between": found.failures if found else None,
            "request": [asdict(one) for one in request_differences(_asked(run, task), _asked(other_run, other))],
            "masked": sorted(masked),
            "hosts": [_host(one) for one in hosts.hosts],
            "compared_hosts": hosts.compared,
            "next_after": hosts.next_after,
        }
        response = jsonify(reply)
        if hosts.next_after is not None:
            store.keep_while_read([task.task_id, other.task_id])  # until the client has read the next page
            response.headers.add(
                *serialization.request_url().next_page(after=hosts.next_after, **{"with": other.task_id})
            )
        return response


def _nothing() -> Response:
    response = Response(status=204)
    del response.headers["Content-Type"]
    return response


def _baseline(task: TaskStatus) -> Baseline | None:
    user = current_user()
    seen = ListFilter() if user.sees_all else ListFilter(user=user.name, entries=visibility.readers(user))
    return last_success(web_context().store, task, seen, lambda other: visibility.may_see(user, other))


def _id_of(found: Baseline | None) -> str:
    assert found is not None
    return found.task.task_id


def _asked(run: AuthorizedRun, task: TaskStatus) -> dict[str, Any]:
    """Returns the request as sent, and the commit that was run, which is what a branch was then."""
    return {**run.request, **({"commit": task.commit} if task.commit else {})}


def _run(store: Store, task: TaskStatus) -> AuthorizedRun:
    run = store.authorized_run(task.task_id)
    if run is None:
        raise task_not_found()
    return run


def _host(found: DifferentHost) -> dict[str, Any]:
    fields = asdict(found)
    for play_task in fields["play_tasks"]:
        play_task["task"] = play_task.pop("play_task")
    return comparison_replies.HostDifference.model_validate(fields).model_dump(mode="json")
