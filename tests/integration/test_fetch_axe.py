"""axe-core comes from a registry, and only if it is what was pinned."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts/fetch_axe.py"


class Forger(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"not what was pinned")

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def registry() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Forger)
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    serving.join()
    server.server_close()


def fetch(target: Path, registry: str, **environ: str) -> subprocess.CompletedProcess[str]:
    plain = {key: value for key, value in os.environ.items() if key != "CI"}
    command = [sys.executable, str(SCRIPT), str(target)]
    given = {**plain, "NPM_CONFIG_REGISTRY": registry, **environ}
    return subprocess.run(command, env=given, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)


def test_what_is_not_as_pinned_is_refused(tmp_path: Path, registry: str) -> None:
    ended = fetch(tmp_path / "axe.min.js", registry)
    assert ended.returncode == 1
    assert "is not what was pinned" in ended.stderr
    assert list(tmp_path.iterdir()) == []


def test_without_a_registry_a_laptop_goes_without_and_ci_fails(tmp_path: Path) -> None:
    nowhere = "http://127.0.0.1:9"
    for environ, code in (({}, 0), ({"CI": "true"}, 1)):
        ended = fetch(tmp_path / "axe.min.js", nowhere, **environ)
        assert (ended.returncode, "cannot be had" in ended.stderr) == (code, True)
    assert list(tmp_path.iterdir()) == []
