"""How the web server finds the commit of a request: rights, and what it knows from before. No worker answers here."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from flansible.config import Settings
from flansible.errors import Unavailable
from flansible.store import KnownCommit
from flansible.web import project_commit
from tests.helpers.launching import Site

pytestmark = pytest.mark.usefixtures("broker")

URL = "https://git.example.org/shop.git"
COMMIT = "a" * 40


@pytest.fixture
def site(make_settings: Callable[..., Settings], redis_url: str, history_url: str) -> Iterator[Site]:
    with Site.open(make_settings, redis_url, history_url) as made:
        yield made


def test_a_project_is_asked_for_only_on_queues_of_the_user(site: Site) -> None:
    site.put("projects/shop", {"url": URL, "queue": "dmz"}, "admin")
    site.write_users(dev={"inventories": ["shop:dev"], "projects": ["shop"], "may_define": ["projects"]})
    for reply in (
        site.post("projects/shop/remote", None, "dev"),
        site.post("ansibleplaybook", {"project": "shop", "playbook": "t.yml", "inventory": "dev"}, "dev"),
    ):
        assert (reply.status_code, reply.get_json()["code"]) == (403, "queue_forbidden"), reply.text
    site.write_users(dev={"inventories": ["shop:dev"], "projects": ["shop"], "queues": {"dmz": ["shop:dev"]}})
    assert site.post("projects/shop/remote", None, "dev").get_json()["code"] == "commit_unknown"


def test_a_commit_that_is_known_is_asked_for_again_once_fewer_refs_are_allowed(site: Site) -> None:
    site.put("projects/shop", {"url": URL, "ref": "main", "refresh": "manual"}, "admin")
    admin = site.context.rbac.users()["admin"]
    with site.app.app_context():
        run, _ = project_commit.described(admin, "shop")
        known = project_commit._known_as(run.model_copy(update={"ref": COMMIT}))
        site.context.store.keep_commit("shop", URL, known, KnownCommit(COMMIT, COMMIT, 0.0))
        assert project_commit.find(admin, "shop", COMMIT)[0].commit == COMMIT
        site.put("projects/shop", {"url": URL, "ref": "main", "refresh": "manual", "allow_refs": ["main"]}, "admin")
        with pytest.raises(Unavailable):
            project_commit.find(admin, "shop", COMMIT)
