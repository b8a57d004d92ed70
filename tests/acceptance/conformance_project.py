"""A project with a bit of everything Ansible has, written into a directory for the conformance suite."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.helpers.services import LOCAL, write

HEAD = "- hosts: {hosts}\n  gather_facts: false\n"


ONE = "dev1"
TWO = "web"


def play(tasks: str, hosts: str = "all", extra: str = "") -> str:
    """A play whose tasks are given without indentation.

    Of a play that executes modules, each host costs a third of a second on either side: ONE or TWO where that is enough
    to show its subject.
    """
    indented = "".join(f"    {line}\n" if line else "\n" for line in tasks.strip("\n").splitlines())
    more = "".join(f"  {line}\n" for line in extra.strip("\n").splitlines())
    return HEAD.format(hosts=hosts) + more + "  tasks:\n" + indented


PLAYBOOKS = {
    "loops": play("""
- debug: msg={{ item }}
  loop: [1, two, {three: 3}]
- debug: msg={{ item.key }}
  with_dict: {a: 1, b: 2}
- command: echo {{ item }}
  loop: [x, y]
  register: said
- debug: msg={{ said.results | map(attribute='stdout') | list }}
- debug: msg={{ index }}
  loop: [p, q]
  loop_control: {index_var: index, label: "named {{ item }}"}
- command: "false"
  register: tries
  until: tries is succeeded
  retries: 2
  delay: 0
  ignore_errors: true
""", hosts=ONE),
    "blocks": play("""
- block:
    - debug: msg=before
    - fail: msg=broken
    - debug: msg=never
  rescue:
    - debug: msg="rescued {{ ansible_failed_task.name | default('?') }} {{ ansible_failed_result.msg }}"
  always:
    - debug: msg=always
- block:
    - fail: msg=again
  rescue:
    - fail: msg=rescue fails too
  always:
    - debug: msg=still
- debug: msg=unreached
"""),
    "handlers": play(
        """
- command: echo one
  notify: first
- command: echo two
  notify: [second, topic]
- meta: flush_handlers
- command: echo three
  notify: first
- fail: msg=stop
  when: stop | default(false)
""",
        hosts=TWO, extra="""
handlers:
  - name: first
    debug: msg="first handler"
  - name: second
    command: echo second
  - name: third
    listen: topic
    debug: msg=listening
""",
    ),
    "includes": play("""
- include_tasks: tasks/some.yml
  vars: {word: included}
- import_tasks: tasks/some.yml
  vars: {word: imported}
- include_role: {name: simple}
- import_role: {name: simple, tasks_from: other}
- include_tasks: tasks/{{ item }}.yml
  loop: [some]
  vars: {word: looped}
- include_vars: vars/more.yml
- debug: var=more
- include_tasks: tasks/absent.yml
  ignore_errors: true
"""),
    "roles": "- hosts: all\n  gather_facts: false\n  roles:\n    - simple\n    - {role: simple, when: false}\n"
    "    - role: depends\n      vars: {word: from the play}\n      tags: [deep]\n",
    "tags": play("""
- debug: msg=one
  tags: one
- debug: msg=two
  tags: [two, both]
- debug: msg=never
  tags: never
- debug: msg=always
  tags: always
- debug: msg=untagged
"""),
    "conditions": play("""
- debug: msg=skipped
  when: false
- debug: msg=only dev1
  when: inventory_hostname == 'dev1'
- command: echo x
  changed_when: false
- command: echo x
  failed_when: inventory_hostname == 'dev2'
- assert: {that: [1 == 1, word is undefined], fail_msg: no, success_msg: "yes"}
""", hosts=TWO),
    "serial": play("- debug: msg={{ ansible_play_batch }}\n", extra="serial: 1"),
    "free": play("- debug: msg=a\n- debug: msg=b\n", extra="strategy: free"),
    "async": play("""
- command: sleep 1
  async: 20
  poll: 1
- command: sleep 0.1
  async: 20
  poll: 0
  register: job
- async_status: jid={{ job.ansible_job_id }}
  register: state
  until: state is finished
  retries: 20
  delay: 1
""", hosts=ONE, extra="vars: {ansible_async_dir: '{{ playbook_dir }}/jobs'}"),  # the tests' HOME is not the one Ansible finds
    "delegation": play("""
- debug: msg="here {{ inventory_hostname }}"
  delegate_to: tool1
- command: echo once
  run_once: true
- set_fact: {shared: "{{ inventory_hostname }}"}
  delegate_to: localhost
  delegate_facts: true
