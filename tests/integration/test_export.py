"""`flansible export` over a real Redis: each finished task is one JSON line, and nothing else is."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from flansible.cli import cli
from flansible.models import State, Step
from flansible.store import Batch, Claim, Progress, Store, StoredEvent
from flansible.store.export import export, parse_moment
from tests.helpers.redis_server import RedisServer
from tests.helpers.runs import make_run, new_id


def finished(store: Store, output: bytes = b"hello\n", user: str = "dev") -> str:
    task_id = new_id()
    store.submit(task_id, make_run(user))
    claim = store.claim(task_id, "worker")
    assert isinstance(claim, Claim)
    event = StoredEvent(json.dumps({"event": "host_result", "host": "h", "verdict": "ok"}), "h")
    store.append(task_id, claim.token, Batch(Progress(), output, (event,), (), len(output)))
    store.settle(task_id, State.SUCCEEDED, "done", 0, (), claim.token)
    return task_id


def exported(store: Store, since: str = "1h", until: datetime | None = None, **options: Any) -> list[dict[str, Any]]:
    file = io.StringIO()
    written, _ = export(store, parse_moment(since), until, options.get("with_output", True), file)
    lines = [json.loads(line) for line in file.getvalue().splitlines()]
    assert len(lines) == written
    return lines


def test_each_finished_task_is_a_line_oldest_first_with_all_there_is(store: Store) -> None:
    ids = [finished(store, b"one\n"), finished(store, b'quo"te \\ \xff\xc3\xa4\n'), finished(store)]
    lines = exported(store)
    assert [line["task"]["task_id"] for line in lines] == ids
    first, second, _ = lines
    assert first["task"]["state"] == "succeeded" and first["task"]["returncode"] == 0
    assert first["request"]["steps"][0]["program"] == "ansible"
    assert [event["event"] for event in first["events"]] == ["host_result", "final"]
    assert first["output"] == "one\n"
    assert second["output"].encode(errors="surrogateescape") == b'quo"te \\ \xff\xc3\xa4\n'


def test_a_request_with_names_that_are_no_utf_8_is_a_line_too(store: Store) -> None:
    task_id, step = new_id(), Step(program="ansible-playbook", argv=("--", "\udce9.yml"), cwd="/\udcff")
    store.submit(task_id, make_run(steps=(step,)))
    store.cancel(task_id, "dev")
    [line] = exported(store)
    assert line["request"]["steps"][0]["argv"] == ["--", "\udce9.yml"]
    found = store.authorized_run(task_id)
    assert found is not None and found.steps == (step,)


def test_a_large_output_is_whole_though_characters_stand_across_chunks(store: Store) -> None:
    text = "x" + "äöü€" * 700_000
    finished(store, text.encode())
    assert exported(store)[0]["output"] == text


def test_what_is_not_final_is_left_out_and_counted(store: Store) -> None:
    finished(store)
    store.submit(new_id(), make_run())
    assert export(store, parse_moment("1h"), None, True, io.StringIO()) == (1, 1)


def test_since_and_until_are_obeyed(store: Store) -> None:
    task_id = finished(store)
    store._redis.hset(f"flansible:task:{task_id}", "submitted_at", "2020-05-05T12:00:00.000Z")
    new = finished(store)
    assert [line["task"]["task_id"] for line in exported(store, "1d")] == [new]
    assert [line["task"]["task_id"] for line in exported(store, "2020-05-05")] == [task_id, new]
    assert exported(store, "2020-05-05T12:00:01Z", datetime(2021, 1, 1, tzinfo=UTC)) == []
    assert len(exported(store, "2020-01-01", datetime(2021, 1, 1, tzinfo=UTC))) == 1


def test_output_can_be_left_out(store: Store) -> None:
    finished(store)
    assert "output" not in exported(store, with_output=False)[0]


@pytest.mark.parametrize(("text", "ago"), [("90m", 1.5), ("12h", 12), ("7d", 168), ("2w", 336)])
def test_how_long_ago_is_understood(text: str, ago: float) -> None:
    assert abs(datetime.now(UTC) - timedelta(hours=ago) - parse_moment(text)) < timedelta(seconds=5)


@pytest.mark.parametrize("text", ["yesterday", "", "7", "-1d", "2026-13-01", "7y"])
def test_what_is_no_time_is_refused_by_the_command(text: str) -> None:
    result = CliRunner().invoke(cli, ["export", f"--since={text}"])
    assert result.exit_code == 2 and "2026-11-22" in result.output


def test_the_command_writes_a_whole_file_or_none(tmp_path: Path, own_redis: RedisServer) -> None:
    config = tmp_path / "config.ini"
    config.write_text(f"[Default]\nCELERY_RESULT_BACKEND = {own_redis.url}\nCELERY_BROKER_URL = {own_redis.url}\n")
    store = Store(own_redis.url)
    finished(store)
    store.close()
    target = tmp_path / "tasks.jsonl"
    command = ["export", f"--config={config}", "--since=1d", f"--output={target}"]
    result = CliRunner().invoke(cli, command)
    assert result.exit_code == 0 and "1 tasks written" in result.output
    assert len(target.read_text().splitlines()) == 1
    before = target.read_text()
    own_redis.kill()
    result = CliRunner().invoke(cli, command)
    assert result.exit_code != 0
    assert target.read_text() == before
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".ini"] == ["tasks.jsonl"]
