"""A real Chromium, driven over its pipe: opens a page, asks what is in it, and hears what its policy has forbidden."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
from pathlib import Path
from typing import Any

from tests.helpers.waiting import eventually, require_browser


class Browser:
    """One tab. `complaints` are what the browser said of the page: refusals by its policy and failed scripts."""

    def __init__(self, folder: Path) -> None:
        to_browser, self._requests = os.pipe()
        self._replies, from_browser = os.pipe()
        self._numbers = itertools.count(1)
        self._buffer = b""
        self.complaints: list[str] = []
        # Chromium reads its file descriptor 3 and writes to 4; bash is what puts ours there, whatever their numbers.
        program = require_browser()
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
        options += [f"--user-data-dir={folder}", "--remote-debugging-pipe", "--disable-background-networking"]
        line = f'exec "$0" "$@" 3<&{to_browser} 4>&{from_browser}'
        self._process = subprocess.Popen(
            ["bash", "-c", line, program, *options, "about:blank"],
            pass_fds=(to_browser, from_browser),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        page = next(target for target in self._ask("Target.getTargets")["targetInfos"] if target["type"] == "page")
        self._session = self._ask("Target.attachToTarget", targetId=page["targetId"], flatten=True)["sessionId"]
        for domain in ("Log", "Runtime", "Page"):
            self._tell(f"{domain}.enable")

    def open(self, url: str) -> None:
        self.complaints.clear()
        self._tell("Page.navigate", url=url)
        eventually(
            lambda: self.value("document.readyState") == "complete" and self.value("location.href") != "about:blank"
        )

    def value(self, expression: str) -> Any:
        """What the expression gives in the page."""
        found = self._tell("Runtime.evaluate", expression=expression, returnByValue=True)
        return found["result"].get("value")

    def close(self) -> None:
        self._ask("Browser.close")
        self._process.wait(20)
        os.close(self._requests)
        os.close(self._replies)

    def _tell(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self._ask(method, self._session, **parameters)

    def _ask(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        os.write(self._requests, json.dumps(message).encode() + b"\0")
        while True:
            reply = self._next()
            if reply.get("id") == number:
                assert "result" in reply, reply
                found: dict[str, Any] = reply["result"]
                return found
            self._hear(reply)

    def _hear(self, message: dict[str, Any]) -> None:
        if message.get("method") == "Log.entryAdded":
            entry = message["params"]["entry"]
            self.complaints.append(f"{entry['source']}: {entry['text']}")
        elif message.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(str(message["params"]["exceptionDetails"].get("text")))

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            more = os.read(self._replies, 1 << 20)
            assert more, "the browser has ended"
            self._buffer += more
        line, _, self._buffer = self._buffer.partition(b"\0")
        found: dict[str, Any] = json.loads(line)
        return found
