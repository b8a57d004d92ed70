"""The output of a task: whole or from an offset, as plain text, with colours, or as a page; followed until it ends.

Offsets count bytes of the plain text in every format. Headers say where a whole reply ends and whether that is the
task's end: what a client needs to ask for the rest and nothing twice.
"""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any, Literal

from ansi2html import Ansi2HTMLConverter
from flask import Response, request
from pydantic import BaseModel, ConfigDict, Field

from flansible.errors import Unavailable
from flansible.models import FINAL_STATES
from flansible.store import ColourMark, Store
from flansible.web.auth import PrivateResource
from flansible.web.bodies import query
from flansible.web.services import services
from flansible.web.tasks import own_task

NEXT_OFFSET = "Flansible-Next-Offset"
FINAL = "Flansible-Final"
_CHUNK_BYTES = 256 * 1024
_IDLE_SECONDS = (0.005, 0.01, 0.02, 0.05)  # between looks for more while following: soon at first, then more calmly
_PAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


class _Followers:
    """How many replies of this process are being followed; each holds a thread for as long."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0

    def take(self, limit: int) -> bool:
        with self._lock:
            if self._count >= limit:
                return False
            self._count += 1
            return True

    def give_back(self) -> None:
        with self._lock:
            self._count -= 1


_followers = _Followers()


def _take_place(threads: int) -> None:
    """A quarter of the threads stays free for everyone else. Raises Unavailable."""
    if not _followers.take(max(1, threads * 3 // 4)):
        message = "Too many outputs are being followed; poll with offset instead, or try again."
        raise Unavailable(message, code="too_many_followers", retry_after_seconds=5)


class OutputQuery(BaseModel):
    """`?format=&offset=&follow=` of the output."""

    model_config = ConfigDict(extra="forbid")

    format: Literal["txt", "ansi", "html"] = Field(
        "txt", description="`txt`: plain; `ansi`: with Ansible's colours as escape codes; `html`: a standalone page."
    )
    offset: int = Field(0, ge=0, description="Begin at this byte of the plain text.")
    follow: bool = Field(False, description="Stay until the task is final and send what comes (not for html).")


class AnsibleTaskOutput(PrivateResource):
    """What a task has printed so far, as it would look on a terminal."""

    def get(self, task_id: str) -> Response:
        """Read a task's output"""
        asked = query(OutputQuery)
        # The state before the text: what is final is whole.
        final = own_task(task_id).state in FINAL_STATES
        store = services().store
        if asked.follow and asked.format != "html":
            _take_place(services().settings.web_threads)
            response = Response(_followed(store, task_id, asked, request.environ), mimetype="text/plain")
            response.call_on_close(_followers.give_back)
            return response
        end = store.output_size(task_id)
        text = _between(store, task_id, asked.offset, end, asked.format != "txt")
        if asked.format == "html":
            response = _page(b"".join(text).decode(errors="replace"), task_id)
        else:
            response = Response(text, mimetype="text/plain")
        response.headers[NEXT_OFFSET] = str(max(asked.offset, end))
        response.headers[FINAL] = "true" if final else "false"
        return response


def _between(store: Store, task_id: str, start: int, end: int, coloured: bool) -> Iterator[bytes]:
    """Output bytes from `start` to `end`, in chunks; a colour that ends at `end` is ended."""
    while start < end:
        chunk = store.output(task_id, start, min(_CHUNK_BYTES, end - start))
        if not chunk:
            return
        stop = start + len(chunk)
        if coloured:
            # A mark at the border opens the next chunk, except at the very end.
            marks = store.colours(task_id, start, stop if stop == end else stop - 1)
            yield _coloured(chunk, start, marks)
        else:
            yield chunk
        start = stop


def _coloured(chunk: bytes, start: int, marks: list[ColourMark]) -> bytes:
    pieces = []
    position = start
    for mark in marks:
        pieces += [chunk[position - start : mark.offset - start], f"\x1b[{mark.code}m".encode()]
        position = mark.offset
    return b"".join((*pieces, chunk[position - start :]))


def _followed(store: Store, task_id: str, asked: OutputQuery, environ: dict[str, Any]) -> Iterator[bytes]:
    start = asked.offset
    yield b""  # the head at once: a proxy must not take a quiet task for a dead service
    idle = 0
    while True:
        task = store.task(task_id)
        end = store.output_size(task_id)
        if start < end:
            yield from _between(store, task_id, start, end, asked.format == "ansi")
            start, idle = end, 0
        elif task is None or task.state in FINAL_STATES:
            return
        elif _gone(environ):
            return
        else:
            time.sleep(_IDLE_SECONDS[min(idle, len(_IDLE_SECONDS) - 1)])
            idle += 1


def _gone(environ: dict[str, Any]) -> bool:
    """Whether the follower has left: while nothing is sent, nobody else would notice, and its thread would wait."""
    connection = environ.get("gunicorn.socket")
    if connection is None:
        return False
    try:
        return bool(select.select([connection], [], [], 0)[0]) and connection.recv(1, socket.MSG_PEEK) == b""
    except (OSError, ValueError):
        return True


def _page(text: str, task_id: str) -> Response:
    converter = Ansi2HTMLConverter(title=f"Output of {task_id}", dark_bg=True, line_wrap=True)
    response = Response(converter.convert(text), mimetype="text/html")
    response.headers["Content-Security-Policy"] = _PAGE_POLICY
    return response
