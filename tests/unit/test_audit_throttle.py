"""Audit lines for refused requests are rate-limited, and the omitted ones counted."""

from __future__ import annotations

import pytest

from flansible.audit import throttle
from flansible.audit.throttle import AuditThrottle


def test_one_who_is_refused_often_leaves_room_for_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(throttle.time, "monotonic", lambda: now[0])
    few = AuditThrottle(most_of_one=2, most=3)
    assert [few.admit("eve", "refusal") for _ in range(5)] == [0, 0, None, None, None]
    assert few.admit("dev", "refusal") == 3, "the line says how many were left out before it"
    assert few.admit("ops", "refusal") is None, "enough for all of them"
    now[0] += 61
    assert [few.admit("eve", "refusal"), few.admit("eve", "refusal"), few.admit("eve", "refusal")] == [1, 0, None]


def test_strangers_do_not_hide_what_users_are_refused() -> None:
    few = AuditThrottle(most_of_one=2, most=3)
    assert [few.admit(f"2001:db8::{n}", "login_failure") for n in range(5)] == [0, 0, 0, None, None]
    assert few.admit("dev", "refusal") == 0
