"""docs/contributing.md and docs/architecture.md name files, folders and words that are there, and all of them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
PACKAGE = TOP / "flansible"
PAGES = {path.name: path.read_text(encoding="utf-8") for path in (TOP / "docs").glob("*.md")}
CHANGES = [
    "Add a request field",
    "Add a state of a task",
    "Add a setting",
    "Add an endpoint",
    "Change how a cancel escalates",
    "Add a console column",
    "Add a rule for restricted users",
    "Support a new ansible-core",
    "Do something when a task ends",
    "Change what Flower shows",
]
WORDS = {
    "task",
    "run",
    "Celery task",
    "play task",
    "zygote",
    "fork server",
    "keeper",
    "exclusive",
    "supervisor",
    "worker",
    "store",
    "history database",
    "broker",
    "claim",
    "lease",
    "token",
    "final state",
    "spill queue",
    "preview",
    "inventory listing",
    "follower",
    "stream loop",
    "thread slot",
    "throttle",
    "redaction, masking",
    "control machine",
    "sandbox",
    "confined user",
    "restricted user",
}
CODE_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)?")


def section(page: str, heading: str) -> str:
    [found] = re.findall(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", PAGES[page], re.MULTILINE | re.DOTALL)
    return str(found)


def quoted(text: str) -> list[str]:
    return re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))


def paths(text: str) -> list[str]:
    return [word for word in quoted(text) if "/" in word or re.search(r"\.(py|js|css|lua|md|ini|txt|sh|json)$", word)]


def existing(name: str) -> Path | None:
    return next((root / name for root in (PACKAGE, TOP) if (root / name).exists()), None)


def test_each_of_the_ten_changes_has_a_section_of_two_points() -> None:
    assert re.findall(r"^## (.*)$", PAGES["contributing.md"], re.MULTILINE) == CHANGES
    for heading in CHANGES:
        assert len(re.findall(r"^- ", section("contributing.md", heading), re.MULTILINE)) == 2, heading


@pytest.mark.parametrize("page", ["contributing.md", "architecture.md"])
def test_each_file_that_a_page_names_exists(page: str) -> None:
    found = paths(PAGES[page])
    assert len(found) > 40
    assert [name for name in found if existing(name) is None] == []


@pytest.mark.parametrize("page", ["contributing.md", "architecture.md"])
def test_each_module_in_a_picture_exists(page: str) -> None:
    pictures = "".join(re.findall(r"^```text\n(.*?)^```", PAGES[page], re.MULTILINE | re.DOTALL))
    names = re.findall(r"(?<![\w/])((?:web|worker|runner)/\w+)", pictures)
    assert [name for name in names if not ((PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").is_file())] == []


def words_of(path: Path) -> set[str]:
    """All words of a file."""
    text = path.read_text(encoding="utf-8")
    return set(re.findall(r"\w+", text))


@pytest.mark.parametrize("heading", CHANGES)
def test_each_function_or_constant_named_is_in_the_files_named(heading: str) -> None:
    text = section("contributing.md", heading)
    files = [path for name in paths(text) if (path := existing(name)) is not None and path.is_file()]
    known = set().union(*map(words_of, files))
    names = [name for name in quoted(text) if CODE_NAME.fullmatch(name) and name not in paths(text)]
    assert [name for name in names if not set(name.split(".")) <= known] == []


def test_each_folder_of_the_package_is_described() -> None:
    folders = {
        f"flansible/{path.relative_to(PACKAGE)}/"
        for path in PACKAGE.rglob("*")
        if path.is_dir() and any(path.glob("*.py")) or path in (PACKAGE / "store/lua", PACKAGE / "web/console")
    }
    rows = set(
        re.findall(r"^\| `(flansible/[\w/]+/)` \|", section("architecture.md", "Folders and floors"), re.MULTILINE)
    )
    assert rows == folders


def test_the_glossary_has_each_word() -> None:
    assert set(re.findall(r"^\| ([^|`]+?) \|", section("architecture.md", "Words"), re.MULTILINE)) - {"word"} == WORDS


def test_each_function_named_as_hard_is_there_and_has_a_long_head() -> None:
    rows = re.findall(r"^\| (`.*) \|", section("architecture.md", "The hard functions"), re.MULTILINE)
    assert len(rows) == 10
    for row in rows:
        names = quoted(row.partition(" | ")[0])
        if all(name.endswith(".lua") for name in names):
            continue
        name, file = names
        last = name.rpartition(".")[2]
        heads = [
            ast.get_docstring(node) or ""
            for node in ast.walk(ast.parse((TOP / file).read_text(encoding="utf-8")))
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == last
        ]
        assert any(len(head.splitlines()) > 8 for head in heads), name


def test_each_link_between_the_documents_leads_somewhere() -> None:
    files = [TOP / "README.md", TOP / "CHANGELOG.md", TOP / "tests/README.md", *(TOP / "docs").rglob("*.md")]
    found = [
        (file, target)
        for file in files
        for target in re.findall(r"\]\(([^)\s]+)\)", file.read_text(encoding="utf-8"))
        if not target.startswith(("http", "#"))
    ]
    assert len(found) > 15
    assert [f"{file.name}: {target}" for file, target in found if not leads_somewhere(file, target)] == []


def leads_somewhere(file: Path, target: str) -> bool:
    name, _, anchor = target.partition("#")
    path = file.parent / name
    if not anchor or not path.is_file():
        return path.exists()
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return anchor in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_each_module_that_the_documents_name_exists() -> None:
    for file in (TOP / "README.md", *(TOP / "docs").rglob("*.md")):
        names = [name for name in quoted(file.read_text(encoding="utf-8")) if re.fullmatch(r"flansible/[\w/.]+", name)]
        assert [name for name in names if not (TOP / name).exists()] == [], file.name
        tests = re.findall(r"`((?:unit|integration|acceptance)/test_\w+\.py)`", file.read_text(encoding="utf-8"))
        assert [name for name in tests if not (TOP / "tests" / name).is_file()] == [], file.name
