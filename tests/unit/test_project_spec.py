"""The form of projects: which urls and refs git may be given."""

from __future__ import annotations

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
    for ref in ("other", "v1", "releases", "refs/heads/v1"):
        with pytest.raises(Forbidden, match="not run at"):
            project_rights.check_ref(spec, ref)


def test_a_pushed_ref_is_the_projects_own_branch_or_allowed_whatever_its_name_looks_like() -> None:
    spec = ProjectSpec.model_validate({"url": "/srv/git", "ref": "main", "allow_refs": ["release/*"]})
    for ref in ("refs/heads/main", "refs/heads/release/1", "refs/tags/release/1"):
        project_rights.check_pushed_ref(spec, ref)
    for ref in ("refs/tags/main", "refs/heads/other", f"refs/heads/{'a' * 40}", "a" * 40, ""):
        with pytest.raises(Forbidden, match="not run at"):
            project_rights.check_pushed_ref(spec, ref)


def test_only_admin_defines_projects_of_local_paths_and_with_credentials() -> None:
    lee = User("lee", "", (), projects=(ProjectGrant("shop"),))
    admin = User("admin", "", ())
    for body in ({"url": "/srv/git"}, {"url": "file:///srv/git"}, {"url": "https://a/b", "credential": "key"}):
        spec = ProjectSpec.model_validate(body)
        project_rights.check_definition(admin, spec)
        with pytest.raises(InvalidRequest, match="Only admin"):
            project_rights.check_definition(lee, spec)
