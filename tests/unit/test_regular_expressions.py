"""Regular expressions take time in proportion to the text, whatever a user or a file gives them."""

from __future__ import annotations

import subprocess
import sys

import pytest

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
