"""Projects in the console: the state of a remote, launching at a ref, and the commit on a task."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.helpers.browser_watch import Watch
from tests.helpers.repositories import Repository
from tests.helpers.services import ADMIN, Service

Login = Callable[..., None]


@pytest.fixture
def shop(service: Service, tmp_path: Path) -> Iterator[Repository]:
    """Project shop, with another playbook at tag v1."""
    made = Repository.make(tmp_path / "shop")
    made.commit({"old.yml": "- name: Old things\n  hosts: all\n  gather_facts: false\n  tasks: []\n"})
    made.git("tag", "v1")
    made.git("rm", "-q", "old.yml")
    made.commit({})
    with httpx.Client(base_url=service.url, auth=ADMIN) as client:
        client.put("/api/projects/shop", json={"url": str(made.folder), "ref": "main"}).raise_for_status()
        yield made
        client.delete("/api/projects/shop").raise_for_status()


def test_the_remote_of_a_project_is_asked_by_a_button(
    page: Page, service: Service, login: Login, shop: Repository, shot: Callable[..., None]
) -> None:
    login(page, ADMIN, "#/definitions?kind=projects&name=shop")
    remote = page.get_by_role("region", name="Remote")
    expect(remote).to_contain_text("It was not asked yet.")
    remote.get_by_role("button", name="Ask the remote now").click()
    expect(remote).to_contain_text(f"main is {shop.git('rev-parse', 'HEAD')[:12]}")
    shot("project", full=True)


def test_a_launch_begins_with_project_ref_and_playbook_and_the_task_shows_the_commit(
    page: Page, service: Service, login: Login, shop: Repository, shot: Callable[..., None]
) -> None:
    login(page, ADMIN, "#/launch")
    page.get_by_label("Project", exact=True).select_option("shop")
    expect(page.get_by_text(f"Commit {shop.git('rev-parse', 'HEAD')[:12]} of main")).to_be_visible()
    expect(page.get_by_role("radio", name="site.yml")).to_be_visible()
    expect(page.get_by_role("radio", name="old.yml")).to_have_count(0)
    page.get_by_label("Ref").fill("v1")
    page.get_by_label("Ref").blur()
    page.get_by_role("radio", name="old.yml").check()
    page.get_by_label("Inventory", exact=True).select_option("inventories/dev")
    shot("launch-project", full=True)
    page.get_by_role("button", name="Start").click()
    commit = shop.git("rev-parse", "v1")
    expect(page.locator(".task-facts")).to_contain_text(f"shop at v1, commit {commit[:12]}")
    expect(page.get_by_role("status").first).to_contain_text("succeeded", ignore_case=True)


def test_another_ref_keeps_what_was_typed_secrets_too(
    page: Page, service: Service, login: Login, shop: Repository
) -> None:
    prompts = "vars_prompt: [{name: word, prompt: A word}]\n  vars: {port: 80}"
    shop.commit({"ask.yml": f"- hosts: all\n  gather_facts: false\n  {prompts}\n  tasks: []\n"})
    shop.git("tag", "v2")
    login(page, ADMIN, "#/launch?kind=playbook&project=shop")
    lines = "-----BEGIN-----\nabc\n-----END-----\n"
    page.get_by_role("radio", name="ask.yml").check()
    page.get_by_label("port").fill("443")
    page.get_by_role("textbox", name="word (required)").fill(lines)
    page.get_by_label("Extra variables").fill('{"api_token": "x"}')
    page.get_by_text("Passwords and secret variables").click()
    page.get_by_label("Become password").fill("hush")
    page.get_by_role("button", name="Add a secret variable").click()
    page.get_by_label("Name", exact=True).fill("pem")
    page.get_by_label("Value", exact=True).fill(lines)
    page.get_by_role("radio", name="Ad-hoc command").check()
    page.get_by_label("Arguments").fill("password=1")
    page.get_by_label("Ref").fill("v2")
    page.get_by_label("Ref").blur()
    expect(page.get_by_text("of v2")).to_be_visible()
    expect(page.get_by_label("Arguments")).to_have_value("password=1")
    page.get_by_role("radio", name="Playbook", exact=True).check()
    expect(page.get_by_label("Extra variables")).to_have_value('{"api_token": "x"}')
    expect(page.get_by_label("Become password")).to_have_value("hush")
    expect(page.get_by_label("Name", exact=True)).to_have_value("pem")
    expect(page.get_by_label("Value", exact=True)).to_have_value(lines)
    page.get_by_role("radio", name="ask.yml").check()
    expect(page.get_by_role("textbox", name="word (required)")).to_have_value(lines)
    expect(page.get_by_label("port")).to_have_value("443")


def test_a_ref_that_is_not_there_is_said_at_the_form(
    page: Page, service: Service, login: Login, shop: Repository, watch: Watch
) -> None:
    watch.expect("status of 404")
    login(page, ADMIN, "#/launch?kind=playbook&project=shop&ref=mian")
    expect(page.get_by_text("Did you mean main?")).to_be_visible()
    expect(page.get_by_label("Ref")).to_have_value("mian")
