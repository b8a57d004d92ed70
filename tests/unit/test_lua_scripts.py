"""The files of Lua scripts: whole, documented, each used, and in step with the Python that calls them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import flansible.store
from flansible.store.scripts import SCRIPTS
from flansible.store.status import STATUS_FIELDS

FOLDER = Path(flansible.store.__file__).parent
COMMON = sorted((FOLDER / "lua/common").glob("*.lua"))


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_head_of_each_script_names_its_keys_and_arguments(name: str) -> None:
    head = re.match(r"(--.*\n)+", (FOLDER / f"lua/{name}.lua").read_text())
    assert head is not None and "-- KEYS: " in head[0] and "-- ARGV: " in head[0]
    assert ("-- Returns " in head[0]) == (name != "mark_enqueued"), "what does it return?"


@pytest.mark.parametrize("name", SCRIPTS)
def test_each_script_has_the_common_parts_that_its_parts_need(name: str) -> None:
    source = SCRIPTS[name].source
    assert "-- include" not in source
    for part in COMMON:
        if part.read_text() in source:
            for needed in re.findall(r"Needs common/(\w+)", part.read_text()):
                before = source.partition(part.read_text())[0]
                assert (FOLDER / f"lua/common/{needed}.lua").read_text() in before, f"{part.stem} needs {needed}"


def test_each_script_and_each_common_part_is_used() -> None:
    python = "".join(path.read_text() for path in FOLDER.glob("*.py"))
    used = set(re.findall(r'(?:_run\(\s*|SCRIPTS\[)"(\w+)"', python))
    assert used == set(SCRIPTS)
    everything = "".join(script.source for script in SCRIPTS.values())
    assert [part.stem for part in COMMON if part.read_text() not in everything] == []


def test_a_status_is_made_of_the_fields_that_its_script_reads() -> None:
    """They stand in the script: as arguments they would make each poll slower."""
    read = re.search(r"'HMGET', KEYS\[1\], ([^)]*)\)", SCRIPTS["status"].source)
    assert read is not None and tuple(re.findall(r"'(\w+)'", read[1])) == STATUS_FIELDS
