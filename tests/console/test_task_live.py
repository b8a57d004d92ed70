"""The page of a task, over runs that the tests write: how far it is, and its end, without being loaded again.

Where a test pauses the page's clock, no poll can help it: only what the service
sends brings the page forward.
"""

from __future__ import annotations

import itertools
import json
import re
import uuid
from collections.abc import Callable, Iterable

import pytest
from playwright.sync_api import Locator, Page, Request, Route, expect

from flansible.models import State
from tests.helpers.browser_watch import Watch
from tests.helpers.console_records import Records
from tests.helpers.services import ADMIN, DEV
from tests.helpers.waiting import eventually
from tests.helpers.webserver import RecordedRun, result, task_start

NOON, LATER = "2026-01-31T12:00:00Z", "2026-01-31T13:00:00Z"


@pytest.fixture
def paused(page: Page) -> Page:
    """A page whose clock stands still."""
    page.clock.install(time=NOON)
    page.clock.pause_at(LATER)
    return page


@pytest.fixture
def open_run(login: Callable[..., None], web: Records) -> Callable[[Page, RecordedRun], None]:
    def enter(page: Page, run: RecordedRun) -> None:
        login(page, ADMIN, f"#/tasks/{run.task_id}", url=web.url)
        expect(page.locator(".task-state")).to_contain_text("Running")

    return enter


def is_event_stream(request: Request) -> bool:
    return "ansibletaskevents" in request.url and "event-stream" in request.headers.get("accept", "")


def test_the_end_of_a_run_is_shown_when_its_events_end(
    paused: Page, open_run: Callable[..., None], run: RecordedRun
) -> None:
    open_run(paused, run)
    run.end()
    expect(paused.locator(".task-state")).to_contain_text("Succeeded")


def test_the_end_of_a_run_is_shown_when_its_output_ends(
    paused: Page, open_run: Callable[..., None], run: RecordedRun
) -> None:
    paused.route("**/ansibletaskevents/*", lambda route: None)  # no reply comes
    open_run(paused, run)
    run.end()
    expect(paused.locator(".task-state")).to_contain_text("Succeeded")


def test_the_output_goes_on_and_ends_where_no_more_followers_are_taken(
    paused: Page, open_run: Callable[..., None], run: RecordedRun, watch: Watch
) -> None:
    watch.expect("429")
    refused: list[Route] = []

    def refuse(route: Route) -> None:
        refused.append(route)
        body = json.dumps({"message": "Too many.", "code": "follower_limit", "errors": []})
        route.fulfill(status=429, headers={"Retry-After": "5", "Content-Type": "application/json"}, body=body)

    paused.route(re.compile("ansibletaskoutput.*follow=true"), refuse)
    run.write(b"line one\n")
    open_run(paused, run)
    lines = paused.locator(".line")
    expect(lines).to_have_count(1)
    seconds = itertools.count(1)

    def goes_on_to(count: int) -> bool:
        next(seconds)
        paused.clock.run_for(1000)
        return lines.count() == count

    run.write(b"line two\n")
    eventually(lambda: goes_on_to(2), 10)
    run.write(b"line three\n")
    run.end()
    eventually(lambda: goes_on_to(3), 10)
    assert len(refused) <= 1 + next(seconds) / 5


def test_events_that_come_while_the_status_may_not_be_read_yet_are_not_forgotten(
    paused: Page, open_run: Callable[..., None], run: RecordedRun
) -> None:
    run.write(b"", result("one"))
    with paused.expect_request(is_event_stream):  # those stored before have arrived then
        open_run(paused, run)
    with paused.expect_request(re.compile(f"ansibletaskstatus/{run.task_id}")):
        paused.clock.run_for(1000)


def await_filled(bar: Locator, share: float) -> None:
    """Waits until this much of a bar is filled, from 0 to 1. While it is drawn anew it has no width at all."""
    widths = """bar => [...bar.querySelectorAll("rect")].reduce((all, it) => all + it.getBoundingClientRect().width, 0)
      / bar.querySelector("svg").getBoundingClientRect().width"""
    eventually(lambda: bar.evaluate(widths) == pytest.approx(share, abs=0.01), 10)


