"""How the web server finds the commit of a request: rights, and what it knows from before. No worker answers here."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from flansible.authorization import isolation
from flansible.authorization.isolation import Isolation
from flansible.config import Settings
from flansible.definitions.secret_source import SecretRequest
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


def test_whatever_a_worker_would_answer_names_the_queue_that_none_serves(site: Site) -> None:
    site.put("projects/shop", {"url": URL, "ref": "main", "queue": "dmz"}, "admin")
    on_dmz = {"playbook": "t.yml", "inventory": str(site.settings.base_dir / "dev"), "queue": "dmz"}
    of_shop = {"playbook": "t.yml", "inventory": "dev", "project": "shop"}
    choices = {"version": {"choices_from": {"tags": "v*"}}}
    site.put("templates/tags", {"kind": "playbook", "request": of_shop, "variables": choices}, "admin")
    site.put("templates/guarded", {"kind": "playbook", "request": on_dmz, "max_hosts": 1}, "admin")
    for answer in (
        *(site.get(f"{route}?project=shop", "admin") for route in ("listplaybooks", "listinventories")),
        *(site.post(f"templates/{name}/launch", {}, "admin").get_json() for name in ("tags", "guarded")),
        site.post("projects/shop/remote", None, "admin").get_json(),
        site.post("ansibleplaybook", of_shop, "admin").get_json(),
        *(
            site.post("preview", {"kind": "playbook", "request": body}, "admin").get_json()
            for body in (on_dmz, of_shop)
        ),
        site.get("templates/tags", "admin"),
    ):
        said = str(answer)
        assert "no worker serves queue dmz; start one with `flansible worker --queues dmz`, or name another" in said
        assert "within 10 seconds" not in said


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


def test_the_credential_is_opened_where_a_worker_needs_it_and_not_for_who_may_only_read(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolation, "for_user", lambda *_: Isolation("bwrap"))
    opened: list[str] = []

    def vault(wanted: SecretRequest) -> dict[str, str]:
        opened.append(wanted.name)
        return {"user": "git", "token": "t0ken"}

    monkeypatch.setattr(site.context.credentials, "_function", vault)
    site.put("credentials/key", {"kind": "git", "source": {"path": "shop"}}, "admin")
    site.put("projects/shop", {"url": URL, "ref": "main", "refresh": "manual", "credential": "key"}, "admin")
    may = {"inventories": ["shop:dev"], "projects": ["shop"]}
    site.write_users(watch={**may, "role": "viewer"}, dev=may)
    for path in ("listplaybooks", "listinventories"):
        reply = site.client.get(f"/api/{path}?project=shop", auth=("watch", "secret"))
        assert (reply.status_code, reply.get_json()["code"]) == (403, "role_forbidden")
    site.context.store.keep_commit("shop", URL, "main", KnownCommit(COMMIT, "main", 0.0))
    request = {"project": "shop", "playbook": "t.yml", "inventory": "prod"}
    assert site.post("ansibleplaybook", request, "dev").status_code == 403
    assert opened == []
    assert site.post("ansibleplaybook", {**request, "inventory": "dev"}, "dev").status_code == 202
    assert opened == ["key"]
