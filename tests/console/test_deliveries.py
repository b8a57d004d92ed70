"""Deliveries in the console: a failed notification is looked at and delivered again."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.helpers.receivers import Receiver
from tests.helpers.services import ADMIN, DEV, Service
from tests.helpers.waiting import eventually


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    found = Receiver()
    yield found
    found.stop()


def test_a_failed_notification_is_delivered_again(
    page: Page,
    service: Service,
    login: Callable[..., None],
    new_task: Callable[..., str],
    shot: Callable[..., None],
    receiver: Receiver,
) -> None:
    receiver.answer = lambda _: (410, {}, b"")
    login(page, ADMIN, "#/definitions?kind=notifications")
    page.get_by_role("button", name="New").click()
    page.get_by_label("Name", exact=True).fill("ops")
    page.get_by_label("kind (required)").select_option("webhook")
    page.get_by_label("on (required)").fill("succeeded\n")
    page.get_by_label("url", exact=True).fill(receiver.url)
    page.get_by_label("allow_private").check()
    shot("notification-form", full=True)
    page.get_by_role("button", name="Create").click()
    expect(page.get_by_role("row", name="ops")).to_contain_text("webhook")
    task_id = new_task(wait=True)
    eventually(lambda: receiver.received)
    page.get_by_role("link", name="Deliveries").click()
    row = page.get_by_role("row", name=task_id[:8])
    expect(row).to_contain_text("ops")

    def is_dead() -> bool:
        page.get_by_role("button", name="Reload").click()
        return "dead" in row.inner_text()

    eventually(is_dead)
    expect(row).to_contain_text("410")
    shot("deliveries", full=True)
    receiver.answer = lambda _: (200, {}, b"")
    row.get_by_role("button", name="again").click()
    expect(page.get_by_text("It is sent again")).to_be_visible()
    eventually(lambda: len(receiver.received) == 2)

    def is_delivered() -> bool:
        page.get_by_role("button", name="Reload").click()
        return "delivered" in row.inner_text()

    eventually(is_delivered)
    assert receiver.received[0].id == receiver.received[1].id
    page.get_by_label("State").select_option("dead")
    expect(page.get_by_text("None yet.")).to_be_visible()
    with httpx.Client(base_url=service.url, auth=ADMIN) as client:
        client.delete("/api/notifications/ops").raise_for_status()


def test_who_has_none_sees_none(page: Page, service: Service, login: Callable[..., None]) -> None:
    login(page, DEV, "#/deliveries")
    expect(page.get_by_text("None yet.")).to_be_visible()