- debug: msg={{ hostvars['localhost'].shared is defined }}
- add_host: {name: new, groups: added, ansible_connection: local}
- group_by: key=by_{{ inventory_hostname }}
- debug: msg={{ groups.added }}
"""),
    "throttle": play("- command: echo t\n  throttle: 1\n", hosts=TWO),
    "any_errors_fatal": play(
        "- fail: msg=x\n  when: inventory_hostname == 'dev1'\n- debug: msg=never\n", extra="any_errors_fatal: true"
    ),
    "max_fail": play(
        "- fail: msg=x\n  when: inventory_hostname == 'dev1'\n- debug: msg=on\n", extra="max_fail_percentage: 10"
    ),
    "ignore_unreachable": play("- ping:\n  ignore_unreachable: true\n- debug: msg=after\n", hosts=TWO),
    "clear_errors": play("- ping:\n- meta: clear_host_errors\n- debug: msg=back\n", hosts=TWO),
    "no_log": play("""
- debug: msg=secret
  no_log: true
- command: echo secret
  no_log: true
  loop: [1, 2]
- fail: msg=secret
  no_log: true
""", hosts=ONE),
    "undefined": play("- debug: msg=fine\n- debug: msg={{ absent.deep }}\n"),
    "bad_filter": play("- debug: msg={{ 1 | no_such_filter }}\n"),
    "no_module": play("- no_such_module: x=1\n"),
    "bad_args": play("- file: {path: /tmp/x, nonsense: 1}\n", hosts=ONE),
    "bad_yaml": "- hosts: all\n  tasks:\n   - debug: msg=1\n     - x\n",
    "bad_play": "- hosts: all\n  nonsense: true\n  tasks: []\n",
    "not_a_list": "hosts: all\n",
    "empty": "",
    "duplicate_keys": "- hosts: all\n  gather_facts: false\n  gather_facts: false\n  tasks: []\n",
    "no_role": "- hosts: all\n  roles: [absent]\n",
    "long_lines": play("- debug: msg={{ 'x' * 20000 }}\n"),
    "binary": play("- raw: printf 'caf\\\\351 \\\\377\\\\n'\n- shell: printf '\\\\377\\\\376 x'\n", hosts=ONE),
    "unicode": play("- debug: msg='žluťoučký 🐎 \"quoted\" \\\\ back'\n- command: echo ☃\n", hosts=ONE),
    "stats": play(
        "- set_stats: {data: {count: 1, names: ['{{ inventory_hostname }}']}, aggregate: true}\n"
        "- set_stats: {data: {own: 2}, per_host: true}\n"
    ),
    "facts": "- hosts: dev1\n  gather_subset: ['!all', '!min', 'user']\n  tasks:\n    - debug: var=ansible_user_id\n",
    "cached": play("- set_fact: {kept: 5, cacheable: true}\n- debug: var=kept\n"),
    "prompt": play("- debug: var=who\n- debug: var=hidden\n", extra="""
vars_prompt:
  - {name: who, prompt: Who are you, default: me, private: false}
  - {name: hidden, default: x}
"""),
    "pause": play("- pause: {seconds: 1}\n", hosts=ONE),
    "meta_end": play("- meta: end_host\n  when: inventory_hostname == 'dev1'\n- debug: msg=x\n- meta: end_play\n- debug: msg=y\n"),
    "diff": play("""
- copy: {content: "new\\n", dest: "{{ playbook_dir }}/out.txt"}
- lineinfile: {path: "{{ playbook_dir }}/existing.txt", line: added}
""", hosts=ONE),
    "plugins": play("""
