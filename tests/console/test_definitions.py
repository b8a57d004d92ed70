"""Definitions in the console: the list, the form drawn from the schema, and its refusals."""

from __future__ import annotations

from collections.abc import Callable

import httpx
from playwright.sync_api import Page, Route, expect

from flansible.models import State
from tests.helpers.browser_watch import Watch
from tests.helpers.console_records import Records
from tests.helpers.services import ADMIN, DEV
from tests.helpers.waiting import eventually


def test_a_definition_is_made_changed_and_deleted(
    page: Page, web: Records, login: Callable[..., None], shot: Callable[..., None], watch: Watch
) -> None:
    watch.expect("status of 400")
    login(page, ADMIN, "#/definitions", url=web.url)
    expect(page.get_by_text("None yet.")).to_be_visible()
    page.get_by_role("button", name="New").click()
    page.get_by_label("Name", exact=True).fill("broken")
    page.get_by_label("state").select_option("failed")
    page.get_by_label("shared_with").fill("ops\ndev\n")
    shot("definition-form", full=True)
    page.get_by_role("button", name="Create").click()
    expect(page.get_by_role("row", name="broken")).to_contain_text('state: failed, shared_with: ["ops","dev"]')
    shot("definitions", full=True)
    page.get_by_role("button", name="broken").click()
    expect(page.get_by_label("state")).to_have_value("failed")
    page.get_by_label("text").fill("x" * 201)
    page.get_by_role("button", name="Save").click()
    expect(page.locator(".field", has=page.get_by_label("text")).locator(".field-error")).to_contain_text("200")
    page.get_by_label("text").fill("site.yml")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("row", name="broken")).to_contain_text("text: site.yml")
    page.get_by_role("button", name="broken").click()
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_text("None yet.")).to_be_visible()


def test_asterisks_of_a_definition_are_its_own(page: Page, web: Records, login: Callable[..., None]) -> None:
    """Nothing is hidden in one, so that they are no secret to be typed again."""
    with httpx.Client(base_url=web.url, auth=ADMIN) as client:
        client.put("/api/searches/stars", json={"text": "********", "user": "a ********"}).raise_for_status()
        login(page, ADMIN, "#/definitions?kind=searches&name=stars", url=web.url)
        expect(page.get_by_label("text")).to_have_value("********")
        page.get_by_label("state").select_option("failed")
        page.get_by_role("button", name="Save").click()
        expect(page.get_by_role("row", name="stars")).to_contain_text("state: failed")
        found = client.get("/api/searches/stars").json()
        assert (found["text"], found["user"]) == ("********", "a ********")
        client.delete("/api/searches/stars").raise_for_status()


def test_a_form_that_comes_late_takes_the_focus_from_nobody(
    page: Page, web: Records, login: Callable[..., None]
) -> None:
    held: list[Route] = []
    with httpx.Client(base_url=web.url, auth=ADMIN) as client:
        client.put("/api/searches/late", json={"state": "failed"}).raise_for_status()
        page.route("**/api/searches/late", lambda route: held.append(route))
        login(page, ADMIN, "#/definitions?kind=searches&name=late", url=web.url)
        eventually(lambda: page.title() and held)  # which lets playwright see requests
        page.get_by_role("link", name="Overview").focus()
        held[0].continue_()
        expect(page.get_by_label("state")).to_have_value("failed")
        expect(page.get_by_role("link", name="Overview")).to_be_focused()
        page.unroute_all()
        page.get_by_role("button", name="Back to the list").click()
        page.get_by_role("button", name="late", exact=True).click()
        expect(page.locator("form :focus")).to_have_count(1)
        client.delete("/api/searches/late").raise_for_status()


def test_a_list_that_comes_late_is_not_shown_as_another_kind(
    page: Page, web: Records, login: Callable[..., None], hold_first_reply: Callable[..., Callable[[], None]]
) -> None:
    with httpx.Client(base_url=web.url, auth=ADMIN) as client:
        client.put("/api/searches/slow", json={"state": "failed"}).raise_for_status()
        release = hold_first_reply(page, "**/api/searches?*")
        login(page, ADMIN, "#/definitions?kind=searches", url=web.url)
        page.get_by_role("button", name="freezes", exact=True).click()
        expect(page.get_by_text("None yet.")).to_be_visible()
        release()
        expect(page.get_by_role("row", name="slow")).to_have_count(0)
        release = hold_first_reply(page, "**/api/searches/slow")
        page.get_by_role("button", name="searches", exact=True).click()
        page.get_by_role("button", name="slow", exact=True).click()
        page.get_by_role("button", name="freezes", exact=True).click()
        expect(page.get_by_text("None yet.")).to_be_visible()
        release()
        expect(page.get_by_role("button", name="Save", exact=True)).to_have_count(0)
        client.delete("/api/searches/slow").raise_for_status()


def test_what_somebody_else_has_changed_is_not_overwritten(
    page: Page, web: Records, login: Callable[..., None], watch: Watch
) -> None:
    watch.expect("status of 412")
    with httpx.Client(base_url=web.url, auth=ADMIN) as client:
        client.put("/api/searches/broken", json={"state": "failed"}).raise_for_status()
        login(page, ADMIN, "#/definitions?kind=searches&name=broken", url=web.url)
        expect(page.get_by_label("state")).to_have_value("failed")
        client.put("/api/searches/broken", json={"state": "lost"}).raise_for_status()
        page.get_by_role("button", name="Save").click()
        expect(page.get_by_role("alert")).to_contain_text("somebody else has changed it")
        assert client.get("/api/searches/broken").json()["state"] == "lost"
        client.delete("/api/searches/broken").raise_for_status()


def test_who_may_not_write_sees_no_button(page: Page, web: Records, login: Callable[..., None]) -> None:
    login(page, DEV, "#/definitions", url=web.url)
    expect(page.get_by_text("None yet.")).to_be_visible()
    expect(page.get_by_role("button", name="New")).to_have_count(0)


def test_a_saved_search_filters_the_task_list(page: Page, web: Records, login: Callable[..., None]) -> None:
    run, [other] = web.running(playbook="fail.yml"), web.add()
    run.end(State.FAILED)
    with httpx.Client(base_url=web.url, auth=ADMIN) as client:
        client.put("/api/searches/broken", json={"state": "failed", "playbook": "fail.yml"}).raise_for_status()
        login(page, ADMIN, "#/tasks", url=web.url)
        expect(page.locator(f"[data-task='{other}']")).to_be_visible()
        page.get_by_label("Saved search").select_option("broken")
        expect(page.locator(f"[data-task='{other}']")).to_have_count(0)
        expect(page.locator(f"[data-task='{run.task_id}']")).to_be_visible()
        expect(page.get_by_label("State")).to_have_value("failed")
        client.delete("/api/searches/broken").raise_for_status()
