"""The line of a part that is ready reaches whoever reads it, and ends nobody where none can."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from flansible.system import standard_output


def test_the_line_is_on_standard_output(capfd: pytest.CaptureFixture[str]) -> None:
    standard_output.write_line("It is ready")
    assert capfd.readouterr().out == "It is ready\n"


_PROGRAM = """
import os, sys
from flansible.system import standard_output
file = os.memfd_create("another file")
standard_output.write_line("It is ready")
sys.exit(os.fstat(file).st_size)
"""


@pytest.mark.parametrize("redirection", [">&-", ">/dev/full"])
def test_a_line_that_cannot_be_written_is_dropped(redirection: str) -> None:
    """Another file may have the number of a standard output that is closed."""
    command = ["bash", "-c", f'"$0" -c "$1" {redirection}', sys.executable, _PROGRAM]
    ended = subprocess.run(command, stderr=subprocess.PIPE)
    assert (ended.returncode, ended.stderr) == (0, b"")


def test_a_line_for_a_pipe_that_nobody_reads_is_dropped() -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        ended = subprocess.run([sys.executable, "-c", _PROGRAM], stdout=write, stderr=subprocess.PIPE)
    finally:
        os.close(write)
    assert (ended.returncode, ended.stderr) == (0, b"")
