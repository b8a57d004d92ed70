"""What a browser's page said and asked for during a test: everything nobody expected fails the test."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from playwright.sync_api import BrowserContext, ConsoleMessage, Page, Request, WebError


@dataclass
class Watch:
    """Of all pages of one test."""

    requests: list[str] = field(default_factory=list)
    _said: list[str] = field(default_factory=list)
    _expected: list[str] = field(default_factory=list)

    def follow(self, context: BrowserContext) -> None:
        context.on("console", self._hear)
        context.on("weberror", self._fail)
        context.on("request", self._note)

    def expect(self, pattern: str) -> None:
        """Complaints in which this regular expression finds something are part of the test, all of it."""
        self._expected.append(pattern)

    def complaints(self) -> list[str]:
        """What speaks against the console: errors and warnings, refusals by its policy, requests to elsewhere."""
        return [text for text in self._said if not any(re.search(pattern, text) for pattern in self._expected)]

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self._said.append(f"{message.type}: {message.text} [{message.location['url']}]")

    def _fail(self, error: WebError) -> None:
        self._said.append(f"uncaught: {error.error.message}")

    def _note(self, request: Request) -> None:
        self.requests.append(f"{request.method} {request.url}")
        address = urlsplit(request.url)
        if address.scheme in ("data", "blob"):
            return
        page = _page_of(request)
        # A navigation begins on a page that is still elsewhere, or nowhere; only the test itself makes those.
        if page is None or request.is_navigation_request() and page.url == "about:blank":
            return
        origin = f"{address.scheme}://{address.netloc}"
        here = urlsplit(page.url)
        if origin != f"{here.scheme}://{here.netloc}":
            self._said.append(f"left the origin: {request.method} {request.url}")


def _page_of(request: Request) -> Page | None:
    return None if request.service_worker else request.frame.page
