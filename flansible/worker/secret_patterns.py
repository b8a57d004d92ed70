"""Makes of each secret a pattern that finds it in decoded text, whatever quoting is left in it.

Used by masking.py. Encoders of text leave letters and digits as they are and put quotes, backslashes and line ends only
beside other characters: so does a pattern.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from flansible.models import Secrets
from flansible.worker.decoded_views import blank_controls, unchanged_runs, without_escapes

SHORTEST = 4
LONGEST = 512  # bytes of one pattern: a longer line is several, one after another
_SHORTEST_KEY_LINE = 16
_FEWEST_LITERALS = 3
_PEM_ARMOUR = "-----"
_WHITE = " \t\r\n\v\f"
_BLANKS = _WHITE + "+"  # a plus is a blank in URLs
_QUOTES = "\\'\""
_NEVER_ESCAPED = re.compile(r"[A-Za-z0-9_.-]")
_CONTROLS = {"\a": "a", "\b": "b", "\x1b": "eE", "\0": "0", "\x85": "N", "\xa0": "_", "\u2028": "L", "\u2029": "P"}

# Quoting beside a special character, and where YAML folds a line; an escaped line end is one. Each alternative begins
# in one way only, so that a mismatch is found in linear time.
_GLUE = rb"(?:(?<!\\)\\{1,16}[nr][ \t+]*|\r?\n[ \t+]*|[\\'\"][ \t+]*%s)"
_BLANK = rb"(?:(?<!\\)\\{1,16}[nrt]|[\s+\\'\"]%s)"
_COMMA = rb"|(?<=[\"'\s]),(?=[\s\\])"  # between the lines of a list
# What the beginning of a secret is compared without, at the end of the output so far.
DROPPED = bytes({*b" \t\r\n\v\f\\'\",+$\x7f", *range(0x20), *range(0x80, 0x100)})


class Beginning(NamedTuple):
    """What the end of the output is compared with: a secret without what is DROPPED."""

    skeleton: bytes
    gaps: frozenset[int]  # the places in it where quoting or a line end may be
    begins_dropped: bool  # something is dropped before it
    ends_dropped: bool


@dataclass
class SecretPattern:
    """One line of a secret, or a part of a very long one."""

    expression: bytes
    size: int  # bytes of the secret itself
    # The longest row of letters and digits: no encoder of text changes it. Empty if it is too short to search for.
    anchor: bytes
    beginnings: tuple[Beginning, ...]

    @cached_property
    def pattern(self) -> re.Pattern[bytes]:
        """The expression, compiled when the anchor was seen: a value of 64 KiB would take seconds."""
        return re.compile(self.expression)


def texts_of(secrets: Secrets) -> Iterator[str]:
    """Yields the lines of every value: without line ends, so that a complete line of output is never held back."""
    plain = [secrets.connection_password, secrets.become_password, secrets.private_key_passphrase]
    plain.append(secrets.agent_key_passphrase)
    of_git = [value for name, value in secrets.git_credential.items() if name not in ("user", "private_key")]
    named = (secrets.vault_passwords, secrets.variables, secrets.environment)
    for value in (*plain, *(value for one in named for value in one.values()), *of_git):
        yield from (value or "").splitlines()
    for key in (secrets.private_key, secrets.agent_key, secrets.git_credential.get("private_key")):
        yield from lines_of_key((key or "").splitlines())


def lines_of_key(lines: Iterable[str]) -> Iterator[str]:
    """Yields what is to be masked of a private key."""
    for line in lines:
        if len(line) >= _SHORTEST_KEY_LINE and not line.startswith(_PEM_ARMOUR):
            yield line


def patterns_of(texts: Iterable[str]) -> Iterator[SecretPattern]:
    """Yields the patterns of these lines, of each that is long enough."""
    parts = (part for text in texts if len(text) >= SHORTEST for part in _parts(text))
    for text in dict.fromkeys(part for part in parts if len(part) >= SHORTEST):
        value = text.encode("utf-8", "surrogatepass")
        plain = without_escapes(value)[0]
        variants = dict.fromkeys((text, plain.decode("utf-8", "surrogateescape")))
        expressions = [_expression(variant) for variant in variants]
        anchor = max(unchanged_runs(value), key=len, default=b"")
        yield SecretPattern(
            b"|".join(expressions),
            len(value),
            anchor if len(anchor) >= SHORTEST else b"",
            tuple(dict.fromkeys(_beginning(one) for one in (value, plain, blank_controls(plain)))),
        )


def _parts(text: str) -> Iterator[str]:
    stripped = text.strip()
    size = LONGEST // 4 if len(text.encode("utf-8", "surrogatepass")) > len(text) else LONGEST
    if len(stripped) <= size:
        yield stripped if len(stripped) >= SHORTEST else text
        return
    count = -(-len(stripped) // size)
    for number in range(count):
        yield stripped[number * len(stripped) // count : (number + 1) * len(stripped) // count]


def _expression(text: str) -> bytes:
    """Returns the regular expression of a text: see the head of the module."""
    if sum(char not in _BLANKS + _QUOTES for char in text) < _FEWEST_LITERALS:
        # Little but quotes and blanks: exactly as it is, and in few forms.
        forms = {text, json.dumps(text)[1:-1], repr(text)[1:-1], shlex.quote(text)[1:-1]} - {""}
        return b"|".join(re.escape(form.encode("utf-8", "surrogatepass")) for form in sorted(forms, key=len)[::-1])
    runs = re.findall(r"[A-Za-z0-9_.-]+|[^A-Za-z0-9_.-]+", text)
    made = []
    for number, run in enumerate(runs):
        if _NEVER_ESCAPED.match(run):
            made.append(re.escape(run.encode()))
        else:
            made.append(_special(run, is_first=number == 0, is_last=number == len(runs) - 1))
    return b"".join(made)


def _special(run: str, *, is_first: bool, is_last: bool) -> bytes:
    """Returns the expression of a row of other characters than letters and digits."""
    literals = [char for char in run if char not in _QUOTES + _BLANKS]
    between = re.split("[^" + re.escape(_QUOTES + _BLANKS) + "]", run)
    if not literals:
        return _between(run, run) + (b"{0,16}" if is_first or is_last else b"{1,128}")
    made = []
    for number, gap in enumerate(between):
        is_outer = (number == 0 and is_first) or (number == len(literals) and is_last)
        if gap.strip(_WHITE) or not is_outer:
            made.append(_between(gap, run) + (b"{0,16}" if is_outer else b"{0,128}"))
        elif gap:
            made.append(b"(?:" + re.escape(gap.encode()) + b")?")  # the secret has it as `%0b`
        if number < len(literals):
            made.append(_literal(literals[number]))
    return b"".join(made)


def _between(gap: str, run: str) -> bytes:
    """Returns the expression of quoting or blanks. The run's other characters are not in it: matching stays linear."""
    return (_BLANK if set(gap) & set(_BLANKS) else _GLUE) % (b"" if "," in run else _COMMA)


def _literal(char: str) -> bytes:
    """Returns an expression of one special character: as it is, as one byte (`\\xe9`), by a letter (`\\a`)."""
    if 0xDC80 <= ord(char) < 0xDD00:
        return re.escape(bytes([ord(char) - 0xDC00]))  # a byte that is no UTF-8: the secret has it as `%ff`
    forms = [re.escape(char.encode("utf-8", "surrogatepass"))]
    if 0x80 <= ord(char) < 0x100:
        forms.append(re.escape(bytes([ord(char)])))
    if char in _CONTROLS:
        forms.append(rb"\\{1,16}[" + _CONTROLS[char].encode() + b"]")
    return forms[0] if len(forms) == 1 else b"(?:" + b"|".join(forms) + b")"


def _beginning(text: bytes) -> Beginning:
    skeleton, gaps = bytearray(), set()
    for byte in text:
        if byte in DROPPED:
            gaps.add(len(skeleton))
        elif _NEVER_ESCAPED.match(chr(byte)):
            skeleton.append(byte)
        else:
            gaps |= {len(skeleton), len(skeleton) + 1}
            skeleton.append(byte)
    return Beginning(bytes(skeleton), frozenset(gaps), text[0] in DROPPED, text[-1] in DROPPED)
