"""What users may run of a project: which one, at which refs, with which inventories and playbooks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flansible.authorization import lost_rights, preview_request, project_rights, project_runs, redaction
from flansible.authorization.isolation import Isolation
from flansible.config import Settings
from flansible.errors import ConfigurationError, Forbidden, InvalidRequest
from flansible.identity import users
from flansible.identity.users import User
from flansible.models import AdhocRequest, AuthorizedRun, PlaybookRequest, ProjectRun

SANDBOXED = Isolation("auto")
COMMIT = "c" * 40
Judge = Callable[..., AuthorizedRun]


@pytest.fixture
def judge(tmp_path: Path) -> Judge:
    """Authorizes a playbook of project shop by lee, whose entry has these keys."""
    (tmp_path / "playbooks").mkdir()
    settings = Settings(base_dir=tmp_path, playbook_root=tmp_path / "playbooks", data_dir=tmp_path / ".flansible")

    def authorize(entry: dict[str, Any], body: dict[str, Any], user: str = "lee", **project: Any) -> AuthorizedRun:
        who = entries(tmp_path, entry)[user]
        found = ProjectRun.model_validate(
            {"name": "shop", "url": "https://h/shop", "ref": "main", "commit": COMMIT, **project}
        )
        request = PlaybookRequest.model_validate({"playbook": "site.yml", "project": "shop", **body})
        return project_runs.authorize_playbook(who, request, found, settings, SANDBOXED)

    return authorize


def entries(folder: Path, entry: dict[str, Any]) -> dict[str, User]:
    """Users admin and lee, lee with these keys."""
    lee = {"user": "lee", "password": "x", "inventories": [], **entry}
    text = json.dumps({"rbac": [{"user": "admin", "password": "x", "inventories": []}, lee]})
    return users.parse(text, folder / "rbac.json")


DEV = {"projects": ["shop"], "inventories": ["shop:inventories/dev", "own/hosts"]}
ON_DEV = {"inventory": "inventories/dev"}


def test_a_run_has_its_project_its_commit_and_paths_from_its_root(judge: Judge) -> None:
    run = judge(DEV, {"playbook_dir": "deploy", "playbook": ["site.yml", "../other.yml"], **ON_DEV})
    assert (run.about.project, run.about.ref, run.about.commit) == ("shop", "main", COMMIT)
    assert run.about.playbook == "shop:deploy/site.yml shop:other.yml"
    [step] = run.steps
    assert step.cwd == "deploy"
    assert step.argv == ("--inventory=../inventories/dev", "--", "site.yml", "../other.yml")
    assert run.confinement is not None
    assert run.confinement.projects == ("shop",)
    assert run.visibility is not None
    assert run.visibility.inventories == ("shop:inventories/dev",)
    clone = f"git clone https://h/shop shop && git -C shop checkout --detach {COMMIT} && cd shop/deploy && "
    assert redaction.command(run).startswith(clone)


def test_a_project_must_be_granted_in_the_same_words_whether_there_is_one(judge: Judge) -> None:
    for name in ("shop", "nothing"):
        with pytest.raises(Forbidden) as refused:
            judge({"projects": ["other"], "inventories": ["shop:."]}, ON_DEV, name=name)
        assert refused.value.code == "project_forbidden"
        assert refused.value.message.replace(name, "X") == (
            "project: You may not use project X. Yours: other. Ask an admin to add it to rbac.json."
        )


@pytest.mark.parametrize("inventory", ("inventories/prod", "inventories/dev2", "inventories", "."))
def test_an_inventory_of_the_project_must_be_granted(inventory: str, judge: Judge) -> None:
    with pytest.raises(Forbidden, match=f"You may not use inventory shop:{inventory}") as refused:
        judge(DEV, {"inventory": inventory})
    assert refused.value.code == "inventory_forbidden"
    assert judge({}, {"inventory": inventory}, "admin").steps


@pytest.mark.parametrize(
    "granted", ("shop:inventories", "shop:.", "shop:inventories/dev", "shop:./inventories/x/../dev")
)
def test_a_folder_grants_all_in_it(granted: str, judge: Judge, tmp_path: Path) -> None:
    if ".." in granted:
        with pytest.raises(ConfigurationError, match="without"):
            entries(tmp_path, {"inventories": [granted]})
        return
    assert judge({**DEV, "inventories": [granted]}, ON_DEV).about.inventory == "shop:inventories/dev"


def test_an_inventory_counts_at_the_projects_own_ref_and_at_those_that_the_entry_names(judge: Judge) -> None:
    with pytest.raises(Forbidden, match="only at the project's own ref, not at feature/x") as refused:
        judge(DEV, ON_DEV, ref="feature/x", is_own_ref=False)
    assert refused.value.code == "inventory_ref_forbidden"
    named = {**DEV, "projects": [{"name": "shop", "refs": ["feature/*"]}]}
    assert judge(named, ON_DEV, ref="feature/x", is_own_ref=False).about.ref == "feature/x"
    for ref in ("c" * 40, "refs/heads/feature/x"):
        with pytest.raises(Forbidden):
            judge(named, ON_DEV, ref=ref, is_own_ref=False)
    assert judge({}, ON_DEV, "admin", ref="feature/x", is_own_ref=False).steps


def test_a_list_of_files_runs_alone_among_the_previews_of_its_user(judge: Judge, tmp_path: Path) -> None:
    run = judge(DEV, ON_DEV)
    assert run.project is not None
    for name, entry in entries(tmp_path, DEV).items():
        listing = project_runs.listing_run(entry, run.project, Settings(), ("site.yml",), 15)
        look = preview_request.preview_of(judge(DEV, ON_DEV, name), "plan")
        assert listing.locks == look.locks == (() if name == "admin" else ("\0look of lee",))
        assert (listing.steps[0].listing, listing.steps[0].argv, listing.time_limit) == ("files", ("site.yml",), 15)
        assert listing.project is not None and listing.project.requirements == "none"


def test_an_absolute_inventory_stays_itself_under_the_rules_of_today(judge: Judge, tmp_path: Path) -> None:
    own = str(tmp_path / "own" / "hosts")
    assert judge(DEV, {"inventory": own}, ref="feature/x", is_own_ref=False).about.inventory == own
    for given in ("/etc/hosts", "~/hosts", "a,b", "$HOME/x"):
        with pytest.raises((Forbidden, InvalidRequest)):
            judge(DEV, {"inventory": given})


def test_no_inventory_is_only_for_those_who_have_the_default_one(judge: Judge) -> None:
    with pytest.raises(Forbidden, match="the default one is not yours"):
        judge(DEV, {})
    assert judge({}, {}, "admin").about.inventory is None


@pytest.mark.parametrize(
    "body",
    (
        {"playbook_dir": ".."},
        {"playbook_dir": "/etc"},
        {"playbook_dir": "a/../../b"},
        {"playbook": "../site.yml"},
        {"playbook": "/etc/site.yml"},
        {"playbook_dir": "deploy", "playbook": "../../site.yml"},
        {"inventory": "../inventories"},
        {"vault_password_file": "../vault"},
        {"vault_id": "x@../vault"},
        {"private_key_file": "a/../../key"},
        {"module_path": "../library"},
    ),
)
def test_no_path_leads_out_of_the_project(body: dict[str, Any], judge: Judge) -> None:
    with pytest.raises(InvalidRequest, match="must be a path in the project"):
        judge(DEV, {**ON_DEV, **body})


def test_paths_of_this_machine_are_under_its_rules(judge: Judge) -> None:
    for field in ("vault_password_file", "private_key_file", "module_path"):
        with pytest.raises(Forbidden):
            judge(DEV, {**ON_DEV, field: "/etc/passwd"})


def test_playbooks_of_the_project_are_granted_by_its_name(judge: Judge) -> None:
    entry = {**DEV, "playbooks": ["site.yml", "shop:deploy/**", "other:**"]}
    with pytest.raises(Forbidden, match="You may not start playbook shop:site.yml"):
        judge(entry, ON_DEV)
    assert judge(entry, {"playbook": "deploy/a/site.yml", **ON_DEV}).steps
    with pytest.raises(Forbidden):
        judge(DEV, {"playbook": "ns.coll.play", **ON_DEV})
    assert judge({**DEV, "playbooks": ["shop:ns.coll.*"]}, {"playbook": "ns.coll.play", **ON_DEV}).steps


def test_rules_of_today_hold_for_the_rest_of_the_request(judge: Judge) -> None:
    for body in (
        {"connection": "local"},
        {"extra_vars": "@file"},
        {"extra_vars": {"ansible_connection": "local"}},
        {"limit": "{{ lookup('pipe', 'id') }}"},
    ):
        with pytest.raises(Forbidden):
            judge(DEV, {**ON_DEV, **body})
    with pytest.raises(Forbidden):
        judge({**DEV, "become": False}, {**ON_DEV, "become": True})
    with pytest.raises(Forbidden):
        judge({**DEV, "hosts": ["web1"]}, {**ON_DEV, "limit": "web2"})


def test_an_adhoc_command_works_in_the_tree(tmp_path: Path) -> None:
    (tmp_path / "playbooks").mkdir()
    settings = Settings(base_dir=tmp_path, playbook_root=tmp_path / "playbooks", data_dir=tmp_path / ".flansible")
    lee = entries(tmp_path, DEV)["lee"]
    body = {"module": "ping", "host_pattern": "all", "project": "shop", "chdir": "a", "playbook_dir": "b", **ON_DEV}
    project = ProjectRun(name="shop", url="https://h/shop", ref="main", commit=COMMIT)
    run = project_runs.authorize_adhoc(lee, AdhocRequest.model_validate(body), project, settings, SANDBOXED)
    assert run.steps[0].argv[:2] == ("--inventory=../inventories/dev", "--playbook-dir=../b")


def test_a_right_to_a_project_that_is_lost_ends_its_tasks(judge: Judge, tmp_path: Path) -> None:
    run = judge(DEV, ON_DEV)
    settings = Settings(base_dir=tmp_path, playbook_root=tmp_path / "playbooks", data_dir=tmp_path / ".flansible")
    lost_rights.check(entries(tmp_path, DEV)["lee"], run, settings)
    for entry in (
        {**DEV, "projects": []},
        {**DEV, "inventories": ["shop:inventories/prod"]},
        {**DEV, "playbooks": ["other.yml"]},
    ):
        with pytest.raises(Forbidden):
            lost_rights.check(entries(tmp_path, entry)["lee"], run, settings)
    hidden = project_runs.hidden_run(entries(tmp_path, DEV)["lee"], run.project or pytest.fail(), settings, "x", 10)
    lost_rights.check(entries(tmp_path, DEV)["lee"], hidden, settings)
    with pytest.raises(Forbidden):
        lost_rights.check(entries(tmp_path, {"projects": ["other"]})["lee"], hidden, settings)


def test_a_group_grants_its_projects_to_its_members(tmp_path: Path) -> None:
    document = {
        "rbac": [
            {"user": "admin", "password": "x", "inventories": []},
            {"user": "lee", "password": "x", "inventories": [], "groups": ["ops"]},
        ],
        "groups": [{"name": "ops", **DEV}],
    }
    lee = users.parse(json.dumps(document), tmp_path / "rbac.json")["lee"]
    assert project_rights.names(lee) == {"shop"}
    settings = Settings(base_dir=tmp_path, playbook_root=tmp_path, data_dir=tmp_path / ".flansible")
    project = ProjectRun(name="shop", url="https://h/shop", ref="main", commit=COMMIT)
    request = PlaybookRequest.model_validate({"playbook": "site.yml", "project": "shop", **ON_DEV})
    assert project_runs.authorize_playbook(lee, request, project, settings, SANDBOXED).entry == "group:ops"
    with pytest.raises(Forbidden, match="No entry of yours"):
        wrong = request.model_copy(update={"inventory": "inventories/prod"})
        project_runs.authorize_playbook(lee, wrong, project, settings, SANDBOXED)
