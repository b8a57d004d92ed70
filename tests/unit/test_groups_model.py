"""Generated files of users and groups, against a plain model of "one entry allows the whole of it".

CASES=10000 tries more requests than the some hundred that are tried every time; at night it is 20,000.
"""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import pytest

from flansible.authorization import authorize, lost_rights
from flansible.authorization.isolation import Isolation
from flansible.config import Settings
from flansible.errors import Forbidden, InvalidRequest, NotFound
from flansible.identity import users as rbac_users
from flansible.models import AdhocRequest, AuthorizedRun, GitRequest, PlaybookRequest

pytestmark = [pytest.mark.generates, pytest.mark.timeout(3600)]
CASES = int(os.environ.get("CASES", "800"))
REQUESTS_OF_A_FILE = 40
Entry = dict[str, Any]

INVENTORIES = ("inv/dev", "inv/stage", "inv/prod", "inv/prod/eu")
PLAYBOOKS = ("site.yml", "web/deploy.yml", "db/deploy.yml")
GLOBS = {  # what each selects, written down by hand
    "site.yml": {"site.yml"},
    "*.yml": {"site.yml"},
    "web/**": {"web/deploy.yml"},
    "**/deploy.yml": {"web/deploy.yml", "db/deploy.yml"},
    "**": set(PLAYBOOKS),
}
MODULES = {"ping": {"ping", "p*"}, "setup": {"setup"}, "shell": {"shell", "s*ll"}}
HOSTS = {"web1": {"web1", "web*", "~web[0-9]"}, "web2": {"web2", "web*", "~web[0-9]"}, "db1": {"db1", "d?1"}}
VARIABLES = ("STAGE", "COLOUR")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = Path(os.path.realpath(tmp_path_factory.mktemp("groups")))
    for path in INVENTORIES:
        (top / path).mkdir(parents=True)
        (top / path / "hosts").write_text("web1\nweb2\ndb1\n")
    for path in PLAYBOOKS:
        (top / "playbooks" / path).parent.mkdir(parents=True, exist_ok=True)
        (top / "playbooks" / path).write_text("- hosts: all\n")
    return top


def entry_of(dice: random.Random) -> Entry:
    """An entry as somebody could write it: each key is left out as often as not."""
    made: Entry = {}

    def maybe(key: str, choose: Any) -> None:
        if dice.random() < 0.4:
            made[key] = choose()

    made["inventories"] = dice.sample(INVENTORIES, dice.choice((0, 1, 1, 2)))
    maybe("role", lambda: dice.choice(("operator", "operator", "viewer", "auditor")))
    maybe("playbooks", lambda: dice.sample(sorted(GLOBS), dice.randint(0, 2)))
    names = sorted(set().union(*MODULES.values()))
    maybe("modules", lambda: {dice.choice(("allow", "deny")): dice.sample(names, dice.randint(0, 3))})
    patterns = sorted(set().union(*HOSTS.values()))
    maybe("hosts", lambda: dice.sample(patterns, dice.randint(0, 3)))
    maybe("become", lambda: dice.choice((True, False)))
    maybe("git", lambda: dice.choice((True, False)))
    maybe("environment", lambda: dice.sample(VARIABLES, 1))
    maybe("limits", lambda: {"forks": dice.choice((2, 5, 10))})
    return made


def document_of(dice: random.Random) -> dict[str, Any]:
    """Users and groups. Some groups have the name of a user."""
    names = dice.sample(("lee", "pat", "ops", "web", "admin"), dice.randint(0, 4))
    groups = [{"name": name, **entry_of(dice)} for name in names]
    users: list[Entry] = [{"user": "admin", "password": "x"}]
    for name in ("lee", "pat"):
        own = entry_of(dice) if dice.random() < 0.7 else {}
        member_of = {"groups": dice.sample(names, dice.randint(0, len(names)))} if dice.random() < 0.9 else {}
        users.append({"user": name, "password": "x", **own, **member_of})
    return {"rbac": users, "groups": groups}


def request_of(dice: random.Random) -> dict[str, Any]:
    """A request: what is asked for, in the words of the vocabularies."""
    asked: dict[str, Any] = {"kind": dice.choice(("adhoc", "adhoc", "playbook", "playbook", "git"))}
    asked["inventories"] = dice.sample(INVENTORIES, dice.choice((1, 1, 1, 2)))
    asked["module"], asked["playbook"] = dice.choice(sorted(MODULES)), dice.choice(PLAYBOOKS)
    asked["host"] = dice.choice((*HOSTS, None))
    asked["become"] = dice.random() < 0.2
    asked["variable"] = dice.choice((None, None, None, *VARIABLES))
    asked["forks"] = dice.choice((None, None, 1, 4, 8, 20))
    return asked


# The model, in the words of the documents, on the file as it is written.


