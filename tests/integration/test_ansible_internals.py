"""The table of Ansible's internals: each entry is there in the installed ansible-core, and the code uses no other."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ansible.cli
import pytest
from ansible.release import __version__ as ansible_version

import flansible.runner
from flansible.runner import ansible_internals, callback, preview_listing
from flansible.runner.ansible_internals import OVERRIDDEN, REPLACED, USED, Internal, replace

RUNNER = Path(str(flansible.runner.__file__)).parent
TABLE = (*REPLACED, *OVERRIDDEN, *USED)
NAMES = {internal.name for internal in TABLE}
# Python's private attributes, not Ansible's.
PYTHONS = {"_clear", "_config", "_exit", "_exit_function", "_run_exitfuncs", "_shutdown"}
# What is assigned besides Ansible's attributes: the runner's own objects, Python's, one of argparse, one of Mitogen's;
# last, a copy of a task.
ASSIGNED = re.compile(
    r"self\..*|ending\..*|sys\.(argv|executable|dont_write_bytecode)|stream\.buffer\.write|process\.authkey|timer\.daemon"
    r"|\w+\.__name__|options\.private_key_file|unix\.make_socket_path"
    r"|function\.__defaults__"
    r"|ObservedTaskQueueManager\.event_callback|\w+Executor\.event_pipe"
    r"|inline\.strategy|_state\.\w+|worker\.messages|copied\._parent"
)
SUBCLASSES = ("TaskQueueManager", "CallbackBase", "PlaybookExecutor", "command")


def release(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")[:2]))


def owner_of(internal: Internal) -> Any:
    """The module or class that the entry names."""
    try:
        return importlib.import_module(internal.owner)
    except ModuleNotFoundError:
        module, _, name = internal.owner.rpartition(".")
        return getattr(importlib.import_module(module), name)


def parameters(function: Any) -> list[str]:
    found, keyword = [], False
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not keyword:
            keyword = True
            found.append("*")
        found.append(parameter.name)
    return found


def is_set_on_instances(owner: Any, name: str) -> bool:
    """Whether the class, or one that it derives from, sets this attribute on `self`."""
    kinds = [kind for kind in inspect.getmro(owner) if kind.__module__.startswith("ansible")]
    return any(re.search(rf"\bself\.{name}\b\s*(:[^=\n]+)?=[^=]", inspect.getsource(kind)) for kind in kinds)


@pytest.mark.parametrize("internal", TABLE, ids=lambda internal: f"{internal.owner}.{internal.name}")
def test_each_internal_is_there_with_the_parameters_it_is_used_with(internal: Internal) -> None:
    owner = owner_of(internal)
    if internal.before is not None and release(ansible_version) >= release(internal.before):
        assert not hasattr(owner, internal.name)
        return
    if not hasattr(owner, internal.name):
        assert inspect.isclass(owner) and is_set_on_instances(owner, internal.name)
        assert internal.parameters is None
        return
    value = getattr(owner, internal.name)
    if internal.parameters is None:
        assert inspect.isclass(value) or not callable(value), "state the parameters"
        return
    expected = internal.parameters.split(", ") if internal.parameters else []
    if expected[-1:] == ["..."]:
        assert set(expected[:-1]) <= {*parameters(value)}
    else:
        assert parameters(value) == expected


def nodes(kind: type[ast.AST]) -> Iterator[tuple[str, Any]]:
    for path in sorted(RUNNER.glob("*.py")):
        if path.stem != ansible_internals.__name__.rpartition(".")[2]:
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, kind):
                    yield path.stem, node


def calls_of_replace() -> set[str]:
    calls = [node for _, node in nodes(ast.Call) if ast.unparse(node.func) == "replace"]
    return {ast.literal_eval(call.args[1]) for call in calls}


def test_nothing_of_ansibles_is_replaced_but_by_the_table() -> None:
    assigned = [
        f"{module}: {ast.unparse(node)}"
        for module, node in nodes(ast.Attribute)
        if isinstance(node.ctx, ast.Store) and not ASSIGNED.fullmatch(ast.unparse(node))
    ]
    assert assigned == []
    setting = {module for module, node in nodes(ast.Call) if ast.unparse(node.func) == "setattr"}
    # Other modules' names for two functions of the table; and what test_reconfigure.py holds to Ansible's source.
    assert setting == {"colour_marks", "reconfigure"}
    assert calls_of_replace() == {internal.name for internal in REPLACED}


def own_names() -> set[str]:
    """Names that the runner defines: functions, classes, variables, attributes."""
    found = {node.name for kind in (ast.FunctionDef, ast.ClassDef) for _, node in nodes(kind)}
    found |= {node.id for _, node in nodes(ast.Name) if isinstance(node.ctx, ast.Store)}
    return found | {
        node.attr
        for _, node in nodes(ast.Attribute)
        if isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self"
    }


def test_no_private_attribute_of_ansibles_is_used_that_the_table_lacks() -> None:
    used = {node.attr for _, node in nodes(ast.Attribute)}
    used |= {alias.name for _, node in nodes(ast.ImportFrom) if is_ansibles(node) for alias in node.names}
    asked = [node.args[1] for _, node in nodes(ast.Call) if ast.unparse(node.func) in ("getattr", "hasattr")]
    used |= {node.value for node in asked if isinstance(node, ast.Constant)}
    private = {name for name in used if re.match("_(?!_)", name)}
    private -= {
        "_internal",
        "_collection_finder",
        "_deprecator",
        "_jinja_bits",
        "_jinja_plugins",
        "_task",
    }  # modules; the table names what is used in them
    assert private - own_names() - PYTHONS <= NAMES
    assert {internal.name for internal in USED if internal.name.startswith("_")} <= private


def is_ansibles(node: ast.ImportFrom) -> bool:
    return (node.module or "").partition(".")[0] == "ansible"


def test_no_name_of_ours_hides_a_private_use_of_ansibles() -> None:
    """`own_names` would take a use of an Ansible attribute for one of ours if both had one name."""
    assert own_names() & {internal.name for internal in USED} <= {internal.name for internal in OVERRIDDEN}


def test_whatever_is_overridden_is_in_the_table() -> None:
    """Callback methods are Ansible's public interface for plugins; everything else of its base classes is not."""
    classes = {node.name: node for _, node in nodes(ast.ClassDef)}
    derived = [node for node in classes.values() if {ast.unparse(base) for base in node.bases} & {*SUBCLASSES}]
    assert {"EventCallback", "ObservedTaskQueueManager"} < {node.name for node in derived}
    bases = (
        ansible.cli.adhoc.AdHocCLI,
        ansible.cli.playbook.PlaybookCLI,
        preview_listing.PlaybookExecutor,
        callback.CallbackBase,
        callback.TaskQueueManager,
    )
    overridden = set()
    for node in derived:
        for item in node.body:
            names = [item.name] if isinstance(item, ast.FunctionDef) else []
            names += [target.id for target in getattr(item, "targets", []) if isinstance(target, ast.Name)]
            overridden.update(name for name in names if any(hasattr(base, name) for base in bases))
    public = {name for name in overridden if name.startswith(("v2_", "CALLBACK_", "__"))}
    assert overridden - public == {internal.name for internal in OVERRIDDEN}


def test_an_attribute_that_the_table_lacks_cannot_be_replaced() -> None:
    with pytest.raises(LookupError, match="ansible.cli.CLI.run"):
        replace(ansible.cli.CLI, "run", None)
