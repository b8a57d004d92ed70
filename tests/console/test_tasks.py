"""The list of tasks: as it is, as it changes, narrowed down, and for whom."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from flansible.models import State, Visibility
from tests.helpers.console_records import Records
from tests.helpers.services import ADMIN, AUDITOR, DEV
from tests.helpers.waiting import eventually
from tests.helpers.webserver import result

ROWS = ".task-body .task"


@pytest.fixture
def records(web: Records) -> Records:
    web.clear()
    return web


@pytest.fixture
def open_list(page: Page, login: Callable[..., None], records: Records) -> Callable[..., Page]:
    """The list over the records, followed live."""

    def enter(place: str = "#/tasks", user: tuple[str, str] = ADMIN) -> Page:
        login(page, user, place, url=records.url)
        expect(page.get_by_text("Live", exact=True)).to_be_visible()
        return page

    return enter


def row(page: Page, task_id: str) -> Locator:
    return page.locator(f"[data-task='{task_id}']")


def shown(page: Page) -> list[str]:
    """Ids from the top."""
    return list(page.locator(ROWS).evaluate_all("rows => rows.map(row => row.dataset.task)"))


# With a real run


def test_a_task_appears_by_itself_and_is_followed_to_its_end(
    page: Page, login: Callable[..., None], new_task: Callable[..., str], gate: Path, shot: Callable[..., None]
) -> None:
    login(page)
    expect(page.get_by_text("Live", exact=True)).to_be_visible()
    task_id = new_task("gate.yml", gate=str(gate))
    mine = row(page, task_id)
    expect(mine).to_contain_text("Running")
    assert shown(page)[0] == task_id
    for words in ("gate.yml", "admin", "dev"):
        expect(mine).to_contain_text(words)
    took = mine.locator(".cell-duration")
    first = took.inner_text()
    expect(took).not_to_have_text(first)  # it ticks
    # It may have been run before, by another file.
    expect(mine).to_contain_text(re.compile("Play task 2( of about 3)?: Wait at the gate"))
    shot("tasks-running")
    gate.touch()
    expect(mine).to_contain_text("Succeeded")
    expect(mine.get_by_role("img")).to_have_attribute("aria-label", re.compile(r"\d (ok|changed)"))
    expect(mine).to_contain_text("1 host")


# With records


def test_what_failed_is_found_by_its_state_and_by_its_host(
    page: Page, login: Callable[..., None], records: Records
) -> None:
    failed, [fine] = records.running(playbook="fail.yml"), records.add()
    failed.write(b"", result("dev1", "failed"), result("dev2", "failed"))
    failed.end(State.FAILED)
    login(page, ADMIN, "#/tasks?state=failed&playbook=fail.yml&host=dev1", url=records.url)
    expect(row(page, failed.task_id)).to_contain_text("2 failed")
    expect(row(page, fine)).to_have_count(0)
    page.get_by_role("button", name="Clear", exact=True).click()
    expect(row(page, fine)).to_be_visible()
    assert page.url.endswith("#/tasks")


def test_a_list_of_one_host_takes_in_new_tasks_too(open_list: Callable[..., Page], records: Records) -> None:
    page = open_list("#/tasks?host=dev2")
    there, elsewhere = records.running(), records.running()
    there.write(b"", result("dev2"))
    elsewhere.write(b"", result("dev1"))
    expect(row(page, there.task_id)).to_be_visible()
    expect(row(page, elsewhere.task_id)).to_have_count(0)


def test_users_see_their_own_and_an_auditor_sees_all(
    records: Records, new_page: Callable[..., Page], login: Callable[..., None]
) -> None:
    [of_admin], [of_dev] = records.add(), records.add(user="dev")
    restricted, auditing = new_page(), new_page()
    login(restricted, DEV, url=records.url)
    expect(row(restricted, of_dev)).to_be_visible()
    expect(row(restricted, of_admin)).to_have_count(0)
    expect(restricted.get_by_label("User")).to_have_count(0)
    login(auditing, AUDITOR, url=records.url)
    expect(row(auditing, of_dev)).to_be_visible()
    expect(row(auditing, of_admin)).to_be_visible()
    expect(auditing.get_by_role("link", name="Launch")).to_have_count(0)
    # What is new reaches those alone who may see it.
    [next_of_admin], [next_of_dev] = records.add(), records.add(user="dev")
    expect(row(auditing, next_of_admin)).to_be_visible()
    expect(row(restricted, next_of_dev)).to_be_visible()
    assert row(restricted, next_of_admin).count() == 0
    auditing.get_by_label("User").fill("dev")
    expect(row(auditing, of_admin)).to_have_count(0)
    expect(row(auditing, of_dev)).to_be_visible()
    # A link of one who sees all is no fault for one who does not.
    login(restricted, DEV, "#/tasks?user=admin", url=records.url)
    expect(row(restricted, of_dev)).to_be_visible()


def test_before_the_first_task_the_list_says_what_to_do(
    open_list: Callable[..., Page], records: Records, shot: Callable[..., None]
) -> None:
    page = open_list()
    expect(page.get_by_text("No tasks yet.")).to_be_visible()
    expect(page.get_by_role("link", name="Launch the first")).to_have_attribute("href", "#/launch")
    shot("tasks-none")
    [first] = records.add()
    expect(row(page, first)).to_be_visible()
    expect(page.get_by_text("No tasks yet.")).to_have_count(0)


def test_filters_are_in_the_link_and_the_back_button_takes_them_back(
    open_list: Callable[..., Page], records: Records, new_page: Callable[..., Page], login: Callable[..., None]
) -> None:
    records.add(5, word="needle", failed=2)
    records.add(5, word="straw", failed=2)
    page = open_list()
    expect(page.locator(ROWS)).to_have_count(10)
    page.get_by_label("State").select_option("Failed")
    expect(page.locator(ROWS)).to_have_count(4)
    page.get_by_label("Search").press_sequentially("NEEDLE")
    expect(page.locator(ROWS)).to_have_count(2)
    address = f"{records.url}/#/tasks?state=failed&text=NEEDLE"
    assert sorted(re.split("[?&]", page.url)) == sorted(re.split("[?&]", address))
    other = new_page()
    login(other, ADMIN, page.url.partition("/#")[2].join(["#", ""]), url=records.url)
    expect(other.locator(ROWS)).to_have_count(2)
    assert shown(other) == shown(page)
    page.go_back()
    expect(page.locator(ROWS)).to_have_count(4)
    expect(page.get_by_label("Search")).to_have_value("")
    expect(page.get_by_label("State")).to_have_value("failed")
    page.go_back()
    expect(page.locator(ROWS)).to_have_count(10)


@pytest.fixture
def team(records: Records) -> Iterator[Visibility]:
    """dev is in a group that sees tasks on prod: what those have."""
    path = records.folder / "rbac.json"
    before = path.read_text()
    document = json.loads(before)
    document["groups"] = [{"name": "ops", "inventories": ["prod"], "sees": "inventories", "role": "viewer"}]
    document["rbac"][1]["groups"] = ["ops"]
    path.write_text(json.dumps(document))
    yield Visibility(inventories=(str(records.folder / "prod"),), entries=("group:ops",))
    path.write_text(before)


def test_a_colleagues_failed_run_is_found_and_understood_without_admin(
    open_list: Callable[..., Page], records: Records, team: Visibility
) -> None:
    colleagues, others, own = (
        records.running("lee", "lee: on prod", visibility=team),
        records.running("lee", "lee: on dev"),
        records.running("dev", "dev: my own"),
    )
    colleagues.write(b"", result("web1", "failed", msg="no space left"))
    page = open_list(user=DEV)
    expect(row(page, colleagues.task_id)).to_be_visible()
    expect(row(page, own.task_id)).to_be_visible()
    expect(row(page, others.task_id)).to_have_count(0)
    page.get_by_label("Whose").select_option("Mine")
    expect(row(page, colleagues.task_id)).to_have_count(0)
    assert "whose=mine" in page.url
    late = records.running("lee", "lee: later", visibility=team)
    new = records.running("dev", "dev: later")
    expect(row(page, new.task_id)).to_be_visible()
    assert row(page, late.task_id).count() == 0
    page.get_by_label("Whose").select_option("My team's")
    page.get_by_label("User").fill("lee")
    expect(row(page, late.task_id)).to_be_visible()
    expect(row(page, own.task_id)).to_have_count(0)
    row(page, colleagues.task_id).get_by_role("link").first.click()
    expect(page.get_by_text("no space left").first).to_be_visible()
    expect(page.get_by_role("button", name="Cancel")).to_have_count(0)
    colleagues.end(State.FAILED)
    expect(page.get_by_role("button", name="Run again", exact=True)).to_be_visible()


def test_who_sees_all_and_has_a_team_chooses_among_three(
    open_list: Callable[..., Page], records: Records, team: Visibility
) -> None:
    path = records.folder / "rbac.json"
    document = json.loads(path.read_text())
    document["rbac"][1]["sees"] = "all"
    path.write_text(json.dumps(document))
    of_team, of_others, own = (
        records.running("lee", "lee: on prod", visibility=team),
        records.running("lee", "lee: on dev"),
        records.running("dev", "dev: my own"),
    )
    page = open_list(user=DEV)
    expect(page.locator(ROWS)).to_have_count(3)
    assert page.get_by_label("Whose").locator("option").all_inner_texts() == ["All", "My team's", "Mine"]
    page.get_by_label("Whose").select_option("My team's")
    expect(row(page, of_others.task_id)).to_have_count(0)
    assert "whose=team" in page.url and sorted(shown(page)) == sorted([of_team.task_id, own.task_id])
    # Whether a new task is of the team, only the service knows.
    late_of_others = records.running("lee", "lee: later on dev")
    late = records.running("lee", "lee: later on prod", visibility=team)
    expect(row(page, late.task_id)).to_be_visible()
    assert row(page, late_of_others.task_id).count() == 0
    page.get_by_label("Whose").select_option("Mine")
    expect(page.locator(ROWS)).to_have_count(1)
    # admin sees all, and is in no team.
    open_list("#/tasks?whose=team")
    expect(page.locator(ROWS)).to_have_count(5)
    assert page.get_by_label("Whose").locator("option").all_inner_texts() == ["All", "Mine"]


def test_who_sees_none_of_others_is_asked_nothing(open_list: Callable[..., Page], records: Records) -> None:
    records.add()
    page = open_list("#/tasks?whose=mine&user=admin", user=DEV)
    expect(page.get_by_label("Whose")).to_have_count(0)
    expect(page.get_by_text("No tasks yet.")).to_be_visible()


def test_where_nothing_fits_the_filters_can_be_cleared(
    open_list: Callable[..., Page], records: Records, shot: Callable[..., None]
) -> None:
    records.add(3)
    page = open_list("#/tasks?user=nobody&kind=git")
    expect(page.get_by_text("No task matches these filters.")).to_be_visible()
    shot("tasks-no-match")
    page.get_by_role("button", name="Clear the filters").click()
    expect(page.locator(ROWS)).to_have_count(3)
    expect(page.get_by_label("Search")).to_be_focused()


def test_nonsense_in_the_address_is_no_filter(open_list: Callable[..., Page], records: Records) -> None:
    records.add(3)
    page = open_list("#/tasks?state=nonsense&kind=%3Cb%3E&colour=red")
    expect(page.locator(ROWS)).to_have_count(3)


def test_a_task_that_no_longer_fits_leaves_the_list_and_focus_stays_in_it(
    open_list: Callable[..., Page], records: Records
) -> None:
    first, second = records.running(), records.running()
    page = open_list("#/tasks?state=running")
    expect(page.locator(ROWS)).to_have_count(2)
    row(page, second.task_id).get_by_role("link").focus()
    second.end()
    expect(row(page, second.task_id)).to_have_count(0)
    expect(row(page, first.task_id).get_by_role("link")).to_be_focused()


def test_a_row_is_changed_in_place(open_list: Callable[..., Page], records: Records) -> None:
    run = records.running()
    page = open_list()
    link = row(page, run.task_id).get_by_role("link")
    link.focus()
    page.evaluate("window.before = document.activeElement")
    # The list is told of a task's progress once a second at most, and of its start just now.
    expect(row(page, run.task_id).locator(".cell-duration")).to_have_text(re.compile(r"^([2-9]|\d\d) s$|min"))
    run.write(b"", result("one", "failed"), result("two", "unreachable"))
    expect(row(page, run.task_id)).to_contain_text("1 failed · 1 unreachable · 2 hosts")
    run.end(State.FAILED)
    expect(row(page, run.task_id)).to_contain_text("Failed")
    assert page.evaluate("window.before === document.activeElement")


def test_a_success_on_no_host_is_amber_in_the_list_and_on_its_page(
    open_list: Callable[..., Page], records: Records, shot: Callable[..., None]
) -> None:
    [good] = records.add()
    run = records.running()
    run.end(warning="no hosts matched")
    page = open_list()
    empty = row(page, run.task_id)
    expect(empty.locator(".badge")).to_have_class(re.compile("tone-warning"))
    expect(empty.locator(".cell-results .tone-warning")).to_have_text("no hosts matched")
    expect(row(page, good).locator(".badge")).to_have_class(re.compile("tone-success"))
    shot("tasks-no-hosts")
    empty.get_by_role("link").click()
    expect(page.locator(".task-header .badge").first).to_have_class(re.compile("tone-warning"))
    expect(page.locator(".task-description.tone-warning")).to_have_text("it ended: no hosts matched")
    shot("task-no-hosts")


def test_who_reads_further_down_is_not_moved_by_new_tasks(
    open_list: Callable[..., Page], records: Records, shot: Callable[..., None]
) -> None:
    records.add(60)
    page = open_list()
    expect(page.locator(ROWS)).to_have_count(50)
    page.evaluate("window.scrollTo(0, 700)")
    before = shown(page)[0]
    fresh = records.add(3, word="fresh")
    button = page.get_by_role("button", name="3 new tasks")
    expect(button).to_be_visible()
    assert shown(page)[0] == before
    shot("tasks-new")
    button.click()
    expect(row(page, fresh[-1])).to_be_in_viewport()
    assert shown(page)[:3] == fresh[::-1]
    expect(button).to_be_hidden()


def test_older_tasks_come_as_one_scrolls_each_once(open_list: Callable[..., Page], records: Records) -> None:
    there = records.add(180)
    page = open_list()

    def scrolled() -> bool:
        page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
        return page.locator(ROWS).count() == len(there)

    eventually(scrolled)
    assert shown(page) == there[::-1]
    expect(page.get_by_role("button", name="Older tasks")).to_be_hidden()


def test_a_search_that_finds_little_per_page_goes_on_to_the_end(
    open_list: Callable[..., Page], records: Records, page: Page
) -> None:
    """The service looks at a part of very many records at a time; here at ten."""
    there = records.add(40)
    asked: list[str] = []

    def partly(route: Route) -> None:
        asked.append(route.request.url)
        before = re.search(r"before=(\d+)", asked[-1])
        address = re.sub("text=[^&]*|limit=[^&]*", "", asked[-1]) + "&limit=10"
        reply = route.fetch(url=address)
        body = reply.json()
        body["tasks"] = body["tasks"][-1:] if before else []
        route.fulfill(response=reply, json=body)

    page.route(re.compile(r"ansibletasks\?.*text="), partly)
    open_list("#/tasks?text=run")
    expect(page.locator(ROWS)).to_have_count(3)
    assert shown(page) == [there[20], there[10], there[0]]
    assert len(asked) >= 4


def test_after_too_much_was_missed_the_list_is_loaded_again(
    open_list: Callable[..., Page], records: Records, page: Page
) -> None:
    run = records.running()
    later: list[str] = []

    def cut_off(route: Route) -> None:
        """What happens meanwhile, the stream does not tell; the next one begins behind it."""
        if later or "event-stream" not in route.request.headers["accept"]:
            route.continue_()
            return
        run.end()
        later.extend(records.add())
        body = f"id: {records.changes()}\nevent: reset\ndata: {{}}\n\n"
        route.fulfill(body=body, content_type="text/event-stream")

    page.route(re.compile("ansibletasks"), cut_off)
    open_list()
    expect(page.locator(ROWS)).to_have_count(2)
    assert shown(page) == [*later, run.task_id]
    expect(row(page, run.task_id)).to_contain_text("Succeeded")


def test_markup_in_a_task_is_text(open_list: Callable[..., Page], records: Records, shot: Callable[..., None]) -> None:
    evil = "<img src=x onerror=\"document.title='in'\"><script>document.title='in'</script>"
    run = records.running(user="<b>eve</b>", summary=f"<b>eve</b>: {evil}")
    run.write(b"", result(evil, "failed"))
    page = open_list()
    expect(row(page, run.task_id)).to_contain_text(evil)
    expect(row(page, run.task_id).locator(".cell-user")).to_have_text("<b>eve</b>")
    page.get_by_label("Search").fill("<script>")
    expect(page.locator(ROWS)).to_have_count(1)
    assert page.locator(f"{ROWS} :is(b, img, script)").count() == 0
    assert page.title() == "Flansible"
    shot("tasks-markup")


def test_hundreds_of_rows_stay_light(open_list: Callable[..., Page], records: Records) -> None:
    records.add(600)
    page = open_list()

    def scrolled() -> bool:
        page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
        return page.locator(ROWS).count() == 600

    eventually(scrolled, 60)
    run = records.running()
    page.get_by_role("button", name="1 new task").click()
    expect(row(page, run.task_id)).to_be_in_viewport()
    # What is far away is not laid out: a change of one row costs one row.
    cells = "cells => cells.filter(cell => cell.checkVisibility({contentVisibilityAuto: true})).length"
    assert 0 < page.locator(f"{ROWS} .cell-duration").evaluate_all(cells) < 150


@pytest.mark.by_day(1)
@pytest.mark.parametrize("width", [360, 800, 1280])
def test_the_time_of_another_day_is_whole(
    new_page: Callable[..., Page], login: Callable[..., None], records: Records, width: int
) -> None:
    [done] = records.add()
    page = new_page(viewport={"width": width, "height": 800}, locale="en-US")
    page.clock.install(time="2030-12-25T12:00:00Z")
    login(page, ADMIN, url=records.url)
    cell = row(page, done).locator(".cell-started")
    expect(cell).to_have_text(re.compile(r"\w+\s\d+,\s\d{4}, \d\d:\d\d:\d\d\s[AP]M"))
    lost = cell.evaluate("cell => [cell.scrollWidth - cell.clientWidth, cell.scrollHeight - cell.clientHeight]")
    assert lost == [0, 0]