def model_allows(entry: Entry, asked: dict[str, Any], forks: int | None, is_by_groups: bool) -> bool:
    """Whether this entry allows the whole of the request."""
    if entry.get("role", "operator") != "operator":
        return False
    if asked["kind"] == "git":
        return bool(entry.get("git", "playbooks" not in entry and not is_by_groups))
    inventories = entry.get("inventories", [])
    if not all(any((path + "/").startswith(own + "/") for own in inventories) for path in asked["inventories"]):
        return False
    if asked["become"] and not entry.get("become", True):
        return False
    if asked["variable"] and asked["variable"] not in entry.get("environment", []):
        return False
    if asked["forks"] and forks and asked["forks"] > forks:
        return False
    if asked["host"] and "hosts" in entry and not HOSTS[asked["host"]] & set(entry["hosts"]):
        return False
    if asked["kind"] == "playbook":
        globs = entry.get("playbooks")
        return globs is None or any(asked["playbook"] in GLOBS[glob] for glob in globs)
    modules, name = entry.get("modules", {}), asked["module"]
    if "allow" in modules and not MODULES[name] & set(modules["allow"]):
        return False
    return not MODULES[name] & set(modules.get("deny", []))


def model(document: dict[str, Any], user: str, asked: dict[str, Any]) -> str | None:
    """The name of the entry that allows the request; None when it is refused."""
    own = next(entry for entry in document["rbac"] if entry["user"] == user)
    groups = {group["name"]: group for group in document["groups"]}
    member_of = [groups[name] for name in own.get("groups", [])]
    given = [entry["limits"]["forks"] for entry in member_of if "limits" in entry]
    forks = own.get("limits", {}).get("forks") or min(given, default=None)
    is_by_groups = bool(member_of) and not own.get("inventories")
    if model_allows(own, asked, forks, is_by_groups):
        return "own"
    return next((f"group:{one['name']}" for one in member_of if model_allows(one, asked, forks, False)), None)


# The service.


def authorized(user: rbac_users.User, asked: dict[str, Any], top: Path, settings: Settings) -> AuthorizedRun | None:
    options: dict[str, Any] = {"inventory": [str(top / path) for path in asked["inventories"]]}
    options |= {"become": True} if asked["become"] else {}
    options |= {"environment": {asked["variable"]: "1"}} if asked["variable"] else {}
    options |= {"forks": asked["forks"]} if asked["forks"] else {}
    isolation = Isolation("bwrap")
    try:
        if asked["kind"] == "git":
            return authorize.authorize_git(user, GitRequest(playbook_dir="."), settings)
        if asked["kind"] == "playbook":
            limit = {"limit": asked["host"]} if asked["host"] else {}
            play = PlaybookRequest.model_validate({"playbook": asked["playbook"], **limit, **options})
            return authorize.authorize_playbook(user, play, settings, isolation)
        body = {"module": asked["module"], "host_pattern": asked["host"] or "all", **options}
        if asked["module"] == "shell":
            body["module_args"] = "id"
        return authorize.authorize_adhoc(user, AdhocRequest.model_validate(body), settings, isolation)
    except (Forbidden, NotFound, InvalidRequest) as refusal:
        assert isinstance(refusal, Forbidden), refusal.message
        return None


def test_a_request_is_allowed_when_the_model_has_one_entry_that_allows_the_whole(tree: Path) -> None:
    settings = Settings(base_dir=tree, playbook_root=tree / "playbooks", rbac_file=tree / "rbac.json")
    dice = random.Random(20260)
    seen = {"own": 0, "group": 0, "refused": 0}
    for _ in range(0, CASES, REQUESTS_OF_A_FILE):
        document = document_of(dice)
        users = rbac_users.parse(json.dumps(document), tree / "rbac.json")
        for _ in range(REQUESTS_OF_A_FILE):
            user, asked = users[dice.choice(("lee", "pat"))], request_of(dice)
            expected, run = model(document, user.name, asked), authorized(user, asked, tree, settings)
            context = json.dumps({"document": document, "user": user.name, "asked": asked})
            assert (run.entry if run else None) == expected, context
            seen[(expected or "refused").partition(":")[0]] += 1
            if run is not None:
                entry = next(one for one in user.entries if one.entry == run.entry)
                assert run.confinement == authorize.confinement_of(entry), context
                granted = next(
                    one for one in (*document["rbac"], *document["groups"]) if entry_name(one, user.name) == run.entry
                )
                assert run.confinement is not None
                assert run.confinement.inventories == tuple(
                    str(tree / path) for path in granted.get("inventories", [])
                ), context
                lost_rights.check(user, run, settings.model_copy(update={"isolation": "none"}))
    assert min(seen.values()) > CASES / 40, f"{seen}: the requests are too much alike"


def entry_name(entry: Entry, user: str) -> str:
    """The name of an entry as runs of this user record it; empty for entries of other users."""
    if "name" in entry:
        return f"group:{entry['name']}"
    return "own" if entry["user"] == user else ""
