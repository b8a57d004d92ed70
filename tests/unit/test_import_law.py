"""The import law of the design, as a table and as a test; and: nothing happens at import."""

from __future__ import annotations

import ast
import functools
import json
import re
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import flansible.errors

PACKAGE = Path(flansible.__file__).parent

# A foreign package -> the only folders or modules of ours that may import it ("web" stands for all below it).
FOREIGN_LAW = {
    "ansible": ("runner",),
    "redis": ("store",),
    "celery": ("broker", "worker"),
    "kombu": ("broker", "worker"),
    "amqp": ("broker",),
    "flask": ("web",),
    "flask_restful": ("web",),
    "flask_restful_swagger": ("web",),
    "flask_httpauth": ("web",),
    "flask_swagger_ui": ("web",),
    "gunicorn": ("web",),
    "flower": ("monitoring",),
    "tornado": ("monitoring",),
    "pydantic": (
        "authorization",
        "config",
        "definitions",
        "hooks",
        "identity",
        "models",
        "notifications",
        "store",
        "web",
    ),
    "httpx": ("client",),
    "prometheus_client": ("web",),
    "sqlalchemy": ("history",),
    "alembic": ("history",),
    "psycopg": ("history",),
    "sqlite3": ("history",),
    "zstandard": ("history",),
    "cronsim": ("definitions",),
}

