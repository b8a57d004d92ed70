"""Regular expressions take time in proportion to the text, whatever a user or a file gives them."""

from __future__ import annotations

import importlib
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

import flansible

sre: Any = importlib.import_module("re._parser")

# Such a search can neither be interrupted nor shares the interpreter: each has a process, which the kernel ends.
CODE = """
import resource, sys
from flansible.authorization import inventory_files, redaction
from flansible.worker import operator_config
resource.setrlimit(resource.RLIMIT_CPU, (5 + int(sum(resource.getrusage(resource.RUSAGE_SELF)[:2])),) * 2)
"""


@pytest.mark.parametrize(
    "search",
    [
        'assert not inventory_files._LIST.match("\\n" * 1000 + "x")',
        'assert not inventory_files._LIST.match("#c\\n\\n" * 1000)',
        'assert inventory_files._LIST.match("---\\n#c\\n \\n\\r\\n" * 1000 + "- hosts: a")',
        'assert not inventory_files._LARGE_YAML.search("\\n" * 1_000_000 + "x")',
        'assert not redaction._IS_SECRET.fullmatch("token" * 200_000 + "!")',
        'assert redaction._masked_text("token" * 200_000 + "=x y") == "token" * 200_000 + "=******** y"',
        'assert redaction._masked_text("token" * 200_000 + "!") == "token" * 200_000 + "!"',
        'assert redaction._masked_text("token" + " " * 1_000_000 + "!") == "token" + " " * 1_000_000 + "!"',
        'assert not operator_config._SECRET_VALUE.search("a://" + ":" * 1_000_000)',
    ],
)
def test_long_texts_take_no_more_time_than_their_length(search: str) -> None:
    child = subprocess.run([sys.executable, "-c", CODE + search], capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stderr


# Some of each class, and where classes of Unicode and of ASCII differ.
LETTERS = [*map(chr, range(256)), "\u2003", "\u017f", "\u65e5", "\udc80"]
# They match names, which have at most 255 characters.
OF_NAMES = {"flansible.authorization.inventory_files._USUAL_NAMES", "flansible.projects.requirements._NAMES_SERVER"}


class Automaton:
    """The states of an expression. Without lookarounds; what gives nothing back is no loop; counts are small."""

    def __init__(self, pattern: re.Pattern[Any]) -> None:
        self.edges: list[list[tuple[frozenset[str] | None, int]]] = []
        self.loops: list[int] = []
        self._flags = pattern.flags
        self._add(sre.parse(pattern.pattern, pattern.flags), self._state())
        self.closures = [self._reached([state], is_silent=True) for state in range(len(self.edges))]
        self.steps = [
            [(letters, after) for one in closure for letters, after in self.edges[one] if letters]
            for closure in self.closures
        ]

    def repeats_twice(self) -> bool:
        """Whether one text can go on in a loop, lead from it to another, and go on there: it may be divided anywhere,
        or both are one, and it goes two ways."""
        return any(
            self._divides(first, second)
            for first in self.loops
            for second in self.loops
            if first == second or (second in self._reached([first]) and first not in self._reached([second]))
        )

    def _divides(self, first: int, second: int) -> bool:
        seen = {(first, first, second, first != second)}
        waiting = list(seen)
        while waiting:
            one, two, three, differ = waiting.pop()
            for letters, after in self.steps[one]:
                for others, after_others in self.steps[two]:
                    for last, after_last in self.steps[three] if letters & others else ():
                        found = (after, after_others, after_last, differ or after != after_others)
                        if found in seen or not letters & others & last:
                            continue
                        seen.add(found)
                        waiting.append(found)
                        ends = zip((first, second, second), found[:3], strict=True)
                        if found[3] and all(loop in self.closures[state] for loop, state in ends):
                            return True
        return False

    def _reached(self, states: Iterable[int], is_silent: bool = False) -> set[int]:
        seen = set(states)
        waiting = list(seen)
        while waiting:
            after = {state for letters, state in self.edges[waiting.pop()] if not (is_silent and letters)} - seen
            seen |= after
            waiting += after
        return seen

    def _state(self, *before: int) -> int:
        self.edges.append([])
        for state in before:
            self.edges[state].append((None, len(self.edges) - 1))
        return len(self.edges) - 1

    def _add(self, items: Any, state: int) -> int:
        for item in items:
            state = self._add_one(str(item[0]), item, state)
        return state

    def _add_one(self, kind: str, item: Any, state: int) -> int:
        value = item[1]
        if kind in ("LITERAL", "NOT_LITERAL", "ANY", "IN"):
            after = self._state()
            self.edges[state].append((self._letters(item), after))
            return after
        if kind == "SUBPATTERN":
            return self._add(value[-1], state)
        if kind == "ATOMIC_GROUP":
            return self._add(value, state)
        if kind == "BRANCH":
            return self._state(*(self._add(one, state) for one in value[1]))
        if not kind.endswith("_REPEAT"):
            return state  # assertions
        least, most, body = value
        for _ in range(min(least, 2)):
            state = self._add(body, state)
        if kind == "POSSESSIVE_REPEAT" or most is not sre.MAXREPEAT:
            return self._state(state, self._add(body, state)) if most > least else state
        loop = self._state(state)
        self.edges[self._add(body, loop)].append((None, loop))
        self.loops.append(loop)
        return self._state(loop)

    def _letters(self, item: Any) -> frozenset[str]:
        kind, value = str(item[0]), item[1]
        if kind == "ANY":
            return frozenset(LETTERS) - ({"\n"} if not self._flags & re.DOTALL else set())
        parts = [(str(part), given) for part, given in (value if kind == "IN" else [(kind, value)])]
        found = {letter for letter in LETTERS for part, given in parts if _has(part, given, letter)}
        if self._flags & re.IGNORECASE:
            found |= {letter for letter in LETTERS if {letter.lower(), letter.upper()} & found}
        is_negated = kind == "NOT_LITERAL" or parts[0][0] == "NEGATE"
        return frozenset(LETTERS) - found if is_negated else frozenset(found)


def _has(part: str, value: Any, letter: str) -> bool:
    if part == "RANGE":
        return bool(value[0] <= ord(letter) <= value[1])
    if part == "CATEGORY":
        name = str(value).removeprefix("CATEGORY_")
        is_one = re.match({"D": r"\d", "S": r"\s", "W": r"\w"}[name.removeprefix("NOT_")[0]], letter) is not None
        return is_one != name.startswith("NOT_")
    return part in ("LITERAL", "NOT_LITERAL") and ord(letter) == value


def patterns() -> Iterator[tuple[str, re.Pattern[Any]]]:
    """Yields the expressions of all modules but the runner's, which a run has for itself."""
    for module in pkgutil.walk_packages(flansible.__path__, "flansible."):
        if not module.name.startswith("flansible.runner") and not module.name.endswith("__main__"):
            for name, value in vars(importlib.import_module(module.name)).items():
                for one in value if isinstance(value, tuple) else (value,):
                    if isinstance(one, re.Pattern):
                        yield f"{module.name}.{name}", one


@pytest.mark.parametrize("pattern", [r"(?:\s*(?:#.*)?\n)*-", r"[\w.-]*token[\w.-]*", "(a+)+", r"\s*\s*x"])
def test_repeats_that_share_their_text_are_found(pattern: str) -> None:
    assert Automaton(re.compile(pattern)).repeats_twice()


@pytest.mark.parametrize("pattern", [r"\w+(?:\.\w+)*", r"[\w.-]*+token", r"a*b[ab]*", r"\s*=\s*"])
def test_repeats_that_share_nothing_are_left(pattern: str) -> None:
    assert not Automaton(re.compile(pattern)).repeats_twice()


def test_no_expression_has_two_repeats_that_share_their_text() -> None:
    assert {name for name, pattern in patterns() if Automaton(pattern).repeats_twice()} == OF_NAMES
