"""Shows control characters in the output of a task as text, before a terminal obeys them. Called by client.terminal.

What another user's task prints may set the clipboard, the title or the keyboard of who reads it (OSC 52, for example).
Colours stay.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

_COLOUR = rb"\x1b\[[0-9;]*m"
# The controls but tab and line ends; those of two bytes in UTF-8 as well. A return alone would write over a line.
_CONTROL = re.compile(rb"(" + _COLOUR + rb")|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)|\xc2[\x80-\x9f]")
# What may be the beginning of a colour, of a line end, or of a control of two bytes.
_UNFINISHED = re.compile(rb"(?:\x1b(?:\[[0-9;]{0,64})?|\r|\xc2)\Z")


def filtered(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yields the chunks with ^[ in place of an escape character, and so on; what is cut between two is put together."""
    kept = b""
    for chunk in chunks:
        text = kept + chunk
        unfinished = _UNFINISHED.search(text)
        kept = unfinished[0] if unfinished else b""
        yield _CONTROL.sub(_shown, text[: len(text) - len(kept)])
    if kept:
        yield _CONTROL.sub(_shown, kept)


def _shown(found: re.Match[bytes]) -> bytes:
    if found[1]:
        return found[1]
    number = found[0][-1]
    return b"^" + bytes([number ^ 0x40]) if len(found[0]) == 1 else b"^[" + bytes([number - 0x40])
