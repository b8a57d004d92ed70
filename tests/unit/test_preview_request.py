"""Looks: the same run under the same rights, which executes nothing; and what is said of rights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flansible.authorization import authorize, describe, preview_request
from flansible.authorization.isolation import Isolation
from flansible.config import Settings
from flansible.errors import Forbidden, NotFound
from flansible.identity import users as rbac_users
from flansible.identity.users import User
from flansible.models import AdhocRequest, Secrets
from tests.helpers.authorizing import CONFINED, OWN, Asking


@pytest.fixture
def root(tree: Path) -> Path:
    return tree


@pytest.fixture
def settings_folder(root: Path) -> Path:
    return root


@pytest.fixture
def users(root: Path) -> dict[str, User]:
    entries = [{"user": "admin", "password": "x"}, {"user": "dev", "password": "x", "inventories": ["inv/dev"]}]
    return rbac_users.parse(json.dumps({"rbac": entries}), root / "rbac.json")


@pytest.fixture
def dev(root: Path, settings: Settings, users: dict[str, User]) -> Asking:
    return Asking(root, settings, users["dev"])


@pytest.fixture
def admin(root: Path, settings: Settings, users: dict[str, User]) -> Asking:
    return Asking(root, settings, users["admin"])


def test_a_look_lists_and_executes_nothing(dev: Asking) -> None:
    run = dev.playbook(
        inventory=OWN,
        limit="host1",
        verbose_level=4,
        flush_cache=True,
        syntax_check=True,
        on_lost="requeue",
        exclusive="hosts",
    )
    look = preview_request.preview_of(run, "plan")
    [step] = look.steps
    assert step.listing == "plan"
    options = step.argv[: step.argv.index("--")]
    assert {"--list-hosts", "--list-tasks", "--limit=host1"} <= set(options)
    assert not {"--flush-cache", "--syntax-check", "-vvvv"} & set(options)
    assert run.exclusive == "hosts" and look.exclusive is None and look.places == ()
    assert (look.hidden, look.on_lost, look.max_running, look.time_limit) == (
        True,
        "fail",
        0,
        preview_request.MAX_SECONDS,
    )
    assert look.confinement == run.confinement and step.data_only


def test_a_look_leaves_a_pull_out(admin: Asking) -> None:
    run = admin.playbook(update_git_repo=True)
    assert [step.program for step in run.steps] == ["git", "ansible-playbook"]
    assert [step.program for step in preview_request.preview_of(run, "plan").steps] == ["ansible-playbook"]


def test_operands_that_look_like_options_stay(admin: Asking) -> None:
    look = preview_request.preview_of(admin.adhoc(host_pattern="--flush-cache"), "plan")
    assert look.steps[0].argv[-2:] == ("--", "--flush-cache")


def test_a_look_gets_the_secrets_that_reading_needs(admin: Asking) -> None:
    run = admin.adhoc(connection_password="one", become_password="two", private_key="three")
    assert preview_request.preview_of(run, "plan").secrets is None
    run = admin.adhoc(connection_password="one", vault_password="four", secret_vars={"x": "five"})
    assert preview_request.preview_of(run, "plan").secrets == Secrets(
        vault_passwords={"default": "four"}, variables={"x": "five"}
    )


def test_looks_of_a_user_are_one_at_a_time_and_those_of_admin_are_not(dev: Asking, admin: Asking) -> None:
    [lock] = preview_request.preview_of(dev.adhoc(inventory=OWN, host_pattern="host1", lock="mine"), "plan").locks
    assert "\0" in lock  # which no request can name
    assert preview_request.preview_of(admin.adhoc(lock="mine"), "plan").locks == ()


def test_secret_variables_are_secrets_and_nothing_else(dev: Asking) -> None:
    run = dev.adhoc(inventory=OWN, host_pattern="host1", secret_vars={"word": "{{ hush }}"})
    assert run.secrets == Secrets(variables={"word": "{{ hush }}"})
    assert "hush" not in run.model_dump_json()


@pytest.mark.parametrize("name", ["ansible_host", "ansible_become_password", "inventory_hostname", "mitogen_via"])
def test_a_secret_variable_may_not_say_how_to_connect(dev: Asking, admin: Asking, name: str) -> None:
    with pytest.raises(Forbidden) as caught:
        dev.adhoc(inventory=OWN, secret_vars={name: "x"})
    assert caught.value.code == "connection_variable_forbidden"
    assert caught.value.errors[0].field == f"secret_vars.{name}"
    assert admin.adhoc(secret_vars={name: "x"}).secrets is not None


@pytest.mark.parametrize("given", [{"": "x"}, {"1a": "x"}, {"a-b": "x"}, {"a": ""}, {"a": 1}, {"a\n": "x"}, [], "a=b"])
def test_a_secret_variable_has_a_name_and_a_text(given: object) -> None:
    with pytest.raises(ValueError):
        AdhocRequest.model_validate({"module": "ping", "secret_vars": given})


def listed(user: User, inventory: Path, settings: Settings) -> tuple[str, ...]:
    return authorize.authorize_inventory(user, str(inventory), settings, CONFINED).steps[0].argv


def test_who_may_list_an_inventory(users: dict[str, User], settings: Settings, root: Path) -> None:
    assert f"--inventory={root}/inv/dev" in listed(users["dev"], root / "inv/dev", settings)
    assert f"--inventory={root}/inv/prod" in listed(users["admin"], root / "inv/prod", settings)
    with pytest.raises(Forbidden) as caught:
        listed(users["dev"], root / "inv/prod", settings)
    assert caught.value.code == "inventory_forbidden"
    for user, place in (("dev", "inv/dev/none"), ("admin", "none")):
        with pytest.raises(NotFound):
            listed(users[user], root / place, settings)


def test_rights_are_said_in_sentences() -> None:
    admin = User("admin", "x", ())
    assert len(describe.sentences(admin, CONFINED)) == 1
    viewer = User("eve", "x", (), role="viewer")
    assert describe.sentences(viewer, CONFINED)[-1] == "You may read tasks. You may not start or cancel any."
    limits = {"max_forks": 2, "max_seconds": 60, "may_become": False, "may_use_git": False}
    dev = User("dev", "x", (Path("/inv"),), hosts=("web*",), playbooks=("a/**",), modules_allowed=("ping",), **limits)  # type: ignore[arg-type]
    said = " ".join(describe.sentences(dev, CONFINED))
    for word in ("/inv", "web*", "a/**", "ping", "2 hosts", "60 seconds", "not become", "not update", "sandboxed"):
        assert word in said
    assert "not sandboxed" in describe.sentences(dev, Isolation("none"))[-1]
    assert "refused" in describe.sentences(dev, Isolation("auto", "no bwrap"))[-1]
