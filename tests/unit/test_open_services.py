"""Which Redis and which broker anybody could use: told in the log and by doctor, without any password."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from flansible.config import Settings
from flansible.doctor import open_services, servers
from flansible.doctor.check import Mark

MARKER = "MARKER-password"


@pytest.mark.parametrize(
    ("url", "is_local"),
    [
        ("redis://localhost:6379/0", True),
        ("redis://127.0.0.1/0", True),
        ("redis://[::1]:6379/0", True),
        ("redis://", True),
        ("redis://user@localhost", True),
        ("amqp://", True),
        ("amqp://guest:guest@localhost//", True),
        ("redis://redis.example/0", False),
        ("amqp://10.0.0.7//", False),
        ("amqps://queue.example//", False),
        ("redis://:" + MARKER + "@redis.example/0", None),
        ("amqp://me:" + MARKER + "@queue.example//", None),
        ("rediss://redis.example/0", None),
        ("redis+socket:///nowhere/redis.sock", None),
    ],
)
def test_what_has_no_password_is_open_to_this_machine_or_to_all(url: str, is_local: bool | None) -> None:
    found = open_services.find_open(url)
    assert (found.is_local if found else None) is is_local
    assert found is None or (found.found and found.advice)


def test_a_socket_is_open_when_others_can_enter_and_write(open_folder: Path) -> None:
    path = open_folder / "redis.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        for folder_mode, mode, is_open in ((0o755, 0o777, True), (0o755, 0o700, False), (0o700, 0o777, False)):
            path.chmod(mode)
            open_folder.chmod(folder_mode)
            assert (open_services.find_open(f"redis+socket://{path}") is not None) is is_open


def test_a_start_warns_of_each_and_quotes_no_url(
    make_settings: Callable[..., Settings], caplog: pytest.LogCaptureFixture
) -> None:
    open_services.warn(make_settings(CELERY_BROKER_URL="redis://127.0.0.1:1/0"))
    assert "CELERY_BROKER_URL has no password" in caplog.text and "CELERY_RESULT_BACKEND" not in caplog.text
    caplog.clear()
    open_services.warn(make_settings(CELERY_BROKER_URL=f"redis://:{MARKER}@10.0.0.7:1/0"))
    open_services.warn(Settings())
    assert caplog.text == ""


def test_doctor_fails_for_what_the_network_can_reach_and_warns_for_this_machine(
    make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "_redis_server", lambda url, key, embedded: [])
    monkeypatch.setattr(servers, "_broker", lambda settings: [])
    for url, mark in (("redis://127.0.0.1:1/0", Mark.WARN), ("redis://redis.example/0", Mark.FAIL)):
        settings = make_settings(CELERY_BROKER_URL=url, CELERY_RESULT_BACKEND=url)
        assert [check.mark for check in servers.redis(settings)] == [mark]
    for url, mark in (("amqp://localhost//", Mark.WARN), ("amqp://guest:guest@queue.example//", Mark.FAIL)):
        assert [check.mark for check in servers.broker(make_settings(CELERY_BROKER_URL=url))] == [mark]
