"""The form of projects: which urls and refs git may be given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from flansible.authorization import project_rights
from flansible.errors import Forbidden, InvalidRequest
from flansible.identity.users import ProjectGrant, User
from flansible.models import PlaybookRequest
from flansible.models.project_spec import ProjectSpec

GOOD_URLS = (
    "https://git.example.org/shop.git",
    "https://ann@git.example.org:8443/team/shop",
    "http://127.0.0.1:3000/shop.git",
    "ssh://git@git.example.org:2222/srv/shop.git",
    "git@git.example.org:team/shop.git",
    "git://127.0.0.1/shop",
    "file:///srv/git/shop.git",
    "/srv/git/shop.git",
)
BAD_URLS = (
    "--upload-pack=touch /tmp/x",
    "-oProxyCommand=touch",
    "ssh://-oProxyCommand=touch/x",
    "ssh://git@-oProxyCommand=touch/x",
    "-oProxyCommand=touch@host:shop.git",
    "git@-oProxyCommand=x:shop.git",
    "git.example.org:-oProxyCommand=x",
    "ext::sh -c touch% /tmp/x",
    "fd::7",
    "https://ann:secret@git.example.org/shop.git",
    "https://git.example.org/shop.git\n",
    "https://git.example.org/shop .git",
    "ftp://git.example.org/shop.git",
    "[::1]:shop.git",
    "../shop",
    "",
)
BAD_REFS = ("--upload-pack=x", "-b", "a..b", "a b", "HEAD@{1}", "x.lock", "x/", "a\nb", "a:b", "a~1", "a^", "*")


@pytest.mark.parametrize("url", GOOD_URLS)
def test_these_urls_are_taken(url: str) -> None:
    assert ProjectSpec.model_validate({"url": url}).url == url


@pytest.mark.parametrize("url", BAD_URLS)
def test_a_url_that_git_or_ssh_could_take_for_something_else_is_refused(url: str) -> None:
    with pytest.raises(ValidationError):
        ProjectSpec.model_validate({"url": url})


@pytest.mark.parametrize("ref", BAD_REFS)
def test_a_ref_that_git_could_take_for_something_else_is_refused(ref: str) -> None:
    with pytest.raises(ValidationError):
        ProjectSpec.model_validate({"url": "/srv/git", "ref": ref})
    with pytest.raises(ValidationError):
        PlaybookRequest.model_validate({"playbook": "site.yml", "project": "shop", "ref": ref})


@pytest.mark.parametrize("ref", ("main", "v1.2", "release/2026-11", "refs/heads/main", "a" * 40, "feature/#12_x+y"))
def test_a_ref_of_a_usual_form_is_taken(ref: str) -> None:
    assert PlaybookRequest.model_validate({"playbook": "site.yml", "project": "shop", "ref": ref}).ref == ref


@pytest.mark.parametrize("body", ({"ref": "main"}, {"project": "shop", "update_git_repo": True}, {"project": "../x"}))
def test_a_ref_needs_its_project_which_is_not_pulled(body: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        PlaybookRequest.model_validate({"playbook": "site.yml", **body})


def test_refs_are_allowed_by_globs_of_their_short_or_full_names() -> None:
    spec = ProjectSpec.model_validate({"url": "/srv/git", "ref": "main", "allow_refs": ["release/*", "refs/tags/v*"]})
    for ref in ("", "main", "release/1", "refs/heads/release/1", "refs/tags/v1", "a" * 40):
        project_rights.check_ref(spec, ref)
    for ref in ("other", "v1", "releases", "refs/heads/v1", "refs/heads/refs/tags/v1"):
        with pytest.raises(Forbidden, match="not run at"):
            project_rights.check_ref(spec, ref)


def test_a_pushed_ref_is_the_projects_own_branch_or_allowed_whatever_its_name_looks_like() -> None:
    spec = ProjectSpec.model_validate({"url": "/srv/git", "ref": "main", "allow_refs": ["release/*"]})
    for ref in ("refs/heads/main", "refs/heads/release/1", "refs/tags/release/1"):
        project_rights.check_pushed_ref(spec, ref)
    named_in_full = spec.model_copy(update={"ref": "refs/heads/main"})
    project_rights.check_pushed_ref(named_in_full, "refs/heads/main")
    for ref in ("refs/tags/main", "refs/heads/other", f"refs/heads/{'a' * 40}", "a" * 40, ""):
        with pytest.raises(Forbidden, match="not run at"):
            project_rights.check_pushed_ref(spec, ref)


def test_only_admin_defines_projects_of_local_paths_by_http_and_with_credentials() -> None:
    lee = User("lee", "", (), projects=(ProjectGrant("shop"),))
    admin = User("admin", "", ())
    bodies: tuple[dict[str, Any], ...] = (
        {"url": "/srv/git"},
        {"url": "file:///srv/git"},
        {"url": "http://git.example.org/shop.git"},
        {"url": "https://a/b", "credential": "key"},
    )
    for body in bodies:
        spec = ProjectSpec.model_validate(body)
        project_rights.check_definition(admin, spec)
        with pytest.raises(InvalidRequest, match="Only admin"):
            project_rights.check_definition(lee, spec)
    elsewhere = ProjectSpec.model_validate({"url": "https://a/b", "queue": "dmz"})
    project_rights.check_definition(admin, elsewhere)
    with pytest.raises(InvalidRequest, match="You may not use queue dmz"):
        project_rights.check_definition(lee, elsewhere)


@pytest.mark.parametrize(
    ("url", "host"),
    (
        ("https://ann@git.example.org:8443/team/shop", "git.example.org"),
        ("git@git.example.org:team/shop.git", "git.example.org"),
        ("ssh://git@[::1]:22/shop", "::1"),
        ("/srv/git", ""),
    ),
)
def test_the_host_of_a_url_is_what_is_dialled(url: str, host: str) -> None:
    assert ProjectSpec.model_validate({"url": url}).host == host


def test_hosts_must_have_public_addresses_unless_admin_owns_the_project_or_an_operator_names_them() -> None:
    spec = ProjectSpec.model_validate({"url": "ssh://git@git.corp.example.org/shop"})
    assert project_rights.is_public_only("lee", spec, ("other.example.org",))
    assert not project_rights.is_public_only("lee", spec, ("*.corp.example.org",))
    assert not project_rights.is_public_only("admin", spec, ())


def test_another_ref_is_for_those_who_may_run_something_at_it() -> None:
    def user(**entry: Any) -> User:
        return User("lee", "", entry.pop("inventories", ()), **entry)

    project_rights.check_ref_of_user(User("admin", "", ()), "shop", "dev")
    project_rights.check_ref_of_user(user(projects=(ProjectGrant("shop", ("d*",)),)), "shop", "dev")
    project_rights.check_ref_of_user(user(projects=(ProjectGrant("shop"),), inventories=(Path("/x"),)), "shop", "dev")
    for grants in ((ProjectGrant("shop"),), (ProjectGrant("shop", ("v*",)),), (ProjectGrant("other", ("d*",)),)):
        with pytest.raises(Forbidden, match="only at its own ref") as refused:
            project_rights.check_ref_of_user(user(projects=grants), "shop", "dev")
        assert refused.value.code == "ref_forbidden"


def test_a_grant_of_a_short_name_is_none_of_the_full_name_of_a_branch_that_somebody_may_push() -> None:
    def user(*refs: str) -> User:
        return User("lee", "", (), projects=(ProjectGrant("shop", refs),))

    for refs in (("v1.2",), ("v*", "refs/tags/*")):
        with pytest.raises(Forbidden, match="only at its own ref"):
            project_rights.check_ref_of_user(user(*refs), "shop", "refs/heads/v1.2")
    for refs in (("*",), ("refs/heads/v*",)):
        project_rights.check_ref_of_user(user(*refs), "shop", "refs/heads/v1.2")
