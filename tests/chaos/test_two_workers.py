"""Many playbooks queued at once on two workers, one of which is killed in the middle: each has one true end."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.chaos import arena as arenas
from tests.chaos.conftest import Scale
from tests.chaos.load import Job, Jobs, lines_of, marks
from tests.chaos.rounds import LOST_SECONDS, WORKER_DIED
from tests.helpers import process_tree, servers
from tests.helpers.ports import free_port
from tests.helpers.process_tree import Tree
from tests.helpers.services import ADMIN, flansible_environ
from tests.helpers.waiting import eventually

REDIS_PASSWORD = "word-for-redis"
RUNS_SIDE_BY_SIDE = 4


@contextmanager
def role(root: Path, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """`flansible web` or `flansible worker` by itself, as on a machine of its own."""
    with (root / f"{words[-1]}.log").open("wb") as log:
        process = subprocess.Popen(
            [str(Path(sys.executable).parent / "flansible"), *words],
            cwd=root,
            env=flansible_environ(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


def healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/api/health", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def submit_at_once(client: httpx.Client, jobs: list[Job]) -> dict[str, Job]:
    def submit(job: Job) -> tuple[str, Job]:
        reply = client.post(f"/api/{job.route}", json=job.body)
        assert reply.status_code == 202, reply.text
        return reply.json()["task_id"], job

    with ThreadPoolExecutor(8) as pool:
        return dict(pool.map(submit, jobs))


def tasks(client: httpx.Client) -> dict[str, dict[str, Any]]:
    reply = client.get("/api/ansibletasks?limit=1000").raise_for_status()
    return {task["task_id"]: task for task in reply.json()["tasks"]}


def final(client: httpx.Client) -> dict[str, dict[str, Any]]:
    return {task_id: task for task_id, task in tasks(client).items() if task["Status"] != "PROGRESS"}


@pytest.mark.parametrize("count", [20, pytest.param(200, marks=pytest.mark.nightly)])
def test_none_is_missing_or_run_twice_when_one_of_two_workers_is_killed(
    count: int, scale: Scale, tmp_path: Path
) -> None:
    chance = scale.chance("two workers")
    server = servers.redis(tmp_path, REDIS_PASSWORD)
    server.start()
    try:
        with arenas.place() as root:
            url = configure(root, server.port)
            with role(root, "web"), role(root, "worker", "--name", "a") as staying:
                with role(root, "worker", "--name", "b") as victim:
                    eventually(lambda: healthy(url), 60)
                    eventually(lambda: all("is ready" in (root / f"{name}.log").read_text() for name in "ab"), 30)
                    with httpx.Client(base_url=url, auth=ADMIN, timeout=60) as client:
                        jobs = Jobs(root, chance)
                        by_id = submit_at_once(client, [jobs.once() for _ in range(count)])
                        wanted = int(count * chance.uniform(0.25, 0.6))
                        eventually(lambda: len(final(client)) >= wanted, 10 * count)
                        of_victim = {seen.pid for seen in Tree().below(victim.pid)}
                        victim.kill()
                        killed_at = time.time()
                        lost_at = ends(client, count, killed_at)
                        found = tasks(client)
                        outputs = {task_id: output(client, task_id) for task_id in by_id}
                assert not [seen.line for seen in Tree().seen.values() if seen.pid in of_victim]
            check(root, by_id, found, outputs)
            assert 1 <= len(lost_at) <= RUNS_SIDE_BY_SIDE, f"CHAOS_SEED={scale.seed}: {lost_at}"
            assert max(lost_at.values()) <= LOST_SECONDS, f"CHAOS_SEED={scale.seed}: {lost_at}"
            assert staying.returncode == 0
    finally:
        server.stop()


def configure(root: Path, redis_port: int) -> str:
    port, redis = free_port(), f"redis://:{REDIS_PASSWORD}@127.0.0.1:{redis_port}"
    (root / "config.ini").write_text(
        f"[Default]\nFlask_tcp_port = {port}\nCELERY_BROKER_URL = {redis}/0\nCELERY_RESULT_BACKEND = {redis}/1\n"
        f"worker_concurrency = {RUNS_SIDE_BY_SIDE}\nlog_level = info\n"
    )
    return f"http://127.0.0.1:{port}"


def ends(client: httpx.Client, count: int, killed_at: float) -> dict[str, float]:
    """Waits for the end of all; how many seconds after the kill each lost one was seen to be final."""
    lost_at: dict[str, float] = {}
    give_up_at = time.monotonic() + 10 * count
    while len(found := final(client)) < count:
        for task_id, task in found.items():
            if task["state"] == "lost":
                lost_at.setdefault(task_id, time.time() - killed_at)
        assert time.monotonic() < give_up_at, Counter(task["state"] for task in tasks(client).values())
        time.sleep(0.2)
    for task_id, task in found.items():
        if task["state"] == "lost":
            lost_at.setdefault(task_id, time.time() - killed_at)
    return lost_at


def output(client: httpx.Client, task_id: str) -> str:
    return client.get(f"/api/ansibletaskoutput/{task_id}").raise_for_status().text


def check(root: Path, by_id: dict[str, Job], found: dict[str, dict[str, Any]], outputs: dict[str, str]) -> None:
    assert found.keys() == by_id.keys()
    problems = []
    for task_id, job in by_id.items():
        task, words = found[task_id], [mark.word for mark in marks(root, job.tag)]
        what = f"{task_id} ({job.tag}) is {task['state']}: {task['description']}; its marks are {words}"
        if words.count("begin") > 1 or words.count("end") > 1:
            problems.append(f"run twice: {what}")
        if task["state"] == "lost":
            if not re.search(WORKER_DIED, task["description"]):
                problems.append(f"the cause is not named: {what}")
        elif task["state"] != "succeeded" or words != ["begin", "end"]:
            problems.append(what)
        elif lines_of(outputs[task_id]) != {job.tag: [1]}:
            problems.append(f"its output is not whole: {what}: {outputs[task_id]}")
    process_tree.reap_orphans([])
    problems += [f"left in a temp directory: {name}" for name in arenas.temp_dirs(root)]
    if problems:
        pytest.fail("\n".join(problems), pytrace=False)
