"""Plays made at random of what Ansible's main process may run itself, and of what it may not, side by side."""

from __future__ import annotations

import random
import textwrap
from pathlib import Path

from tests.helpers.services import write

# Notes every call of a callback method that both sides make, with all that is in a result.
CALLBACK = """
import json, multiprocessing.process, os
from ansible.plugins.callback import CallbackBase
class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "noted"
    def _note(self, *what):
        with open(os.environ["NOTED"], "a") as file:
            print(json.dumps(what, sort_keys=True, default=str), file=file)
    def v2_playbook_on_task_start(self, task, is_conditional):
        self._note("task", task.get_name())
    def v2_playbook_on_handler_task_start(self, task):
        self._note("handler", task.get_name())
    def v2_playbook_on_notify(self, handler, host):
        self._note("notify", handler.get_name(), host.name)
    def v2_playbook_on_include(self, included_file):
        self._note("include", sorted(host.name for host in included_file._hosts))
    def v2_runner_on_start(self, host, task):
        self._note("start", host.name, task.get_name())
    def v2_runner_on_ok(self, result):
        self._note("ok", result._host.name, result._result)
    def v2_runner_on_failed(self, result, ignore_errors=False):
        self._note("failed", result._host.name, ignore_errors, result._result)
    def v2_runner_on_skipped(self, result):
        self._note("skipped", result._host.name, result._result)
    def v2_runner_on_unreachable(self, result):
        self._note("unreachable", result._host.name, result._result)
    def v2_runner_item_on_ok(self, result):
        self._note("item ok", result._host.name, result._result)
    def v2_runner_item_on_failed(self, result):
        self._note("item failed", result._host.name, result._result)
    def v2_runner_item_on_skipped(self, result):
        self._note("item skipped", result._host.name, result._result)
    def v2_playbook_on_stats(self, stats):
        self._note("stats", {host: stats.summarize(host) for host in stats.processed}, stats.custom)
"""
FILES = {
    "hosts": """
[a]
one flag=true nested='{"inner": ["{{ own }}", 2]}'
two flag=false
three own=named
[b]
three
four number=4
[all:vars]
ansible_connection=local
own={{ inventory_hostname | upper }}
""",
    "group_vars/all.yml": "everyone: [1, 2, {three: '{{ own }}'}]\nlazy: '{{ late | default(\"early\") }}'\n",
    "group_vars/b/main.yml": "of_b: b {{ own }}\n",
    "host_vars/two.yml": "number: 2\nsecret_word: hidden {{ own }}\n",
    "more.yml": "from_file: read {{ own }}\n",
    "included.yml": "- debug: msg=included {{ given | default('nothing') }} {{ item | default('') }}\n"
    "- set_fact: {seen: '{{ given | default(1) }}'}\n- debug: {var: seen}\n  when: flag | default(true) | bool\n",
    "roles/plain/defaults/main.yml": "setting: default {{ own }}\n",
    "roles/plain/meta/argument_specs.yml": "argument_specs: {main: {options: {setting: {type: str}}}}\n",
    "roles/plain/tasks/main.yml": "- name: of {{ setting }}\n  debug: {var: setting}\n- include_tasks: more.yml\n",
    "roles/plain/tasks/more.yml": "- debug: msg=more\n  notify: told\n  changed_when: true\n",
    "roles/plain/handlers/main.yml": "- name: told\n  debug: msg=told {{ inventory_hostname }}\n",
}
OWN_FILTER = (
    "class FilterModule:\n    def filters(self):\n        return {'shout': lambda text: str(text).upper() + '!'}\n"
)
VALUES = (
    "{{ inventory_hostname }}", "{{ own }} and {{ lazy }}", "{{ nested.inner[0] | default('none') }}", "plain text",
    "{{ everyone[2].three }}", "{{ hostvars['one'].own }}", "{{ hostvars['two'].fact | default('unset') }}",
    "{{ 1 + 1 }}",
    "{{ groups['b'] | join(',') }}", "{{ registered.msg | default(registered) | default('nothing yet') }}",
    "{{ fact | default('no fact') }}", "{{ absent }}", "{{ absent.deeper }}", "{{ own | no_such_filter }}",
    "{{ own | int }}",
    "{{ everyone | map('string') | list }}", "{{ {'a': own, 'b': [number | default(0)]} }}", "{{ own | shout }}",
    "{{ everyone.append(9) }}{{ everyone }}", "{{ lookup('env', 'HOME') | length > 0 }}",
    "{{ lookup('pipe', 'echo x') }}",
    "{{ ansible_play_hosts | length }}", "{{ play_hosts }}", "{{ hostvars['localhost'].inventory_hostname }}",
    "{{ query('sequence', 'count=2') }}", "{{ vars.own | default('no vars') }}", "{{ own ", "{{ loops }}", "{{ omit }}",
    "{{ from_file | default('no file') }}", "{{ lookup('vars', 'own') }}", "{{ '{{ own }}' }}",
    "{{ undef(hint='why') }}",
    "{{ 'x' | regex_replace('(', 'y') }}", "{{ secret_word | default('open') }}",
    "{{ of_b | default('not b') | quote }}",
    "{{ [3, 1, 2] | sort | first }}", "{{ own | b64encode | b64decode }}", "{{ ansible_version.major }}",
    "{{ 2 | hash }}",
    "{{ registered is changed }}", "{{ everyone is sequence }}", "{{ role_name | default('no role') }}", "{{ 7 / 0 }}",
)  # fmt: skip
OF_INCLUDES = ("when", "name", "loop", "with_", "register", "ignore_errors", "run_once", "vars", "no_log")
VARIABLES = ("own", "fact", "absent", "everyone", "registered", "nested.inner")
NAMES = (
    "{{ own }}",
    "{{ absent }}",
    "{{ item }}",
    "plain",
    "{{ fact | default(1) }}",
    "{{ own | shout }}",
    "{{ 1 + 1 }}",
)
CONDITIONS = (
    "flag | default(true) | bool", "inventory_hostname != 'two'", "number is defined", "false", "true", "absent",
    "inventory_hostname in groups['a']", "registered is defined and registered is not failed", "own | no_such_filter",
    "fact is defined", "'{{ own }}' == 'TWO'", "nested", "of_b is match('b T')", "number | default(0) > 2",
    "own | shout == 'ONE!'",
)  # fmt: skip


