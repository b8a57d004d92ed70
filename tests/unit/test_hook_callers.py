"""Signatures as the forges document them, what is no signature, filters and pointers.

What forges send, and each vector, is from:

| forge             | source                                                                                     |
|-------------------|--------------------------------------------------------------------------------------------|
| GitHub            | github/docs, content/webhooks/using-webhooks/validating-webhook-deliveries.md (a vector);  |
|                   | octokit/webhooks, payload-examples/api.github.com/push                                     |
| GitLab            | gitlabhq/gitlabhq, doc/user/project/integrations: webhooks.md, "Delivery headers", and     |
|                   | webhook_events.md; merge request 230944 of gitlab-org/gitlab for signing tokens            |
| Gitea             | go-gitea/gitea, services/webhook/deliver.go, modules/structs/hook.go                       |
| Forgejo           | its services/webhook/shared/payloader.go                                                   |
| Bitbucket         | support.atlassian.com/bitbucket-cloud/docs: manage-webhooks, "Secure webhooks" (a vector), |
|                   | and event-payloads                                                                         |
| Standard Webhooks | the vector of standard-webhooks/standard-webhooks and of Svix                              |
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError
from standardwebhooks.webhooks import Webhook
from werkzeug.datastructures import Headers

from flansible.hooks import callers, filters
from flansible.hooks.callers import Call
from flansible.models.hook_specs import WebhookSpec
from flansible.notifications import signatures

SECRET = "It's a Secret to Everybody"
WHSEC = "whsec_" + base64.b64encode(bytes(range(32))).decode()


def spec(source: str, **more: Any) -> WebhookSpec:
    given = {"source": source, "secret": WHSEC if source == "standard" else SECRET, "template": "deploy", **more}
    return WebhookSpec.model_validate(given)


def call(body: bytes, **headers: str) -> Call:
    return Call(Headers({name.replace("_", "-"): value for name, value in headers.items()}), body)


def hexed(body: bytes, secret: str = SECRET) -> str:
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def test_the_published_vector_of_github() -> None:
    signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    assert callers.is_genuine(call(b"Hello, World!", X_Hub_Signature_256=signature), spec("github"))


def test_the_published_vector_of_standard_webhooks() -> None:
    secret, when = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", 1614265330
    given = ("msg_p5jXN8AQM9LWM0D4loKWxJek", str(when), "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=")
    assert signatures.is_signed(*given, b'{"test": 2432232314}', [secret], when)
    assert not signatures.is_signed(*given, b'{"test": 2432232315}', [secret], when)


def test_the_published_vector_of_bitbucket() -> None:
    signature = "sha256=a4771c39fbe90f317c7824e83ddef3caae9cb3d976c214ace1f2937e133263c9"
    assert callers.is_genuine(call(b"Hello World!", X_Hub_Signature=signature), spec("bitbucket"))


BODY = b'{"ref": "refs/heads/main"}'
RIGHT: dict[str, tuple[WebhookSpec, dict[str, str]]] = {
    "github": (spec("github"), {"X-Hub-Signature-256": f"sha256={hexed(BODY)}"}),
    "gitlab": (spec("gitlab"), {"X-Gitlab-Token": SECRET}),
    "gitea": (spec("gitea"), {"X-Gitea-Signature": hexed(BODY)}),
    "forgejo": (spec("forgejo"), {"X-Forgejo-Signature": hexed(BODY)}),
    "bitbucket": (spec("bitbucket"), {"X-Hub-Signature": f"sha256={hexed(BODY)}"}),
    "generic hmac": (spec("generic", header="X-Signature"), {"X-Signature": hexed(BODY)}),
    "generic hmac with a prefix": (spec("generic", header="X-Signature"), {"x-signature": f"sha256={hexed(BODY)}"}),
    "generic token": (spec("generic", header="X-Token", method="token"), {"X-Token": SECRET}),
    "generic bearer": (spec("generic", header="Authorization", method="token"), {"Authorization": f"Bearer {SECRET}"}),
}
ALL = pytest.mark.parametrize("name", RIGHT)


@ALL
def test_a_right_proof_is_taken_whatever_the_case_of_its_header(name: str) -> None:
    found, headers = RIGHT[name]
    assert callers.is_genuine(Call(Headers(headers), BODY), found)
    assert callers.is_genuine(Call(Headers({key.lower(): value for key, value in headers.items()}), BODY), found)


@ALL
def test_whatever_else_is_no_proof(name: str) -> None:
    found, headers = RIGHT[name]
    [(header, right)] = headers.items()
    wrong = [
        {},
        {header: ""},
        {header: right[:-1]},
        {header: right + "0"},
        {header: right[:-1] + ("0" if right[-1] != "0" else "1")},
        {header: "sha256="},
        {header: "ü"},
        {"X-Other": right},
    ]
    for one in wrong:
        assert not callers.is_genuine(Call(Headers(one), BODY), found), one
    if "token" not in name and "bearer" not in name and name != "gitlab":
        assert not callers.is_genuine(Call(Headers(headers), BODY + b" "), found), "of another body"
    assert not callers.is_genuine(Call(Headers(headers), BODY), None), "there is no such webhook"


def test_github_s_old_sha1_is_no_proof() -> None:
    old = "sha1=" + hmac.new(SECRET.encode(), BODY, hashlib.sha1).hexdigest()
    assert not callers.is_genuine(call(BODY, X_Hub_Signature=old), spec("github"))


@pytest.mark.parametrize("source", ("gitea", "forgejo"))
def test_gitea_and_forgejo_with_all_the_headers_that_they_send(source: str) -> None:
    sha1 = hmac.new(SECRET.encode(), BODY, hashlib.sha1).hexdigest()
    brands = ("Gitea", "Gogs") if source == "gitea" else ("Forgejo", "Gitea", "Gogs")
    headers = {"X-Hub-Signature": f"sha1={sha1}", "X-Hub-Signature-256": f"sha256={hexed(BODY)}"}
    for brand in brands:
        headers |= {f"X-{brand}-Signature": hexed(BODY), f"X-{brand}-Event": "push", f"X-{brand}-Delivery": "d"}
    headers |= {"X-GitHub-Event": "push", "X-GitHub-Delivery": "d"}
    one = Call(Headers(headers), BODY)
    assert callers.is_genuine(one, spec(source))
    assert (callers.event_of(one, spec(source), {}), callers.sender_id(one, spec(source))) == ("push", "d")


def test_gitlab_s_signing_token_signs_and_the_token_alone_is_no_proof() -> None:
    now, found = datetime.now(UTC), spec("gitlab", secret=WHSEC)
    headers = {
        "Idempotency-Key": "another",  # GitLab's is the same as webhook-id, but it is not signed
        "webhook-id": "d-1",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(WHSEC).sign("d-1", now, BODY.decode()),
    }
    one = Call(Headers(headers), BODY)
    assert callers.is_genuine(one, found) and callers.sender_id(one, found) == "d-1"
    assert not callers.is_genuine(call(BODY, X_Gitlab_Token=WHSEC), found)


def test_standard_webhooks_as_its_library_signs() -> None:
    now = datetime.now(UTC)
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(WHSEC).sign("msg_1", now, BODY.decode()),
    }
    assert callers.is_genuine(Call(Headers(headers), BODY), spec("standard"))
    old = {**headers, "webhook-timestamp": str(int(now.timestamp()) - 400)}
    assert not callers.is_genuine(Call(Headers(old), BODY), spec("standard"))
    assert not callers.is_genuine(Call(Headers({**headers, "webhook-id": "msg_2"}), BODY), spec("standard"))


@pytest.mark.parametrize(
    ("source", "headers", "payload", "event", "ref", "sender"),
    [
        (
            "github",
            {"X-GitHub-Event": "push", "X-GitHub-Delivery": "d-1"},
            {"ref": "refs/heads/main"},
            "push",
            "refs/heads/main",
            "d-1",
        ),
        (
            "gitlab",
            {"X-Gitlab-Event": "Push Hook", "X-Gitlab-Event-UUID": "u-1"},
            {"object_kind": "push", "ref": "refs/heads/main"},
            "push",
            "refs/heads/main",
            "u-1",
        ),
        # The UUID is that of what set it off, so two calls may share it.
        (
            "gitlab",
            {"X-Gitlab-Event": "Tag Push Hook", "X-Gitlab-Event-UUID": "u-1", "Idempotency-Key": "k-1"},
            {"object_kind": "tag_push", "ref": "refs/tags/v1.0.0"},
            "tag_push",
            "refs/tags/v1.0.0",
            "k-1",
        ),
        (
            "gitea",
            {"X-Gitea-Event": "push", "X-Gitea-Delivery": "g"},
            {"ref": "refs/tags/v1"},
            "push",
            "refs/tags/v1",
            "g",
        ),
        ("forgejo", {"X-Forgejo-Event": "push", "X-Gitea-Event": "push"}, {"ref": "x"}, "push", "x", ""),
        (
            "bitbucket",
            {"X-Event-Key": "repo:push", "X-Request-UUID": "b"},
            {"push": {"changes": [{"new": {"type": "branch", "name": "main"}}]}},
            "repo:push",
            "refs/heads/main",
            "b",
        ),
        (
            "bitbucket",
            {"X-Event-Key": "repo:push"},
            {"push": {"changes": [{"new": {"type": "tag", "name": "v1"}}, {"new": None}]}},
            "repo:push",
            "refs/tags/v1",
            "",
        ),
        ("bitbucket", {"X-Event-Key": "repo:push"}, {"push": {"changes": [{"new": None}]}}, "repo:push", "", ""),
        ("standard", {"webhook-id": "m"}, {"type": "deploy.wanted"}, "deploy.wanted", "", "m"),
    ],
)
def test_event_ref_and_id(
    source: str, headers: dict[str, str], payload: dict[str, Any], event: str, ref: str, sender: str
) -> None:
    found, one = spec(source), Call(Headers(headers), b"")
    assert callers.event_of(one, found, payload) == event
    assert callers.ref_of(found, payload) == ref
    assert callers.sender_id(one, found) == sender


def test_of_several_refs_of_a_push_to_bitbucket_the_one_that_the_webhook_is_for_counts() -> None:
    changes = [
        {"new": {"type": "branch", "name": name, "target": {"hash": digit * 40}}}
        for name, digit in (("main", "1"), ("other", "2"))
    ]
    payload = {"push": {"changes": changes}}
    of_main = spec("bitbucket", refs=["refs/heads/main"])
    assert (callers.ref_of(of_main, payload), callers.commit_of(of_main, payload)) == ("refs/heads/main", "1" * 40)
    assert callers.ref_of(spec("bitbucket"), payload) == "refs/heads/other"


@pytest.mark.parametrize("count", ({"total_commits_count": 4}, {"total_commits": 4}))
def test_a_large_push_whose_commits_are_not_all_listed_passes_the_filter_of_paths(count: dict[str, int]) -> None:
    """GitLab lists 20 of them, Gitea and Forgejo 5: a file of the others would not be seen."""
    found = spec("gitlab", paths=["site.yml"])
    commits = [{"added": ["CHANGELOG"], "modified": [], "removed": []}] * 2
    assert filters.why_ignored(found, "push", "", {"commits": commits, **count}) == ""
    all_listed = {"commits": commits * 2, **count}
    assert filters.why_ignored(found, "push", "", all_listed) == "paths do not match"


def test_paths_of_a_push_are_not_compared_with_each_pattern_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[str] = []
    found = spec("github", paths=[f"roles/{number}/*" for number in range(50)])
    names = [f"other/{number}" for number in range(200)]
    monkeypatch.setattr(filters, "fnmatchcase", lambda text, _: compared.append(text), raising=False)
    assert filters.why_ignored(found, "push", "", {"commits": [{"added": names}]}) == "paths do not match"
    assert len(compared) <= len(names)
    assert filters.why_ignored(found, "push", "", {"commits": [{"added": [*names, "roles/49/x"]}]}) == ""


def test_a_push_of_more_than_ten_thousand_files_passes_the_filter_of_paths() -> None:
    found = spec("github", paths=["site.yml"])
    names = [str(number) for number in range(10_001)]
    assert filters.why_ignored(found, "push", "", {"commits": [{"added": names}]}) == ""
    assert filters.why_ignored(found, "push", "", {"commits": [{"added": names[1:]}]}) == "paths do not match"


COMMIT, ZEROS = "da1560886d4f094c3e6c9ef40349f7d38b5d27d7", "0" * 40


@pytest.mark.parametrize(
    ("source", "payload", "commit"),
    [
        # Of an annotated tag `after` is the tag's object.
        ("github", {"after": "b" * 40, "head_commit": {"id": COMMIT}}, COMMIT),
        ("gitea", {"after": "b" * 40, "head_commit": {"id": COMMIT}}, COMMIT),
        ("forgejo", {"head_commit": {"id": COMMIT}}, COMMIT),
        ("gitea", {"after": COMMIT, "head_commit": None}, COMMIT),
        ("github", {"after": ZEROS, "deleted": True, "head_commit": None}, ""),
        ("github", {"action": "published", "release": {"target_commitish": "main"}}, ""),
        ("gitlab", {"after": "b" * 40, "checkout_sha": COMMIT}, COMMIT),
        ("gitlab", {"after": COMMIT, "checkout_sha": None}, ""),
        ("bitbucket", {"push": {"changes": [{"new": {"name": "x", "target": {"hash": COMMIT}}}]}}, COMMIT),
        ("bitbucket", {"push": {"changes": [{"new": None}]}}, ""),
        ("bitbucket", {"push": {"changes": []}}, ""),
        ("github", {"head_commit": {"id": ZEROS}}, ""),
        ("github", {"head_commit": {"id": "main"}}, ""),
        ("github", {"head_commit": [COMMIT]}, ""),
    ],
)
def test_the_commit_of_a_push(source: str, payload: dict[str, Any], commit: str) -> None:
    assert callers.commit_of(spec(source), payload) == commit


def test_a_repetition_is_known_by_the_body_where_the_id_is_not_signed() -> None:
    one, other = call(BODY, X_GitHub_Delivery="a"), call(BODY, X_GitHub_Delivery="b")
    assert callers.repetition_key(one, spec("github")) == callers.repetition_key(other, spec("github"))
    token = spec("generic", header="X-Token", method="token")
    assert callers.repetition_key(call(BODY, webhook_id="a"), token) == "a"
    assert callers.repetition_key(call(BODY), token) == ""


PUSH = {
    "ref": "refs/heads/main",
    "after": "abc",
    "commits": [{"added": ["a/new.yml"], "modified": [], "removed": ["b.yml"]}, {"modified": ["c/d/e.yml"]}],
    "repository": {"name": "site", "private": True, "size": 7},
}


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({}, ""),
        ({"events": ["push"]}, ""),
        ({"events": ["release"]}, "event does not match"),
        ({"refs": ["refs/heads/main"]}, ""),
        ({"refs": ["refs/heads/*"]}, ""),
        ({"refs": ["refs/tags/*", "main"]}, "ref does not match"),
        ({"paths": ["c/*"]}, ""),
        ({"paths": ["b.yml"]}, ""),
        ({"paths": ["x/*"]}, "paths do not match"),
        ({"conditions": [{"pointer": "/repository/name", "equals": "site"}]}, ""),
        ({"conditions": [{"pointer": "/repository/name", "in": ["x", "site"]}]}, ""),
        ({"conditions": [{"pointer": "/repository/name", "matches": "^s.te$"}]}, ""),
        ({"conditions": [{"pointer": "/repository/name", "equals": "other"}]}, "/repository/name does not match"),
        ({"conditions": [{"pointer": "/repository/private", "equals": 1}]}, "/repository/private does not match"),
        ({"conditions": [{"pointer": "/repository/size", "matches": "7"}]}, "/repository/size does not match"),
        ({"conditions": [{"pointer": "/nothing", "equals": None}]}, "/nothing does not match"),
        ({"conditions": [{"pointer": "/commits/1/modified/0", "equals": "c/d/e.yml"}]}, ""),
        (
            {"conditions": [{"pointer": "/commits/01/modified/0", "equals": "c/d/e.yml"}]},
            "/commits/01/modified/0 does not match",
        ),
    ],
)
def test_filters(more: dict[str, Any], reason: str) -> None:
    assert filters.why_ignored(spec("github", **more), "push", "refs/heads/main", PUSH) == reason


def test_values_come_from_pointers_and_a_missing_one_is_not_set() -> None:
    found = spec("github", variables={"version": "/after", "name": "/repository/name", "none": "/x/y", "all": ""})
    assert filters.values(found, PUSH) == {"version": "abc", "name": "site", "all": PUSH}
    assert filters.at_pointer({"a/b": {"~": 1}}, "/a~1b/~0") == 1


def test_a_regular_expression_that_would_backtrack_for_ever_does_not() -> None:
    evil = spec("github", conditions=[{"pointer": "/after", "matches": "(a+)+$"}])
    assert filters.why_ignored(evil, "push", "", {"after": "a" * 50_000 + "b"}) == "/after does not match"


def test_conditions_are_stored_as_they_are_written() -> None:
    given = [{"pointer": "/a", "in": [1]}, {"pointer": "/b", "equals": None}]
    dumped = spec("github", conditions=given).model_dump(mode="json", exclude_unset=True)
    assert dumped["conditions"] == given
    assert json.dumps(dumped)


@pytest.mark.parametrize(
    "wrong",
    [
        {"source": "svn"},
        {"secret": None},
        {"secret": "short"},
        {"source": "standard", "secret": SECRET},
        {"source": "generic"},
        {"header": "X Y"},
        {"conditions": [{"pointer": "/a"}]},
        {"conditions": [{"pointer": "/a", "equals": 1, "in": [1]}]},
        {"conditions": [{"pointer": "a", "equals": 1}]},
        {"conditions": [{"pointer": "/a", "matches": "("}]},
        {"variables": {"a b": "/x"}},
        {"variables": {"a": "x"}},
        {"source": "generic", "header": "X", "event_commit": True},
        {"source": "bitbucket", "paths": ["*.yml"]},
        {"source": "gitlab", "secret": "whsec_which_is_no_base64"},
        {"more": 1},
    ],
)
def test_what_is_no_webhook(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        WebhookSpec.model_validate({"source": "github", "secret": SECRET, "template": "deploy", **wrong})
