"""One table of states: whatever else lists them takes them from it, or is held to it here."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from flansible.cli import cli
from flansible.models import COMPLETED_STATES, FINAL_STATES, STATES, DayStats, State, TaskStatus, Verdict
from flansible.models.event_names import ENDS, EventName, end_name

TOP = Path(__file__).parents[2]
PACKAGE = TOP / "flansible"
CONSOLE = PACKAGE / "web" / "console"
MANY = 3  # so many states in one place are a list of them


def test_each_state_has_its_word_and_only_two_are_not_final() -> None:
    assert list(STATES) == list(State)
    in_progress = {state for state, facts in STATES.items() if facts.status == "PROGRESS"}
    assert in_progress == set(State) - FINAL_STATES == {State.QUEUED, State.RUNNING}
    assert len({STATES[state].status for state in FINAL_STATES}) == len(FINAL_STATES)


def test_no_state_is_a_dead_end_except_the_final_ones() -> None:
    assert State.RUNNING in STATES[State.QUEUED].next_states
    assert STATES[State.QUEUED].next_states | STATES[State.RUNNING].next_states >= FINAL_STATES
    assert COMPLETED_STATES < FINAL_STATES


def test_the_day_statistics_count_each_final_state() -> None:
    assert set(DayStats.model_fields) == {"day", *FINAL_STATES}


def test_the_api_documents_name_each_state_and_status() -> None:
    state, status = (TaskStatus.model_fields[name].description or "" for name in ("state", "Status"))
    assert re.findall(r"`(\w+)`", state) == list(State)
    assert set(re.findall(r"`(\w+)`", status)) == {facts.status for facts in STATES.values()}


def test_the_states_to_list_by_are_the_services() -> None:
    (option,) = [option for option in cli.commands["tasks"].params if option.name == "state"]
    assert list(option.to_info_dict()["type"]["choices"]) == list(State)


def listed(words: Iterator[str]) -> bool:
    return len(set(words) & set(State)) >= MANY


def literal_lists(path: Path) -> Iterator[str]:
    """Where a Python file lists states: a collection, the alternatives of a type, or a text that names them."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found = listed(iter(re.findall(r"`(\w+)`", node.value)))
        else:
            # Its own parts only: what a collection in this one lists is found there.
            found = listed(word for child in ast.iter_child_nodes(node) for word in state_word(child))
        if found:
            yield f"{path.relative_to(TOP)}:{getattr(node, 'lineno', 1)}"


def state_word(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.Attribute) and ast.unparse(node.value).rpartition(".")[2] == "State":
        yield node.attr.lower()
    elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        yield node.target.id
    elif isinstance(node, ast.keyword):
        yield node.arg or ""
    elif isinstance(node, ast.Compare):
        yield from (word for child in node.comparators for word in state_word(child))


def test_no_other_python_file_lists_the_states() -> None:
    files = [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "states.py"]
    # DayStats, whose fields are the API's, and EventName, which a type checker has to read.
    known = {PACKAGE / "models" / "responses.py", PACKAGE / "models" / "event_names.py"}
    assert [place for path in files if path not in known for place in literal_lists(path)] == []
    assert all(len([*literal_lists(path)]) == 1 for path in known)


def test_a_task_ends_by_events_that_exist() -> None:
    assert {end_name(state) for state in FINAL_STATES} == set(FINAL_STATES) - {State.ERROR} == set(ENDS)
    assert set(ENDS) < set(get_args(EventName))


@pytest.mark.parametrize(
    "code",
    [
        "x = ('queued', 'running', 'lost')",
        "x = {'queued': 1, 'running': 2, 'lost': 3}",
        "x: Literal['queued', 'running', 'lost']",
        "x = {State.LOST, State.ERROR, models.State.FAILED}",
        "'''One of `queued`, `running`, or\n`lost`.'''",
        "x = dict(queued=1, running=2, lost=3)",
        "x = state == 'lost' or state == 'error' or state == 'failed'",
        "class Day:\n    lost: int\n    error: int\n    failed: int",
    ],
)
def test_a_list_of_states_is_found(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "TOP", tmp_path)
    (tmp_path / "new.py").write_text(code)
    assert list(literal_lists(tmp_path / "new.py"))


def test_documents_list_the_states_in_one_table_only() -> None:
    """docs/api/states.md (test_document_tables holds it to the table); elsewhere, no paragraph names many of them."""
    for path in (TOP / "README.md", *sorted((TOP / "docs").rglob("*.md"))):
        for part in re.split(r"\n\s*\n", path.read_text(encoding="utf-8")):
            if listed(iter(re.findall(r"`(\w+)`", part))):
                assert part.startswith("| state | Status | final | meaning |"), f"{path.name}: {part}"