def test_a_run_says_how_far_it_is_and_which_hosts_it_waits_for(
    page: Page, login: Callable[..., None], open_run: Callable[..., None], web: Records
) -> None:
    playbook = f"{uuid.uuid4().hex}.yml"  # none that another test has ended
    first = web.running(playbook=playbook)
    first.write(b"", task_start("Install"))
    first.write(b"", result("web1", task="Install"), result("web2", "failed", task="Install"))
    first.write(b"", *(result(host, task="Install") for host in ("web3", "web4")))
    first.write(b"", task_start("Start"), result("web3", task="Start"))
    open_run(page, first)
    head = page.locator(".task-header")
    expect(head).to_contain_text("Play task 2: Start")  # of how many, nobody knows yet
    expect(head).to_contain_text("Waiting for 2 hosts: web1, web4")
    expect(head.get_by_role("img")).to_have_count(0)
    first.write(b"", task_start("Test"), task_start("Clean"))
    first.end()
    expect(head.get_by_role("img")).to_be_visible()
    await_filled(head.get_by_role("img"), 1)
    second = web.running(playbook=playbook)
    second.write(b"", task_start("Install"), result("web1", task="Install"), task_start("Start"))
    open_run(page, second)
    expect(head).to_contain_text("Play task 2 of about 4: Start")
    await_filled(head.get_by_role("img"), 1.5 / 4)
    login(page, url=web.url)
    row = page.locator(f"[data-task='{second.task_id}']")
    expect(row).to_contain_text("Play task 2 of about 4: Start")
    await_filled(row.get_by_role("img"), 1.5 / 4)


def test_the_timeline_shows_where_a_run_was_cut_off_and_what_failed(
    page: Page, login: Callable[..., None], web: Records, run: RecordedRun
) -> None:
    run.write(b"", task_start("Quick"), result("one", "failed", task="Quick"), result("two", task="Quick"))
    run.write(b"", task_start("Included"), task_start("Hanging", "2026-01-31T12:00:01.000Z"))
    run.end(State.CANCELED)
    login(page, ADMIN, f"#/tasks/{run.task_id}?tab=timeline", url=web.url)
    rows = page.get_by_role("tabpanel").locator("tbody tr")
    expect(rows).to_have_count(3)
    expect(rows.filter(has_text="Quick")).to_contain_text("1 failed")
    expect(rows.filter(has_text="Hanging")).to_contain_text("◆ slowest")
    expect(rows.filter(has_text="Hanging")).to_contain_text("Canceled")
    expect(rows.filter(has_text="Hanging").locator("td.number").last).to_have_text(re.compile(r"\d h"))
    expect(rows.filter(has_text="Included").locator("td.number").last).to_have_text("1.0 s")
    expect(rows.filter(has_text="slowest")).to_have_count(1)


PHONE, DESKTOP = {"width": 360, "height": 800}, {"width": 1280, "height": 800}
Matrix = tuple[Page, Locator, Locator]


def write_matrix(run: RecordedRun, play_tasks: Iterable[int] = range(20), **failures: int) -> None:
    """Results of nine hosts; `host7=15`: in that play task it fails."""
    for task in play_tasks:
        hosts = sorted({*(f"host{n}" for n in range(9)), *failures})
        verdicts = (result(host, "failed" if failures.get(host) == task else "ok", f"Step {task}") for host in hosts)
        run.write(b"", task_start(f"Step {task}"), *verdicts)


@pytest.fixture
def open_matrix(
    new_page: Callable[..., Page], login: Callable[..., None], web: Records
) -> Callable[[RecordedRun, dict[str, int]], Matrix]:
    """The page of a run, its matrix in the middle of the page, and the cell of host7's failure in play task 15."""

    def enter(run: RecordedRun, viewport: dict[str, int]) -> Matrix:
        page = new_page(viewport=viewport)
        login(page, ADMIN, f"#/tasks/{run.task_id}?tab=hosts", url=web.url)
        cell = page.get_by_role("gridcell", name="host7, Step 15: failed")
        expect(cell).to_be_attached()
        return page, page.get_by_role("grid"), cell

    return enter


def expect_in_view(grid: Locator, cell: Locator) -> None:
    grid.evaluate("grid => grid.scrollIntoView({block: 'center'})")  # how far up the page it is, is not the point
    expect(cell).to_be_in_viewport(ratio=1)


def drawn(page: Page) -> None:
    """Waits until the page has drawn all that it was going to."""
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def test_a_phone_shows_the_first_failure_of_a_matrix(open_matrix: Callable[..., Matrix], run: RecordedRun) -> None:
    write_matrix(run, host7=15)
    run.end(State.FAILED)
    page, grid, cell = open_matrix(run, PHONE)
    expect_in_view(grid, cell)
    page.get_by_role("link", name="Result", exact=True).click()
    expect(page.get_by_role("region", name="Result", exact=True)).to_contain_text("host7")


