"""One web app over a real store and database, whose templates and schedules start tasks that no worker runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from flansible.config import Settings
from flansible.models import AuthorizedRun, State
from flansible.store import Batch, Claim, StoredEvent
from flansible.web import create_app
from flansible.web.context import WebContext

USERS: dict[str, dict[str, Any]] = {
    "dev": {"inventories": ["dev"], "may_define": ["templates"]},
    "portal": {"inventories": []},
    "nobody": {"inventories": []},
    "pat": {"groups": ["desk"]},
    "eve": {"inventories": [], "role": "auditor"},
}
# The names of issue 23.
DEPLOY: dict[str, Any] = {
    "kind": "playbook",
    "request": {"playbook": "t.yml"},
    "open": ["extra_vars.version"],
    "variables": {"version": {"type": "string", "pattern": "^[0-9.]+$", "required": True}},
    "allow": {"users": ["portal"], "groups": ["desk"]},
}
VALUES = {"extra_vars": {"version": "1.2"}}


class Site:
    """A web process without its threads, and the files that it reads."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        settings.playbook_root.mkdir(exist_ok=True)
        (settings.playbook_root / "t.yml").write_text("- hosts: all\n  tasks: []\n")
        (settings.base_dir / "dev").write_text("web1\nweb2\n")
        self.write_users(**USERS)
        self.app: Flask = create_app(settings)
        self.context: WebContext = self.app.extensions["flansible"]

    @classmethod
    @contextmanager
    def open(
        cls, make_settings: Callable[..., Settings], redis_url: str, history_url: str, **changes: Any
    ) -> Iterator[Self]:
        """A site with these settings changed; closed behind the test."""
        urls = {"CELERY_BROKER_URL": redis_url, "CELERY_RESULT_BACKEND": redis_url}
        settings = make_settings(**urls, isolation="none", audit_stdout=False, **changes)
        made = cls(settings.model_copy(update={"DATABASE_URL": history_url}))
        try:
            yield made
        finally:
            made.close()

    def write_users(self, **entries: dict[str, Any]) -> None:
        users = [{"user": name, "password": "secret", **entry} for name, entry in entries.items()]
        document = {"rbac": [{"user": "admin", "password": "secret"}, *users], "groups": [{"name": "desk"}]}
        new = self.settings.base_dir / "new"
        new.write_text(json.dumps(document))
        new.replace(self.settings.rbac_file)

    @property
    def client(self) -> FlaskClient:
        return self.app.test_client()

    def put(self, path: str, body: dict[str, Any], user: str = "dev", status: int | None = None) -> TestResponse:
        reply = self.client.put(f"/api/{path}", json=body, auth=(user, "secret"))
        assert reply.status_code == status if status else reply.status_code in (200, 201), reply.text
        return reply

    def template(self, user: str = "dev", name: str = "deploy", **changes: Any) -> dict[str, Any]:
        """Writes the template, on the inventory of dev."""
        body = {**DEPLOY, **changes}
        body["request"] = {"inventory": str(self.settings.base_dir / "dev"), **body["request"]}
        return dict(self.put(f"templates/{name}", body, user).get_json())

    def post(self, path: str, body: dict[str, Any] | None, user: str = "portal", **headers: str) -> TestResponse:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.post(f"/api/{path}", json=body, auth=(user, "secret"), headers=given)

    def launch(self, user: str = "portal", name: str = "deploy", **values: Any) -> str:
        reply = self.post(f"templates/{name}/launch", {**VALUES, **values}, user)
        assert reply.status_code == 202, reply.text
        return str(reply.get_json()["task_id"])

    def refusal(self, user: str = "portal", **values: Any) -> tuple[int, str, set[str]]:
        reply = self.post("templates/deploy/launch", {**VALUES, **values}, user)
        body = reply.get_json()
        assert "code" in body, body
        return reply.status_code, body["code"], {error["field"] for error in body["errors"]}

    def get(self, path: str, user: str = "portal") -> Any:
        return self.client.get(f"/api/{path}", auth=(user, "secret")).get_json()

    def run(self, task_id: str) -> AuthorizedRun:
        found = self.context.store.authorized_run(task_id)
        assert found is not None
        return found

    def end(self, task_id: str, state: State = State.SUCCEEDED, **stats: dict[str, int]) -> None:
        """Runs a task as a worker would, with these counts of its hosts."""
        store = self.context.store
        claim = store.claim(task_id, "worker")
        assert isinstance(claim, Claim), claim
        event = StoredEvent(json.dumps({"event": "stats", "stats": stats}), is_stats=True)
        store.append(task_id, claim.token, Batch(claim.progress, b"", (event,)))
        store.settle(task_id, state, "it ended", 0 if state is State.SUCCEEDED else 2, token=claim.token)

    def close(self) -> None:
        self.context.store.close()
