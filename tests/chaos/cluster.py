"""A Redis and workers, each on a machine of its own (tests/helpers/network.py), and runs that leave a beat five times a
second: who ran when, whatever the records say."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import psutil

from flansible.models import AuthorizedRun, Step, TaskStatus
from flansible.store import Store
from tests.chaos import arena as arenas
from tests.helpers.network import Machine, Network
from tests.helpers.process_tree import Seen, Tree
from tests.helpers.runs import new_id
from tests.helpers.services import flansible_environ
from tests.helpers.waiting import eventually, require_program

_BEAT = """
import os, sys, time
task, lock, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
began = time.time()
with open("beats", "a", buffering=1) as beats:
    while time.time() < began + seconds:
        beats.write(f"{task} {lock} {os.getpid()} {time.time():.2f}\\n")
        time.sleep(0.2)
print("the last line of", task)
"""
# What a web process does here: it puts tasks on the queue, and recovers.
_WEB = """
import sys
from flansible import config
from flansible.broker import app, recovery
from flansible.store import Store
settings = config.load()
app.configure(settings)
recovery.Recovery(Store(settings.store_url, reply_timeout_seconds=2)).start()
print("ready", flush=True)
for line in sys.stdin:
    app.enqueue(line.strip(), "a task of a test")
"""
_PAUSE_SECONDS = 3.0
_SHOWN_OF_LOG = 20_000  # characters, of each log of a round that failed


@dataclass(frozen=True)
class Period:
    """When one run of a task was seen to run, without a pause."""

    task_id: str
    lock: str
    pid: int
    first: float
    last: float


class Cluster:
    def __init__(self, network: Network, root: Path, lease_seconds: int, workers: int = 2) -> None:
        self.root = root
        (root / "beat.py").write_text(_BEAT)
        self.home, *self.machines = (network.machine() for _ in range(workers + 1))
        self._data = root / "redis"
        self._data.mkdir()
        self._popened: list[subprocess.Popen[bytes]] = []
        self.start_redis()
        self._configure(lease_seconds)
        self.store = Store(f"redis+socket://{root}/redis.sock")
        self._web = self._start(self.home, [sys.executable, "-c", _WEB], pipes=True)
        assert self._web.stdout is not None and self._web.stdout.readline() == b"ready\n"
        self.workers = [
            self._start(machine, [str(Path(sys.executable).parent / "flansible"), "worker", "--name", f"w{number}"])
            for number, machine in enumerate(self.machines)
        ]
        eventually(lambda: [worker.problem for worker in self.store.worker_records()] == [""] * workers, 90)

    def _configure(self, lease_seconds: int) -> None:
        redis = f"redis://{self.home.address}:6379"
        (self.root / "config.ini").write_text(
            f"[Default]\nCELERY_BROKER_URL = {redis}/0\nCELERY_RESULT_BACKEND = {redis}/0\n"
            f"lease_seconds = {lease_seconds}\nworker_concurrency = 4\nlog_level = info\n"
        )

    def _start(self, machine: Machine, words: list[str], pipes: bool = False) -> subprocess.Popen[bytes]:
        with (self.root / f"{machine.name}.log").open("ab") as log:
            process = machine.popen(
                words,
                cwd=self.root,
                env=flansible_environ(),
                stdin=subprocess.PIPE if pipes else subprocess.DEVNULL,
                stdout=subprocess.PIPE if pipes else log,
                stderr=log,
            )
        self._popened.append(process)
        return process

    def start_redis(self) -> None:
        options = {
            "bind": self.home.address,
            "protected-mode": "no",
            "unixsocket": str(self.root / "redis.sock"),
            "dir": str(self._data),
            "appendonly": "yes",
            "save": "",
        }
        words = [word for key, value in options.items() for word in (f"--{key}", value)]
        self._redis = self._start(self.home, [require_program("redis-server"), *words])
        eventually(lambda: (self.root / "redis.sock").exists(), 30)

    def put_back_redis(self, seconds_away: float) -> None:
        """Kills Redis; it comes back with the memory that it had a second before."""
        copy = self.root / "redis.copy"
        shutil.copytree(self._data, copy)
        time.sleep(1)
        self._redis.kill()
        self._redis.wait()
        shutil.rmtree(self._data)
        copy.rename(self._data)
        (self.root / "redis.sock").unlink(missing_ok=True)
        time.sleep(seconds_away)
        self.start_redis()

    def submit(self, seconds: float, lock: str = "", on_lost: str = "fail") -> str:
        task_id = new_id()
        command = f"{sys.executable} beat.py {task_id} {lock or '-'} {seconds}"
        argv = ("-m", "ansible.builtin.command", "-a", command, "--", "localhost")
        step = Step(program="ansible", argv=argv, cwd=str(self.root), environment={})
        run = AuthorizedRun(
            kind="adhoc",
            user="admin",
            summary="a task of a test",
            steps=(step,),
            locks=(lock,) if lock else (),
            on_lost=on_lost,  # type: ignore[arg-type]  # validated by the model
        )
        self.store.submit(task_id, run)
        assert self._web.stdin is not None
        self._web.stdin.write(f"{task_id}\n".encode())
        self._web.stdin.flush()
        self.store.mark_enqueued(task_id)
        return task_id

    def status(self, task_id: str) -> TaskStatus:
        found = self.store.task(task_id)
        assert found is not None
        return found

    def machine_of(self, task_id: str) -> int:
        """The number of the worker that runs it."""
        (run,) = (run for run in self.store.runs() if run.task_id == task_id)
        return int(run.worker.removeprefix("w").partition("@")[0])

    def keepers_of(self, number: int) -> list[Seen]:
        tree = Tree()
        below = {seen.pid for seen in tree.below(self.workers[number].pid)}
        return [keeper for keeper in tree.keepers() if keeper.pid in below]

    def periods(self) -> list[Period]:
        seen: dict[tuple[str, str, int], list[float]] = defaultdict(list)
        with contextlib.suppress(FileNotFoundError):
            for line in (self.root / "beats").read_text().splitlines():
                task_id, lock, pid, moment = line.split()
                seen[task_id, lock, int(pid)].append(float(moment))
        found = []
        for key, moments in seen.items():
            first = last = moments[0]
            for moment in moments[1:]:
                if moment - last > _PAUSE_SECONDS:  # it stood still
                    found.append(Period(*key, first, last))
                    first = moment
                last = moment
            found.append(Period(*key, first, last))
        return found

    def overlaps(self, allowed_seconds: float = 0.05) -> list[str]:
        """Two runs of one task, or two holders of one lock, at the same time."""
        found = []
        for one, other in itertools.combinations(self.periods(), 2):
            is_together = min(one.last, other.last) - max(one.first, other.first) > allowed_seconds
            if is_together and one.task_id == other.task_id:
                found.append(f"two runs of a task: {one} and {other}")
            elif is_together and one.lock == other.lock != "-":
                found.append(f"two holders of a lock: {one} and {other}")
        return found

    def ghosts(self, task_ids: list[str]) -> list[str]:
        """Runs that went on after their task was final."""
        found, last = [], {period.task_id: period.last for period in self.periods()}
        for task_id in task_ids:
            task = self.status(task_id)
            if task.finished_at and last.get(task_id, 0.0) > moment_of(task.finished_at) + 0.5:
                found.append(f"{task_id} is {task.state} since {task.finished_at}, and beat at {last[task_id]}")
        return found

    def close(self) -> None:
        self.store.close()
        for process in self._popened:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()


def moment_of(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


@contextmanager
def cluster(lease_seconds: int, workers: int = 2) -> Iterator[Cluster]:
    with arenas.place() as root, Network() as network:
        made = Cluster(network, root, lease_seconds, workers)
        try:
            yield made
        except BaseException:
            for log in sorted(root.glob("*.log")):
                print(f"--- {log.name}\n{log.read_text(errors='replace')[-_SHOWN_OF_LOG:]}")
            raise
        finally:
            for machine in (made.home, *made.machines):
                machine.kill()
            made.close()
            eventually(lambda: not any(item.is_runner for item in Tree().seen.values()), 30)


def signal_all(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, psutil.Error):
            os.kill(pid, number)