def test_the_first_failure_stays_in_view_however_late_the_page_has_its_form(
    open_matrix: Callable[..., Matrix], run: RecordedRun
) -> None:
    write_matrix(run, host7=15)
    run.end(State.FAILED)
    page, grid, cell = open_matrix(run, DESKTOP)  # on which nothing has to be scrolled
    expect_in_view(grid, cell)
    page.set_viewport_size(PHONE)
    expect_in_view(grid, cell)
    page.get_by_role("tab", name="Timeline").click()
    expect(grid).to_be_hidden()
    page.get_by_role("tab", name="Hosts").click()
    expect_in_view(grid, cell)


def test_the_first_failure_stays_in_view_when_others_come_above_it(
    open_matrix: Callable[..., Matrix], run: RecordedRun
) -> None:
    write_matrix(run, range(16), host7=15)
    page, grid, cell = open_matrix(run, PHONE)
    expect_in_view(grid, cell)
    write_matrix(run, [16], **dict.fromkeys((f"a{number:02}" for number in range(60)), 16))
    expect(page.get_by_text("69 hosts × 17 play tasks")).to_be_visible()
    expect_in_view(grid, cell)


def test_a_user_who_has_scrolled_the_matrix_keeps_the_place(
    open_matrix: Callable[..., Matrix], run: RecordedRun
) -> None:
    write_matrix(run, range(16), host7=15)
    page, grid, cell = open_matrix(run, PHONE)
    expect_in_view(grid, cell)
    grid.hover()
    page.mouse.wheel(-1000, 0)
    eventually(lambda: grid.evaluate("grid => grid.scrollLeft") == 0)
    write_matrix(run, [16])
    expect(page.get_by_text("9 hosts × 17 play tasks")).to_be_visible()
    page.set_viewport_size({**PHONE, "width": 340})
    drawn(page)
    expect(cell).not_to_be_in_viewport()
    assert grid.evaluate("grid => grid.scrollLeft") == 0


@pytest.mark.parametrize("goes_elsewhere", [False, True])
def test_a_link_to_a_cell_leads_to_it_although_what_is_above_comes_later(
    new_page: Callable[..., Page], login: Callable[..., None], web: Records, run: RecordedRun, goes_elsewhere: bool
) -> None:
    run.write(b"", task_start("Step"), *(result(f"host{n}", "failed", "Step", msg="no " * 50) for n in range(9)))
    run.end(State.FAILED)
    page = new_page(viewport=PHONE)
    held: list[Route] = []
    # What has failed, for the top of the page.
    page.route("**/ansibletaskevents/*verdict=*", lambda route: held.append(route))
    login(page, ADMIN, f"#/tasks/{run.task_id}?tab=hosts&host=host3&seq=5", url=web.url)
    panel = page.get_by_role("region", name="Result", exact=True)
    expect(panel).to_contain_text("host3")
    expect(panel).to_be_in_viewport()
    eventually(lambda: page.title() and held)  # which lets playwright see requests
    if goes_elsewhere:
        page.mouse.wheel(0, -10_000)
        eventually(lambda: page.evaluate("scrollY") == 0)
    held[0].continue_()
    expect(page.get_by_role("heading", name="Failed on 9 hosts")).to_be_visible()
    expect(page.get_by_role("button", name="Show 5 more")).to_be_attached()
    drawn(page)
    if goes_elsewhere:
        assert page.evaluate("scrollY") == 0
    else:
        expect(panel).to_be_in_viewport()


def test_many_processes_that_were_ended_are_counted(
    page: Page, login: Callable[..., None], web: Records, run: RecordedRun
) -> None:
    run.end(State.CANCELED, ended=tuple(f"sleep ({pid})" for pid in range(100, 116)))
    login(page, ADMIN, f"#/tasks/{run.task_id}", url=web.url)
    facts = page.locator(".task-facts")
    expect(facts.get_by_text("16 processes")).to_be_visible()
    expect(facts.get_by_text("sleep (115)")).to_be_hidden()
    facts.get_by_text("16 processes").click()
    expect(facts.get_by_text("sleep (115)")).to_be_visible()


def test_who_holds_a_lock_is_a_link_for_those_who_may_see_it(
    new_page: Callable[..., Page], login: Callable[..., None], web: Records
) -> None:
    holder = web.running(locks=("database",))
    waiting = web.running("dev", locks=("database",))
    of_admin, of_dev = new_page(), new_page()
    login(of_admin, ADMIN, f"#/tasks/{waiting.task_id}", url=web.url)
    head = of_admin.locator(".task-header")
    expect(head.get_by_role("link", name=f"task {holder.task_id[:8]}")).to_be_visible()
    expect(head).not_to_contain_text("waiting for a worker")
    login(of_dev, DEV, f"#/tasks/{waiting.task_id}", url=web.url)
    head = of_dev.locator(".task-header")
    expect(head).to_contain_text("its lock is held by a task of another user")
    expect(head.get_by_role("link")).to_have_count(0)
