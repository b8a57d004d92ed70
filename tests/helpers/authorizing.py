"""Requests by one user on a small tree of inventories and playbooks, for the tests of the rules."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from flansible.authorization import authorize
from flansible.authorization.isolation import Isolation
from flansible.config import Settings
from flansible.identity import users
from flansible.models import AdhocRequest, AuthorizedRun, GitRequest, PlaybookRequest

PLAY = "- hosts: all\n"
OWN = "{root}/inv/dev"
CONFINED = Isolation("bwrap")


class SharedTree:
    """A tree for many tests. One that changes it need not mend it: the next test finds it made again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._built: list[tuple[Any, ...]] = []

    def unchanged(self) -> Path:
        if not self._built or self._entries() != self._built:
            shutil.rmtree(self._folder)
            _build(self._folder)
            self._built = self._entries()
        return self._folder

    def _entries(self) -> list[tuple[Any, ...]]:
        """The folder and all below it, with what differs after a change."""
        found = []
        for folder, folders, files in os.walk(self._folder):
            for path in (folder, *(os.path.join(folder, name) for name in (*folders, *files))):
                status = os.lstat(path)
                found.append((path, status.st_ino, status.st_mode, status.st_size, status.st_mtime_ns))
        return found


def _build(top: Path) -> None:
    """Inventories, playbooks and what lies outside them, with links across every border."""
    for folder in ("inv/dev/sub", "inv/dev-prod", "inv/prod", "playbooks/team", "outside"):
        (top / folder).mkdir(parents=True)
    for file in ("inv/dev/hosts", "inv/dev/sub/hosts", "inv/dev-prod/hosts", "inv/prod/hosts", "inv/shared"):
        (top / file).write_text("host1\nlocalhost ansible_connection=local\n")
    for file in ("playbooks/site.yml", "playbooks/team/site.yml", "playbooks/team/-x.yml", "outside/evil.yml"):
        (top / file).write_text(PLAY)
    for file in ("playbooks/vault", "outside/vault"):
        (top / file).write_text("secret\n")
    links = {
        "inv/link-to-dev": "dev",
        "inv/dev/link-to-prod": "../prod",
        "inv/link-to-prod": "prod",
        "inv/dev/loop": "loop",
        "playbooks/link-out": "../outside",
        "playbooks/team/link-out.yml": "../../outside/evil.yml",
        "playbooks/team/link-in.yml": "../site.yml",
        "playbooks/vault-out": "../outside/vault",
    }
    for link, target in links.items():
        (top / link).symlink_to(target)


class Asking:
    """Requests by one user, with paths written as {root}/…"""

    def __init__(self, root: Path, settings: Settings, user: users.User, isolation: Isolation = CONFINED) -> None:
        self._root, self._settings, self._user, self._isolation = root, settings, user, isolation

    def adhoc(self, **fields: Any) -> AuthorizedRun:
        request = AdhocRequest.model_validate({"module": "ping", **self._filled(fields)})
        return authorize.authorize_adhoc(self._user, request, self._settings, self._isolation)

    def playbook(self, **fields: Any) -> AuthorizedRun:
        given = {"playbook": "site.yml", **self._filled(fields)}
        request = PlaybookRequest.model_validate(given)
        return authorize.authorize_playbook(self._user, request, self._settings, self._isolation)

    def git(self, **fields: Any) -> AuthorizedRun:
        request = GitRequest.model_validate({"playbook_dir": ".", **self._filled(fields)})
        return authorize.authorize_git(self._user, request, self._settings)

    def _filled(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self._filled(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._filled(item) for item in value]
        return value.replace("{root}", str(self._root)) if isinstance(value, str) else value


MAX_BODY_BYTES = 64 * 1024
