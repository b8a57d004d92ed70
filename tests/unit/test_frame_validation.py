"""What a run says about itself: what it never says is no answer, whatever it is."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flansible.errors import WireError
from flansible.worker import frame_validation

NAMES = {"play": "p", "task": "t", "module": "m", "host": "h"}
RESULT = {"event": "host_result", **NAMES, "verdict": "ok", "duration_seconds": 0.5, "result": {"a": 1}, "mark": 3}
EXIT = {"returncode": 0, "signal": None, "stopped": [], "stopped_count": 0}
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@pytest.mark.parametrize("lines", [None, "a line", [1], ["x" * 1000], ["x"] * 5000, {"x": 1}])
def test_what_is_no_key_is_not_masked(lines: object) -> None:
    with pytest.raises(WireError):
        frame_validation.hide({"type": "hide", "lines": lines})
    assert frame_validation.hide({"type": "hide", "lines": ["a", ""]}) == ["a", ""]


def test_what_is_an_event_stays_one_less_what_it_does_not_have() -> None:
    assert frame_validation.event({**RESULT, "type": "event", "seq": 99, "output_start": -1}) == RESULT


@pytest.mark.parametrize(
    "change",
    [
        {"event": "final"},
        {"event": []},
        {"verdict": "splendid"},
        {"verdict": ["ok"]},
        {"host": ["h"]},
        {"host": None},
        {"result": "text"},
        {"duration_seconds": "long"},
        {"duration_seconds": float("nan")},
        {"duration_seconds": 10**400},
        {"groups": "web"},
        {"groups": [1]},
        {"groups": ["x" * 300]},
        {"groups": ["web"] * 101},
        {"task": "x" * 100_000},
        {"host": "x" * 100_000},
        {"mark": -1},
        {"mark": 10**400},
        {"mark": 1.5},
        {"time": 10**400},
        {"time": float("nan")},
        {"time": float("inf")},
        {"time": 1e300},
    ],
)
def test_what_is_no_event_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(WireError):
        frame_validation.event({**RESULT, **change})


@pytest.mark.parametrize("name", [*NAMES, "verdict", "duration_seconds", "result"])
def test_a_result_has_what_results_have(name: str) -> None:
    with pytest.raises(WireError):
        frame_validation.event({key: value for key, value in RESULT.items() if key != name})


@pytest.mark.parametrize(
    "change",
    [
        {"stats": []},
        {"stats": {"h": 1}},
        {"stats": {"h": {"ok": "many"}}},
        {"custom_stats": []},
        {"broken": {"a": 1}},
        {"warning": "all is well"},
        {"warning": ["no hosts matched"]},
        {"reason": "no hosts matched"},
        {"reason": ["the limit leaves no hosts"]},
        {"mark": None},
    ],
)
def test_what_is_no_end_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(WireError):
        frame_validation.end({"stats": {"h": {"ok": 1}}, "custom_stats": {}, "broken": None, **change})


@pytest.mark.parametrize(
    "change",
    [
        {"returncode": None},
        {"returncode": "0"},
        {"signal": 99},
        {"signal": 9},
        {"stopped": None},
        {"stopped_count": "x"},
    ],
)
def test_what_is_no_exit_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(WireError):
        frame_validation.exited({**EXIT, **change})


def test_processes_are_named_shortly_whatever_their_names_are() -> None:
    frame = {**EXIT, "stopped": [{"pid": 1, "name": "x" * 9999}, "text", {}, *[{"pid": 2, "name": "y"}] * 999]}
    named = frame_validation.ended(frame)
    assert named[0] == "x" * 64 + " (1)" and len(named) == 200


@settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from([*RESULT, *EXIT, "stats", "custom_stats", "broken", "time"]), ANYTHING))
def test_nothing_raises_anything_else(frame: dict[str, Any]) -> None:
    for check in (frame_validation.event, frame_validation.end, frame_validation.exited):
        try:
            frame_validation.ended(check(frame)) if check is frame_validation.exited else check(frame)
        except WireError:
            pass


def test_a_plan_is_an_object() -> None:
    frame = {"type": "plan", "plan": {"plays": []}, "too_large": False, "mark": 3, "more": 1}
    assert frame_validation.plan(frame) == {"event": "plan", "plan": {"plays": []}, "too_large": False, "mark": 3}
    for change in ({"plan": []}, {"plan": None}, {"too_large": 1}, {"mark": -1}):
        with pytest.raises(WireError):
            frame_validation.plan({**frame, **change})
