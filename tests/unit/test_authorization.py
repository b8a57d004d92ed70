"""Who may do what: each rule of authorization.authorize_* with the tricks that are tried against it."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flansible.config import Settings
from flansible.errors import Forbidden, InvalidRequest, NotFound
from flansible.identity import users as rbac_users
from flansible.models import AdhocRequest, AuthorizedRun, PlaybookRequest
from tests.helpers.authorizing import OWN, PLAY, Asking


@pytest.fixture
def root(tree: Path) -> Path:
    return tree


@pytest.fixture
def settings_folder(root: Path) -> Path:
    return root


@pytest.fixture
def users(root: Path) -> dict[str, rbac_users.User]:
    entries: list[dict[str, Any]] = [
        {"user": "admin", "password": "x"},
        {"user": "dev", "password": "x", "inventories": ["inv/dev", "inv/shared"]},
        {"user": "none", "password": "x"},
    ]
    return rbac_users.parse(json.dumps({"rbac": entries}), root / "rbac.json")


@pytest.fixture
def dev(root: Path, settings: Settings, users: dict[str, rbac_users.User]) -> Asking:
    return Asking(root, settings, users["dev"])


@pytest.fixture
def admin(root: Path, settings: Settings, users: dict[str, rbac_users.User]) -> Asking:
    return Asking(root, settings, users["admin"])


def inventories(run: AuthorizedRun) -> list[str]:
    return [
        word.removeprefix("--inventory=")
        for step in run.steps
        for word in step.argv[: step.argv.index("--") if "--" in step.argv else None]
        if word.startswith("--inventory=")
    ]


ALLOWED_INVENTORIES = {
    "the listed directory": ("{root}/inv/dev", "inv/dev"),
    "a trailing slash": ("{root}/inv/dev/", "inv/dev"),
    "doubled slashes": ("{root}//inv///dev", "inv/dev"),
    "dots": ("{root}/inv/./prod/../dev", "inv/dev"),
    "what lies in it": ("{root}/inv/dev/sub/hosts", "inv/dev/sub/hosts"),
    "a listed file": ("{root}/inv/shared", "inv/shared"),
    "a link to it": ("{root}/inv/link-to-dev/hosts", "inv/dev/hosts"),
    "a relative path": ("../inv/dev", "inv/dev"),
    "a list of two that are listed": (["{root}/inv/dev", "../inv/shared"], "inv/dev inv/shared"),
}

FORBIDDEN_INVENTORIES: dict[str, Any] = {
    "another's": "{root}/inv/prod",
    "another's, relative": "../inv/prod",
    "the parent": "{root}/inv",
    "the root": "/",
    "dots out of the listed one": "{root}/inv/dev/../prod",
    "many dots": "{root}/inv/dev/../../../../../../../etc/passwd",
    "doubled slashes and dots": "{root}/inv//dev//..//prod//",
    "a name with the same beginning": "{root}/inv/dev-prod",
    "a name with the same beginning, inside": "{root}/inv/dev-prod/hosts",
    "a link out of the listed directory": "{root}/inv/dev/link-to-prod",
    "through a link out of the listed directory": "{root}/inv/dev/link-to-prod/hosts",
    "a link to another's": "{root}/inv/link-to-prod",
    "dots after a link out": "{root}/inv/dev/link-to-prod/../prod",
    "a child of a listed file's sibling": "{root}/inv/shared-not",
    "a host list": "host1,",
    "a host list of two": "prod1,prod2",
    "a host list that begins with the listed path": "{root}/inv/dev,prod1",
    "only a comma": ",",
    "a tilde": "~",
    "a tilde path": "~/inv",
    "another's tilde": "~root/inv",
    "a variable": "$HOME/inv",
    "a variable in braces": "{root}/inv/dev/${HOME}",
    "a variable after the listed path": "{root}/inv/dev/$X",
    "a line break": "{root}/inv/dev\n",
    "a line break and more": "{root}/inv/dev\n{root}/inv/prod",
    "a carriage return": "{root}/inv/dev\r",
    "a backspace": "{root}/inv/dev\b",
    "an escape": "{root}/inv/dev/\x1b[2K",
    "a space at the end": "{root}/inv/dev ",
    "a space at the beginning": " {root}/inv/dev",
    "another case": "{root}/INV/DEV",
    "a URL": "file://{root}/inv/dev",
    "a template": "{{ '{root}/inv/dev' }}",
    "standard input": "-",
    "a device": "/dev/stdin",
    "through proc": "/proc/self/cwd",
    "a descriptor": "/dev/fd/0",
    "a descriptor through proc": "/proc/self/fd/0",
    "what a shell would run": "<(echo prod1)",
    "a JSON list": '["prod1"]',
    "a JSON object": '{"all": {"hosts": {"prod1": null}}}',
    "a YAML object": "{all: {hosts: {prod1: }}}",
    "a YAML text": "all:\n  hosts:\n    prod1:\n",
    "a host": "prod1",
    "a range of hosts": "prod[1:3]",
    "a program elsewhere": "/bin/true",
    "a plugin's file elsewhere": "{root}/outside/aws_ec2.yml",
    "a list in which the second is another's": ["{root}/inv/dev", "{root}/inv/prod"],
    "a list in which the first is a host list": ["host1,", "{root}/inv/dev"],
    "the listed one twice and another's": ["{root}/inv/dev", "{root}/inv/dev", "{root}/inv/dev/../prod"],
}


@pytest.mark.parametrize(("given", "expected"), ALLOWED_INVENTORIES.values(), ids=ALLOWED_INVENTORIES)
@pytest.mark.parametrize("kind", ["adhoc", "playbook"])
def test_a_listed_inventory_is_used_by_its_real_path(
    dev: Asking, root: Path, kind: str, given: Any, expected: str
) -> None:
    run = getattr(dev, kind)(inventory=given)
    assert inventories(run) == [str(root / path) for path in expected.split()]


@pytest.mark.parametrize("given", FORBIDDEN_INVENTORIES.values(), ids=FORBIDDEN_INVENTORIES)
@pytest.mark.parametrize("kind", ["adhoc", "playbook"])
def test_any_other_inventory_is_forbidden_whether_it_exists_or_not(
    dev: Asking, root: Path, kind: str, given: Any
) -> None:
    answers = []
    for remove in (False, True):
        if remove:
            shutil.rmtree(root / "inv/prod")
            shutil.rmtree(root / "inv/dev-prod")
        with pytest.raises(Forbidden) as caught:
            getattr(dev, kind)(inventory=given)
        answers.append((caught.value.message, caught.value.code))
        assert caught.value.status == 403
        assert caught.value.errors[0].field == "inventory"
        assert caught.value.code in ("inventory_forbidden", "host_list_forbidden", "template_forbidden")
    assert answers[0] == answers[1], "the answer must not tell what exists"


@pytest.mark.parametrize("kind", ["adhoc", "playbook"])
def test_an_unnamed_inventory_is_forbidden_and_the_answer_names_the_users_own(dev: Asking, kind: str) -> None:
    with pytest.raises(Forbidden) as caught:
        getattr(dev, kind)()
    assert caught.value.code == "inventory_forbidden"
    assert "inv/dev" in caught.value.message


@pytest.mark.parametrize("kind", ["adhoc", "playbook"])
@pytest.mark.parametrize(
    ("default", "allowed"), [("inv/dev", True), ("inv/prod", False), ("inv/dev-prod", False), ("host1,", False)]
)
def test_the_default_inventory_is_checked_like_a_named_one(
    root: Path,
    make_settings: Callable[..., Settings],
    users: dict[str, rbac_users.User],
    kind: str,
    default: str,
    allowed: bool,
) -> None:
    path = default if "," in default else str(root / default)
    ask = getattr(Asking(root, make_settings(default_inventory=path), users["dev"]), kind)
    if allowed:
        assert inventories(ask()) == [path]
    else:
        with pytest.raises(Forbidden, match=f"You named no inventory, and the default.*: {root}/inv/dev"):
            ask()


@pytest.mark.parametrize(
    ("line", "allowed"),
    [
        ("inventory = ../inv/dev", True),
        ("inventory = ../inv/dev/hosts, ../inv/dev/sub", True),
        ("inventory = ../inv/prod", False),
        ("inventory = ../inv/dev,../inv/prod", False),
        ("inventory = ../inv/link-to-prod", False),
        ("inventory = host1,host2", False),
        ("inventory = ~/inv/dev", False),
        ("inventory = {{CWD}}/../inv/dev", False),
        ("inventory =", False),
        ("forks = 3", False),
    ],
)
@pytest.mark.parametrize("default", [None, "inv/prod"])
@pytest.mark.parametrize("kind", ["adhoc", "playbook"])
def test_the_inventory_of_the_projects_ansible_cfg_is_the_default_when_it_is_the_users(
    root: Path,
    make_settings: Callable[..., Settings],
    users: dict[str, rbac_users.User],
    kind: str,
    default: str | None,
    line: str,
    allowed: bool,
) -> None:
    (root / "playbooks/ansible.cfg").write_text(f"[defaults]\n{line}\n")
    settings = make_settings(default_inventory=default and str(root / default))
    ask = getattr(Asking(root, settings, users["dev"]), kind)
    if allowed:
        assert inventories(ask())[0].startswith(f"{root}/inv/dev")
    else:
        with pytest.raises(Forbidden, match="You named no inventory, and .*: .*/inv/dev"):
            ask()


def test_an_ansible_cfg_that_ansible_would_not_read_names_no_inventory(dev: Asking, root: Path) -> None:
    (root / "playbooks/ansible.cfg").write_text("[defaults]\ninventory = ../inv/dev\n")
    (root / "playbooks").chmod(0o777)
    with pytest.raises(Forbidden, match="there is no default one of yours"):
        dev.adhoc()


def test_an_ansible_cfg_in_a_hidden_folder_is_as_one_that_is_not_there(dev: Asking, root: Path) -> None:
    folder = root / "playbooks/inventories"
    folder.mkdir()
    said = []
    for _ in range(2):
        with pytest.raises(Forbidden) as refusal:
            dev.playbook(playbook_dir="inventories", playbook="x.yml")
        said.append(str(refusal.value))
        (folder / "ansible.cfg").write_text("[defaults]\ninventory = hosts\n")
    assert said[0] == said[1]


def test_a_collections_playbook_without_a_grant_is_refused_with_what_to_add(dev: Asking) -> None:
    with pytest.raises(Forbidden, match="team.tools.go is a collection's playbook. .*`playbooks` in rbac.json names"):
        dev.playbook(playbook="team.tools.go", inventory=OWN)


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("debug", "var=x"),
        ("debug", {"var": "x"}),
        ("ansible.builtin.debug", '{"var": "x"}'),
        ("assert", {"that": ["x"]}),
    ],
)
def test_an_expression_as_an_argument_is_refused_with_the_reason(dev: Asking, module: str, arguments: object) -> None:
    with pytest.raises(Forbidden, match="Ansible evaluates (var|that) of (debug|assert), and what you give is data"):
        dev.adhoc(module=module, module_args=arguments, inventory=OWN)
    assert dev.adhoc(module="debug", module_args="msg=x", inventory=OWN)


def test_a_refused_relative_path_is_shown_from_the_top_and_links_are_not_followed(dev: Asking, root: Path) -> None:
    top = os.path.realpath(root)
    for given, shown in (("../inv/prod", "inv/prod"), ("../inv/link-to-prod", "inv/link-to-prod")):
        with pytest.raises(Forbidden) as caught:
            dev.adhoc(inventory=given)
        assert f"You may not use inventory {given} ({top}/{shown}). Yours: " in caught.value.message


def test_a_refused_path_below_a_folder_whose_name_is_not_utf_8_can_be_sent(dev: Asking, root: Path) -> None:
    folder = root / os.fsdecode(b"playbooks/odd\xff")
    folder.mkdir()
    (folder / "site.yml").write_text("[]\n")
    with pytest.raises(Forbidden, match=r"prod \(.*/odd\\xFF/prod\)\. Yours: ") as caught:
        dev.playbook(playbook_dir="odd\\xFF", inventory="prod")
    assert caught.value.message.encode()


def test_a_user_without_inventories_can_use_none(
    root: Path, settings: Settings, users: dict[str, rbac_users.User]
) -> None:
    nobody = Asking(root, settings, users["none"])
    for fields in ({}, {"inventory": "{root}/inv/dev"}, {"inventory": "/"}, {"inventory": "."}):
        with pytest.raises(Forbidden):
            nobody.adhoc(**fields)


@pytest.mark.parametrize(
    "given", ["prod1,prod2", "{root}/inv/prod", "~", "$HOME/inv", "../inv/shared", ["a,", "{root}/inv/dev"]]
)
def test_admins_inventories_go_to_ansible_as_they_are(admin: Asking, root: Path, given: Any) -> None:
    expected = [text.replace("{root}", str(root)) for text in (given if isinstance(given, list) else [given])]
    assert inventories(admin.adhoc(inventory=given)) == expected
    assert inventories(admin.playbook(inventory=given)) == expected


MISSING_INVENTORIES: dict[str, tuple[Any, list[str]]] = {
    # inventory -> what is named
    "a file": ("{root}/inv/dev/later", ["{root}/inv/dev/later"]),
    "a relative path": ("../inv/dev/later", ["{root}/playbooks/../inv/dev/later"]),
    "a path below a file": ("{root}/inv/shared/x", ["{root}/inv/shared/x"]),
    "a link that leads round": ("{root}/inv/dev/loop", ["{root}/inv/dev/loop"]),
    "the second of two": (["{root}/inv/shared", "{root}/inv/dev/later"], ["{root}/inv/dev/later"]),
    "two of three": (
        ["{root}/inv/dev/a", "{root}/inv/shared", "{root}/inv/dev/b"],
        ["{root}/inv/dev/a", "{root}/inv/dev/b"],
    ),
}
MISSING_FOR_ADMIN: dict[str, tuple[Any, list[str]]] = {
    "below the home": ("~/no-such-inventory", ["~/no-such-inventory"]),
    "the home of nobody": ("~no-such-user/hosts", ["~no-such-user/hosts"]),
    "a host without a comma": ("web1", ["{root}/playbooks/web1"]),
    "beside a list of hosts": (["web1,", "{root}/missing"], ["{root}/missing"]),
}


@pytest.mark.parametrize("kind", ["adhoc", "playbook"])
@pytest.mark.parametrize(
    ("who", "given", "named"),
    [("dev", *case) for case in MISSING_INVENTORIES.values()]
    + [("admin", *case) for case in (*MISSING_INVENTORIES.values(), *MISSING_FOR_ADMIN.values())],
)
def test_an_inventory_that_does_not_exist_is_not_found_by_name(
    request: pytest.FixtureRequest, root: Path, kind: str, who: str, given: Any, named: list[str]
) -> None:
    ask = getattr(request.getfixturevalue(who), kind)
    with pytest.raises(NotFound) as caught:
        ask(inventory=given)
    assert {error.field for error in caught.value.errors} == {"inventory"}
    messages = [error.message for error in caught.value.errors]
    if who == "dev":  # a user's paths are resolved
        named = [os.path.realpath(path.replace("{root}", str(root))) for path in named]
    assert len(messages) == len(named)
    for path, message in zip(named, messages, strict=True):
        assert message.endswith(f"{path.replace('{root}', str(root))} does not exist")
        assert message in caught.value.message
    assert inventories(ask(inventory=given, allow_missing=True))


def test_a_missing_inventory_without_a_folder_reminds_of_the_comma(admin: Asking) -> None:
    with pytest.raises(NotFound, match="Hosts are given as a list with a comma: web1,$"):
        admin.adhoc(inventory="web1")


def test_a_missing_default_inventory_is_named_as_such(root: Path, make_settings: Callable[..., Settings]) -> None:
    admin = rbac_users.parse('{"rbac": [{"user": "admin", "password": "x"}]}', root / "rbac.json")["admin"]
    asking = Asking(root, make_settings(default_inventory=str(root / "gone")), admin)
    with pytest.raises(NotFound, match=r"gone does not exist \(default_inventory in config.ini\)"):
        asking.playbook()
    assert asking.playbook(inventory="{root}/inv/dev").steps


def test_the_home_that_the_run_will_have_counts_for_an_inventory(admin: Asking, root: Path) -> None:
    assert admin.adhoc(inventory="~/inv/shared", environment={"HOME": str(root)}).steps
    with pytest.raises(NotFound):
        admin.adhoc(inventory="~/inv/shared")


def test_a_pull_may_bring_an_inventory(admin: Asking, dev: Asking) -> None:
    assert admin.playbook(inventory="{root}/later", update_git_repo=True).steps
    assert dev.playbook(inventory="{root}/inv/dev/later", update_git_repo=True).steps


PROMPTING = """\
- name: First
  hosts: all
  vars_prompt:
    - name: token
      prompt: The token
    - {name: colour, private: false}
    - {name: size, default: "1"}
    - {name: word, default: !unsafe abcd}
