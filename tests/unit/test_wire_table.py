"""The frame table of flansible.wire and the code say the same: every frame, its direction and its fields."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import flansible
from flansible import wire
from flansible.models import Step

PACKAGE = Path(flansible.__file__).parent
# Adds fields to each frame of the run.
PIPE = ("EventPipe", "send")
# Which process sends what a module makes, and which module reads for a process.
SENDERS = {
    "runner/forkserver.py": "fork server",
    "runner/zygote.py": "zygote",
    "runner/keeper.py": "keeper",
    "runner/callback.py": "run",
    "runner/play.py": "run",
    "runner/preview_listing.py": "run",
    "runner/project_step.py": "run",
    "worker/supervisor.py": "supervisor",
    "worker/zygote_handle.py": "worker",
}
RECEIVERS = {
    "runner/keeper.py": "keeper",
    "worker/supervisor.py": "supervisor",
    "worker/zygote_handle.py": "worker",
}
# No receiver compares their type: each is the only other one that can come.
UNCOMPARED = {"configure", "loaded", "ready", "stop"}


def table() -> dict[str, tuple[str, str, set[str]]]:
    """Frame -> sender, receiver and fields, as the table has them."""
    rows: dict[str, tuple[str, str, set[str]]] = {}
    last = ""
    for line in re.findall(r"^\|(.*)\|$", wire.__doc__ or "", re.MULTILINE)[2:]:
        frame, sender, receiver, fields = (cell.strip() for cell in line.split("|"))
        last = frame or last
        rows.setdefault(last, (sender, receiver, set()))[2].update(re.findall(r"`(\w+)`", fields))
    return rows


def modules() -> Iterator[tuple[str, ast.Module]]:
    for folder in ("runner", "worker"):
        for path in sorted((PACKAGE / folder).rglob("*.py")):
            yield path.relative_to(PACKAGE).as_posix(), ast.parse(path.read_text())


def constant(node: ast.AST | None) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def sent() -> dict[str, tuple[set[str], set[str]]]:
    """Frame -> the processes that make it, and its fields. Fails on fields that cannot be read off the code."""
    found: dict[str, tuple[set[str], set[str]]] = defaultdict(lambda: (set(), set()))
    for name, tree in modules():
        for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
            for node in (node for node in ast.walk(function) if isinstance(node, ast.Dict)):
                keys = {constant(key): value for key, value in zip(node.keys, node.values, strict=True)}
                if (frame := constant(keys.get("type"))) is None:
                    continue
                senders, fields = found[frame]
                senders.add(SENDERS[name])
                fields |= fields_of(node, function, tree) - {"type"}
                if SENDERS[name] == "run":
                    fields |= added_by_pipe()
    return dict(found)


def fields_of(node: ast.Dict, function: ast.FunctionDef, tree: ast.Module) -> set[str]:
    fields = set()
    for key, value in zip(node.keys, node.values, strict=True):
        if key is not None:
            assert (name := constant(key)), ast.unparse(node)
            fields.add(name)
        elif ast.unparse(value).startswith("step.model_dump("):
            fields |= set(Step.model_fields)
        else:
            fields |= spread(value, function, tree)
    return fields


def spread(value: ast.expr, function: ast.FunctionDef, tree: ast.Module) -> set[str]:
    """The keys of `**value`: a variable set to a literal, or an argument that is a literal at every call."""
    name = value.values[0] if isinstance(value, ast.BoolOp) else value
    assert isinstance(name, ast.Name), f"write the fields out: **{ast.unparse(value)}"
    if name.id in [argument.arg for argument in function.args.args]:
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        mine = [call for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr == function.name]
        literals = [argument for call in mine for argument in call.args if isinstance(argument, ast.Dict)]
    else:
        assigned = [node for node in ast.walk(function) if isinstance(node, ast.Assign)]
        literals = [
            node.value
            for node in assigned
            if ast.unparse(node.targets[0]) == name.id and isinstance(node.value, ast.Dict)
        ]
    assert literals, f"write the fields out: **{ast.unparse(value)}"
    return set().union(*(fields_of(literal, function, tree) for literal in literals))


def added_by_pipe() -> set[str]:
    tree = ast.parse((PACKAGE / "runner/callback.py").read_text())
    (pipe,) = (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name == PIPE[0])
    (send,) = (node for node in pipe.body if isinstance(node, ast.FunctionDef) and node.name == PIPE[1])
    (frame,) = (node for node in ast.walk(send) if isinstance(node, ast.Dict))
    return {name for key in frame.keys if (name := constant(key))}


def read() -> dict[str, set[str]]:
    """Frame -> the processes that compare its type when they receive."""
    found: dict[str, set[str]] = defaultdict(set)
    for name, tree in modules():
        for node in (node for node in ast.walk(tree) if isinstance(node, ast.Compare)):
            text = ast.unparse(node.left)
            if re.fullmatch(r"""\w+(\.get\('type'\)|\['type'\])|kind""", text) and name in RECEIVERS:
                for side in node.comparators:
                    if (frame := constant(side)) is not None:
                        found[frame].add(RECEIVERS[name])
    return dict(found)


def fields_read(path: str, name: str, functions: str = ".*") -> set[str]:
    """The fields that these functions of a module take from the frame of this name."""
    found = set()
    for function in ast.walk(ast.parse((PACKAGE / path).read_text())):
        if isinstance(function, ast.FunctionDef) and re.fullmatch(functions, function.name):
            for node in ast.walk(function):
                if isinstance(node, ast.Subscript) and ast.unparse(node.value) == name:
                    found.add(constant(node.slice))
                if isinstance(node, ast.Call) and ast.unparse(node.func) == f"{name}.get":
                    found.add(constant(node.args[0]))
    return {field for field in found if field is not None} - {"type"}


def test_every_frame_that_is_sent_is_in_the_table_with_its_sender_and_its_fields() -> None:
    expected = {frame: ({sender}, fields) for frame, (sender, _, fields) in table().items()}
    assert sent() == expected


def test_every_frame_that_a_receiver_knows_is_in_the_table_as_one_that_it_gets() -> None:
    expected = {frame: {receiver} for frame, (_, receiver, _) in table().items() if frame not in UNCOMPARED}
    assert read() == expected


def test_what_is_read_of_a_frame_is_a_field_of_it() -> None:
    run = {"runner/keeper.py": "keep.*", "runner/play.py": ".*"}
    taken = {
        "run": set().union(*(fields_read(path, "request", functions) for path, functions in run.items())),
        "configure": fields_read("runner/forkserver.py", "frame"),
        "ready": fields_read("worker/fork_server.py", "process.first_frame"),
        "refused": fields_read("worker/zygote_handle.py", "answer"),
        "stop": fields_read("runner/keeper.py", "frame"),
        "lease": fields_read("runner/keeper.py", "lease"),
    }
    validation = "worker/frame_validation.py"
    for frame in ("event", "plan", "end", "exited"):
        taken[frame] = fields_read(validation, "frame", f"(.*_)?{frame}")
    moment = fields_read(validation, "frame", "_.*")
    assert moment == {"time", "mark"} and all(taken.values())
    for frame, (_, _, fields) in table().items():
        assert taken.get(frame, set()) <= fields
