"""Masks the values of a request's secret fields in its run's output and events, even where a module prints them.

Used by the supervisor before anything is recorded. What is searched is not only the text but what it decodes to
(decoded_views.py), by patterns that look past quoting (secret_patterns.py): programs nest encoders in any order. A
masked value becomes as many asterisks as it had bytes, line ends left out: every offset stays true. A value of fewer
than four characters is not masked: it would be found in every other word, and the gaps would give it away.

Cost: a block is decoded without positions first, and asked for a few bytes of each secret that no encoder of text
changes; only where these are, positions are worked out and the patterns tried.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from flansible.models import Secrets
from flansible.store import ColourMark
from flansible.worker.decoded_views import (
    View,
    base64_of,
    base64_views,
    may_have_base64,
    unescape_all,
    unescaped_views,
    view_of,
    view_of_blank_controls,
    without_unfinished_escape,
)
from flansible.worker.secret_patterns import DROPPED, Beginning, SecretPattern, lines_of_key, patterns_of, texts_of

# Fields of an event whose values are Flansible's own words.
_UNMASKED_FIELDS = frozenset({"type", "event", "verdict", "offset", "time"})
_BLOCK_BYTES = 32 * 1024
_EVENT_BYTES = 1024 * 1024  # of an event's strings, masked at once
_LARGEST_GROWTH = 16  # of a secret by encoders, at most; beyond it, one is not found
_BASE64_DEPTH = 3
_MOST_SINGLE_ANCHORS = 8  # more are searched by groups of four bytes, which takes the same time for any number
_SHORTEST_TO_HOLD_A_LINE = 3  # characters of a secret at the end of a finished line, in case that it goes on
# The end of the output may be Base64, or an escape: an unfinished word; lines as long as wrapped Base64 has them.
_WORD = rb"[A-Za-z0-9+/_=%&#;\\-]"
_UNFINISHED = re.compile(
    rb"(?<!%(word)b)(?:%(word)b{32,}+(?:['\",]*[\r\n]+|(?<=\\[nr])|(?<=0[AaDd]))[ \t'\"+]*+)*+%(word)b*+\Z"
    % {b"word": _WORD}
)


class Masker:
    """Masks one run's stream; holds back what may be the beginning of a secret."""

    def __init__(self, secrets: Secrets | None) -> None:
        self._held = b""
        self._held_marks: list[ColourMark] = []
        self._shown = b""  # the end of what was returned, unmasked: a secret may have begun in it
        self._patterns: list[SecretPattern] = []
        self._add(texts_of(secrets) if secrets else ())

    def hide_key(self, lines: list[str]) -> None:
        """Masks the lines of a private key from now on."""
        self._add(lines_of_key(lines))

    def _add(self, texts: Iterable[str]) -> None:
        known = {pattern.expression for pattern in self._patterns}
        self._patterns += [pattern for pattern in patterns_of(texts) if pattern.expression not in known]
        self._beginnings = list(dict.fromkeys(one for pattern in self._patterns for one in pattern.beginnings))
        longest = max((pattern.size for pattern in self._patterns), default=0)
        self._reach = longest * _LARGEST_GROWTH + 256
        self._anchors = list(dict.fromkeys(pattern.anchor for pattern in self._patterns if pattern.anchor))
        self._unanchored = [pattern.pattern for pattern in self._patterns if not pattern.anchor]
        # Of each anchor as many neighbouring groups that one of them is at a place that is looked at.
        self._stride = max(1, min(4, min(map(len, self._anchors), default=4) - 3))
        self._stride = 4 if self._stride == 4 else 2 if self._stride >= 2 else 1
        starts = range(self._stride)
        groups = (anchor[start : start + 4] for anchor in self._anchors for start in starts)
        self._groups = {memoryview(group).cast("I")[0] for group in groups}

    def feed(self, data: bytes, marks: list[ColourMark]) -> tuple[bytes, list[ColourMark]]:
        """Takes more output and the colour marks in it; returns what can be recorded now, masked."""
        if not self._patterns:
            return data, marks
        marks = self._held_marks + marks
        begin = len(self._shown)
        data = self._shown + self._held + data
        end = max(begin, self._safe_end(data))
        masked = self._mask(data)[begin:end]
        self._held, self._shown = data[end:], data[max(0, end - self._reach) : end]
        # Colour marks have offsets in the whole output; those in what is held back wait with it.
        late = len(self._held)
        self._held_marks = marks if late else []
        return masked, [] if late else marks

    def finish(self) -> tuple[bytes, list[ColourMark]]:
        """Returns what was held back, at the end of the output."""
        held, marks, self._held, self._held_marks = self._held, self._held_marks, b"", []
        masked = self._mask(self._shown + held)[len(self._shown) :]
        self._shown = b""
        return masked, marks

    def event(self, event: dict[str, Any]) -> dict[str, Any]:
        """Returns the event with every secret masked, in names as well as in values."""
        if not self._patterns:
            return event
        shown = {name: value for name, value in event.items() if name not in _UNMASKED_FIELDS}
        texts: list[str] = []
        _collect(shown, texts)
        masked = list(self._mask_texts(texts))
        if masked == texts:
            return event
        made = _rebuilt(shown, iter(masked))
        return {**{name: value for name, value in event.items() if name in _UNMASKED_FIELDS}, **made}

    def _mask_texts(self, texts: list[str]) -> Iterator[str]:
        """Masks strings as if they were lines of one text: Base64 may be cut into lines, and lines be a list."""
        batch: list[bytes] = []
        size = 0
        for text in texts:
            batch.append(text.encode("utf-8", "surrogatepass"))
            size += len(batch[-1]) + 1
            if size >= _EVENT_BYTES:
                yield from self._mask_batch(batch)
                batch, size = [], 0
        yield from self._mask_batch(batch)

    def _mask_batch(self, batch: list[bytes]) -> Iterator[str]:
        masked = self._mask(b"\n".join(batch))
        position = 0
        for text in batch:
            yield masked[position : position + len(text)].decode("utf-8", "surrogatepass")
            position += len(text) + 1

    def _mask(self, data: bytes) -> bytes:
        masked: bytearray | None = None
        for start in range(0, len(data), _BLOCK_BYTES):
            block = data[start : start + _BLOCK_BYTES + self._reach]
            if self._may_hold(block, 0):
                masked = masked if masked is not None else bytearray(data)
                for begin, end in self._found(view_of(block), 0):
                    for place in range(start + begin, start + end):
                        if masked[place] not in b"\r\n":
                            masked[place] = ord("*")
        return data if masked is None else bytes(masked)

    def _may_hold(self, data: bytes, depth: int) -> bool:
        """Whether a secret may be in the data, or in the Base64 in it."""
        if self._may_show(data):
            return True
        if depth == _BASE64_DEPTH or (depth and not may_have_base64(data)):
            return False
        return any(self._may_hold(decoded, depth + 1) for decoded in base64_of(data))

    def _may_show(self, data: bytes) -> bool:
        if len(self._anchors) <= _MOST_SINGLE_ANCHORS:
            if any(anchor in data for anchor in self._anchors):
                return True
        else:
            view = memoryview(data)
            for shift in range(0, 4, self._stride):
                if not self._groups.isdisjoint(view[shift : shift + (len(data) - shift) // 4 * 4].cast("I")):
                    return True
        if not self._unanchored:
            return False
        return any(pattern.search(text) for text in (data, *unescape_all(data)) for pattern in self._unanchored)

    def _found(self, view: View, depth: int) -> Iterator[tuple[int, int]]:
        """Yields where secrets are in the original of a view: begin and end, piece by piece."""
        levels = [view, *unescaped_views(view)]
        for level in levels:
            for pattern in self._patterns:
                if pattern.anchor in level.data:
                    for match in pattern.pattern.finditer(level.data):
                        yield from zip(
                            level.begins[match.start() : match.end()],
                            level.ends[match.start() : match.end()],
                            strict=True,
                        )
        if depth == _BASE64_DEPTH or (depth and not may_have_base64(view.data)):
            return
        for decoded in base64_views(levels[-1]):
            if self._may_hold(decoded.data, depth + 1):
                yield from self._found(decoded, depth + 1)

    def _safe_end(self, data: bytes) -> int:
        """Returns where a possible beginning of a secret starts, at the end of the data; len(data) for none."""
        start = max(0, len(data) - self._reach)
        tail = data[start:]
        unfinished = _UNFINISHED.search(tail)
        end = len(tail) if unfinished is None else unfinished.start()
        view = view_of(tail)
        for level in _ends_of(view):
            end = min(end, self._beginning(level, len(tail)))
        return start + end

    def _beginning(self, view: View, size: int) -> int:
        """Returns where the longest beginning of a secret starts in the original, at the end of a view; or its size."""
        data = view.data
        skeleton = data.translate(None, DROPPED)
        after = len(data.rstrip(DROPPED))  # what was dropped behind the last character
        rest = data[after:]
        is_cut = not data or view.ends[len(data) - 1] < size
        places: list[int] | None = None
        found = size
        for pattern in self._beginnings:
            length = _overlap(pattern, skeleton, is_open=bool(rest) or is_cut, is_line=b"\n" in rest)
            if length:
                if places is None:
                    places = [place for place, byte in enumerate(data) if byte not in DROPPED]
                begin = places[-length]
                if pattern.begins_dropped:
                    before = places[-length - 1] + 1 if len(places) > length else 0
                    begin -= len(data[before:begin].lstrip())
                found = min(found, view.begins[begin])
            elif 0 in pattern.gaps:
                begin = after + rest.rfind(b"\n") + 1
                quoting = data[begin:].lstrip()
                if quoting and pattern.begins_dropped:
                    found = min(found, view.begins[len(data) - len(quoting)])
                elif is_cut:
                    found = min(found, view.ends[len(data) - 1] if data else 0)
        return found


def _ends_of(view: View) -> Iterator[View]:
    """Yields what the end of the output may mean: with and without an escape that is cut off, or made by a letter."""
    cut = without_unfinished_escape(view)
    for level in (view, cut, *map(without_unfinished_escape, unescaped_views(cut))):
        yield level
        if b"\\" in level.data:
            yield view_of_blank_controls(level)


def _overlap(pattern: Beginning, skeleton: bytes, *, is_open: bool, is_line: bool) -> int:
    """Returns how much of the beginning of a secret is at the end of a skeleton."""
    whole = pattern.skeleton
    length = min(len(whole), len(skeleton)) if pattern.ends_dropped else min(len(whole) - 1, len(skeleton))
    while length > 0:
        length = whole.rfind(skeleton[-1:], 0, length) + 1
        is_allowed = not is_open or (length in pattern.gaps and not (is_line and length < _SHORTEST_TO_HOLD_A_LINE))
        if length and is_allowed and skeleton.endswith(whole[:length]):
            return length
        length -= 1
    return 0


def _collect(value: Any, texts: list[str]) -> None:
    """Collects the strings and numbers of a JSON value, in the order of `_rebuilt`."""
    if isinstance(value, str):
        texts.append(value)
    elif isinstance(value, dict):
        for name, item in value.items():
            texts.append(name)
            _collect(item, texts)
    elif isinstance(value, list):
        for item in value:
            _collect(item, texts)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        texts.append(str(value))


def _rebuilt(value: Any, texts: Iterator[str]) -> Any:
    """Returns the value with these strings; a number stays one unless it is masked as a whole."""
    if isinstance(value, str):
        return next(texts)
    if isinstance(value, dict):
        return {next(texts): _rebuilt(item, texts) for item in value.values()}
    if isinstance(value, list):
        return [_rebuilt(item, texts) for item in value]
    if isinstance(value, int | float) and not isinstance(value, bool):
        text = next(texts)
        return value if text.strip("*") else text
    return value