# The floors of the house, from the ground up: each folder or module, and all it may import of ours. The most exact
# entry counts ("web.login" before "web"); each module of the package must be below one of them. An entry may always
# import its own modules. "" is the package itself, for its version.
_BASICS = ("errors", "models", "states")
_SYSTEM = (*_BASICS, "config", "system", "wire")
_STORE = (*_SYSTEM, "store", "history", "sealing")
_IDENTITY = (*_STORE, "audit", "broker", "playbooks", "identity")
_WEB = (*_IDENTITY, "authorization", "definitions", "notifications", "hooks", "web.context", "web.serialization")
_LAUNCHING = ("web.task_launch", "web.choices", "web.playbook_variables", "web.template_guards", "web.freezes")
LAW: dict[str, tuple[str, ...]] = {
    "": (),
    "errors": (),
    "states": (),
    "wording": (),
    "models": ("states",),
    # The standard library and `errors` only, but for the client's httpx, click and yaml.
    "wire": ("errors",),
    "system": ("errors",),
    "client": ("errors", "states", ""),
    "config": ("errors", "wording"),
    "store": (*_BASICS, "system"),
    "history": (*_BASICS, "config", "system", "store"),
    "history.schema": (),
    "history.database": ("errors", "history.schema"),
    "history.migrations": (),
    "sealing": (*_BASICS, "system"),
    "playbooks": (*_BASICS, "system"),
    "projects": ("errors", "system"),
    "audit": ("errors", "system", "sealing"),
    "broker": (*_BASICS, "config", "system", "store"),
    "identity": ("errors", "wording", "config", "system", "audit", "playbooks"),
    "definitions": (*_BASICS, "config", "wording", "history", "sealing", "identity", "authorization"),
    "hooks": (*_BASICS, "notifications.signatures"),
    "notifications.signatures": ("models",),
    "notifications": (*_STORE, "identity", "authorization", "definitions.stored_credentials", ""),
    "authorization": (*_BASICS, "config", "identity", "playbooks"),
    "authorization.reserved_variables": (),
    "authorization.isolation": ("errors",),
    "authorization.path_parts": (),
    "authorization.confinement": ("models", "authorization.path_parts"),
    "authorization.inventory_files": ("playbooks",),
    "authorization.variable_files": ("authorization.inventory_files", "authorization.path_parts"),
    "authorization.notes": (
        *("models", "authorization.inventory_files", "authorization.path_parts", "authorization.shown_paths"),
    ),
    "authorization.shown_paths": (
        *("config", "authorization.inventory_files", "authorization.path_parts", "authorization.variable_files"),
    ),
    "monitoring": (*_BASICS, "config", "store", "broker", "audit", "identity"),
    # The kinds of process. They never import each other.
    "launcher": ("errors", "config", "system", "identity", "authorization.isolation"),
    "launcher.process_manager": ("system",),
    "launcher.tls_probe": ("launcher.process_manager",),
    "worker": (
        *(*_STORE, "broker", "authorization.confinement", "authorization.isolation", "authorization.path_parts"),
        *(
            "authorization.shown_paths",
            "authorization.variable_files",
            "authorization.notes",
            "authorization.preview_request",
            "playbooks",
            "projects",
            "",
        ),
    ),
    "runner": ("wire", "errors", "system", "projects", "authorization.reserved_variables"),
    # Within web, from the ground up.
    "web.serialization": ("models",),
    "web.failed_submissions": ("errors", "store", "system"),
    "web.request_counts": ("errors", "store", "system"),
    "web.context": (*_IDENTITY, "definitions", "web.failed_submissions", "web.request_counts"),
    "web.parsing": ("errors", "models", "wording", "web.context"),
    "web.middleware": _WEB,
    "web.login": (*_WEB, "web.middleware"),
    "web.streaming": (*_WEB, "web.middleware"),
    "web.preview_run": (*_WEB, "web.streaming"),
    "web.project_commit": (*_WEB, "web.preview_run"),
    "web.project_lists": (*_WEB, "web.preview_run", "web.project_commit"),
    "web.credential_use": _WEB,
    "web.task_launch": (*_WEB, "web.parsing", "web.preview_run", "web.project_commit", "web.credential_use"),
    "web.kind_rules": _WEB,
    "web.playbook_variables": _WEB,
    "web.choices": (*_WEB, "web.preview_run", "web.project_commit", "web.project_lists", "web.streaming"),
    "web.template_guards": (*_WEB, "web.preview_run", "web.task_launch"),
    "web.template_launch": (*_WEB, *_LAUNCHING),
    "web.template_rules": (*_WEB, *_LAUNCHING, "web.template_launch", "web.kind_rules", "web.login"),
    "web.retries": (*_WEB, *_LAUNCHING, "web.template_launch"),
    "web.freezes": _WEB,
    "web.slow_starts": ("history", "identity"),
    "web.open_occurrences": (*_BASICS, "definitions", "history", "web.context"),
    "web.scheduler": (*_WEB, *_LAUNCHING, "web.template_launch", "web.slow_starts", "web.open_occurrences"),
    "web.schedule_rules": (*_WEB, "web.template_launch", "web.kind_rules"),
    "web.hook_rules": (*_WEB, "web.template_launch", "web.kind_rules"),
    "web.project_rules": (*_WEB, "web.kind_rules"),
    "web.hook_calls": (*_WEB, "web.parsing", "web.project_commit", "web.task_launch", "web.template_launch"),
    "web.hook_starts": (*_WEB, "web.task_launch", "web.hook_calls"),
    "web.kind_table": (
        *(*_WEB, "web.kind_rules", "web.template_rules", "web.schedule_rules", "web.hook_rules"),
        "web.project_rules",
    ),
    "web.resources": (
        *_WEB,
        "wording",
        "web.middleware",
        "web.parsing",
        "web.login",
        "web.streaming",
        "web.preview_run",
        "web.project_commit",
        "web.project_lists",
        *(*_LAUNCHING, "web.template_launch", "web.kind_table", "web.hook_calls"),
        "",
    ),
    "web.static_files": (*_WEB, "web.middleware", "web.login"),
    "web.server": (*_WEB, "web.middleware", "web.streaming"),
    "web.route_types": ("web.serialization",),
    "web.openapi": (*_WEB, "web.middleware", "web.route_types", ""),
    "web.routes": (*_WEB, "web.middleware", "web.streaming", "web.resources", "web.route_types", ""),
    "web": (*_WEB, "web", ""),
    # The tops: they start from everywhere.
    "doctor": (*_STORE, "broker", "identity", "authorization", "launcher", "wording"),
    "starter": ("errors", "system", "identity"),
    "backup": ("errors", "config", "system", "store", "history", ""),
    "cli": (
        *(*_STORE, "audit", "broker", "identity", "client", "doctor", "launcher", "monitoring", "starter"),
        *("backup", "web", "worker", ""),
    ),
    "celery_app": ("broker",),
    "login_function": ("identity",),
    "secret_function": ("definitions", "errors"),
    "__main__": ("cli",),
}

