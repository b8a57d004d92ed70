"""What the command line does, the service does: text and exit code of a hundred jobs, each run by both."""

from __future__ import annotations

import dataclasses
import re
import shutil
from functools import partial
from pathlib import Path

import pytest

from tests.acceptance.conformance_project import build
from tests.helpers.comparing import Job, adhoc, check, masked, playbook
from tests.helpers.services import Service, write

SHARES_SERVICE = True
HOSTS = "hosts"
# Exit codes other than 0 of the playbooks of the project.
CODES = {
    "blocks": 2, "conditions": 2, "any_errors_fatal": 2, "max_fail": 2, "no_log": 2, "undefined": 2, "bad_filter": 2,
    "no_module": 4, "bad_args": 2, "bad_yaml": 4, "bad_play": 4, "not_a_list": 4, "empty": 4, "no_role": 1,
    "become_missing": 2, "strategy_missing": 1, "crash": 2, "dies": 2, "loop_error": 2,
    "argument_spec": 2, "deep_error": 2, "includes": 2, "warnings": 2,
}  # fmt: skip
CHANGING = {"diff", "script"}
IN_ANY_ORDER = {"free", "async", "throttle"}


def of(name: str, options: str = "", returncode: int | None = None, **body: object) -> Job:
    """A playbook of the project on its hosts, one after the other so that the order is certain."""
    code = CODES.get(name, 0) if returncode is None else returncode
    argv = f"-i {HOSTS} -f 1 {name}.yml {options}"
    job = playbook(f"{name} {options}".strip(), argv, code, playbook=f"{name}.yml", inventory=HOSTS, forks=1, **body)
    return dataclasses.replace(job, lines_in_any_order=name in IN_ANY_ORDER)


from tests.acceptance.conformance_project import PLAYBOOKS  # noqa: E402  # the table below is made from it

JOBS = [of(name) for name in PLAYBOOKS] + [
    of("loops", "-v", verbose_level=1),
    of("loops", "-vv", verbose_level=2),
    of("conditions", "-vvv", verbose_level=3),
    of("conditions", "-vvvv", verbose_level=4),
    of("blocks", "-vvv", verbose_level=3),
    of("roles", "-vvvv", verbose_level=4),
    of("collection", "-vvvv", verbose_level=4),
    of("tags", "-t one", tags="one"),
    of("tags", "-t one,two", tags="one,two"),
    of("tags", "-t one -t never", tags=["one", "never"]),
    of("tags", "--skip-tags both", skip_tags="both"),
    of("tags", "-t untagged --skip-tags always", tags="untagged", skip_tags=["always"]),
    of("tags", "--list-tags", list_tags=True),
    of("roles", "--list-tasks", list_tasks=True),
    of("roles", "--list-hosts -l dev1", list_hosts=True, limit="dev1"),
    of("roles", "--syntax-check", syntax_check=True),
    of("bad_yaml", "--syntax-check", syntax_check=True),
    of("roles", "-t deep", tags="deep"),
    of("serial", "-l web", limit="web"),
    of("serial", "-l all:!dev1", limit="all:!dev1"),
    of("serial", "-l ~dev[0-9]", limit="~dev[0-9]"),
    of("serial", "-l nobody", 1, limit="nobody"),
    of("diff", "-C -D", check=True, diff=True),
    of("diff", "-D", diff=True),
    of("handlers", '-e {"stop":true}', 2, extra_vars={"stop": True}),
    of("handlers", "-e stop=true --force-handlers", 2, extra_vars="stop=true", force_handlers=True),
    of("plays", "-e word=named", extra_vars=["word=named"]),
    of("includes", "--start-at-task other", returncode=0, start_at_task="other"),
    of("tags", "--start-at-task absent", start_at_task="absent"),
    of("become_missing", "-b --become-method sudo --become-user nobody", become=True, become_method="sudo",
       become_user="nobody"),
    adhoc("task timeout", "-i hosts dev1 -m command -a".split() + ["sleep 5", "--task-timeout", "1"], 2,
          host_pattern="dev1", inventory="project/hosts", module="command", module_args="sleep 5", task_timeout=1),
    of("cached", "--flush-cache", flush_cache=True),
    of("serial", "-c local -u root -T 5", connection="local", remote_user="root", timeout=5),
    of("plugins", "-M library", module_path="library"),
    of("vault", "--vault-password-file vault-password", vault_password_file="vault-password"),
    of("vault", "--vault-id x@vault-password", vault_id="x@vault-password"),
    of("vault", "", 1),
    of("vault", "--vault-password-file nowhere", 1, vault_file="nowhere"),
    of("stats", "-e @vars/more.yml", extra_vars="@vars/more.yml"),
    of("stats", "-e @vars/absent.yml", 1, extra_vars="@vars/absent.yml"),
    of("stats", "-e nonsense", extra_vars="nonsense"),
    playbook("yaml inventory", "-i inventories/yaml.yml order.yml -f 1", playbook="order.yml", forks=1,
             inventory="inventories/yaml.yml"),
    playbook("executable inventory", "-i inventories/dynamic order.yml", playbook="order.yml",
             inventory="inventories/dynamic"),
    playbook("broken inventory", "-i inventories/broken order.yml", playbook="order.yml",
             inventory="inventories/broken"),
    playbook("bad inventory", "-i inventories/bad.ini order.yml", playbook="order.yml",
             inventory="inventories/bad.ini"),
    playbook("folder", "-i inventories/folder order.yml -f 1", playbook="order.yml", forks=1,
             inventory="inventories/folder"),
    playbook("several inventories",
             "-i hosts -i inventories/yaml.yml -i inventories/constructed.yml order.yml -f 1 -l made",
             playbook="order.yml", forks=1, limit="made",
             inventory=["hosts", "inventories/yaml.yml", "inventories/constructed.yml"]),
    playbook("host list", "-i one,two order.yml -c local -f 1", playbook="order.yml", inventory="one,two", forks=1,
             connection="local"),
    playbook("several playbooks", f"-i {HOSTS} tags.yml loop_error.yml serial.yml -f 1", 2, forks=1,
             playbook=["tags.yml", "loop_error.yml", "serial.yml"], inventory=HOSTS),
    playbook("a collection's playbook", "team.tools.go", 1, playbook="team.tools.go"),
    playbook("a folder as playbook", "tasks", 1, playbook="tasks/some.yml").__class__(
        "a task file as playbook", {"playbook": "tasks/some.yml"}, ["ansible-playbook", "tasks/some.yml"], 4),
]  # fmt: skip

