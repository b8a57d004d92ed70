"""The list of tasks with 100,000 records: how long the API takes for a page of it, and the console until it is seen.

Starts a private service, fills its store through the store's own functions (each record is submitted, claimed, given
the results of a host, and ended), and asks as the console does: with one filter or another, one page of 50. A search
that finds little per page is asked on until the page is full, which is the column `a full page`. The console is a
Chromium with an empty profile each time, from the click on the address to the first row. Prints a Markdown table; ends
with 1 when a single answer took longer than the goal. Not part of the tests.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import statistics
import sys
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import islice, repeat
from multiprocessing import get_context

import httpx
from playwright.sync_api import Browser, sync_playwright

from benchmarks.service import ADMIN, Running, machine, running
from benchmarks.tables import judged, table
from flansible.models import About, AuthorizedRun, State, Step
from flansible.store import Batch, Claim, Progress, Store, StoredEvent

RECORDS = 100_000
PAGE = 50
GOAL_MS = 200.0
PROCESSES = 4
PER_PIECE = 1000
USERS = [f"user{number}" for number in range(20)]
PLAYBOOKS = [f"team{number % 10}/site{number}.yml" for number in range(100)]
HOSTS = [f"web{number}.example.org" for number in range(500)]
ENDS = [State.SUCCEEDED] * 17 + [State.FAILED] * 2 + [State.CANCELED]
_STEP = Step(program="ansible", argv=("--", "localhost"), cwd="/")
# What the console asks for. A rare word stands in one of 10,000 summaries, a rare playbook in one of 5,000.
RARE_WORD, RARE_PLAYBOOK, RARE_HOST = "needle", "rare/once.yml", "rare.example.org"
QUERIES: dict[str, dict[str, str]] = {
    "everything": {},
    "one state": {"state": "failed"},
    "one user": {"user": USERS[7]},
    "one user's failed": {"user": USERS[7], "state": "failed"},
    "one kind": {"kind": "playbook"},
    "a common word": {"text": "site1"},
    "a rare word": {"text": RARE_WORD},
    "a word that is nowhere": {"text": "no such word"},
    "one playbook": {"playbook": PLAYBOOKS[7]},
    "a rare playbook": {"playbook": RARE_PLAYBOOK},
    "one host": {"host": HOSTS[7]},
    "a rare host": {"host": RARE_HOST},
}
# From the navigation to the first row, whatever happens in between.
_WATCH_FOR_ROWS = """
window.rowsShown = new Promise((resolve) => {
  new MutationObserver((_, observer) => {
    if (!document.querySelector(".task-body .task")) return;
    observer.disconnect();
    requestAnimationFrame(() => setTimeout(() => resolve(performance.now())));
  }).observe(document, { childList: true, subtree: true });
});
"""


@dataclass
class Answers:
    """Of one query. singles: each answer; whole: until a page was full or the list at its end. Milliseconds."""

    singles: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    found: int = 0


def fill(service: Running, count: int) -> float:
    """Seconds that it took."""
    url = f"redis+socket://{service.redis_socket}"
    began = time.perf_counter()
    pieces = range(0, count, PER_PIECE)
    sizes = [min(PER_PIECE, count - first) for first in pieces]
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
        for done, _ in enumerate(pool.map(_fill_piece, repeat(url), pieces, sizes), 1):
            print(f"\r{done * PER_PIECE:,} records", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return time.perf_counter() - began


def _fill_piece(url: str, first: int, count: int) -> None:
    store = Store(url)
    chance = random.Random(first)
    for number in range(first, first + count):
        _record(store, number, chance)
    store.close()


def _record(store: Store, number: int, chance: random.Random) -> None:
    user, host = chance.choice(USERS), RARE_HOST if number % 5000 == 77 else chance.choice(HOSTS)
    if number % 3:
        playbook = RARE_PLAYBOOK if number % 5000 == 88 else chance.choice(PLAYBOOKS)
        kind, about = "playbook", About(playbook=playbook, inventory="inventories/prod")
        summary = f"{user}: playbook {playbook} in /srv/playbooks"
    else:
        word = RARE_WORD if number % 10_000 == 99 else "ping"
        kind, about = "adhoc", About(module=word, hosts="all", inventory="inventories/prod")
        summary = f"{user}: adhoc {word} on all"
    values = {"kind": kind, "user": user, "summary": summary, "steps": (_STEP,), "about": about}
    task_id = str(uuid.UUID(int=chance.getrandbits(128), version=4))
    store.submit(task_id, AuthorizedRun.model_validate(values))
    claim = store.claim(task_id, "benchmark")
    assert isinstance(claim, Claim)
    verdict = chance.choice(("ok", "ok", "changed"))
    event = {"event": "host_result", "host": host, "verdict": verdict, "output_start": 0, "output_end": 0}
    store.append(task_id, claim.token, Batch(Progress(), b"", (StoredEvent(json.dumps(event), host, verdict=verdict),)))
    store.settle(task_id, chance.choice(ENDS), "it ended", 0)


def ask(client: httpx.Client, filters: dict[str, str], answers: Answers) -> None:
    """As the console does, until a page is full."""
    missing, before = PAGE, None
    began = time.perf_counter()
    while missing and (before is not None or missing == PAGE):
        asked: dict[str, str | int] = {**filters, "limit": missing}
        if before is not None:
            asked["before"] = before
        sent = time.perf_counter()
        page = client.get("/api/ansibletasks", params=asked).raise_for_status().json()
        answers.singles.append((time.perf_counter() - sent) * 1000)
        missing -= len(page["tasks"])
        before = page["next_before"]
        if before is None:
            break
    answers.whole.append((time.perf_counter() - began) * 1000)
    answers.found = PAGE - missing


def measure(service: Running, rounds: int) -> dict[str, Answers]:
    found = {name: Answers() for name in QUERIES}
    with service.client() as client:
        for _ in range(3):
            ask(client, {}, Answers())  # connections, the password's digest
        for _ in range(rounds):
            for name, filters in QUERIES.items():
                ask(client, filters, found[name])
    return found


def first_rows(service: Running, browser: Browser) -> Iterator[float]:
    """Milliseconds from the address to the first row painted; a fresh profile each time."""
    while True:
        context = browser.new_context(viewport={"width": 1280, "height": 800})
        context.add_init_script(_WATCH_FOR_ROWS)
        page = context.new_page()
        reply = page.request.post(f"{service.url}/api/session", data={"user": ADMIN[0], "password": ADMIN[1]})
        if not reply.ok:
            sys.exit(f"the console's login was refused: {reply.text()}")
        page.goto(f"{service.url}/#/tasks")
        yield page.evaluate("window.rowsShown")
        context.close()


def show(found: dict[str, Answers]) -> bool:
    """Whether every single answer came in time."""
    rows = []
    for name, answers in found.items():
        worst = max(answers.singles)
        rows.append(
            [
                name,
                f"{answers.found}",
                f"{statistics.median(answers.singles):.0f}",
                judged(worst, GOAL_MS, f"{worst:.0f}"),
                f"{len(answers.singles) / len(answers.whole):.0f}",
                f"{statistics.median(answers.whole):.0f}",
            ]
        )
    print(table(["asked for", "tasks", "answer (ms)", "worst (ms)", "answers", "a full page (ms)"], rows))
    return all(max(answers.singles) <= GOAL_MS for answers in found.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=RECORDS)
    parser.add_argument("--rounds", type=int, default=20)
    given = parser.parse_args()
    chromium = shutil.which("chromium")
    if chromium is None:
        sys.exit("this benchmark needs chromium: apt-get install chromium")
    with running() as service:
        seconds = fill(service, given.records)
        print(f"{machine()}; {given.records:,} records, filled in {seconds:.0f} s\n")
        in_time = show(measure(service, given.rounds))
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=chromium, args=["--no-sandbox", "--disable-dev-shm-usage"]
            )
            shown = list(islice(first_rows(service, browser), given.rounds))
            browser.close()
    print(
        f"The console shows the first row {statistics.median(shown):.0f} ms after it was opened with an empty profile "
        f"(worst {max(shown):.0f})."
    )
    if not in_time:
        sys.exit(1)


if __name__ == "__main__":
    main()
