"""Who sees and cancels a task of another user: by its inventories and hosts, then and now."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flansible.authorization import preview_request, visibility
from flansible.authorization.isolation import Isolation
from flansible.config import Settings
from flansible.errors import ConfigurationError
from flansible.identity import users as rbac_users
from flansible.identity.users import User
from flansible.models import AuthorizedRun, State, TaskStatus
from tests.helpers.authorizing import Asking

DEV, PROD = "{root}/inv/dev", "{root}/inv/prod"
Entry = dict[str, Any]
LOOKS: Entry = {"sees": "inventories"}


@pytest.fixture
def root(tree: Path) -> Path:
    return tree


@pytest.fixture
def settings_folder(root: Path) -> Path:
    return root


class Service:
    """rbac.json as it is, and tasks submitted under it."""

    def __init__(self, root: Path, settings: Settings) -> None:
        self._root, self._settings = root, settings
        self.users: dict[str, User] = {}

    def grant(self, groups: dict[str, Entry] | None = None, **users: Entry) -> None:
        entries = [{"user": name, "password": "x", **entry} for name, entry in ({"admin": {}} | users).items()]
        named = [{"name": name, **entry} for name, entry in (groups or {}).items()]
        text = json.dumps({"rbac": entries, "groups": named})
        self.users = rbac_users.parse(text, self._root / "rbac.json")

    def run(self, user: str, kind: str = "adhoc", **fields: Any) -> AuthorizedRun:
        asking = Asking(self._root, self._settings, self.users[user], Isolation("none"))
        given = {"inventory": PROD, **({"host_pattern": "all"} if kind == "adhoc" else {}), **fields}
        run: AuthorizedRun = getattr(asking, kind)(**(given if kind != "git" else fields))
        return run

    def task(self, user: str, kind: str = "adhoc", **fields: Any) -> TaskStatus:
        """A task that was submitted just now."""
        return self.submitted(self.run(user, kind, **fields))

    def submitted(self, run: AuthorizedRun) -> TaskStatus:
        found = run.visibility
        if found is not None:
            entries = visibility.entries_that_see(found, self.users.values())
            found = found.model_copy(update={"entries": entries})
        status = TaskStatus(
            task_id="x",
            Status="PROGRESS",
            state=State.QUEUED,
            description="",
            user=run.user,
            kind=run.kind,
            summary="",
            submitted_at="",
        )
        return status.with_visibility(found)

    def sees(self, user: str, task: TaskStatus) -> bool:
        return visibility.may_see(self.users[user], task)


@pytest.fixture
def service(root: Path, settings: Settings) -> Service:
    return Service(root, settings)


# Inventories.


def test_nothing_of_others_is_seen_without_sees(service: Service) -> None:
    prod = {"inventories": ["inv/prod"]}
    service.grant(lee=prod, pat=prod, eye=prod | {"role": "viewer"})
    task = service.task("lee")
    assert [name for name in service.users if service.sees(name, task)] == ["admin", "lee"]
    assert task.visibility is not None and task.visibility.entries == ()


def test_a_team_sees_what_one_of_its_entries_has_the_whole_of(service: Service) -> None:
    groups: dict[str, Entry] = {
        "ops": {"inventories": ["inv/prod"], **LOOKS},
        "web": {"inventories": ["inv/dev"], **LOOKS},
        "wide": {"inventories": ["inv"], **LOOKS},
        "blind": {"inventories": ["inv"]},
    }
    service.grant(
        groups,
        lee={"inventories": ["inv/dev", "inv/prod"]},
        both={"groups": ["ops", "web"]},
        **{name: {"groups": [name]} for name in groups},
        own={"inventories": ["inv/prod"], "role": "viewer", **LOOKS},
        all={"role": "viewer", "sees": "all"},
        old={"role": "auditor"},
    )

    def seen_by(task: TaskStatus) -> set[str]:
        return {name for name in service.users if service.sees(name, task)}

    always = {"admin", "lee", "all", "old", "wide"}
    assert seen_by(service.task("lee")) == always | {"ops", "both", "own"}
    assert seen_by(service.task("lee", inventory=DEV)) == always | {"web", "both"}
    assert seen_by(service.task("lee", inventory=[DEV, PROD])) == always, "a half by each entry is not the whole"


def test_an_inventory_in_a_folder_of_the_entry_is_its_own_and_one_around_is_not(service: Service) -> None:
    service.grant(lee={"inventories": ["inv"]}, pat={"inventories": ["inv/dev"], **LOOKS})
    assert service.sees("pat", service.task("lee", inventory="{root}/inv/dev/sub/hosts"))
    assert not service.sees("pat", service.task("lee", inventory="{root}/inv"))
    assert not service.sees("pat", service.task("lee", inventory="{root}/inv/dev-prod"))
    assert service.sees("pat", service.task("lee", inventory="{root}/inv/link-to-dev")), "where it leads counts"
    assert not service.sees("pat", service.task("lee", inventory="{root}/inv/dev/link-to-prod"))


UNKNOWN: dict[str, tuple[str, Entry]] = {
    "hosts": ("adhoc", {"inventory": "host1,"}),
    "a tilde": ("adhoc", {"inventory": "~/inv", "allow_missing": True}),
    "a variable": ("adhoc", {"inventory": "$HOME/inv", "allow_missing": True}),
    "one of two": ("adhoc", {"inventory": [PROD, "host1,"]}),
    "what Ansible's configuration names": ("adhoc", {"inventory": None}),
    "a checkout": ("git", {}),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_of_an_unknown_inventory_nobody_but_who_sees_all_sees_anything(service: Service, name: str) -> None:
    service.grant(pat={"inventories": ["/"], **LOOKS}, old={"role": "auditor"})
    service._settings = service._settings.model_copy(update={"default_inventory": ""})
    kind, fields = UNKNOWN[name]
    task = service.task("admin", kind, **fields)
    assert task.visibility is None and not service.sees("pat", task) and service.sees("old", task)


def test_admins_inventories_are_resolved_as_ansible_would(service: Service) -> None:
    service.grant(pat={"inventories": ["inv/prod"], **LOOKS})
    assert service.sees("pat", service.task("admin", inventory="../inv/prod"))
    assert service.sees("pat", service.task("admin", "playbook", inventory="../inv/link-to-prod/hosts"))
    assert not service.sees("pat", service.task("admin", inventory="../inv/prod/../dev"))


def test_a_preview_is_seen_by_nobody(service: Service) -> None:
    service.grant(lee={"inventories": ["inv/prod"]}, pat={"inventories": ["inv/prod"], **LOOKS})
    run = service.run("lee")
    assert run.visibility is not None and preview_request.preview_of(run, "plan").visibility is None


# Hosts.

ADHOC = [  # hosts of the run's entry, its pattern and limit, hosts of the one who looks, whether it is seen
    (None, "all", None, None, True),
    (None, "all", None, ["all"], True),
    (None, "all", None, ["web*"], False),
    (None, "web1", None, ["web*"], True),
    (None, "web1", None, ["~web[0-9]"], True),
    (None, "web1", None, ["web2"], False),
    (None, "web1,db1", None, ["web*"], False),
    (None, "web1:db1", None, ["web*"], False),
    (None, "web1:!db1", None, ["web*"], True),
    (None, "web1:&db", None, ["web*"], True),
    (None, "!db1", None, ["web*"], False),
    (None, "&web", None, ["web*"], False),
    (None, "all:!db1", None, ["web*"], False),
    (None, "web*", None, ["web*"], True),
    (None, "web*", None, ["w*"], False),  # what it has is known to the inventory alone
    (None, "~web.*", None, ["web*"], False),
    (None, "all", "web1", ["web*"], True),
    (None, "all", "web1,db1", ["web*"], False),
    (None, "all", "!db1", ["web*"], False),
    (["web*"], "all", None, ["web*"], True),
    (["web*"], "all", None, ["web*", "db*"], True),
    (["web*", "db*"], "all", None, ["web*"], False),
    (["web1"], "all", None, ["web*"], True),
    (["web*"], "all", None, ["web1"], False),
    (["web*"], "web1", None, ["web1"], True),
    (["all"], "all", None, ["web*"], False),
    (["*"], "all", None, ["*"], True),
]


@pytest.mark.parametrize(("of_run", "pattern", "limit", "looks_at", "is_seen"), ADHOC)
def test_all_hosts_of_an_ad_hoc_command_have_to_be_the_entrys(
    service: Service,
    of_run: list[str] | None,
    pattern: str,
    limit: str | None,
    looks_at: list[str] | None,
    is_seen: bool,
) -> None:
    prod: Entry = {"inventories": ["inv/prod"]}
    service.grant(
        lee=prod | ({"hosts": of_run} if of_run else {}),
        pat=prod | LOOKS | ({"hosts": looks_at} if looks_at else {}),
    )
    task = service.task("lee", host_pattern=pattern, **({"limit": limit} if limit else {}))
    assert service.sees("pat", task) == is_seen


def test_a_limit_does_not_bind_what_a_playbook_delegates(service: Service) -> None:
    prod: Entry = {"inventories": ["inv/prod"]}
    service.grant(lee=prod, bound=prod | {"hosts": ["web1"]}, pat=prod | LOOKS | {"hosts": ["web*"]})
    assert not service.sees("pat", service.task("lee", "playbook", limit="web1"))
    assert service.sees("pat", service.task("bound", "playbook"))
    for module in ("include_role", "ansible.builtin.include_tasks", "x y"):
        task = service.task("admin", module=module, module_args="name=x", host_pattern="web1")
        assert not service.sees("pat", task), module
    assert service.sees("pat", service.task("admin", host_pattern="web1"))
    assert not service.sees("pat", service.task("admin", host_pattern="all", limit="@hosts"))


# Then and now.


def test_who_loses_an_inventory_loses_the_tasks_on_it_and_who_gets_one_gets_none_of_before(service: Service) -> None:
    lee = {"inventories": ["inv/prod", "inv/dev"]}
    ops: Entry = {"inventories": ["inv/prod"], **LOOKS}
    service.grant({"ops": ops}, lee=lee, pat={"groups": ["ops"]}, new={"inventories": ["inv/dev"], **LOOKS})
    task = service.task("lee")
    assert service.sees("pat", task) and not service.sees("new", task)
    changes: dict[str, Entry] = {
        "another inventory": {"inventories": ["inv/dev"], **LOOKS},
        "fewer hosts": ops | {"hosts": ["web*"]},
        "sees no more": {"inventories": ["inv/prod"]},
    }
    for name, changed in changes.items():
        service.grant({"ops": changed}, lee=lee, pat={"groups": ["ops"]})
        assert not service.sees("pat", task), name
    service.grant({"ops": ops | {"inventories": ["inv"]}}, lee=lee, pat={"groups": ["ops"]})
    assert service.sees("pat", task), "more is no less"
    service.grant({"ops": ops}, lee=lee, pat={}, new={"inventories": ["inv/prod"], **LOOKS, "groups": ["ops"]})
    assert not service.sees("pat", task) and service.sees("new", task), "membership counts as it is now"
    service.grant({"web": ops}, lee=lee, pat={"groups": ["web"]}, new={"inventories": ["inv/prod"], **LOOKS})
    assert not service.sees("pat", task) and not service.sees("new", task), (
        "what was granted later shows no earlier task"
    )


def test_a_group_with_the_name_of_a_user_sees_nothing_by_it(service: Service) -> None:
    prod: Entry = {"inventories": ["inv/prod"]}
    service.grant(lee=prod, pat=prod | LOOKS)
    task = service.task("lee")
    assert task.visibility is not None and task.visibility.entries == ("user:pat",)
    service.grant({"pat": prod | LOOKS}, lee=prod, eve={"groups": ["pat"]}, pat={})
    assert not service.sees("eve", task) and not service.sees("pat", task)


# Canceling.


def test_who_may_cancel(service: Service) -> None:
    ops: Entry = {"inventories": ["inv/prod"], **LOOKS}
    groups = {
        "ops": ops,
        "chiefs": ops | {"cancels": "inventories"},
        "quiet": ops | {"role": "viewer", "cancels": "inventories"},
    }
    service.grant(
        groups,
        lee={"inventories": ["inv/prod", "inv/dev"]},
        **{name: {"groups": [name]} for name in groups},
        looking={"sees": "all"},
        wide={"inventories": ["inv/dev"], "sees": "all", "cancels": "inventories"},
        old={"role": "auditor"},
        # One entry sees, another could cancel: not both in one.
        halves={"inventories": ["inv/dev"], **LOOKS, "cancels": "inventories", "groups": ["quiet"]},
    )
    task, other = service.task("lee"), service.task("lee", inventory=DEV)

    def cancels(of: TaskStatus) -> set[str]:
        return {name for name, user in service.users.items() if visibility.may_cancel(user, of)}

    assert service.sees("halves", task)
    assert cancels(task) == {"admin", "lee", "chiefs"}
    assert cancels(other) == {"admin", "lee", "wide", "halves"}
    service.grant(lee={"inventories": ["inv/prod"], "role": "viewer"})
    assert cancels(task) == {"admin"}, "a viewer cancels nothing"


@pytest.mark.parametrize("key", ["user", "name"])
def test_what_is_not_seen_cannot_be_canceled(root: Path, key: str) -> None:
    entry = {key: "ops", "cancels": "inventories"}
    content: dict[str, Any] = {"rbac": [{"user": "admin", "password": "x"}], "groups": []}
    content["rbac" if key == "user" else "groups"].append(entry | ({"password": "x"} if key == "user" else {}))
    with pytest.raises(ConfigurationError, match=r'"ops": cancels: is without effect.*sees: inventories'):
        rbac_users.parse(json.dumps(content), root / "rbac.json")
    entry |= {"sees": "inventories"}
    content["rbac" if key == "user" else "groups"][-1] |= entry
    rbac_users.parse(json.dumps(content), root / "rbac.json")


# How it is kept.


def test_records_of_before_are_seen_as_before(service: Service) -> None:
    service.grant(lee={"inventories": ["inv/prod"]}, pat={"inventories": ["inv/prod"], **LOOKS})
    stored = service.run("lee").model_dump(mode="json", exclude={"visibility"})
    run = AuthorizedRun.model_validate(stored)
    assert run.visibility is None
    task = service.submitted(run)
    assert service.sees("lee", task) and not service.sees("pat", task)


def test_what_decides_is_no_part_of_a_reply(service: Service) -> None:
    service.grant(lee={"inventories": ["inv/prod"]}, pat={"inventories": ["inv/prod"], **LOOKS})
    task = service.task("lee")
    assert task.visibility is not None and "visibility" not in json.dumps(task.model_dump(mode="json"))
    assert "visibility" not in json.dumps(TaskStatus.model_json_schema())


def test_the_entry_that_allowed_a_run_bounds_its_hosts(service: Service) -> None:
    """Not those of another entry of its user, which has the same inventory."""
    prod: Entry = {"inventories": ["inv/prod"]}
    groups = {"web": prod | {"hosts": ["web1"]}}
    service.grant(
        groups, lee={"groups": ["web"]}, wide=prod | {"groups": ["web"]}, pat=prod | LOOKS | {"hosts": ["web1"]}
    )
    assert service.sees("pat", service.task("lee", "playbook"))
    assert not service.sees("pat", service.task("wide", "playbook"))
