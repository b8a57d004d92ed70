"""scripts/flaky.py: which tests a change touches."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts/flaky.py"
spec = importlib.util.spec_from_file_location("flaky", SCRIPT)
assert spec is not None and spec.loader is not None
flaky = importlib.util.module_from_spec(spec)
spec.loader.exec_module(flaky)


@pytest.mark.by_day(2)
@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ("tests/unit/test_flaky.py", ["tests/unit/test_flaky.py"]),
        ("flansible/wire.py", ["tests/unit/test_wire.py"]),
        ("flansible/audit/log.py", ["tests/unit/test_audit.py"]),
        ("README.md", []),
    ],
)
def test_a_change_touches_its_own_tests_and_those_that_import_it(
    changed: str, found: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Diff:
        stdout = f"{changed}\n"

    monkeypatch.setattr(flaky.subprocess, "run", lambda *_args, **_options: Diff)
    touched = [str(path) for path in flaky.touched("HEAD~1")]
    assert set(found) <= set(touched)
    assert (touched == []) == (found == [])
    assert "tests/unit/test_masking.py" not in touched
