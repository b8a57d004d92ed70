"""One task, with real runs: what failed on top, live output, hosts, timeline, request, and what can be done with it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.helpers.services import ADMIN, AUDITOR, LOCAL, Service, write
from tests.helpers.waiting import eventually

SCRIPT = "<script>document.title='taken over'</script>"
FARM = f"[web]\nweb1 {LOCAL}\nweb2 {LOCAL}\nweb3 {LOCAL}\ngone1 ansible_host=127.0.0.1 ansible_port=1\n"
MIXED = f"""\
- name: Prepare
  hosts: all
  gather_facts: false
  tasks:
    - name: Reach them
      ansible.builtin.ping:
    - name: Read {SCRIPT}
      ansible.builtin.command: sh -c "echo 'line 12 makes no sense {SCRIPT}' >&2; exit 3"
      when: inventory_hostname == 'web2'
    - name: Several items
      ansible.builtin.command: test {{{{ item }}}} != {{{{ inventory_hostname }}}}
      loop: [web3, other]
- name: Deliver
  hosts: all
  gather_facts: false
  tasks:
    - name: Same name
      ansible.builtin.debug: msg=first
    - name: Same name
      ansible.builtin.debug: msg=second
"""


@pytest.fixture(scope="module", autouse=True)
def files(root: Path) -> None:
    write(root / "inventories/farm", FARM)
    write(root / "inventories/odd", f'"<b>host</b>" {LOCAL}\n')
    write(root / "playbooks/mixed.yml", MIXED)
    write(root / "playbooks/broken.yml", "- hosts: all\n  tasks: {\n")


@pytest.fixture(scope="module")
def mixed(service: Service, files: None) -> str:
    """A run that has failed on web2, web3 and gone1."""
    request = {"playbook_dir": str(service.root / "playbooks"), "playbook": "mixed.yml"}
    task_id = service.submit("ansibleplaybook", {**request, "inventory": str(service.root / "inventories/farm")})
    assert service.wait(task_id)["state"] == "failed"
    return task_id


@pytest.fixture
def open_task(page: Page, login: Callable[..., None]) -> Callable[..., Page]:
    """`open_task(id)`, `open_task(id, "tab=hosts", user)`"""

    def enter(task_id: str, query: str = "", user: tuple[str, str] = ADMIN) -> Page:
        login(page, user, f"#/tasks/{task_id}" + (f"?{query}" if query else ""))
        expect(page.get_by_role("tablist")).to_be_visible()
        return page

    return enter


def failure(page: Page, host: str) -> Any:
    return page.get_by_role("region", name="Failures").get_by_role("listitem").filter(has_text=host)


def test_what_failed_is_on_top_with_its_reason(
    open_task: Callable[..., Page], mixed: str, shot: Callable[..., None]
) -> None:
    page = open_task(mixed)
    expect(page.get_by_role("heading", name="Failed on 3 hosts")).to_be_visible()
    expect(page.get_by_role("region", name="Failures").get_by_role("listitem")).to_have_count(3)
    expect(failure(page, "web2")).to_contain_text("line 12 makes no sense")
    expect(failure(page, "web2")).to_contain_text("rc 3")
    expect(failure(page, "web3")).to_contain_text("Several items")
    expect(failure(page, "gone1")).to_contain_text("unreachable")
    expect(failure(page, "gone1")).to_contain_text("Reach them")
    head = page.locator(".task-header")
    expect(head).to_contain_text("Failed")
    expect(head).to_contain_text("exit code 4")
    expect(head.get_by_role("img", name=re.compile("2 failed.*1 unreachable"))).to_be_visible()
    shot("task-failed", full=True)


def test_a_failure_leads_to_its_lines_and_to_its_cell(open_task: Callable[..., Page], mixed: str) -> None:
    page = open_task(mixed)
    failure(page, "web2").get_by_role("link", name="Output").click()
    expect(page.locator(".line.is-marked").first).to_be_visible()
    expect(page.locator(".line.is-marked", has_text="fatal: [web2]")).to_be_visible()
    page.wait_for_url(re.compile(r"tab=output&line=\d+-\d+"))
    failure(page, "web2").get_by_role("link", name="Result").click()
    expect(page.get_by_role("region", name="Result", exact=True)).to_contain_text('"rc": 3')
    page.wait_for_url(re.compile(r"tab=hosts&host=web2&seq=\d+"))


def test_a_run_without_hosts_says_why_it_failed(open_task: Callable[..., Page], new_task: Callable[..., str]) -> None:
    page = open_task(new_task("broken.yml", wait=True))
    said = page.get_by_role("region", name="Why it failed")
    expect(said).to_contain_text("exit code 4")
    expect(said).to_contain_text("YAML parsing failed")


def test_lines_arrive_by_themselves_and_can_be_paused(
    open_task: Callable[..., Page], new_task: Callable[..., str], gate: Path, shot: Callable[..., None]
) -> None:
    page = open_task(new_task("gate.yml", gate=str(gate)))
    expect(page.get_by_text('"early line 299"')).to_be_visible()
    expect(page.locator(".task-state")).to_contain_text("Running")
    expect(page.get_by_role("button", name="Pause")).to_be_visible()
    page.get_by_role("region", name="Output").focus()
    page.keyboard.press("Home")
    expect(page.get_by_text('"early line 0"')).to_be_visible()
    expect(page.get_by_role("button", name="Follow")).to_be_visible()
    shot("task-running")
    gate.touch()
    expect(page.locator(".task-state")).to_contain_text("Succeeded")
    expect(page.get_by_text('"early line 0"')).to_be_visible()
    expect(page.get_by_text("through the gate")).to_have_count(0)
    page.get_by_role("button", name="Jump to the end").click()
    expect(page.get_by_text("through the gate")).to_be_visible()
    expect(page.get_by_role("button", name="Cancel")).to_have_count(0)


def test_the_end_is_followed(open_task: Callable[..., Page], new_task: Callable[..., str], gate: Path) -> None:
    page = open_task(new_task("gate.yml", gate=str(gate)))
    expect(page.get_by_text("TASK [Wait at the gate]")).to_be_visible()
    page.get_by_role("tab", name="Timeline").click()
    gate.touch()
    expect(page.get_by_role("row").filter(has_text="After the gate")).to_be_visible()
    page.get_by_role("tab", name="Output").click()
    expect(page.get_by_text("PLAY RECAP")).to_be_visible()
    expect(page.locator(".line .ansi32").first).to_be_visible()  # in colours, the last lines too


def test_the_matrix_grows_while_the_run_does(
    open_task: Callable[..., Page], new_task: Callable[..., str], gate: Path
) -> None:
    page = open_task(new_task("gate.yml", gate=str(gate)), "tab=hosts")
    expect(page.get_by_role("gridcell", name="dev1, Many lines: ok")).to_be_visible()
    expect(page.get_by_role("columnheader", name="After the gate")).to_have_count(0)
    gate.touch()
    expect(page.get_by_role("gridcell", name="dev1, After the gate: ok")).to_be_visible()


def test_the_matrix_shows_a_cell_and_its_lines(
    open_task: Callable[..., Page], mixed: str, shot: Callable[..., None], check_accessibility: Callable[[Page], None]
) -> None:
    page = open_task(mixed, "tab=hosts")
    expect(page.get_by_text("4 hosts × 5 play tasks")).to_be_visible()
    # Those with failures first, among each other by name.
    expect(page.get_by_role("rowheader")).to_have_text(["gone1", "web2", "web3", "web1"])
    expect(page.get_by_role("columnheader", name="Same name")).to_have_count(2)
    page.get_by_role("gridcell", name=re.compile("^web3, Several items: failed")).click()
    panel = page.get_by_role("region", name="Result", exact=True)
    expect(panel).to_contain_text('"results": [')
    expect(panel.get_by_role("row").filter(has_text="other")).to_contain_text("changed")
    expect(panel.get_by_label("Lines of output")).to_contain_text("[web3]")
    check_accessibility(page)
    shot("task-cell")
    place = page.url
    page.keyboard.press("Escape")
    expect(panel).to_be_hidden()
    expect(page.get_by_role("grid")).to_be_focused()
    page.goto("about:blank")
    page.goto(place)  # the link can be shared
    expect(panel).to_contain_text('"results": [')


def test_the_matrix_is_worked_by_keys_and_narrowed_down(open_task: Callable[..., Page], mixed: str) -> None:
    page = open_task(mixed, "tab=hosts")
    expect(page.get_by_role("rowheader")).to_have_count(4)
    page.get_by_label("Only failures").check()
    expect(page.get_by_role("rowheader")).to_have_text(["gone1", "web2", "web3"])
    page.get_by_label("Only hosts with this text").fill("WEB")
    expect(page.get_by_role("rowheader")).to_have_text(["web2", "web3"])
    page.get_by_role("grid").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    expect(page.get_by_role("region", name="Result", exact=True)).to_contain_text("Several items")
    page.keyboard.press("Escape")
    expect(page.get_by_role("grid")).to_be_focused()


def test_the_timeline_says_what_took_how_long(
    open_task: Callable[..., Page], mixed: str, shot: Callable[..., None], check_accessibility: Callable[[Page], None]
) -> None:
    page = open_task(mixed, "tab=timeline")
    row = page.get_by_role("row").filter(has_text="Reach them")
    expect(row).to_contain_text(re.compile(r"\d ?m?s"))
    expect(page.get_by_role("row").filter(has_text="slowest")).to_have_count(3)
    row.get_by_role("button").click()
    expect(page.get_by_role("row").filter(has_text="gone1")).to_contain_text("unreachable")
    shot("task-timeline", full=True)
    page.get_by_role("button", name="By host").click()
    expect(page.get_by_role("button", name="web1")).to_be_visible()
    expect(page.get_by_role("button", name="Reach them")).to_have_count(0)
    check_accessibility(page)


def test_the_request_is_shown_without_its_secrets(
    new_page: Callable[..., Page], login: Callable[..., None], new_task: Callable[..., str], shot: Callable[..., None]
) -> None:
    page = new_page(permissions=["clipboard-read", "clipboard-write"])
    task_id = new_task("vars.yml", body={"become_password": "hush hush"}, wait=True)
    login(page, ADMIN, f"#/tasks/{task_id}?tab=request")
    sent = page.get_by_role("region", name="As it was sent")
    expect(sent).to_contain_text('"become_password": "********"')
    expect(page.get_by_role("tabpanel")).not_to_contain_text("hush")
    expect(page.get_by_role("tabpanel")).to_contain_text(task_id)
    shot("task-request", page, full=True)
    for button, begin in (("curl", "curl "), ("flansible command", "flansible playbook"), ("ansible command", "cd /")):
        page.get_by_role("button", name=f"Copy as {button}", exact=True).click()
        expect(page.locator("#notice")).to_contain_text("copied")
        assert page.evaluate("navigator.clipboard.readText()").startswith(begin)


def test_a_request_with_secrets_is_run_again_from_the_form(
    open_task: Callable[..., Page], new_task: Callable[..., str]
) -> None:
    task_id = new_task("fail.yml", body={"become_password": "hush hush"}, wait=True)
    page = open_task(task_id)
    page.get_by_role("button", name="Run again on 2 failed hosts").click()
    expect(page.get_by_label("Become password")).to_have_value("")
    expect(page.get_by_label("Become password")).to_have_attribute("aria-invalid", "true")
    expect(page.get_by_label("Limit", exact=True)).to_have_value("dev1,dev2")


def test_a_task_is_canceled_after_a_question(
    open_task: Callable[..., Page], new_task: Callable[..., str], gate: Path, shot: Callable[..., None]
) -> None:
    page = open_task(new_task("gate.yml", gate=str(gate)))
    expect(page.locator(".task-state")).to_contain_text("Running")
    page.get_by_role("button", name="Cancel", exact=True).click()
    question = page.get_by_role("dialog", name="Cancel this task?")
    shot("task-cancel")
    question.get_by_role("button", name="Keep it").click()
    expect(question).to_have_count(0)
    expect(page.get_by_role("button", name="Cancel", exact=True)).to_be_focused()
    page.get_by_role("button", name="Cancel", exact=True).click()
    question.get_by_role("button", name="Cancel the task").click()
    expect(page.locator(".task-state")).to_contain_text("Canceled")
    expect(page.get_by_role("button", name="Run again")).to_be_visible()


def test_a_queued_task_says_why_it_waits(
    open_task: Callable[..., Page], service: Service, new_task: Callable[..., str], gate: Path
) -> None:
    first = new_task("gate.yml", gate=str(gate), body={"lock": "farm"})
    page = open_task(new_task("vars.yml", body={"lock": "farm"}))
    expect(page.locator(".task-state")).to_contain_text("Queued")
    expect(page.locator(".task-facts")).to_contain_text("its lock is held by task")
    expect(page.get_by_role("link", name=f"task {first[:8]}")).to_be_visible()
    expect(page.get_by_role("button", name="Cancel", exact=True)).to_be_visible()
    gate.touch()
    expect(page.locator(".task-state")).to_contain_text("Succeeded")
    expect(page.get_by_text("PLAY RECAP")).to_be_visible()


def test_a_queued_task_says_on_which_host_another_is(
    open_task: Callable[..., Page], new_task: Callable[..., str], tmp_path: Path, service: Service
) -> None:
    gate = tmp_path / "gate"
    first = new_task("gate.yml", gate=str(gate), body={"exclusive": "hosts", "limit": "dev1"})
    eventually(lambda: service.status(first)["state"] == "running")
    page = open_task(new_task("vars.yml", body={"limit": "dev1"}))
    expect(page.locator(".task-facts")).to_contain_text(f"dev1 is also of task {first[:8]}, which comes first")
    gate.touch()
    expect(page.locator(".task-state")).to_contain_text("Succeeded")


def test_a_task_is_run_again_after_a_question(
    open_task: Callable[..., Page], service: Service, new_task: Callable[..., str], shot: Callable[..., None]
) -> None:
    first = new_task("vars.yml", given="once more", wait=True)
    page = open_task(first)
    page.get_by_role("button", name="Run again").click()
    question = page.get_by_role("dialog", name="Run it again?")
    expect(question).to_contain_text("playbook vars.yml")
    shot("task-again")
    question.get_by_role("button", name="Not now").click()
    expect(question).to_have_count(0)
    assert page.url.endswith(first)
    page.get_by_role("button", name="Run again").click()
    question.get_by_role("button", name="Run again").click()
    expect(page).not_to_have_url(re.compile(first))
    second = page.url.rsplit("/", 1)[1]
    expect(page.locator(".task-state")).to_contain_text("Succeeded")
    assert service.wait(second)["state"] == "succeeded"
    assert "once more" in service.output(second)


def test_a_task_whose_reply_was_lost_is_run_again_once(
    open_task: Callable[..., Page], new_task: Callable[..., str], lose_first_reply: Callable[..., list[str | None]]
) -> None:
    page = open_task(new_task(wait=True))
    keys = lose_first_reply(page, "**/api/ansiblecommand")
    page.get_by_role("button", name="Run again").click()
    question = page.get_by_role("dialog", name="Run it again?")
    question.get_by_role("button", name="Run again").click()
    expect(question.get_by_role("alert")).to_contain_text("does not answer")
    question.get_by_role("button", name="Run again").click()
    expect(question).to_have_count(0)
    assert len(keys) == 2 and keys[0] and keys[0] == keys[1]


def test_a_task_is_run_again_on_the_hosts_that_failed(
    open_task: Callable[..., Page], service: Service, mixed: str
) -> None:
    page = open_task(mixed)
    page.get_by_role("button", name="Run again on 3 failed hosts").click()
    question = page.get_by_role("dialog", name="Run it again?")
    expect(question).to_contain_text("Only on 3 hosts: gone1, web2, web3")
    question.get_by_role("button", name="Run again").click()
    expect(page).not_to_have_url(re.compile(mixed))
    task_id = page.url.rsplit("/", 1)[1]
    assert service.wait(task_id)["state"] == "failed"
    hosts = set(service.result(task_id)["stats"])
    assert hosts == {"web2", "web3", "gone1"}


def test_who_may_only_look_has_no_buttons(open_task: Callable[..., Page], mixed: str) -> None:
    page = open_task(mixed, user=AUDITOR)
    expect(page.get_by_role("heading", name="Failed on 3 hosts")).to_be_visible()
    expect(page.get_by_role("button", name="Run again")).to_have_count(0)


def test_tabs_are_chosen_by_keys_and_stand_in_the_address(open_task: Callable[..., Page], mixed: str) -> None:
    page = open_task(mixed)
    page.get_by_role("tab", name="Output").focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="Hosts")).to_be_focused()
    expect(page.get_by_role("tab", name="Hosts")).to_have_attribute("aria-selected", "true")
    page.wait_for_url("**?tab=hosts")
    page.keyboard.press("End")
    expect(page.get_by_role("tabpanel", name="Request")).to_be_visible()


def test_markup_from_tasks_hosts_and_variables_stays_text(
    open_task: Callable[..., Page], service: Service, mixed: str
) -> None:
    page = open_task(mixed)
    expect(failure(page, "web2")).to_contain_text(SCRIPT)
    expect(page.locator(".line", has_text=f"TASK [Read {SCRIPT}]")).to_be_visible()
    page.get_by_role("tab", name="Hosts").click()
    expect(page.get_by_role("columnheader", name=f"Read {SCRIPT}")).to_be_visible()
    page.get_by_role("tab", name="Timeline").click()
    expect(page.get_by_role("button", name=f"Read {SCRIPT}")).to_be_visible()
    request = {"playbook_dir": str(service.root / "playbooks"), "playbook": "vars.yml"}
    odd = {"inventory": str(service.root / "inventories/odd"), "extra_vars": {"given": f"{SCRIPT}\u202e", SCRIPT: 1}}
    task_id = service.submit("ansibleplaybook", {**request, **odd})
    service.wait(task_id)
    page = open_task(task_id)
    expect(page.locator(".line", has_text=json.dumps(SCRIPT)[1:-1]).first).to_be_visible()
    page.get_by_role("tab", name="Hosts").click()
    expect(page.get_by_role("rowheader", name="<b>host</b>")).to_be_visible()
    page.get_by_role("tab", name="Request").click()
    expect(page.get_by_role("region", name="As it was sent")).to_contain_text(SCRIPT)
    assert "taken over" not in page.title()
    assert page.locator("main script, main b").count() == 0
