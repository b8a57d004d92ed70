"""YAML read for its outline: what PyYAML's C code cannot survive must be refused before it gets there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from flansible import outline, playbook_files


def test_nodes_stand_as_they_are_written() -> None:
    node = outline.compose("- hosts: all\n  x: !vault |\n    abc\n")
    assert isinstance(node, yaml.SequenceNode)
    assert outline.compose("") is None


@pytest.mark.parametrize("text", ["{", "a: b: c", "\t- x", "&a *b", "\x01", "a: 1\n---\nb: 2\n"])
def test_what_is_no_single_document_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):
        outline.compose(text)


@pytest.mark.parametrize(
    "text", ["[" * 200_000, "{a: " * 200_000, "- " * 200_000, "[" * 101 + "]" * 101], ids=["[", "{", "-", "101"]
)
def test_what_is_nested_too_deep_ends_no_process(text: str, tmp_path: Path) -> None:
    path = tmp_path / "deep.yml"
    path.write_text(text)
    code = "import pathlib, sys; from flansible import outline; outline.compose(pathlib.Path(sys.argv[1]).read_text())"
    ended = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr.splitlines()[-1]) == (1, "ValueError: is nested deeper than 100 levels")
    assert playbook_files.read(path) is None
    assert outline.compose("[" * 100 + "]" * 100) is not None


def test_a_pipe_among_the_playbooks_keeps_nobody_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "site.yml")
    assert playbook_files.read(tmp_path / "site.yml") is None
