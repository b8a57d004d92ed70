"""What a playbook's files say of it, read for their outline: nothing is constructed, nothing outside is looked into."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from flansible.models import ListedVariable
from flansible.playbooks import contents, yaml_outline

ASKING = """\
#!/usr/bin/env ansible-playbook
# Deploys it.
#
#   Slowly.
---
- name: Deploy
  hosts: [web, db]
  vars_prompt:
    - name: db_password
      prompt: "Password of the database "
    - {name: colour, prompt: Colour, private: false, default: red}
    - {name: "not a name", default: 1}
    - just text
  vars:
    port: 0o17
    old: 017
    size: 12:30
    on_off: yes
    ratio: 1.5
    word: "7"
    secret: !vault |
      $ANSIBLE_VAULT;1.1;AES256
    template: "{{ port }}"
    items: [1]
  roles:
    - first
    - {role: second}
    - ../outside
    - collection.of.somebody
- import_playbook: other.yml
- hosts: all
"""


def written(tmp_path: Path, text: str, name: str = "site.yml") -> Path:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def variables(path: Path, root: Path | None = None) -> dict[str, ListedVariable]:
    found = contents.read(path)
    assert found is not None
    top = root or path.parent
    return {one.name: one for one in contents.variables(found, path, lambda file: file.is_relative_to(top))}


def test_the_comment_at_the_top_is_the_description(tmp_path: Path) -> None:
    found = contents.read(written(tmp_path, ASKING))
    assert found is not None
    assert found.description == "Deploys it.\n\nSlowly."
    plain = contents.read(written(tmp_path, "- hosts: all\n# late\n"))
    assert plain is not None and plain.description == ""


def test_plays_have_names_and_hosts(tmp_path: Path) -> None:
    found = contents.read(written(tmp_path, ASKING))
    assert found is not None
    assert [(play.play, play.hosts) for play in found.plays] == [
        ("Deploy", "web,db"),
        ("other.yml", ""),
        ("all", "all"),
    ]


def test_prompts_are_asked_for_and_are_secrets_unless_they_say_otherwise(tmp_path: Path) -> None:
    found = variables(written(tmp_path, ASKING))
    asked, chosen = found["db_password"], found["colour"]
    assert (asked.source, asked.required, asked.private) == ("vars_prompt", True, True)
    assert (asked.description, asked.play) == ("Password of the database", "Deploy")
    assert (chosen.required, chosen.private, chosen.default) == (False, False, "red")
    assert "not a name" not in found


@pytest.mark.parametrize("default", ["!unsafe abcd", "!vault x", '""', "no", "0", "[]"])
def test_a_prompt_with_any_default_but_null_needs_no_value(tmp_path: Path, default: str) -> None:
    path = written(
        tmp_path, f"- hosts: all\n  vars_prompt: [{{name: u, default: {default}}}, {{name: v, default: ~}}]\n"
    )
    assert [(one.name, one.required) for one in variables(path).values()] == [("u", False), ("v", True)]


def prompts(*paths: Path) -> list[str]:
    return [one.name for one in contents.prompts(paths, lambda path: True)]


def test_a_file_is_parsed_for_its_prompts_once_until_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed = []
    compose = yaml_outline.compose
    monkeypatch.setattr(yaml_outline, "compose", lambda text: parsed.append(text) or compose(text))
    written(tmp_path, "- hosts: all\n  roles: [x]\n", "plain.yml")
    path = written(tmp_path, "- hosts: all\n  vars_prompt: [{name: a}]\n- import_playbook: plain.yml\n")
    importing = written(tmp_path, "- import_playbook: site.yml\n- import_playbook: plain.yml\n", "b.yml")
    for _ in range(2):
        assert prompts(path, importing, path, importing, tmp_path / "absent.yml") == ["a"]
    assert len(parsed) == 2  # plain.yml neither prompts nor imports
    path.write_text("- hosts: all\n  vars_prompt: [{name: longer}]\n")
    assert prompts(importing) == ["longer"] and len(parsed) == 3


def test_prompts_of_too_large_or_too_many_files_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, "- hosts: all\n  vars_prompt: [{name: a}]\n")
    half = [written(tmp_path, "- hosts: all\n" + "#" * 70_000, f"{name}.yml") for name in "bc"]
    assert prompts(path, half[0]) == ["a"]
    monkeypatch.setattr(yaml_outline, "compose", None)  # it would fail
    assert prompts(*half, written(tmp_path, "- hosts: all\n  vars_prompt: [{name: d}]\n", "d.yml")) == []
    many = [written(tmp_path, "- hosts: all\n", f"many/{number}.yml") for number in range(100)]
    assert prompts(*many, path) == []


@pytest.mark.parametrize(
    ("name", "kind", "default"),
    [
        ("port", "str", "0o17"),
        ("old", "int", 15),
        ("size", "str", "12:30"),
        ("on_off", "bool", True),
        ("ratio", "float", 1.5),
        ("word", "str", "7"),
        ("secret", "str", None),
    ],
)
def test_simple_values_of_plays_have_their_types(tmp_path: Path, name: str, kind: str, default: Any) -> None:
    found = variables(written(tmp_path, ASKING))[name]
    assert (found.source, found.type, found.default, found.required) == ("vars", kind, default, False)
    assert found.private == (name == "secret")


def test_templates_and_lists_are_no_simple_values(tmp_path: Path) -> None:
    assert not {"template", "items"} & variables(written(tmp_path, ASKING)).keys()


SPECS = """\
argument_specs:
  main:
    short_description: It
    options:
      level: {type: int, required: true, choices: [1, 2], description: How much}
      names: {type: list, default: [a, b], description: [Who, and who else]}
      key: {no_log: true}
      odd: {type: jsonarg, default: !unsafe x}
  other:
    options:
      never: {}
