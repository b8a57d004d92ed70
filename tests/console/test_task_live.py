"""The page of a task, over runs that the tests write: how far it is, and its end, without being loaded again.

Where a test pauses the page's clock, no poll can help it: only what the service
sends brings the page forward.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, Request, expect

from tests.helpers.console_records import Records
from tests.helpers.services import ADMIN
from tests.helpers.webserver import RecordedRun, result

NOON, LATER = "2026-01-31T12:00:00Z", "2026-01-31T13:00:00Z"


@pytest.fixture
def paused(page: Page) -> Page:
    """A page whose clock stands still."""
    page.clock.install(time=NOON)
    page.clock.pause_at(LATER)
    return page


@pytest.fixture
def open_run(login: Callable[..., None], web: Records) -> Callable[[Page, RecordedRun], None]:
    def enter(page: Page, run: RecordedRun) -> None:
        login(page, ADMIN, f"#/tasks/{run.task_id}", url=web.url)
        expect(page.locator(".task-state")).to_contain_text("Running")

    return enter


def is_event_stream(request: Request) -> bool:
    return "ansibletaskevents" in request.url and "event-stream" in request.headers.get("accept", "")


def test_the_end_of_a_run_is_shown_when_its_events_end(
    paused: Page, open_run: Callable[..., None], run: RecordedRun
) -> None:
    open_run(paused, run)
    run.end()
    expect(paused.locator(".task-state")).to_contain_text("Succeeded")


def test_the_end_of_a_run_is_shown_when_its_output_ends(
    paused: Page, open_run: Callable[..., None], run: RecordedRun
) -> None:
    paused.route("**/ansibletaskevents/*", lambda route: None)  # no reply comes
    open_run(paused, run)
    run.end()
    expect(paused.locator(".task-state")).to_contain_text("Succeeded")


def test_events_that_come_while_the_status_may_not_be_read_yet_are_not_forgotten(
    paused: Page, open_run: Callable[..., None], run: RecordedRun
) -> None:
    run.write(b"", result("one"))
    with paused.expect_request(is_event_stream):  # those stored before have arrived then
        open_run(paused, run)
    with paused.expect_request(re.compile(f"ansibletaskstatus/{run.task_id}")):
        paused.clock.run_for(1000)