class GeneratedPlay:
    """One play with its files, its options and what the command line is asked for."""

    def __init__(self, seed: int, notes: bool = False) -> None:
        self._random = random.Random(seed)
        self.notes = notes
        self.forks = self._random.choice((1, 1, 4))
        self.argv = ["-i", "hosts", "-f", str(self.forks), "play.yml", *self._options()]
        self.text = self._play()
        self.has_own_filter = self._random.random() < 0.15

    def lay_out(self, place: Path) -> None:
        for name, text in {**FILES, "play.yml": self.text}.items():
            write(place / name, text)
        if self.has_own_filter:
            write(place / "filter_plugins/own.py", OWN_FILTER)
        if self.notes:
            write(place / "callback_plugins/noted.py", CALLBACK)

    def _options(self) -> list[str]:
        found = []
        for share, words in ((0.3, ["-v"]), (0.1, ["-vv"]), (0.05, ["-vvv"]), (0.15, ["--check"]), (0.15, ["--diff"])):
            found += words if self._random.random() < share else []
        if self._random.random() < 0.1:
            found += ["-e", "late=given"]
        return found if self._random.random() < 0.9 else [*found, "-l", "one,three"]

    def _play(self) -> str:
        lines = ["- hosts: all", "  gather_facts: false"]
        for share, line in (
            (0.12, "serial: 2"), (0.06, "any_errors_fatal: true"), (0.06, "max_fail_percentage: 30"),
            (0.1, "become: true"),
            (0.1, "ignore_errors: true"), (0.1, "vars_files: [more.yml]"), (0.08, "order: reverse_sorted"),
            (0.08, "force_handlers: true"), (0.1, "roles: [plain]"), (0.06, "no_log: true"), (0.06, "throttle: 1"),
            (0.1, "vars: {loops: '{{ loops }}'}"), (0.05, "environment: {X: '{{ own }}'}"),
            (0.08, "module_defaults: {debug: {msg: by default}}"), (0.05, "timeout: 30"),
        ):  # fmt: skip
            lines += [f"  {line}"] if self._random.random() < share else []
        tasks = [self._task(depth=0) for _ in range(self._random.randint(4, 7))]
        tasks.append("- debug: {msg: '{{ [fact | default(0), seen | default(0), groups.keys() | sort] }}'}\n")
        handlers = "- name: handled\n  debug: {msg: 'handled {{ own }}'}\n- name: again\n  listen: handled\n  debug:\n"
        lines += ["  tasks:", textwrap.indent("".join(tasks), "    "), "  handlers:", textwrap.indent(handlers, "    ")]
        return "\n".join(lines) + "\n"

    def _task(self, depth: int) -> str:
        if depth < 2 and self._random.random() < 0.15:
            return self._block(depth)
        action = self._action()
        keywords = self._keywords()
        if action.startswith("include_"):
            keywords = [keyword for keyword in keywords if keyword.startswith(OF_INCLUDES)]
        lines = [action, *keywords]
        return f"- {lines[0]}\n" + "".join(f"  {line}\n" for line in lines[1:])

    def _block(self, depth: int) -> str:
        sections = ["block", *(name for name in ("rescue", "always") if self._random.random() < 0.6)]
        text = ""
        for number, section in enumerate(sections):
            tasks = "".join(self._task(depth + 1) for _ in range(self._random.randint(1, 2)))
            text += f"{'  ' if number else '- '}{section}:\n{textwrap.indent(tasks, '    ')}"
        extra = self._random.choice(
            ("", "", "  when: " + self._condition(), "  name: block of {{ own }}", "  ignore_errors: true")
        )
        return text + (extra + "\n" if extra else "")

    def _value(self) -> str:
        return "'" + self._random.choice(VALUES).replace("'", "''") + "'"

    def _condition(self) -> str:
        return '"' + self._random.choice(CONDITIONS) + '"'

    def _action(self) -> str:
        value, other = self._value(), self._value()
        return self._random.choice(
            (
                f"debug: {{msg: {value}}}", f"debug: {{msg: {value}}}", f"debug: {{msg: [{value}, {other}]}}",
                f"debug: {{var: {self._random.choice(VARIABLES)}}}",
                f"debug: {{msg: {value}, verbosity: 1}}", f"set_fact: {{fact: {value}}}",
                f"set_fact: {{fact: {value}}}",
                f"set_fact: {{fact: {value}, cacheable: true}}", f"set_fact: {{'{{{{ own }}}}': {value}}}",
                f"set_fact: {{fact: {{x: [{value}, {other}]}}, more_facts: 1}}", "set_fact: {port: 1, name: x}",
                "set_fact:",
                f"assert: {{that: [{self._condition()}, {self._condition()}], fail_msg: no, quiet: false}}",
                f"assert: {{that: {self._condition()}, success_msg: {value}}}", f"fail: {{msg: {value}}}", "fail:",
                f"set_stats: {{data: {{mine: {value}}}, per_host: true}}", "set_stats: {data: {count: 1}}",
                "group_by: {key: 'by_{{ flag | default(0) }}', parents: all}", "group_by: {}", "debug: {msh: 1}",
                "add_host: {name: '{{ inventory_hostname }}x', groups: added, of: '{{ own }}'}",
                "include_tasks: included.yml",
                "include_tasks: {file: '{{ ''included.yml'' if flag | default(true) | bool else ''absent.yml'' }}'}",
                "include_role: {name: plain}", "import_role: {name: plain}", "include_vars: more.yml",
                "command: echo out",
                "command: 'false'", "meta: flush_handlers", "ping:", "action: debug msg=acted", "local_action: debug",
                "ansible.builtin.debug: {msg: full name}", "ansible.legacy.set_fact: {fact: legacy}",
            )
        )  # fmt: skip

    def _keywords(self) -> list[str]:
        found = []
        for share, line in (
            (0.25, f"when: {self._condition()}"), (0.1, f"when: [{self._condition()}, {self._condition()}]"),
            (0.2, "register: registered"), (0.08, "ignore_errors: true"),
            (0.1, "changed_when: true\n  notify: handled"),
            (0.06, f"changed_when: {self._condition()}"), (0.08, f"failed_when: {self._condition()}"),
            (0.05, "no_log: true"),
            (0.2, f"name: task of {self._random.choice(NAMES)}"), (0.05, "run_once: true"),
            (0.06, "vars: {own: overridden, late: '{{ inventory_hostname }}'}"), (0.04, "delegate_to: one"),
            (0.03, "delegate_to: localhost"), (0.03, "throttle: 1"), (0.03, "until: true\n  retries: 1\n  delay: 0"),
            (0.03, "become: true"), (0.03, "connection: ssh"), (0.02, "timeout: 20"), (0.03, "check_mode: true"),
            (0.03, "diff: true"), (0.03, "args: {x: '{{ own }}'}"), (0.02, "collections: [ansible.builtin]"),
            (0.05, self._loop()),
            (0.2, self._loop()),
        ):  # fmt: skip
            key = line.split(":")[0]
            if self._random.random() < share and not any(one.startswith((key, "loop", "with_")) for one in found):
                found.append(line if not key.startswith("name") else f"name: '{line[6:]}'")
        return found

    def _loop(self) -> str:
        control = self._random.choice(
            (
                "", "", "", "loop_control: {label: 'label {{ item }}'}",
                "loop_control: {index_var: index, extended: true}",
                "loop_control: {loop_var: own}", "loop_control: {label: '{{ absent }}'}",
                "loop_control: {break_when: 'item == 1'}",
            )
        )  # fmt: skip
        loop = self._random.choice(
            (
                "loop: [1, 2]", f"loop: [{self._value()}, {self._value()}]", "loop: '{{ everyone }}'", "loop: []",
                "loop: '{{ absent }}'",
                "with_items: [[1, 2], 3]", "with_dict: {a: 1, b: '{{ own }}'}", "with_sequence: count=2",
                "loop: '{{ own }}'",
                "with_lines: echo x", "with_nested: [[1], [2, 3]]", "with_first_found: [absent.yml, more.yml]",
            )
        )  # fmt: skip
        return loop + (f"\n  {control}" if control else "")
