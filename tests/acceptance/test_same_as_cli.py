"""The text and the exit code of a run are the command line's, for the same job in the same directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.comparing import Job, adhoc, check, playbook
from tests.helpers.services import Service, write

SHARES_SERVICE = True
DEV = "../inventories/dev"
DARK = "../inventories/dark"
JOBS = [
    adhoc("ping", "localhost -m ping", module="ping"),
    adhoc("ping hosts", f"all -i {DEV} -m ping -f 1", module="ping", host_pattern="all", inventory=DEV, forks=1),
    adhoc("verbose", "localhost -m ping -vvv", module="ping", verbose_level=3),
    adhoc("most verbose", "localhost -m debug -vvvv", module="debug", verbose_level=4),
    adhoc("command", ["localhost", "-m", "command", "-a", "echo 'a b' $HOME"], module="command",
          module_args="echo 'a b' $HOME"),
    adhoc("chdir", ["localhost", "-m", "command", "-a", "chdir=/tmp pwd"], module="command",
          module_args="chdir=/tmp pwd"),
    adhoc("json", ["localhost", "-m", "debug", "-a", '{"msg": "a=1 \'q\' \\"d\\""}'], module="debug",
          module_args={"msg": "a=1 'q' \"d\""}),
    adhoc("failing", ["localhost", "-m", "command", "-a", "ls /nowhere"], 2, module="command",
          module_args="ls /nowhere"),
    adhoc("fail module", ["localhost", "-m", "fail", "-a", "msg=no"], 2, module="fail", module_args="msg=no"),
    adhoc("unknown module", "localhost -m no_such_module", 2, module="no_such_module"),
    adhoc("missing argument", "localhost -m command", 5, module="command"),
    adhoc("one line", "localhost -m ping --one-line", module="ping", one_line=True),
    adhoc("unreachable", f"dark1 -i {DARK} -m ping", 4, module="ping", host_pattern="dark1", inventory=DARK),
    adhoc("no match", f"nobody -i {DEV} -m ping", module="ping", host_pattern="nobody", inventory=DEV),
    adhoc("missing inventory", "localhost -i /no/inventory -m ping", module="ping", inventory="/no/inventory",
          allow_missing=True),
    adhoc("host list", "a -i a, -c local -m debug".split()[:3] + ["-m", "debug"], module="debug", host_pattern="a",
          inventory="a,"),
    adhoc("template", ["localhost", "-m", "debug", "-a", "msg={{ 1 + 1 }}"], module="debug",
          module_args="msg={{ 1 + 1 }}"),
    adhoc("extra vars", ["localhost", "-m", "debug", "-a", "var=x", "-e", '{"x": {"é": ["\\"", "\'"]}}'],
          module="debug", module_args="var=x", extra_vars={"x": {"é": ['"', "'"]}}),
    adhoc("check", ["localhost", "-m", "file", "-a", "path=/tmp/never state=touch", "-C"], module="file",
          module_args="path=/tmp/never state=touch", check=True),
    adhoc("bad json", ["localhost", "-m", "debug", "-a", "{not json}"], 250, module="debug", module_args="{not json}"),
    adhoc("stdout and stderr", ["localhost", "-m", "shell", "-a", "echo out; echo err >&2"], module="shell",
          module_args="echo out; echo err >&2"),
    playbook("site", f"-i {DEV} site.yml -f 1", playbook="site.yml", inventory=DEV, forks=1),
    playbook("site verbose", f"-i {DEV} site.yml -v -l dev1", playbook="site.yml", inventory=DEV, limit="dev1",
             verbose_level=1),
    playbook("fail", f"-i {DEV} fail.yml -f 1", 2, playbook="fail.yml", inventory=DEV, forks=1),
    playbook("vars", ["-i", DEV, "vars.yml", "-l", "dev2", "-e", '{"given": "ž"}'], playbook="vars.yml",
             inventory=DEV, limit="dev2", extra_vars={"given": "ž"}),
    playbook("several", f"-i {DEV} vars.yml site.yml -l dev1", playbook=["vars.yml", "site.yml"], inventory=DEV,
             limit="dev1"),
    playbook("syntax check", "site.yml --syntax-check", playbook="site.yml", syntax_check=True),
    playbook("broken yaml", "broken.yml", 4, playbook="broken.yml"),
    playbook("list tasks", f"-i {DEV} site.yml --list-tasks", playbook="site.yml", inventory=DEV, list_tasks=True),
    playbook("no hosts", "site.yml", playbook="site.yml"),
    playbook("dark", f"-i {DARK} ping.yml", 4, playbook="ping.yml", inventory=DARK),
    playbook("limit nobody", f"-i {DEV} site.yml -l nobody", 1, playbook="site.yml", inventory=DEV, limit="nobody"),
    playbook("missing role", f"-i {DEV} norole.yml", 1, playbook="norole.yml", inventory=DEV),
    playbook("undefined", f"-i {DEV} undefined.yml -l dev1", 2, playbook="undefined.yml", inventory=DEV, limit="dev1"),
    playbook("unanswered", f"-i {DEV} unanswered.yml -l dev1", playbook="unanswered.yml", inventory=DEV, limit="dev1",
             allow_missing=True),
    playbook("missing playbook", "missing.yml", 1, playbook="missing.yml", allow_missing=True),
    playbook("empty playbook", ["site.yml", ""], 1, playbook=["site.yml", ""], allow_missing=True),
    adhoc("empty pattern", ["", "-i", DEV, "-m", "ping"], 4, module="ping", host_pattern="", inventory=DEV),
    adhoc("hosts of an empty pattern", ["", "-i", DEV, "--list-hosts"], module="ping", host_pattern="", inventory=DEV,
          list_hosts=True),
    adhoc("empty module", ["localhost", "-m", ""], 250, module=""),
    playbook("prompt", f"-i {DEV} prompt.yml -l dev1", playbook="prompt.yml", inventory=DEV, limit="dev1"),
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def more_playbooks(root: Path) -> None:
    playbooks = root / "playbooks"
    write(playbooks / "broken.yml", "- hosts: all\n  tasks: [\n")
    write(playbooks / "ping.yml", "- hosts: all\n  gather_facts: no\n  tasks:\n    - ping:\n")
    write(playbooks / "norole.yml", "- hosts: all\n  roles: [absent]\n")
    write(playbooks / "undefined.yml", "- hosts: all\n  gather_facts: no\n  tasks:\n    - debug: msg={{ absent }}\n")
    write(
        playbooks / "unanswered.yml",
        "- hosts: all\n  gather_facts: no\n  vars_prompt: [{name: who}]\n  tasks:\n    - debug: var=who\n",
    )
    write(
        playbooks / "prompt.yml",
        "- hosts: all\n  gather_facts: no\n  vars_prompt: [{name: who, default: me}]\n"
        "  tasks:\n    - debug: var=who\n    - pause: seconds=1\n",
    )


@pytest.mark.by_day(4)
@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.identity)
def test_text_and_exit_code_are_the_command_lines(service: Service, root: Path, job: Job) -> None:
    check(service, root / "playbooks", job)
