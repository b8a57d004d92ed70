"""A web server over a store, and colleagues whose rights a test changes: for what one sees of the tasks of others."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from flansible.models import Visibility
from tests.helpers.webserver import WebServer

Entry = dict[str, Any]
VIEWS = ("ansibletaskstatus", "ansibletaskrequest", "ansibletaskoutput", "ansibletaskevents", "ansibletaskresult")


class Site:
    """A web server whose rbac.json a test replaces: lee and pat are colleagues by the group ops, eve is of another."""

    def __init__(self, folder: Path, redis_url: str, **settings: Any) -> None:
        self.folder = folder
        for name in ("dev", "prod"):
            (folder / name).mkdir()
            (folder / name / "hosts").write_text("web1\n")
        self.server = WebServer(folder, redis_url, inventories=("prod",), **settings)
        self.ops: Entry = {"inventories": ["prod"], "sees": "inventories"}
        self.clients: dict[str, httpx.Client] = {}
        self.grant()

    def grant(self, ops: Entry | None = None, pat: Entry | None = None, **others: Entry) -> None:
        """Replaces rbac.json."""
        groups = [{"name": "ops", **(ops or self.ops)}, {"name": "web", "inventories": ["dev"], "sees": "inventories"}]
        users: dict[str, Entry] = {
            "admin": {},
            "lee": {"groups": ["ops"]},
            "pat": {"groups": ["ops"]} if pat is None else pat,
            "eve": {"groups": ["web"]},
            **others,
        }
        entries = [{"user": name, "password": f"{name} secret", **entry} for name, entry in users.items()]
        new = self.folder / "new.json"
        new.write_text(json.dumps({"rbac": entries, "groups": groups}))
        new.chmod(0o600)
        new.replace(self.folder / "rbac.json")

    def client(self, user: str) -> httpx.Client:
        if user not in self.clients:
            self.clients[user] = self.server.client((user, f"{user} secret"))
        return self.clients[user]

    def hang_up(self) -> None:
        """Closes the clients; the next request makes another."""
        for client in self.clients.values():
            client.close()
        self.clients.clear()

    def visibility(self, *entries: str, inventory: str = "prod", **fields: Any) -> Visibility:
        """Of a run on an inventory, that these entries have seen."""
        return Visibility(inventories=(str(self.folder / inventory),), entries=entries or ("group:ops",), **fields)

    def listed(self, who: str, **query: Any) -> list[str]:
        """The ids of all pages."""
        found: list[str] = []
        before: int | None = None
        while True:
            reply = self.client(who).get(
                "/api/ansibletasks", params={**query, **({"before": before} if before else {})}
            )
            assert reply.status_code == 200, reply.text
            found += [task["task_id"] for task in reply.json()["tasks"]]
            if (before := reply.json()["next_before"]) is None:
                return found

    def statuses(self, user: str, task_id: str) -> set[int]:
        """What each way to read the task answers."""
        return {self.client(user).get(f"/api/{view}/{task_id}").status_code for view in VIEWS}


@contextlib.contextmanager
def served(folder: Path, redis_url: str, **settings: Any) -> Iterator[Site]:
    made = Site(folder, redis_url, **settings)
    try:
        yield made
    finally:
        made.hang_up()
        made.server.stop()
