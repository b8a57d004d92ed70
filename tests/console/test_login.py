"""Logging in and out, and what becomes of a page whose session has ended."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import httpx
import pytest
from playwright.sync_api import Page, Route, expect

from tests.helpers.browser_watch import Watch
from tests.helpers.console_records import Records
from tests.helpers.services import ADMIN, AUDITOR, DEV
from tests.helpers.webserver import RecordedRun

WRONG = "401.*api/session"


def fill(page: Page, user: tuple[str, str]) -> None:
    page.get_by_label("User").fill(user[0])
    page.get_by_label("Password").fill(user[1])
    page.get_by_role("button", name="Log in").click()


def test_one_logs_in_and_comes_to_where_one_wanted_to_go(
    page: Page, web: Records, watch: Watch, shot: Callable[..., None]
) -> None:
    page.goto(f"{web.url}/#/tasks?state=failed")
    expect(page.get_by_label("User")).to_be_focused()
    shot("login")
    fill(page, DEV)
    expect(page.get_by_role("heading", name="Tasks")).to_be_visible()
    assert page.url == f"{web.url}/#/tasks?state=failed"
    expect(page.get_by_label("State")).to_have_value("failed")
    expect(page.locator("#account")).to_contain_text("dev")
    # The browser's own memory of the session, not the page's.
    page.reload()
    expect(page.get_by_role("button", name="Log out")).to_be_visible()
    assert [cookie["httpOnly"] for cookie in page.context.cookies()] == [True]


def test_a_wrong_password_is_said_and_can_be_mended(
    page: Page, web: Records, watch: Watch, shot: Callable[..., None]
) -> None:
    watch.expect(WRONG)
    page.goto(f"{web.url}/")
    fill(page, (ADMIN[0], "another"))
    expect(page.get_by_role("alert")).to_have_text("User or password is wrong.")
    expect(page.get_by_label("Password")).to_be_focused()
    shot("login-wrong")
    page.keyboard.type(ADMIN[1])
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Tasks")).to_be_visible()


def test_who_has_logged_out_is_out(page: Page, web: Records, watch: Watch, login: Callable[..., None]) -> None:
    login(page, url=web.url)
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_label("Password")).to_be_visible()
    expect(page.get_by_role("button", name="Log out")).to_be_hidden()
    assert page.context.cookies() == []
    assert page.request.get(f"{web.url}/api/ansibletasks").status == 401


def test_too_many_wrong_passwords_are_told_with_how_long(page: Page, web: Records, watch: Watch) -> None:
    watch.expect(WRONG)
    watch.expect("429.*api/session")
    page.goto(f"{web.url}/")
    alert = page.get_by_role("alert")
    for _ in range(30):
        fill(page, ("nobody", "wrong"))
        expect(page.get_by_role("button", name="Log in")).to_be_enabled()
        expect(alert).to_be_visible()
        if "Too many" in alert.inner_text():
            break
    expect(alert).to_contain_text("Try again in")


def test_a_service_that_is_away_is_said(page: Page, web: Records, watch: Watch) -> None:
    watch.expect("ERR_")
    page.goto(f"{web.url}/")
    expect(page.get_by_label("User")).to_be_visible()
    page.context.set_offline(True)
    fill(page, ADMIN)
    expect(page.get_by_role("alert")).to_contain_text("does not answer")
    page.context.set_offline(False)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("heading", name="Tasks")).to_be_visible()


def test_no_link_leads_through_the_login_to_elsewhere(page: Page, web: Records, watch: Watch) -> None:
    page.goto(f"{web.url}/#/login?next=https%3A%2F%2Fexample.org%2F")
    fill(page, ADMIN)
    expect(page.get_by_role("heading", name="Tasks")).to_be_visible()
    assert page.url == f"{web.url}/#/tasks"


def test_who_is_logged_in_needs_no_login(page: Page, web: Records, login: Callable[..., None]) -> None:
    login(page, ADMIN, "#/login?next=%23%2Foverview", url=web.url)
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()


def test_a_user_who_is_removed_is_logged_out_and_comes_back_to_the_same_place(
    page: Page, web: Records, watch: Watch, login: Callable[..., None]
) -> None:
    watch.expect("401")
    login(page, AUDITOR, "#/overview", url=web.url)
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    path = web.folder / "rbac.json"
    before = path.read_text()
    document = json.loads(before)
    document["rbac"] = [user for user in document["rbac"] if user["user"] != AUDITOR[0]]
    try:
        path.write_text(json.dumps(document))
        # By itself: the overview asks again and again.
        expect(page.get_by_label("Password")).to_be_visible()
    finally:
        path.write_text(before)
    fill(page, ADMIN)
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()


# Sessions that begin and end elsewhere in the browser


def log_in_elsewhere(page: Page, url: str, user: tuple[str, str] = ADMIN) -> None:
    """A login of which this page hears nothing; the session that it had is over."""
    page.request.post(f"{url}/api/session", data={"user": user[0], "password": user[1]})


def test_a_request_that_was_on_its_way_during_another_login_is_sent_again(
    page: Page, login: Callable[..., None], web: Records, watch: Watch
) -> None:
    watch.expect("401.*api/stats")
    login(page, ADMIN, "#/overview", url=web.url)
    [cookie] = page.context.cookies()
    expect(page.locator(".chart svg").first).to_be_visible()

    def overtake(route: Route) -> None:
        log_in_elsewhere(page, web.url)
        reply = httpx.get(route.request.url, headers={"Cookie": f"{cookie['name']}={cookie['value']}"})
        assert reply.status_code == 401 and "Set-Cookie" not in reply.headers
        route.fulfill(status=401, json=reply.json())

    page.route("**/api/stats*", overtake, times=1)
    with page.expect_response(lambda reply: "api/stats" in reply.url and reply.ok):
        page.get_by_label("Last", exact=True).select_option("7 days")
    expect(page.get_by_role("img", name=re.compile("Runs per day in the last 7 days"))).to_be_visible()
    expect(page.get_by_role("button", name="Log out")).to_be_visible()


def test_what_is_sent_with_the_token_of_an_earlier_session_is_sent_again(
    page: Page, web: Records, login: Callable[..., None], watch: Watch
) -> None:
    watch.expect("403.*api/definitions|403.*api/searches")
    login(page, ADMIN, "#/definitions?kind=searches&name=", url=web.url)
    page.get_by_label("Name", exact=True).fill("mine")
    page.get_by_label("text").fill("site.yml")
    log_in_elsewhere(page, web.url)
    page.get_by_role("button", name="Create").click()
    expect(page.get_by_role("row", name="mine")).to_contain_text("text: site.yml")
    httpx.delete(f"{web.url}/api/searches/mine", auth=ADMIN).raise_for_status()


def test_nothing_is_sent_as_the_user_who_has_logged_in_instead(
    page: Page, web: Records, login: Callable[..., None], watch: Watch
) -> None:
    watch.expect("403.*api/searches")
    login(page, ADMIN, "#/definitions?kind=searches&name=", url=web.url)
    page.get_by_label("Name", exact=True).fill("mine")
    page.get_by_label("text").fill("site.yml")
    log_in_elsewhere(page, web.url, DEV)
    page.get_by_role("button", name="Create").click()
    expect(page.locator("#account")).to_contain_text("dev")
    assert httpx.get(f"{web.url}/api/searches/mine", auth=ADMIN).status_code == 404


def test_an_address_that_is_opened_after_a_login_elsewhere_needs_no_login(
    page: Page, login: Callable[..., None], web: Records
) -> None:
    page.goto(f"{web.url}/")
    expect(page.get_by_label("Password")).to_be_visible()
    log_in_elsewhere(page, web.url)
    page.goto(f"{web.url}/#/overview")
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()


def test_who_logs_in_or_out_in_one_tab_has_done_so_in_all(page: Page, web: Records, watch: Watch) -> None:
    watch.expect(WRONG)
    other = page.context.new_page()
    for tab, place in ((page, "overview"), (other, "account")):
        tab.goto(f"{web.url}/#/{place}")
        expect(tab.get_by_label("Password", exact=True)).to_be_visible()
    fill(page, ADMIN)
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    expect(other.get_by_role("heading", name="Account of admin")).to_be_visible()
    page.get_by_role("button", name="Log out").click()
    expect(other.get_by_label("Password", exact=True)).to_be_visible()
    fill(other, DEV)
    expect(other.get_by_role("heading", name="Account of dev")).to_be_visible()
    expect(page.locator("#account")).to_contain_text("dev")


@pytest.mark.by_day(2)
@pytest.mark.parametrize("address", ["#/%", "#/tasks/%E0%A4%A", "#/nothing", "#//", "#/tasks?state=%"])
def test_an_address_that_was_cut_leads_somewhere(
    page: Page, web: Records, watch: Watch, login: Callable[..., None], address: str
) -> None:
    watch.expect("(400|404).*api/ansibletask")  # what it names is asked for, and is not there
    login(page, url=web.url)
    page.goto(f"{web.url}/{address}")
    expect(page.get_by_role("heading", name="Tasks").or_(page.get_by_role("alert")).first).to_be_visible()


def test_who_is_logged_in_can_try_the_api_out_on_its_page(
    page: Page, login: Callable[..., None], web: Records, run: RecordedRun
) -> None:
    login(page, url=web.url)
    page.set_default_timeout(90_000)  # Swagger UI draws all operations anew at each click
    page.goto(f"{web.url}/api/docs")
    cancel = page.locator(".opblock", has_text="/api/ansibletaskcancel/{task_id}")
    cancel.locator(".opblock-summary-control").click()
    cancel.get_by_role("button", name="Try it out").click()
    cancel.get_by_placeholder("task_id").fill(run.task_id)
    cancel.get_by_placeholder("wait").fill("0")
    with page.expect_response("**/ansibletaskcancel/**") as reply:
        cancel.get_by_role("button", name="Execute").click()
    assert reply.value.status == 202
    expect(cancel.locator(".responses-wrapper")).to_contain_text("it is being ended")
    expect(cancel.locator(".curl-command")).not_to_contain_text("X-CSRF-Token")
