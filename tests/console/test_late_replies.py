"""Replies that come after the user has asked for something else, over records that the test writes."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import Page, Route, expect

from tests.helpers.console_records import Records
from tests.helpers.services import ADMIN

Hold = Callable[[Page, str], Callable[[], None]]


def test_a_comparison_that_comes_late_is_not_shown_as_another(
    page: Page, web: Records, login: Callable[..., None], hold_first_reply: Hold
) -> None:
    first, second, third = web.add(3, word="compared")
    release = hold_first_reply(page, "**/api/compare*")
    login(page, ADMIN, f"#/compare?task={first}&with={second}", url=web.url)
    page.get_by_label("Task", exact=True).fill(third)
    page.get_by_role("button", name="Compare", exact=True).click()
    shown = page.get_by_role("region", name="Task", exact=True)
    expect(shown).to_contain_text("compared 2")
    release()
    expect(shown).to_contain_text("compared 2")
    expect(page.locator(".host-head")).to_have_count(2)


def test_entries_of_a_log_that_come_late_are_not_shown_under_another_filter(
    page: Page, web: Records, login: Callable[..., None], hold_first_reply: Hold
) -> None:
    call = {"call_id": "c", "webhook": "slow", "outcome": "ignored", "reason": "", "event": "", "ref": "", "commit": ""}
    call |= {"received_at": "2026-01-31T12:00:00Z", "address": "", "sender_id": "", "task_id": None, "starts_at": None}

    def answer(route: Route) -> None:
        items = [] if "webhook=" in route.request.url else [call]
        route.fulfill(json={"items": items, "next_before": None})

    page.route("**/api/webhooks?*", lambda route: route.fulfill(json={"items": [{"name": "quick"}]}))
    page.route("**/api/hookcalls*", answer)
    held: list[Route] = []
    page.route("**/api/hookcalls", lambda route: held.append(route))
    login(page, ADMIN, "#/hookcalls", url=web.url)
    page.get_by_label("Webhook").select_option("quick")
    expect(page.get_by_text("None yet.")).to_be_visible()
    answer(held[0])
    page.evaluate("() => fetch('api/session').then(() => new Promise(done => setTimeout(done, 300)))")
    expect(page.get_by_text("None yet.")).to_be_visible()
