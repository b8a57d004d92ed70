"""Masks the values of a request's secret fields in its run's output and events, even where a module prints them.

Used by the supervisor before anything is recorded. What is searched is not only the text but what it decodes to
(decoded_views.py), by patterns that look past quoting (secret_patterns.py): programs nest encoders in any order. A
masked value becomes as many asterisks as it had bytes, line ends left out: every offset stays true. A value of fewer
than four characters is not masked: it would be found in every other word, and the gaps would give it away.

Cost: a block is searched for a few bytes of each secret that no encoder of text changes, and its letters for what
Base64 makes of these; only words that are long enough for Base64 of Base64 are decoded. Only where something is found,
or where a secret has no such bytes, positions are worked out and the patterns tried.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import repeat
from typing import Any

from flansible.models import Secrets
from flansible.store import ColourMark
from flansible.worker.decoded_views import (
    View,
    base64_of,
    base64_views,
    letters_of,
    letters_within,
    unescape_all,
    unescaped_views,
    view_of,
    view_of_blank_controls,
    without_unfinished_escape,
    words_of,
)
from flansible.worker.secret_patterns import DROPPED, Beginning, SecretPattern, lines_of_key, patterns_of, texts_of

# Fields of an event whose values are Flansible's own words.
_UNMASKED_FIELDS = frozenset({"type", "event", "verdict", "offset", "time"})
_BLOCK_BYTES = 32 * 1024
_EVENT_BYTES = 1024 * 1024  # of an event's strings, masked at once
_LARGEST_GROWTH = 16  # of a secret by encoders, at most; beyond it, one is not found
_BASE64_DEPTH = 3
_SHORTEST_ENCODED = 8  # letters of Base64 in Base64, and
_SHORTEST_NESTED = 10  # of Base64 of these
_MOST_SINGLE_WORDS = 8  # more are searched by groups of four bytes, which takes the same time for any number
_SHORTEST_TO_HOLD_A_LINE = 3  # characters of a secret at the end of a finished line, in case that it goes on
# The end of the output may be Base64, or an escape: an unfinished word; lines as long as wrapped Base64 has them.
_WORD = rb"[A-Za-z0-9+/_=%&#;\\-]"
_UNFINISHED = re.compile(
    rb"(?<!%(word)b)(?:%(word)b{32,}+%(between)b*+)*+%(word)b*+\Z"
    % {b"word": _WORD, b"between": rb"(?:[\r\n \t'\",+]|\\++[nrt]?|[nrt](?=\\))"}
)


class _Words:
    """Words that are searched for all at once. Each has four bytes or more."""

    def __init__(self, words: list[bytes]) -> None:
        self._words = words
        # Of each word as many neighbouring groups of four that one of them is at a place that is looked at.
        spare = min(map(len, words), default=4) - 3
        self._stride = 4 if spare >= 4 else 2 if spare >= 2 else 1
        groups = (word[start : start + 4] for word in words for start in range(self._stride))
        self._groups = {memoryview(group).cast("I")[0] for group in groups}

    def are_in(self, data: bytes) -> bool:
        """Whether one of them is in the data."""
        if len(self._words) > _MOST_SINGLE_WORDS:
            view = memoryview(data)
            parts = (view[shift : shift + (len(data) - shift) // 4 * 4] for shift in range(0, 4, self._stride))
            if all(self._groups.isdisjoint(part.cast("I")) for part in parts):
                return False
        return any(word in data for word in self._words)


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
        anchors = list(dict.fromkeys(pattern.anchor for pattern in self._patterns if pattern.anchor))
        self._unanchored = [pattern.pattern for pattern in self._patterns if not pattern.anchor]
        self._shown_words = _Words(anchors)
        self._encoded_words = _Words([letters for anchor in anchors for letters in letters_within(anchor)])

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
            if self._may_hold(block):
                masked = masked if masked is not None else bytearray(data)
                for begin, end in self._found(view_of(block), 0):
                    for place in range(start + begin, start + end):
                        if masked[place] not in b"\r\n":
                            masked[place] = ord("*")
        return data if masked is None else bytes(masked)

    def _may_hold(self, data: bytes) -> bool:
        """Whether a secret may be in the data, or in the Base64 in it."""
        return self._shown_words.are_in(data) or self._has_unanchored(data) or self._may_encode(data, 0)

    def _may_encode(self, data: bytes, depth: int) -> bool:
        """Whether a secret may be in the Base64 in the data, or in Base64 of that."""
        letters = letters_of(data)
        if any(map(self._encoded_words.are_in, letters)):
            return True
        if self._unanchored and any(map(self._has_unanchored, base64_of(letters))):
            return True
        if depth + 1 == _BASE64_DEPTH:
            return False
        nested = map(words_of, base64_of(letters_of(words_of(data, _SHORTEST_NESTED))), repeat(_SHORTEST_ENCODED))
        return any(self._may_encode(words, depth + 1) for words in nested if words)

    def _has_unanchored(self, data: bytes) -> bool:
        if not self._unanchored:
            return False
        return any(pattern.search(text) for text in (data, *unescape_all(data)) for pattern in self._unanchored)

    def _found(self, view: View, depth: int) -> Iterator[tuple[int, int]]:
        """Yields where secrets are in the original of a view: begin and end, piece by piece."""
        chains = [[view, *levels] for levels in unescaped_views(view)]
        for level in (level for levels in chains for level in levels):
            for pattern in self._patterns:
                if pattern.anchor in level.data:
                    for match in pattern.pattern.finditer(level.data):
                        yield from zip(
                            level.begins[match.start() : match.end()],
                            level.ends[match.start() : match.end()],
                            strict=True,
                        )
        if depth == _BASE64_DEPTH or not self._may_encode(view.data, depth):
            return
        for decoded in (decoded for levels in chains for decoded in base64_views(levels[-1])):
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
    unescaped = (level for levels in unescaped_views(cut) for level in levels)
    for level in (view, cut, *map(without_unfinished_escape, unescaped)):
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
