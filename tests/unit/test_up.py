"""What `flansible up` decides without starting anything."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from flansible.config import Settings
from flansible.launcher import up
from flansible.launcher.process_manager import restart_pause_seconds


@pytest.mark.parametrize(("recent", "seconds"), [(0, 0.0), (1, 0.0), (2, 0.2), (5, 0.8), (100, 2.0)])
def test_a_child_that_dies_again_and_again_is_waited_for_longer(recent: int, seconds: float) -> None:
    """0: it had lived for more than a minute. A negative pause ended `up`, and with it the service."""
    assert restart_pause_seconds(recent) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("is_terminal", "asked", "is_quiet"),
    [(True, {}, True), (True, {"audit_stdout": True}, False), (False, {}, False)],
)
def test_the_audit_log_is_kept_off_a_terminal_unless_the_configuration_asks_for_it(
    make_settings: Callable[..., Settings],
    monkeypatch: pytest.MonkeyPatch,
    is_terminal: bool,
    asked: dict[str, bool],
    is_quiet: bool,
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal, raising=False)
    assert up._plan(make_settings(**asked), False, []).is_quiet is is_quiet


def test_a_playbook_root_that_cannot_be_looked_at_is_reported(
    make_settings: Callable[..., Settings], capsys: pytest.CaptureFixture[str]
) -> None:
    """Path.is_dir raises what it does not expect: a name that is too long, or a closed folder above."""
    root = Path("/tmp", "x" * 300)
    up._report_missing_playbooks(make_settings(playbook_root=root))
    assert f"Playbooks are looked for in {root}" in capsys.readouterr().err
