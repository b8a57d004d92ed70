"""One's own account in the console: tokens and password; for admin, the users."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from playwright.sync_api import Page, expect

from tests.helpers.browser_watch import Watch
from tests.helpers.console_records import Records
from tests.helpers.services import ADMIN, DEV


def test_a_token_is_made_shown_once_and_revoked(
    page: Page, web: Records, login: Callable[..., None], shot: Callable[..., None]
) -> None:
    login(page, DEV, "#/tasks", url=web.url)
    page.get_by_role("link", name="dev", exact=True).click()
    expect(page.get_by_role("heading", name="Account of dev")).to_be_visible()
    page.get_by_label("May", exact=True).select_option("read")
    page.get_by_role("button", name="Make a token").click()
    expect(page.locator(".new-token code")).to_have_text(re.compile("^flansible_[0-9a-f]{12}_[0-9a-f]{64}$"))
    shot("account", full=True)
    page.reload()
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page.locator(".new-token")).to_have_count(0)
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Revoke").click()
    expect(page.get_by_text("None. A script needs no password")).to_be_visible()
    expect(page.get_by_role("heading", name="Users")).to_have_count(0)


def test_a_password_is_changed_and_the_session_goes_on(
    page: Page, web: Records, login: Callable[..., None], watch: Watch
) -> None:
    watch.expect("status of 400")
    login(page, DEV, "#/account", url=web.url)

    def change(current: str, new: str, again: str) -> None:
        page.get_by_label("Password of now").fill(current)
        page.get_by_label("New password", exact=True).fill(new)
        page.get_by_label("New password, again").fill(again)
        page.get_by_role("button", name="Change it").click()

    change(DEV[1], "another secret", "another secre")
    expect(page.get_by_text("This is not the same.")).to_be_visible()
    change("wrong", "another secret", "another secret")
    expect(page.get_by_role("alert")).to_contain_text("is not the password of now")
    change(DEV[1], "another secret", "another secret")
    expect(page.get_by_text("Password changed.")).to_be_visible()
    page.get_by_role("button", name="Make a token").click()
    expect(page.locator(".new-token")).to_be_visible()
    change("another secret", DEV[1], DEV[1])
    expect(page.get_by_label("Password of now")).to_have_value("")


def test_admin_sees_what_each_user_may_reach(
    page: Page, web: Records, login: Callable[..., None], shot: Callable[..., None]
) -> None:
    users = json.loads((web.folder / "rbac.json").read_text())
    next(user for user in users["rbac"] if user["user"] == DEV[0])["inventories"] = ["inventories/dev"]
    (web.folder / "rbac.json").write_text(json.dumps(users))
    login(page, ADMIN, "#/account", url=web.url)
    expect(page.get_by_role("row", name=re.compile("^dev"))).to_contain_text("inventories/dev")
    shot("account-admin", full=True)
