"""Templates and schedules in the console: saved from a task, launched by who knows nothing else, paused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import httpx
from playwright.sync_api import Page, expect

from tests.helpers.browser_watch import Watch
from tests.helpers.services import ADMIN, Service

PORTAL = ("portal", "portal secret")


def put(service: Service, path: str, body: dict[str, Any]) -> None:
    with httpx.Client(base_url=service.url, auth=ADMIN) as client:
        client.put(f"/api/{path}", json=body).raise_for_status()


def test_a_template_is_made_from_a_task_given_to_another_user_and_launched(
    page: Page,
    new_page: Callable[..., Page],
    service: Service,
    login: Callable[..., None],
    shot: Callable[..., None],
    watch: Watch,
) -> None:
    watch.expect("status of 400")
    request = {"playbook_dir": str(service.root / "playbooks"), "playbook": "vars.yml"}
    body = {**request, "inventory": str(service.root / "inventories/dev"), "secret_vars": {"given": "hush"}}
    task_id = service.submit("ansibleplaybook", body)
    service.wait(task_id)
    login(page, ADMIN, f"#/tasks/{task_id}")
    page.get_by_role("button", name="Save as template").click()
    page.get_by_role("dialog").get_by_label("Name").fill("show")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_role("heading", name="templates/show")).to_be_visible()
    expect(page.get_by_label("variables")).to_have_value(
        json.dumps({"given": {"required": True, "secret": True}}, indent=2)
    )
    variables = {"given": {"pattern": "[a-z]+", "required": True}, "size": {"type": "integer", "choices": [1, 2]}}
    page.get_by_label("variables").fill(json.dumps(variables))
    page.get_by_label("allow").fill(json.dumps({"users": [PORTAL[0]]}))
    page.get_by_label("description", exact=True).fill("Shows a word")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_role("row", name="show")).to_be_visible()

    portal = new_page()
    login(portal, PORTAL, "")
    expect(portal.get_by_role("button", name="Run show")).to_be_visible()
    assert portal.locator("#nav a").all_inner_texts() == ["Templates", "Tasks", "API"]
    shot("templates", portal, full=True)
    portal.get_by_role("button", name="Run show").click()
    portal.get_by_label("given").fill("A1")
    portal.get_by_label("size").select_option("2")
    portal.get_by_role("button", name="Start").click()
    expect(portal.locator(".field-error:visible")).to_contain_text("as a whole")
    portal.get_by_label("given").fill("word")
    shot("template-launch", portal, full=True)
    portal.get_by_role("button", name="Start").click()
    expect(portal.get_by_text("template show")).to_be_visible()
    expect(portal.get_by_role("status").get_by_text("succeeded", exact=False).first).to_be_visible()
    expect(portal.get_by_role("link", name="Run this template again")).to_be_visible()


def test_a_run_gets_what_the_launch_form_shows(page: Page, service: Service, login: Callable[..., None]) -> None:
    variables: dict[str, Any] = {
        "quick": {"type": "boolean", "default": True},
        "sure": {"type": "boolean", "required": True},
        "word": {"default": "hello"},
        "size": {"type": "integer", "default": 5},
        "text": {"default": "one\ntwo"},
        "left": {"default": "one\ntwo"},
    }
    request = {"playbook": "vars.yml", "inventory": str(service.root / "inventories/dev"), "check": True}
    request |= {"playbook_dir": str(service.root / "playbooks"), "limit": "dev1", "extra_vars": {"own": "given"}}
    spec = {"kind": "playbook", "request": request, "variables": variables}
    put(service, "templates/defaults", {**spec, "open": ["check", "limit", "tags", "extra_vars.own"]})
    login(page, ADMIN, "#/templates?name=defaults")
    expect(page.get_by_label("check")).to_be_checked()
    expect(page.get_by_label("limit")).to_have_value("dev1")
    expect(page.get_by_label("own")).to_have_value('"given"')
    expect(page.get_by_label("text")).to_have_value("one\ntwo")
    page.get_by_label("check").uncheck()
    page.get_by_label("quick").uncheck()
    page.get_by_label("sure").select_option("false")
    page.get_by_label("limit").fill("")
    page.get_by_label("word").fill("")
    page.get_by_label("text").fill("one\nthree")
    page.get_by_label("size").fill("")
    page.get_by_role("button", name="Start").click()
    expect(page.locator(".field-error:visible")).to_have_text(["This cannot be empty: what stood here would apply."])
    page.get_by_label("size").fill("0")
    page.get_by_role("button", name="Start").click()
    page.wait_for_url(re.compile(r"#/tasks/[0-9a-f-]{36}"))
    task_id = page.url.rpartition("/")[2]
    body = service.client().get(f"/api/ansibletaskrequest/{task_id}").json()["body"]
    assert (body.get("check"), body.get("limit")) == (False, None)
    shown = {"quick": False, "sure": False, "word": "", "size": 0, "text": "one\nthree", "left": "one\ntwo"}
    assert body["extra_vars"] == [{"own": "given"}, shown]


def test_what_is_started_again_after_a_lost_reply_starts_once(
    page: Page, service: Service, login: Callable[..., None], lose_first_reply: Callable[..., list[str | None]]
) -> None:
    request = {"playbook": "vars.yml", "inventory": str(service.root / "inventories/dev")}
    put(service, "templates/lost", {"kind": "playbook", "request": request})
    put(service, "schedules/lost", {"template": "lost", "cron": "30 2 * * *", "timezone": "UTC"})

    def count() -> int:
        return len(service.client().get("/api/ansibletasks", params={"template": "lost"}).json()["tasks"])

    places = {"templates?name=lost": "Start", "definitions?kind=schedules&name=lost": "Run now"}
    for number, (place, button) in enumerate(places.items(), 1):
        login(page, ADMIN, f"#/{place}")
        keys = lose_first_reply(page, "**/lost/{launch,run}")
        page.get_by_role("button", name=button).click()
        expect(page.get_by_role("alert")).to_contain_text("does not answer")
        page.get_by_role("button", name=button).click()
        page.wait_for_url(re.compile(r"#/tasks/[0-9a-f-]{36}"))
        assert len(keys) == 2 and keys[0] == keys[1] and count() == number
        page.unroute_all()
    items = service.client().get("/api/schedules/lost/occurrences").json()["items"]
    assert [one["detail"] for one in items] == ["run by admin"]


def test_a_template_that_comes_late_does_not_take_the_place_of_another(
    page: Page, service: Service, login: Callable[..., None], hold_first_reply: Callable[..., Callable[[], None]]
) -> None:
    request = {"playbook": "vars.yml", "inventory": str(service.root / "inventories/dev")}
    for name in ("slow", "quick"):
        put(service, f"templates/{name}", {"kind": "playbook", "request": request})
    login(page, ADMIN, "#/templates")
    release = hold_first_reply(page, "**/api/templates/slow")
    page.get_by_role("button", name="Run slow").click()
    page.get_by_role("button", name="Run quick").click()
    expect(page.get_by_role("heading", name="quick")).to_be_visible()
    release()
    expect(page.get_by_role("heading", name="quick")).to_be_visible()


def test_the_launch_form_is_saved_as_a_template(page: Page, service: Service, login: Callable[..., None]) -> None:
    login(page, ADMIN, "#/launch?kind=adhoc&module=ping&host_pattern=dev1")
    page.get_by_role("button", name="Save as template").click()
    page.get_by_role("dialog").get_by_label("Name").fill("pinged")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_role("heading", name="templates/pinged")).to_be_visible()
    expect(page.get_by_label("request", exact=False).first).to_have_value(
        json.dumps({"host_pattern": "dev1", "module": "ping"}, indent=2)
    )


def test_a_schedule_shows_its_times_and_is_paused_and_resumed(
    page: Page, service: Service, login: Callable[..., None], shot: Callable[..., None]
) -> None:
    request = {"playbook": "vars.yml", "inventory": str(service.root / "inventories/dev")}
    put(service, "templates/site", {"kind": "playbook", "request": request})
    put(service, "schedules/nightly", {"template": "site", "cron": "30 2 * * *", "timezone": "Europe/Berlin"})
    login(page, ADMIN, "#/definitions?kind=schedules&name=nightly")
    panel = page.get_by_role("region", name="Times")
    expect(panel.get_by_text("At 02:30 every day (Europe/Berlin)")).to_be_visible()
    expect(panel.get_by_role("list", name="Next times").get_by_text("02:30")).to_have_count(5)
    page.once("dialog", lambda dialog: dialog.accept("the disk is full"))
    panel.get_by_role("button", name="Pause").click()
    expect(panel.get_by_text("Paused by admin: the disk is full.")).to_be_visible()
    shot("schedule", full=True)
    panel.get_by_role("button", name="Resume").click()
    expect(panel.get_by_role("button", name="Pause")).to_be_visible()
    panel.get_by_role("button", name="Skip the next time").click()
    expect(panel.get_by_text("Skips the next 1.")).to_be_visible()
    panel.get_by_role("button", name="Run now").click()
    expect(page.get_by_text("template site")).to_be_visible()
