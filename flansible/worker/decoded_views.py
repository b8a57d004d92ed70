"""Undoes what programs do to a text: escapes of JSON, YAML, Python, shells, URLs and HTML; Base64.

Used by masking.py. A view is decoded text that knows where in the original each of its bytes comes from.
"""

from __future__ import annotations

import html
import re
from array import array
from binascii import a2b_base64
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

_MOST_PASSES = 6  # of escapes around escapes
_PHASES = 4  # Base64 may begin at any letter of a group of four: nothing says where, once line ends are gone

# Backslashes before hexadecimal or octal digits, a percent sign, an HTML entity, perhaps quoted. Bounded
# lengths and looks behind keep a megabyte of backslashes from taking hours.
_ESCAPE = re.compile(
    rb"(?<!\\)\\{1,64}(?:(?P<pair>u[dD][89abAB][0-9a-fA-F]{2}\\{1,64}u[dD][c-fC-F][0-9a-fA-F]{2})"
    rb"|[uU](?P<code>(?<=U)[0-9a-fA-F]{8}|(?<=u)[0-9a-fA-F]{4})|x(?P<hex>[0-9a-fA-F]{2})|(?P<octal>[0-3][0-7]{2}))"
    rb"|%(?P<url>[0-9a-fA-F]{2})"
    rb"|&\\{0,16}(?P<entity>#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,30})\\{0,16};"
)
# Where YAML breaks a line within quotes, perhaps after a backslash of an escape: `\\`, line end, `u00e9`.
_FOLD = re.compile(
    rb"(?<!\\)\\{3,64}(?:\r?\n|(?<=\\{7})n)[ \t+]+(?:\\{1,64}n[ \t+]+)*"
    rb"(?=u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|U[0-9a-fA-F]{8}|[0-3][0-7]{2}|[nrtabefvE0N_LP])"
)
_CONTROL = re.compile(rb"(?<!\\)\\{1,64}[nrtabefvE0N_LP]")
_UNFINISHED_ESCAPE = re.compile(
    rb"(?:(?<!\\)\\{1,64}(?:u[dD][89abAB][0-9a-fA-F]{2}\\{0,64}(?:u[0-9a-fA-F]{0,3})?|u[0-9a-fA-F]{0,3}"
    rb"|U[0-9a-fA-F]{0,7}|x[0-9a-fA-F]?|[0-3]?[0-7]?)"
    rb"|%(?:25)*(?:2|[0-9a-fA-F])?|&(?:amp\\{0,16};)*(?:a?m?p?\\{0,16}|\\{0,16}#?[A-Za-z0-9]{0,31}\\{0,16}))\Z"
)
# Escapes of characters that occur in Base64 or between its lines.
_ESCAPE_IN_BASE64 = re.compile(rb"%(?:25)*(?:0[AaDd9]|2[BbFf]|3[Dd]|5[Cc])|&(?:amp;)*#|\\[ux]00")
_FOLD_IN_BASE64 = re.compile(rb"\\(?:\r?\n|\\n)[ \t]+\\{0,64}[nrt]")
_LETTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_LETTERS_OF_BOTH = _LETTERS + b"-_"
_TO_STANDARD = bytes.maketrans(b"-_", b"+/")
_NO_LETTERS = bytes(set(range(256)) - set(_LETTERS_OF_BOTH))
_RUN = re.compile(rb"\\{1,64}[nrt]|([A-Za-z0-9+/_-]+)")
_IS_LETTER = bytes(ord("A") if byte in _LETTERS_OF_BOTH + b"=" else ord(" ") for byte in range(256))
_SHORTEST_NESTED = b"A" * 8


class View(NamedTuple):
    """Decoded bytes; `begins` and `ends` say which bytes of the original each of them was made of."""

    data: bytes
    begins: Sequence[int]
    ends: Sequence[int]


def view_of(data: bytes) -> View:
    """Returns the original as a view of itself."""
    return View(data, range(len(data)), range(1, len(data) + 1))


def unescape_all(data: bytes) -> Iterator[bytes]:
    """Yields what is left after each pass that undoes escapes, while there are any; of YAML's folds as well."""
    if _FOLD.search(data):
        yield (folded := _FOLD.sub(rb"\\", data))
        yield from _unescape(folded)
    yield from _unescape(data)


def without_escapes(data: bytes) -> bytes:
    """Returns what is left when all escapes are undone."""
    *_, data = (data, *_unescape(data))
    return data


def _unescape(data: bytes) -> Iterator[bytes]:
    for _ in range(_MOST_PASSES):
        if (made := _ESCAPE.sub(_unescaped, data)) == data:
            return
        yield (data := made)


