"""How each source signs and names what it sends, as its documents say. The signature is over the raw bytes.

| source          | proof                                     | event            | delivery's id       |
|-----------------|-------------------------------------------|------------------|---------------------|
| github          | X-Hub-Signature-256: sha256=<hex>         | X-GitHub-Event   | X-GitHub-Delivery   |
| gitlab          | X-Gitlab-Token: the secret; of a secret   | X-Gitlab-Event   | Idempotency-Key     |
|                 | `whsec_...` as for standard               |                  |                     |
| gitea, forgejo  | X-Gitea-Signature, X-Forgejo-Signature    | X-...-Event      | X-...-Delivery      |
| bitbucket       | X-Hub-Signature: sha256=<hex>             | X-Event-Key      | X-Request-UUID      |
| standard        | webhook-signature, with id and time       | `type` in body   | webhook-id          |
| generic         | a header of the definition                | -                | Webhook-Id          |
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from flansible.models.hook_specs import WebhookSpec
from flansible.notifications import signatures

_NOBODYS_SECRET = "whsec_" + "A" * 43 + "="
_MOST_CHARACTERS = 255
_MOST_COMMITS = 2048  # in a payload of GitHub's
_MOST_PATHS = 10_000  # that are compared with a webhook's
_COMMIT = re.compile(r"[0-9a-f]{40}")
Headers = Mapping[str, str]


@dataclass(frozen=True)
class Call:
    """What was sent. body: the raw bytes; headers: by their names in lower case."""

    headers: Headers
    body: bytes

    def header(self, *names: str) -> str:
        """Returns the first of these headers that there is."""
        return next((value for name in names if (value := self.headers.get(name.lower()))), "")


def is_genuine(call: Call, spec: WebhookSpec | None) -> bool:
    """Whether whoever sent it knows the secret. None: there is no such webhook, and it takes as long to say so."""
    if spec is None:
        _hex(secrets.token_hex(16), call.body)
        return False
    return _PROOFS[spec.source](call, spec)


def sender_id(call: Call, spec: WebhookSpec) -> str:
    """Returns the delivery's id as its sender has it, the signed one if there is one; empty without any."""
    if spec.has_standard_secret:
        return call.header("webhook-id")[:_MOST_CHARACTERS]
    names = {
        "github": ("X-GitHub-Delivery",),
        # The UUID is the same for all that one event sets off, through other hooks as well.
        "gitlab": ("Idempotency-Key", "X-Gitlab-Event-UUID"),
        "gitea": ("X-Gitea-Delivery", "X-Forgejo-Delivery"),
        "forgejo": ("X-Forgejo-Delivery", "X-Gitea-Delivery"),
        "bitbucket": ("X-Request-UUID",),
        "generic": ("webhook-id",),
    }
    return call.header(*names[spec.source])[:_MOST_CHARACTERS]


def repetition_key(call: Call, spec: WebhookSpec) -> str:
    """Returns what a repetition has in common with it, '' for nothing.

    Where the id is not signed, a captured request could be sent again under another id: there it is the body.
    """
    if spec.source in ("gitlab", "standard") or (spec.source == "generic" and spec.method == "token"):
        return sender_id(call, spec)
    return hashlib.sha256(call.body).hexdigest()


def event_of(call: Call, spec: WebhookSpec, payload: Mapping[str, Any]) -> str:
    named = call.header("X-GitHub-Event", "X-Gitlab-Event", "X-Forgejo-Event", "X-Gitea-Event", "X-Event-Key")
    if spec.source == "gitlab" and isinstance(payload.get("object_kind"), str):
        named = payload["object_kind"]  # `push`, where the header says `Push Hook`
    if spec.source in ("standard", "generic"):
        kind = payload.get("type")
        named = kind if isinstance(kind, str) else ""
    return named[:_MOST_CHARACTERS]


def ref_of(spec: WebhookSpec, payload: Mapping[str, Any]) -> str:
    """Returns the ref that was pushed, such as `refs/heads/main`; empty for other events."""
    if spec.source != "bitbucket":
        ref = payload.get("ref")
        return ref if isinstance(ref, str) else ""
    new = _pushed(spec, payload)
    return _bitbucket_ref(new) if new else ""


