"""The rules of tests/README.md that can be read off the tests themselves."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parents[1]
README = (TESTS / "README.md").read_text(encoding="utf-8")


@functools.cache
def trees() -> dict[Path, ast.Module]:
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(TESTS.rglob("*.py"))}


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def test_no_test_imports_from_another_test() -> None:
    faults = [
        f"{path.relative_to(TESTS)}:{node.lineno} imports {node.module}"
        for path, tree in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        and (node.module or "").rpartition(".")[2].startswith(("test_", "conftest"))
        # Rounds are conftest's: the chaos tests have no other helper.
        and "chaos" not in path.parts
    ]
    assert faults == []


def test_there_is_one_way_to_wait() -> None:
    found = [path for path, tree in trees().items() for function in functions(tree) if function.name == "eventually"]
    assert found == [TESTS / "helpers/waiting.py"]


def test_the_index_names_each_fixture_that_files_share() -> None:
    shared = {
        function.name
        for path, tree in trees().items()
        if path.name == "conftest.py"
        for function in functions(tree)
        if any("fixture" in ast.unparse(decorator) for decorator in function.decorator_list)
    }
    assert len(shared) > 20
    assert sorted(name for name in shared if f"`{name}`" not in README and name != "_interruptible") == []


def test_the_index_names_each_helper() -> None:
    helpers = {path.stem for path in (TESTS / "helpers").glob("*.py") if path.name != "__init__.py"}
    assert len(helpers) > 10
    assert sorted(name for name in helpers if f"`{name}`" not in README) == []
