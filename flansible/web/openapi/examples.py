"""Example replies for the API documents, and the description of each status; failure_examples.py has the errors.

Examples are instances of the models, so that none shows a reply that cannot occur; examples of requests are in the
models (`json_schema_extra`). Read by flansible.web.openapi.operations when the app is made.
"""

from __future__ import annotations

import html
from typing import Any

from pydantic import BaseModel

from flansible import __version__
from flansible.definitions.kinds import KINDS, DefinitionKind
from flansible.models import (
    FINAL_STATES,
    Accepted,
    DayStats,
    Event,
    EventPage,
    Health,
    HostStats,
    InventoryList,
    ListedInventory,
    ListedPlay,
    ListedPlaybook,
    PartHealth,
    PlannedPlay,
    PlannedTask,
    PlaybookList,
    PlaybookStats,
    PlayTaskResult,
    PreviewReply,
    ServiceStats,
    SessionReply,
    State,
    TaskList,
    TaskRequest,
    TaskResult,
    TaskStatus,
    WorkerStats,
)
from flansible.models.account_bodies import AccountToken, AccountTokens, DescribedUser, DescribedUsers, NewAccountToken
from flansible.models.comparison_replies import Comparison
from flansible.models.definition_specs import ApplyReply, DefinitionChange, KindDescription, KindList
from flansible.models.hook_specs import HookCall, HookCallList, HookReply
from flansible.models.notification_specs import Attempt, DeliveryFields, DeliveryList
from flansible.models.project_spec import ProjectRemote
from flansible.models.schedule_specs import Occurrence, OccurrenceList
from flansible.models.search_replies import SearchHit, SearchPage, SearchPlace
from flansible.web.openapi import comparison_examples, host_examples
from flansible.web.serialization import PROMETHEUS_TEXT

_TOKEN: dict[str, Any] = {
    "id": "0123456789ab",
    "scope": "run",
    "created": "2026-01-31T12:00:00Z",
    "expires": "2026-05-01T12:00:00Z",
    "is_expired": False,
}
_CSRF = "q4tO0yM1c1rAqTz0gFJ7bX0wEwBl1S0kqk1m0v9m3hY"
_TASK_ID = "7d4be01c-4f0f-4dc6-9d8c-1c1f0e0a5a52"

_OUTPUT = 'localhost | SUCCESS => {\n    "changed": false,\n    "ping": "pong"\n}\n'


def _task(**changes: Any) -> TaskStatus:
    values: dict[str, Any] = {
        "task_id": _TASK_ID,
        "Status": "SUCCESS",
        "state": State.SUCCEEDED,
        "description": "ended with exit code 0",
        "returncode": 0,
        "changed": False,
        "user": "admin",
        "kind": "adhoc",
        "summary": "admin: adhoc ping on localhost",
        "playbook": None,
        "module": "ping",
        "hosts": "localhost",
        "inventory": "../inventories/dev",
        "trigger": "api",
        "counts": {"ok": 1},
        "host_count": 1,
        "play_task_count": 1,
        "submitted_at": "2026-01-31T12:00:00.000Z",
        "started_at": "2026-01-31T12:00:00.020Z",
        "finished_at": "2026-01-31T12:00:00.350Z",
    }
    return TaskStatus(**values | changes)


_PING = PlayTaskResult(
    play="Ansible Ad-Hoc",
    task="ping",
    module="ping",
    verdict="ok",
    duration_seconds=0.21,
    result={"changed": False, "ping": "pong"},
)


def _parts(**away: str) -> dict[str, PartHealth]:
    names = ("store", "broker", "workers", "rbac", "isolation")
    return {name: PartHealth(ok=name not in away, detail=away.get(name, "answers")) for name in names}


def _event(**fields: Any) -> Event:
    return Event(**fields)


_EVENTS = [
    _event(
        seq=3,
        event="host_result",
        time="2026-01-31T12:00:00.345Z",
        play=_PING.play,
        task=_PING.task,
        module=_PING.module,
        host="localhost",
        verdict=_PING.verdict,
        duration_seconds=_PING.duration_seconds,
        result=_PING.result,
        output_start=0,
        output_end=len(_OUTPUT),
    ),
    _event(
        seq=4,
        event="final",
        time="2026-01-31T12:00:00.350Z",
        state=State.SUCCEEDED,
        returncode=0,
        description="ended with exit code 0",
        output_start=len(_OUTPUT),
        output_end=len(_OUTPUT),
    ),
]


def _of_kind(kind: DefinitionKind) -> tuple[BaseModel, BaseModel]:
    """Makes a definition and a list of them, from the example of a kind's body."""
    given: Any = kind.spec.model_config.get("json_schema_extra")
    shown = {name: value for name, value in given["example"].items() if name not in kind.sealed}
    computed: Any = kind.computed.model_config.get("json_schema_extra") if kind.computed else {"example": {}}
    one = kind.reply(
        **shown,
        **computed["example"],
        name="example",
        owner="admin",
        set=None,
        created_at="2026-01-31T12:00:00.000Z",
        updated_at="2026-01-31T12:00:00.000Z",
        etag='"5f1d0c2b9a8e7d64"',
        sealed=sorted(kind.sealed & given["example"].keys()),
    )
    # Every field of a reply is there, also one that has its default.
    one = kind.reply.model_validate(one.model_dump())
    return one, kind.page(items=[one], next_after=None)