- import_playbook: more/other.yml
- import_playbook: site.yml
- import_playbook: ../outside/evil.yml
"""


@pytest.fixture
def prompting(root: Path) -> None:
    (root / "playbooks/more").mkdir()
    (root / "playbooks/asks.yml").write_text(PROMPTING)
    (root / "playbooks/more/other.yml").write_text(
        "- hosts: all\n  vars_prompt: [{name: key}]\n- import_playbook: other.yml\n"
    )
    (root / "outside/evil.yml").write_text("- hosts: all\n  vars_prompt: [{name: outside}]\n")


@pytest.mark.usefixtures("prompting")
@pytest.mark.parametrize("who", ["dev", "admin"])
def test_a_private_prompt_without_default_or_value_is_named(
    request: pytest.FixtureRequest, root: Path, who: str
) -> None:
    asking: Asking = request.getfixturevalue(who)

    def missing(**fields: Any) -> dict[str, str]:
        try:
            asking.playbook(playbook="asks.yml", inventory=OWN, **fields)
        except InvalidRequest as error:
            assert all(item.field in error.message for item in error.errors)
            return {item.field.removeprefix("secret_vars."): item.message for item in error.errors}
        return {}

    more = {"outside": "x"} if who == "admin" else {}
    found = missing(extra_vars=more)
    assert set(found) == {"token", "key"}
    assert found["token"] == "is required: play First prompts for it and has no default"
    assert set(missing(secret_vars={"token": "x", **more})) == {"key"}
    assert set(missing(extra_vars=[{"token": "x", **more}, "key=x colour=red"])) == set()
    assert set(missing(extra_args='{"token": 1, "outside": 2}')) == {"key"}
    for option in ("allow_missing", "list_hosts", "list_tasks", "list_tags", "syntax_check", "update_git_repo"):
        assert missing(**{option: True}) == {}


@pytest.mark.usefixtures("prompting")
def test_variables_in_a_file_may_answer_any_prompt(admin: Asking) -> None:
    assert admin.playbook(playbook="asks.yml", extra_vars="@/srv/vars.yml").steps


@pytest.mark.usefixtures("prompting")
def test_only_an_import_that_the_user_may_read_is_read(dev: Asking, admin: Asking, root: Path) -> None:
    (root / "playbooks/asks.yml").write_text("- import_playbook: ../outside/evil.yml\n")
    assert dev.playbook(playbook="asks.yml", inventory=OWN).steps
    with pytest.raises(InvalidRequest, match="secret_vars.outside"):
        admin.playbook(playbook="asks.yml")


ALLOWED_PLAYBOOKS = {
    "in the root": (".", "site.yml", "", "site.yml"),
    "in a folder": ("team", "site.yml", "team", "site.yml"),
    "by an absolute folder": ("{root}/playbooks/team", "site.yml", "team", "site.yml"),
    "a folder with a trailing slash": ("team/", "site.yml", "team", "site.yml"),
    "a folder with dots": ("team/../team", "site.yml", "team", "site.yml"),
    "in a folder below": (".", "team/site.yml", "", "team/site.yml"),
    "in the folder above": ("team", "../site.yml", "team", "../site.yml"),
    "by an absolute path": ("team", "{root}/playbooks/site.yml", "team", "{root}/playbooks/site.yml"),
    "a link that stays inside, by its real path": ("team", "link-in.yml", "team", "{root}/playbooks/site.yml"),
    "a name that begins with a dash": ("team", "-x.yml", "team", "-x.yml"),
}


@pytest.mark.parametrize(("folder", "name", "cwd", "told"), ALLOWED_PLAYBOOKS.values(), ids=ALLOWED_PLAYBOOKS)
def test_a_playbook_under_the_root_runs_in_its_folder(
    dev: Asking, root: Path, folder: str, name: str, cwd: str, told: str
) -> None:
    [step] = dev.playbook(playbook_dir=folder, playbook=name, inventory=OWN).steps
    assert step.cwd == str(root / "playbooks" / cwd)
    assert step.argv[-2:] == ("--", told.replace("{root}", str(root)))


@pytest.mark.parametrize("who", ["dev", "admin"])
def test_without_a_folder_a_playbook_runs_in_playbook_root(
    request: pytest.FixtureRequest, who: str, root: Path
) -> None:
    asking: Asking = request.getfixturevalue(who)
    run = asking.playbook(playbook="team/site.yml", inventory=OWN)
    assert run.steps[0].cwd == str(root / "playbooks")
    assert run.about.playbook == "team/site.yml"
    assert run.request == {"playbook": "team/site.yml", "inventory": f"{root}/inv/dev"}


@pytest.mark.parametrize("who", ["dev", "admin"])
def test_a_name_that_is_no_utf_8_is_the_file_to_ansible_and_text_to_people(
    request: pytest.FixtureRequest, who: str, root: Path
) -> None:
    folder = root / "playbooks" / os.fsdecode(b"caf\xe9")
    (folder / "x").mkdir(parents=True)
    (folder / os.fsdecode(b"\xfc.yml")).write_text(PLAY)
    asking: Asking = request.getfixturevalue(who)
    sent = {"playbook_dir": r"caf\xE9/x/..", "playbook": [r"\xFC.yml"], "inventory": f"{root}/inv/dev"}
    run = asking.playbook(**sent)
    assert (run.steps[0].cwd, run.steps[0].argv[-1]) == (str(folder), os.fsdecode(b"\xfc.yml"))
    assert run.about.playbook == r"caf\xE9/\xFC.yml"
    assert run.summary == rf"{who}: playbook \xFC.yml in {root}/playbooks/caf\xE9"
    assert run.request == sent
    adhoc = asking.adhoc(playbook_dir=r"caf\xE9", chdir=r"caf\xE9", inventory=OWN).steps[0]
    assert adhoc.cwd == str(folder) and f"--playbook-dir={folder}" in adhoc.argv
    git = asking.git(playbook_dir=r"caf\xE9")
    assert git.steps[0].cwd == str(folder)
    assert git.summary == rf"{who}: git update {root}/playbooks/caf\xE9 from origin"
    with pytest.raises(NotFound) as caught:
        asking.playbook(playbook_dir=r"caf\xE9", playbook=r"\xE9.yml", inventory=OWN)
    assert caught.value.message == rf"playbook {root}/playbooks/caf\xE9/\xE9.yml does not exist"


FORBIDDEN_PLAYBOOKS: dict[str, tuple[str, Any]] = {
    "a folder outside": ("{root}/outside", "evil.yml"),
    "a folder outside, relative": ("../outside", "evil.yml"),
    "a folder with the same beginning": ("{root}/playbooks-other", "evil.yml"),
    "a link to a folder outside": ("link-out", "evil.yml"),
    "the file system's root": ("/", "evil.yml"),
    "a tilde folder": ("~", "evil.yml"),
    "a variable in the folder": ("$HOME", "evil.yml"),
    "a comma in the folder": ("team,x", "evil.yml"),
    "a playbook above the root": (".", "../outside/evil.yml"),
    "a playbook by many dots": ("team", "../../../../../../etc/evil.yml"),
    "an absolute playbook": (".", "{root}/outside/evil.yml"),
    "a link to a playbook outside": ("team", "link-out.yml"),
    "a playbook through a linked folder": (".", "link-out/evil.yml"),
    "a tilde playbook": (".", "~/evil.yml"),
    "a variable in the playbook": (".", "$HOME/evil.yml"),
    "a line break in the playbook": (".", "site.yml\n"),
    "a link outside with an escaped name": (".", r"link\xFF/evil.yml"),
    "a link to a folder outside with an escaped name": (r"link\xFF", "evil.yml"),
    "a link outside whose escapes are a character": (".", r"link\xC3\xA9/evil.yml"),
    "dots behind an escaped name": (r"caf\xE9/../../outside", "evil.yml"),
    "the second of two outside": (".", ["site.yml", "../outside/evil.yml"]),
}


@pytest.mark.parametrize(("folder", "name"), FORBIDDEN_PLAYBOOKS.values(), ids=FORBIDDEN_PLAYBOOKS)
@pytest.mark.parametrize("update", [False, True], ids=["", "after a pull"])
def test_a_playbook_outside_the_root_is_forbidden_whether_it_exists_or_not(
    dev: Asking, root: Path, folder: str, name: Any, update: bool
) -> None:
    for link in (b"link\xff", "linké".encode()):
        (root / "playbooks" / os.fsdecode(link)).symlink_to("../outside")
    answers = []
    for remove in (False, True):
        if remove:
            shutil.rmtree(root / "outside")
        with pytest.raises(Forbidden) as caught:
            dev.playbook(playbook_dir=folder, playbook=name, inventory=OWN, update_git_repo=update)
        answers.append(caught.value.message)
        assert (caught.value.status, caught.value.code) == (403, "playbook_forbidden")
        assert caught.value.errors[0].field in ("playbook_dir", "playbook")
    assert answers[0] == answers[1], "the answer must not tell what exists"


def test_a_root_that_is_a_link_is_the_folder_it_points_to(
    root: Path, make_settings: Callable[..., Settings], users: dict[str, rbac_users.User]
) -> None:
    (root / "plays").symlink_to("playbooks")
    linked = Asking(root, make_settings(playbook_root=root / "plays"), users["dev"])
    assert linked.playbook(playbook_dir="team", inventory=OWN).steps[0].cwd == str(root / "playbooks/team")
    with pytest.raises(Forbidden):
        linked.playbook(playbook_dir="link-out", playbook="evil.yml", inventory=OWN)


@pytest.mark.parametrize("who", ["dev", "admin"])
@pytest.mark.parametrize(
    ("folder", "name", "field"),
    [
        ("missing", "site.yml", "playbook_dir"),
        ("site.yml", "site.yml", "playbook_dir"),
        ("x" * 300, "site.yml", "playbook_dir"),
        (".", "missing.yml", "playbook"),
        (".", "team", "playbook"),
        (".", "x" * 300 + ".yml", "playbook"),
        (".", "site.yml/site.yml", "playbook"),
        (".", ["site.yml", "missing.yml"], "playbook"),
    ],
)
def test_what_does_not_exist_where_one_may_look_is_not_found(
    request: pytest.FixtureRequest, who: str, folder: str, name: Any, field: str
) -> None:
    asking: Asking = request.getfixturevalue(who)
    with pytest.raises(NotFound) as caught:
        asking.playbook(playbook_dir=folder, playbook=name, inventory=OWN)
    assert caught.value.errors[0].field == field
    assert "does not exist" in caught.value.message


def test_a_pull_may_bring_a_playbook_that_is_not_there_yet(dev: Asking) -> None:
    pull, play = dev.playbook(playbook="later.yml", inventory=OWN, update_git_repo=True).steps
    assert (pull.program, pull.argv) == ("git", ("pull", "--ff-only"))
    assert play.argv[-1] == "later.yml"
    assert pull.cwd == play.cwd


def test_admin_may_run_any_playbook(admin: Asking, root: Path) -> None:
    [step] = admin.playbook(playbook_dir="{root}/outside", playbook="evil.yml").steps
    assert (step.cwd, step.argv[-1]) == (str(root / "outside"), "evil.yml")
    assert admin.playbook(playbook="../outside/evil.yml").steps[0].argv[-1] == "../outside/evil.yml"


ALLOWED_VAULTS = {
    "in the root": ("vault", "playbooks/vault"),
    "absolute": ("{root}/playbooks/vault", "playbooks/vault"),
}
FORBIDDEN_VAULTS = {
    "outside": "{root}/outside/vault",
    "outside, relative": "../outside/vault",
    "a link out": "vault-out",
    "through a linked folder": "link-out/vault",
    "the password file": "/etc/shadow",
    "a tilde": "~/vault",
    "a variable": "$HOME/vault",
}


@pytest.mark.parametrize("field", ["vault_file", "vault_password_file"])
@pytest.mark.parametrize(("given", "expected"), ALLOWED_VAULTS.values(), ids=ALLOWED_VAULTS)
def test_a_vault_file_under_the_root_is_used_by_its_real_path(
    dev: Asking, root: Path, field: str, given: str, expected: str
) -> None:
    for run in (dev.adhoc(inventory=OWN, **{field: given}), dev.playbook(inventory=OWN, **{field: given})):
        assert f"--vault-password-file={root / expected}" in run.steps[0].argv


@pytest.mark.parametrize("field", ["vault_file", "vault_password_file"])
@pytest.mark.parametrize("given", FORBIDDEN_VAULTS.values(), ids=FORBIDDEN_VAULTS)
def test_a_vault_file_outside_the_root_is_forbidden_whether_it_exists_or_not(
    dev: Asking, root: Path, field: str, given: str
) -> None:
    answers = []
    for remove in (False, True):
        if remove:
            shutil.rmtree(root / "outside")
        for ask in (dev.adhoc, dev.playbook):
            with pytest.raises(Forbidden) as caught:
                ask(inventory=OWN, **{field: given})
            answers.append(caught.value.message)
            assert (caught.value.code, caught.value.errors[0].field) == ("vault_file_forbidden", field)
    assert len(set(answers)) == 1


def test_the_word_prompt_as_vault_file_is_just_a_file(dev: Asking, root: Path) -> None:
    run = dev.adhoc(inventory=OWN, vault_file="prompt")
    assert f"--vault-password-file={root}/playbooks/prompt" in run.steps[0].argv


def test_a_key_and_its_passphrase_belong_together(dev: Asking, admin: Asking) -> None:
    encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\r\nMIIE\r\n-----END ENCRYPTED PRIVATE KEY-----"
    for ask in (dev.adhoc, dev.playbook, admin.adhoc):
        for given, message in (
            ({"private_key": encrypted}, "private_key_passphrase is missing: private_key is encrypted"),
            ({"private_key_passphrase": "x"}, "private_key_passphrase is for private_key, which is not given"),
        ):
            with pytest.raises(InvalidRequest) as caught:
                ask(inventory=OWN, **given)
            assert (caught.value.message, caught.value.errors[0].field) == (message, "private_key_passphrase")
        run = ask(inventory=OWN, private_key=encrypted, private_key_passphrase="open {{ sesame }}")
        assert run.secrets is not None and run.secrets.private_key_passphrase == "open {{ sesame }}"
        assert "sesame" not in run.model_dump_json()


TEMPLATES = ["{{ lookup('pipe', 'id') }}", "x{% if 1 %}y{% endif %}", "{# x #}"]
# Text that Ansible is told to take as data, whatever it says, and text it never looks into.
DATA_FIELDS = {"module_args", "extra_vars", "extra_args"}
NAMES = {"project", "queue"}  # the model takes nothing but a plain name
SECRETS = {"private_key", "private_key_passphrase", "connection_password", "become_password", "vault_password"}


def text_fields(model: type[AdhocRequest] | type[PlaybookRequest]) -> list[str]:
    """Every field that takes a string, as pydantic sees it: a new one is tested without being named here."""
    found = []
    for name in model.model_fields:
        try:
            needed = {"module": "ping"} if model is AdhocRequest else {"playbook_dir": ".", "playbook": "site.yml"}
            model.model_validate({**needed, name: "text"})
        except ValueError:
            continue
        found.append(name)
    return sorted(set(found) - DATA_FIELDS - SECRETS - NAMES)


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("field", text_fields(AdhocRequest))
def test_no_text_field_of_an_adhoc_request_takes_a_template(dev: Asking, field: str, template: str) -> None:
    with pytest.raises(Forbidden):
        dev.adhoc(**{"inventory": OWN, field: template})


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("field", text_fields(PlaybookRequest))
def test_no_text_field_of_a_playbook_request_takes_a_template(dev: Asking, field: str, template: str) -> None:
    with pytest.raises(Forbidden):
        dev.playbook(**{"inventory": OWN, field: template})


def test_a_template_in_a_list_is_seen_as_well(dev: Asking) -> None:
    for field in ("tags", "skip_tags"):
        with pytest.raises(Forbidden) as caught:
            dev.playbook(**{"inventory": OWN, field: ["fine", TEMPLATES[0]]})
        assert (caught.value.code, caught.value.errors[0].field) == ("template_forbidden", field)


def test_others_strings_travel_as_data_and_admins_as_the_command_line_has_them(dev: Asking, admin: Asking) -> None:
    variables = {"x": TEMPLATES[0]}
    [step] = dev.adhoc(inventory=OWN, extra_vars=variables, module_args={"msg": TEMPLATES[0]}).steps
    assert step.data_only and step.extra_vars == (variables,)
    assert not any(word.startswith("--extra-vars") for word in step.argv)
    [step] = admin.adhoc(extra_vars=variables, module_args={"msg": TEMPLATES[0]}).steps
    assert not step.data_only and step.extra_vars == ()
    assert f"--extra-vars={json.dumps(variables)}" in step.argv
    [step] = admin.adhoc(limit=TEMPLATES[0]).steps
    assert f"--limit={TEMPLATES[0]}" in step.argv


@pytest.mark.parametrize("limit", ["@/etc/passwd", "web:@{root}/inv/prod/hosts", "web,@x", "@"])
def test_a_limit_read_from_a_file_is_for_admin_only(dev: Asking, admin: Asking, limit: str) -> None:
    for ask in (dev.adhoc, dev.playbook):
        with pytest.raises(Forbidden) as caught:
            ask(inventory=OWN, limit=limit)
        assert (caught.value.code, caught.value.errors[0].field) == ("limit_file_forbidden", "limit")
    admin.adhoc(limit=limit)


@pytest.mark.parametrize("text", ["@/etc/passwd", " @x", "\t@x", "@", "/etc/passwd", "./x", "../x"])
@pytest.mark.parametrize("field", ["extra_vars", "extra_args"])
@pytest.mark.parametrize("as_list", [False, True], ids=["string", "list"])
def test_variables_read_from_a_file_are_for_admin_only(
    dev: Asking, admin: Asking, field: str, text: str, as_list: bool
) -> None:
    fields: dict[str, Any] = {field: [{"a": 1}, text] if as_list else text}
    for ask in (dev.adhoc, dev.playbook):
        with pytest.raises(Forbidden) as caught:
            ask(inventory=OWN, **fields)
        assert (caught.value.code, caught.value.errors[0].field) == ("variables_file_forbidden", field)
    admin.adhoc(**fields)


ADMIN_FIELDS: dict[str, Any] = {
    "connection": "local",
    "ssh_common_args": "-o ProxyCommand=id",
    "ssh_extra_args": "-o ProxyCommand=id",
    "sftp_extra_args": "-o ProxyCommand=id",
    "scp_extra_args": "-o ProxyCommand=id",
    "connection_password_file": "{root}/playbooks/vault",
    "become_password_file": "{root}/playbooks/vault",
    "tree": "{root}/playbooks",
    "strategy": "mitogen_linear",
}


@pytest.mark.parametrize("field", ADMIN_FIELDS)
def test_fields_that_reach_beyond_the_inventory_are_for_admin_only(dev: Asking, admin: Asking, field: str) -> None:
    asks = [dev.adhoc] if field == "tree" else [dev.adhoc, dev.playbook]
    for ask in asks:
        with pytest.raises(Forbidden) as caught:
            ask(inventory=OWN, **{field: ADMIN_FIELDS[field]})
        assert (caught.value.code, caught.value.errors[0].field) == ("field_forbidden", field)
    admin.adhoc(**{field: ADMIN_FIELDS[field]})


def test_a_strategy_of_mitogen_needs_mitogen(admin: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    assert admin.adhoc(strategy="mitogen_free").steps[0].strategy == "mitogen_free"
    monkeypatch.setitem(sys.modules, "ansible_mitogen", None)
    for ask in (admin.adhoc, admin.playbook):
        with pytest.raises(InvalidRequest, match=r"flansible\[mitogen\]") as caught:
            ask(strategy="mitogen_linear")
        assert (caught.value.code, caught.value.errors[0].field) == ("invalid_field", "strategy")


def test_only_the_environment_variables_of_the_configuration_may_be_set(
    root: Path, make_settings: Callable[..., Settings], users: dict[str, rbac_users.User], dev: Asking, admin: Asking
) -> None:
    evil = {"ANSIBLE_CONFIG": "/tmp/x"}
    for ask in (dev.adhoc, dev.playbook):
        with pytest.raises(Forbidden) as caught:
            ask(inventory=OWN, environment=evil)
        assert caught.value.errors[0].field == "environment.ANSIBLE_CONFIG"
    assert admin.adhoc(environment=evil).steps[0].environment == evil
    some = Asking(root, make_settings(environment_names="DEPLOY_ENV, REGION"), users["dev"])
    assert some.adhoc(inventory=OWN, environment={"REGION": "x"}).steps[0].environment == {"REGION": "x"}
    for name in ("region", "REGIONS", "PATH", "LD_PRELOAD"):
        with pytest.raises(Forbidden):
            some.adhoc(inventory=OWN, environment={"REGION": "x", name: "y"})


@pytest.mark.parametrize("field", ["chdir", "playbook_dir"])
@pytest.mark.parametrize("folder", ["{root}/outside", "../outside", "link-out", "/", "~", "$HOME", "team,x"])
def test_an_adhoc_command_may_not_leave_the_root(dev: Asking, root: Path, field: str, folder: str) -> None:
    answers = []
    for remove in (False, True):
        if remove:
            shutil.rmtree(root / "outside")
        with pytest.raises(Forbidden) as caught:
            dev.adhoc(inventory=OWN, **{field: folder})
        answers.append(caught.value.message)
        assert (caught.value.code, caught.value.errors[0].field) == ("playbook_forbidden", field)
    assert answers[0] == answers[1]


VAULT_IDS = {
    "a file": ("dev@vault", "dev@{root}/playbooks/vault"),
    "no label": ("vault", "{root}/playbooks/vault"),
    "a prompt": ("dev@prompt", "dev@prompt"),
    "no label, but an at": ("@vault", "@{root}/playbooks/vault"),
    "an at in the name": ("dev@a@vault", "dev@{root}/playbooks/a@vault"),
    "an at before prompt": ("dev@a@prompt", "dev@{root}/playbooks/a@prompt"),
}
FORBIDDEN_VAULT_IDS = [
    "dev@../outside/vault",
    "dev@{root}/outside/vault",
    "../outside/vault",
    "@/etc/shadow",
    # Ansible splits at the first @: what follows it is the path.
    "dev@../outside/vault@prompt",
    "dev@../outside/x@vault",
    "dev@/etc/x@prompt",
    "dev@vault-out",
    "dev@~/vault",
    "dev@$HOME/vault",
]


@pytest.mark.parametrize(("given", "expected"), VAULT_IDS.values(), ids=VAULT_IDS)
def test_a_vault_id_is_split_where_ansible_splits_it(dev: Asking, root: Path, given: str, expected: str) -> None:
    option = f"--vault-id={expected.replace('{root}', str(root))}"
    assert option in dev.playbook(inventory=OWN, vault_id=given, vault_password="x").steps[0].argv


@pytest.mark.parametrize("given", FORBIDDEN_VAULT_IDS)
def test_a_vault_id_whose_file_lies_outside_the_root_is_forbidden(dev: Asking, given: str) -> None:
    for ask in (dev.adhoc, dev.playbook):
        with pytest.raises(Forbidden) as caught:
            ask(inventory=OWN, vault_id=["dev@vault", given])
        assert (caught.value.code, caught.value.errors[0].field) == ("vault_file_forbidden", "vault_id")


def test_secrets_travel_beside_the_run_and_not_in_its_record(dev: Asking) -> None:
    for field in sorted(SECRETS):
        run = dev.playbook(**{"inventory": OWN, "private_key": "a key", field: "marker-secret"})
        assert run.secrets is not None
        assert "marker-secret" not in run.model_dump_json() + repr(run)


CONNECTION_VARIABLES = [
    "ansible_host",
    "ansible_connection",
    "ansible_ssh_common_args",
    "ansible_python_interpreter",
    "ansible_become_exe",
    "ansible_",
    # ssh connects to what this says, when nothing more special does: `ansible dev1 -e inventory_hostname=prod1`.
    "inventory_hostname",
    # ssh's other names of its host, as its documentation spells them, and taken literally
    "delegated_vars['ansible_host']",
    "delegated_vars['ansible_ssh_host']",
    "_ansible_ansiballz_debugpy_config",
]


@pytest.mark.parametrize("name", CONNECTION_VARIABLES)
@pytest.mark.parametrize("field", ["extra_vars", "extra_args"])
@pytest.mark.parametrize("as_list", [False, True], ids=["object", "list"])
def test_variables_that_decide_where_ansible_connects_are_for_admin_only(
    dev: Asking, admin: Asking, name: str, field: str, as_list: bool
) -> None:
    value = {"harmless": 1, name: "prod1"}
    fields: dict[str, Any] = {field: [{"a": 1}, value] if as_list else value}
    for ask in (dev.adhoc, dev.playbook):
        with pytest.raises(Forbidden) as caught:
            ask(inventory=OWN, **fields)
        assert (caught.value.code, caught.value.errors[0].field) == ("connection_variable_forbidden", f"{field}.{name}")
    admin.adhoc(**fields)


BAD_GIT_NAMES = [
    "-x",
    "--upload-pack=touch /tmp/x",
    "https://example.org/x.git",
    "git@example.org:x",
    "ext::sh -c id",
    "/etc",
    "../other",
    "a/../../b",
    ".",
    "..",
    ".git",
    "a..b",
    "a b",
    "a\n",
    "$HOME",
    "~",
    "main:refs/heads/other",
    "+main",
    "@{-1}",
    "^main",
    "{{ x }}",
    "ünï",
    "*",
]


@pytest.mark.parametrize("who", ["dev", "admin"])
@pytest.mark.parametrize("name", BAD_GIT_NAMES)
@pytest.mark.parametrize("field", ["remote_name", "branch_name"])
def test_names_that_git_could_take_for_something_else_are_refused(
    request: pytest.FixtureRequest, who: str, field: str, name: str
) -> None:
    asking: Asking = request.getfixturevalue(who)
    with pytest.raises(InvalidRequest) as caught:
        asking.git(**{field: name})
    assert caught.value.status == 400
    assert caught.value.errors[0].field == field


@pytest.mark.parametrize("name", ["main", "feature/x-1", "v1.0+build_2", "_", "a-"])
def test_plain_git_names_are_taken(dev: Asking, root: Path, name: str) -> None:
    for step in dev.git(remote_name=name.replace("/", "-"), branch_name=name).steps:
        assert (step.program, step.cwd) == ("git", str(root / "playbooks"))


@pytest.mark.parametrize(
    "folder", ["{root}/outside", "../outside", "link-out", "/", "~", "$HOME", "{root}/playbooks-other", "team,x"]
)
def test_a_checkout_outside_the_root_is_forbidden_whether_it_exists_or_not(
    dev: Asking, root: Path, folder: str
) -> None:
    answers = []
    for remove in (False, True):
        if remove:
            shutil.rmtree(root / "outside")
        with pytest.raises(Forbidden) as caught:
            dev.git(playbook_dir=folder)
        answers.append(caught.value.message)
        assert (caught.value.code, caught.value.errors[0].field) == ("playbook_forbidden", "playbook_dir")
    assert answers[0] == answers[1]


@pytest.mark.parametrize("folder", ["missing", "site.yml", "x" * 300])
def test_a_checkout_that_does_not_exist_is_not_found(dev: Asking, folder: str) -> None:
    with pytest.raises(NotFound) as caught:
        dev.git(playbook_dir=folder)
    assert caught.value.errors[0].field == "playbook_dir"


def test_adhoc_commands_run_in_the_playbook_root_or_beside_the_configuration(dev: Asking, root: Path) -> None:
    assert dev.adhoc(inventory=OWN).steps[0].cwd == str(root / "playbooks")
    shutil.rmtree(root / "playbooks")
    assert dev.adhoc(inventory=OWN).steps[0].cwd == str(root)


def test_the_summary_is_one_printable_line_of_bounded_length_without_values(admin: Asking) -> None:
    secret = "marker-secret"
    run = admin.adhoc(module="shell\n\x1b[2K", module_args=secret, extra_vars={"p": secret}, host_pattern="h" * 1000)
    assert run.summary.isprintable()
    assert len(run.summary) <= 300
    assert secret not in run.summary
    assert run.summary.startswith("admin: adhoc shell")
    assert admin.playbook(limit="web", extra_vars={"p": secret}).summary.endswith("playbooks on web")
