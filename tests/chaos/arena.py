"""A whole service in a folder of its own, which may be killed, and what it looks like when nothing has happened to it.

HOME and TMPDIR lie in that folder too: whatever is left in them was left by this service.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.chaos.load import lay_out_load
from tests.helpers import process_tree
from tests.helpers.process_tree import Descriptors, Seen, Tree
from tests.helpers.services import ADMIN, Service, lay_out, start_service
from tests.helpers.waiting import eventually

BACK_SECONDS = 90.0
QUIET_SECONDS = 5.0
# What pools may keep once every thread has been busy at the same time: to the store, to the broker, of clients.
POOLED_CONNECTIONS = 32
_CONFIG = "log_level = info\nworker_concurrency = 4\nweb_threads = 8\nweb_workers = 2\n"
_FOLDERS_OF_OURS = ("ansible-local-*", "ansible-tmp-*", "ansible_*_payload_*", "pymp-*", "flansible*", "tmp*")


class Arena:
    """`flansible up` in `root`, with servers that are not its own (`others`: their process ids)."""

    def __init__(self, root: Path, config: str = "", others: Callable[[], list[int]] = list) -> None:
        self.root = root
        self.others = others
        self.service: Service = start_service(root, _CONFIG + config)
        self._files = self._data_files()
        self._level: dict[int, Descriptors] = {}

    @property
    def up(self) -> int:
        return self.service.process.pid

    def tree(self) -> Tree:
        return Tree()

    def role(self, name: str) -> Seen:
        """A role of the service, waited for should it be just being started again."""
        found = eventually(lambda: Tree().role(self.up, name), 30)
        assert isinstance(found, Seen)
        return found

    def healthy(self) -> bool:
        try:
            return httpx.get(f"{self.service.url}/api/health", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    def await_back(self) -> float:
        """When the service answered again that all is well; what /api/health remembers for a second does not count."""
        time.sleep(1.1)
        eventually(self.healthy, BACK_SECONDS)
        return time.time()

    def kill_up(self) -> None:
        self.service.process.kill()
        self.service.process.wait()

    def kill_everything(self) -> None:
        """As a machine that loses its power; not the servers that are not the service's own."""
        others = set(self.others())
        while True:
            tree = Tree()
            spared = others | {item.pid for other in others for item in tree.below(other)}
            victims = [item for pid, item in tree.seen.items() if pid not in spared]
            if not victims:
                break
            process_tree.kill(victims)
            time.sleep(0.01)
            process_tree.reap_orphans([self.up, *self.others()])
        self.service.process.wait()

    def up_again(self) -> int:
        """`flansible up` in the same folder, as often as a service manager would try; how often it had to."""
        assert self.service.process.stdout is not None
        self.service.process.stdout.close()
        give_up_at = time.monotonic() + BACK_SECONDS
        for attempt in range(1, 1000):
            with self.service.log.open("a") as stderr:
                process = subprocess.Popen(
                    [str(Path(sys.executable).parent / "flansible"), "up"],
                    cwd=self.root,
                    env=self.service.environ,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=stderr,
                    text=True,
                )
            self.service.process = process
            assert process.stdout is not None
            if process.stdout.readline().startswith("Flansible is ready at "):
                return attempt
            process.wait(30)
            process.stdout.close()
            assert time.monotonic() < give_up_at, f"`flansible up` does not start again: {self.log_end()}"
            time.sleep(0.2)
        raise AssertionError("unreachable")

    def log_end(self) -> str:
        return self.service.log.read_text(errors="replace")[-3000:]

    def tasks(self, client: httpx.Client) -> dict[str, dict[str, Any]]:
        """The newest thousand tasks by their ids; raises httpx.HTTPError while nobody answers."""
        reply = client.get("/api/ansibletasks?limit=1000").raise_for_status()
        return {task["task_id"]: task for task in reply.json()["tasks"]}

    def left_behind(self) -> list[str]:
        """What is there though no task runs; gives it a moment to go."""
        give_up_at = time.monotonic() + QUIET_SECONDS
        while left := self._left():
            if time.monotonic() > give_up_at:
                return left
            time.sleep(0.1)
        return []

    def _left(self) -> list[str]:
        process_tree.reap_orphans([self.up, *self.others()])
        tree = Tree()
        left = [f"process {line}" for line in tree.unanswered_for([self.up], self.others())]
        left += [f"directory {path}" for path in temp_dirs(self.root)]
        left += [f"file {name} in data_dir" for name in sorted(self._data_files() - self._files)]
        return left + self._descriptors_above_level(tree)

    def _data_files(self) -> set[str]:
        """Below data_dir; what belongs to Redis and SQLite is their own affair."""
        folder = self.root / ".flansible"
        names = {str(path.relative_to(folder)) for path in folder.rglob("*")}
        names = {
            name for name in names if not name.startswith(("appendonly", "temp-rewriteaof", "redis", "dump", "history"))
        }
        return names - {"secret.key"}

    def _descriptors_above_level(self, tree: Tree) -> list[str]:
        left = []
        for seen in self._long_lived(tree):
            try:
                now = process_tree.descriptors(seen.pid)
            except OSError:
                continue
            if any("flansible.worker.archiver" in child.words for child in tree.children(seen.pid)):
                # The archiver's standard input and output; it ends when nothing is left to archive.
                now = now.without("pipe").without("pipe")
            level = self._level.setdefault(seen.pid, now)
            if now.others != level.others:
                if len(now.others) < len(level.others):
                    self._level[seen.pid] = Descriptors(level.connections, now.others)
                else:
                    left.append(f"descriptors of {seen.line}: {list(now.others)}, before {list(level.others)}")
            if now.connections > level.connections + POOLED_CONNECTIONS:
                left.append(f"{now.connections} connections of {seen.line}, before {level.connections}")
        return left

    def _long_lived(self, tree: Tree) -> list[Seen]:
        found = [tree.seen[self.up]] if self.up in tree.seen else []
        for child in tree.children(self.up):
            if "redis-server" not in child.words[0]:
                found += [child, *(item for item in tree.children(child.pid) if "web" in child.words)]
        return found + tree.zygotes() + tree.fork_servers()

    def stop(self) -> float:
        """Raises AssertionError when something of the service is left."""
        seconds = self.service.stop()
        eventually(self._gone, 15)
        return seconds

    def _gone(self) -> bool:
        process_tree.reap_orphans(self.others())
        own = {pid for other in self.others() for pid in (other, *(item.pid for item in Tree().below(other)))}
        return not set(Tree().seen) - own

    def scrap(self) -> None:
        """End it by force, after a failure."""
        self.kill_everything()
        if self.service.process.stdout is not None:
            self.service.process.stdout.close()
        process_tree.reap_orphans(self.others())


