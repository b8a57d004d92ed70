"""Values of whoever launched a template are data in a run with admin's rights, wherever a play uses them."""

from __future__ import annotations

from pathlib import Path

import pytest

from flansible.models import State, Step
from tests.helpers.runs import Worker

PLAY = """\
- name: Uses {{ word }}
  hosts: "{{ target | default('all') }}"
  gather_facts: false
  vars:
    nested: "{{ word }}"
    deeper: "[{{ nested }}]"
    looked: "{{ lookup('vars', 'word') }}"
    indirect: "{{ hostvars[inventory_hostname].word }}"
  tasks:
    - name: Say {{ word }}
      debug: {msg: "{{ deeper }} {{ word | upper | lower }} {{ looked }} {{ indirect }}"}
    - debug: {msg: "{{ item }}"}
      loop: "{{ [word, nested, lookup('vars', 'nested')] }}"
    - set_fact: {kept: "{{ word }}"}
    - debug: {var: kept}
    - debug: {var: word}
    - copy: {content: "{{ word }}", dest: "{{ place }}", mode: "0644"}
    - template: {src: word.j2, dest: "{{ place }}.j2", mode: "0644"}
    - command: {argv: [echo, "{{ word }}"]}
    - add_host: {name: "added", note: "{{ word }}"}
    - debug: {msg: "{{ hostvars.added.note }}"}
    - include_vars: {file: more.yml}
    - debug: {msg: "{{ from_file }}"}
    - assert: {that: ["word is string", "nested == word"]}
"""
MARKS = {
    "a lookup": "{{ lookup('pipe', 'touch MARK') }}",
    "a statement": "{% set x = lookup('pipe', 'touch MARK') %}{{ x }}",
    "within text": "a {{ query('pipe', 'touch MARK') }} b",
    "a comment around it": "{# #}{{ lookup('pipe', 'touch MARK') }}",
    "a header of templates": "#jinja2: variable_start_string:'{{'\n{{ lookup('pipe', 'touch MARK') }}",
    "an unsafe tag": "!unsafe {{ lookup('pipe', 'touch MARK') }}",
    "JSON of Ansible's own": '{"__ansible_type": "TrustedAsTemplate", "v": "{{ lookup(\'pipe\', \'touch MARK\') }}"}',
    "an expression": "lookup('pipe', 'touch MARK')",
}


def step(place: Path, **launch_vars: object) -> Step:
    """The step of a playbook of admin's, whose own variables are on its command line."""
    (place / "t.yml").write_text(PLAY)
    (place / "word.j2").write_text("{{ word }} {{ nested }}\n")
    (place / "more.yml").write_text('from_file: "{{ word }}"\n')
    own = '--extra-vars={"place": "{{ playbook_dir }}/out", "word": "of the template"}'
    local = "ansible_connection=local ansible_python_interpreter='{{ ansible_playbook_python }}'"
    (place / "hosts").write_text(f"h1 {local}\n")
    argv = (own, "-i", "hosts", "--", "t.yml")
    return Step(program="ansible-playbook", argv=argv, cwd=str(place), launch_vars=launch_vars)  # type: ignore[arg-type]


@pytest.mark.by_day(3)
@pytest.mark.parametrize("name", MARKS)
def test_a_value_is_never_evaluated(ansible: Worker, tmp_path: Path, name: str) -> None:
    mark = tmp_path / "mark"
    word = MARKS[name].replace("MARK", str(mark))
    nested = {"word": word, word: [word, {"__ansible_type": "TrustedAsTemplate", "value": word}]}
    ended = ansible.run_steps(step(tmp_path, word=word, data=nested))
    assert ended.outcome.state is State.SUCCEEDED, ended.text
    assert not mark.exists(), ended.text
    assert (tmp_path / "out").read_text() == word
    assert (tmp_path / "out.j2").read_text().startswith(word)


def test_a_target_that_is_a_template_selects_no_host(ansible: Worker, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    target = f"{{{{ lookup('pipe', 'touch {mark}; echo all') }}}}"
    ended = ansible.run_steps(step(tmp_path, target=target))
    assert not mark.exists() and "ok: [h1]" not in ended.text, ended.text


def test_values_win_over_the_variables_of_the_template_which_stay_templates(ansible: Worker, tmp_path: Path) -> None:
    ended = ansible.run_steps(step(tmp_path, word="launched"))
    assert ended.outcome.state is State.SUCCEEDED and (tmp_path / "out").read_text() == "launched"
