"""Copies of a project's tree that runs may write, while another run of the same user works against it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from flansible.config import Settings
from flansible.models import ProjectRun, State
from flansible.projects import order
from flansible.projects.private_copy import private_copy
from flansible.store import Claim, Store
from flansible.worker import project_tasks
from flansible.worker.cancel_watcher import Cancellation
from flansible.worker.recorder import Recorder
from flansible.worker.supervisor import Supervisor
from tests.helpers.runs import GRACE_SECONDS, Worker, make_run, new_id
from tests.helpers.services import write
from tests.helpers.waiting import eventually

# As a playbook of the user could do it, in what all sandboxes of that user can write.
RACE = """
import contextlib, os, sys
shown, outside = sys.argv[1:]
print("racing", flush=True)
while True:
    for name in os.listdir(shown):
        inner = os.path.join(shown, name, "inner")
        with contextlib.suppress(OSError):
            os.rename(inner, inner + "-away")
            os.symlink(outside, inner)
"""


# A cp that has copied a folder, and does not get any further.
STUCK = """\
#!/bin/sh
for made; do :; done
mkdir "$made/read-only" && touch "$made/read-only/file" && chmod 555 "$made/read-only"
exec sleep 600
"""


def never() -> bool:
    return False


@pytest.fixture
def stuck_cp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "bin" / "cp", STUCK).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    made = tmp_path / "tree"
    (made / "inner").mkdir(parents=True)
    for number in range(2000):
        (made / "inner" / f"file-{number}").write_text("of the repository")
        (made / "inner" / f"file-{number}").chmod(0o444)
    (made / "site.yml").write_text("[]")
    (made / "inner").chmod(0o555)
    return made


@contextmanager
def racing(shown: Path, outside: Path) -> Iterator[None]:
    with subprocess.Popen([sys.executable, "-c", RACE, str(shown), str(outside)], stdout=subprocess.PIPE) as race:
        try:
            assert race.stdout is not None
            assert race.stdout.readline() == b"racing\n"
            yield
        finally:
            race.kill()


def test_another_run_of_the_user_cannot_have_a_copy_written_or_removed_elsewhere(tree: Path, tmp_path: Path) -> None:
    project, outside = tmp_path / "shop", tmp_path / "home-of-the-service"
    outside.mkdir()
    (outside / "file-0").write_text("of the service")
    (outside / "file-0").chmod(0o400)
    shown = order.copies(project, "dev")
    shown.mkdir(parents=True)
    with racing(shown, outside), private_copy(tree, project, "dev", never) as copy:
        eventually((copy / "inner").is_symlink)
        assert (copy / "site.yml").exists()
    assert [path.name for path in outside.iterdir()] == ["file-0"]
    assert ((outside / "file-0").read_text(), (outside / "file-0").stat().st_mode & 0o777) == ("of the service", 0o400)
    assert not list(shown.iterdir())


def test_a_copy_can_be_written_and_is_gone_afterwards_with_what_a_killed_worker_left(
    tree: Path, tmp_path: Path
) -> None:
    project = tmp_path / "shop"
    left = order.copies(project, "dev") / ".run-abcdefgh" / "inner"
    left.mkdir(parents=True)
    with private_copy(tree, project, "dev", never) as copy:
        (copy / "inner" / "file-1").write_text("of the run")
        (copy / "inner" / "new").write_text("of the run")
        assert (tree / "inner" / "file-1").read_text() == "of the repository"
        assert list(left.parent.parent.iterdir()) == [copy]
    assert not [path for path in project.rglob("*") if path.is_file() or path.name.startswith(".run-")]


def test_a_link_that_the_run_leaves_in_place_of_its_copy_is_removed_and_not_followed(
    tree: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    with private_copy(tree, tmp_path / "shop", "dev", never) as copy:
        copy.rename(copy.with_name("away"))
        copy.symlink_to(outside)
    assert (outside / "kept").exists()
    assert not [path for path in (tmp_path / "shop").rglob(".run-*") if path.is_symlink()]


def test_folders_that_the_run_leaves_thousandfold_in_one_another_are_gone_too(tree: Path, tmp_path: Path) -> None:
    for _ in range(2):
        with private_copy(tree, tmp_path / "shop", "dev", never) as copy:
            subprocess.run(["mkdir", "-p", copy / ("a/" * 1500)], check=True)
        assert not list((tmp_path / "shop").rglob(".run-*"))


@pytest.mark.usefixtures("stuck_cp")
@pytest.mark.parametrize(
    ("seconds", "state", "said"),
    ((60.0, State.CANCELED, "canceled by dev"), (0.3, State.TIMED_OUT, "ended after 0.3 seconds")),
)
def test_a_run_that_must_end_while_its_copy_is_made_ends_and_leaves_nothing(
    seconds: float, state: State, said: str, tmp_path: Path, store: Store, background: ThreadPoolExecutor
) -> None:
    project = ProjectRun(name="shop", url="https://h/shop", commit="c" * 40, requirements="none", private_copy=True)
    settings = Settings(data_dir=tmp_path / "data", isolation="none")
    folder = order.folder_of(settings.data_dir, "shop")
    shelf = order.trees(folder)
    shelf.make()
    with shelf.building(project.commit) as made:
        assert made is not None
        (made / "site.yml").write_text("[]")
    task_id = new_id()
    store.submit(task_id, make_run(project=project))
    claim = store.claim(task_id, "worker")
    assert isinstance(claim, Claim)
    worker, cancellation = Worker(store), Cancellation()
    recorder = Recorder(task_id, claim, 1000, None, worker.writer.wake)
    supervisor = Supervisor(worker.fork_servers, recorder, worker.shutdown, seconds, GRACE_SECONDS, cancellation)
    task = background.submit(project_tasks.carry_out, supervisor, recorder, claim.run, project, None, settings)
    if state is State.CANCELED:
        eventually(lambda: list(folder.glob("copies/.making/.run-*/read-only/file")))
        cancellation.request("dev")
    outcome = task.result(2)
    assert outcome.state is state and outcome.description.startswith(said)
    assert not list(folder.rglob(".run-*"))
    recorder.close()
    os.close(cancellation.descriptor)
    worker.close()
