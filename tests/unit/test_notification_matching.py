"""Which events the end of a task is, which notifications ask for it, when it is quiet, and what is no valid one."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError
from standardwebhooks.webhooks import Webhook

from flansible.models import State, TaskStatus
from flansible.models.notification_specs import Match, NotificationSpec, QuietHours
from flansible.notifications import content, matching, signatures

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
OLD_SECRET = "whsec_" + base64.b64encode(bytes(range(1, 33))).decode()


def task(**fields: Any) -> TaskStatus:
    return TaskStatus(
        **{
            "task_id": "t",
            "Status": "SUCCESS",
            "state": State.SUCCEEDED,
            "description": "it ended",
            "user": "dev",
            "kind": "playbook",
            "summary": "dev: site.yml",
            "playbook": "site.yml",
            "submitted_at": "2026-01-31T12:00:00.000Z",
            **fields,
        }
    )


@pytest.mark.parametrize(
    ("state", "previous", "expected"),
    [
        ("succeeded", "", ["succeeded"]),
        ("succeeded", "succeeded", ["succeeded"]),
        ("succeeded", "failed", ["succeeded", "recovered"]),
        ("succeeded", "lost", ["succeeded", "recovered"]),
        ("succeeded", "timed_out", ["succeeded", "recovered"]),
        ("succeeded", "error", ["succeeded", "recovered"]),
        ("failed", "", ["failed", "first_failure"]),
        ("failed", "succeeded", ["failed", "first_failure"]),
        ("failed", "failed", ["failed"]),
        ("failed", "lost", ["failed"]),
        ("error", "succeeded", ["failed", "first_failure"]),
        ("timed_out", "succeeded", ["timed_out", "first_failure"]),
        ("lost", "failed", ["lost"]),
        ("canceled", "", ["canceled"]),
    ],
)
def test_events_of_an_end(state: str, previous: str, expected: list[str]) -> None:
    assert list(matching.events_of_end(task(), state, previous)) == expected


def test_changed_and_unreachable_are_events_of_their_own() -> None:
    found = list(matching.events_of_end(task(counts={"changed": 1, "unreachable": 2, "ok": 3}), "failed", "failed"))
    assert found == ["failed", "changed", "unreachable"]


def test_an_ad_hoc_command_is_not_compared() -> None:
    assert list(matching.events_of_end(task(playbook=None, kind="adhoc"), "failed", "")) == ["failed"]


def test_all_conditions_have_to_hold() -> None:
    one = task(inventory="dev", template="deploy", trigger="schedule")
    assert matching.matches(Match(), one)
    assert matching.matches(Match(template="deploy", user="dev", inventory="dev", trigger="schedule"), one)
    for other in ({"template": "x"}, {"user": "x"}, {"inventory": "x"}, {"trigger": "api"}, {"kind": "adhoc"}):
        assert not matching.matches(Match.model_validate({"playbook": "site.yml", **other}), one)


@pytest.mark.parametrize(
    ("now", "end"),
    [
        ("2026-06-30T19:59:00+00:00", None),
        ("2026-06-30T20:00:00+00:00", "2026-07-01T04:30:00+00:00"),  # 22:00 in Berlin
        ("2026-07-01T04:29:00+00:00", "2026-07-01T04:30:00+00:00"),
        ("2026-07-01T04:30:00+00:00", None),
        ("2026-10-24T21:00:00+00:00", "2026-10-25T05:30:00+00:00"),  # the night in which the clocks go back
    ],
)
def test_quiet_hours_across_midnight(now: str, end: str | None) -> None:
    hours = QuietHours(begin="22:00", end="06:30", timezone="Europe/Berlin")
    found = matching.end_of_quiet(hours, datetime.fromisoformat(now))
    assert found == (datetime.fromisoformat(end) if end else None)


def test_quiet_hours_within_a_day() -> None:
    hours = QuietHours(begin="12:00", end="13:00", timezone="UTC")
    assert matching.end_of_quiet(hours, datetime(2026, 1, 31, 12, 30, tzinfo=UTC)) == datetime(
        2026, 1, 31, 13, tzinfo=UTC
    )
    assert matching.end_of_quiet(hours, datetime(2026, 1, 31, 13, 0, tzinfo=UTC)) is None
    assert matching.end_of_quiet(None, datetime(2026, 1, 31, 12, 30, tzinfo=UTC)) is None


WEBHOOK = {"kind": "webhook", "url": "https://hooks.example.org/x", "on": ["failed"]}
MAIL = {"kind": "mail", "to": ["ops@example.org"], "sender": "f@example.org", "smtp_host": "mail", "on": ["failed"]}


@pytest.mark.parametrize(
    "wrong",
    [
        {**WEBHOOK, "on": []},
        {**WEBHOOK, "on": ["exploded"]},
        {"kind": "webhook", "on": ["failed"]},
        {**WEBHOOK, "url": "ftp://hooks.example.org/"},
        {**WEBHOOK, "url": "https://user:pw@hooks.example.org/"},
        {**WEBHOOK, "url": "https:///x"},
        {**WEBHOOK, "url": "https://a b/"},
        {**WEBHOOK, "url": "https://a/\r\nX: y"},
        {**WEBHOOK, "url": "https://a:99999/"},
        {**WEBHOOK, "url": "https://hooks.example.org@10.0.0.1/"},
        {**WEBHOOK, "url": "https://hooks.example.org\\@10.0.0.1/"},
        {**WEBHOOK, "url": "https://①⓪.0.0.1/"},
        {**WEBHOOK, "secret": "short"},
        {**WEBHOOK, "secret": "whsec_" + base64.b64encode(b"x" * 23).decode()},
        {**WEBHOOK, "secret": "whsec_" + base64.b64encode(b"x" * 65).decode()},
        {**WEBHOOK, "previous_secret": SECRET},
        {**WEBHOOK, "quiet_hours": {"begin": "22:00", "end": "22:00", "timezone": "UTC"}},
        {**WEBHOOK, "quiet_hours": {"begin": "24:00", "end": "22:00", "timezone": "UTC"}},
        {**WEBHOOK, "quiet_hours": {"begin": "21:00", "end": "22:00", "timezone": "Mars/Base"}},
        {**WEBHOOK, "quiet_hours": {"begin": "21:00", "end": "22:00", "timezone": "../../etc/passwd"}},
        {**MAIL, "to": ["ops@example.org\nBcc: x@y"]},
        *({**MAIL, "to": [f"ops{char}x@example.org"]} for char in "\u2028\x1c\x85\x1b"),
        {**MAIL, "sender": "nobody"},
        {**MAIL, "smtp_user": "x"},
        {"kind": "apprise", "on": ["failed"]},
        {"kind": "apprise", "on": ["failed"], "apprise_url": "json://127.0.0.1/"},
        {"kind": "apprise", "on": ["failed"], "apprise_url": "mailto://x"},
    ],
)
def test_what_is_no_notification(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        NotificationSpec.model_validate(wrong)


def test_secrets_are_not_shown() -> None:
    spec = NotificationSpec.model_validate({**WEBHOOK, "secret": SECRET, "previous_secret": OLD_SECRET})
    assert "whsec_" not in repr(spec)


def test_a_signature_is_what_standard_webhooks_verifies_with_either_secret() -> None:
    body, now = b'{"type": "task.failed"}', int(datetime.now(UTC).timestamp())
    headers = signatures.signed_headers("msg_1", now, body, [SECRET, OLD_SECRET])
    for secret in (SECRET, OLD_SECRET):
        Webhook(secret).verify(body, headers)
    other = "whsec_" + base64.b64encode(b"o" * 32).decode()
    with pytest.raises(Exception, match="No matching signature"):
        Webhook(other).verify(body, headers)
    assert "webhook-signature" not in signatures.signed_headers("msg_1", now, body, [])


def test_a_signature_of_standard_webhooks_is_verified() -> None:
    body, moment = b"{}", datetime.now(UTC)
    now = int(moment.timestamp())
    given = Webhook(SECRET).sign("msg_1", moment, "{}")
    assert signatures.is_signed("msg_1", str(now), given, body, [OLD_SECRET, SECRET], now)
    assert signatures.is_signed("msg_1", str(now), f"v1,xxxx v2,y {given}", body, [SECRET], now)
    for wrong in (
        ("msg_2", str(now), given, body, [SECRET], now),
        ("msg_1", str(now), given, b"{ }", [SECRET], now),
        ("msg_1", str(now), given, body, [OLD_SECRET], now),
        ("msg_1", str(now), given, body, [SECRET], now + 301),
        ("msg_1", str(now), given, body, [SECRET], now - 301),
        ("msg_1", "x", given, body, [SECRET], now),
        ("msg_1", "", given, body, [SECRET], now),
        ("msg_1", f"{now:015}{'0' * 5000}", given, body, [SECRET], now),
        ("msg_1", str(now), given.replace("v1,", "v2,"), body, [SECRET], now),
        ("msg_1", str(now), "", body, [SECRET], now),
    ):
        assert not signatures.is_signed(*wrong)  # type: ignore[arg-type]


def test_a_mail_has_one_line_of_subject_whatever_the_names() -> None:
    body = {
        "type": "task.first_failure",
        "data": {"playbook": "a\r\nBcc: x@y", "failed_hosts": ["web1"], "state": "failed"},
    }
    assert content.sentence(body) == "Flansible: a Bcc: x@y first failure"
    assert "Failed hosts: web1" in content.text(body)
