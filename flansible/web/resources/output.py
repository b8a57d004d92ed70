"""The output of a task: whole or from an offset, as plain text, with colours or as HTML; optionally followed.

Offsets count bytes of the plain text in every format. Headers give the offset at which to continue and whether the
output is complete, so that a client can fetch the rest and nothing twice.
"""

from __future__ import annotations

import re
import time
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import chain
from typing import Literal

from ansi2html import Ansi2HTMLConverter
from flask import Response
from pydantic import BaseModel, ConfigDict, Field

from flansible.models import FINAL_STATES
from flansible.store import READ_AGAIN_SECONDS, Position, Store
from flansible.web.context import web_context
from flansible.web.login.authentication import PrivateResource, current_user
from flansible.web.middleware import security_headers
from flansible.web.parsing import MAX_NUMBER, parse_query
from flansible.web.resources.coloured_output import Colour, Reader
from flansible.web.resources.tasks import recorded_position, visible_task
from flansible.web.streaming.feeds import PIECE_BYTES, Feed, Piece
from flansible.web.streaming.follow import follow
from flansible.web.streaming.viewer import Viewer

NEXT_OFFSET = "Flansible-Next-Offset"
FINAL = "Flansible-Final"
_CHUNK_BYTES = 256 * 1024
# More would overload a browser, and need as much memory here.
_MOST_BYTES = {"html": 1024 * 1024, "fragment": 256 * 1024}
# The page's only style sheet: the output is escaped, so it cannot contain another.
_STYLE = re.compile(r"<style[^>]*>(.*?)</style>", re.DOTALL)
_BODY_STYLE = ' style="font-size: normal;"'  # forbidden by the policy, and without effect


class OutputQuery(BaseModel):
    """`?format=&offset=&end=&follow=` of the output."""

    model_config = ConfigDict(extra="forbid")

    format: Literal["txt", "ansi", "html", "fragment"] = Field(
        "txt",
        description="`txt`: plain; `ansi`: with Ansible's colours as escape codes; `html`: a standalone page of "
        "1 MiB at most; `fragment`: 256 KiB at most, text and `span` elements whose classes `/console/ansi.css` has.",
    )
    offset: int = Field(0, ge=0, le=MAX_NUMBER, description="Start at this byte of the plain text.")
    end: int = Field(
        MAX_NUMBER, ge=0, le=MAX_NUMBER, description="Stop before this byte of the plain text. Not when following."
    )
    follow: bool = Field(
        False,
        description="Keep the reply open and send new output until the task is final (not for html and fragment).",
    )


class AnsibleTaskOutput(PrivateResource):
    """What a task has printed so far, as on a terminal."""

    def get(self, task_id: str) -> Response:
        """Read a task's output"""
        query = parse_query(OutputQuery)
        task = visible_task(task_id)
        position = recorded_position(task_id)
        if query.follow and query.format in ("txt", "ansi"):
            feed = _OutputStream(task_id, query.offset, query.format == "ansi")
            return follow(feed, "text/plain", may_follow=Viewer.of(current_user()).watching(task))
        store = web_context().store
        # State and size were read in one step: of a final task the size is all there is.
        size = position.output_bytes
        end = min(size, query.end, query.offset + _MOST_BYTES.get(query.format, size))
        final = position.state in FINAL_STATES and end >= size
        if query.format in ("html", "fragment"):
            text = b"".join(_between(store, task_id, query.offset, end, True)).decode(errors="replace")
            response = _fragment(text) if query.format == "fragment" else _page(text, task_id, size, end)
        else:
            pieces = _between(store, task_id, query.offset, end, query.format == "ansi")
            first = next(pieces, b"")  # what cannot be read is refused with its reason, not by a broken connection
            response = Response(chain([first], pieces), mimetype="text/plain")
        if position.state in FINAL_STATES and not final:
            store.keep_while_read([task_id])  # until the client has read the rest
        response.headers[NEXT_OFFSET] = str(max(query.offset, end))
        response.headers[FINAL] = "true" if final else "false"
        return response


@dataclass(frozen=True)
class _OutputStream(Feed):
    """Sends output from a byte offset on, until the task is final."""

    task_id: str
    start: int
    coloured: bool
    colour: Colour | None = None

    def next(self, store: Store, position: Position) -> Piece:
        position.require_recordings(self.task_id)
        if self.start < position.output_bytes:
            reader = Reader(store, self.task_id, self.coloured, self.colour)
            data, stop = reader.read(self.start, position.output_bytes, PIECE_BYTES)
            return Piece(data, replace(self, start=stop, colour=reader.colour))
        return Piece(b"", None if position.state in FINAL_STATES else self)


def _between(store: Store, task_id: str, start: int, end: int, coloured: bool) -> Iterator[bytes]:
    """Yields the output bytes from `start` to `end` in chunks. Raises TaskDeleted."""
    keep_at = 0.0
    reader = Reader(store, task_id, coloured)
    while start < end:
        if end - start > _CHUNK_BYTES and time.monotonic() >= keep_at:
            store.keep_while_read([task_id])
            keep_at = time.monotonic() + READ_AGAIN_SECONDS
        chunk, start = reader.read(start, end, _CHUNK_BYTES)
        yield chunk


def _fragment(text: str) -> Response:
    return Response(Ansi2HTMLConverter(dark_bg=True).convert(text, full=False), mimetype="text/html")


def _page(text: str, task_id: str, size: int, end: int) -> Response:
    converter = Ansi2HTMLConverter(title=f"Output of {task_id}", dark_bg=True, line_wrap=True)
    page = converter.convert(text).replace(_BODY_STYLE, "", 1)
    if end < size:
        page = page.replace("</body>", f'<p><a href="?format=html&amp;offset={end}">More output</a></p></body>')
    response = Response(page, mimetype="text/html")
    response.headers["Content-Security-Policy"] = security_headers.content_security_policy(
        style_src=f"'sha256-{_style_digest(page)}'"
    )
    return response


def _style_digest(page: str) -> str:
    found = _STYLE.search(page)
    return b64encode(sha256((found[1] if found else "").encode()).digest()).decode()
