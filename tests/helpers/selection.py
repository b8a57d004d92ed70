"""Which tests run, and in which order: a pytest plugin (`-p` in pyproject.toml).

Tests marked `nightly` run with `--nightly` alone: many rounds, and variants of what `make test` shows once. Those
marked `generates` run with it as well, and then generate more. SHARD=k/n takes the k-th of n parts of whatever was
selected, by a hash of each test's name, so that parts stay as they are when tests are added. What takes longest comes
first, so that no process is left with it alone at the end of a parallel run.
"""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import pytest

# Folders and files by how long one file takes; what is not named comes last.
_LONGEST_FIRST = (
    "acceptance/test_brokers",
    "acceptance/test_start_and_stop",
    "acceptance/test_attacks",
    "chaos",
    "console",
    "acceptance",
    "integration",
    "unit/test_doctor",
    "unit/test_import_law",
    "unit/test_fuzz",
    "unit/test_rules",
    "unit/test_starter",
    "unit/test_shown_paths",
    "unit/test_api_docs",
    "unit/test_password_cost",
)
# How many generated requests the tests that generate some try in one nightly run; see test_fuzz and test_schemathesis.
_NIGHTLY_GENERATED = {"FUZZ": "5000", "CASES": "20000"}

_NIGHTLY_SECONDS = 1800  # for a test that names no time limit: ten times as long as by day


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("flansible")
    group.addoption("--nightly", action="store_true", help="run the tests marked nightly, and no others")
    group.addoption("--rounds", type=int, default=0, help="rounds of each fault of tests/chaos in place of one")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "nightly: takes long; runs with --nightly alone (`make test-nightly`)")
    config.addinivalue_line("markers", "generates: generates its cases; runs with --nightly as well, with more of them")
    config.addinivalue_line("markers", "by_day(n): so many of its cases run in `make test`, the others with --nightly")
    if config.getoption("nightly"):
        for name, count in _NIGHTLY_GENERATED.items():
            os.environ.setdefault(name, count)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    nightly = bool(config.getoption("nightly"))
    part, parts = shard(os.environ.get("SHARD", "1/1"))
    if not config.getoption("rounds"):  # who names a number wants them of every fault
        mark_variants(items)
    kept, left_out = [], []
    for item in items:
        is_mine = _hash(item) % parts == part - 1
        (kept if is_mine and _is_selected(item, nightly) else left_out).append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
    if nightly:
        for item in kept:
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(_NIGHTLY_SECONDS))
    kept.sort(key=lambda item: _rank(item.path))
    items[:] = kept


def mark_variants(items: list[pytest.Item]) -> None:
    """Marks as nightly all cases of a test but those that its `by_day` lets run by day; of a test that runs with both
    history databases, one or the other.

    Chosen by a hash of their names: parameters that alternate are not left out together, and a new case moves few.
    """
    cases: dict[tuple[str, int], list[pytest.Item]] = {}
    for item in items:
        if marker := item.get_closest_marker("by_day"):
            cases.setdefault((item.nodeid.partition("[")[0], marker.args[0]), []).append(item)
        elif (kind := _database_of(item)) is not None:
            cases.setdefault((item.nodeid.replace(kind, "*"), 1), []).append(item)
    for (_, count), found in cases.items():
        by_day = [item for item in found if item.get_closest_marker("nightly") is None]
        for item in sorted(by_day, key=_hash)[count:]:
            item.add_marker(pytest.mark.nightly)


def _database_of(item: pytest.Item) -> str | None:
    """The kind of history database, of a test that runs with both."""
    kind = item.callspec.params.get("history_url") if hasattr(item, "callspec") else None
    return kind if isinstance(kind, str) else None


def _hash(item: pytest.Item) -> int:
    return zlib.crc32(item.nodeid.encode())


def _is_selected(item: pytest.Item, nightly: bool) -> bool:
    is_nightly = item.get_closest_marker("nightly") is not None
    return is_nightly or item.get_closest_marker("generates") is not None if nightly else not is_nightly


def shard(text: str) -> tuple[int, int]:
    """`k/n` as two numbers; raises UsageError when it is no such part."""
    first, _, second = text.partition("/")
    if first.isdecimal() and second.isdecimal() and 1 <= int(first) <= int(second):
        return int(first), int(second)
    raise pytest.UsageError(f"SHARD is {text!r}; expected k/n, such as 3/20")


def _rank(path: Path) -> int:
    name = path.as_posix()
    return next((rank for rank, part in enumerate(_LONGEST_FIRST) if f"tests/{part}" in name), len(_LONGEST_FIRST))
