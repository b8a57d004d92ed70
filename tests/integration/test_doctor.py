"""`flansible doctor` where a real Redis or a worker answers; the rest is in tests/unit/test_doctor.py."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from flansible.config import Settings
from flansible.doctor import run as doctor_run
from flansible.doctor import servers
from flansible.doctor.check import Mark
from flansible.store import Store
from tests.helpers.broker import use_broker
from tests.helpers.doctoring import FLANSIBLE, MARKER, marks, run, user, write_config, write_users
from tests.helpers.redis_server import RedisServer
from tests.helpers.waiting import eventually

MakeSettings = Callable[..., Settings]


def test_a_good_installation_has_nothing_to_mend(tmp_path: Path, own_redis: RedisServer) -> None:
    write_config(tmp_path, CELERY_BROKER_URL=own_redis.url, CELERY_RESULT_BACKEND=own_redis.url)
    write_users(tmp_path / "rbac.json", user())
    (tmp_path / "playbooks").mkdir(mode=0o755)
    code, output = run(tmp_path)
    assert code == 0, output
    assert "FAIL" not in output
    for subject in (
        "python",
        "locale",
        "ansible-core",
        "configuration",
        "rbac.json",
        "playbook_root",
        "disk",
        "broker",
    ):
        assert f"\nok   {subject}: " in f"\n{output}"
    assert "keeps an append-only file" in output
    assert "evicts nothing" in output
    assert "warn worker: no worker answers" in output


def test_a_worker_that_answers_is_named(tmp_path: Path, own_redis: RedisServer) -> None:
    config = write_config(tmp_path, CELERY_BROKER_URL=own_redis.url, CELERY_RESULT_BACKEND=own_redis.url)
    command = [*FLANSIBLE, "worker", "--config", str(config), "--name", "doctored"]
    with (tmp_path / "log").open("w") as log:
        worker = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        assert eventually(lambda: "ok   worker: doctored@" in run(tmp_path)[1], 60)
    finally:
        worker.terminate()
        worker.wait(30)


@pytest.fixture
def on_redis(make_settings: MakeSettings, own_redis: RedisServer) -> Settings:
    settings = make_settings(CELERY_BROKER_URL=own_redis.url, CELERY_RESULT_BACKEND=own_redis.url)
    use_broker(settings)
    return settings


def change(server: RedisServer, *words: str) -> None:
    client = server.client()
    client.execute_command(*words)
    client.close()


def test_a_redis_that_keeps_nothing_is_a_warning(on_redis: Settings, own_redis: RedisServer) -> None:
    assert marks(servers.redis(on_redis), "append-only file") == [Mark.OK]
    change(own_redis, "CONFIG", "SET", "appendonly", "no")
    assert marks(servers.redis(on_redis), "keeps nothing", "CONFIG SET appendonly yes") == [Mark.WARN]
    change(own_redis, "CONFIG", "SET", "save", "3600 1")
    assert marks(servers.redis(on_redis), "snapshots (save 3600 1)") == [Mark.OK]


def test_a_redis_that_evicts_is_a_failure(on_redis: Settings, own_redis: RedisServer) -> None:
    change(own_redis, "CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    assert marks(servers.redis(on_redis), "maxmemory 0") == [Mark.OK]
    change(own_redis, "CONFIG", "SET", "maxmemory", "100mb")
    assert marks(servers.redis(on_redis), "CONFIG SET maxmemory-policy noeviction") == [Mark.FAIL]


def test_a_redis_that_forbids_config_is_still_judged(on_redis: Settings, own_redis: RedisServer) -> None:
    change(own_redis, "CONFIG", "SET", "appendonly", "no")
    change(own_redis, "ACL", "SETUSER", "default", "-config")
    lines = servers.redis(on_redis)
    assert marks(lines, "CONFIG is forbidden") == [Mark.WARN]
    assert marks(lines, "evicts nothing") == [Mark.OK]
    change(own_redis, "ACL", "SETUSER", "default", "-info")
    assert marks(servers.redis(on_redis), "settings cannot be read") == [Mark.WARN]


def test_a_broker_of_its_own_is_looked_at_too(
    make_settings: MakeSettings, own_redis: RedisServer, redis_url: str
) -> None:
    lines = servers.redis(make_settings(CELERY_BROKER_URL=redis_url, CELERY_RESULT_BACKEND=own_redis.url))
    assert marks(lines, "CELERY_RESULT_BACKEND", "append-only") == [Mark.OK]
    assert marks(lines, "CELERY_BROKER_URL", "keeps nothing") == [Mark.WARN]


def test_an_embedded_redis_that_runs_and_refuses_is_a_failure(
    make_settings: MakeSettings, own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a full disk, which health reports too; one that does not run is not."""
    settings = make_settings()
    embedded = {"embedded": True, "key": "CELERY_RESULT_BACKEND"}
    assert marks(servers._redis_server(settings.store_url, **embedded), "is not running") == [Mark.OK]
    change(own_redis, "CONFIG", "SET", "requirepass", MARKER)
    assert marks(servers._redis_server(own_redis.url, **embedded), "wants a password") == [Mark.FAIL]


def test_a_worker_that_cannot_run_tasks_is_a_failure(on_redis: Settings, own_redis: RedisServer) -> None:
    with closing(Store(own_redis.url)) as store:
        store.report_worker("w@host", "one", "Ansible does not load")
        assert marks(servers.broker(on_redis), "w@host cannot run tasks: Ansible does not load") == [Mark.FAIL]
        store.remove_worker_record("w@host", "one")
    assert marks(servers.broker(on_redis), "no worker answers") == [Mark.WARN]


def test_a_redis_that_hangs_is_a_line_in_time(
    on_redis: Settings, own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor_run, "AREA_SECONDS", 0.3)
    own_redis.freeze()
    assert marks(doctor_run.run_area("redis", lambda: servers.redis(on_redis)), "no answer within") == [Mark.FAIL]
    own_redis.thaw()
