"""Undoes what programs do to a text: escapes of JSON, YAML, Python, shells, URLs and HTML; Base64.

Used by masking.py. A view is decoded text that knows where in the original each of its bytes comes from.
"""

from __future__ import annotations

import html
import re
from array import array
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from typing import NamedTuple, TypeVar

_MOST_PASSES = 6  # of escapes around escapes
_PHASES = 4  # Base64 may begin at any letter of a group of four: nothing says where, once line ends are gone

# Backslashes before hexadecimal or octal digits, a percent sign, an HTML entity, perhaps quoted. Bounded
# lengths and looks behind keep a megabyte of backslashes from taking hours.
_ESCAPE = re.compile(
    rb"(?<!\\)\\{1,64}(?:(?P<pair>u[dD][89abAB][0-9a-fA-F]{2}\\{1,64}u[dD][c-fC-F][0-9a-fA-F]{2})"
    rb"|[uU](?P<code>(?<=U)[0-9a-fA-F]{8}|(?<=u)[0-9a-fA-F]{4})|x(?P<hex>[0-9a-fA-F]{2})|(?P<octal>[0-3][0-7]{2}))"
    rb"|%(?:(?P<line>0[AaDd]\++)|(?P<url>[0-9a-fA-F]{2}))"  # in URLs a plus is a blank
    rb"|&(?:\\{1,16}(?=#))?(?P<entity>#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,30})\\{0,16};"
)
# Around a line end within quotes: the lines may have become a list, and another fold may follow.
_END_OF_ITEM = rb"(?:[\"'],\\{0,64})"
_INDENT = rb"(?:[ \t+\r\n]|\\{1,64}(?:n|(?=[ \t\r\n])))++(?:\\{0,64}[\"'][ \t+]++){0,3}"
# Where YAML folds a line, after a backslash of an escape: `\\`, `\`, line end, `u00e9`.
_FOLD = re.compile(rb"(?<!\\)(?:\\{3,64}+\r?\n|\\{7,64}+n|\\{1,64}+%b{1,3}(?:\r?\n|n))%b" % (_END_OF_ITEM, _INDENT))
_CONTROL = re.compile(rb"(?<!\\)\\{1,64}[nrtabefvE0N_LP]")
_UNFINISHED_ESCAPE = re.compile(
    rb"(?:(?<!\\)\\{1,64}+(?:%b{0,3}(?:\r?\n|n)%b)?"
    rb"(?:u[dD][89abAB][0-9a-fA-F]{2}\\{0,64}(?:u[0-9a-fA-F]{0,3})?|u[0-9a-fA-F]{0,3}"
    rb"|U[0-9a-fA-F]{0,7}|x[0-9a-fA-F]?|[0-3]?[0-7]?)"
    rb"|%%(?:25)*(?:2|[0-9a-fA-F])?|&(?:amp\\{0,16};)*(?:a?m?p?\\{0,16}|\\{0,16}#?[A-Za-z0-9]{0,31}\\{0,16}))\Z"
    % (_END_OF_ITEM, _INDENT)
)
# Escapes of characters that occur in Base64 or between its lines. Each begins with a plain character: it is found fast.
_ESCAPES_IN_BASE64 = tuple(
    re.compile(escape)
    for escape in (
        rb"%(?:25)*(?:0[AaDd9]|2[BbFf]|3[Dd]|5[Cc])",
        rb"&(?:amp;)*(?:#|quot;)",
        rb"\\(?:[ux]00|(?:\r?\n|\\n)[ \t]+\\{0,64}[nrt])",  # or a fold
    )
)
_LETTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_LETTERS_OF_BOTH = _LETTERS + b"-_"
_TO_STANDARD = bytes.maketrans(b"-_", b"+/")
_NO_LETTERS = bytes(set(range(256)) - set(_LETTERS_OF_BOTH))
_RUN = re.compile(rb"\\{1,64}[nrt]|([A-Za-z0-9+/_-]+)")
# Letters, and what escapes of letters and line ends are made of.
_IS_IN_WORD = bytes(ord("A") if byte in _LETTERS_OF_BOTH + b"=%&#;\\" else ord(" ") for byte in range(256))


class View(NamedTuple):
    """Decoded bytes; `begins` and `ends` say which bytes of the original each of them was made of."""

    data: bytes
    begins: Sequence[int]
    ends: Sequence[int]


Level = TypeVar("Level", bytes, View)


def view_of(data: bytes) -> View:
    """Returns the original as a view of itself."""
    return View(data, range(len(data)), range(1, len(data) + 1))


def unescape_all(data: bytes) -> Iterator[bytes]:
    """Yields what is left after each pass that undoes escapes, while there are any; and so without YAML's folds."""
    for levels in _bytes_levels(data):
        yield from levels


