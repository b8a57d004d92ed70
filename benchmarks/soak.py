"""Half an hour of mixed load, and whether anything grew: `make soak`, or `python -m benchmarks.soak --minutes 5`.

Several users at once run ad-hoc commands, playbooks, failing ones, git, cancel, run into time limits, follow outputs
and events and leave midway, poll, list, and send bad requests and secrets. Every ten seconds the memory, threads and
descriptors of each role, Redis' memory and keys, and the entries in temp directories are noted. A figure is level when
its median in the last quarter is hardly above that of the second; the first is warm-up. Ends with 1 when something is
not level, was answered wrongly, or is left when nothing runs any more. Not part of the tests.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import redis

from benchmarks.service import Running, machine, running, usage_by_role

SAMPLE_SECONDS = 10.0
ROLES = ("up", "redis", "web", "worker", "fork server")
SETTINGS: dict[str, Any] = {"worker_concurrency": 4, "web_workers": 2, "web_threads": 8, "grace_seconds": 1}
SETTINGS["archive_after_seconds"] = 30  # as it is by default: whether anything grows is the question
SECRET = "word-that-must-not-stay"
FINAL_SECONDS = 60.0
PLAYBOOK = """\
- hosts: one
  gather_facts: false
  tasks:
    - ansible.builtin.debug:
        msg: line {{ item }}
      loop: "{{ range(0, 20) | list }}"
    - ansible.builtin.copy:
        content: "{{ 1000 | random }}"
        dest: "{{ playbook_dir }}/written"
    - ansible.builtin.command: seq 1 {{ lines | default(200) }}
"""
FAILING = """\
- hosts: one
  gather_facts: false
  tasks:
    - ansible.builtin.command: "false"
