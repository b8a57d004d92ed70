"""A process that takes on a configuration holds what one holds that was started with it.

For the installed version of ansible-core: every read of a setting while Ansible's source is imported is one that is
captured again, and no attribute of a loaded module differs.
"""

from __future__ import annotations

import ast
import configparser
import io
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import ansible
import pytest

import flansible.runner
from flansible.runner import reconfigure
from tests.helpers.configurations import as_variable, in_file, of_this_version, value_of

ANSIBLE = Path(str(ansible.__file__)).parent
NEUTRAL = Path(str(flansible.runner.__file__)).parent / "neutral.cfg"

# Read while imported, and the same under every configuration, or captured again without a table.
NO_SETTINGS = {
    "DEFAULT_PASSWORD_CHARS",
    "DOCUMENTABLE_PLUGINS",
    "MAGIC_VARIABLE_MAPPING",
    "MODULE_REQUIRE_ARGS",
    "MODULE_REQUIRE_ARGS_SIMPLE",
    "TREE_DIR",
    "YAML_FILENAME_EXTENSIONS",
}
LOADERS = "ansible.plugins.loader"
METHOD = ("ansible.plugins.callback", "CallbackBase._print_task_path")
# No run imports them.
NOT_LOADED = (
    "ansible.cli.console",
    "ansible.cli.doc",
    "ansible.cli.galaxy",
    "ansible.cli.scripts",
    "ansible.galaxy",
)
# Warns about the configuration: `apply` calls the function.
STATEMENT = "ansible.utils.display:"

PROCESS = """
import json, os, sys
from flansible.runner import cleanup
with cleanup.without_own_temp_dir():
    from flansible.runner import preload, reconfigure
place, environment, forked, output = json.loads(sys.argv[1])
if forked:
    captured = reconfigure.capture()
    preload.load()
    child = os.fork()
    if child:
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(place)
    reconfigure.apply(captured)
    preload.note_import_output()
    del captured
else:
    preload.note_import_output()
    preload.load()
preload.finish()
del place, environment, forked
from tests.helpers.attributes import snapshot
with open(output, "w") as file:
    json.dump(snapshot(), file)
os._exit(0)
"""
# Drawn at random, and of processes rather than configurations.
OWN = ("DEFAULT_LOCAL_TMP", "ansible.utils.vars:random_int")


def everything() -> str:
    """An ansible.cfg with all settings that a run lives with."""
    parser, chance = configparser.RawConfigParser(), random.Random(19)
    for name in of_this_version():
        if found := in_file(name):
            section, key = found
            if not parser.has_section(section):
                parser.add_section(section)
            parser.set(section, key, value_of(name, chance))
    text = io.StringIO()
    parser.write(text)
    return text.getvalue()


def all_variables() -> dict[str, str]:
    chance = random.Random(20)
    return {variable: value_of(name, chance) for name in of_this_version() if (variable := as_variable(name))}


CONFIGURATIONS = {
    "none": ("", {}),
    "a file": (everything(), {}),
    "variables": ("", {"ANSIBLE_FORKS": "9", "ANSIBLE_ROLES_PATH": "roles", "ANSIBLE_NOCOLOR": "1", "NO_COLOR": "1"}),
    "all variables": ("", all_variables()),
    "both": (everything(), {"ANSIBLE_LOG_PATH": "other", "ANSIBLE_STRATEGY": "debug", "ANSIBLE_LOG_VERBOSITY": "3"}),
    "a log that cannot be written": ("[defaults]\nlog_path = /not/there/log\n", {}),
}


