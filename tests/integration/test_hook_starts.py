"""Calls of webhooks that have waited start once, also when a process dies; refused where rights were lost."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from unittest.mock import Mock

import pytest

from flansible.config import Settings
from flansible.errors import BadGateway, RequestError, TooManyRequests
from flansible.history.hook_call_rows import HookCallRows, StoredHookCall
from flansible.web import hook_starts, template_launch
from tests.helpers.launching import Site

pytestmark = pytest.mark.usefixtures("broker")

WEBHOOK = {"source": "github", "secret": "a secret of the forge alone", "template": "deploy", "debounce": 1}


@pytest.fixture
def site(make_settings: Callable[..., Settings], redis_url: str, history_url: str) -> Iterator[Site]:
    with Site.open(make_settings, redis_url, history_url) as made:
        made.template()
        made.put("webhooks/push", {**WEBHOOK, "variables": {"version": "/after"}}, "admin")
        yield made


def rows_of(site: Site) -> HookCallRows:
    assert site.context.hook_calls is not None
    return site.context.hook_calls


def wait(site: Site, **changes: str) -> str:
    """Adds a call that is due; returns its id."""
    now = time.time_ns() // 1_000_000
    given = {"webhook": "push", "owner": "admin", "variables": '{"version": "1.2"}', **changes}
    call = StoredHookCall(
        id=f"call_{uuid.uuid4().hex}",
        sender_id="",
        received=now,
        address="192.0.2.7",
        event="push",
        ref="refs/heads/main",
        outcome="refused",
        reason="",
        task=None,
        **given,
    )
    return rows_of(site).add_waiting(call, now, now).id


def start_due(site: Site) -> None:
    with site.app.app_context():
        hook_starts.start_due(site.context)


def test_a_process_that_died_before_it_noted_the_task_has_started_it_once(site: Site) -> None:
    call_id = wait(site)
    start_due(site)
    first = rows_of(site).get(call_id)
    assert first is not None and first.task is not None and first.outcome == "started"
    assert site.run(first.task).origin.trigger == "hook"
    rows_of(site).settle(call_id, "starting", None)
    rows_of(site).postpone(call_id, 1)
    start_due(site)
    again = rows_of(site).get(call_id)
    assert again is not None and (again.outcome, again.task, again.due) == ("started", first.task, None)


def test_a_freeze_holds_the_calls_of_a_webhook_of_admin(site: Site) -> None:
    site.put("freezes/now", {"start": "2020-01-01T00:00", "end": "2999-01-01T00:00", "timezone": "UTC"}, "admin")
    call_id = wait(site)
    start_due(site)
    found = rows_of(site).get(call_id)
    assert found is not None and (found.outcome, found.task) == ("refused", None)
    assert found.reason.startswith("frozen:")


@pytest.mark.parametrize("error", [BadGateway("no answer"), TooManyRequests("your queue is full")])
def test_a_call_whose_remote_is_away_or_whose_queue_is_full_is_started_later(
    site: Site, error: RequestError, monkeypatch: pytest.MonkeyPatch
) -> None:
    call_id = wait(site)
    with monkeypatch.context() as away:
        away.setattr(template_launch, "launch", Mock(side_effect=error))
        start_due(site)
    found = rows_of(site).get(call_id)
    assert found is not None and found.due is not None and found.outcome != "refused"
    rows_of(site).postpone(call_id, 1)
    start_due(site)
    found = rows_of(site).get(call_id)
    assert found is not None and (found.outcome, found.due) == ("started", None)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"webhook": "gone"}, "definition_not_found"),
        ({"owner": "dev"}, "definition_not_found"),
        ({"variables": '{"version": "x"}'}, "invalid_field"),
    ],
)
def test_what_may_not_start_any_more_is_refused_with_the_reason(
    site: Site, changes: dict[str, str], reason: str
) -> None:
    call_id = wait(site, **changes)
    start_due(site)
    found = rows_of(site).get(call_id)
    assert found is not None and (found.outcome, found.task) == ("refused", None)
    assert found.reason.startswith(f"{reason}:")
