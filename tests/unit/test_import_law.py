"""The import law of the design, as a table and as a test; and: nothing happens at import."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import flansible.errors

PACKAGE = Path(flansible.__file__).parent

# A foreign package -> the only modules of ours that may import it ("web" stands for all below it).
FOREIGN_LAW = {
    "ansible": ("runner",),
    "redis": ("store",),
    "celery": ("celery_app", "worker"),
    "kombu": ("celery_app", "worker"),
    "flask": ("web",),
    "flask_restful": ("web",),
    "flask_restful_swagger": ("web",),
    "flask_httpauth": ("web",),
    "flask_swagger_ui": ("web",),
    "gunicorn": ("web",),
}

# A module or folder of ours -> all it may import of ours. What is not listed may import what the folders' law allows.
OWN_LAW = {
    "errors": (),
    "wire": ("errors",),
    "variables": (),
    "runner": ("runner", "wire", "errors", "variables", "descriptors"),
    "models": ("models",),
    "outline": (),
    "processes": (),
    "children": ("ssh_masters",),
    "tls_children": ("children",),
    "tls": ("config", "errors"),
    "descriptors": (),
    "ssh_masters": (),
    "setting_values": (),
    "config": ("errors", "setting_values"),
    "store": ("errors", "models", "store"),
    "reaper": ("celery_app", "errors", "models", "processes", "store"),
    "celery_app": ("config", "errors"),
    "command": ("models",),
    "disclosure": ("models",),
    "isolation": ("errors",),
    "rbac_schema": ("errors",),
    "files": ("errors",),
    "rbac": ("config", "errors", "files", "rbac_schema"),
    "tokens": ("errors", "files"),
    "rules": ("config", "errors", "isolation", "models", "outline", "rbac", "rules", "variables"),
    "authorization": ("command", "config", "disclosure", "errors", "isolation", "models", "rbac", "rules", "variables"),
    "secret_files": ("config", "errors"),
    "open_services": ("config",),
}

# Folders are kinds of process: they never import each other. Only the commands start from everywhere.
FOLDERS = ("web", "worker", "runner")
STANDARD_LIBRARY_ONLY = (
    "errors",
    "wire",
    "variables",
    "processes",
    "children",
    "tls_children",
    "ssh_masters",
    "descriptors",
)
MAY_IMPORT_IN_FUNCTIONS = ("cli",)


class Import(NamedTuple):
    module: str  # ours, without the package: "web.auth"; the package itself is ""
    line: int
    target: str  # absolute: "flansible.store", "redis"
    in_function: bool
    for_types_only: bool

    def __str__(self) -> str:
        return f"flansible/{self.module.replace('.', '/')}.py:{self.line} imports {self.target}"


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path) -> Iterator[Import]:
    module = module_name(path)
    package = f"flansible.{module}" if path.name == "__init__.py" else f"flansible.{module}".rpartition(".")[0]

    def walk(node: ast.AST, in_function: bool, for_types: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            inside = in_function or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            if isinstance(child, ast.If) and ast.unparse(child.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
                for part in child.body:
                    yield from walk(ast.Module([part], []), inside, True)
                for part in child.orelse:
                    yield from walk(ast.Module([part], []), inside, for_types)
                continue
            if isinstance(child, ast.Import):
                for alias in child.names:
                    yield Import(module, child.lineno, alias.name, inside, for_types)
            elif isinstance(child, ast.ImportFrom):
                base = absolute(child)
                for alias in child.names:
                    # `from flansible import store` imports a module, `from flansible.store import Store` a name.
                    target = f"{base}.{alias.name}" if is_module(f"{base}.{alias.name}") else base
                    yield Import(module, child.lineno, target, inside, for_types)
            yield from walk(child, inside, for_types)

    def absolute(node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        parents = package.split(".")[: len(package.split(".")) - node.level + 1]
        return ".".join([*parents, *([node.module] if node.module else [])])

    yield from walk(ast.parse(path.read_text()), False, False)


def is_module(name: str) -> bool:
    first, _, rest = name.partition(".")
    path = PACKAGE / rest.replace(".", "/")
    return first == "flansible" and (path.with_suffix(".py").is_file() or (path / "__init__.py").is_file())


def covers(name: str, module: str) -> bool:
    return module == name or module.startswith(f"{name}.")


def is_any_of(module: str, names: tuple[str, ...]) -> bool:
    return any(covers(name, module) for name in names)


MODULES = sorted(PACKAGE.rglob("*.py"))
RUNTIME = [item for path in MODULES for item in imports_of(path) if not item.for_types_only]
OURS = [item for item in RUNTIME if covers("flansible", item.target)]


def broken(rule: bool, item: Import) -> list[str]:
    return [] if rule else [str(item)]


def test_the_parser_sees_the_imports_that_are_there() -> None:
    """A law that finds nothing to judge would hold for ever."""
    found = {(item.module, item.target) for item in RUNTIME}
    assert ("store.connection", "redis") in found
    assert ("web.auth", "flask") in found
    assert ("runner.play", "flansible.wire") in found
    assert ("runner.play", "ansible.cli.adhoc") in found
    assert any(item.in_function and item.module == "cli" for item in RUNTIME)
    everything = {item for path in MODULES for item in imports_of(path)}
    assert any(item.for_types_only and item.module == "cli" for item in everything)


@pytest.mark.parametrize("package", FOREIGN_LAW)
def test_each_foreign_package_is_imported_only_where_it_may_be(package: str) -> None:
    users = [item for item in RUNTIME if covers(package, item.target)]
    assert [str(item) for item in users if not is_any_of(item.module, FOREIGN_LAW[package])] == []


@pytest.mark.parametrize("module", OWN_LAW)
def test_the_modules_beneath_import_only_what_lies_beneath_them(module: str) -> None:
    allowed = tuple(f"flansible.{name}" for name in OWN_LAW[module])
    found = [item for item in OURS if covers(module, item.module) and item.target != "flansible"]
    assert [str(item) for item in found if not is_any_of(item.target, allowed)] == []


def test_the_folders_never_import_each_other() -> None:
    faults = [
        str(item)
        for item in OURS
        for mine in FOLDERS
        if covers(mine, item.module)
        for other in FOLDERS
        if other != mine and covers(f"flansible.{other}", item.target)
    ]
    assert faults == []


def test_nothing_outside_a_folder_imports_what_is_in_it_except_the_commands() -> None:
    faults = [
        str(item)
        for item in OURS
        for folder in FOLDERS
        if covers(f"flansible.{folder}", item.target) and not is_any_of(item.module, (folder, "cli"))
    ]
    assert faults == []


@pytest.mark.parametrize("module", STANDARD_LIBRARY_ONLY)
def test_what_every_process_shares_needs_the_standard_library_only(module: str) -> None:
    first_words = {item.target.partition(".")[0] for item in RUNTIME if item.module == module}
    assert first_words - sys.stdlib_module_names <= {"flansible"}


def test_only_the_commands_import_inside_functions() -> None:
    inside = [item for item in RUNTIME if item.in_function]
    assert [str(item) for item in inside if item.module not in MAY_IMPORT_IN_FUNCTIONS] == []


def test_only_one_module_defines_exceptions() -> None:
    names = {"Exception", "BaseException", *(name for name in vars(flansible.errors) if name[0].isupper())}
    faults = [
        f"{path.name}:{node.lineno} class {node.name}"
        for path in MODULES
        if path.name != "errors.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) and any(ast.unparse(base).rpartition(".")[2] in names for base in node.bases)
    ]
    assert faults == []


def python(code: str, cwd: Path, **environ: str) -> str:
    """Standard output of a fresh interpreter."""
    result = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=cwd,
        env={"PYTHONDONTWRITEBYTECODE": "1", "HOME": str(cwd), "PATH": "/usr/bin:/bin", **environ},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize(
    ("imported", "absent"),
    [
        ("flansible.worker.celery_task", ("ansible", "flask")),
        ("flansible.web", ("ansible",)),
        ("flansible.web.server", ("ansible",)),
        ("flansible.runner.forkserver", ("redis", "celery", "flask", "kombu", "pydantic")),
        ("flansible.store", ("ansible", "celery", "flask")),
        ("flansible.rbac", ("ansible", "celery", "flask", "redis")),
        (
            "flansible.children",
            ("ansible", "celery", "flask", "redis", "pydantic", "click", "werkzeug", "http", "email", "ssl"),
        ),
        ("flansible.cli", ("ansible", "celery", "flask", "redis", "pydantic", "httpx")),
    ],
)
def test_a_process_loads_nothing_of_the_others(imported: str, absent: tuple[str, ...], tmp_path: Path) -> None:
    code = f"import sys, json, {imported}; print(json.dumps(sorted(sys.modules)))"
    loaded = {name.partition(".")[0] for name in json.loads(python(code, tmp_path))}
    assert loaded & set(absent) == set()


AUDIT = """
import importlib, json, os, pkgutil, sys
faults = []
FORBIDDEN = ("socket.connect", "socket.bind", "subprocess.Popen", "os.fork", "os.forkpty", "os.exec", "os.posix_spawn",
             "os.system", "os.remove", "os.rename", "os.rmdir", "os.mkdir")