def attributes(place: Path, environment: dict[str, str], forked: bool, output: Path) -> tuple[dict[str, str], str]:
    """What a process holds, and what it printed."""
    base = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    base |= {"PYTHONHASHSEED": "0", "PYTHONPATH": str(Path(__file__).parents[2])}
    mine = {**base, **environment}
    argument = json.dumps([str(place), mine, forked, str(output)])
    errors = output.with_suffix(".errors")
    with open(errors, "w+b") as stderr:
        subprocess.run(
            [sys.executable, "-P", "-c", PROCESS, argument],
            cwd="/" if forked else place,
            env={**base, "ANSIBLE_CONFIG": str(NEUTRAL)} if forked else mine,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            timeout=120,
            check=False,
        )
    text = errors.read_text()
    assert output.exists(), text
    return json.loads(output.read_text()), text


@pytest.mark.by_day(2)
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_reconfigured_process_holds_what_a_started_one_holds(tmp_path: Path, name: str) -> None:
    text, environment = CONFIGURATIONS[name]
    place = tmp_path / "place"
    place.mkdir(mode=0o755)
    if text:
        (place / "ansible.cfg").write_text(text)
    started, printed = attributes(place, environment, False, tmp_path / "started")
    forked, printed_too = attributes(place, environment, True, tmp_path / "forked")
    assert len(started) > 20_000
    differing = {
        path: (started.get(path), forked.get(path))
        for path in {*started, *forked}
        if started.get(path) != forked.get(path) and not any(name in path for name in OWN)
    }
    assert differing == {}
    assert printed == printed_too


def test_the_comparison_sees_a_configuration(tmp_path: Path) -> None:
    """Or it would prove nothing."""
    place = tmp_path / "place"
    place.mkdir(mode=0o755)
    before, _ = attributes(place, {}, False, tmp_path / "before")
    (place / "ansible.cfg").write_text(everything())
    after, _ = attributes(place, {}, False, tmp_path / "after")
    differing = {path for path in {*before, *after} if before.get(path) != after.get(path)}
    for captured in ("Play.strategy.default", "color_to_log_level", "IGNORED_PATTERNS", "filter_loader"):
        assert any(captured in path for path in differing), captured


# Ansible's source.


class Reads(ast.NodeVisitor):
    """The reads of settings that are executed when a module is imported."""

    def __init__(self, tree: ast.Module) -> None:
        self.modules: set[str] = set()
        self.names: set[str] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module == "ansible":
                self.modules |= {item.asname or item.name for item in node.names if item.name == "constants"}
            if isinstance(node, ast.ImportFrom) and node.module == "ansible.constants":
                self.names |= {item.asname or item.name for item in node.names}
        # A function that reads settings does so on import if it is called then.
        self.readers = {
            node.name
            for node in tree.body
            if isinstance(node, ast.FunctionDef) and any(self._is_read(inner) for inner in ast.walk(node))
        }
        self.found: list[tuple[str, str]] = []  # where, which
        self._where: list[str] = []
        self._derived: set[str] = set()
        for statement in tree.body:
            self._of_statement(statement)

    def _is_read(self, node: ast.AST) -> bool:
        return isinstance(node, ast.Name) and node.id in self.modules | self.names

    def _of_statement(self, statement: ast.stmt) -> None:
        before = len(self.found)
        self.visit(statement)
        if not isinstance(statement, (ast.ClassDef, ast.FunctionDef)):
            targets = ", ".join(dict.fromkeys(reconfigure.assigned(statement)))
            self.found[before:] = [(targets, which) for _, which in self.found[before:]]

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._where.append(node.name)
        for statement in node.body:
            before = len(self.found)
            self.visit(statement)
            if not isinstance(statement, (ast.ClassDef, ast.FunctionDef)):
                names = ", ".join(reconfigure.assigned(statement))
                self.found[before:] = [(f"{node.name}.{names}", which) for _, which in self.found[before:]]
        self._where.pop()

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._where.append(node.name)
        for default in (*node.args.defaults, *filter(None, node.args.kw_defaults), *node.decorator_list):
            self.visit(default)
        self._where.pop()

    visit_AsyncFunctionDef = visit_FunctionDef  # type: ignore[assignment]

    def visit_Lambda(self, node: ast.Lambda) -> None:
        for default in node.args.defaults:
            self.visit(default)

    def visit_Call(self, node: ast.Call) -> None:
        if ast.unparse(node.func) == "getattr" and ast.unparse(node.args[0]) in self.modules:
            self.found.append((".".join(self._where), ast.literal_eval(node.args[1])))
        if isinstance(node.func, ast.Name) and node.func.id in self.readers:
            self.found.append((".".join(self._where), node.func.id))
        if isinstance(node.func, ast.Attribute) and node.func.attr == "from_config":
            self.found.append((".".join(self._where), ast.unparse(node.args[0])))
        self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if isinstance(node.value, ast.Name) and node.value.id in self.modules:
            self.found.append((".".join(self._where), node.attr))
        self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        if node.id in self.names and isinstance(node.ctx, ast.Load):
            self.found.append((".".join(self._where), node.id))


