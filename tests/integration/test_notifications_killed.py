"""A dispatcher killed at random moments: each notification arrives at least once, under one id, and none is missing."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from flansible.history.archive import Archive
from flansible.history.definition_rows import DefinitionRows, StoredDefinition
from flansible.history.merged_records import Records
from flansible.models import State
from tests.helpers.receivers import Answer, Received, Receiver
from tests.helpers.waiting import eventually
from tests.helpers.webserver import RecordedRun

_DISPATCHES = """
import json, sys
from pathlib import Path
from flansible.config import Settings
from flansible.definitions.definition_store import Definitions
from flansible.definitions.stored_credentials import Credentials
from flansible.history.archive import Archive
from flansible.history.definition_rows import DefinitionRows
from flansible.history.delivery_rows import DeliveryRows
from flansible.history.hook_call_rows import HookCallRows
from flansible.history.merged_records import Records
from flansible.identity.users import RbacFile
from flansible.notifications import dispatcher, sending
from flansible.notifications.recipients import Notifications, Recipients
from flansible.sealing import Sealer
redis_url, history_url, folder = json.load(sys.stdin)
dispatcher.ELECTED_SECONDS, dispatcher._RENEW_SECONDS, dispatcher.TAKEN_SECONDS = 0.5, 0.1, 3.0
sending.PAUSES = (0.1,) * 50
store = Records(redis_url, Archive(history_url, 10.0))
database = store.archive.database
rbac = RbacFile(Path(folder) / "rbac.json", lambda *_: None)
notifications = Notifications(DefinitionRows(database), Sealer(Path(folder) / "secret.key"))
credentials = Credentials(Definitions(DefinitionRows(database), Sealer(Path(folder) / "secret.key")))
sender = sending.Sender(notifications, credentials, rbac.users, Settings())
recipients = Recipients(store, rbac.users, "https://x")
found = dispatcher.Dispatcher(store, DeliveryRows(database), HookCallRows(database), notifications, recipients, sender)
found._seconds = 0.02
print("ready", flush=True)
found._run()
"""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    found = Receiver()
    yield found
    found.stop()


@pytest.fixture
def records(redis_url: str, history_url: str) -> Iterator[Records]:
    records = Records(redis_url, Archive(history_url, 10.0))
    records._redis.flushall()
    yield records
    records.close()


def start(redis_url: str, history_url: str, folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", _DISPATCHES], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(json.dumps([redis_url, history_url, str(folder)]))
    process.stdin.close()
    assert process.stdout.readline() == "ready\n"
    return process


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


@pytest.mark.parametrize("rounds", [2, pytest.param(20, marks=[pytest.mark.nightly, pytest.mark.timeout(900)])])
def test_a_dispatcher_that_is_killed_again_and_again(
    records: Records, receiver: Receiver, redis_url: str, history_url: str, tmp_path: Path, rounds: int
) -> None:
    seed = random.randrange(1 << 32)
    dice = random.Random(seed)

    def answer(_: Received) -> Answer:
        time.sleep(dice.uniform(0, 0.05))
        return (500 if dice.random() < 0.2 else 200), {}, b""

    receiver.answer = answer
    (tmp_path / "rbac.json").write_text(json.dumps({"rbac": [{"user": "admin", "password": "a"}]}))
    (tmp_path / "rbac.json").chmod(0o600)
    assert records.archive is not None
    records.expect_notifications()
    for number in range(3):
        spec = {"kind": "webhook", "url": receiver.url, "on": ["failed", "started"], "allow_private": True}
        found = StoredDefinition("notifications", f"n{number}", "admin", spec, "r", 0, 0)
        with DefinitionRows(records.archive.database).writing() as writer:
            writer.put(found, is_new=True)
    tasks = []
    for _ in range(rounds):
        process = start(redis_url, history_url, tmp_path)
        until = time.monotonic() + dice.uniform(0.0, 1.0)  # the moment of the kill
        while time.monotonic() < until:
            run = RecordedRun(records)
            run.end(State.FAILED)
            tasks.append(run.task_id)
            time.sleep(dice.uniform(0.0, 0.1))
        end(process)
    process = start(redis_url, history_url, tmp_path)
    try:
        expected = len(tasks) * 3 * 2

        def delivered() -> set[str]:
            return {one.id for one in list(receiver.received)}

        eventually(lambda: len(delivered()) >= expected, 120)
    finally:
        end(process)
    ids = defaultdict(set)
    for one in receiver.received:
        ids[one.id].add((one.json["data"]["task_id"], one.event))
    assert len(ids) == expected, seed
    assert all(len(found) == 1 for found in ids.values()), "one id, one event of one task"
    told = [pair for found in ids.values() for pair in found]
    assert sorted(told) == sorted((task, event) for task in tasks for event in ("failed", "started") for _ in range(3))
