"""YAML read for its outline: what PyYAML's C code cannot survive must be refused before it gets there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from flansible.playbooks import contents, yaml_outline


def test_nodes_stand_as_they_are_written() -> None:
    node = yaml_outline.compose("- hosts: all\n  x: !vault |\n    abc\n")
    assert isinstance(node, yaml.SequenceNode)
    assert yaml_outline.compose("") is None


@pytest.mark.parametrize("text", ["{", "a: b: c", "\t- x", "&a *b", "\x01", "a: 1\n---\nb: 2\n"])
def test_what_is_no_single_document_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):
        yaml_outline.compose(text)


@pytest.mark.parametrize(
    "text", ["[" * 200_000, "{a: " * 200_000, "- " * 200_000, "[" * 101 + "]" * 101], ids=["[", "{", "-", "101"]
)
def test_what_is_nested_too_deep_ends_no_process(text: str, tmp_path: Path) -> None:
    path = tmp_path / "deep.yml"
    path.write_text(text)
    code = "import pathlib, sys; from flansible.playbooks import yaml_outline as module; "
    code += "module.compose(pathlib.Path(sys.argv[1]).read_text())"
    ended = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr.splitlines()[-1]) == (1, "ValueError: is nested deeper than 100 levels")
    assert contents.read(path) is None
    assert yaml_outline.compose("[" * 100 + "]" * 100) is not None


def test_a_pipe_among_the_playbooks_keeps_nobody_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "site.yml")
    assert contents.read(tmp_path / "site.yml") is None