def reads() -> Iterator[tuple[str, str, str]]:
    """Module, what is set or whose default it is, and the setting."""
    for path in sorted(ANSIBLE.rglob("*.py")):
        name = ".".join(("ansible", *path.relative_to(ANSIBLE).with_suffix("").parts)).removesuffix(".__init__")
        if "constants" in (text := path.read_text()):
            for where, which in Reads(ast.parse(text)).found:
                yield name, where, which


def test_every_setting_that_is_read_on_import_is_captured_again() -> None:
    tables = {f"{module}:{name}" for module, names in reconfigure.MODULE_VARIABLES.items() for name in names}
    for owner, names in reconfigure.CLASS_VARIABLES.items():
        module, _, kind = owner.rpartition(".")
        tables |= {f"{module}:{kind}.{name}" for name in names}
    found = {
        f"{module}:{where}"
        for module, where, which in reads()
        if which not in NO_SETTINGS and not module.startswith(NOT_LOADED) and module != LOADERS
    }
    found |= set(imports_of(tables))
    captured = {f"{METHOD[0]}:{METHOD[1]}", STATEMENT}
    missing = {
        place
        for place in found
        if not any(f"{place.partition(':')[0]}:{name}" in tables | captured for name in names_in(place))
    }
    assert missing == set()
    assert {"ansible.playbook.play:Play.strategy", "ansible.utils.color:ANSIBLE_COLOR"} < found


def imports_of(captured: set[str]) -> Iterator[str]:
    """Variables that are captured again, as other modules have imported them by name."""
    for path in sorted(ANSIBLE.rglob("*.py")):
        name = ".".join(("ansible", *path.relative_to(ANSIBLE).with_suffix("").parts)).removesuffix(".__init__")
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                for item in node.names:
                    if f"{node.module}:{item.name}" in captured and not name.startswith(NOT_LOADED):
                        yield f"{name}:{item.asname or item.name}"


def names_in(place: str) -> list[str]:
    """What a statement sets, each name with its class."""
    where = place.partition(":")[2]
    kind, dot, names = where.rpartition(".")
    return [f"{kind}{dot}{name}" for name in names.split(", ")]


def test_every_plugin_loaders_paths_are_captured_again() -> None:
    captured = {constant for _, constant in reconfigure.capture().loaders}
    named = {which for module, _, which in reads() if module == LOADERS and which not in NO_SETTINGS}
    assert {name for name in named if name.endswith("PATH")} <= captured


MADE_IN_CHILD = """
import os
from flansible.runner.preload import _make_in_child
assert _make_in_child(lambda: {"a": ["b"]}) == {"a": ["b"]}
assert _make_in_child(os.getpid) != os.getpid()
try:
    _make_in_child(lambda: 1 // 0)
except ZeroDivisionError:
    print("raised")
"""


def test_what_a_child_makes_is_taken_over_and_its_error_raised_here() -> None:
    command = [sys.executable, "-P", "-c", MADE_IN_CHILD]
    assert subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=60).stdout == b"raised\n"