def js_words(text: str) -> list[str]:
    """Of a JavaScript literal: the keys of an object, the items of an array or a Set."""
    return re.findall(r"^\s*(\w+): ", text, re.MULTILINE) or re.findall(r'"(\w+)"', text)


def js_lists() -> dict[str, list[str]]:
    """Name of a constant in the console -> the states it lists; "" for one without a name."""
    found = {}
    for path in sorted(CONSOLE.rglob("*.js")):
        literals = re.finditer(
            r"(?:const (\w+) = )?(?:new Set\()?([\[{][^\[\]{}]*[\]}])", path.read_text(encoding="utf-8")
        )
        for match in literals:
            words = [word for word in js_words(match[2]) if word in set(State)]
            if len(set(words)) >= MANY:
                found[f"{path.name}:{match[1] or ''}"] = words
    return found


def console_table(name: str) -> dict[str, dict[str, str]]:
    """A table of the console's states.js: the columns of each row, as they are written."""
    text = (CONSOLE / "states.js").read_text(encoding="utf-8")
    [body] = re.findall(rf"export const {name} = {{\n(.*?)\n}};", text, re.DOTALL)
    rows = re.findall(r"^  (\w+): {(.*)},$", body, re.MULTILINE)
    assert len(rows) == body.count("\n") + 1
    return {key: {column: value.strip('"') for column, value in COLUMN.findall(columns)} for key, columns in rows}


COLUMN = re.compile(r'(\w+): ("[^"]*"|\w+)')


def test_the_console_shows_each_state() -> None:
    states = console_table("STATES")
    assert list(states) == list(State)
    assert {name for name, row in states.items() if row["phase"] == "final"} == FINAL_STATES
    assert {name for name, row in states.items() if row.get("outcome") == "good"} == {State.SUCCEEDED}
    cut_off = {name for name, row in states.items() if "isCutOff" in row}
    assert cut_off == FINAL_STATES - {State.SUCCEEDED, State.FAILED}  # in these Ansible ended by itself
    for name, row in states.items():
        columns = {"outcome", "layer"} if name in FINAL_STATES else {"pollSeconds"}
        columns |= {"isCutOff"} if name in cut_off else set()
        assert set(row) == {"word", "phase", "tone", "icon"} | columns, name
        assert row["phase"] in ("waiting", "running", "final"), name
        assert row.get("outcome", "good") in ("good", "stopped", "bad"), name
    for column, rows in (("word", State), ("icon", State), ("layer", FINAL_STATES)):
        assert len({states[state][column] for state in rows}) == len(rows), f"two states have one {column}"


def test_the_console_shows_each_verdict() -> None:
    verdicts = console_table("VERDICTS")
    assert sorted(verdicts) == sorted(get_args(Verdict))
    for name, row in verdicts.items():
        assert set(row) == {"isBad", "gravity", "bar", "tone", "icon"}, name
    for column in ("gravity", "bar", "icon"):
        assert len({row[column] for row in verdicts.values()}) == len(verdicts), f"two verdicts have one {column}"


def test_the_consoles_stylesheets_colour_each_state() -> None:
    """Each row of the table names a tone that the sheet has; a rule for one state is keyed by `data-state`."""
    tones = {row["tone"] for name in ("STATES", "VERDICTS") for row in console_table(name).values()}
    base = (CONSOLE / "base.css").read_text(encoding="utf-8")
    assert tones == set(re.findall(r"^\.tone-(\w+) {", base, re.MULTILINE))
    styles = "".join(path.read_text(encoding="utf-8") for path in CONSOLE.rglob("*.css"))
    assert set(re.findall(r'data-state="(\w+)"', styles)) <= set(State)
    assert not re.search(r"\.(fill-)?(state|verdict|swatch)-", styles)


def test_a_new_state_is_one_row_in_the_console() -> None:
    """No other script names states: the columns of the table say what is done for each."""
    not_verdicts = set(State) - set(get_args(Verdict)) - {State.ERROR}  # an event of elements has that name
    assert js_lists() == {}
    for path in sorted(CONSOLE.rglob("*.js")):
        text = path.read_text(encoding="utf-8")
        quoted = set(re.findall(r"""["'`](\w+)["'`]""", text)) & not_verdicts
        assert path.name == "states.js" or not quoted, f"{path.name}: {quoted}"
        assert not re.search(r"\bstate [!=]== [\"']", text), path.name
