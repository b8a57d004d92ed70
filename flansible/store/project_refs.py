"""Commits that the remotes of projects have named for refs, and when: for projects that are not asked each time."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from hashlib import sha256

from flansible.store.connection import Connection, text, translated
from flansible.store.keys import commit_key, project_key

_KEPT_SECONDS = 100 * 86400


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


def _key(project: str, url: str, ref: str) -> str:
    return commit_key(project, sha256(f"{url}\n{ref}".encode()).hexdigest()[:32])