"""


def test_roles_beside_the_playbook_say_what_they_take(tmp_path: Path) -> None:
    written(tmp_path, SPECS, "roles/first/meta/argument_specs.yml")
    written(tmp_path, SPECS.replace("level", "other_level"), "roles/second/meta/main.yml")
    written(tmp_path, SPECS.replace("level", "outside_level"), "outside/meta/main.yml")
    found = variables(written(tmp_path, ASKING))
    level, names = found["level"], found["names"]
    assert (level.source, level.role, level.type, level.required) == ("argument_specs", "first", "int", True)
    assert (level.choices, level.description, names.description) == ([1, 2], "How much", "Who and who else")
    assert names.default == ["a", "b"]
    assert (found["key"].private, found["key"].type, found["odd"].type, found["odd"].default) == (
        True,
        "str",
        "raw",
        None,
    )
    assert found["other_level"].role == "second"
    assert not {"outside_level", "never"} & found.keys()


INCLUDING = """\
- hosts: all
  pre_tasks:
    - include_role: {name: included, tasks_from: other.yml}
  tasks: &tasks
    - block:
        - ansible.builtin.import_role: {name: ns.coll.imported}
      rescue: *tasks
    - include_role: {name: "{{ which }}"}
    - include_role: {name: ../outside}
  roles: [on_the_path, ns.other.listed]
"""


def test_roles_that_are_included_on_roles_path_and_in_collections_say_what_they_take(tmp_path: Path) -> None:
    def specs(option: str) -> str:
        return SPECS.replace("level", option).replace("never", f"other_{option}")

    written(tmp_path, specs("included"), "roles/included/meta/argument_specs.yml")
    written(tmp_path, specs("imported"), "collections/ansible_collections/ns/coll/roles/imported/meta/main.yml")
    written(tmp_path, specs("listed"), "more/ansible_collections/ns/other/roles/listed/meta/argument_specs.yml")
    written(tmp_path, specs("on_path"), "shared/on_the_path/meta/argument_specs.yml")
    written(tmp_path, specs("outside"), "outside/meta/argument_specs.yml")
    written(tmp_path, "[defaults]\nroles_path = nowhere:./shared\ncollections_path = more\n", "ansible.cfg")
    found = variables(written(tmp_path, INCLUDING))
    mine = {name: one.role for name, one in found.items() if name in INCLUDED_OPTIONS}
    assert mine == {
        "other_included": "included",
        "imported": "ns.coll.imported",
        "on_path": "on_the_path",
        "listed": "ns.other.listed",
    }


INCLUDED_OPTIONS = {f"{prefix}{name}" for prefix in ("", "other_") for name in ("included", "imported", "on_path")}
INCLUDED_OPTIONS |= {"listed", "other_listed", "outside", "other_outside"}


@pytest.mark.parametrize("text", ["roles_path = x", "[defaults", "[defaults]\nroles_path = a\0b", "[other]\n", "\xff"])
def test_an_ansible_cfg_that_cannot_be_read_names_no_folder(tmp_path: Path, text: str) -> None:
    (tmp_path / "ansible.cfg").write_text(text, encoding="latin-1")
    assert variables(written(tmp_path, "- hosts: all\n  roles: [x]\n")) == {}


def test_imported_playbooks_say_what_they_take_each_once(tmp_path: Path) -> None:
    written(tmp_path, SPECS, "more/roles/first/meta/argument_specs.yml")
    written(tmp_path, "- hosts: all\n  roles: [first]\n- import_playbook: ../site.yml\n", "more/other.yml")
    text = '- import_playbook: more/other.yml\n- import_playbook: more/other.yml\n- import_playbook: "a\\0b"\n'
    assert variables(written(tmp_path, text))["level"].role == "first"


def test_a_role_that_leads_out_is_not_read(tmp_path: Path) -> None:
    written(tmp_path, SPECS, "elsewhere/meta/argument_specs.yml")
    path = written(tmp_path, ASKING, "playbooks/site.yml")
    (path.parent / "roles").mkdir()
    (path.parent / "roles/first").symlink_to(tmp_path / "elsewhere")
    assert "level" in variables(path, tmp_path)
    assert "level" not in variables(path)


def test_aliases_that_make_a_billion_of_a_few_lines_are_cut_short(tmp_path: Path) -> None:
    lines = ["x0: &x0 [a, a, a, a, a, a, a, a, a, a]"]
    lines += [f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 10)}]" for n in range(1, 10)]
    node = yaml_outline.compose("\n".join(lines))
    began = time.thread_time()
    yaml_outline.value(node)
    assert time.thread_time() - began < 2


@pytest.mark.parametrize("text", ["", "{}", "- just text\n", "- tasks: []\n", "{{", "- !x y\n"])
def test_what_is_no_playbook_is_none(tmp_path: Path, text: str) -> None:
    assert contents.read(written(tmp_path, text)) is None
