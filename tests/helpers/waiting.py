"""Waiting for something, and what is missing on this machine."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def eventually(probe: Callable[[], Any], seconds: float = 30.0) -> Any:
    """Returns what `probe` returns once that is true; fails when it is not within these seconds.

    Probes often at first, then less and less: what is waited for needs the processor that probing takes.
    """
    began = time.monotonic()
    while not (found := probe()):
        waited = time.monotonic() - began
        assert waited < seconds, f"not within {seconds:g} s"
        pause(waited)
    return found


def pause(waited_seconds: float) -> None:
    time.sleep(min(0.1, max(0.01, waited_seconds / 4)))


def missing(what: str) -> None:
    """Skips the test and says so; in CI, where everything has to be there, fails it."""
    if os.environ.get("CI"):
        pytest.fail(f"{what} is missing, and CI is set: install it", pytrace=False)
    pytest.skip(f"{what} is missing on this machine; .ci/run installs it from Debian's packages")


def require_program(*names: str) -> str:
    """The path of the first of these programs that there is, on PATH or beside this Python; else see `missing`."""
    beside_python = str(Path(sys.executable).parent)
    for name in names:
        if found := shutil.which(name) or shutil.which(name, path=beside_python):
            return found
    missing(" or ".join(names))
    raise AssertionError("missing() has ended the test")


def require_browser() -> str:
    """Chromium without its windows, which takes a third less of the processor; the whole one where that is missing."""
    return require_program("chromium-headless-shell", "chromium")
