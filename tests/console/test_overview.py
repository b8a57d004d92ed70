"""The overview: what runs, how the days went, and where it hurts."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from flansible.models import State
from tests.helpers.browser_watch import Watch
from tests.helpers.console_records import Records
from tests.helpers.services import ADMIN, DEV
from tests.helpers.webserver import result


@pytest.fixture
def records(web: Records) -> Records:
    web.clear()
    return web


def card(page: Page, name: str) -> str:
    return page.locator(".card", has_text=name).locator("strong").inner_text()


def ended(records: Records, playbook: str, verdict: str = "ok", user: str = "admin") -> str:
    """A run of a playbook on dev1 that is over."""
    run = records.running(user, playbook=playbook)
    run.write(b"", result("dev1", verdict))
    run.end(State.FAILED if verdict == "failed" else State.SUCCEEDED)
    return run.task_id


def test_it_keeps_up_with_runs_of_a_worker(
    page: Page, login: Callable[..., None], new_task: Callable[..., str], gate: Path
) -> None:
    running, runs = (page.locator(".card", has_text=name).locator("strong") for name in ("Running now", "Runs"))
    login(page, ADMIN, "#/overview")
    expect(page.locator(".workers li")).to_contain_text("slots")
    before = int(runs.last.inner_text())
    new_task("gate.yml", gate=str(gate))
    expect(running).to_have_text("1")
    gate.touch()
    expect(running).to_have_text("0")
    expect(runs.last).to_have_text(str(before + 1))


def test_it_tells_of_now_and_of_the_days_and_keeps_up(
    page: Page, login: Callable[..., None], records: Records, shot: Callable[..., None]
) -> None:
    ended(records, "site.yml")
    ended(records, "fail.yml", "failed")
    login(page, ADMIN, "#/overview", url=records.url)
    expect(page.get_by_text("Tasks of all users")).to_be_visible()
    chart = page.get_by_role("img", name=re.compile("Runs per day in the last 30 days"))
    expect(chart).to_be_visible()
    expect(page.get_by_role("img", name=re.compile("Failure rate per day"))).to_be_visible()
    assert card(page, "Runs") == "2"
    assert card(page, "Went wrong") == "50 %"
    expect(page.get_by_role("row", name=re.compile("site.yml"))).to_be_visible()
    expect(page.get_by_role("row", name=re.compile("dev1"))).to_contain_text("1")
    run = records.running(playbook="site.yml")
    expect(page.locator(".card", has_text="Running now").locator("strong")).to_have_text("1")
    shot("overview", full=True)
    run.end()
    expect(page.locator(".card", has_text="Running now").locator("strong")).to_have_text("0")
    expect(page.locator(".card", has_text="Runs").locator("strong").last).to_have_text("3")


def test_each_chart_is_a_table_too(page: Page, login: Callable[..., None], records: Records) -> None:
    records.add()
    login(page, ADMIN, "#/overview?days=7", url=records.url)
    expect(page.get_by_label("Last", exact=True)).to_have_value("7")
    [runs, rate] = page.get_by_text("As a table").all()
    runs.click()
    rate.click()
    expect(page.locator("figure table")).to_have_count(2)
    rows = page.locator("figure").first.get_by_role("row")
    expect(rows).to_have_count(8)
    expect(page.get_by_role("columnheader", name="Succeeded")).to_be_visible()
    page.get_by_label("Last", exact=True).select_option("90 days")
    expect(rows).to_have_count(91)
    expect(page.locator("figure details[open]")).to_have_count(2)
    page.go_back()
    expect(page.get_by_label("Last", exact=True)).to_have_value("7")


def test_numbers_lead_into_the_list(page: Page, login: Callable[..., None], records: Records) -> None:
    failed = ended(records, "fail.yml", "failed")
    records.add()
    login(page, ADMIN, "#/overview", url=records.url)
    page.get_by_role("link", name="dev1").click()
    expect(page.get_by_label("Host", exact=True)).to_have_value("dev1")
    expect(page.locator(f"[data-task='{failed}']")).to_be_visible()
    page.go_back()
    page.get_by_role("link", name="fail.yml").click()
    expect(page.get_by_role("combobox", name="Playbook")).to_have_value("fail.yml")
    expect(page.locator(f"[data-task='{failed}']")).to_be_visible()
    page.go_back()
    page.locator(".card", has_text="Went wrong").click()
    expect(page.get_by_label("State")).to_have_value("failed")


def test_a_user_sees_what_is_theirs(page: Page, login: Callable[..., None], records: Records) -> None:
    ended(records, "fail.yml", "failed")
    records.add(user="dev")
    login(page, DEV, "#/overview", url=records.url)
    expect(page.get_by_text("Your tasks")).to_be_visible()
    assert card(page, "Went wrong") == "0 %"
    expect(page.get_by_text("No playbook has ended in this period.")).to_be_visible()
    expect(page.get_by_text("No host has failed in this period.")).to_be_visible()


def test_an_overview_that_cannot_be_had_says_so_and_comes_back(
    page: Page, login: Callable[..., None], records: Records, watch: Watch
) -> None:
    watch.expect("503")
    page.route(re.compile("api/stats"), lambda route: route.fulfill(status=503, json={"message": "Redis is away."}))
    login(page, ADMIN, "#/overview", url=records.url)
    expect(page.get_by_role("alert")).to_contain_text("Redis is away.")
    page.unroute_all()
    expect(page.get_by_role("alert")).to_have_count(0)
    expect(page.get_by_role("img", name=re.compile("Runs per day"))).to_be_visible()
