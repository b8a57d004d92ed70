"""Task records: status, request, cancel and list. Whose tasks a user sees: flansible.authorization.visibility."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Annotated, Literal

from flask import Response, jsonify, request
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from flansible.authorization import authorize, redaction, visibility
from flansible.errors import Conflict, FieldError, Forbidden, NotFound
from flansible.identity.users import User
from flansible.models import FINAL_STATES, Kind, State, TaskRequest, TaskStatus, is_task_id
from flansible.store import ListFilter, Position, Store
from flansible.store.export import parse_moment
from flansible.system.timestamps import timestamp
from flansible.web import serialization
from flansible.web.context import web_context
from flansible.web.login.authentication import PrivateResource, current_user
from flansible.web.middleware import audit_context
from flansible.web.parsing import MAX_NUMBER, NoFields, parse_query, require_no_body
from flansible.web.serialization import JSON
from flansible.web.streaming import thread_slots
from flansible.web.streaming.follow import follow
from flansible.web.streaming.sse import STREAM, last_event_id
from flansible.web.streaming.task_list_stream import TASK_LIST, TaskListStream
from flansible.web.streaming.viewer import Viewer

_POLL_SECONDS = 0.05


MOMENT = "a date, a time (RFC 3339; UTC unless it names a zone), or how long ago: `90m`, `12h`, `7d`, `2w`"
# What API documents say of it; more is accepted.
MOMENT_PATTERN = (
    r"^([0-9]{1,4}[mhdw]|20[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])"
    r"(T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]Z)?)$"
)


def _moment(value: str) -> str:
    try:
        return timestamp(parse_moment(value))
    except (ValueError, OverflowError):
        raise ValueError(f"must be {MOMENT}") from None


Moment = Annotated[str, AfterValidator(_moment)]


class ListQuery(BaseModel):
    """`?limit=&before=&after=` and filters of the task list."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(50, ge=1, le=1000, description="Tasks per page.")
    before: int | None = Field(
        None, ge=0, le=MAX_NUMBER, description="Cursor: `next_before` of the page before this one."
    )
    state: State | None = Field(None, description="Only tasks in this state.")
    whose: Literal["mine", "team", "all"] | None = Field(
        None,
        description="`mine`: the caller's own; `team`: besides those of others on the inventories of the caller's "
        "entries in rbac.json (`sees`); `all`: of all users, for those who see all. Default: all that the caller sees.",
    )
    user: str | None = Field(
        None,
        min_length=1,
        max_length=255,
        description="Only this user's tasks, as far as the caller sees them.",
    )
    kind: Kind | None = Field(None, description="Only `adhoc`, `playbook` or `git`.")
    text: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        description="Only tasks with this text in their summary; case does not matter.",
    )
    playbook: str | None = Field(None, min_length=1, max_length=300, description="Only runs of this `playbook`.")
    template: str | None = Field(
        None, min_length=1, max_length=100, description="Only tasks that were launched from this template."
    )
    host: str | None = Field(None, min_length=1, max_length=1024, description="Only tasks with results of this host.")
    since: Moment | None = Field(
        None, description=f"Only tasks submitted from then on: {MOMENT}.", json_schema_extra={"pattern": MOMENT_PATTERN}
    )
    until: Moment | None = Field(
        None, description=f"Only tasks submitted before then: {MOMENT}.", json_schema_extra={"pattern": MOMENT_PATTERN}
    )
    changed: bool | None = Field(
        None, description="Only final tasks in which a host reported a change (`true`), or none did (`false`)."
    )
    returncode: int | None = Field(None, ge=-1, le=255, description="Only tasks with this exit code.")
    after: int | None = Field(
        None, ge=0, le=MAX_NUMBER, description="Only for a stream: the `changes` of a list, to continue from there."
    )


class CancelQuery(BaseModel):
    """`?wait=` of a cancel."""

    model_config = ConfigDict(extra="forbid")

    wait: float = Field(3, ge=0, le=60, allow_inf_nan=False, description="Maximum seconds to wait for the run to end.")


class AnsibleTaskStatus(PrivateResource):
    """The status of a task."""

    def get(self, task_id: str) -> Response:
        """Read a task's status"""
        parse_query(NoFields)
        return jsonify(serialization.reply_fields(visible_task(task_id)))


class AnsibleTaskRequest(PrivateResource):
    """The request of a task, as sent and as command lines. Secrets are redacted."""

    def get(self, task_id: str) -> Response:
        """Read a task's request"""
        parse_query(NoFields)
        task = visible_task(task_id)
        run = web_context().store.authorized_run(task.task_id)
        if run is None:
            raise task_not_found()
        found = TaskRequest(
            task_id=task_id,
            kind=run.kind,
            entry=run.entry,
            path=redaction.PATHS[run.kind],
            body=run.request,
            masked=redaction.masked_fields(run.request),
            command=redaction.command(run),
            curl=redaction.curl(run.kind, run.request, current_user().name, request.url_root),
            flansible=redaction.flansible_command(run),
        )
        return jsonify(found.model_dump(mode="json"))


