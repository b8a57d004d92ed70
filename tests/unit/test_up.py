"""What `flansible up` decides without starting anything."""

from __future__ import annotations

import pytest

from flansible.launcher.process_manager import restart_pause_seconds


@pytest.mark.parametrize(("recent", "seconds"), [(0, 0.0), (1, 0.0), (2, 0.2), (5, 0.8), (100, 2.0)])
def test_a_child_that_dies_again_and_again_is_waited_for_longer(recent: int, seconds: float) -> None:
    """0: it had lived for more than a minute. A negative pause ended `up`, and with it the service."""
    assert restart_pause_seconds(recent) == pytest.approx(seconds)
