"""Files of definitions: what they may hold, and that each fault names its file and line."""

from __future__ import annotations

from pathlib import Path

import pytest

from flansible.client import definition_files
from flansible.client.definition_commands import ADDED
from flansible.definitions.kinds import KINDS
from flansible.errors import OptionError


def read(folder: Path, text: str, name: str = "one.yml") -> list[definition_files.FileDefinition]:
    (folder / name).write_text(text, encoding="utf-8")
    return definition_files.read([str(folder)])


def faults(folder: Path, text: str, name: str = "one.yml") -> list[str]:
    with pytest.raises(OptionError) as caught:
        read(folder, text, name)
    return str(caught.value).replace(f"{folder}/", "").splitlines()


def test_a_file_has_several_documents_and_a_folder_several_files(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    read(tmp_path / "more", '{"kind": "searches", "name": "c", "spec": {"state": "lost"}}', "three.json")
    (tmp_path / "README.md").write_text("not a definition")
    (tmp_path / ".hidden.yml").write_text("[")
    text = "kind: searches\nname: a\nspec:\n  state: failed\n---\nkind: searches\nname: b\n---\n"
    found = read(tmp_path, text)
    assert [(one.name, one.spec) for one in found] == [("c", {"state": "lost"}), ("a", {"state": "failed"}), ("b", {})]


def test_a_value_is_found_by_its_path(tmp_path: Path) -> None:
    [one] = read(tmp_path, "kind: searches\nname: a\nspec:\n  shared_with:\n    - ops\n    - dev\n  state: x\n")
    lines = [one.place(path).rpartition(":")[2] for path in ("spec.state", "spec.shared_with[1]", "name", "spec.none")]
    assert lines == ["7", "6", "2", "4"]


def test_anchors_and_merges_are_resolved_and_dates_stay_text(tmp_path: Path) -> None:
    text = "kind: searches\nname: a\nspec:\n  base: &base {text: x}\n  more: {<<: *base, on: 2026-01-31}\n"
    [one] = read(tmp_path, text)
    assert one.spec["more"] == {"text": "x", "on": "2026-01-31"}


def test_only_true_and_false_are_boolean(tmp_path: Path) -> None:
    [one] = read(tmp_path, "kind: searches\nname: a\nspec: {on: yes, off: [no, true, False, truest, ~, 1, 1.5]}\n")
    assert one.spec == {"on": "yes", "off": ["no", True, False, "truest", None, 1, 1.5]}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("kind: searches\nname: a\nspex: {}\n", "one.yml:3: unknown key spex; a definition has kind, name, spec"),
        ("kind: searches\nspec: {}\n", "one.yml:1: name is missing"),
        ("kind: searches\nname: 7\n", "one.yml:2: name must be text"),
        ("kind: searches\nname: a\nspec: [1]\n", "one.yml:3: spec must be a mapping"),
        ("- 1\n", "one.yml:1: must have the keys kind, name, spec"),
        ("kind: searches\nname: a\nname: b\n", "one.yml:3: name occurs twice"),
        ("kind: searches\nname: a\nspec: {text: .nan}\n", "one.yml:3: '.nan' is no text, number, true, false or null"),
        ("kind: searches\nname: a\nspec: {text: !!binary YQ==}\n", "one.yml:3: 'YQ==' is no text"),
        ("kind: searches\nname: a\nspec:\n  1: x\n", "one.yml:4: a key must be text; put it in quotes"),
        ("kind: searches\nname: a: b\n", "one.yml:2: is not YAML: mapping values are not allowed here"),
        ("kind: !!python/object:os.system x\nname: a\n", "one.yml:1: 'x' is no text"),
        ("kind: searches\nname: a\n---\nkind: searches\nname: a\n", "one.yml:5: searches/a is also in one.yml:2"),
        (f"kind: searches\nname: a\nspec: {'[' * 70}{']' * 70}\n", "one.yml:3: is nested deeper than 64 levels"),
    ],
)
def test_a_fault_names_its_file_and_line(tmp_path: Path, text: str, expected: str) -> None:
    found = faults(tmp_path, text)
    assert found[0].startswith(expected) and found[-1] == "Nothing was applied"


def test_every_fault_of_every_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "two.yml").write_text("kind: searches\nname: b\nx: 1\n")
    assert [line.partition(": ")[0] for line in faults(tmp_path, "kind: searches\n")[:-1]] == ["one.yml:1", "two.yml:3"]


def test_aliases_that_make_billions_end_at_once(tmp_path: Path) -> None:
    text = "kind: searches\nname: a\nspec:\n  a: &a [x, x, x, x, x, x, x, x, x, x]\n"
    for before, after in zip("abcdefgh", "bcdefghi", strict=True):
        text += f"  {after}: &{after} [{', '.join([f'*{before}'] * 10)}]\n"
    assert "more than" in faults(tmp_path, text)[0]


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="cannot be read: No such file"):
        definition_files.read([str(tmp_path / "none.yml")])
    with pytest.raises(OptionError, match="has no file that ends with"):
        definition_files.read([str(tmp_path)])
    (tmp_path / "latin.yml").write_bytes(b"kind: \xff\n")
    with pytest.raises(OptionError, match="is not UTF-8"):
        definition_files.read([str(tmp_path)])


def test_what_the_service_adds_to_a_definition_is_left_out_of_files() -> None:
    written = {name for kind in KINDS for name in kind.spec.model_fields}
    shown = {name for kind in KINDS for name in kind.reply.model_fields}
    assert shown - written == ADDED
