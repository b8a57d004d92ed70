"""A backup of a service that works, restored elsewhere: into the same program, and into one with a migration more."""

from __future__ import annotations

import re
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import flansible
from flansible.history.schema import VERSION
from tests.helpers.services import ADMIN, Service, flansible_environ, lay_out, start_service
from tests.helpers.waiting import eventually

AT_ONCE = "archive_after_seconds = 0\nworker_concurrency = 2\n"


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """Another machine's folder, with the playbooks and inventories and nothing else."""
    path = Path(tempfile.mkdtemp(prefix="flansible_test_"))
    lay_out(path)
    (path / "rbac.json").unlink()
    yield path
    shutil.rmtree(path)


def command(root: Path, *words: str, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["flansible", *words], cwd=root, env=flansible_environ(), capture_output=True, text=True, timeout=120, **more
    )


def records(service: Service, tasks: list[str]) -> list[Any]:
    client = service.client()
    found = []
    for task_id in tasks:
        for word in ("status", "output", "events", "result"):
            reply = client.get(f"/api/ansibletask{word}/{task_id}")
            assert reply.status_code == 200, reply.text
            found.append(reply.text)
    return found


def archived(service: Service) -> bool:
    detail = service.client().get("/api/health").json()["parts"]["history"]["detail"]
    return bool(detail.endswith("; 0 finished tasks wait in Redis"))


def test_a_backup_of_a_busy_service_is_restored_in_another_folder(root: Path, elsewhere: Path) -> None:
    service = start_service(root, AT_ONCE)
    tasks = [service.submit("ansiblecommand", {"module": "command", "module_args": f"echo {n}"}) for n in range(4)]
    for task_id in tasks:
        service.wait(task_id)
    eventually(lambda: archived(service))
    token = command(root, "token", "create", "admin", check=True).stdout.strip()
    before = records(service, tasks)
    sleeper = service.submit("ansiblecommand", {"module": "command", "module_args": "sleep 60", "lock": ["one"]})
    queued = service.submit("ansiblecommand", {"module": "command", "module_args": "echo waited", "lock": ["one"]})
    stopped = threading.Event()

    def work() -> None:
        while not stopped.wait(0.1):
            service.wait(service.submit("ansiblecommand", {"module": "command", "module_args": "echo more"}))

    thread = threading.Thread(target=work)
    thread.start()
    file = elsewhere / "backup.tar"
    try:
        done = command(root, "backup", str(file), "--with-key")
    finally:
        stopped.set()
        thread.join()
    assert done.returncode == 0, done.stderr
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "Not in it: playbooks" in done.stderr and "secret_key_file, without" not in done.stderr
    again = command(root, "backup", str(file))
    assert again.returncode == 1 and "exists already" in again.stderr
    assert [path.name for path in root.iterdir() if path.name.startswith(".back")] == []
    assert not list((root / ".flansible").glob("*.rdb"))
    service.client().post(f"/api/ansibletaskcancel/{sleeper}")
    service.stop()

    said = command(elsewhere, "restore", str(file))
    assert said.returncode == 0, said.stderr
    assert command(elsewhere, "restore", str(file)).returncode == 1, "it is not empty any more"
    other = start_service(elsewhere, AT_ONCE)
    assert records(other, tasks) == before
    by_token = httpx.get(f"{other.url}/api/session", headers={"Authorization": f"Bearer {token}"}, timeout=20)
    assert by_token.json()["user"] == ADMIN[0]
    # The one that ran is lost, and then the one that waited for its lock runs.
    assert other.wait(sleeper, seconds=150)["state"] == "lost"
    assert other.wait(queued, seconds=60)["state"] == "succeeded"
    assert "waited" in other.output(queued)
    listed = [task["task_id"] for task in other.client().get("/api/ansibletasks?limit=1000").json()["tasks"]]
    assert len(listed) == len(set(listed)) and set(tasks) < set(listed)
    fresh = other.submit("ansiblecommand", {"module": "command", "module_args": "echo new"})
    other.wait(fresh)
    assert other.client().get("/api/ansibletasks?limit=1").json()["tasks"][0]["task_id"] == fresh
    other.stop()


_MIGRATION = """
import sqlalchemy as sa
from alembic import op

revision, down_revision = "{after:04}", "{version:04}"


def upgrade() -> None:
    op.add_column("hosts", sa.Column("of_the_future", sa.Text))
"""


def newer_build(folder: Path) -> Path:
    """A copy of this program with one more migration."""
    package = folder / "flansible"
    shutil.copytree(Path(flansible.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    schema = package / "history/schema.py"
    text, count = re.subn(rf"^VERSION = {VERSION}\b", f"VERSION = {VERSION + 1}", schema.read_text(), flags=re.M)
    assert count == 1
    schema.write_text(text)
    made = package / f"history/migrations/v{VERSION + 1:04}_future.py"
    made.write_text(_MIGRATION.format(after=VERSION + 1, version=VERSION))
    return folder


@pytest.mark.nightly
def test_a_backup_is_restored_into_a_newer_build_and_a_newer_backup_is_refused(
    root: Path, elsewhere: Path, tmp_path: Path
) -> None:
    service = start_service(root, AT_ONCE)
    tasks = [service.submit("ansiblecommand", {"module": "command", "module_args": "echo kept"})]
    service.wait(tasks[0])
    eventually(lambda: archived(service))
    before = records(service, tasks)
    file = tmp_path / "backup.tar"
    assert command(root, "backup", str(file)).returncode == 0
    service.stop()
    variables = {"PYTHONPATH": str(newer_build(tmp_path / "newer"))}
    environ = {**flansible_environ(), **variables}
    where = [sys.executable, "-P", "-c", "import flansible; print(flansible.__file__)"]
    assert str(tmp_path) in subprocess.run(where, env=environ, capture_output=True, text=True, check=True).stdout
    said = subprocess.run(
        ["flansible", "restore", str(file)], cwd=elsewhere, env=environ, capture_output=True, text=True, check=True
    )
    assert f"takes the database from version {VERSION} to {VERSION + 1}" in said.stdout
    other = start_service(elsewhere, AT_ONCE, variables=variables)
    version = f"version {VERSION + 1}"
    # Half a minute later: the backup has the election of the archiver that was there.
    eventually(lambda: version in other.client().get("/api/health").json()["parts"]["history"]["detail"], 60)
    assert records(other, tasks) == before
    newer = tmp_path / "newer.tar"
    subprocess.run(["flansible", "backup", str(newer)], cwd=elsewhere, env=environ, capture_output=True, check=True)
    other.stop()
    shutil.rmtree(elsewhere / ".flansible")
    (elsewhere / "rbac.json").unlink()
    refused = command(elsewhere, "restore", str(newer))
    assert refused.returncode == 1 and "is newer than this one" in refused.stderr
    assert not (elsewhere / ".flansible").exists()