"""


@dataclass
class Load:
    """What users do. `seen` counts actions by how they ended; `wrong` is what should not have happened."""

    service: Running
    client: httpx.Client
    chance: random.Random
    seen: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def act(self) -> None:
        """One thing that users do, the frequent ones more often."""
        actions = (
            *(self.adhoc, self.adhoc, self.adhoc, self.playbook, self.playbook, self.failing, self.canceled),
            *(self.timed_out, self.followed, self.left_output, self.left_events, self.git, self.secret),
            *(self.listed, self.polled, self.bad, self.bad),
        )
        action = self.chance.choice(actions)
        try:
            action()
        except Exception as error:
            self._wrong(f"{action.__name__}: {type(error).__name__}: {error}")

    def adhoc(self) -> None:
        script = f"seq 1 {self.chance.choice((1, 100, 5000))}"
        self._ends("adhoc", self._submit("ansiblecommand", _command(script)), "succeeded")

    def playbook(self) -> None:
        variables = {"lines": self.chance.choice((10, 1000))}
        self._ends("playbook", self._submit("ansibleplaybook", self._play("play.yml", variables)), "succeeded")

    def failing(self) -> None:
        self._ends("failing", self._submit("ansibleplaybook", self._play("fail.yml")), "failed")

    def secret(self) -> None:
        body = {**_command("true"), "become_password": SECRET}
        self._ends("secret", self._submit("ansiblecommand", body), "succeeded")

    def canceled(self) -> None:
        task_id = self._submit("ansiblecommand", _command("sleep 40"))
        time.sleep(self.chance.choice((0.0, 0.2, 1.5)))
        reply = self.client.post(f"/api/ansibletaskcancel/{task_id}")
        if reply.status_code not in (200, 202):
            self._wrong(f"cancel: {reply.status_code} {reply.text}")
        self._ends("canceled", task_id, "canceled")

    def timed_out(self) -> None:
        self._ends("timed out", self._submit("ansiblecommand", {**_command("sleep 40"), "time_limit": 1}), "timed_out")

    def followed(self) -> None:
        task_id = self._submit("ansibleplaybook", self._play("play.yml"))
        with self.client.stream("GET", f"/api/ansibletaskoutput/{task_id}?follow=true") as reply:
            size = sum(len(chunk) for chunk in reply.iter_raw())
            if reply.status_code == 200 and not size:
                self._wrong("a followed output was empty")
        self._ends("followed to the end", task_id, "succeeded")

    def left_output(self) -> None:
        task_id = self._submit("ansiblecommand", _command(f"sleep {self.chance.choice((1, 3))}"))
        self._leave(f"/api/ansibletaskoutput/{task_id}?follow=true", {})
        self._ends("output left midway", task_id, "succeeded")

    def left_events(self) -> None:
        task_id = self._submit("ansibleplaybook", self._play("play.yml"))
        self._leave(f"/api/ansibletaskevents/{task_id}", {"Accept": "text/event-stream"})
        self._ends("events left midway", task_id, "succeeded")

    def git(self) -> None:
        self._ends("git", self._submit("git", {"playbook_dir": "checkout"}), "succeeded")

    def listed(self) -> None:
        for query in ("", "?limit=1000", "?state=failed"):
            tasks = self._get(f"/api/ansibletasks{query}", 200).json()["tasks"]
        self._get("/api/listplaybooks", 200)
        self._get("/api/health", 200)
        if tasks:
            task_id = tasks[0]["task_id"]
            self._get(f"/api/ansibletaskresult/{task_id}", 200, 404)  # 404: kept no longer
            self._get(f"/api/ansibletaskoutput/{task_id}?format=html", 200, 404)
        self.seen["lists"] += 1

    def polled(self) -> None:
        tasks = self._get("/api/ansibletasks?limit=20", 200).json()["tasks"]
        for task in tasks:
            self._get(f"/api/ansibletaskstatus/{task['task_id']}", 200, 404)
        self.seen["polls"] += len(tasks)

    def bad(self) -> None:
        unknown_id = "00000000-0000-0000-0000-000000000000"
        self._get(f"/api/ansibletaskstatus/{unknown_id}", 404)
        self._get("/api/ansibletasks?limit=-1", 400)
        as_json = {"Content-Type": "application/json"}
        replies = (
            (self.client.post("/api/ansiblecommand", content=b"{", headers=as_json), 400),
            (self.client.post("/api/ansiblecommand", json={"module": "debug", "nonsense": 1}), 400),
            (self.client.post("/api/ansibleplaybook", json=self._play("missing.yml")), 404),
            (self.client.get("/api/ansibletasks", auth=("admin", "wrong")), 401),
            (self.client.post("/api/ansiblecommand", content=b"x" * 5_000_000, headers=as_json), 413),
        )
        for reply, wanted in replies:
            if reply.status_code != wanted:
                self._wrong(f"bad request: {reply.status_code} in place of {wanted}: {reply.text[:200].strip()}")
        self.seen["bad requests"] += len(replies) + 2

    def _leave(self, path: str, headers: dict[str, str]) -> None:
        with self.client.stream("GET", path, headers=headers) as reply:
            if reply.status_code not in (200, 503):  # 503: too many follow already
                self._wrong(f"{path}: {reply.status_code}")
            leave_at = time.monotonic() + self.chance.uniform(0.0, 1.5)
            for _ in reply.iter_raw():
                if time.monotonic() > leave_at:
                    break

    def _play(self, file: str, variables: dict[str, Any] | None = None) -> dict[str, Any]:
        body = {"playbook_dir": str(self.service.playbooks), "playbook": file, "inventory": "hosts"}
        return {**body, "extra_vars": variables} if variables else body

    def _submit(self, route: str, body: dict[str, Any]) -> str:
        reply = self.client.post(f"/api/{route}", json=body)
        if reply.status_code != 202:
            raise RuntimeError(f"{route} was answered {reply.status_code}: {reply.text[:300]}")
        return str(reply.json()["task_id"])

    def _ends(self, name: str, task_id: str, state: str) -> None:
        give_up_at = time.monotonic() + FINAL_SECONDS
        while (task := self._get(f"/api/ansibletaskstatus/{task_id}", 200).json())["Status"] == "PROGRESS":
            if time.monotonic() > give_up_at:
                return self._wrong(f"{name}: {task_id} is {task['state']} after {FINAL_SECONDS:g} s")
            time.sleep(0.2)
        if task["state"] != state:
            return self._wrong(f"{name}: {task_id} is {task['state']}: {task['description']}")
        self._get(f"/api/ansibletaskoutput/{task_id}", 200)
        self.seen[name] += 1

    def _get(self, path: str, *codes: int) -> httpx.Response:
        reply = self.client.get(path)
        if reply.status_code not in codes:
            self._wrong(f"{path}: {reply.status_code}: {reply.text[:200]}")
        return reply

    def _wrong(self, what: str) -> None:
        self.wrong.append(f"{time.strftime('%T')} {what}")
        print(self.wrong[-1], file=sys.stderr, flush=True)


def _command(script: str) -> dict[str, Any]:
    return {"module": "shell", "module_args": script, "host_pattern": "one", "inventory": "hosts"}


def lay_out(service: Running) -> None:
    """Playbooks, and a checkout whose origin gets a commit now and then."""
    (service.playbooks / "play.yml").write_text(PLAYBOOK)
    (service.playbooks / "fail.yml").write_text(FAILING)
    git(service, service.root, "init", "-q", "-b", "main", "origin")
    git(service, service.root / "origin", "commit", "-q", "--allow-empty", "-m", "first")
    git(service, service.playbooks, "clone", "-q", str(service.root / "origin"), "checkout")


def git(service: Running, directory: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=soak", "-c", "user.email=soak@localhost"]
    subprocess.run(["git", *identity, *arguments], cwd=directory, env=service.environ, check=True)


def sample(service: Running, store: redis.Redis) -> dict[str, float]:
    """Every figure that must be level, by its name."""
    figures: dict[str, float] = {}
    for role, usage in usage_by_role(service.process.pid).items():
        if role in ROLES:
            figures[f"{role}: memory, MB (PSS)"] = usage.pss / 1024 / 1024
            figures[f"{role}: processes"] = usage.processes
            figures[f"{role}: threads"] = usage.threads
            figures[f"{role}: descriptors"] = usage.descriptors
    info: dict[str, Any] = store.info("memory")  # type: ignore[assignment]
    figures["Redis: used_memory, MB"] = info["used_memory"] / 1024 / 1024
    figures["Redis: keys"] = float(store.dbsize())  # type: ignore[arg-type]
    data = service.root / ".flansible"
    figures["data_dir: files"] = sum(1 for _ in data.rglob("*"))
    figures["data_dir: MB"] = sum(size for size in map(_size, data.rglob("*"))) / 1024 / 1024
    places = (service.root / "tmp", service.root / "home/.ansible/tmp")
    figures["temp directories: entries"] = sum(1 for place in places for _ in place.glob("*"))
    return figures


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


# How much above the second quarter's median the last quarter's may be: a share of it, and so many more. An append-only
# file grows until Redis rewrites it, at twice its size and not below 64 MB.
ALLOWED = {
    "memory": (0.05, 3.0),
    "used_memory": (0.10, 2.0),
    "keys": (0.10, 20.0),
    "descriptors": (0.0, 6.0),
    "threads": (0.0, 2.0),
    "processes": (0.0, 0.0),
    "files": (0.0, 3.0),
    "data_dir: MB": (1.0, 64.0),
    "entries": (0.0, 6.0),
}


@dataclass(frozen=True)
class Level:
    name: str
    first: float
    second: float
    last: float
    most: float

    @property
    def holds(self) -> bool:
        share, more = next(allowed for word, allowed in ALLOWED.items() if word in self.name)
        return self.last <= self.second * (1 + share) + more


def levels(samples: list[dict[str, float]]) -> list[Level]:
    """For each figure the medians of the first, second and last quarter of the samples."""
    quarter = max(1, len(samples) // 4)
    parts = (samples[:quarter], samples[quarter : 2 * quarter], samples[-quarter:])
    names = dict.fromkeys(name for part in parts for name in part[-1])
    return [
        Level(name, *(_median(part, name) for part in parts), max(found.get(name, 0.0) for found in samples))
        for name in names
    ]


def _median(samples: list[dict[str, float]], name: str) -> float:
    values = sorted(found[name] for found in samples if name in found)
    return values[len(values) // 2] if values else 0.0


def show(levels: list[Level], load: list[Load], minutes: float) -> None:
    seen = sum((part.seen for part in load), Counter[str]())
    print(f"{machine()}; {minutes:g} minutes of mixed load: {sum(seen.values())} actions\n")
    print(", ".join(f"{count} {name}" for name, count in seen.most_common()) + "\n")
    print("| | 1st quarter (warm-up) | 2nd quarter | last quarter | most | level |")
    print("|---|---|---|---|---|---|")
    for level in levels:
        figures = " | ".join(f"{value:.1f}".removesuffix(".0") for value in (level.first, level.second, level.last))
        most = f"{level.most:.1f}".removesuffix(".0")
        print(f"| {level.name} | {figures} | {most} | {'yes' if level.holds else '**no**'} |")


def left(service: Running) -> list[str]:
    """What is there when nothing runs any more."""
    found = []
    if usage := usage_by_role(service.process.pid).get("run"):
        found.append(f"{usage.processes} processes of runs")
    for place in (service.root / "tmp", service.root / "home/.ansible/tmp"):
        found += [str(path.relative_to(service.root)) for path in place.glob("*")]
    return found


@contextmanager
def users(service: Running, count: int, pause_seconds: float, seed: int) -> Iterator[list[Load]]:
    """Runs this many at once, each with its own connections, until the block ends."""
    stopped = threading.Event()
    loads = [Load(service, service.client(), random.Random(seed + number)) for number in range(count)]

    def work(load: Load) -> None:
        while not stopped.is_set():
            load.act()
            stopped.wait(load.chance.uniform(0.0, 2 * pause_seconds))
        load.client.close()

    threads = [threading.Thread(target=work, args=(load,), name="user") for load in loads]
    for thread in threads:
        thread.start()
    try:
        yield loads
    finally:
        stopped.set()
        for thread in threads:
            thread.join()


def gather(service: Running, store: redis.Redis, minutes: float) -> list[dict[str, float]]:
    """A sample every so often; once a minute the checkout's origin moves on."""
    samples: list[dict[str, float]] = []
    began = time.monotonic()
    while (elapsed := time.monotonic() - began) < minutes * 60:
        if len(samples) % int(60 / SAMPLE_SECONDS) == 0:
            git(service, service.root / "origin", "commit", "-q", "--allow-empty", "-m", f"{elapsed:.0f} s")
        samples.append(sample(service, store))
        print(f"{elapsed:6.0f} s {_short(samples[-1])}", file=sys.stderr, flush=True)
        time.sleep(SAMPLE_SECONDS)
    return samples