def unescaped_views(view: View) -> Iterator[View]:
    """Yields the view after each pass that undoes escapes, while there are any; of YAML's folds as well."""
    if _FOLD.search(view.data):
        yield (folded := _substituted(view, _FOLD, lambda match: b"\\"))
        yield from _unescaped_views(folded)
    yield from _unescaped_views(view)


def _unescaped_views(view: View) -> Iterator[View]:
    for _ in range(_MOST_PASSES):
        made = _substituted(view, _ESCAPE, _unescaped)
        if made.data == view.data:
            return
        yield (view := made)


def without_unfinished_escape(view: View) -> View:
    """Returns the view without an escape that its end cuts off, or may cut off."""
    cut = _UNFINISHED_ESCAPE.search(view.data, max(0, len(view.data) - 128))
    return view if cut is None else View(view.data[: cut.start()], view.begins, view.ends)


def blank_controls(data: bytes) -> bytes:
    """Returns the data with a blank for each escape by a letter, such as `\\n`."""
    return _CONTROL.sub(b" ", data)


def view_of_blank_controls(view: View) -> View:
    """Returns a view of the same."""
    return _substituted(view, _CONTROL, lambda match: b" ")


def base64_of(data: bytes) -> Iterator[bytes]:
    """Yields what the Base64 in a text may mean: its letters, whatever is between them, at each of four phases."""
    if _FOLD_IN_BASE64.search(data):
        data = _FOLD.sub(rb"\\", data)
    if _ESCAPE_IN_BASE64.search(data):
        data = without_escapes(data)
    if b"\\" in data:
        data = data.replace(b"\\n", b"").replace(b"\\r", b"").replace(b"\\t", b"")
    letters = data.translate(_TO_STANDARD, _NO_LETTERS)
    for phase in range(_PHASES):
        yield _decoded(letters[phase:])


def may_have_base64(decoded: bytes) -> bool:
    """Whether something decoded has Base64 in it once more: enough letters in a row."""
    return _SHORTEST_NESTED in decoded.translate(_IS_LETTER)


def base64_views(view: View) -> Iterator[View]:
    """Yields views of the same as `base64_of`, of a view without escapes."""
    letters, begins, ends = bytearray(), array("q"), array("q")
    for match in _RUN.finditer(view.data):
        if match[1]:
            letters += match[1]
            begins.extend(view.begins[match.start() : match.end()])
            ends.extend(view.ends[match.start() : match.end()])
    standard = bytes(letters).translate(_TO_STANDARD)
    for phase in range(_PHASES):
        data = _decoded(standard[phase:])
        first = array("q", (begins[phase + 4 * index // 3] for index in range(len(data))))
        last = array("q", (ends[phase + (8 * index + 7) // 6] for index in range(len(data))))
        yield View(data, first, last)


def _decoded(letters: bytes) -> bytes:
    return a2b_base64(letters + b"A" * (-len(letters) % 4))[: len(letters) * 6 // 8]


def _substituted(view: View, pattern: re.Pattern[bytes], replaced: Callable[[re.Match[bytes]], bytes]) -> View:
    data, begins, ends = bytearray(), array("q"), array("q")
    position = 0
    for match in pattern.finditer(view.data):
        value = replaced(match)
        data += view.data[position : match.start()]
        begins.extend(view.begins[position : match.start()])
        ends.extend(view.ends[position : match.start()])
        data += value
        begins.extend([view.begins[match.start()]] * len(value))
        ends.extend([view.ends[match.end() - 1]] * len(value))
        position = match.end()
    if not position:
        return view
    data += view.data[position:]
    begins.extend(view.begins[position : len(view.data)])
    ends.extend(view.ends[position : len(view.data)])
    return View(bytes(data), begins, ends)


def _unescaped(match: re.Match[bytes]) -> bytes:
    kind, text = match.lastgroup, match[match.lastgroup or 0]
    if kind in ("url", "hex"):
        return bytes([int(text, 16)])
    if kind == "octal":
        return bytes([int(text, 8)])
    if kind == "entity":
        return html.unescape(f"&{text.decode()};").encode("utf-8", "surrogatepass")
    if kind == "pair":
        high, low = int(text[1:5], 16), int(text[-4:], 16)
        return chr(0x10000 + ((high - 0xD800) << 10) + low - 0xDC00).encode()
    code = int(text, 16)
    return chr(code).encode("utf-8", "surrogatepass") if code < 0x110000 else match[0]


def unchanged_runs(text: bytes) -> list[bytes]:
    """Returns the rows of letters and digits that no encoder of text changes, and undoing escapes neither."""
    return re.findall(rb"[A-Za-z0-9]+", _ESCAPE.sub(b" ", text))