def commit_of(spec: WebhookSpec, payload: Mapping[str, Any]) -> str:
    """Returns the commit that was pushed; empty for other events, and where a ref was deleted.

    `after` of an annotated tag is the tag's own object, so the field that has the commit comes first.
    """
    if spec.source == "bitbucket":
        found = _inner(_pushed(spec, payload), "target", "hash")
    elif spec.source == "gitlab":
        found = payload.get("checkout_sha")
    else:
        found = _inner(payload, "head_commit", "id") or payload.get("after")  # an old Gitea has the latter alone
    return found if isinstance(found, str) and _COMMIT.fullmatch(found) and found.strip("0") else ""


def changed_paths(payload: Mapping[str, Any]) -> set[str] | None:
    """Returns the files that the commits of a push have added, modified or removed; None where it does not have all
    its commits (forges list a few of a large push), and for more than _MOST_PATHS."""
    found: set[str] = set()
    given = payload.get("commits")
    commits = given if isinstance(given, list) else []
    total = payload.get("total_commits_count", payload.get("total_commits"))  # GitLab's, Gitea's and Forgejo's
    if len(commits) >= _MOST_COMMITS or (isinstance(total, int) and total > len(commits)):
        return None
    for commit in commits:
        for kind in ("added", "modified", "removed"):
            names = commit.get(kind) if isinstance(commit, dict) else None
            found |= {name for name in names if isinstance(name, str)} if isinstance(names, list) else set()
    return found if len(found) <= _MOST_PATHS else None


def _pushed(spec: WebhookSpec, payload: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns what a push to Bitbucket made of a ref: of several, the first one that the webhook is for."""
    changes = _inner(payload, "push", "changes")
    news = [_inner(change, "new") for change in changes] if isinstance(changes, list) else []
    found = [new for new in news if isinstance(new, dict) and isinstance(new.get("name"), str)]
    wanted = (new for new in found if any(fnmatchcase(_bitbucket_ref(new), glob) for glob in spec.refs))
    return next(wanted, found[-1] if found else {})


def _bitbucket_ref(new: Mapping[str, Any]) -> str:
    return f"refs/{'tags' if new.get('type') == 'tag' else 'heads'}/{new['name']}"


def _inner(document: Any, *names: str) -> Any:
    """Returns a value within objects; None where there is none."""
    for name in names:
        document = document.get(name) if isinstance(document, dict) else None
    return document


def _hex(secret: str, body: bytes) -> str:
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def _is_same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(errors="replace"), expected.encode())


def _has_hex(*names: str, prefix: str = "") -> Callable[[Call, WebhookSpec], bool]:
    def check(call: Call, spec: WebhookSpec) -> bool:
        return _is_same(call.header(*names), prefix + _hex(spec.secret or _NOBODYS_SECRET, call.body))

    return check


def _is_gitlab(call: Call, spec: WebhookSpec) -> bool:
    return _is_standard(call, spec) if spec.has_standard_secret else _has_token(call, spec)


def _has_token(call: Call, spec: WebhookSpec) -> bool:
    # Both are digested, so that the time does not say how long the secret is.
    given = hashlib.sha256(call.header("X-Gitlab-Token").encode(errors="replace")).hexdigest()
    return _is_same(given, hashlib.sha256((spec.secret or _NOBODYS_SECRET).encode()).hexdigest())


def _is_standard(call: Call, spec: WebhookSpec) -> bool:
    names = ("webhook-id", "webhook-timestamp", "webhook-signature")
    given_id, timestamp, given = (call.header(name) for name in names)
    return signatures.is_signed(
        given_id, timestamp, given, call.body, [spec.secret or _NOBODYS_SECRET], int(time.time())
    )


def _is_generic(call: Call, spec: WebhookSpec) -> bool:
    given = call.header(spec.header or "")
    if spec.method == "token":
        digest = hashlib.sha256(given.removeprefix("Bearer ").encode(errors="replace")).hexdigest()
        return _is_same(digest, hashlib.sha256((spec.secret or _NOBODYS_SECRET).encode()).hexdigest())
    return _is_same(given.removeprefix("sha256=").lower(), _hex(spec.secret or _NOBODYS_SECRET, call.body))


_GITEA = ("X-Gitea-Signature", "X-Forgejo-Signature")
_PROOFS: dict[str, Callable[[Call, WebhookSpec], bool]] = {
    "github": _has_hex("X-Hub-Signature-256", prefix="sha256="),
    "gitlab": _is_gitlab,
    "gitea": _has_hex(*_GITEA),
    "forgejo": _has_hex(*reversed(_GITEA)),
    "bitbucket": _has_hex("X-Hub-Signature", prefix="sha256="),
    "standard": _is_standard,
    "generic": _is_generic,
}