# Kinds of process: nothing outside imports what is in them, except the commands, and the doctor for the launcher.
PROCESSES = {"web": ("cli",), "worker": ("cli",), "runner": (), "launcher": ("cli", "doctor")}
STANDARD_LIBRARY_ONLY = (
    "errors",
    "states",
    "wording",
    "wire",
    "system",
    "projects",
    "authorization.reserved_variables",
    "launcher.process_manager",
    "launcher.tls_probe",
    "launcher.redis_snapshot",
    "launcher.append_only_file",
    "launcher.redis_repair",
)
# Loaded with one module of theirs by processes that hold little.
EMPTY_PACKAGES = ("authorization", "doctor", "history", "launcher", "system")
MAY_IMPORT_IN_FUNCTIONS = ("cli", "client.commands")


class Import(NamedTuple):
    module: str  # ours, without the package: "web.login.authentication"; the package itself is ""
    line: int
    target: str  # absolute: "flansible.store", "redis"
    in_function: bool
    for_types_only: bool

    def __str__(self) -> str:
        return f"flansible/{self.module.replace('.', '/')}.py:{self.line} imports {self.target}"


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imports_of(path: Path) -> Iterator[Import]:
    module = module_name(path)
    package = f"flansible.{module}" if path.name == "__init__.py" else f"flansible.{module}".rpartition(".")[0]

    def walk(node: ast.AST, in_function: bool, for_types: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if not isinstance(child, ast.stmt | ast.ExceptHandler | ast.match_case):
                continue  # no import is part of an expression
            inside = in_function or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
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

    yield from walk(tree_of(path), False, False)


def is_module(name: str) -> bool:
    first, _, rest = name.partition(".")
    path = PACKAGE / rest.replace(".", "/")
    return first == "flansible" and (path.with_suffix(".py").is_file() or (path / "__init__.py").is_file())


def covers(name: str, module: str) -> bool:
    return module == name or module.startswith(f"{name}.")


def is_any_of(module: str, names: tuple[str, ...]) -> bool:
    return any(covers(name, module) for name in names)


MODULES = sorted(PACKAGE.rglob("*.py"))


@functools.cache
def runtime() -> list[Import]:
    return [item for path in MODULES for item in imports_of(path) if not item.for_types_only]


@functools.cache
def ours() -> list[Import]:
    return [item for item in runtime() if covers("flansible", item.target)]


def test_the_parser_sees_the_imports_that_are_there() -> None:
    """A law that finds nothing to judge would hold for ever."""
    found = {(item.module, item.target) for item in runtime()}
    assert ("store.connection", "redis") in found
    assert ("web.login.authentication", "flask") in found
    assert ("runner.play", "flansible.wire") in found
    assert ("runner.play", "ansible.cli.adhoc") in found
    assert any(item.in_function and item.module == "cli" for item in runtime())
    everything = {item for path in MODULES for item in imports_of(path)}
    assert any(item.for_types_only and item.module == "cli" for item in everything)


@pytest.mark.parametrize("package", FOREIGN_LAW)
def test_each_foreign_package_is_imported_only_where_it_may_be(package: str) -> None:
    users = [item for item in runtime() if covers(package, item.target)]
    assert [str(item) for item in users if not is_any_of(item.module, FOREIGN_LAW[package])] == []


@functools.cache
def entry_of(module: str) -> str | None:
    """The most exact entry of the law that a module is below."""
    found = [name for name in LAW if covers(name, module)]
    return max(found, key=len, default=None)


def test_each_module_is_below_an_entry_of_the_law_and_each_entry_is_a_module() -> None:
    assert [str(path) for path in MODULES if entry_of(module_name(path)) is None] == []
    assert [name for name in LAW if name and not is_module(f"flansible.{name}")] == []


@pytest.mark.parametrize("name", LAW)
def test_each_folder_imports_only_what_the_law_says(name: str) -> None:
    allowed = tuple(f"flansible.{other}".rstrip(".") for other in (*LAW[name], *([name] if name else [])))
    found = [item for item in ours() if entry_of(item.module) == name]
    faults = [
        str(item)
        for item in found
        if not (
            is_any_of(item.target, tuple(other for other in allowed if other != "flansible")) or item.target in allowed
        )
    ]
    assert faults == []


def test_docs_architecture_draws_the_floors_of_this_law() -> None:
    page = (PACKAGE.parent / "docs/architecture.md").read_text(encoding="utf-8")
    [picture] = re.findall(r"^```text\n(__main__ .*?)^```", page, re.MULTILINE | re.DOTALL)
    floors = {name: floor for floor, line in enumerate(picture.splitlines()) for name in line.split(" · ")}
    top_level = {name.partition(".")[0] for name in LAW if name}
    assert set(floors) == top_level
    rising = [
        f"{name} imports {other}"
        for name, allowed in LAW.items()
        for other in allowed
        if name and other and (one := name.partition(".")[0]) != (two := other.partition(".")[0])
        if floors[one] >= floors[two]
    ]
    assert rising == []


def test_the_law_has_no_circle() -> None:
    """Between its entries; an entry's own folder, and what stands within it, is not looked at here."""

    def reached(name: str, way: tuple[str, ...]) -> list[tuple[str, ...]]:
        if name in way:
            return [(*way, name)] if name != way[-1] else []
        return [circle for other in LAW[name] if other in LAW for circle in reached(other, (*way, name))]

    assert [circle for name in LAW for circle in reached(name, ())] == []


@pytest.mark.parametrize("folder", PROCESSES)
def test_nothing_outside_a_kind_of_process_imports_what_is_in_it(folder: str) -> None:
    faults = [
        str(item)
        for item in ours()
        if covers(f"flansible.{folder}", item.target) and not is_any_of(item.module, (folder, *PROCESSES[folder]))
    ]
    assert faults == []


@pytest.mark.parametrize("module", STANDARD_LIBRARY_ONLY)
def test_what_every_process_shares_needs_the_standard_library_only(module: str) -> None:
    first_words = {item.target.partition(".")[0] for item in runtime() if covers(module, item.module)}
    assert first_words - sys.stdlib_module_names <= {"flansible"}


@pytest.mark.parametrize("package", EMPTY_PACKAGES)
def test_packages_of_which_single_modules_are_loaded_are_empty(package: str) -> None:
    body = tree_of(PACKAGE / package / "__init__.py").body
    assert len(body) == 1 and isinstance(body[0], ast.Expr)


def test_each_folder_says_what_it_is_for_and_what_it_may_import() -> None:
    for path in MODULES:
        if path.name == "__init__.py" and path.parent != PACKAGE:
            words = ast.get_docstring(tree_of(path)) or ""
            assert "ay import" in words, f"{path}: what may it import?"


def test_no_two_files_have_one_name() -> None:
    names = Counter(path.name for path in MODULES if path.name != "__init__.py")
    assert [name for name, count in names.items() if count > 1] == []


def test_no_two_public_classes_have_one_name() -> None:
    """Of all modules, their top level."""
    places: dict[str, list[str]] = defaultdict(list)
    for path in MODULES:
        for node in tree_of(path).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(module_name(path))
            # A type variable or an alias is a name for a type as well.
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
                if ast.unparse(node.value.func) == "TypeVar":
                    places[ast.unparse(node.targets[0])].append(module_name(path))
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_only_the_commands_import_inside_functions() -> None:
    inside = [item for item in runtime() if item.in_function]
    assert [str(item) for item in inside if item.module not in MAY_IMPORT_IN_FUNCTIONS] == []


def test_only_one_module_defines_exceptions() -> None:
    names = {"Exception", "BaseException", *(name for name in vars(flansible.errors) if name[0].isupper())}
    faults = [
        f"{path.name}:{node.lineno} class {node.name}"
        for path in MODULES
        if path.name != "errors.py"
        for node in ast.walk(tree_of(path))
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
        ("flansible.worker.celery_task", ("ansible", "flask", "sqlalchemy")),
        ("flansible.web, flansible.web.gunicorn_server", ("ansible",)),
        ("flansible.runner.forkserver", ("redis", "celery", "flask", "kombu", "pydantic")),
        ("flansible.store", ("ansible", "celery", "flask")),
        ("flansible.identity.users", ("ansible", "celery", "flask", "redis")),
        (
            "flansible.launcher.process_manager",
            ("ansible", "celery", "flask", "redis", "pydantic", "click", "werkzeug", "http", "email", "ssl"),
        ),
        ("flansible.history, flansible.history.upgrade", ("alembic", "ansible", "celery", "flask", "psycopg")),
        # What every start of a part of the service loads, `flansible up` among them.
        (
            "flansible.doctor.secret_files, flansible.launcher.up",
            ("ansible", "celery", "kombu", "flask", "redis"),
        ),
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
    code += "import flansible.celery_app, flansible.broker.recovery, flansible.worker.celery_task\n"
    code += "print(json.dumps(faults))"
    assert json.loads(python(code, tmp_path, FLANSIBLE_CONFIG=str(tmp_path / "missing.ini"))) == []