def unescaped_views(view: View) -> list[list[View]]:
    """Returns views of the same: one list as it is, and one without folds, if there are any."""
    found = [[*_passes(view, _unescape_view)]]
    if any(_FOLD.search(level.data) for level in (view, *found[0])):
        found.append([*_passes(view, lambda level: _unescape_view(_substituted(level, _FOLD, _unfolded)))])
    return found


def without_escapes(data: bytes) -> list[bytes]:
    """Returns what is left when all escapes are undone; and so without folds, if there are any."""
    return [[data, *levels][-1] for levels in _bytes_levels(data)]


def _bytes_levels(data: bytes) -> list[list[bytes]]:
    found = [[*_passes(data, _unescape)]]
    if any(map(_FOLD.search, (data, *found[0]))):
        found.append([*_passes(data, lambda text: _unescape(_FOLD.sub(_unfolded, text)))])
    return found


def _passes(level: Level, undo: Callable[[Level], Level]) -> Iterator[Level]:
    for _ in range(_MOST_PASSES):
        if (made := undo(level)) == level:
            return
        yield (level := made)


def _unescape(data: bytes) -> bytes:
    return _ESCAPE.sub(_unescaped, data)


def _unescape_view(view: View) -> View:
    return _substituted(view, _ESCAPE, _unescaped)


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


def letters_of(data: bytes) -> list[bytes]:
    """Returns the letters of the Base64 in a text, whatever is between them; and so without folds, if there are any."""
    has_escapes = any(escape.search(data) for escape in _ESCAPES_IN_BASE64)
    return [_letters(text) for text in (without_escapes(data) if has_escapes else [data])]


def _letters(text: bytes) -> bytes:
    if b"\\" in text:
        text = text.replace(b"\\n", b" ").replace(b"\\r", b" ").replace(b"\\t", b" ")
    return text.translate(_TO_STANDARD, _NO_LETTERS)


def base64_of(streams: Iterable[bytes]) -> Iterator[bytes]:
    """Yields what letters of Base64 may mean: at each of four phases."""
    for letters in streams:
        for phase in range(_PHASES):
            yield _decoded(letters[phase:])


def letters_within(text: bytes) -> Iterator[bytes]:
    """Yields the letters that Base64 has of a text, wherever it lies in what is encoded; without those at its ends."""
    for before in range(3):
        letters = b2a_base64(b"\0" * before + text, newline=False)
        yield letters[-(-before * 8 // 6) : (before + len(text)) * 8 // 6]


def words_of(data: bytes, shortest: int) -> bytes:
    """Returns the words that may be Base64 of so many letters, each with the next one, which may be its last line."""
    words = _long_words(shortest).finditer(data.translate(_IS_IN_WORD))
    return b" ".join([data[slice(*word.span())] for word in words])


@cache
def _long_words(shortest: int) -> re.Pattern[bytes]:
    # Letters are written out so that the first ones are found fast.
    return re.compile(b"%bA*+ *+(?:A{%d,}+ *+)*+A*+" % (b"A" * shortest, shortest))


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


def _unfolded(match: re.Match[bytes]) -> bytes:
    # YAML puts a backslash before a blank at the beginning of a line, unless it is the indent of another fold.
    has_blank = match[0].lstrip(b"\\")[:1] in b"\r\n" and (b"\\ " in match[0] or b"\\\t" in match[0])
    return b"\\ " if has_blank else b"\\"


def _unescaped(match: re.Match[bytes]) -> bytes:
    kind, text = match.lastgroup, match[match.lastgroup or 0]
    if kind == "line":
        return b"\n "
    if kind == "entity":
        return html.unescape(f"&{text.decode()};").encode("utf-8", "surrogatepass")
    if kind == "pair":
        high, low = int(text[1:5], 16), int(text[-4:], 16)
        return chr(0x10000 + ((high - 0xD800) << 10) + low - 0xDC00).encode()
    code = int(text, 8 if kind == "octal" else 16)
    if code in (ord("\r"), ord("\n")) and kind != "url":
        # A fold may end there: backslashes before the escape's own stay.
        return b"\\" * ((match[0].count(b"\\") - 1) // 2) + bytes([code])
    if kind == "code":
        return chr(code).encode("utf-8", "surrogatepass") if code < 0x110000 else match[0]
    return bytes([code])


def unchanged_runs(text: bytes) -> list[bytes]:
    """Returns the rows of letters and digits that no encoder of text changes, and undoing escapes neither."""
    return re.findall(rb"[A-Za-z0-9]+", _ESCAPE.sub(b" ", text))
