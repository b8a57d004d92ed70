"""Who may keep request threads waiting."""

from __future__ import annotations

import contextlib

from flansible.web.streaming.thread_slots import Slots


def test_so_many_wait_and_no_more_until_one_is_done() -> None:
    slots = Slots()
    with slots.hold(2) as first, slots.hold(2) as second, slots.hold(2) as third:
        assert (first, second, third) == (True, True, False)
    with slots.hold(1) as again:
        assert again


def test_one_user_leaves_slots_for_others() -> None:
    """Previews of one user run one after another: twelve at once kept all other users from having one."""
    slots = Slots()
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(slots.hold(12, "dev", 4)) for _ in range(20)]
        assert held == [True] * 4 + [False] * 16
        assert stack.enter_context(slots.hold(12, "ops", 4))
    with slots.hold(12, "dev", 4) as again:
        assert again
