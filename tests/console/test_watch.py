"""The watch over the pages barks: one that never does would pass for a good one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.helpers.browser_watch import Watch
from tests.helpers.console_records import Records


def complaints(watch: Watch, *words: str) -> list[str]:
    """Those so far; the test is over for those with one of the words."""
    found = watch.complaints()
    for word in words:
        watch.expect(word)
    return found


def test_a_refusal_by_the_policy_is_heard(page: Page, web: Records, watch: Watch) -> None:
    page.goto(f"{web.url}/api/docs")
    expect(page.locator(".opblock").first).to_be_visible()
    assert watch.complaints() == []
    script = "let s = document.createElement('script'); s.textContent = 'window.ran = 1'; document.body.append(s)"
    with page.expect_console_message():
        page.evaluate(f"{{{script}}}")
    assert page.evaluate("window.ran") is None
    [said] = complaints(watch, "Content Security Policy")
    assert "Content Security Policy" in said


def test_a_failing_script_is_heard(page: Page, watch: Watch) -> None:
    with page.expect_event("pageerror"):
        page.evaluate("void setTimeout(() => { throw new Error('this one') })")
    assert complaints(watch, "this one") == ["uncaught: this one"]


def test_a_request_to_elsewhere_is_heard(page: Page, web: Records, watch: Watch) -> None:
    page.goto(f"{web.url}/api/docs")
    expect(page.locator(".opblock").first).to_be_visible()
    port = web.url.rpartition(":")[2]
    page.evaluate(f"fetch('http://localhost:{port}/api/health', {{mode: 'no-cors'}}).catch(() => null)")
    assert [one for one in complaints(watch, "localhost") if "left the origin" in one or "Security Policy" in one]


def test_accessibility_is_looked_at(page: Page, check_accessibility: Callable[[Page], None]) -> None:
    page.set_content("<html lang=en><title>x</title><main><h1>x</h1><p>fine</p></main></html>")
    check_accessibility(page)
    page.set_content("<html lang=en><title>x</title><main><h1>x</h1><input></main></html>")
    with pytest.raises(AssertionError, match="critical: label"):
        check_accessibility(page)