CONFIGURED = {
    "configured": Job("its own ansible.cfg", {"playbook": "play.yml"}, ["ansible-playbook", "play.yml"]),
    "stdout": Job("its own stdout callback", {"playbook": "play.yml"}, ["ansible-playbook", "play.yml"]),
    "broken_cfg": Job("a broken ansible.cfg", {"playbook": "play.yml"}, ["ansible-playbook", "play.yml"], 5),
    "cached_facts": Job("a fact cache", {"playbook": "play.yml"}, ["ansible-playbook", "play.yml"]),
    "yaml_out": Job("results as YAML", {"playbook": "play.yml"}, ["ansible-playbook", "play.yml"]),
    "coloured": Job("forced colour", {"playbook": "play.yml"}, ["ansible-playbook", "play.yml"], 2),
    "shy": Job("no colour", {"playbook": "play.yml"}, ["ansible-playbook", "play.yml"]),
}


@pytest.fixture(scope="module")
def project(root: Path, service: Service) -> Path:
    directory = root / "playbooks/project"
    build(directory, service.environ)
    return directory


@pytest.mark.by_day(8)
@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.identity)
def test_a_job_ends_and_reads_as_on_the_command_line(service: Service, project: Path, job: Job) -> None:
    check(service, project, job, clean=(lambda: clean(project)) if job.name.split()[0] in CHANGING else None)


def clean(project: Path) -> None:
    """As it was before a job that changes files."""
    for made in ("out.txt", "rendered", "copied"):
        (project / made).unlink(missing_ok=True)
    write(project / "existing.txt", "existing\n")


@pytest.mark.parametrize("name", CONFIGURED)
def test_a_directory_with_its_own_configuration_is_obeyed(service: Service, project: Path, name: str) -> None:
    # With a cache of facts, who comes second gathers none: both begin without.
    cache = project / name / "cache"
    clean = partial(shutil.rmtree, cache, ignore_errors=True) if name == "cached_facts" else None
    check(service, project / name, CONFIGURED[name], clean=clean)


