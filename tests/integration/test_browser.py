"""The pages in a real browser under their policies: they work, and injected scripts do not run."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from flansible.store import Store
from tests.helpers.raw_browser import Browser
from tests.helpers.waiting import eventually
from tests.helpers.webserver import RecordedRun, WebServer

LOGIN = "admin:admin%20secret@"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with tempfile.TemporaryDirectory(prefix="fl-browser-", ignore_cleanup_errors=True) as folder:
        running = Browser(Path(folder))
        yield running
        running.close()


def forbidden(browser: Browser) -> list[str]:
    """Returns what the page's policy refused, and scripts that failed."""
    return [text for text in browser.complaints if "Content Security Policy" in text or "Uncaught" in text]


def count(browser: Browser, selector: str) -> int:
    return int(browser.value(f"document.querySelectorAll({selector!r}).length"))


def test_the_page_of_the_current_documentation_works_and_its_policy_keeps_others_scripts_out(
    server: WebServer, browser: Browser
) -> None:
    browser.open(f"{server.url}/api/docs")
    eventually(lambda: count(browser, ".opblock") >= 10)
    browser.value("document.querySelector('#operations-health-health button').click()")
    eventually(lambda: count(browser, ".opblock.is-open .responses-wrapper") == 1)
    assert forbidden(browser) == []
    browser.value(
        "{let s = document.createElement('script'); s.textContent = 'window.ran = 1'; document.body.append(s)}"
    )
    assert browser.value("window.ran") is None
    assert forbidden(browser) != [], "or the tests of this file would prove nothing"


def test_the_page_of_the_old_documentation_works_and_its_links_do(server: WebServer, browser: Browser) -> None:
    browser.open(f"{server.url}/api/spec.html")
    eventually(lambda: count(browser, "li.operation") >= 10)
    shown = "[...document.querySelectorAll('.operation .content')].filter(one => one.offsetHeight > 0).length"
    assert browser.value(shown) == 0
    browser.value("document.querySelector('[data-docs=expandOperationsForResource]').click()")
    eventually(lambda: browser.value(shown) >= 10)
    browser.value("document.querySelector('[data-docs=collapseOperationsForResource]').click()")
    eventually(lambda: browser.value(shown) == 0)
    assert forbidden(browser) == []


def test_output_is_shown_in_colours_and_runs_nothing(server: WebServer, browser: Browser, store: Store) -> None:
    run = RecordedRun(store)
    run.write(b"<script>document.title = 'broken into'</script><img src=x onerror=\"document.title='in'\">\n")
    run.end()
    browser.open(f"http://{LOGIN}127.0.0.1:{server.port}{run.output_path}?format=html")
    assert "<script>" in browser.value("document.querySelector('pre').textContent")
    assert browser.value("getComputedStyle(document.body).backgroundColor") == "rgb(0, 0, 0)"
    assert browser.value("document.title") == f"Output of {run.task_id}"
    assert forbidden(browser) == []
