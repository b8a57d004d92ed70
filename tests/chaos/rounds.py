"""One round: a load, a fault at a random moment of it, and everything that must hold afterwards."""

from __future__ import annotations

import itertools
import math
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any

import httpx
import psutil

from tests.chaos.arena import Arena
from tests.chaos.load import Job, Jobs, Mark, Submission, Submitter, lines_of, marks
from tests.helpers import process_tree
from tests.helpers.process_tree import Seen
from tests.helpers.services import ADMIN

WORKER_DIED = r"worker .*(died|stopped|killed|ended|gone|restarted)"
LOST_SECONDS = 15.0  # from the service being back until what died with it is final
FINISH_SECONDS = 120.0  # until everything that was not touched has come to its end
_GRACE_SECONDS = 0.7  # between a task being final and the last of its processes being gone
_TICK_SECONDS = 0.1
_LONG_OUTAGE_SECONDS = 15.0


class Touches(Enum):
    """Which tasks a fault may end."""

    NONE = "none: every run goes on"
    ONE = "the one whose process was killed"
    RUNNING = "those that ran"


@dataclass(frozen=True)
class Struck:
    """What a fault did, when, and until when something was away; for Touches.ONE the keeper of the run it met."""

    at: float
    until: float
    pids: tuple[int, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Fault:
    """strike(arena, chance, away_seconds) does it and returns once what was away may come back."""

    name: str
    strike: Callable[[Arena, random.Random, float], Struck]
    touches: Touches
    cause: str = ""  # regular expression of the description of a task it ended
    ends_as: tuple[str, ...] = ("lost",)  # the states of a task it ended
    too_late: bool = False  # what is killed may have done its part: then its run goes on
    web_away: bool = False  # nobody may be there to answer a submission
    up_ends: bool = False


@dataclass
class Watch:
    """Sees when each task becomes final, and whether processes of it are still there then."""

    arena: Arena
    submissions: list[Submission]
    final_at: dict[str, float] = field(default_factory=dict)
    latest: dict[str, dict[str, Any]] = field(default_factory=dict)
    unsupervised: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._client = httpx.Client(base_url=self.arena.service.url, auth=ADMIN, timeout=15)
        self._stopped = threading.Event()
        self._before = self._ask() or {}
        self._thread = threading.Thread(target=self._watch, name="watch")
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()
        self._client.close()

    def all_final(self) -> bool:
        return all(task["Status"] != "PROGRESS" for task in self.latest.values())

    def _watch(self) -> None:
        reported = set[str]()
        while not self._stopped.wait(_TICK_SECONDS):
            self.latest = self._ask() or self.latest
            for task_id, task in self.latest.items():
                if task["Status"] != "PROGRESS":
                    self.final_at.setdefault(task_id, time.time())
            due = {
                job.number: task_id
                for task_id, job in _by_id(self.submissions).items()
                if task_id not in reported and time.time() - self.final_at.get(task_id, time.time()) > _GRACE_SECONDS
            }
            for number, lines in process_tree.processes_naming(due).items():
                task_id = due[number]
                self.unsupervised.append(f"{task_id} is {self.latest[task_id]['state']}, yet: {'; '.join(lines)}")
            reported.update(due.values())

    def _ask(self) -> dict[str, dict[str, Any]] | None:
        try:
            tasks = self.arena.tasks(self._client)
        except httpx.HTTPError:
            return None
        before = getattr(self, "_before", {})
        return {task_id: task for task_id, task in tasks.items() if task_id not in before}


@dataclass
class Figures:
    """What a round adds to the table at the end."""

    tasks: int = 0
    lost: int = 0
    refused: int = 0
    lines: int = 0
    back_seconds: float = 0.0
    lost_seconds: float = 0.0


@dataclass
class Round:
    """Played once; `violations` says what did not hold."""

    arena: Arena
    fault: Fault
    chance: random.Random
    away_seconds: float
    large: bool  # whether there is time for a large load
    figures: Figures = field(default_factory=Figures)
    violations: list[str] = field(default_factory=list)
    _submissions: list[Submission] = field(default_factory=list)
    _ended: set[str] = field(default_factory=set)  # the tasks that the fault brought to their end

    def play(self) -> None:
        arena, chance = self.arena, self.chance
        # Each with a chance of its own: they are asked from several threads, and a seed must give the same round.
        jobs, probes = (Jobs(arena.root, random.Random(chance.random()), self.large) for _ in range(2))
        pauses, probe_pauses = (random.Random(chance.random()) for _ in range(2))
        up_before = arena.up
        submitter = Submitter(arena.service.url)
        self._submissions = submitter.submissions
        watch = Watch(arena, submitter.submissions)
        try:
            first = [jobs.any() for _ in range(10 if self.large else 3)]
            if self.away_seconds > _LONG_OUTAGE_SECONDS:
                first.insert(0, jobs.flood(pages=10, each=60_000, pause=1.0))
            submitter.keep_sending(iter(first), _pauses(pauses, 0.02, 0.3))
            time.sleep(chance.uniform(0.3, 4.0 if self.large else 1.5))
            read_before = self._read_outputs(watch)
            submitter.keep_sending(iter(probes.short, None), _pauses(probe_pauses, 0.3, 1.5 if self.large else 2.5))
            struck = self.fault.strike(arena, chance, self.away_seconds)
            back_at = struck.until if self.fault.touches is Touches.ONE else arena.await_back()
            submitter.stop()
            afterwards = [
                submitter.send(job) for job in ((jobs.short(), jobs.counting()) if self.large else (jobs.short(),))
            ]
            submitter.stop()
            self._await_end(watch)
        finally:
            watch.stop()
            submitter.close()
        self._describe(struck, back_at, watch)
        self._check_answers(struck, back_at, afterwards)
        self._check_states(struck, back_at, watch)
        self._check_records(watch, read_before)
        self._check_going_on(struck)
        self.violations += watch.unsupervised
        self.violations += arena.left_behind()
        if not self.fault.up_ends and (arena.up != up_before or arena.service.process.poll() is not None):
            self.violations.append("`flansible up` itself has ended")

    def _read_outputs(self, watch: Watch) -> dict[str, bytes]:
        """What the service has promised to have, just before the fault."""
        found = {}
        with httpx.Client(base_url=self.arena.service.url, auth=ADMIN, timeout=15) as client:
            for task_id in list(watch.latest):
                found[task_id] = client.get(f"/api/ansibletaskoutput/{task_id}").raise_for_status().content
        return found

    def _await_end(self, watch: Watch) -> None:
        """Until every task is final, and was for a moment."""
        give_up_at = time.monotonic() + FINISH_SECONDS
        accepted = _by_id(self._submissions).keys()
        while time.monotonic() < give_up_at:
            if accepted <= watch.latest.keys() and watch.all_final():
                break
            time.sleep(_TICK_SECONDS)
        time.sleep(_GRACE_SECONDS + 0.3)

    def _describe(self, struck: Struck, back_at: float, watch: Watch) -> None:
        figures = self.figures
        figures.tasks = len(watch.latest)
        figures.lost = sum(task["state"] == "lost" in self.fault.ends_as for task in watch.latest.values())
        figures.refused = sum(item.code == 503 for item in self._submissions)
        figures.back_seconds = back_at - struck.until

    def _check_answers(self, struck: Struck, back_at: float, afterwards: list[Submission]) -> None:
        for item in self._submissions:
            during = item.answered_at >= struck.at and item.sent_at <= back_at
            if item in afterwards and item.code != 202:
                self._say(f"submitted after the service was back: {item.code} {item.error}")
            elif item.code is None and not (self.fault.web_away and during):
                took = item.answered_at - item.sent_at
                self._say(f"no answer to a submission after {took:.1f} s: {item.error}")
            elif item.code not in (None, 202, 503):
                self._say(f"a submission was answered {item.code}: {item.error}")
            elif item.code == 503 and not during:
                self._say(f"503 while nothing was away: {item.error}")
            if item.code == 503 and marks(self.arena.root, item.job.tag):
                self._say(f"{item.job.tag} was answered 503 ({item.error}), and was executed all the same")

    def _check_states(self, struck: Struck, back_at: float, watch: Watch) -> None:
        by_id = _by_id(self._submissions)
        for task_id in by_id.keys() - watch.latest.keys():
            self._say(f"{task_id} was answered 202 and is not in the list of tasks")
        for task_id, task in watch.latest.items():
            job = by_id.get(task_id)
            what = f"{task_id} ({job.tag if job else 'its answer was lost'}) is {task['state']}: {task['description']}"
            if task["Status"] == "PROGRESS":
                self._say(f"{what}, {time.time() - back_at:.0f} s after the service was back")
            elif task["state"] in self.fault.ends_as and self._was_ended(task, job):
                self._ended.add(task_id)
                self._check_ended(what, task, struck, back_at, watch.final_at[task_id])
            elif task["state"] != (job.state if job else "succeeded"):
                self._say(what)
        self._check_victim(struck, watch)

    def _was_ended(self, task: dict[str, Any], job: Job | None) -> bool:
        """Whether it was the fault that brought about this state, which may be the one the job was made for."""
        return job is None or task["state"] != job.state or not self._has_ended(job)

    def _hit(self, struck: Struck, job: Job) -> bool:
        return any(pid in mark.pids for mark in marks(self.arena.root, job.tag) for pid in struck.pids)

    def _has_ended(self, job: Job) -> bool:
        return _last(marks(self.arena.root, job.tag), "end") > 0.0

    def _check_ended(self, what: str, task: dict[str, Any], struck: Struck, back_at: float, final_at: float) -> None:
        if self.fault.touches is Touches.NONE:
            self._say(f"{what}; runs should have gone on")
            return
        if not re.search(self.fault.cause, task["description"]):
            self._say(f"{what}; the cause ({self.fault.cause}) is not named")
        late = final_at - back_at
        self.figures.lost_seconds = max(self.figures.lost_seconds, late)
        if late > LOST_SECONDS:
            self._say(f"{what}; seen {late:.1f} s after the service was back")
        if task["started_at"] is None:
            self._say(f"{what}; it had never started")
        elif self.fault.touches is Touches.RUNNING and _moment(task["started_at"]) > struck.until + 0.5:
            self._say(f"{what}; it started {_moment(task['started_at']) - struck.at:.1f} s after the fault")

    def _check_victim(self, struck: Struck, watch: Watch) -> None:
        """What was killed must not be called a success, and nobody else's run must be touched."""
        if self.fault.touches is not Touches.ONE:
            return
        if len(self._ended) > 1:
            self._say(f"one process was killed ({struck.note}), and {len(self._ended)} tasks ended: {self._ended}")
        for task_id, job in _by_id(self._submissions).items():
            hit, found = self._hit(struck, job), marks(self.arena.root, job.tag)
            went_on = hit and task_id not in self._ended and _last(found, "end") > struck.at + 0.2
            if went_on and not self.fault.too_late:
                self._say(f"{task_id} ({job.tag}) went on to its end though its process was killed: {struck.note}")
            if task_id in self._ended and not hit and any(mark.at < struck.at for mark in found):
                self._say(f"{task_id} ({job.tag}) was ended, and it was not its process: {struck.note}")

    def _check_records(self, watch: Watch, read_before: dict[str, bytes]) -> None:
        """No line missing, none twice, none out of order; nothing executed twice."""
        by_id = _by_id(self._submissions)
        with httpx.Client(base_url=self.arena.service.url, auth=ADMIN, timeout=60) as client:
            for task_id, task in watch.latest.items():
                output = client.get(f"/api/ansibletaskoutput/{task_id}").raise_for_status().content
                if not output.startswith(read_before.get(task_id, b"")):
                    self._say(f"{task_id}: its output before the fault is not the beginning of its output now")
                job = by_id.get(task_id)
                if job:
                    self._check_lines(task, job, output)
                self._check_events(client, task, len(output))
        for item in self._submissions:
            self._check_marks(item, watch.latest.get(str(item.task_id)))

    def _check_lines(self, task: dict[str, Any], job: Job, output: bytes) -> None:
        what = f"{task['task_id']} ({job.tag}, {task['state']})"
        if b"\0" in output:
            self._say(f"{what}: {output.count(0)} zero bytes in its output, first at {output.index(0)}")
        found = lines_of(output.decode(errors="replace"))
        for name in found.keys() - job.lines.keys():
            self._say(f"{what}: lines of {name} in its output")
        for name, count in job.lines.items():
            numbers = found.get(name, [])
            self.figures.lines += len(numbers)
            wanted = len(numbers) if task["task_id"] in self._ended else count
            if numbers != list(range(1, wanted + 1)):
                self._say(f"{what}: {wanted} lines of {name} expected, stored: {_ranges(numbers)}")

    def _check_events(self, client: httpx.Client, task: dict[str, Any], output_bytes: int) -> None:
        """Numbered without a gap, within the output, and the last one is final."""
        what, events, page = (
            f"{task['task_id']} ({task['state']})",
            [],
            {"next_after": 0, "final": False, "events": [1]},
        )
        while not page["final"] and page["events"]:
            url = f"/api/ansibletaskevents/{task['task_id']}?after={page['next_after']}"
            page = client.get(url).raise_for_status().json()
            events += page["events"]
        if [event["seq"] for event in events] != list(range(1, len(events) + 1)):
            self._say(f"{what}: the numbers of its events are {_ranges([event['seq'] for event in events])}")
        if missing := [event for event in events if event["event"] == "missing"]:
            self._say(f"{what}: events are missing: {missing}")
        if beyond := [event for event in events if event["output_end"] > output_bytes]:
            self._say(
                f"{what}: it has {output_bytes} bytes of output, and this event is beyond: {str(beyond[0])[:300]}"
            )
        ends = [event["state"] for event in events if event["event"] == "final"]
        wanted = [] if task["Status"] == "PROGRESS" else [task["state"]]
        if ends != wanted or (ends and events[-1]["event"] != "final"):
            self._say(f"{what}: its final events are {ends}, the last of all is {events[-1:]}")

    def _check_marks(self, item: Submission, task: dict[str, Any] | None) -> None:
        words = [mark.word for mark in marks(self.arena.root, item.job.tag) if mark.word != "beat"]
        if words.count("begin") > 1 or words.count("end") > 1:
            self._say(f"{item.job.tag} was executed more than once: {words}")
        if task and item.task_id not in self._ended and task["Status"] != "PROGRESS" and words != ["begin", "end"]:
            self._say(f"{item.task_id} ({item.job.tag}) is {task['state']}, and its marks are {words}")

    def _check_going_on(self, struck: Struck) -> None:
        """A run does not wait for what is away: during an outage too it goes from mark to mark."""
        if self.fault.touches is not Touches.NONE or self.away_seconds <= _LONG_OUTAGE_SECONDS:
            return
        for item in self._submissions:
            found = marks(self.arena.root, item.job.tag)
            moments = [mark.at for mark in found] + [math.inf] * (not _last(found, "end"))
            for since, until in itertools.pairwise(moments):
                if min(until, struck.until) - max(since, struck.at) > _LONG_OUTAGE_SECONDS:
                    waited = min(until, struck.until) - since
                    self._say(f"{item.job.tag} made no step for {waited:.0f} s until the outage was over")

    def _say(self, what: str) -> None:
        self.violations.append(what)


def _pauses(chance: random.Random, low: float, high: float) -> Iterator[float]:
    return iter(lambda: chance.uniform(low, high), None)


def _by_id(submissions: list[Submission]) -> dict[str, Job]:
    return {item.task_id: item.job for item in list(submissions) if item.task_id}


def _last(found: list[Mark], word: str) -> float:
    return max((mark.at for mark in found if mark.word == word), default=0.0)


def _moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _ranges(numbers: list[int]) -> str:
    """1-5, 9-10: short however many."""
    found = []
    for _, group in itertools.groupby(enumerate(numbers), lambda pair: pair[1] - pair[0]):
        run = [number for _, number in group]
        found.append(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]))
    return ", ".join(found[:12]) + (f" … ({len(numbers)} in all)" if len(found) > 12 else "") or "none"


def struck_now(victims: list[Seen | psutil.Process], note: str) -> Struck:
    """Kill them at once."""
    at = time.time()
    process_tree.kill(victims)
    return Struck(at, time.time(), tuple(victim.pid for victim in victims), note)
