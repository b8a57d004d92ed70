"""The result of one check of the doctor: a line, with advice where needed."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class Mark(StrEnum):
    """The outcome of a check; only FAIL makes the exit code 1."""

    OK = "ok"
    WARN = "warn"
    FAIL = "FAIL"


@dataclass(frozen=True)
class Check:
    """One line: what was checked, what was found, and for a warning or failure what to do."""

    mark: Mark
    subject: str
    found: str
    advice: str = ""

    def __str__(self) -> str:
        text = f"{self.mark:<4} {self.subject}: {self.found}" + (f"; {self.advice}" if self.advice else "")
        masked = re.sub(r"://\S*@", "://***@", text)
        return "".join(char if char.isprintable() else " " for char in masked)


def quoted(path: Path) -> str:
    """Quotes a path for a shell."""
    return shlex.quote(str(path))
