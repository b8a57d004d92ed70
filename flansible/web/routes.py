"""The one list of all URLs: flask-restful serves from this table, and the API documents are made from it."""

from __future__ import annotations

from flask import Flask
from flask_restful import Resource
from pydantic import BaseModel

from flansible import models
from flansible.definitions.kinds import KINDS, SCHEDULES, DefinitionKind
from flansible.models import (
    account_bodies,
    comparison_replies,
    definition_specs,
    hook_specs,
    host_replies,
    notification_specs,
    project_spec,
    schedule_specs,
    search_replies,
    template_specs,
)
from flansible.web.middleware.error_handlers import UniformErrorApi
from flansible.web.resources import definitions, deliveries, hooks, output, schedules
from flansible.web.resources.compare import Compare, CompareQuery
from flansible.web.resources.events import AnsibleTaskEvents, EventQuery
from flansible.web.resources.health import HealthResource
from flansible.web.resources.inventories import InventoryQuery, ListInventories
from flansible.web.resources.known_hosts import FactsQuery, Host, HostFacts, HostQuery, Hosts, HostsQuery
from flansible.web.resources.metrics import MetricsResource
from flansible.web.resources.output import AnsibleTaskOutput, OutputQuery
from flansible.web.resources.own_account import OwnPassword, OwnToken, OwnTokens, Users
from flansible.web.resources.playbooks import ListPlaybooks, PlaybookQuery
from flansible.web.resources.preview import Preview
from flansible.web.resources.projects import ProjectRemoteResource
from flansible.web.resources.results import AnsibleTaskResult, ResultQuery
from flansible.web.resources.search import SearchQuery, SearchResource
from flansible.web.resources.sessions import CurrentSession, Login
from flansible.web.resources.stats import StatsQuery, StatsResource
from flansible.web.resources.submissions import AnsibleCommand, AnsiblePlaybook, Git
from flansible.web.resources.tasks import (
    AnsibleTaskCancel,
    AnsibleTaskRequest,
    AnsibleTasks,
    AnsibleTaskStatus,
    CancelQuery,
    ListQuery,
)
from flansible.web.resources.templates import LaunchQuery, TemplateLauncher
from flansible.web.route_types import Header, Route
from flansible.web.serialization import JSON, PROMETHEUS_TEXT
from flansible.web.streaming import follow, sse

