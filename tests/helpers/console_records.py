"""A web server over a store that the test fills itself: lists of any length and content, without a run of Ansible."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from flansible.models import About, State
from flansible.store import Store
from flansible.web.streaming.task_list_stream import TASK_LIST
from tests.helpers.history import EMBEDDED, copy_migrated
from tests.helpers.redis_server import RedisServer
from tests.helpers.services import AUDITOR
from tests.helpers.webserver import RecordedRun, WebServer, result


class Records:
    """`url` answers for what is in the store and in a history database; nothing is there at first."""

    def __init__(self, folder: Path, redis: RedisServer) -> None:
        self.folder = folder  # its playbook_root too; rbac.json is in it
        (folder / "data").mkdir()
        copy_migrated(folder / "data")
        self._server = WebServer(folder, redis.url, before=EMBEDDED)
        users = json.loads((folder / "rbac.json").read_text())
        users["rbac"].append({"user": AUDITOR[0], "password": AUDITOR[1], "role": "auditor"})
        (folder / "rbac.json").write_text(json.dumps(users))
        self._redis = redis
        self.url = self._server.url
        self.store = Store(redis.url)
        self.add()  # its connections, of both kinds, are ours and no test's
        self.changes()
        self.clear()

    def add(self, count: int = 1, user: str = "admin", word: str = "run", failed: int = 0) -> list[str]:
        """So many tasks that have ended, with a result on one host, oldest first: the first `failed` of them failed."""
        found = []
        for number in range(count):
            run = RecordedRun(self.store, user, f"{user}: {word} {number}")
            run.write(b"", result(f"host{number}", "failed" if number < failed else "ok"))
            run.end(State.FAILED if number < failed else State.SUCCEEDED)
            found.append(run.task_id)
        return found

    def running(
        self, user: str = "admin", summary: str = "admin: a run that goes on", playbook: str = "", **fields: Any
    ) -> RecordedRun:
        """A task that runs, unless another one holds one of its `locks`: then it is queued."""
        if playbook:
            fields |= {"kind": "playbook", "about": About(playbook=playbook)}
        return RecordedRun(self.store, user, summary, **fields)

    def changes(self) -> int:
        """The number of the last change that followers of the list hear of."""
        return self.store.positions([TASK_LIST])[TASK_LIST].events

    def clear(self) -> None:
        client = self._redis.client()
        client.flushall()
        client.close()

    def stop(self) -> None:
        self.store.close()
        self._server.stop()
