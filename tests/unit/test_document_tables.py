"""The documents' tables say what the code does: keys and defaults, routes, states, error codes, commands."""

from __future__ import annotations

import ast
import inspect
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from flansible import errors, store, wire
from flansible.cli import cli
from flansible.config import KEYS, Settings
from flansible.definitions.kinds import KINDS
from flansible.models import FINAL_STATES, STATES
from flansible.web import gunicorn_server
from flansible.web.middleware import error_handlers
from flansible.web.routes import ROUTES

TOP = Path(__file__).parents[2]
PAGES = {
    str(path.relative_to(TOP)): path.read_text(encoding="utf-8")
    for path in (TOP / "README.md", *sorted((TOP / "docs").rglob("*.md")))
}


def rows(page: str, first_heading: str) -> list[list[str]]:
    """The cells of the page's table whose first column is headed so."""
    pattern = rf"^\| {re.escape(first_heading)} \|.*\n\|[-|]+\|\n((?:\|.*\n)+)"
    table = re.search(pattern, PAGES[f"docs/{page}"], re.MULTILINE)
    assert table is not None, f"{page} has no table headed {first_heading!r}"
    # A bar within back quotes is part of a cell.
    lines = (re.sub(r"`[^`]*`", lambda code: code[0].replace("|", "\0"), line) for line in table[1].splitlines())
    return [[cell.strip().replace("\0", "|") for cell in line.strip("|").split("|")] for line in lines]


def plain(cell: str) -> str:
    return cell.strip("`")


def test_each_setting_is_there_with_its_default_and_meaning() -> None:
    fields = Settings.model_fields
    expected = [
        [
            key,
            "not set" if fields[key].default is None else str(fields[key].default) or "empty",
            fields[key].description,
        ]
        for key in KEYS
    ]
    assert [
        [plain(key), plain(default), meaning] for key, default, meaning in rows("configuration.md", "key")
    ] == expected


def test_each_route_has_a_section_on_one_page() -> None:
    headings = [
        name
        for text in PAGES.values()
        for name in re.findall(r"^## .*: `([A-Z]+ /(?:api/|metrics)[^`]*)`$", text, re.M)
    ]
    assert len(headings) == len(set(headings))
    assert {plain(route) for route, _ in rows("api/index.md", "route")} == set(headings)
    assert set(headings) == {f"{route.method.upper()} {_documented_path(route.path)}" for route in ROUTES}


def _documented_path(path: str) -> str:
    """The path as the pages write it; all kinds of definitions have the same routes."""
    for kind in KINDS:
        path = re.sub(rf"^/api/{kind.name}(?=$|/<string:name>$)", "/api/<kind>", path)
    return path.replace("string:", "")


def test_the_addresses_of_the_documentation_are_there() -> None:
    for address in ("/api/docs", "/api/openapi.json", "/api/spec.html", "/api/spec"):
        assert f"`{address}`" in PAGES["docs/api/index.md"]


def test_each_state_is_there_with_its_status() -> None:
    shown = [
        [plain(state), plain(status).removesuffix(": why"), *rest]
        for state, status, *rest in rows("api/states.md", "state")
    ]
    assert shown == [
        [state, facts.status, "yes" if state in FINAL_STATES else "no", facts.meaning]
        for state, facts in STATES.items()
    ]


def test_each_error_code_is_there_with_its_status() -> None:
    shown = {plain(code): status for code, status, _ in rows("api/errors.md", "code")}
    assert set(shown) == {code for path in sorted((TOP / "flansible").rglob("*.py")) for code in _codes(path)}
    for kind in vars(errors).values():
        if inspect.isclass(kind) and issubclass(kind, errors.RequestError):
            assert shown[kind.default_code] == str(kind.status)
    for status, (code, _) in error_handlers._HTTP_MESSAGES.items():
        assert shown[code] == str(status)
    for status, code in gunicorn_server._CODES.items():
        assert shown[code] == str(status)


