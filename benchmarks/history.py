"""The history database with a million tasks: time of a list, a status, a search, on SQLite and on PostgreSQL.

Fills a database by the archiver's own functions, many tasks in a transaction (`history_rows.py`), starts `flansible up`
on it, and asks over HTTP as the console does. Prints a table as Markdown, and with --write puts it into
docs/performance.md. Ends with 1 when a median is over its goal. The PostgreSQL server is that of the tests, with memory
as a server has it.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import redis

from benchmarks.history_rows import NEEDLE, PLAYBOOKS, RARE_CODE, USERS, fill
from benchmarks.service import Running, machine, running
from benchmarks.tables import TOP, judged, put, table
from flansible.history.database import Database
from flansible.history.migrate import migrate
from tests.helpers.postgresql import PostgresqlServer

GOAL_MS, READY_GOAL_SECONDS, REDIS_GOAL_MB = 50.0, 3.0, 10.0
MB = 1e6
_SERVER = {"shared_buffers": "256MB", "maintenance_work_mem": "256MB", "max_wal_size": "4GB", "autovacuum": "on"}
PATIENT = 600.0
# What is asked, and how many it finds; None: a full page.
QUERIES: dict[str, tuple[str, int | None]] = {
    "first page of the list": ("/api/ansibletasks", None),
    "page 10,000 tasks further": ("/api/ansibletasks?before={middle}", None),
    "one state": ("/api/ansibletasks?state=failed", None),
    "one user": (f"/api/ansibletasks?user={USERS[7]}", None),
    "one user, one playbook": (f"/api/ansibletasks?user={USERS[7]}&playbook={PLAYBOOKS[7]}", None),
    "a rare exit code": (f"/api/ansibletasks?returncode={RARE_CODE}", 10),
    "a common text": ("/api/ansibletasks?text=site1", None),
    "a text that is nowhere": ("/api/ansibletasks?text=no%20such%20text", 0),
    "tasks of one host": ("/api/ansibletasks?host=web7.example.org", None),
    "all hosts": ("/api/hosts", None),
    "one host's page": ("/api/hosts/web7.example.org", None),
    "one task's status": ("/api/ansibletaskstatus/{task}", 1),
    "one task's output": ("/api/ansibletaskoutput/{task}", 1),
    "search: ten failures": (f"/api/search?q={NEEDLE}", 10),
    "search: ten lines of output": (f"/api/search?in=output&q={NEEDLE}", 10),
    "search: a common word": ("/api/search?q=site1", None),
    "search: a host and a playbook": ("/api/search?q=web7.example.org+{playbook}", None),
    "search: a word that is nowhere": ("/api/search?q=nosuchword", 0),
}


@dataclass
class Answers:
    """Of one query: milliseconds of each answer, and how many it had."""

    singles: list[float] = field(default_factory=list)
    found: int = 0


@dataclass
class Result:
    """Of one database."""

    fill_seconds: float
    bytes: int
    ready_seconds: float
    redis_mb: float
    answers: dict[str, Answers]


def measure(service: Running, rounds: int, task_id: str, count: int) -> dict[str, Answers]:
    found = {name: Answers() for name in QUERIES}
    words = {"task": task_id, "middle": max(1, count - 10_000), "playbook": PLAYBOOKS[7]}
    with service.client() as client:
        for _ in range(3):
            client.get("/api/ansibletasks").raise_for_status()  # connections, the password's digest
        for _ in range(rounds):
            for name, (path, expected) in QUERIES.items():
                _ask(client, path.format(**words), expected, found[name])
    return found


def _ask(client: httpx.Client, path: str, expected: int | None, answers: Answers) -> None:
    began = time.perf_counter()
    reply = client.get(path)
    answers.singles.append((time.perf_counter() - began) * 1000)
    reply.raise_for_status()
    document = reply.json() if "json" in reply.headers["Content-Type"] else {}
    listed = [found for name in ("tasks", "hits", "hosts") if isinstance(found := document.get(name), list)]
    answers.found = len(listed[0]) if listed else 1
    if expected is not None and answers.found != expected and document.get("next_before") is None:
        sys.exit(f"{path} found {answers.found}, not {expected}")


def redis_bytes(service: Running, folder: Path) -> int:
    client = redis.Redis(unix_socket_path=str(folder / "redis.sock"))
    with contextlib.closing(client):
        return int(client.info("memory")["used_memory"])


def with_sqlite(count: int, rounds: int, folder: Path) -> Result:
    data = folder / "sqlite"
    data.mkdir(mode=0o700)
    url = f"sqlite:///{data}/history.sqlite3"
    seconds, task_id = _filled(url, count)
    size = sum(path.stat().st_size for path in data.iterdir())
    return _served(count, rounds, task_id, seconds, size, data, {})


def with_postgresql(count: int, rounds: int, folder: Path) -> Result:
    server = PostgresqlServer()
    try:
        server.start(**_SERVER)
        url = server.url(name := server.new_database())
        seconds, task_id = _filled(url, count)
        with server._connect(name) as connection:
            row = connection.execute("SELECT pg_database_size(current_database())").fetchone()
        assert row is not None
        data = folder / "postgresql"
        data.mkdir(mode=0o700)
        return _served(count, rounds, task_id, seconds, int(row[0]), data, {"DATABASE_URL": url})
    finally:
        server.remove()


def _filled(url: str, count: int) -> tuple[float, str]:
    database = Database(url, PATIENT)
    try:
        migrate(database)
        began = time.perf_counter()
        task_id = fill(database, count)
        return time.perf_counter() - began, task_id
    finally:
        database.close()


def _served(
    count: int, rounds: int, task_id: str, seconds: float, size: int, data: Path, settings: dict[str, str]
) -> Result:
    with running(data_dir=data / "empty") as service:
        empty = redis_bytes(service, data / "empty")
    with running(data_dir=data, **settings) as service:
        answers = measure(service, rounds, task_id, count)
        used = redis_bytes(service, data)
        return Result(seconds, size, service.ready_seconds, (used - empty) / MB, answers)


def show(count: int, results: dict[str, Result]) -> str:
    head = ["what", *(f"{name} (ms)" for name in results), "goal"]
    rows = []
    for name in QUERIES:
        cells = []
        for result in results.values():
            times = result.answers[name].singles
            middle = statistics.median(times)
            cells.append(f"{judged(middle, GOAL_MS, f'{middle:.1f}')} (worst {max(times):.0f})")
        rows.append([name, *cells, f"{GOAL_MS:.0f}"])
    figures: list[tuple[str, Callable[[Result], str], str]] = [
        ("to fill", lambda one: f"{one.fill_seconds / 60:.1f} min", "20 min"),
        ("size", lambda one: f"{one.bytes / 1e9:.2f} GB", "5 GB"),
        ("`flansible up` is ready", lambda one: f"{one.ready_seconds:.1f} s", f"{READY_GOAL_SECONDS:.0f} s"),
        ("Redis' memory above empty", lambda one: f"{one.redis_mb:.1f} MB", f"{REDIS_GOAL_MB:.0f} MB"),
    ]
    rows += [[name, *(shown(one) for one in results.values()), goal] for name, shown, goal in figures]
    return f"{machine()}. {count:,} tasks.\n\n{table(head, rows)}"


def misses(results: dict[str, Result]) -> Iterator[str]:
    for name, result in results.items():
        for query, answers in result.answers.items():
            if statistics.median(answers.singles) > GOAL_MS:
                yield f"{name}: {query}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", choices=["SQLite", "PostgreSQL"])
    parser.add_argument("--write", action="store_true", help="put the table into docs/performance.md")
    given = parser.parse_args()
    kinds = {"SQLite": with_sqlite, "PostgreSQL": with_postgresql}
    folder = Path(tempfile.mkdtemp(prefix="flansible-history-"))
    try:
        results = {
            name: run(given.tasks, given.rounds, folder) for name, run in kinds.items() if given.only in (None, name)
        }
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    text = show(given.tasks, results)
    print(text)
    if given.write:
        put(TOP / "docs/performance.md", "make bench-history", text)
    if missed := list(misses(results)):
        sys.exit(f"over {GOAL_MS:.0f} ms: {', '.join(missed)}")


if __name__ == "__main__":
    main()