def _short(figures: dict[str, float]) -> str:
    words = ("web: memory", "worker: memory", "worker: descriptors", "Redis: keys", "entries")
    return ", ".join(f"{name} {value:.0f}" for name, value in figures.items() if any(word in name for word in words))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--users", type=int, default=4)
    parser.add_argument("--pause", type=float, default=1.0, help="seconds between two actions of a user, on average")
    parser.add_argument("--keep", type=int, default=100, help="finished tasks that are kept: reached in the warm-up")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    asked = parser.parse_args()
    print(f"seed {asked.seed}", file=sys.stderr)
    with running(**SETTINGS, retention_tasks=asked.keep) as service:
        lay_out(service)
        with redis.Redis(unix_socket_path=str(service.redis_socket)) as store:
            with users(service, asked.users, asked.pause, asked.seed) as loads:
                samples = gather(service, store, asked.minutes)
            time.sleep(SAMPLE_SECONDS)
            remains = left(service)
    found = levels(samples)
    show(found, loads, asked.minutes)
    wrong = [line for load in loads for line in load.wrong]
    for title, lines in (("Answered wrongly", wrong), ("Left when nothing ran any more", remains)):
        print(f"\n{title}: {len(lines)}" + "".join(f"\n- {line}" for line in lines))
    if wrong or remains or not all(level.holds for level in found):
        sys.exit(1)


if __name__ == "__main__":
    main()