def _codes(path: Path) -> Iterator[str]:
    """What stands in the source where a code is given, and the codes of errors and problems."""
    if path.name == "errors.py":
        yield from (
            kind.default_code
            for kind in vars(errors).values()
            if inspect.isclass(kind) and issubclass(kind, errors.RequestError)
        )
    if path.name == "error_handlers.py":
        yield from (code for code, _ in error_handlers._HTTP_MESSAGES.values())
        yield "http_error"
    if path.name == "gunicorn_server.py":
        yield from gunicorn_server._CODES.values()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        given = [keyword.value for keyword in node.keywords if keyword.arg == "code"]
        given += node.args[1:2] if name in ("forbidden", "_reply") else []
        yield from (item.value for item in given if isinstance(item, ast.Constant) and isinstance(item.value, str))
        if name == "_unavailable" and isinstance(node.args[0], ast.Constant):
            yield f"{node.args[0].value}_unavailable"


def test_each_refusal_by_rbac_is_in_the_table_of_rules() -> None:
    shown = {plain(code) for _, _, code in rows("users-and-rights.md", "what") if code}
    files = [TOP / "flansible/authorization/authorize.py", *(TOP / "flansible/authorization/rules").glob("*.py")]
    refusals = {code for path in files for code in _codes(path)} - {"invalid_field"}
    assert len(refusals) > 20
    assert refusals <= shown


def test_each_command_is_there() -> None:
    shown = {plain(command).split()[1] for command, _ in rows("cli.md", "command")}
    assert shown == set(cli.commands)


@pytest.mark.parametrize("page", PAGES)
def test_commands_stand_in_blocks_that_are_run(page: str) -> None:
    """A prompt in a block of another kind would be a command that no test runs."""
    for kind, text in re.findall(r"^```(\w*)\n(.*?)^```$", PAGES[page], re.MULTILINE | re.DOTALL):
        assert kind in ("console", "text", "ini", "nginx", "python", "yaml"), f"a block of the kind {kind!r}"
        if kind != "console":
            assert not re.search(r"^\$ ", text, re.MULTILINE), f"a command in a block of the kind {kind}: {text}"


@pytest.mark.parametrize("page", [page for page in PAGES if page not in ("README.md", "docs/index.md")])
def test_a_page_says_what_it_is_for_and_shows_a_command_within_ten_lines(page: str) -> None:
    title, empty, purpose, *rest = PAGES[page].splitlines()
    assert title.startswith("# ") and not empty and purpose.startswith("After this page")
    assert any(line.startswith("```") for line in rest[:7]), "the first block comes too late"


def test_each_page_is_in_the_navigation_of_the_site() -> None:
    def pages(entries: Any) -> Iterator[str]:
        for entry in entries.values() if isinstance(entries, dict) else entries:
            yield from [entry] if isinstance(entry, str) else pages(entry)

    site = tomllib.loads((TOP / "zensical.toml").read_text(encoding="utf-8"))["project"]
    shown = [f"docs/{page}" for page in pages(site["nav"]) if page.endswith(".md")]
    assert sorted(shown) == sorted(page for page in PAGES if page != "README.md")


@pytest.mark.parametrize("module", [store, wire])
def test_the_page_of_internals_has_the_table_at_the_head_of_the_module(module: ModuleType) -> None:
    head: list[list[str]] = []
    for line in re.findall(r"^\|(.*)\|$", module.__doc__ or "", re.MULTILINE):
        cells = [cell.strip() for cell in line.split("|")]
        if cells[0]:
            head.append(cells)
        else:  # continues the row above
            head[-1] = [f"{one} {other}".strip() for one, other in zip(head[-1], cells, strict=True)]
    shown = [[plain(first), *rest] for first, *rest in rows("internals.md", head[0][0])]
    assert shown == head[2:], "copy the changed rows into docs/internals.md"


def test_the_readme_is_read_in_five_minutes() -> None:
    assert len((TOP / "README.md").read_bytes()) <= 12_000