def watch(event, args):
    if event in FORBIDDEN:
        faults.append([event, repr(args)])
    elif event == "open" and isinstance(args[0], str):
        if args[0].endswith((".ini", "rbac.json")) or set(args[1] or "") & set("wax+"):
            faults.append([event, repr(args)])
"""


def test_importing_any_module_opens_no_connection_and_reads_no_configuration(tmp_path: Path) -> None:
    """Broken configuration lies where it would be read: an import that looked at it would fail as well."""
    (tmp_path / "config.ini").write_text("this is no configuration")
    names = [f"flansible.{module_name(path)}".rstrip(".") for path in MODULES]
    ours = [name for name in names if not covers("flansible.runner", name)]
    code = f"{AUDIT}\nimport flansible\n"
    # Ansible and its like do as they please; what they need is loaded before the watch begins.
    code += "import celery, flask_restful, flask_httpauth, flask, redis, gunicorn.app.base, pydantic, kombu, yaml\n"
    code += f"sys.addaudithook(watch)\nfor name in {ours!r}: importlib.import_module(name)\nprint(json.dumps(faults))"
    config = {"FLANSIBLE_CONFIG": str(tmp_path / "config.ini"), "FLANSIBLE_NONSENSE": "1"}
    assert json.loads(python(code, tmp_path, **config)) == []


def test_importing_the_celery_app_opens_nothing_even_while_its_tasks_are_loaded(tmp_path: Path) -> None:
    code = f"{AUDIT}\nimport celery, kombu, redis\nsys.addaudithook(watch)\n"
    code += "import flansible.celery_app, flansible.worker.celery_task\nprint(json.dumps(faults))"
    assert json.loads(python(code, tmp_path, FLANSIBLE_CONFIG=str(tmp_path / "missing.ini"))) == []
