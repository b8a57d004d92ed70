"""Calls of webhooks in the console: what became of each and why, and starting one again."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from playwright.sync_api import Locator, Page, expect

from tests.helpers.console_records import Records
from tests.helpers.services import ADMIN, DEV, write

SECRET = "a secret of the caller alone"
Login = Callable[..., None]


@pytest.fixture(scope="module")
def hook(web: Records) -> Iterator[Callable[[dict[str, Any]], httpx.Response]]:
    """Calls the webhook `deploys`, which sets the variable `size` of its template."""
    inventory = web.folder / "inventories/dev"
    write(inventory, "dev1\n")
    write(web.folder / "playbooks/site.yml", "- hosts: all\n  tasks: []\n")
    request = {"playbook_dir": str(web.folder / "playbooks"), "playbook": "site.yml", "inventory": str(inventory)}
    variables = {"size": {"type": "integer"}}
    webhook = {"source": "generic", "header": "X-Token", "method": "token", "secret": SECRET, "template": "deploy"}
    more = {"events": ["deploy"], "variables": {"size": "/size"}}
    names = ("webhooks/deploys", "webhooks/unused", "templates/deploy")
    with httpx.Client(base_url=web.url, auth=ADMIN) as client:
        template = {"kind": "playbook", "request": request, "variables": variables}
        for name in reversed(names):
            body = template if name == "templates/deploy" else {**webhook, **more}
            client.put(f"/api/{name}", json=body).raise_for_status()
        yield lambda payload: httpx.post(f"{web.url}/api/hooks/deploys", json=payload, headers={"X-Token": SECRET})
        for name in names:
            client.delete(f"/api/{name}").raise_for_status()
    for folder in ("inventories", "playbooks"):
        shutil.rmtree(web.folder / folder)


def rows(page: Page) -> Locator:
    return page.get_by_role("region", name="Calls of webhooks").locator("tbody tr")


def test_calls_say_what_became_of_them_and_are_started_again(
    page: Page,
    new_page: Callable[..., Page],
    web: Records,
    login: Login,
    shot: Callable[..., None],
    hook: Callable[[dict[str, Any]], httpx.Response],
) -> None:
    started = hook({"type": "deploy", "size": 1}).json()["task_id"]
    assert hook({"type": "cleanup"}).status_code == 200
    assert hook({"type": "deploy", "size": "<b>large</b>"}).status_code == 400
    login(page, ADMIN, "#/definitions?kind=webhooks", url=web.url)
    page.get_by_role("button", name="deploys").click()
    page.get_by_role("link", name="Calls").click()
    expect(rows(page)).to_have_count(3)
    assert "webhook=deploys" in page.url
    expect(rows(page).nth(0)).to_contain_text("refused")
    expect(rows(page).nth(0)).to_contain_text("size")
    expect(rows(page).nth(1)).to_contain_text("ignored")
    expect(rows(page).nth(1)).to_contain_text("event does not match")
    expect(rows(page).nth(2)).to_contain_text("started")
    expect(rows(page).nth(2).get_by_role("link")).to_have_attribute("href", f"#/tasks/{started}")
    shot("hookcalls", full=True)
    narrow = new_page(viewport={"width": 360, "height": 800})
    login(narrow, ADMIN, "#/hookcalls", url=web.url)
    expect(rows(narrow)).to_have_count(3)
    shot("hookcalls-360", narrow)
    page.once("dialog", lambda dialog: dialog.accept())
    rows(page).nth(1).get_by_role("button", name="Start the call of deploys again").click()
    page.wait_for_url(re.compile(r"#/tasks/[0-9a-f-]{36}"))
    again = page.url.rpartition("/")[2]
    status = httpx.get(f"{web.url}/api/ansibletaskstatus/{again}", auth=ADMIN).json()
    assert status["template"] == "deploy"
    page.go_back()
    expect(rows(page).nth(1).get_by_role("link")).to_have_attribute("href", f"#/tasks/{again}")
    page.get_by_label("Webhook", exact=True).select_option("unused")
    expect(page.get_by_text("None yet.")).to_be_visible()


def test_who_has_no_webhook_sees_no_calls(
    page: Page, web: Records, login: Login, hook: Callable[[dict[str, Any]], httpx.Response]
) -> None:
    hook({"type": "cleanup"})
    login(page, DEV, "#/hookcalls", url=web.url)
    expect(page.get_by_text("None yet.")).to_be_visible()
