"""No control character of a task's output reaches the terminal of who reads it, however it arrives."""

from __future__ import annotations

import http.server
import os
import pty
import random
import re
import subprocess
import sys
import threading

import pytest

from flansible.client.terminal_filter import filtered

COLOUR = re.compile(rb"\x1b\[[0-9;]*m")


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (b"ok: [web1]\r\n\tx", b"ok: [web1]\r\n\tx"),
        (b"\x1b[0;32mok\x1b[0m\n", b"\x1b[0;32mok\x1b[0m\n"),
        (b"\x1b]52;c;aWQ=\x07", b"^[]52;c;aWQ=^G"),
        (b"\x1b[2J\x1bc\x7f\x08", b"^[[2J^[c^?^H"),
        ("ü\u009d52;c;x".encode(), "ü^[]52;c;x".encode()),
        (b"failed\rok\r", b"failed^Mok^M"),
        (b"end \x1b", b"end ^["),
        (b"end \x1b[1", b"end ^[[1"),
    ],
)
def test_controls_are_shown_and_colours_stay(given: bytes, shown: bytes) -> None:
    assert b"".join(filtered([given])) == shown
    assert b"".join(filtered([given[at : at + 1] for at in range(len(given))])) == shown


def test_no_control_passes_in_any_mixture_or_division() -> None:
    chance = random.Random(52)
    parts = [
        b"\x1b",
        b"[",
        b"]52;",
        b"1;31",
        b"m",
        b"\x07",
        b"\xc2",
        b"\x9d",
        b"\x90",
        b"a",
        b"\n",
        b"\r",
        b"\0",
        b"\xc3\xbc",
    ]
    for _ in range(3000):
        text = b"".join(chance.choices(parts, k=12))
        cuts = sorted(chance.randrange(len(text)) for _ in range(3))
        pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        shown = b"".join(filtered(pieces))
        assert shown == b"".join(filtered([text]))
        assert not re.search(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)|\xc2[\x80-\x9f]", COLOUR.sub(b"", shown))


class Replies(http.server.BaseHTTPRequestHandler):
    """Gives every request the output of one task."""

    text = b"hi \x1b]52;c;aWQ=\x07\n"

    def do_GET(self) -> None:
        self.send_response(200)
        headers = {"Flansible-Next-Offset": "1", "Flansible-Final": "true", "Content-Length": str(len(self.text))}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(self.text)

    def log_message(self, format: str, *_arguments: object) -> None:
        pass


def test_a_terminal_gets_no_control_and_a_pipe_gets_what_was_printed() -> None:
    master, terminal = pty.openpty()
    with http.server.HTTPServer(("127.0.0.1", 0), Replies) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_port}"
            environ = {**os.environ, "FLANSIBLE_URL": url, "FLANSIBLE_USER": "x", "FLANSIBLE_PASSWORD": "y"}
            command = [sys.executable, "-m", "flansible", "output", "00000000-0000-4000-8000-000000000000"]
            subprocess.run(command, env=environ, stdout=terminal, check=True, timeout=60)
            assert os.read(master, 1000) == b"hi ^[]52;c;aWQ=^G\r\n"
            piped = subprocess.run(command, env=environ, stdout=subprocess.PIPE, check=True, timeout=60)
            assert piped.stdout == Replies.text
        finally:
            server.shutdown()
            thread.join()
            os.close(master)
            os.close(terminal)