- debug: msg={{ 'x' | shout }}
- adjacent: {word: hello}
- debug: msg={{ lookup('mine', 'key') }}
- debug: msg={{ 4 is even_number }}
""", hosts=ONE),
    "collection": play("- team.tools.greet: {name: you}\n- debug: msg={{ 'x' | team.tools.twice }}\n", hosts=ONE),
    "collection_keyword": play("- greet: {name: you}\n", hosts=ONE, extra="collections: [team.tools]"),
    "imported": "- import_playbook: tags.yml\n- import_playbook: serial.yml\n",
    "plays": "- name: first\n  hosts: dev1\n  gather_facts: no\n  tasks: [{debug: {msg: 1}}]\n"
    "- name: second {{ word | default('') }}\n  hosts: dev2\n  gather_facts: no\n  tasks: [{debug: {msg: 2}}]\n"
    "- name: nobody\n  hosts: nobody\n  tasks: []\n",
    "vars_everywhere": play("- debug: msg='{{ from_group }} {{ from_host }} {{ from_play }} {{ from_file }}'\n", hosts="web",
                            extra="vars: {from_play: p}\nvars_files: [vars/more.yml]"),
    "environment": play("- command: printenv WORD\n", hosts=ONE, extra="environment: {WORD: set}"),
    "become_missing": play("- command: id\n", hosts=TWO, extra="become: true\nbecome_method: nothing"),
    "module_defaults": play("- command:\n", hosts=ONE, extra="module_defaults: {command: {argv: [echo, d]}}"),
    "lines": play("- debug: msg={{ item }}\n  loop: '{{ range(300) | list }}'\n", hosts=ONE),
    "script": play("- script: files/hello.sh one two\n- template: {src: t.j2, dest: '{{ playbook_dir }}/rendered'}\n"
                   "- copy: {src: hello.sh, dest: '{{ playbook_dir }}/copied', mode: '0755'}\n", hosts=ONE),
    "deprecated": play("- debug: msg=x\n  with_items: [1]\n  when: '{{ true }}'\n"),
    "warnings": play("- command: echo x\n  args: {warn: false}\n- set_fact: {'bad-name': 1}\n", hosts=ONE),
    "strategy_missing": play("- debug: msg=x\n", extra="strategy: absent"),
    "crash": play("- crash:\n", hosts=ONE),
    "dies": play("- shell: kill -9 $$\n", hosts=ONE),
    "host_pinned": play("- debug: msg=1\n- debug: msg=2\n", extra="strategy: host_pinned", hosts=ONE),
    "loop_error": play("- command: test {{ item }} = 1\n  loop: [1, 2, 3]\n", hosts=ONE),
    "argument_spec": "- hosts: dev1\n  gather_facts: no\n  roles: [{role: specified}]\n",
    "deep_error": play("- debug: msg={{ lookup('file', 'nowhere') }}\n", hosts=ONE),
    "unsafe": play("- debug: var=risky\n", hosts=ONE, extra="vars: {risky: !unsafe '{{ never }}'}"),
    "order": play("- debug: msg=x\n", extra="order: reverse_sorted"),
}  # fmt: skip

FILES = {
    "tasks/some.yml": "- debug: msg={{ word }}\n",
    "vars/more.yml": "more: [1, 2]\nfrom_file: f\n",
    "group_vars/all.yml": "from_group: g\n",
    "group_vars/web.yml": "from_group: web\n",
    "host_vars/dev1.yml": "from_host: h1\n",
    "host_vars/dev2.yml": "from_host: h2\n",
    "roles/simple/tasks/main.yml": "- debug: msg='simple {{ setting }}'\n",
    "roles/simple/tasks/other.yml": "- debug: msg=other\n",
    "roles/simple/defaults/main.yml": "setting: default\n",
    "roles/depends/meta/main.yml": "dependencies: [simple]\n",
    "roles/depends/tasks/main.yml": "- debug: msg={{ word }}\n  tags: inner\n",
    "roles/specified/meta/argument_specs.yml": "argument_specs:\n  main:\n    options:\n      need: {type: int, required: true}\n",
    "roles/specified/tasks/main.yml": "- debug: msg=ok\n",
    "files/hello.sh": "#!/bin/sh\necho hello $*\n",
    "templates/t.j2": "{% for i in range(3) %}{{ i }} {% endfor %}\n",
    "existing.txt": "existing\n",
    "filter_plugins/shout.py": "class FilterModule:\n    def filters(self):\n        return {'shout': lambda v: v.upper() + '!'}\n",
    "test_plugins/even.py": "class TestModule:\n    def tests(self):\n        return {'even_number': lambda v: v % 2 == 0}\n",
    "lookup_plugins/mine.py": "from ansible.plugins.lookup import LookupBase\n\n\nclass LookupModule(LookupBase):\n"
    "    def run(self, terms, variables=None, **kwargs):\n        return ['mine ' + t for t in terms]\n",
    "library/adjacent.py": "from ansible.module_utils.basic import AnsibleModule\n\nm = AnsibleModule({'word': {}})\n"
    "m.exit_json(changed=False, said=m.params['word'])\n",
    "library/crash.py": "raise RuntimeError('on purpose')\n",
    "collections/ansible_collections/team/tools/galaxy.yml": "namespace: team\nname: tools\nversion: 1.0.0\n",
    "collections/ansible_collections/team/tools/plugins/modules/greet.py": "from ansible.module_utils.basic import "
    "AnsibleModule\n\nm = AnsibleModule({'name': {}})\nm.exit_json(changed=True, greeting='hi ' + m.params['name'])\n",
    "collections/ansible_collections/team/tools/plugins/filter/twice.py": "class FilterModule:\n    def filters(self):\n"
    "        return {'twice': lambda v: v * 2}\n",
    "collections/ansible_collections/team/tools/playbooks/go.yml": "- hosts: localhost\n  gather_facts: no\n  tasks:\n"
    "    - debug: msg=from the collection\n",
    "inventories/yaml.yml": "all:\n  children:\n    web:\n      hosts:\n        dev1: {ansible_connection: local}\n"
    "        dev2: {ansible_connection: local, own: 2}\n      vars: {shared: yes}\n",
    "inventories/dynamic": "#!/bin/sh\nif [ \"$1\" = --list ]; then\n"
    'echo \'{"web": {"hosts": ["dyn1"]}, "_meta": {"hostvars": {"dyn1": {"ansible_connection": "local"}}}}\'\nelse echo "{}"; fi\n',
    "inventories/broken": "#!/bin/sh\necho oops >&2\nexit 3\n",
    "inventories/constructed.yml": "plugin: ansible.builtin.constructed\nstrict: false\ngroups: {made: \"'dev' in inventory_hostname\"}\n",
    "inventories/bad.ini": "[web\nx y=z\n",
    "inventories/folder/a": f"a1 {LOCAL}\n",
    "inventories/folder/b.yml": "all: {hosts: {b1: {ansible_connection: local}}}\n",
    "configured/ansible.cfg": "[defaults]\nstdout_callback = ansible.builtin.minimal\ninventory = ./hosts\nnocows = true\n"
    "roles_path = ./other_roles\ncallbacks_enabled = ours\ncallback_plugins = ./callbacks\nverbosity = 1\n",
    "configured/hosts": f"cfg1 {LOCAL}\n",
    "configured/other_roles/elsewhere/tasks/main.yml": "- debug: msg='found by roles_path'\n",
    "configured/play.yml": "- hosts: all\n  gather_facts: no\n  roles: [elsewhere]\n",
    "configured/callbacks/ours.py": "from ansible.plugins.callback import CallbackBase\n\n\nclass CallbackModule(CallbackBase):\n"
    "    CALLBACK_VERSION = 2.0\n    CALLBACK_TYPE = 'notification'\n    CALLBACK_NAME = 'ours'\n"
    "    CALLBACK_NEEDS_ENABLED = True\n\n    def v2_playbook_on_stats(self, stats):\n"
    "        self._display.display('OURS: %d hosts' % len(stats.processed))\n",
    "stdout/ansible.cfg": "[defaults]\nstdout_callback = plain\ncallback_plugins = .\n",
    "stdout/plain.py": "from ansible.plugins.callback import CallbackBase\n\n\nclass CallbackModule(CallbackBase):\n"
    "    CALLBACK_VERSION = 2.0\n    CALLBACK_TYPE = 'stdout'\n    CALLBACK_NAME = 'plain'\n\n"
    "    def v2_runner_on_ok(self, result):\n        self._display.display('fine: ' + result._host.get_name())\n",
    "stdout/play.yml": "- hosts: localhost\n  gather_facts: no\n  tasks: [{debug: {msg: x}}]\n",
    "broken_cfg/ansible.cfg": "[defaults\nx\n",
    "broken_cfg/play.yml": "- hosts: localhost\n  tasks: []\n",
    "cached_facts/ansible.cfg": "[defaults]\nfact_caching = jsonfile\nfact_caching_connection = ./cache\ngathering = smart\n",
    "cached_facts/play.yml": "- hosts: localhost\n  gather_subset: ['!all', '!min', 'user']\n  tasks: [{debug: {var: ansible_user_id}}]\n",
    "yaml_out/ansible.cfg": "[defaults]\ncallback_result_format = yaml\ndisplay_skipped_hosts = false\n[diff]\nalways = true\n",
    "yaml_out/play.yml": "- hosts: localhost\n  gather_facts: no\n  tasks:\n    - debug: {msg: [1, {a: b}]}\n    - debug: msg=no\n      when: false\n",
    "coloured/ansible.cfg": "[defaults]\nforce_color = true\n",
    "coloured/play.yml": "- hosts: localhost\n  gather_facts: no\n  tasks: [{debug: {msg: x}}, {fail: {msg: y}}]\n",
    "shy/ansible.cfg": "[defaults]\nnocolor = true\n",
    "shy/play.yml": "- hosts: localhost\n  gather_facts: no\n  tasks: [{debug: {msg: x}}]\n",
}  # fmt: skip


def build(directory: Path, environ: dict[str, str]) -> None:
    """Write it all."""
    for name, text in PLAYBOOKS.items():
        write(directory / f"{name}.yml", text)
    for path, text in FILES.items():
        write(directory / path, text)
    for path in ("inventories/dynamic", "inventories/broken", "files/hello.sh"):
        (directory / path).chmod(0o755)
    write(directory / "hosts", f"[web]\ndev1 {LOCAL}\ndev2 {LOCAL}\n[tools]\ntool1 {LOCAL}\n")
    password = write(directory / "vault-password", "a vault password\n")
    secret = write(directory / "vault.yml", play("- debug: msg={{ hidden }}\n", extra="vars_files: [hidden.yml]"))
    write(directory / "hidden.yml", "hidden: revealed\n")
    command = ["ansible-vault", "encrypt", "--vault-password-file", str(password), str(secret.parent / "hidden.yml")]
    subprocess.run(command, env=environ, check=True, capture_output=True)
