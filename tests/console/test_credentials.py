"""Credentials in the console: written in a form and shown no more, and chosen in the launch form."""

from __future__ import annotations

import re
from collections.abc import Callable

import httpx
from playwright.sync_api import Page, expect

from tests.helpers.browser_watch import Watch
from tests.helpers.console_records import Records
from tests.helpers.services import ADMIN, DEV

SECRET = "marker-of-a-secret"


def test_a_credential_is_made_and_its_secret_is_not_shown(
    page: Page, web: Records, login: Callable[..., None], shot: Callable[..., None]
) -> None:
    login(page, ADMIN, "#/definitions?kind=credentials", url=web.url)
    page.get_by_role("button", name="New").click()
    page.get_by_label("Name", exact=True).fill("team-vault")
    page.get_by_label("kind (required)").select_option("vault")
    page.get_by_label("password", exact=True).fill(SECRET)
    shot("credential-form", full=True)
    page.get_by_role("button", name="Create").click()
    expect(page.get_by_role("row", name="team-vault")).to_contain_text("kind: vault")
    page.get_by_role("button", name="team-vault").click()
    expect(page.get_by_label("password", exact=True)).to_have_value("")
    expect(page.get_by_label("password", exact=True)).to_have_attribute("placeholder", "set; leave empty to keep it")
    assert SECRET not in page.content()
    page.get_by_label("vault_id").fill("prod")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("row", name="team-vault")).to_contain_text("vault_id: prod")
    shown = httpx.get(f"{web.url}/api/credentials/team-vault", auth=ADMIN).json()
    assert (shown["vault_id"], shown["sealed"]) == ("prod", ["password"])
    httpx.delete(f"{web.url}/api/credentials/team-vault", auth=ADMIN).raise_for_status()


def test_a_missing_field_is_named_at_its_place(
    page: Page, web: Records, login: Callable[..., None], watch: Watch
) -> None:
    watch.expect("status of 400")
    login(page, ADMIN, "#/definitions?kind=credentials&name=", url=web.url)
    page.get_by_label("Name", exact=True).fill("key")
    page.get_by_label("kind (required)").select_option("ssh")
    page.get_by_role("button", name="Create").click()
    field = page.locator(".field", has=page.get_by_label("private_key", exact=True))
    expect(field.locator(".field-error")).to_contain_text("is missing")


def test_the_launch_form_offers_credentials_and_keeps_the_choice(
    page: Page, web: Records, login: Callable[..., None], shot: Callable[..., None]
) -> None:
    for name, body in {
        "team-vault": {"kind": "vault", "password": SECRET},
        "git-key": {"kind": "git", "user": "x", "token": SECRET},
    }.items():
        httpx.put(f"{web.url}/api/credentials/{name}", json=body, auth=ADMIN).raise_for_status()
    login(page, ADMIN, "#/launch?kind=adhoc&module=ping", url=web.url)
    page.get_by_text("Passwords and secret variables").click()
    choice = page.get_by_label("Credentials")
    assert choice.locator("option").all_inner_texts() == ["team-vault: vault password"], "git is for projects"
    choice.select_option(["team-vault"])
    shot("launch-credentials", full=True)
    page.wait_for_url(re.compile("credentials=team-vault"))
    page.get_by_role("button", name="Start").click()
    page.wait_for_url(re.compile(r"#/tasks/[0-9a-f-]{36}"))
    task_id = page.url.rpartition("/")[2]
    request = httpx.get(f"{web.url}/api/ansibletaskrequest/{task_id}", auth=ADMIN).json()
    assert request["body"]["credentials"] == ["team-vault"]
    page.goto(f"{web.url}/#/launch?from={task_id}")
    expect(page.get_by_label("Credentials")).to_have_values(["team-vault"])
    for name in ("team-vault", "git-key"):
        httpx.delete(f"{web.url}/api/credentials/{name}", auth=ADMIN).raise_for_status()


def test_without_credentials_there_is_no_choice(page: Page, web: Records, login: Callable[..., None]) -> None:
    login(page, DEV, "#/launch?kind=adhoc", url=web.url)
    page.get_by_text("Passwords and secret variables").click()
    expect(page.get_by_label("Connection password")).to_be_visible()
    expect(page.get_by_label("Credentials")).to_have_count(0)