# Replies that are text, by media type.
TEXTS = {
    PROMETHEUS_TEXT: "# HELP flansible_tasks_queued Tasks that are queued.\n# TYPE flansible_tasks_queued gauge\n"
    "flansible_tasks_queued 2.0\n",
    "text/plain": _OUTPUT,
    "text/html": f"<!DOCTYPE html><html><body><pre>{html.escape(_OUTPUT)}</pre></body></html>",
    "text/event-stream": "retry: 1000\n\n"
    + "".join(
        f"id: {item.seq}\nevent: {item.event}\ndata: {item.model_dump_json(exclude_unset=True)}\n\n" for item in _EVENTS
    ),
}

_COUNTS = ("ok", "changed", "unreachable", "failures", "skipped", "rescued", "ignored")

_SITE = ListedPlaybook(
    playbook="site.yml",
    playbook_dir="/srv/flansible/playbooks",
    description="A first playbook, which changes nothing.",
    plays=[ListedPlay(play="Greet", hosts="web")],
)

_DELIVERY = DeliveryFields(
    delivery_id="msg_0c7d1c4a2f6f4c5d9d0f3b1f7f1d2e3a",
    notification="ops",
    kind="webhook",
    task_id=_TASK_ID,
    event="failed",
    state="pending",
    created_at="2026-01-31T12:00:03.000Z",
    next_at="2026-01-31T12:00:09.000Z",
    attempts=[Attempt(at="2026-01-31T12:00:04.000Z", seconds=0.03, ok=False, detail="503")],
)
_CALL = HookCall(
    call_id="call_0c7d1c4a2f6f4c5d9d0f3b1f7f1d2e3a",
    webhook="push",
    received_at="2026-01-31T12:00:00.000Z",
    address="192.0.2.7",
    sender_id="72d3162e-cc78-11e3-81ab-4c9367dc0958",
    event="push",
    ref="refs/heads/main",
    commit="",
    outcome="started",
    reason="",
    starts_at=None,
    merged_into=None,
    task_id=_TASK_ID,
)

_REPLIES = (
    Accepted(
        task_id=_TASK_ID,
        status_url=f"/api/ansibletaskstatus/{_TASK_ID}",
        output_url=f"/api/ansibletaskoutput/{_TASK_ID}",
    ),
    _task(),
    TaskList(tasks=[_task()], next_before=None, changes=17),
    SearchPage(
        hits=[
            SearchHit(
                task=_task(),
                places=[SearchPlace(field="host", text="localhost", host=None, seq=None, line=None, offset=None)],
            )
        ],
        next_before=None,
    ),
    KindList(
        kinds=[
            KindDescription(
                kind=KINDS[0].name, title=KINDS[0].title, may_define=True, json_schema=KINDS[0].spec.model_json_schema()
            )
        ]
    ),
    NewAccountToken(token=f"flansible_{_TOKEN['id']}_{'0' * 64}", **_TOKEN),
    AccountTokens(tokens=[AccountToken(**_TOKEN)]),
    DescribedUsers(
        users=[
            DescribedUser(
                user="admin",
                role="operator",
                groups=[],
                tokens=1,
                rights=["You are admin. You may run anything, without a sandbox."],
            )
        ]
    ),
    OccurrenceList(
        items=[
            Occurrence(
                due_at="2026-01-31T01:00:00.000Z",
                outcome="started",
                detail=None,
                task_id=_TASK_ID,
                recorded_at="2026-01-31T01:00:00.310Z",
            )
        ],
        next_before=None,
    ),
    ApplyReply(dry_run=False, changes=[DefinitionChange(kind=KINDS[0].name, name="example", action="created")]),
    TaskResult(
        task_id=_TASK_ID,
        state=State.SUCCEEDED,
        returncode=0,
        contacted={"localhost": [_PING]},
        dark={},
        stats={"localhost": {name: int(name == "ok") for name in _COUNTS}},
        custom_stats={},
        next_after=None,
    ),
    TaskRequest(
        task_id=_TASK_ID,
        kind="adhoc",
        entry="own",
        path="/api/ansiblecommand",
        body={"module": "ping", "become_password": "********"},
        masked=["become_password"],
        command="cd /srv/flansible/playbooks && ansible --inventory=../inventories/dev --module-name=ping -- localhost",
        curl="curl --user admin --header 'Content-Type: application/json' ... http://127.0.0.1:3000/api/ansiblecommand",
        flansible="flansible adhoc --inventory=../inventories/dev --module-name=ping -- localhost",
    ),
    SessionReply(
        user="admin",
        role="operator",
        is_admin=True,
        groups=[],
        sees_all=True,
        sees="all",
        has_team=False,
        cancels="all",
        may_act=True,
        may_become=True,
        may_use_git=True,
        launches_only=False,
        rights=["You are admin. You may run anything, without a sandbox."],
        csrf_token=_CSRF,
        flower_url=None,
    ),
    ServiceStats(
        queued=0,
        running=1,
        workers=[WorkerStats(name="host, process 4711", slots=8, running=1)],
        days=[DayStats(day="2026-01-31", **{**dict.fromkeys(FINAL_STATES, 0), State.SUCCEEDED: 41, State.FAILED: 2})],
        playbooks=[PlaybookStats(playbook="site.yml", runs=12, failed=1, mean_seconds=3.2, longest_seconds=9.1)],
        hosts=[HostStats(host="localhost", failed=2)],
        everybody=True,
    ),
    EventPage(task_id=_TASK_ID, state=State.SUCCEEDED, events=_EVENTS, next_after=4, final=True),
    PlaybookList(playbook_root="/srv/flansible/playbooks", playbooks=[_SITE]),
    PreviewReply(
        allowed=True,
        refusal=None,
        command="cd /srv/flansible/playbooks && ansible-playbook --inventory=../inventories/dev -- site.yml",
        rights=["You are admin. You may run anything, without a sandbox."],
        plays=[
            PlannedPlay(
                play="Greet", pattern="web", hosts=["localhost"], play_tasks=[PlannedTask(name="Say hello", tags=[])]
            )
        ],
        hosts=["localhost"],
        messages=[],
        detail=None,
    ),
    InventoryList(
        inventories=[
            ListedInventory(inventory="/srv/flansible/inventories/dev", name="dev", is_default=True, exists=True)
        ]
    ),
    Health(status="ok", version=__version__, parts=_parts(), fork_servers=[], queues=[]),
    ProjectRemote(name="shop", asked_at="2026-01-31T12:00:00.000Z", ref="main", commit="3f1c" * 10, problem=None),
    _DELIVERY,
    DeliveryList(items=[_DELIVERY], next_before=None),
    HookReply(task_id=_TASK_ID, status_url=f"/api/ansibletaskstatus/{_TASK_ID}"),
    _CALL,
    HookCallList(items=[_CALL], next_before=None),
)

