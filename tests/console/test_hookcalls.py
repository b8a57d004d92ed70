"""Calls of webhooks in the console: what became of each and why, and starting one again."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from playwright.sync_api import Locator, Page, expect

from tests.helpers.services import ADMIN, DEV, Service

SECRET = "a secret of the caller alone"
Login = Callable[..., None]


@pytest.fixture(scope="module")
def hook(service: Service) -> Callable[[dict[str, Any]], httpx.Response]:
    """Calls the webhook `deploys`, which sets the variable `size` of its template."""
    request = {"playbook_dir": str(service.root / "playbooks"), "playbook": "site.yml", "inventory": "inventories/dev"}
    request["inventory"] = str(service.root / "inventories/dev")
    variables = {"size": {"type": "integer"}}
    webhook = {"source": "generic", "header": "X-Token", "method": "token", "secret": SECRET, "template": "deploy"}
    with httpx.Client(base_url=service.url, auth=ADMIN) as client:
        template = {"kind": "playbook", "request": request, "variables": variables}
        client.put("/api/templates/deploy", json=template).raise_for_status()
        for name in ("deploys", "unused"):
            more = {"events": ["deploy"], "variables": {"size": "/size"}}
            client.put(f"/api/webhooks/{name}", json={**webhook, **more}).raise_for_status()

    def call(payload: dict[str, Any]) -> httpx.Response:
        return httpx.post(f"{service.url}/api/hooks/deploys", json=payload, headers={"X-Token": SECRET})

    return call


def rows(page: Page) -> Locator:
    return page.get_by_role("region", name="Calls of webhooks").locator("tbody tr")


def test_calls_say_what_became_of_them_and_are_started_again(
    page: Page,
    new_page: Callable[..., Page],
    service: Service,
    login: Login,
    shot: Callable[..., None],
    hook: Callable[[dict[str, Any]], httpx.Response],
) -> None:
    started = hook({"type": "deploy", "size": 1}).json()["task_id"]
    assert hook({"type": "cleanup"}).status_code == 200
    assert hook({"type": "deploy", "size": "<b>large</b>"}).status_code == 400
    login(page, ADMIN, "#/definitions?kind=webhooks")
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
    login(narrow, ADMIN, "#/hookcalls")
    expect(rows(narrow)).to_have_count(3)
    shot("hookcalls-360", narrow)
    page.once("dialog", lambda dialog: dialog.accept())
    rows(page).nth(1).get_by_role("button", name="Start the call of deploys again").click()
    page.wait_for_url(re.compile(r"#/tasks/[0-9a-f-]{36}"))
    again = page.url.rpartition("/")[2]
    assert service.client().get(f"/api/ansibletaskstatus/{again}").json()["template"] == "deploy"
    page.go_back()
    expect(rows(page).nth(1).get_by_role("link")).to_have_attribute("href", f"#/tasks/{again}")
    page.get_by_label("Webhook", exact=True).select_option("unused")
    expect(page.get_by_text("None yet.")).to_be_visible()


def test_who_has_no_webhook_sees_no_calls(
    page: Page, login: Login, hook: Callable[[dict[str, Any]], httpx.Response]
) -> None:
    hook({"type": "cleanup"})
    login(page, DEV, "#/hookcalls")
    expect(page.get_by_text("None yet.")).to_be_visible()
