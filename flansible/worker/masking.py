"""Masks the values of a request's secret fields in its run's output and events, even where a module prints them.

Used by the supervisor before anything is recorded. A masked value becomes as many asterisks as it had bytes: every
offset stays true. A value of fewer than four characters is not masked: it would be found in every other word, and the
gaps would give it away.
"""

from __future__ import annotations

import base64
import html
import json
import re
import shlex
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import quote, quote_plus

from flansible.models import Secrets
from flansible.store import ColourMark

_SHORTEST = 4
_SHORTEST_KEY_LINE = 16
_PEM_ARMOUR = "-----"
# Fields of an event whose values are Flansible's own words.
_UNMASKED_FIELDS = frozenset({"type", "event", "verdict"})


class Masker:
    """Masks one run's stream; holds back what may be the beginning of a secret."""

    def __init__(self, secrets: Secrets | None) -> None:
        self._held = b""
        self._held_marks: list[ColourMark] = []
        self._forms: list[bytes] = []
        self._add(_texts(secrets) if secrets else ())

    def hide_key(self, lines: list[str]) -> None:
        """Masks the lines of a private key from now on."""
        self._add(_lines_of_key(lines))

    def _add(self, texts: Iterable[str]) -> None:
        forms = {*self._forms, *(form.encode() for text in texts for form in _forms(text))}
        # Longest first: of two with the same beginning, the longer one must not be left half visible.
        self._forms = sorted(forms, key=len, reverse=True)
        self._bytes = re.compile(b"|".join(map(re.escape, self._forms)))
        self._text = re.compile("|".join(re.escape(form.decode()) for form in self._forms))

    def feed(self, data: bytes, marks: list[ColourMark]) -> tuple[bytes, list[ColourMark]]:
        """Takes more output and the colour marks in it; returns what can be recorded now, masked."""
        if not self._forms:
            return data, marks
        data, marks = self._held + data, self._held_marks + marks
        end = self._safe_end(data)
        self._held = data[end:]
        # Colour marks have offsets in the whole output; those in what is held back wait with it.
        late = len(self._held)
        self._held_marks = marks if late else []
        return self._mask(data[:end]), [] if late else marks

    def finish(self) -> tuple[bytes, list[ColourMark]]:
        """Returns what was held back, at the end of the output."""
        held, marks, self._held, self._held_marks = self._held, self._held_marks, b"", []
        return self._mask(held), marks

    def event(self, event: dict[str, Any]) -> dict[str, Any]:
        """Returns the event with every secret masked, in names as well as in values."""
        if not self._forms:
            return event
        return {name: value if name in _UNMASKED_FIELDS else self._value(value) for name, value in event.items()}

    def _value(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._text.sub(_asterisks, value)
        if isinstance(value, dict):
            return {self._value(name): self._value(item) for name, item in value.items()}
        if isinstance(value, list):
            return [self._value(item) for item in value]
        if isinstance(value, int | float) and str(value).encode() in self._forms:
            return "*" * len(str(value))
        return value

    def _mask(self, data: bytes) -> bytes:
        return self._bytes.sub(lambda match: b"*" * len(match[0]), data) if self._forms else data

    def _safe_end(self, data: bytes) -> int:
        """Returns where a possible beginning of a secret starts, at the end of the data; len(data) for none."""
        longest = len(self._forms[0]) - 1
        for start in range(max(0, len(data) - longest), len(data)):
            tail = data[start:]
            if any(len(form) > len(tail) and form.startswith(tail) for form in self._forms):
                # Not within a complete one.
                return next((match.start() for match in self._bytes.finditer(data) if match.end() > start), start)
        return len(data)


def _asterisks(match: re.Match[str]) -> str:
    return "*" * len(match[0])


def _texts(secrets: Secrets) -> Iterator[str]:
    """Yields the lines of every value: without line ends, so that a complete line of output is never held back."""
    plain = [secrets.connection_password, secrets.become_password, secrets.private_key_passphrase]
    for value in (*plain, *secrets.vault_passwords.values(), *secrets.variables.values()):
        yield from (line for line in (value or "").splitlines() if len(line) >= _SHORTEST)
    yield from _lines_of_key((secrets.private_key or "").splitlines())


def _lines_of_key(lines: list[str]) -> Iterator[str]:
    for line in lines:
        if len(line) >= _SHORTEST_KEY_LINE and not line.startswith(_PEM_ARMOUR):
            yield line


def _forms(text: str) -> Iterable[str]:
    """Returns a secret as programs print it: plain, in JSON (once, and nested), for a shell, a URL, HTML, in Base64."""
    encoded = json.dumps(text)[1:-1]
    in_unicode = json.dumps(text, ensure_ascii=False)[1:-1]
    forms = {text, encoded, in_unicode, json.dumps(encoded)[1:-1], repr(text)[1:-1], html.escape(text)}
    forms |= {shlex.quote(text)[1:-1] if shlex.quote(text) != text else text, quote(text), quote(text, safe="")}
    forms |= {quote_plus(text), base64.b64encode(text.encode()).decode().rstrip("=")}
    return {form for form in forms if len(form) >= _SHORTEST}
