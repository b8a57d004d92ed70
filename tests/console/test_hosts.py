"""Hosts in the console: found by filters, what happened on one, its facts; and two tasks side by side."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.helpers.services import ADMIN, Service, write
from tests.helpers.waiting import eventually

CHANGES = """
- name: Site
  hosts: all
  gather_facts: true
  tasks:
  - name: Install
    command: "true"
  - name: Start
    assert:
      that: not broken
      fail_msg: "It does not start"
"""


@pytest.fixture(scope="module")
def tasks(service: Service, root: Path) -> dict[str, str]:
    """A run that succeeded, and one after it that failed; their hosts are known."""
    write(root / "playbooks/changes.yml", CHANGES)
    made = {}
    for name, broken in (("good", False), ("bad", True)):
        body = {
            "playbook_dir": str(service.root / "playbooks"),
            "playbook": "changes.yml",
            "inventory": str(service.root / "inventories/dev"),
            "extra_vars": {"broken": broken, "db_password": "hunter22"},
        }
        made[name] = service.submit("ansibleplaybook", body)
        service.wait(made[name])
    client = service.client()

    def last_failed() -> list[str]:
        hosts = client.get("/api/hosts", params={"verdict": "failed"}).json()["hosts"]
        return [host["last_failed"]["task_id"] for host in hosts]

    eventually(lambda: made["bad"] in last_failed(), 60)
    return made


def test_a_host_is_found_and_says_what_happened_on_it(
    page: Page, tasks: dict[str, str], login: Callable[..., None], shot: Callable[..., None]
) -> None:
    login(page, ADMIN, "#/hosts")
    expect(page.get_by_role("row", name="dev1")).to_contain_text("failed")
    page.get_by_role("searchbox", name="Name").fill("nothing of the kind")
    expect(page.get_by_text("No host.")).to_be_visible()
    page.get_by_role("searchbox", name="Name").fill("DEV1")
    page.get_by_label("Last result").select_option("failed")
    expect(page.get_by_role("row", name="dev1")).to_be_visible()
    assert re.search(r"name=DEV1&verdict=failed", page.url)
    shot("hosts", full=True)
    page.get_by_role("link", name="dev1").click()
    expect(page.get_by_role("heading", name="dev1")).to_be_visible()
    rows = page.locator(".runs tbody tr")
    expect(rows.first).to_contain_text("failed")
    expect(rows.nth(1)).to_contain_text("changed")
    page.get_by_text("Facts").first.click()
    expect(page.get_by_role("row", name="ansible_hostname")).to_be_visible()
    page.get_by_label("Find in facts").fill("ansible_hostname")
    expect(page.locator(".facts tr:visible")).to_have_count(1)
    shot("host", full=True)
    rows.first.get_by_role("link").click()
    page.wait_for_url(f"**/#/tasks/{tasks['bad']}**")


def test_a_failed_task_says_since_when_and_what_differs(
    page: Page, tasks: dict[str, str], login: Callable[..., None], shot: Callable[..., None]
) -> None:
    login(page, ADMIN, f"#/tasks/{tasks['bad']}")
    since = page.locator(".since")
    expect(since).to_contain_text("First failure since")
    expect(since).to_contain_text("differs in extra_vars.broken; results on")
    shot("task-since", full=True)
    since.get_by_role("link", name="Compare").click()
    page.wait_for_url(f"**/#/compare?task={tasks['bad']}&with={tasks['good']}")
    expect(page.get_by_role("row", name="extra_vars.broken")).to_contain_text("true")
    expect(page.get_by_text("Masked, and not compared: extra_vars.db_password")).to_be_visible()
    row = page.get_by_role("row", name="Start").first
    expect(row).to_contain_text("It does not start")
    expect(page.locator("body")).not_to_contain_text("hunter22")
    shot("compare", full=True)
    page.get_by_role("combobox", name="Compared with").fill(tasks["bad"])
    page.get_by_role("textbox", name="Task", exact=True).fill(f"x/#/tasks/{tasks['good']}?tab=output")
    page.get_by_role("button", name="Compare").click()
    expect(page.get_by_role("row", name="extra_vars.broken")).to_contain_text("false")
    page.wait_for_url(f"**/#/compare?task={tasks['good']}&with={tasks['bad']}")


def test_without_an_earlier_success_there_is_nothing_to_compare_with(
    page: Page, tasks: dict[str, str], login: Callable[..., None]
) -> None:
    login(page, ADMIN, f"#/tasks/{tasks['good']}")
    page.get_by_role("link", name="Compare with another run").click()
    expect(page.get_by_text("No earlier run of the same has succeeded")).to_be_visible()
    expect(page.locator("datalist option")).to_have_count(1)


def test_who_sees_no_task_sees_no_host(page: Page, tasks: dict[str, str], login: Callable[..., None]) -> None:
    login(page, ("newcomer", "newcomer secret"), "#/hosts")
    expect(page.get_by_text("No host.")).to_be_visible()
