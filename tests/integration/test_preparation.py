"""Fork servers that are ready before the run that needs them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from flansible.config import Settings
from flansible.models import Step
from flansible.store import Store
from flansible.worker.preparation import Preparation
from flansible.worker.sandbox import Sandboxes
from tests.helpers.process_tree import reap_orphans
from tests.helpers.runs import Worker, make_run, new_id
from tests.helpers.waiting import eventually, require_program


class Prepared:
    def __init__(self, store: Store, worker: Worker) -> None:
        self.store, self.worker = store, worker
        self.has_time = True
        sandboxes = Sandboxes(Settings(isolation="none"))
        self.preparation = Preparation(store, worker.fork_servers, sandboxes, lambda _user: None, lambda: self.has_time)

    def tick(self) -> None:
        self.preparation.tick()

    @property
    def forked(self) -> int:
        return self.worker.fork_servers.counts("w").forked

    @property
    def warm(self) -> int:
        return self.worker.fork_servers.counts("w").warm

    def run(self, place: Path) -> str:
        ended = self.worker.run("localhost", "-m", "debug", "-a", "msg=<<{{ ansible_forks }}>>", cwd=str(place))
        assert ended.outcome.returncode == 0, ended.text
        return ended.text


@pytest.fixture
def prepared(store: Store) -> Iterator[Prepared]:
    require_program("ansible")
    worker = Worker(store)
    worker.fork_servers._limit = 10
    yield Prepared(store, worker)
    worker.close()
    reap_orphans([])


@pytest.fixture
def place(tmp_path: Path) -> Path:
    folder = tmp_path / "place"
    folder.mkdir(mode=0o755)
    (folder / "ansible.cfg").write_text("[defaults]\nforks = 7\n")
    return folder


def test_an_edited_configuration_is_ready_before_the_next_run(prepared: Prepared, place: Path) -> None:
    assert "<<7>>" in prepared.run(place)
    prepared.tick()
    assert (prepared.forked, prepared.warm) == (1, 0)
    (place / "ansible.cfg").write_text("[defaults]\nforks = 9\n")
    prepared.tick()
    assert prepared.forked == 2
    assert "<<9>>" in prepared.run(place)
    assert (prepared.forked, prepared.warm) == (2, 1)


def test_what_was_used_is_forked_again_when_the_zygote_has_died(prepared: Prepared, place: Path) -> None:
    prepared.run(place)
    [zygote] = prepared.worker.fork_servers._zygotes.all()
    os.kill(zygote.pid, signal.SIGKILL)
    eventually(lambda: not zygote.alive)
    prepared.tick()
    assert prepared.forked == 2
    assert "<<7>>" in prepared.run(place) and prepared.warm == 1


def test_what_a_waiting_task_needs_is_made_ready(prepared: Prepared, place: Path) -> None:
    task_id = new_id()
    steps = (
        Step(program="git", argv=("pull",), cwd=str(place)),
        Step(program="ansible", argv=("localhost",), cwd=str(place)),
    )
    prepared.store.submit(task_id, make_run(steps=steps))
    prepared.store.mark_enqueued(task_id)
    prepared.tick()
    assert [key.directory for key in prepared.worker.fork_servers._servers] == [str(place)]
    prepared.run(place)
    assert (prepared.forked, prepared.warm) == (1, 1)


def test_a_busy_machine_prepares_nothing(prepared: Prepared, place: Path) -> None:
    prepared.run(place)
    (place / "ansible.cfg").write_text("[defaults]\nforks = 9\n")
    prepared.has_time = False
    prepared.tick()
    assert prepared.forked == 1


def test_a_broken_configuration_is_tried_once(prepared: Prepared, place: Path) -> None:
    prepared.run(place)
    (place / "ansible.cfg").write_text("[defaults\n")
    for _ in range(3):
        prepared.tick()
    assert len(prepared.preparation._failed) == 1
    (place / "ansible.cfg").write_text("[defaults]\nforks = 9\n")
    prepared.tick()
    assert "<<9>>" in prepared.run(place)
