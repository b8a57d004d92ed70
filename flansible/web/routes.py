"""Every URL of the API, once. flask-restful serves from this table; flansible.web.docs documents from it."""

from __future__ import annotations

from dataclasses import dataclass, field

from flask import Flask
from flask_restful import Resource
from pydantic import BaseModel

from flansible import models
from flansible.web.health import HealthResource
from flansible.web.output import AnsibleTaskOutput, OutputQuery
from flansible.web.playbooks import ListPlaybooks
from flansible.web.problems import OneShapeApi
from flansible.web.submissions import AnsibleCommand, AnsiblePlaybook, Git
from flansible.web.tasks import (
    AnsibleTaskCancel,
    AnsibleTaskResult,
    AnsibleTasks,
    AnsibleTaskStatus,
    ListQuery,
)


@dataclass(frozen=True)
class Route:
    """One URL with one method.

    reply None means text/plain. `errors` are the error statuses it can answer with, besides those every route has;
    `also` are statuses beside `status` whose body is the reply too.
    """

    path: str
    method: str
    resource: type[Resource]
    reply: type[BaseModel] | None
    status: int = 200
    body: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    public: bool = False
    errors: tuple[int, ...] = field(default=())
    also: tuple[int, ...] = field(default=())

    @property
    def endpoint(self) -> str:
        """The name `url_for` takes: the path's own word."""
        return self.path.split("/")[2]


_SUBMIT_ERRORS = (403, 413, 415, 503)

ROUTES: tuple[Route, ...] = (
    Route(
        "/api/ansiblecommand",
        "post",
        AnsibleCommand,
        models.Accepted,
        status=202,
        body=models.AdhocRequest,
        errors=(404, *_SUBMIT_ERRORS),
    ),
    Route(
        "/api/ansibleplaybook",
        "post",
        AnsiblePlaybook,
        models.Accepted,
        status=202,
        body=models.PlaybookRequest,
        errors=(404, *_SUBMIT_ERRORS),
    ),
    Route("/api/git", "post", Git, models.Accepted, status=202, body=models.GitRequest, errors=(404, *_SUBMIT_ERRORS)),
    Route("/api/ansibletaskstatus/<string:task_id>", "get", AnsibleTaskStatus, models.TaskStatus, errors=(404, 503)),
    Route(
        "/api/ansibletaskoutput/<string:task_id>", "get", AnsibleTaskOutput, None, query=OutputQuery, errors=(404, 503)
    ),
    Route("/api/ansibletaskresult/<string:task_id>", "get", AnsibleTaskResult, models.TaskResult, errors=(404, 503)),
    Route(
        "/api/ansibletaskcancel/<string:task_id>",
        "post",
        AnsibleTaskCancel,
        models.TaskStatus,
        status=202,
        also=(200,),
        errors=(404, 409, 503),
    ),
    Route("/api/ansibletasks", "get", AnsibleTasks, models.TaskList, query=ListQuery, errors=(503,)),
    Route("/api/listplaybooks", "get", ListPlaybooks, models.PlaybookList),
    Route("/api/health", "get", HealthResource, models.Health, public=True, also=(503,)),
)


def register(app: Flask) -> None:
    api = OneShapeApi(app)
    for route in ROUTES:
        api.add_resource(route.resource, route.path, endpoint=route.endpoint)
