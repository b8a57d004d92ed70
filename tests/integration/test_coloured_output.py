"""Output with colours: as Ansible colours each line, wherever it is cut and however its marks are stored."""

from __future__ import annotations

import random

import pytest

from flansible.store import Batch, Claim, ColourMark, Progress, Store
from flansible.web.resources.coloured_output import Reader
from tests.helpers.runs import make_run, new_id

CODES = ("0;31", "0;32", "38;5;255")


class Printed:
    """Texts as Ansible prints them, some in a colour."""

    def __init__(self, seed: int) -> None:
        chance = random.Random(seed)
        self.plain, self.coloured = b"", b""
        self.marks: list[ColourMark] = []  # around each text, as runs print them
        self.marks_of_lines: list[ColourMark] = []  # around each line, as they were stored before
        for _ in range(30):
            lines = ["x" * chance.choice((0, 0, 1, 7)) for _ in range(chance.randint(1, 4))]
            self._print(lines, chance.choice((None, *CODES)), "\n" * chance.randint(0, 1))

    def _print(self, lines: list[str], code: str | None, end: str) -> None:
        text = "\n".join(lines).encode()
        if code is not None:
            offset = len(self.plain)
            self.marks += [ColourMark(offset, code), ColourMark(offset + len(text), "0")]
            for line in lines:
                self.marks_of_lines += [ColourMark(offset, code), ColourMark(offset + len(line), "0")]
                offset += len(line) + 1
            self.coloured += "\n".join(f"\x1b[{code}m{line}\x1b[0m" for line in lines).encode()
        else:
            self.coloured += text
        self.plain += text + end.encode()
        self.coloured += end.encode()


def stored(store: Store, text: bytes, marks: list[ColourMark]) -> str:
    task_id = new_id()
    store.submit(task_id, make_run())
    claim = store.claim(task_id, "worker")
    assert isinstance(claim, Claim)
    answer = store.append(task_id, claim.token, Batch(Progress(), text, (), tuple(marks)))
    assert answer.outcome == "running"
    return task_id


def read(store: Store, task_id: str, start: int, end: int, most: int) -> bytes:
    reader, gathered = Reader(store, task_id, True), b""
    while start < end:
        chunk, start = reader.read(start, end, most)
        gathered += chunk
    return gathered


@pytest.mark.parametrize("seed", range(12))
def test_each_line_has_its_colour_whatever_the_chunks_and_the_marks(store: Store, seed: int) -> None:
    printed = Printed(seed)
    size = len(printed.plain)
    for marks in (printed.marks, printed.marks_of_lines):
        task_id = stored(store, printed.plain, marks)
        for most in (1, 2, 5, 17, size):
            assert read(store, task_id, 0, size, most) == printed.coloured, most


def test_a_part_of_a_coloured_text_begins_in_its_colour(store: Store) -> None:
    task_id = stored(store, b"one\ntwo\nthree\nfour", [ColourMark(0, "0;31"), ColourMark(13, "0")])
    assert read(store, task_id, 4, 8, 100) == b"\x1b[0;31mtwo\x1b[0m\n"
    assert read(store, task_id, 8, 18, 100) == b"\x1b[0;31mthree\x1b[0m\nfour"
    assert read(store, task_id, 14, 18, 100) == b"four"
