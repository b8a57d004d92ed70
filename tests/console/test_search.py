"""Search in the console: by playbook, failure and output, with links to the place."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.helpers.browser_watch import Watch
from tests.helpers.services import ADMIN, DEV, FAIL, Service, write
from tests.helpers.waiting import eventually


@pytest.fixture(scope="module")
def failed(service: Service, root: Path) -> str:
    write(root / "playbooks/wanted.yml", FAIL)
    playbook = {"playbook_dir": ".", "playbook": "wanted.yml", "inventory": str(service.root / "inventories/dev")}
    task_id = service.submit("ansibleplaybook", playbook)
    service.wait(task_id)
    eventually(lambda: service.client().get("/api/search?q=wanted").json()["hits"])
    return task_id


def test_a_failed_run_is_found_by_its_playbook_and_by_its_output(
    page: Page,
    login: Callable[..., None],
    shot: Callable[..., None],
    check_accessibility: Callable[[Page], None],
    failed: str,
) -> None:
    login(page, ADMIN, "#/tasks")
    page.get_by_role("link", name="Search", exact=True).click()
    page.get_by_label("Words").fill("dev1 wanted.yml")
    page.get_by_label("Words").press("Enter")
    hit = page.locator(f".hit[data-task='{failed}']")
    expect(hit).to_contain_text("Failed")
    expect(hit).to_contain_text("Playbook: wanted.yml")
    expect(hit).to_contain_text("Host: dev1")
    expect(page.get_by_role("status").get_by_text("1 hit")).to_be_visible()
    check_accessibility(page)
    shot("search", full=True)
    page.get_by_label("In", exact=True).select_option("Output")
    expect(page.locator(".hit")).to_have_count(0)
    page.get_by_label("Words").fill("fatal dev1")
    page.get_by_role("button", name="Search").click()
    line = page.locator(".hit .place a", has_text="Line").first
    expect(line).to_be_visible()
    assert "in=output" in page.url and "q=fatal" in page.url
    shot("search-output", full=True)
    line.click()
    expect(page).to_have_url(re.compile(rf"#/tasks/{failed}\?tab=output&line=\d+"))
    page.go_back()
    expect(page.locator(".hit").first).to_be_visible()


def test_a_search_that_finds_nothing_and_one_that_cannot_be_say_so(
    page: Page, login: Callable[..., None], failed: str, watch: Watch
) -> None:
    watch.expect("status of 400")
    login(page, DEV, "#/search?q=wanted.yml")
    expect(page.get_by_text("No finished task has all of these words.")).to_be_visible()
    page.get_by_label("Words").fill("!!!")
    page.get_by_role("button", name="Search").click()
    expect(page.get_by_role("alert")).to_contain_text("must have a letter or a digit")
