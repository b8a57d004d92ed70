"""What every check of the doctor is: one line, with what to do where one is needed."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class Mark(StrEnum):
    """How a check came out; FAIL alone makes the exit code 1."""

    OK = "ok"
    WARN = "warn"
    FAIL = "FAIL"


@dataclass(frozen=True)
class Check:
    """One line: what was looked at, what was found, and for a warning or a failure what to do."""

    mark: Mark
    subject: str
    found: str
    advice: str = ""

    def __str__(self) -> str:
        text = f"{self.mark:<4} {self.subject}: {self.found}" + (f"; {self.advice}" if self.advice else "")
        masked = re.sub(r"://\S*@", "://***@", text)
        return "".join(char if char.isprintable() else " " for char in masked)


def quoted(path: Path) -> str:
    """A path as it can be pasted into a shell."""
    return shlex.quote(str(path))
