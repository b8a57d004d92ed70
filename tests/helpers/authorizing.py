"""Requests by one user on a small tree of inventories and playbooks, for the tests of the rules."""

from __future__ import annotations

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


def build(tmp_path: Path) -> Path:
    """Inventories, playbooks and what lies outside them, with links across every border."""
    for folder in ("inv/dev/sub", "inv/dev-prod", "inv/prod", "playbooks/team", "outside"):
        (tmp_path / folder).mkdir(parents=True)
    for file in ("inv/dev/hosts", "inv/dev/sub/hosts", "inv/dev-prod/hosts", "inv/prod/hosts", "inv/shared"):
        (tmp_path / file).write_text("host1\nlocalhost ansible_connection=local\n")
    for file in ("playbooks/site.yml", "playbooks/team/site.yml", "playbooks/team/-x.yml", "outside/evil.yml"):
        (tmp_path / file).write_text(PLAY)
    for file in ("playbooks/vault", "outside/vault"):
        (tmp_path / file).write_text("secret\n")
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
        (tmp_path / link).symlink_to(target)
    return tmp_path


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
