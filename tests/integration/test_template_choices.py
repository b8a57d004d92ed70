"""Choices of a template's variables that a URL or the tags of a project give: for the form, and at each launch."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from flansible.config import Settings
from flansible.definitions.secret_source import SecretRequest
from flansible.identity import tokens
from flansible.models import AuthorizedRun
from flansible.store import KnownCommit
from flansible.web import choices
from flansible.web.preview_run import PreviewResult
from tests.helpers.history import copy_migrated
from tests.helpers.launching import Site
from tests.helpers.receivers import Answer, Receiver

pytestmark = pytest.mark.usefixtures("broker")

FIELD = "extra_vars.version"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.stop()


@pytest.fixture
def site(make_settings: Callable[..., Settings], redis_url: str, tmp_path: Path) -> Iterator[Site]:
    copy_migrated(tmp_path)
    url = f"sqlite:///{tmp_path}/history.sqlite3"
    with Site.open(make_settings, redis_url, url, choices_hosts="127.0.0.1", choices_private=True) as made:
        yield made


def reply(status: int, body: Any, **headers: str) -> Answer:
    return status, headers, body if isinstance(body, bytes) else json.dumps(body).encode()


def template(site: Site, receiver: Receiver, **changes: Any) -> None:
    site.template(variables={"version": {"choices_from": {"url": receiver.url}, "required": True, **changes}})


def forget(site: Site) -> None:
    """As half a minute later."""
    for key in site.context.store._redis.keys("flansible:choices:*"):
        site.context.store._redis.delete(key)


def enum(site: Site) -> list[str] | None:
    found = site.get("templates/deploy")["launch_schema"]["properties"]["extra_vars"]["properties"]["version"]
    return found.get("enum")  # type: ignore[no-any-return]


def test_what_a_url_says_is_what_the_form_shows_and_a_launch_takes(site: Site, receiver: Receiver) -> None:
    receiver.answer = lambda _: reply(200, ["1.2", "1.1", "1.2"])
    template(site, receiver)
    assert enum(site) == ["1.2", "1.1"] and site.get("templates/deploy")["choices_problems"] == []
    site.launch()
    assert site.refusal(extra_vars={"version": "1.3"}) == (400, "invalid_field", {FIELD})
    assert len(receiver.received) == 1, "kept for a moment"
    receiver.answer = lambda _: reply(200, ["1.3"])
    forget(site)
    assert site.refusal() == (400, "invalid_field", {FIELD})
    site.launch(extra_vars={"version": "1.3"})
    assert receiver.received[0].headers["accept"] == "application/json"


def test_they_are_read_for_those_who_may_launch_alone(site: Site, receiver: Receiver) -> None:
    receiver.answer = lambda _: reply(200, ["1.2"])
    template(site, receiver)  # its owner is told at once
    receiver.received.clear()
    forget(site)
    made = tokens.make("portal", "read", None, datetime.now(UTC))
    tokens.add(site.settings.token_file, made.token)
    shown = site.client.get("/api/templates/deploy", headers={"Authorization": f"Bearer {made.text}"}).get_json()
    assert shown["name"] == site.get("templates/deploy", "eve")["name"] == "deploy"
    assert receiver.received == [] and "1.2" not in str(shown["launch_schema"])
    assert enum(site) == ["1.2"]


def test_hosts_of_a_group_are_kept_for_a_moment(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[AuthorizedRun] = []

    def preview(run: AuthorizedRun) -> PreviewResult:
        asked.append(run)
        return PreviewResult(content={"groups": {"web": ["web2", "web1"]}})

    monkeypatch.setattr(choices, "run_preview", preview)
    site.template(variables={"version": {"choices_from": {"group": "web"}}})
    assert enum(site) == enum(site) == ["web1", "web2"] and len(asked) == 1
    forget(site)
    assert enum(site) == ["web1", "web2"] and len(asked) == 2


BAD: dict[str, Answer] = {
    "an error": reply(500, ["1.2"]),
    "a redirect": reply(302, b"", Location="http://127.0.0.1:1/"),
    "no JSON": reply(200, b"<html>"),
    "no list": reply(200, {"1.2": 1}),
    "numbers": reply(200, ["1.2", 3]),
    "lists": reply(200, [["1.2"]]),
    "a control character": reply(200, ["1.2\x1b[2J"]),
    "deep": reply(200, b"[" * 100_000),
    "too many": reply(200, [str(number) for number in range(1001)]),
    "too large": reply(200, b'["1.2"' + b" " * 300_000 + b"]"),
    "no reply": None,
}


def test_what_a_url_does_not_say_starts_nothing_and_is_named(
    site: Site, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    template(site, receiver)
    for name, answer in BAD.items():
        if answer is None:
            monkeypatch.setattr(choices, "_URL_SECONDS", 0.3)
        receiver.answer = lambda _, answer=answer: answer  # type: ignore[misc]
        assert site.refusal() == (502, "choices_unknown", {FIELD}), name
    found = site.get("templates/deploy")
    assert [one["field"] for one in found["choices_problems"]] == [FIELD] and enum(site) is None
    assert found["may_launch"] is True


def test_no_choices_at_all_are_an_error_of_their_own(site: Site, receiver: Receiver) -> None:
    receiver.answer = lambda _: reply(200, [])
    template(site, receiver)
    assert site.refusal() == (400, "no_choices", {FIELD})


def test_a_default_that_is_no_choice_any_more_is_refused(site: Site, receiver: Receiver) -> None:
    receiver.answer = lambda _: reply(200, ["1.3"])
    template(site, receiver, default="1.2", required=False)
    assert site.refusal(extra_vars={}) == (400, "invalid_field", {FIELD})


def test_only_hosts_of_the_setting_are_asked_and_only_at_public_addresses(site: Site, receiver: Receiver) -> None:
    url = receiver.url.replace("127.0.0.1", "localhost")
    body = {"kind": "playbook", "request": {"playbook": "t.yml"}}
    variables = {"version": {"choices_from": {"url": url}}}
    refused = site.put("templates/other", {**body, "variables": variables}, "admin", 403).get_json()
    assert refused["code"] == "choices_forbidden"
    template(site, receiver)
    receiver.received.clear()
    settings = site.context.settings
    object.__setattr__(site.context, "settings", settings.model_copy(update={"choices_private": False}))
    assert site.refusal() == (502, "choices_unknown", {FIELD})
    object.__setattr__(site.context, "settings", settings.model_copy(update={"choices_hosts": ""}))
    assert site.refusal() == (403, "choices_forbidden", {FIELD})
    assert receiver.received == []


def test_one_source_is_needed(site: Site) -> None:
    for source in ({}, {"group": "a", "tags": "b"}, {"url": "file:///etc/passwd"}, {"tags": ""}):
        body = {"kind": "playbook", "request": {"playbook": "t.yml"}, "variables": {"v": {"choices_from": source}}}
        site.put("templates/other", body, "admin", 400)


def test_tags_that_no_worker_can_list_are_named(site: Site) -> None:
    site.put("projects/shop", {"url": "https://127.0.0.1:1/shop.git", "ref": "main"}, "admin")
    variables = {"version": {"choices_from": {"tags": "v*"}}}
    request = {"playbook": "t.yml", "project": "shop", "inventory": None}
    site.template("admin", request=request, variables=variables)
    assert site.refusal("admin") == (503, "choices_unknown", {FIELD})


def test_who_may_not_use_the_project_any_more_is_not_told_its_tags(site: Site) -> None:
    site.put("projects/shop", {"url": "https://127.0.0.1:1/shop.git"}, "admin")
    site.write_users(dev={"inventories": ["dev"], "may_define": ["templates"], "projects": ["shop"]}, portal={})
    variables = {"version": {"choices_from": {"tags": "*"}}}
    request = {"playbook": "t.yml", "project": "shop", "inventory": None}
    site.template(request=request, variables=variables)
    site.context.store.keep_choices("tags of shop at https://127.0.0.1:1/shop.git *", ["v1"], 30)
    assert enum(site) == ["v1"]
    # Of the same repository, fetched with another credential.
    site.put("projects/other", {"url": "https://127.0.0.1:1/shop.git"}, "admin")
    site.write_users(dev={"inventories": ["dev"], "may_define": ["templates"], "projects": ["other"]}, portal={})
    site.template(name="others", request={**request, "project": "other"}, variables=variables)
    assert "v1" not in str(site.get("templates/others"))
    site.write_users(dev={"inventories": ["dev"], "may_define": ["templates"]}, portal={})
    assert enum(site) is None and site.refusal()[0] == 403


def test_choices_that_are_known_open_no_credential(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def vault(wanted: SecretRequest) -> dict[str, str]:
        opened.append(wanted.name)
        return {"user": "git", "token": "t0ken"}

    url = "https://127.0.0.1:1/shop.git"
    monkeypatch.setattr(site.context.credentials, "_function", vault)
    monkeypatch.setattr(choices, "run_preview", lambda _: PreviewResult(content={"groups": {"web": ["web1"]}}))
    site.put("credentials/key", {"kind": "git", "source": {"path": "shop"}}, "admin")
    site.put("projects/shop", {"url": url, "ref": "main", "refresh": "manual", "credential": "key"}, "admin")
    site.context.store.keep_commit("shop", url, "main", KnownCommit("a" * 40, "main", 0.0))
    site.context.store.keep_choices(f"tags of shop at {url} v*", ["v1"], 30)
    request = {"playbook": "t.yml", "project": "shop", "inventory": "dev"}
    site.template("admin", request=request, variables={"version": {"choices_from": {"tags": "v*"}}})
    assert enum(site) == ["v1"] and opened == []
    site.template("admin", request=request, variables={"version": {"choices_from": {"group": "web"}}})
    assert enum(site) == enum(site) == ["web1"] and opened == ["key"]
