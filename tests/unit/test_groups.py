"""Groups of rbac.json: one entry, the user's own or a group's, allows the whole of a request, and confines its run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flansible.authorization import authorize, describe, lost_rights
from flansible.config import Settings
from flansible.errors import ConfigurationError, Forbidden, NotFound, RequestError
from flansible.identity import users as rbac_users
from flansible.models import AuthorizedRun, principal, split_principal
from tests.helpers.authorizing import CONFINED, Asking

DEV, PROD = "{root}/inv/dev", "{root}/inv/prod"
Entry = dict[str, Any]
AskingAs = Callable[..., Asking]
# The group may do one thing on prod.
PROD_SITE = {"inventories": ["inv/prod"], "playbooks": ["site.yml"]}


@pytest.fixture
def root(tree: Path) -> Path:
    return tree


@pytest.fixture
def settings_folder(root: Path) -> Path:
    return root


def document(own: Entry, groups: dict[str, Entry], *others: Entry) -> dict[str, Any]:
    """rbac.json with lee, who is in these groups, and others."""
    lee = {"user": "lee", "password": "x", "groups": list(groups), **own}
    named = [{"name": name, **entry} for name, entry in groups.items()]
    return {"rbac": [{"user": "admin", "password": "x"}, lee, *others], "groups": named}


@pytest.fixture
def parsed(root: Path, settings: Settings) -> Callable[..., dict[str, rbac_users.User]]:
    def parse(own: Entry, groups: dict[str, Entry], *others: Entry) -> dict[str, rbac_users.User]:
        return rbac_users.parse(json.dumps(document(own, groups, *others)), root / "rbac.json")

    return parse


@pytest.fixture
def lee(root: Path, settings: Settings, parsed: Callable[..., dict[str, rbac_users.User]]) -> AskingAs:
    """Asking as lee, a member of these groups."""

    def asking(own: Entry, **groups: Entry) -> Asking:
        return Asking(root, settings, parsed(own, groups)["lee"])

    return asking


def refused(ask: Callable[..., Any], **fields: Any) -> RequestError:
    with pytest.raises((Forbidden, NotFound)) as caught:
        ask(**fields)
    return caught.value


# One entry allows the whole.


def test_a_group_allows_what_the_own_entry_does_not(lee: AskingAs) -> None:
    asking = lee({"inventories": ["inv/dev"]}, ops=PROD_SITE)
    assert asking.adhoc(inventory=DEV, host_pattern="all").entry == "own"
    assert asking.playbook(inventory=PROD).entry == "group:ops"
    assert lee({}, ops=PROD_SITE).playbook(inventory=PROD).entry == "group:ops"


HALVES: dict[str, tuple[Entry, Entry, str, Entry]] = {
    "the inventory and the playbook": (
        {"inventories": ["inv/dev"]},
        PROD_SITE,
        "playbook",
        {"inventory": PROD, "playbook": "team/site.yml"},
    ),
    "the inventory and the module": (
        {"inventories": ["inv/dev"]},
        {"inventories": ["inv/prod"], "modules": ["ping"]},
        "adhoc",
        {"inventory": PROD, "module": "shell", "module_args": "id", "host_pattern": "all"},
    ),
    "an inventory each": (
        {"inventories": ["inv/dev"]},
        {"inventories": ["inv/prod"]},
        "adhoc",
        {"inventory": [DEV, PROD], "host_pattern": "all"},
    ),
    "the inventory and the host": (
        {"inventories": ["inv/dev"]},
        {"inventories": ["inv/prod"], "hosts": ["web*"]},
        "adhoc",
        {"inventory": PROD, "host_pattern": "host1"},
    ),
    "the inventory and become": (
        {"inventories": ["inv/dev"]},
        {"inventories": ["inv/prod"], "become": False},
        "adhoc",
        {"inventory": PROD, "host_pattern": "all", "become": True},
    ),
    "the inventory and a key": (
        {"inventories": ["inv/dev"], "paths": ["outside"]},
        {"inventories": ["inv/prod"]},
        "adhoc",
        {"inventory": PROD, "host_pattern": "all", "private_key_file": "{root}/outside/vault"},
    ),
    "the inventory and the environment": (
        {"inventories": ["inv/dev"], "environment": ["STAGE"]},
        {"inventories": ["inv/prod"]},
        "adhoc",
        {"inventory": PROD, "host_pattern": "all", "environment": {"STAGE": "1"}},
    ),
    "the inventory and the control machine": (
        {"inventories": ["inv/dev"], "control_node": True},
        {"inventories": ["inv/prod"]},
        "adhoc",
        {"inventory": PROD, "host_pattern": "127.0.0.1"},
    ),
    "the inventory and the pull": (
        {"inventories": ["inv/dev"], "git": True},
        PROD_SITE,
        "playbook",
        {"inventory": PROD, "update_git_repo": True},
    ),
}


@pytest.mark.parametrize("is_swapped", [False, True], ids=["own and group", "group and own"])
@pytest.mark.parametrize("name", HALVES)
def test_two_entries_that_allow_half_each_allow_nothing(lee: AskingAs, name: str, is_swapped: bool) -> None:
    one, other, kind, fields = HALVES[name]
    own, group = (other, one) if is_swapped else (one, other)
    assert refused(getattr(lee(own, ops=group), kind), **fields).status == 403
    assert refused(getattr(lee({}, ops=one, web=other), kind), **fields).status == 403
    both = {key: [*one.get(key, []), *other.get(key, [])] for key in ("inventories", "paths", "environment")}
    whole = {**both, **{key: one[key] for key in one.keys() & {"control_node", "git"}}}
    assert getattr(lee({}, ops=whole), kind)(**fields).entry == "group:ops"


def test_the_run_is_confined_by_the_entry_that_allowed_it_alone(lee: AskingAs, root: Path) -> None:
    own: Entry = {"inventories": ["inv/dev"], "paths": ["outside"], "control_node": True, "lasting_processes": True}
    asking = lee(own, ops={**PROD_SITE, "hosts": ["host1"]})
    by_group, by_own = asking.playbook(inventory=PROD).confinement, asking.playbook(inventory=DEV).confinement
    assert by_group is not None and by_own is not None
    assert (by_group.readable, by_group.hosts) == ((f"{root}/inv/prod",), ("host1",))
    assert not by_group.control_node and not by_group.lasting_processes
    assert by_group.hidden == (f"{root}/inv/dev",), "what the own entry has is not shown either"
    assert by_own.readable == (f"{root}/inv/dev", f"{root}/outside") and by_own.hidden == (f"{root}/inv/prod",)


def test_the_own_entry_comes_first_and_then_the_groups_as_the_user_names_them(lee: AskingAs) -> None:
    wide = {"inventories": ["inv/dev"]}
    assert lee(wide, ops=wide).adhoc(inventory=DEV, host_pattern="all").entry == "own"
    assert lee({}, web=wide, ops=wide).adhoc(inventory=DEV, host_pattern="all").entry == "group:web"
    assert lee({}, ops=wide, web=wide).adhoc(inventory=DEV, host_pattern="all").entry == "group:ops"


def test_a_role_is_one_of_an_entry(lee: AskingAs) -> None:
    wide = {"inventories": ["inv/dev"]}
    looking = lee({**wide, "role": "viewer"}, ops={**wide, "role": "auditor"})
    assert refused(looking.adhoc, inventory=DEV, host_pattern="all").code == "role_forbidden"
    assert lee({**wide, "role": "viewer"}, ops=wide).adhoc(inventory=DEV, host_pattern="all").entry == "group:ops"


def test_whoever_has_inventories_by_groups_alone_has_git_by_them_alone(lee: AskingAs) -> None:
    assert refused(lee({}, ops=PROD_SITE).git).code == "git_forbidden"
    assert lee({}, ops={**PROD_SITE, "git": True}).git().entry == "group:ops"
    assert lee({"git": True}, ops=PROD_SITE).git().entry == "own"
    assert lee({"inventories": ["inv/dev"]}, ops=PROD_SITE).git().entry == "own"


# Names.


def test_a_group_with_the_name_of_a_user_is_not_that_user(
    parsed: Callable[..., dict[str, rbac_users.User]], root: Path, settings: Settings
) -> None:
    pat = {"user": "pat", "password": "x", "inventories": ["inv/prod"]}
    found = parsed({"inventories": ["inv/dev"]}, {"pat": {"inventories": ["inv/shared"]}, "admin": {}}, pat)
    asking = Asking(root, settings, found["lee"])
    assert not found["lee"].is_admin and not found["lee"].sees_all and found["pat"].groups == ()
    assert refused(asking.adhoc, inventory=PROD, host_pattern="all").code == "inventory_forbidden"
    run = asking.adhoc(inventory="{root}/inv/shared", host_pattern="all")
    assert (run.user, run.entry, run.principal) == ("lee", "group:pat", "lee:group:pat")
    assert set(lost_rights.rights_of(found.values())) == {
        "admin",
        "lee",
        "lee:group:pat",
        "lee:group:admin",
        "pat",
    }


def test_no_user_has_the_principal_of_a_member(root: Path) -> None:
    assert split_principal(principal("lee", "group:ops")) == ("lee", "ops")
    assert split_principal(principal("lee", "own")) == ("lee", "")
    for kind, name in (("rbac", "user"), ("groups", "name")):
        content = {"rbac": [{"user": "admin", "password": "x"}], "groups": []}
        content[kind].append({name: "lee:group:ops", **({"password": "x"} if kind == "rbac" else {})})
        with pytest.raises(ConfigurationError):
            rbac_users.parse(json.dumps(content), root / "rbac.json")


FAULTS: dict[str, tuple[Entry, list[Entry], str]] = {
    "an unknown group": (
        {"groups": ["opps"]},
        [{"name": "ops"}],
        'user "lee": groups[0]: there is no group "opps", did you mean "ops"?',
    ),
    "a group that is only a user": ({"groups": ["admin"]}, [], 'user "lee": groups[0]: there is no group "admin"'),
    "the same group twice": (
        {"groups": ["ops", "ops"]},
        [{"name": "ops"}],
        'user "lee": groups[1]: "ops" is listed twice',
    ),
    "two groups of one name": ({}, [{"name": "ops"}, {"name": "ops"}], 'group "ops": is listed twice'),
    "a password": ({}, [{"name": "ops", "password": "x"}], 'group "ops": unknown key "password"'),
    "a group in a group": ({}, [{"name": "ops", "groups": []}], 'group "ops": unknown key "groups"'),
    "an unknown key": (
        {},
        [{"name": "ops", "playbook": []}],
        'group "ops": unknown key "playbook", did you mean "playbooks"?',
    ),
    "a group without a name": ({}, [{"inventories": []}], "groups[0]: name: is missing"),
    "an unknown limit": (
        {},
        [{"name": "ops", "limits": {"fork": 1}}],
        'group "ops": limits: unknown key "fork", did you mean "forks"?',
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_named_with_the_user_or_the_group(root: Path, name: str) -> None:
    own, groups, message = FAULTS[name]
    content = {"rbac": [{"user": "admin", "password": "x"}, {"user": "lee", "password": "x", **own}], "groups": groups}
    with pytest.raises(ConfigurationError) as caught:
        rbac_users.parse(json.dumps(content), root / "rbac.json")
    assert message in str(caught.value)


def test_a_folder_that_a_group_may_write_is_checked_like_a_users(
    parsed: Callable[..., dict[str, rbac_users.User]],
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parsed({"inventories": ["inv/dev"]}, {"ops": {"writable": ["inv/dev"]}})
    assert 'group "ops": writable[0]' in str(caught.value) and "an inventory of lee" in str(caught.value)


def test_a_file_without_groups_means_what_it_meant(root: Path) -> None:
    entry = {"user": "lee", "password": "x", "inventories": ["inv/dev"]}
    users = rbac_users.parse(json.dumps({"rbac": [entry]}), root / "rbac.json")
    assert users["lee"].entries == (users["lee"],) and users["lee"].may_use_git
    assert AuthorizedRun.model_fields["entry"].default == users["lee"].entry, "records of before"


# Limits.


@pytest.mark.parametrize(
    ("own", "groups", "expected"),
    [
        ({"forks": 5}, [{"forks": 2}], 5),
        ({}, [{"forks": 9}, {"forks": 2}], 2),
        ({}, [{}, {"forks": 9}], 9),
        ({}, [{}], None),
    ],
)
def test_a_limit_is_the_own_entrys_or_the_smallest_of_the_groups(
    lee: AskingAs, own: Entry, groups: list[Entry], expected: int | None
) -> None:
    named = {f"g{number}": {**PROD_SITE, "limits": limits} for number, limits in enumerate(groups)}
    asking = lee({"inventories": ["inv/dev"], "limits": own}, **named)
    for inventory in (DEV, PROD):  # whichever entry allows it
        argv = asking.playbook(inventory=inventory).steps[0].argv
        assert [word for word in argv if word.startswith("--forks")] == ([f"--forks={expected}"] if expected else [])


@pytest.mark.parametrize(
    ("own", "groups", "expected"),
    [
        ({"running": 0}, [{"running": 2}], 0),
        ({}, [{"running": 0}, {"running": 3}], 3),
        ({}, [{"running": 0}], 0),
        ({}, [{}], 7),
    ],
)
def test_no_limit_is_smaller_than_none(
    parsed: Callable[..., dict[str, rbac_users.User]],
    root: Path,
    make_settings: Callable[..., Settings],
    own: Entry,
    groups: list[Entry],
    expected: int,
) -> None:
    named = {f"g{number}": {**PROD_SITE, "limits": limits} for number, limits in enumerate(groups)}
    user = parsed({"limits": own}, named)["lee"]
    run = Asking(root, make_settings(max_running_per_user=7), user).playbook(inventory=PROD)
    assert run.max_running == expected


# In words.


def test_a_refusal_names_each_entry_with_its_own(lee: AskingAs, root: Path) -> None:
    asking = lee({"inventories": ["inv/dev"]}, ops=PROD_SITE)
    error = refused(asking.playbook, inventory=PROD, playbook="team/site.yml")
    assert error.code == "playbook_forbidden", "of the entry that has the inventory"
    assert error.message.startswith("No entry of yours in rbac.json allows all of this. your own entry: inventory: ")
    assert "; group ops: playbook: You may not start playbook team/site.yml. Yours: site.yml." in error.message
    assert [(item.field, item.message.partition(":")[0]) for item in error.errors] == [
        ("inventory", "your own entry"),
        ("playbook", "group ops"),
    ]
    for one in (refused(lee({}, ops=PROD_SITE).adhoc, inventory=DEV, host_pattern="all"),):
        assert "your own entry" not in one.message, "it is there for the login alone"


def test_what_an_entry_allows_and_is_not_there_is_not_found(lee: AskingAs) -> None:
    asking = lee({"inventories": ["inv/dev"]}, ops={"inventories": ["inv/prod"]})
    error = refused(asking.playbook, inventory=PROD, playbook="gone.yml")
    assert isinstance(error, NotFound) and "group ops: playbook" in error.message


def test_the_rights_are_said_entry_by_entry(parsed: Callable[..., dict[str, rbac_users.User]], root: Path) -> None:
    user = parsed({"inventories": ["inv/dev"]}, {"ops": PROD_SITE, "watch": {"role": "auditor"}})["lee"]
    said = describe.sentences(user, CONFINED)
    assert said[0].startswith("You are lee, a member of ops, watch. One entry")
    assert f"By your own entry: you may use these inventories: {root}/inv/dev." in said
    assert f"By group ops: you may use these inventories: {root}/inv/prod." in said
    assert "By group watch: you may read tasks. You may not start or cancel any." in said
    assert describe.allowed_by(user, "group:ops") == [
        "This request is allowed by group ops, and confined to what that may."
    ]
    assert describe.allowed_by(parsed({}, {})["lee"], "own") == []


# Rights that are lost.


@pytest.fixture
def check(settings: Settings) -> Callable[[rbac_users.User | None, AuthorizedRun], str]:
    def checked(user: rbac_users.User | None, run: AuthorizedRun) -> str:
        try:
            lost_rights.check(user, run, settings.model_copy(update={"isolation": "none"}))
        except Forbidden as refusal:
            return f"{refusal.code}: {refusal.message}"
        return ""

    return checked


def test_a_run_lasts_as_long_as_the_entry_that_allowed_it(
    lee: AskingAs, parsed: Callable[..., dict[str, rbac_users.User]], check: Callable[..., str]
) -> None:
    """Also where another entry would allow it now: that one confines in another way."""
    wide = {"inventories": ["inv/dev", "inv/prod"]}
    run = lee({"inventories": ["inv/dev"]}, ops=PROD_SITE).playbook(inventory=PROD)
    assert run.entry == "group:ops"
    assert check(parsed(wide, {"ops": PROD_SITE})["lee"], run) == ""
    assert check(parsed({}, {"web": {}, "ops": PROD_SITE})["lee"], run) == ""
    left = check(parsed(wide, {})["lee"], run)
    assert left == "rights_lost: lee is not in group ops any more, which allowed it."
    narrowed = {"ops": {**PROD_SITE, "playbooks": ["team/**"]}}
    assert check(parsed(wide, narrowed)["lee"], run).startswith("playbook_forbidden")
    other = {"user": "ops", "password": "x", **wide}
    assert check(parsed(wide, {}, other)["lee"], run) == left, "a user of the group's name is another"


def test_what_an_own_entry_allowed_is_not_kept_up_by_a_group(
    lee: AskingAs, parsed: Callable[..., dict[str, rbac_users.User]], check: Callable[..., str]
) -> None:
    wide = {"inventories": ["inv/dev"]}
    run = lee(wide, ops=wide).adhoc(inventory=DEV, host_pattern="all")
    assert run.entry == "own"
    assert check(parsed({}, {"ops": wide})["lee"], run).startswith("inventory_forbidden")
    assert check(parsed({**wide, "role": "viewer"}, {"ops": wide})["lee"], run).startswith("role_forbidden")


def test_the_digest_of_an_entry_changes_with_it_alone(parsed: Callable[..., dict[str, rbac_users.User]]) -> None:
    before = lost_rights.rights_of(parsed({"inventories": ["inv/dev"]}, {"ops": PROD_SITE, "web": {}}).values())
    after = lost_rights.rights_of(
        parsed({"inventories": ["inv/dev"]}, {"ops": {**PROD_SITE, "become": False}, "web": {}}).values()
    )
    assert {name for name in before if before[name] != after[name]} == {"lee:group:ops"}


def test_an_entry_alone_is_judged_when_it_is_given(parsed: Callable[..., dict[str, rbac_users.User]]) -> None:
    """The rules never look beyond the entry: neither at the groups of the user nor at the role of another entry."""
    own, ops = parsed({"role": "viewer"}, {"ops": PROD_SITE})["lee"].entries
    assert not own.may_act and ops.may_act and own.as_member == ops.as_member == ()
    assert (own.name, ops.name) == ("lee", "lee")
    with pytest.raises(Forbidden):
        authorize.check_may_act(own)
