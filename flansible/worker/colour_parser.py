"""Splits a run's output into plain text, as a pipe would get it, and marks: of colours, and of events.

A run prints its colours behind a private-use character chosen anew for each run: escape codes that a play task itself
prints stay text, byte for byte, and only Ansible's own are colours. Behind the same character it prints the number of
each event, where that event belongs between the text. Used by the supervisor.
"""

from __future__ import annotations

import re
import secrets
from collections import deque

from flansible.store import ColourMark

_FIRST, _COUNT = 0x100000, 0xFFFD  # Supplementary Private Use Area B: four bytes each in UTF-8
_LONGEST_CODE = 24
_MOST_EVENT_MARKS = 100_000  # a run that prints marks without sending events must not fill our memory


def choose_mark() -> str:
    """Chooses a run's mark at random: any given character is the mark with a chance of one in 65,533."""
    return chr(_FIRST + secrets.randbelow(_COUNT))


class ColourSplitter:
    """Splits a stream. offset: plain bytes of output before it."""

    def __init__(self, mark: str, offset: int) -> None:
        self._offset = offset
        code = mark.encode()
        self._pattern = re.compile(re.escape(code) + rb"\[(?:([0-9;]*)m|([0-9]{1,15})e)")
        prefixes = b"|".join(re.escape(code[:length]) for length in range(len(code), 0, -1))
        # A possible beginning of a mark at the end of the data.
        self._unfinished = re.compile(b"(?:" + re.escape(code) + rb"\[[0-9;]{0,%d}|" % _LONGEST_CODE + prefixes + b")$")
        self._held = b""
        self._code = "0"  # of the last mark
        self._event_marks: deque[tuple[int, int]] = deque(maxlen=_MOST_EVENT_MARKS)

    @property
    def offset(self) -> int:
        """Plain bytes so far, without what is held back."""
        return self._offset

    def offset_of_event(self, number: int) -> int | None:
        """Returns the plain bytes before this event's mark, None before it was read. Asked for once, in order."""
        while self._event_marks and self._event_marks[0][0] < number:
            self._event_marks.popleft()
        if self._event_marks and self._event_marks[0][0] == number:
            return self._event_marks.popleft()[1]
        return None

    def feed(self, data: bytes) -> tuple[bytes, list[ColourMark]]:
        """Returns the plain bytes of `data` and the marks in it; holds back what may be the beginning of a mark."""
        data = self._held + data
        tail = self._unfinished.search(data, max(0, len(data) - _LONGEST_CODE - 8))
        self._held = b"" if tail is None else data[tail.start() :]
        return self._split(data[: len(data) - len(self._held)])

    def finish(self) -> tuple[bytes, list[ColourMark]]:
        """Returns what was held back, at the end of the stream, and the end of a colour that was left open."""
        held, self._held = self._held, b""
        plain, marks = self._split(held)
        if self._code != "0":  # the run was ended while it printed this
            marks.append(ColourMark(self._offset, "0"))
        return plain, marks

    def _split(self, data: bytes) -> tuple[bytes, list[ColourMark]]:
        plain = bytearray()
        marks = []
        position = 0
        for match in self._pattern.finditer(data):
            plain += data[position : match.start()]
            if match[2]:
                self._event_marks.append((int(match[2]), self._offset + len(plain)))
            else:
                self._code = match[1].decode()
                marks.append(ColourMark(self._offset + len(plain), self._code))
            position = match.end()
        plain += data[position:]
        self._offset += len(plain)
        return bytes(plain), marks
