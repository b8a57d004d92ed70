"""Projects: commits that their remotes have named for refs, how that went, and whose trees are on which worker; and
choices of templates' variables, as they were read a moment ago."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any

from flansible.store.connection import Connection, text, translated
from flansible.store.keys import choices_key, commit_key, lookups_key, project_key, trees_key

TREES_LOST_SECONDS = 180.0
_REPORTED_SECONDS = 3600
_KEPT_SECONDS = 100 * 86400
_LOOKUP_SECONDS = 60  # longer than a request waits


@dataclass(frozen=True)
class KnownCommit:
    """What a ref was. ref: its name, also where the default branch was asked for; found: seconds since 1970."""

    commit: str
    ref: str
    found: float


@dataclass(frozen=True)
class RemoteState:
    """How the last look at a project's remote went. problem: in git's words, empty where it answered; commit, ref: of
    the last answer; asked: seconds since 1970."""

    asked: float
    problem: str = ""
    commit: str = ""
    ref: str = ""


@dataclass(frozen=True)
class KeptTree:
    """The tree of a commit on a worker's machine. since: when it was written; used: when a run took it last; seconds
    since 1970."""

    commit: str
    in_use: bool
    since: float
    used: float
    bytes: int


class ProjectRefs(Connection):
    """The part of Store for projects."""

    def known_commit(self, project: str, url: str, ref: str) -> KnownCommit | None:
        with translated():
            found = self._redis.get(_key(project, url, ref))
        return KnownCommit(**json.loads(text(found))) if found else None

    def keep_commit(self, project: str, url: str, ref: str, known: KnownCommit) -> None:
        with translated():
            self._redis.set(_key(project, url, ref), json.dumps(asdict(known)), ex=_KEPT_SECONDS)

    def remote_state(self, project: str) -> RemoteState | None:
        with translated():
            found = self._redis.get(project_key(project))
        return RemoteState(**json.loads(text(found))) if found else None

    def keep_remote_state(self, project: str, state: RemoteState) -> None:
        with translated():
            self._redis.set(project_key(project), json.dumps(asdict(state)), ex=_KEPT_SECONDS)

    def report_trees(self, worker: str, project: str, kept: Sequence[KeptTree]) -> None:
        """Writes which trees of a project a worker has; to be repeated within TREES_LOST_SECONDS."""
        key = trees_key(project)
        with translated():
            if not kept:
                self._redis.hdel(key, worker)
                return
            pipeline = self._redis.pipeline()
            report = {"time": time.time(), "trees": [asdict(one) for one in kept]}
            pipeline.hset(key, worker, json.dumps(report))
            pipeline.expire(key, _REPORTED_SECONDS)
            pipeline.execute()

    def trees(self, project: str) -> dict[str, list[KeptTree]]:
        """Returns the trees of a project by the workers that have reported lately."""
        with translated():
            found = self._redis.hgetall(trees_key(project))
        reports = {text(worker): json.loads(text(report)) for worker, report in sorted(found.items())}
        return {
            worker: [KeptTree(**one) for one in report["trees"]]
            for worker, report in reports.items()
            if time.time() - report["time"] < TREES_LOST_SECONDS
        }

    def announce_lookup(self, task_id: str, queue: str) -> None:
        """Has a worker of the queue take this hidden task without a slot, as soon as it can."""
        key = lookups_key(queue)
        with translated():
            pipeline = self._redis.pipeline()
            pipeline.lpush(key, task_id)
            pipeline.expire(key, _LOOKUP_SECONDS)
            pipeline.execute()

    def next_lookup(self, queues: Sequence[str], seconds: int) -> str | None:
        """Takes the oldest look-up of these queues; waits so long for one."""
        with translated():
            found: Any = self._redis.brpop([lookups_key(queue) for queue in queues], timeout=seconds)
        return None if found is None else text(found[1])

    def known_choices(self, source: str) -> list[str] | None:
        """Returns the choices that a source of templates' variables gave a moment ago."""
        with translated():
            found = self._redis.get(choices_key(sha256(source.encode()).hexdigest()[:32]))
        return [str(one) for one in json.loads(text(found))] if found else None

    def keep_choices(self, source: str, found: list[str], seconds: int) -> None:
        with translated():
            self._redis.set(choices_key(sha256(source.encode()).hexdigest()[:32]), json.dumps(found), ex=seconds)


def _key(project: str, url: str, ref: str) -> str:
    return commit_key(project, sha256(f"{url}\n{ref}".encode()).hexdigest()[:32])
