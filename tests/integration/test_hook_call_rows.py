"""Calls of webhooks that wait in the database: merged, taken by one process at a time, taken again after it died."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from flansible.history.database import Database
from flansible.history.hook_call_rows import HookCallRows, StoredHookCall

NOW = 1_800_000_000_000


@pytest.fixture
def rows(history_url: str) -> Iterator[HookCallRows]:
    database = Database(history_url)
    yield HookCallRows(database)
    database.close()


def call(name: str, ref: str = "refs/heads/main", **changes: str) -> StoredHookCall:
    given = {"sender_id": "", "repetition": name, "owner": "admin", **changes}
    return StoredHookCall(
        id=f"call_{name}",
        webhook="push",
        received=NOW,
        address="",
        event="push",
        ref=ref,
        outcome="refused",
        reason="",
        task=None,
        variables=f'{{"version": "{name}"}}',
        **given,
    )


def test_of_several_calls_the_first_one_starts_with_the_last_values(rows: HookCallRows) -> None:
    first = rows.add_waiting(call("1"), NOW + 1000, NOW)
    assert (first.outcome, first.due) == ("waiting", NOW + 1000)
    for name in ("2", "3"):
        merged = rows.add_waiting(call(name), NOW + 2000, NOW)
        assert (merged.outcome, merged.merged_into, merged.due) == ("merged", "call_1", NOW + 1000)
    assert rows.add_waiting(call("tag", "refs/tags/v1"), NOW + 2000, NOW).outcome == "waiting"
    assert rows.add_waiting(call("others", owner="dev"), NOW + 3000, NOW).outcome == "waiting"
    assert rows.take_due(NOW + 999, NOW + 5000) is None
    taken = rows.take_due(NOW + 1000, NOW + 5000)
    assert taken is not None and (taken.id, taken.variables) == ("call_1", '{"version": "3"}')
    assert rows.add_waiting(call("4"), NOW + 4000, NOW).outcome == "waiting", "it has begun to start"
    rows.settle("call_1", "started", "a task")
    found = {one.id: one for one in rows.page(None, None, 100, "push")}
    assert {found[f"call_{name}"].task for name in "123"} == {"a task"} and found["call_4"].task is None
    assert (found["call_1"].due, found["call_2"].outcome) == (None, "merged")


def test_a_call_that_was_taken_is_taken_again_when_nobody_settles_it(rows: HookCallRows) -> None:
    rows.add_waiting(call("1"), NOW, NOW)
    assert rows.take_due(NOW, NOW + 60) is not None
    assert rows.take_due(NOW + 59, NOW + 120) is None
    again = rows.take_due(NOW + 60, NOW + 120)
    assert again is not None and again.outcome == "starting"
    rows.postpone("call_1", NOW + 200)
    assert rows.take_due(NOW + 199, NOW + 300) is None and rows.take_due(NOW + 200, NOW + 300) is not None
    rows.settle("call_1", "refused", None, "no")
    assert rows.take_due(NOW + 1000, NOW + 2000) is None
    rows.postpone("call_1", NOW)
    assert rows.take_due(NOW + 1000, NOW + 2000) is None, "it is settled"


def test_a_repetition_is_known_while_its_call_waits_and_when_it_has_started(rows: HookCallRows) -> None:
    rows.add_waiting(call("1"), NOW, NOW)
    same = call("2", repetition="1")
    assert rows.add_waiting(same, NOW, NOW).id == "call_1"
    for taken in (same, call("3", repetition="", sender_id="")):
        assert (rows.known(taken, NOW) is not None) == (taken is same)
    assert rows.known(same, NOW + 1) is None, "it was before that"
    rows.settle("call_1", "refused", None, "no")
    assert rows.known(same, NOW) is None, "what was refused may come again"
    rows.settle("call_1", "started", "a task")
    assert rows.known(same, NOW) is not None and rows.known(call("1", owner="dev"), NOW) is None


def test_of_calls_that_come_at_once_one_waits(rows: HookCallRows, background: ThreadPoolExecutor) -> None:
    found = list(background.map(lambda number: rows.add_waiting(call(str(number)), NOW, NOW), range(20)))
    assert sorted(one.outcome for one in found) == ["merged"] * 19 + ["waiting"]
    taken = list(background.map(lambda _: rows.take_due(NOW, NOW + 1000), range(4)))
    assert len([one for one in taken if one is not None]) == 1