_KEY = Header(
    "Idempotency-Key",
    "A key that the client chooses for this request. Sent again with the same body within 24 hours, it starts nothing, "
    "and the reply names the same task.",
    {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[\\x21-\\x7e]+$"},
)
_REPLAYED = Header("Idempotency-Replayed", "`true` when an earlier request started the task.", {"enum": ["true"]})
_LOCATION = Header("Location", "The URL of the task's status.", {"type": "string", "format": "uri-reference"})
_LAST_EVENT_ID = Header(
    sse.LAST_EVENT_ID,
    "For a stream, instead of `after`: the last `seq` received. Browsers send it when they reconnect.",
    {"type": "string", "pattern": "^[0-9]{0,12}$"},
)
_LINK = Header("Link", 'The URL of the next page, as `rel="next"`; absent on the last page.', {"type": "string"})
_NEXT_OFFSET = Header(
    output.NEXT_OFFSET, "The offset at which to continue. Not when following.", {"type": "integer", "minimum": 0}
)
_FINAL = Header(output.FINAL, "Whether the output is complete. Not when following.", {"enum": ["true", "false"]})


def _submission(path: str, resource: type[Resource], body: type[BaseModel], is_run: bool = True) -> Route:
    return Route(
        path,
        "post",
        resource,
        models.Accepted,
        status=202,
        body=body,
        headers=(_KEY,),
        reply_headers=(_LOCATION, _REPLAYED),
        errors=(403, 404, 409, 413, 415, 429, 502, 503) if is_run else (403, 404, 409, 413, 415, 429, 503),
    )


_ETAG = Header("ETag", "Of this version, for `If-Match`.", {"type": "string"})
_CONDITIONS = (
    Header(
        "If-Match", "ETags, one of which the present version must have; `*`: there must be one.", {"type": "string"}
    ),
    Header("If-None-Match", "`*`: there must be none of this name yet.", {"type": "string", "enum": ["*"]}),
)


def _definition_routes(kind: DefinitionKind) -> tuple[Route, ...]:
    one, many = definitions.for_kind(kind)
    path = f"/api/{kind.name}"
    return (
        Route(
            path,
            "get",
            many,
            kind.page,
            query=definitions.DefinitionsQuery,
            reply_headers=(_LINK,),
            errors=(503,),
        ),
        Route(
            f"{path}/<string:name>",
            "put",
            one,
            kind.reply,
            also=(201,),
            body=kind.spec,
            headers=_CONDITIONS,
            reply_headers=(_ETAG,),
            errors=(403, 412, 413, 415, 503),
            name=f"put_{kind.name}",
        ),
        Route(
            f"{path}/<string:name>",
            "get",
            one,
            kind.reply,
            reply_headers=(_ETAG,),
            errors=(404, 503),
            name=f"get_{kind.name}",
        ),
        Route(
            f"{path}/<string:name>",
            "delete",
            one,
            None,
            status=204,
            media_types=(),
            headers=_CONDITIONS,
            errors=(403, 404, 412, 413, 415, 503),
            name=f"delete_{kind.name}",
        ),
    )


_COOKIE = Header("Set-Cookie", "The session cookie.", {"type": "string"})

ROUTES: tuple[Route, ...] = (
    _submission("/api/ansiblecommand", AnsibleCommand, models.AdhocRequest),
    _submission("/api/ansibleplaybook", AnsiblePlaybook, models.PlaybookRequest),
    _submission("/api/git", Git, models.GitRequest, is_run=False),
    Route("/api/ansibletaskstatus/<string:task_id>", "get", AnsibleTaskStatus, models.TaskStatus, errors=(404, 503)),
    Route(
        "/api/ansibletaskoutput/<string:task_id>",
        "get",
        AnsibleTaskOutput,
        None,
        query=OutputQuery,
        reply_headers=(_NEXT_OFFSET, _FINAL),
        media_types=("text/plain", "text/html"),
        errors=(404, 410, 503),
    ),
    Route(
        "/api/ansibletaskevents/<string:task_id>",
        "get",
        AnsibleTaskEvents,
        models.EventPage,
        query=EventQuery,
        headers=(_LAST_EVENT_ID,),
        reply_headers=(_LINK,),
        media_types=(JSON, sse.STREAM),
        empty=(204,),
        errors=(404, 410, 503),
    ),
    Route(
        "/api/ansibletaskresult/<string:task_id>",
        "get",
        AnsibleTaskResult,
        models.TaskResult,
        query=ResultQuery,
        reply_headers=(_LINK,),
        errors=(404, 410, 503),
    ),
    Route("/api/ansibletaskrequest/<string:task_id>", "get", AnsibleTaskRequest, models.TaskRequest, errors=(404, 503)),
    Route(
        "/api/ansibletaskcancel/<string:task_id>",
        "post",
        AnsibleTaskCancel,
        models.TaskStatus,
        status=202,
        query=CancelQuery,
        also=(200,),
        errors=(403, 404, 409, 413, 415, 503),
    ),
    Route(
        "/api/ansibletasks",
        "get",
        AnsibleTasks,
        models.TaskList,
        query=ListQuery,
        headers=(_LAST_EVENT_ID,),
        reply_headers=(_LINK,),
        media_types=(JSON, sse.STREAM),
        errors=(403, 503),
    ),
    Route(
        "/api/search",
        "get",
        SearchResource,
        search_replies.SearchPage,
        query=SearchQuery,
        reply_headers=(_LINK,),
        errors=(503,),
    ),
    Route(
        "/api/compare",
        "get",
        Compare,
        comparison_replies.Comparison,
        query=CompareQuery,
        reply_headers=(_LINK,),
        empty=(204,),
        errors=(404, 410, 503),
    ),
    Route(
        "/api/hosts",
        "get",
        Hosts,
        host_replies.HostList,
        query=HostsQuery,
        reply_headers=(_LINK,),
        errors=(503,),
    ),
    Route(
        "/api/hosts/<string:name>",
        "get",
        Host,
        host_replies.HostDetails,
        query=HostQuery,
        reply_headers=(_LINK,),
        errors=(404, 503),
        name="host",
    ),
    Route(
        "/api/hosts/<string:name>/facts",
        "get",
        HostFacts,
        host_replies.HostFactsReply,
        query=FactsQuery,
        errors=(404, 503),
        name="host_facts",
    ),
    Route(
        "/api/preview",
        "post",
        Preview,
        models.PreviewReply,
        body=models.PreviewRequest,
        errors=(403, 413, 415, 502, 503),
    ),
    Route(
        "/api/listplaybooks",
        "get",
        ListPlaybooks,
        models.PlaybookList,
        query=PlaybookQuery,
        errors=(403, 404, 502, 503),
    ),
    Route(
        "/api/listinventories",
        "get",
        ListInventories,
        models.InventoryList,
        query=InventoryQuery,
        errors=(403, 404, 502, 503),
    ),
    Route("/api/stats", "get", StatsResource, models.ServiceStats, query=StatsQuery, errors=(503,)),
    Route(
        "/api/session",
        "post",
        Login,
        models.SessionReply,
        body=models.LoginBody,
        reply_headers=(_COOKIE,),
        public=True,
        errors=(401, 403, 413, 415, 429, 503),
        name="login",
    ),
    Route("/api/session", "get", CurrentSession, models.SessionReply, errors=(503,)),
    Route("/api/session", "delete", CurrentSession, None, status=204, media_types=(), name="logout", errors=(403, 503)),
    Route(
        "/api/account/password",
        "put",
        OwnPassword,
        None,
        status=204,
        media_types=(),
        body=account_bodies.PasswordChange,
        reply_headers=(_COOKIE,),
        name="password",
        errors=(403, 413, 415, 503),
    ),
    Route("/api/account/tokens", "get", OwnTokens, account_bodies.AccountTokens, name="tokens", errors=(503,)),
    Route(
        "/api/account/tokens",
        "post",
        OwnTokens,
        account_bodies.NewAccountToken,
        status=201,
        body=account_bodies.TokenRequest,
        name="create_token",
        errors=(403, 409, 413, 415, 503),
    ),
    Route(
        "/api/account/tokens/<string:token_id>",
        "delete",
        OwnToken,
        None,
        status=204,
        media_types=(),
        name="revoke_token",
        errors=(403, 404, 413, 415, 503),
    ),
    Route("/api/users", "get", Users, account_bodies.DescribedUsers, errors=(403, 503)),
    Route(
        "/api/templates/<string:name>/launch",
        "post",
        TemplateLauncher,
        models.Accepted,
        status=202,
        body=template_specs.LaunchBody,
        query=LaunchQuery,
        headers=(_KEY,),
        reply_headers=(_LOCATION, _REPLAYED),
        other=(200, models.PreviewReply),
        errors=(403, 404, 409, 413, 415, 429, 502, 503),
        name="launch_template",
    ),
    Route(
        "/api/schedules/<string:name>/occurrences",
        "get",
        schedules.ScheduleOccurrences,
        schedule_specs.OccurrenceList,
        query=schedules.OccurrencesQuery,
        reply_headers=(_LINK,),
        errors=(404, 503),
        name="schedule_occurrences",
    ),
    Route(
        "/api/schedules/<string:name>/run",
        "post",
        schedules.ScheduleRun,
        models.Accepted,
        status=202,
        query=schedules.RunQuery,
        headers=(_KEY,),
        reply_headers=(_LOCATION, _REPLAYED),
        errors=(403, 404, 409, 413, 415, 429, 502, 503),
        name="run_schedule",
    ),
    *(
        Route(
            f"/api/schedules/<string:name>/{verb}",
            "post",
            resource,
            SCHEDULES.reply,
            body=body,
            query=query,
            reply_headers=(_ETAG,),
            errors=(403, 404, 413, 415, 503),
            name=f"{verb}_schedule",
        )
        for verb, resource, body, query in (
            ("pause", schedules.SchedulePause, schedule_specs.PauseBody, None),
            ("resume", schedules.ScheduleResume, None, None),
            ("skip", schedules.ScheduleSkip, None, schedules.SkipQuery),
        )
    ),
    *(route for kind in KINDS for route in _definition_routes(kind)),
    Route(
        "/api/projects/<string:name>/remote",
        "get",
        ProjectRemoteResource,
        project_spec.ProjectRemote,
        errors=(403, 404, 503),
        name="project_remote",
    ),
    Route(
        "/api/projects/<string:name>/remote",
        "post",
        ProjectRemoteResource,
        project_spec.ProjectRemote,
        errors=(403, 404, 413, 415, 502, 503),
        name="ask_remote",
    ),
    Route("/api/definitions", "get", definitions.DefinitionKinds, definition_specs.KindList, errors=(503,)),
    Route(
        "/api/apply",
        "post",
        definitions.Apply,
        definition_specs.ApplyReply,
        body=definition_specs.ApplyRequest,
        errors=(403, 413, 415, 503),
    ),
    Route(
        "/api/deliveries",
        "get",
        deliveries.Deliveries,
        notification_specs.DeliveryList,
        query=deliveries.DeliveryQuery,
        reply_headers=(_LINK,),
        errors=(503,),
    ),
    Route(
        "/api/deliveries/<string:delivery_id>",
        "get",
        deliveries.Delivery,
        notification_specs.DeliveryFields,
        name="delivery",
        errors=(404, 503),
    ),
    Route(
        "/api/deliveries/<string:delivery_id>/redeliver",
        "post",
        deliveries.Redeliver,
        notification_specs.DeliveryFields,
        status=202,
        name="redeliver",
        errors=(403, 404, 413, 415, 503),
    ),
    Route(
        "/api/hooks/<string:name>",
        "post",
        hooks.Hook,
        hook_specs.HookReply,
        status=202,
        also=(200,),
        public=True,
        name="hook",
        errors=(401, 403, 404, 409, 413, 415, 429, 502, 503),
    ),
    Route(
        "/api/hookcalls",
        "get",
        hooks.HookCallLog,
        hook_specs.HookCallList,
        query=hooks.HookCallQuery,
        reply_headers=(_LINK,),
        errors=(503,),
    ),
    Route(
        "/api/hookcalls/<string:call_id>",
        "get",
        hooks.OneHookCall,
        hook_specs.HookCall,
        name="hook_call",
        errors=(404, 503),
    ),
    Route(
        "/api/hookcalls/<string:call_id>/again",
        "post",
        hooks.HookCallAgain,
        hook_specs.HookReply,
        status=202,
        query=schedules.RunQuery,
        name="hook_call_again",
        headers=(_KEY,),
        errors=(403, 404, 409, 413, 415, 502, 503),
    ),
    Route("/api/health", "get", HealthResource, models.Health, public=True, also=(503,)),
    Route(
        "/metrics",
        "get",
        MetricsResource,
        None,
        media_types=(PROMETHEUS_TEXT,),
        public=True,
        errors=(401, 403, 404, 503),
        name="metrics",
    ),
)


def register(app: Flask) -> None:
    follow.register(app)
    api = UniformErrorApi(app)
    # A resource with several methods has several routes, and is added once.
    for resource, route in {route.resource: route for route in reversed(ROUTES)}.items():
        api.add_resource(resource, route.path, endpoint=route.endpoint)