def test_a_world_writable_directory_is_not_trusted(service: Service, project: Path) -> None:
    directory = project / "open"
    shutil.copytree(project / "configured", directory)
    directory.chmod(0o777)
    job = Job("open", {"playbook": "play.yml"}, ["ansible-playbook", "play.yml"], 1)
    check(service, directory, job)


def test_an_edited_ansible_cfg_counts_from_the_next_run_on(service: Service, project: Path) -> None:
    directory = project / "edited"
    shutil.copytree(project / "shy", directory)
    job = Job("edited", {"playbook": "play.yml"}, ["ansible-playbook", "play.yml"])
    for verbosity in (0, 1):
        write(directory / "ansible.cfg", f"[defaults]\nverbosity = {verbosity}\n")
        check(service, directory, job)


def test_an_edited_plugin_role_or_collection_counts_from_the_next_run_on(service: Service, project: Path) -> None:
    directory = project / "growing"
    shutil.copytree(project / "filter_plugins", directory / "filter_plugins")
    body = "- hosts: localhost\n  gather_facts: no\n  tasks:\n    - debug: msg={{ 'x' | shout }}\n"
    write(directory / "play.yml", body)
    job = Job("growing", {"playbook": "play.yml"}, ["ansible-playbook", "play.yml"])
    check(service, directory, job)
    plugin = directory / "filter_plugins/shout.py"
    plugin.write_text(plugin.read_text().replace("'!'", "'?'"))
    shutil.rmtree(directory / "filter_plugins/__pycache__", ignore_errors=True)
    check(service, directory, job)
    shutil.copytree(project / "collections", directory / "collections")
    write(directory / "play.yml", body + "    - debug: msg={{ 'x' | team.tools.twice }}\n")
    check(service, directory, job)


@pytest.mark.nightly
def test_fifty_thousand_lines_are_all_there(service: Service, project: Path) -> None:
    job = Job(
        "many lines",
        {"module": "command", "module_args": "seq 1 50000"},
        ["ansible", "localhost", "-m", "command", "-a", "seq 1 50000"],
    )
    check(service, project, job, adhoc_directory=project.parent)


@pytest.mark.nightly
def test_a_hundred_alternating_runs_share_nothing(service: Service, project: Path) -> None:
    """Two directories that differ in configuration, roles, variables and tags, in turn and side by side."""
    expected = {}
    places = {}
    for name, verbosity in (("left", 0), ("right", 1)):
        directory = project / name
        write(directory / "ansible.cfg", f"[defaults]\nverbosity = {verbosity}\nroles_path = ./roles-{name}\n")
        write(directory / "group_vars/all.yml", f"{name}_variable: {name}\nshared: {name}\n")
        write(directory / f"roles-{name}/same/tasks/main.yml", f"- debug: msg='role of {name}, {{{{ shared }}}}'\n")
        check_other = "left_variable" if name == "right" else "right_variable"
        write(
            directory / "play.yml",
            "- hosts: localhost\n  gather_facts: no\n  roles: [same]\n  tasks:\n"
            f"    - debug: msg='{{{{ {check_other} is defined }}}} {{{{ passed | default(\"none\") }}}}'\n"
            f"      tags: {name}\n    - set_fact: {{leak: {name}}}\n    - debug: msg={{{{ leak }}}}\n",
        )
        write(directory / "inventory", "localhost ansible_connection=local\n")
        places[name] = {"playbook_dir": str(directory), "playbook": "play.yml", "inventory": "inventory"}
    ids = []
    for index in range(100):
        name = ("left", "right")[index % 2]
        body = dict(places[name])
        if index % 4 < 2:
            body |= {"extra_vars": {"passed": f"{name} only"}}
        if index % 10 == 0:
            body |= {"tags": name}
        kind = (name, index % 4 < 2, index % 10 == 0)
        ids.append((kind, service.submit("ansibleplaybook", body)))
    for kind, task_id in ids:
        assert service.wait(task_id)["Status"] == "SUCCESS"
        output = masked(service.output(task_id))
        assert expected.setdefault(kind, output) == output
        other = "right" if kind[0] == "left" else "left"
        assert not re.search(rf"\b{other}\b", output.replace(f"{other}_variable", ""))
        assert '"msg": "False' in output
    assert len(expected) >= 6