REPLIES: dict[type[BaseModel], BaseModel] = {type(reply): reply for reply in (*_REPLIES, *host_examples.REPLIES)}
REPLIES[Comparison] = comparison_examples.comparison(_task())
REPLIES |= {type(reply): reply for kind in KINDS for reply in _of_kind(kind)}

_CANCELING = {"Status": "PROGRESS", "state": State.RUNNING, "returncode": None, "finished_at": None}
_CANCELED = {"Status": "CANCELED", "state": State.CANCELED, "returncode": None, "ended": ["ansible (4711)"]}

# Replies that differ for one route, by endpoint and status.
ROUTE_REPLIES: dict[tuple[str, int], BaseModel] = {
    ("health", 503): Health(
        status="unavailable",
        version=__version__,
        parts=_parts(workers="no worker answers"),
        fork_servers=[],
        queues=[],
    ),
    ("hook", 200): HookReply(ignored="ref does not match"),
    ("ansibletaskcancel", 202): _task(
        **_CANCELING, description="running on flansible@host; admin canceled it, and it is being ended"
    ),
    ("ansibletaskcancel", 200): _task(**_CANCELED, description="canceled by admin"),
}

STATUS_DESCRIPTIONS = {
    200: "The reply.",
    201: "Made; there was none of this name.",
    204: "Nothing. No event follows `Last-Event-ID`: the stream has ended, and browsers stop reconnecting; or there is "
    "nothing to compare with (`if_any`).",
    202: "Accepted; it continues after this reply. Poll the task's status.",
    400: "The body or the query string is invalid; `errors` names each faulty field.",
    401: "No valid user and password, token or session.",
    403: "The user or the token is not allowed to do this; `code` names the rule that refused.",
    404: "It does not exist, or belongs to another user.",
    408: "The request took too long to arrive.",
    410: "It was deleted, since it is older than such things are kept.",
    409: "Its state does not allow this.",
    412: "It is not of the version that `If-Match` names, or it exists (`If-None-Match: *`).",
    413: "The body is over `max_body_bytes`.",
    415: "The body is not `application/json`.",
    414: "The URL, with its query string, is longer than 8,190 bytes.",
    431: "A header is longer than 8,190 bytes, or there are more than 100.",
    429: "Too many requests; try again after the seconds in `Retry-After`.",
    500: "Something failed on our side; the web server's log has the details.",
    502: "The remote of the project cannot be read; `message` has git's own words.",
    503: "A part of the service does not answer; try again after the seconds in `Retry-After`.",
}
