"""What holds for every view: all can read it, at any width, in light and dark, and it asks nobody else for anything."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, Response, expect

from tests.helpers.browser_watch import Watch
from tests.helpers.services import ADMIN, Service
from tests.helpers.waiting import eventually

FIRST_LOAD_BYTES = 100_000
WIDTHS = (360, 1920)
VIEWS = (
    "login",
    "tasks",
    "search",
    "task",
    "hosts",
    "host",
    "compare",
    "launch",
    "templates",
    "overview",
    "definitions",
    "deliveries",
    "hookcalls",
    "account",
)
# What is there once a view has all it asked for.
READY = {
    "login": "form",
    "tasks": ".connection.is-live",
    "search": "form",
    "task": "h1",
    "hosts": ".hosts tbody tr",
    "host": ".runs tbody tr",
    "compare": ".sides tbody tr",
    "launch": "form",
    "templates": ".view-templates .panel",
    "overview": ".chart svg, .ranking",
    "definitions": ".about",
    "deliveries": ".panel",
    "hookcalls": ".panel",
    "account": ".users table",
}


@pytest.fixture(scope="module")
def failed_task(service: Service) -> str:
    playbook = {"playbook_dir": str(service.root / "playbooks"), "playbook": "fail.yml"}
    task_id = service.submit("ansibleplaybook", {**playbook, "inventory": str(service.root / "inventories/dev")})
    service.wait(task_id)
    return task_id


@pytest.fixture(scope="module")
def addresses(service: Service, failed_task: str) -> dict[str, str]:
    """Addresses of views that show something in particular."""
    other = service.submit("ansiblecommand", {"module": "ping", "inventory": str(service.root / "inventories/dev")})
    service.wait(other)

    def host() -> str:
        found = service.client().get("/api/hosts").json()["hosts"]
        return f"#/hosts/{found[0]['name']}" if found else ""

    return {
        "task": f"#/tasks/{failed_task}",
        "host": eventually(host, 60),
        "compare": f"#/compare?task={failed_task}&with={other}",
    }


@pytest.fixture
def open_view(
    service: Service, login: Callable[..., None], watch: Watch, addresses: dict[str, str]
) -> Callable[..., None]:
    """Shows one of the views, once it is complete."""

    def enter(page: Page, view: str) -> None:
        if view == "login":
            page.goto(f"{service.url}/")
        else:
            login(page, ADMIN, addresses.get(view, f"#/{view}"))
        await_view(page, view)

    return enter


def await_view(page: Page, view: str) -> None:
    expect(page.locator(READY[view]).first).to_be_visible()
    if view != "task":  # which shows what has failed
        expect(page.locator(".error-box")).to_have_count(0)


@pytest.mark.by_day(6)
@pytest.mark.parametrize("view", VIEWS)
def test_a_view_is_accessible_in_light_and_dark(
    new_page: Callable[..., Page],
    open_view: Callable[..., None],
    check_accessibility: Callable[[Page], None],
    shot: Callable[..., None],
    view: str,
) -> None:
    page = new_page(color_scheme="light")
    open_view(page, view)
    for scheme in ("light", "dark"):
        if scheme == "dark":
            page.emulate_media(color_scheme="dark")
            reload(page, view)
        shot(f"{view}-{scheme}", page)
        check_accessibility(page)


@pytest.mark.by_day(4)
@pytest.mark.parametrize("view", VIEWS)
def test_a_page_has_no_horizontal_scrolling(
    new_page: Callable[..., Page], open_view: Callable[..., None], shot: Callable[..., None], view: str
) -> None:
    page = new_page(viewport={"width": WIDTHS[0], "height": 800})
    open_view(page, view)
    for width in WIDTHS:
        if width != WIDTHS[0]:
            page.set_viewport_size({"width": width, "height": 800})
            reload(page, view)
        shot(f"{view}-{width}", page)
        assert_nothing_is_beyond_the_edge(page)


def reload(page: Page, view: str) -> None:
    """As if it had been opened like this."""
    page.reload()
    await_view(page, view)


def assert_nothing_is_beyond_the_edge(page: Page) -> None:
    wide, inner = page.evaluate("[document.scrollingElement.scrollWidth, innerWidth]")
    assert wide <= inner
    # What is cut off at the edge is as lost as what one has to scroll to.
    beyond = page.evaluate(
        """() => [...document.querySelectorAll("main :is(a, button, input, select), nav [aria-current]")]
          .filter((one) => one.checkVisibility() && !one.closest(".scroll"))
          .map((one) => [one.getBoundingClientRect(), one.outerHTML.slice(0, 200)])
          .filter(([box]) => box.width > 0 && (box.right > innerWidth + 1 || box.left < -1))
          .map(([, text]) => text)"""
    )
    assert beyond == []


def test_the_first_load_is_small_and_comes_from_here(
    page: Page, service: Service, watch: Watch, failed_task: str
) -> None:
    replies: list[Response] = []
    page.on("response", lambda reply: replies.append(reply))
    page.goto(f"{service.url}/")
    page.get_by_label("User").fill(ADMIN[0])
    page.get_by_label("Password").fill(ADMIN[1])
    page.get_by_role("button", name="Log in").click()
    expect(page.locator(f"[data-task='{failed_task}']")).to_be_visible()
    expect(page.locator(READY["tasks"])).to_be_visible()
    files = [reply for reply in replies if not urlsplit(reply.url).path.startswith("/api/")]
    kinds = {reply.request.resource_type for reply in files}
    assert {"document", "script", "stylesheet"} <= kinds
    sizes = [reply.request.sizes() for reply in files]
    carried = sum(size["responseBodySize"] + size["responseHeadersSize"] for size in sizes)
    print(f"first load: {carried} bytes in {len(files)} files")
    assert carried < FIRST_LOAD_BYTES
    assert {urlsplit(request.split()[1]).netloc for request in watch.requests} == {urlsplit(service.url).netloc}


def test_one_gets_through_by_keyboard_alone(page: Page, service: Service, watch: Watch, failed_task: str) -> None:
    page.goto(f"{service.url}/")
    expect(page.get_by_label("User")).to_be_focused()
    for key in (*ADMIN[0], "Tab"):
        page.keyboard.press(key)
    page.keyboard.type(ADMIN[1])
    page.keyboard.press("Enter")
    expect(page.locator(f"[data-task='{failed_task}']")).to_be_visible()
    expect(page.get_by_text("Live", exact=True)).to_be_visible()
    page.reload()  # the walk begins at the top
    expect(page.locator(f"[data-task='{failed_task}']")).to_be_visible()
    seen = walk(page, until=lambda found: found["href"] == f"#/tasks/{failed_task}")
    names = [found["name"] for found in seen]
    assert names[0] == "Skip to the content"
    for name in ("Tasks", "Launch", "Overview", "Log out", "Search", "State", "Playbook", "Host"):
        assert name in names, names
    assert all(found["name"] for found in seen), seen
    assert all(found["is_marked"] for found in seen), [found for found in seen if not found["is_marked"]]
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/#/tasks/{failed_task}")


FOCUSED = """() => {
  const one = document.activeElement;
  const row = one.closest(".task") ?? one;
  return {
    name: one.getAttribute("aria-label") ?? one.labels?.[0]?.textContent ?? one.textContent.trim(),
    href: one.getAttribute("href"),
    is_marked: [one, row].some((each) => getComputedStyle(each).outlineStyle !== "none"),
  };
}"""


def walk(page: Page, until: Callable[[dict[str, Any]], bool], most: int = 60) -> list[dict[str, Any]]:
    """What has the focus, one press of the tab key after the other."""
    seen: list[dict[str, Any]] = []
    while not seen or not until(seen[-1]):
        assert len(seen) < most, seen
        page.keyboard.press("Tab")
        seen.append(page.evaluate(FOCUSED))
    return seen


def test_colours_can_be_chosen_and_stay(page: Page, login: Callable[..., None], new_page: Callable[..., Page]) -> None:
    login(page)
    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.get_by_role("button", name="Colours: system").click()
    page.get_by_role("button", name="Colours: light").click()
    expect(page.get_by_role("button", name="Colours: dark")).to_be_focused()
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert dark != before
    page.reload()
    expect(page.get_by_role("button", name="Colours: dark")).to_be_visible()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == dark