@contextmanager
def place() -> Iterator[Path]:
    """A folder for a service, laid out; programs started meanwhile have their HOME and TMPDIR in it."""
    root = Path(tempfile.mkdtemp(prefix="flansible_test_"))
    lay_out(root)
    lay_out_load(root)
    for name in ("home", "tmp"):
        (root / name).mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(root / "home"))
        patch.setenv("TMPDIR", str(root / "tmp"))
        yield root
    shutil.rmtree(root)


def temp_dirs(root: Path) -> list[str]:
    """What Ansible or Flansible left in the temp directories of a folder.

    Not all that is there: a Python that is killed while it looks for its temp directory leaves the file that it tries
    each candidate with, in the directory of whichever program it is.
    """
    found = set[Path]()
    for place in (root / "tmp", root / "home/.ansible/tmp"):
        for pattern in _FOLDERS_OF_OURS:
            found.update(place.glob(pattern))
    return sorted(str(path.relative_to(root)) for path in found)


def keep_evidence(arena: Arena, name: str) -> None:
    """Into a folder of $CHAOS_KEEP: the service's log, what processes there are, and their stacks given py-spy."""
    if "CHAOS_KEEP" not in os.environ:
        return
    folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=os.environ["CHAOS_KEEP"]))
    shutil.copy(arena.service.log, folder)
    tree = Tree()
    (folder / "processes").write_text("".join(f"{item.line}\n" for item in tree.seen.values()))
    if py_spy := shutil.which("py-spy"):
        with (folder / "stacks").open("w") as out:
            for item in tree.seen.values():
                if "python" in item.words[0]:
                    subprocess.run([py_spy, "dump", "-p", str(item.pid)], stdout=out, stderr=out, check=False)


def warm_up(arena: Arena, bodies: list[tuple[str, dict[str, Any]]]) -> None:
    """Let it do once what it will do again, then take its measure."""
    with httpx.Client(base_url=arena.service.url, auth=ADMIN, timeout=60) as client:
        ids = [client.post(f"/api/{route}", json=body).raise_for_status().json()["task_id"] for route, body in bodies]
        for task_id in ids:
            eventually(lambda task_id=task_id: _over(client, task_id), 60)
    arena.left_behind()


def _over(client: httpx.Client, task_id: str) -> bool:
    return bool(client.get(f"/api/ansibletaskstatus/{task_id}").raise_for_status().json()["Status"] != "PROGRESS")


def freeze(pids: list[int]) -> None:
    for pid in pids:
        psutil.Process(pid).send_signal(signal.SIGSTOP)


def thaw(pids: list[int]) -> None:
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(pid).send_signal(signal.SIGCONT)