class AnsibleTasks(PrivateResource):
    """The tasks that the caller sees: own ones, and those of others by `sees` in rbac.json; admin and auditors see all.

    With `kind`, `text`, `playbook`, `template`, `host` or `user`, and where those of others are seen by their
    inventories, a page may have fewer tasks than `limit`, or none, even if more pages follow. As `text/event-stream`:
    an event `task`, with the task as data, whenever a task is submitted, starts, ends, or has new results (at most once
    a second); an event `reset` when changes were missed: load the list again. Filters apply only to the list.
    """

    def get(self) -> Response:
        """List tasks, newest first"""
        query = parse_query(ListQuery)
        user = current_user()
        listed = _listed(user, query)
        store = web_context().store
        # Read before the list: a change in between is sent twice, not lost.
        changes = store.positions([TASK_LIST])[TASK_LIST].events
        last = last_event_id()
        if request.accept_mimetypes.best_match((JSON, STREAM), JSON) == STREAM:
            begin = query.after if last is None else last
            viewer = Viewer.of(user)
            stream = TaskListStream(viewer, changes if begin is None else begin)
            return follow(stream, STREAM, may_follow=viewer.is_logged_in)
        found = store.search(listed, query.before, query.limit)
        tasks = [serialization.reply_fields(task) for task in found.tasks if visibility.may_see(user, task)]
        response = jsonify({"tasks": tasks, "next_before": found.next_before, "changes": changes})
        if found.next_before is not None:
            response.headers.add(*serialization.request_url().next_page(before=found.next_before))
        return response


def _listed(user: User, query: ListQuery) -> ListFilter:
    """Raises Forbidden for tasks that the caller does not see."""
    whose = query.whose or ("all" if user.sees_all else "team")
    entries = visibility.readers(user) if whose == "team" else ()
    if whose == "all" and not user.sees_all:
        message = "You do not see the tasks of all users. Ask an admin for sees: all in rbac.json."
        raise Forbidden(f"whose: {message}", errors=[FieldError("whose", message)])
    wanted = _filter(query)
    if whose == "all":
        return replace(wanted, user=query.user)
    if query.user is None or query.user == user.name:
        return replace(wanted, user=user.name, entries=() if query.user else entries)
    if not entries:
        message = "You see no tasks of other users. Ask an admin for sees in rbac.json."
        raise Forbidden(f"user: {message}", errors=[FieldError("user", message)])
    return replace(wanted, user=user.name, entries=entries, of_user=query.user)


class AnsibleTaskCancel(PrivateResource):
    """End a task: a queued one at once, a running one with every process it started.

    200: the task is canceled; `ended` names the processes that were ended. 202: its run is being ended, and was not
    over after `wait` seconds. 409: it ended in another way, earlier or just now. 403: it is another user's, which the
    caller sees and may not cancel. Repeating the request is harmless.
    """

    def post(self, task_id: str) -> Response:
        """Cancel a task"""
        query = parse_query(CancelQuery)
        require_no_body()
        authorize.check_may_act(current_user())
        before = visible_task(task_id)
        if not visibility.may_cancel(current_user(), before):
            message = (
                f"This is a task of {before.user}. You see it, and may not cancel it. Ask {before.user} or an admin."
            )
            raise Forbidden(message, code="cancel_forbidden")
        store = web_context().store
        user = current_user().name
        state = store.cancel(task_id, user)
        if state is State.QUEUED:  # its worker was lost just now, and it was queued again
            state = store.cancel(task_id, user)
        outcome = state.value if state else "unknown"
        web_context().audit.note(audit_context.event("cancel", what=before.summary, outcome=outcome, task_id=task_id))
        if state is State.RUNNING:
            with thread_slots.slot(user) as may_wait:
                _await_end(store, task_id, query.wait if may_wait else 0)
        task = visible_task(task_id)
        if task.state in FINAL_STATES and task.state is not State.CANCELED:
            raise Conflict(f"The task is already final: {task.state.value}.", code="task_final")
        if task.state is not State.CANCELED:
            by = store.cancel_requests([task_id]).get(task_id, user)
            task = task.model_copy(
                update={"description": f"{task.description}; {by} canceled it, and it is being ended"}
            )
        response = jsonify(serialization.reply_fields(task))
        response.status_code = 200 if task.state is State.CANCELED else 202
        return response


def _filter(query: ListQuery) -> ListFilter:
    return ListFilter(
        state=query.state,
        kind=query.kind or "",
        words=query.text or "",
        playbook=query.playbook or "",
        template=query.template or "",
        host=query.host or "",
        since=query.since,
        until=query.until,
        changed=query.changed,
        returncode=query.returncode,
    )


def _await_end(store: Store, task_id: str, seconds: float) -> None:
    give_up_at = time.monotonic() + seconds
    while time.monotonic() < give_up_at and store.positions([task_id])[task_id].state is State.RUNNING:
        time.sleep(_POLL_SECONDS)


def visible_task(task_id: str) -> TaskStatus:
    """Returns the task if the caller may see it. Raises the same NotFound for one that may not be seen and for none."""
    # Only a valid id becomes part of a key: `<id>:output` would name another kind of record.
    task = web_context().store.task(task_id) if is_task_id(task_id) else None
    user = current_user()
    if task is None or not visibility.may_see(user, task):
        raise task_not_found()
    return _without_hidden_holder(task, user)


def recorded_position(task_id: str) -> Position:
    """Returns how far output and events reach of a task that the caller may see. Raises OutputExpired."""
    return web_context().store.recorded_position(visible_task(task_id).task_id)


def _without_hidden_holder(task: TaskStatus, user: User) -> TaskStatus:
    """Removes the id of the task that this one waits for, if the caller may not see that task."""
    why, _, holder_id = (task.reason or "").partition(": ")
    if not holder_id or user.sees_all:
        return task
    holder = web_context().store.task(holder_id)
    is_seen = holder is not None and visibility.may_see(user, holder)
    return task if is_seen else task.model_copy(update={"reason": f"{why}: another user"})


def task_not_found() -> NotFound:
    return NotFound("Task not found", code="task_not_found")
