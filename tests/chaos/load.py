"""A mixed load whose every line can be counted, and a record of what became of each submission.

Each job has a number of its own. It stands in every line the job prints, in the name of the file it writes its marks
to, and in the seconds it sleeps, so that lines, executions and processes can be told apart afterwards.
"""

from __future__ import annotations

import itertools
import random
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.helpers.services import ADMIN, write

ANSWER_SECONDS = 25.0  # longer than that no submission may hang
_LINE = re.compile(r"line ([a-z]\d+(?:-\w+)?) (\d+) \.")

# Appends a word, the time, and the process ids from this shell up to the run's keeper and beyond.
MARK = """\
#!/bin/sh
p=$$ chain=
while [ "${p:-0}" -gt 1 ]; do
  chain="$chain $p"
  while read -r key value _; do [ "$key" = PPid: ] && break; done </proc/$p/status || break
  p=$value
done
echo "$2 $(date +%s.%N)$chain" >>"$(dirname "$0")/marks/$1"
"""
COUNT = """\
- hosts: all
  gather_facts: false
  tasks:
    - name: Begin
      ansible.builtin.shell: "{{ mark }} {{ tag }} begin"
      run_once: true
    - name: Count
      ansible.builtin.debug:
        msg: "line {{ tag }}-{{ inventory_hostname }} {{ item }} ."
      loop: "{{ range(1, count + 1) | list }}"
      loop_control: {pause: "{{ pause }}", label: ""}
    - name: Write
      ansible.builtin.copy:
        content: "{{ tag }}"
        dest: "{{ mark | dirname }}/written/{{ tag }}-{{ inventory_hostname }}"
      when: writes
    - name: End
      ansible.builtin.shell: "sleep {{ seconds }}; {{ mark }} {{ tag }} end"
      run_once: true
    - name: Break
      ansible.builtin.command: "false"
      when: breaks
"""
ONCE = """\
- hosts: one
  gather_facts: false
  tasks:
    - name: All of it
      ansible.builtin.shell: >-
        {{ mark }} {{ tag }} begin; echo line {{ tag }} 1 .; sleep {{ seconds }}; {{ mark }} {{ tag }} end
      register: it
    - name: Show
      ansible.builtin.debug: var=it.stdout
"""
FLOOD = """\
- hosts: one
  gather_facts: false
  vars:
    text: line {{ tag }}-one \\1 .
    nothing: "{{ lookup('ansible.builtin.pipe', mark ~ ' ' ~ tag ~ ' beat') }}"
  tasks:
    - name: Begin
      ansible.builtin.shell: "{{ mark }} {{ tag }} begin"
    - name: Flood
      ansible.builtin.debug:
        msg: >-
          {{ range(item * each + 1, item * each + each + 1) | map('regex_replace', '^(.*)$', text) + (nothing | list) }}
      loop: "{{ range(0, pages) | list }}"
      loop_control: {pause: "{{ pause }}", label: ""}
    - name: End
      ansible.builtin.shell: "{{ mark }} {{ tag }} end"
"""


def lay_out_load(root: Path) -> None:
    local = 'ansible_connection=local ansible_python_interpreter="{{ ansible_playbook_python }}"'
    write(root / "inventories/one", f"one {local}\n")
    write(root / "inventories/two", f"one {local}\ntwo {local}\n")
    write(root / "playbooks/count.yml", COUNT)
    write(root / "playbooks/flood.yml", FLOOD)
    write(root / "playbooks/once.yml", ONCE)
    write(root / "mark", MARK).chmod(0o755)
    (root / "marks").mkdir()
    (root / "written").mkdir()


@dataclass(frozen=True)
class Job:
    """One thing to run, and what it prints when nothing happens to it: for each name the lines from 1 to a number."""

    tag: str
    number: str
    route: str
    body: dict[str, Any]
    lines: dict[str, int]
    state: str = "succeeded"


_numbers = itertools.count(random.SystemRandom().randrange(100_000, 900_000))


class Jobs:
    """Makes jobs of every kind, in an order and with sizes that follow from `chance`; `large` when there is time."""

    def __init__(self, root: Path, chance: random.Random, large: bool = True) -> None:
        self._root = root
        self._chance = chance
        self._large = large

    def any(self) -> Job:
        kinds = [self.counting, self.counting, self.adhoc, self.burst]
        if self._large:
            kinds += [self.on_two_hosts, self.breaking]
        return self._chance.choice(kinds)()

    def counting(self, hosts: tuple[str, ...] = ("one",), breaks: bool = False) -> Job:
        count, number = self._chance.randrange(5, 40), f"{next(_numbers):06d}"
        variables = {
            "count": count,
            "pause": round(self._chance.uniform(0.01, 0.05), 3),
            "seconds": f"{self._seconds()}.{number}",
            "breaks": breaks,
            "writes": len(hosts) > 1,
        }
        tag = ("f" if breaks else "c") + number
        lines = {f"{tag}-{host}": count for host in hosts}
        state = "failed" if breaks else "succeeded"
        inventory = "two" if len(hosts) > 1 else "one"
        return self._playbook(tag, number, "count.yml", inventory, variables, lines, state)

    def on_two_hosts(self) -> Job:
        return self.counting(("one", "two"))

    def breaking(self) -> Job:
        return self.counting(breaks=True)

    def once(self) -> Job:
        """A short playbook."""
        number = f"{next(_numbers):06d}"
        seconds = f"{self._chance.choice((0, 0, 0, 1))}.{number}"
        return self._playbook(f"o{number}", number, "once.yml", "one", {"seconds": seconds}, {f"o{number}": 1})

    def flood(self, pages: int, each: int, pause: float) -> Job:
        number = f"{next(_numbers):06d}"
        variables = {"pages": pages, "each": each, "pause": pause}
        lines = {f"d{number}-one": pages * each}
        return self._playbook(f"d{number}", number, "flood.yml", "one", variables, lines)

    def adhoc(self, count: int | None = None) -> Job:
        number = f"{next(_numbers):06d}"
        tag, half = f"a{number}", count or self._chance.randrange(5, 300)
        seconds = f"{self._seconds()}.{number}"
        first, second = f"seq -f 'line {tag} %.0f .' 1 {half}", f"seq -f 'line {tag} %.0f .' {half + 1} {2 * half}"
        return self._shell(tag, number, f"{first}; sleep {seconds}; {second}", {tag: 2 * half})

    def burst(self) -> Job:
        number = f"{next(_numbers):06d}"
        tag, count = f"b{number}", self._chance.randrange(3_000, 15_000)
        return self._shell(tag, number, f"seq -f 'line {tag} %.0f .' 1 {count}", {tag: count})

    def short(self) -> Job:
        """What asks whether anybody is there."""
        number = f"{next(_numbers):06d}"
        return self._shell(f"s{number}", number, f"echo line s{number} 1 .", {f"s{number}": 1})

    def _seconds(self) -> int:
        return self._chance.randrange(0, 4 if self._large else 2)

    def _shell(self, tag: str, number: str, script: str, lines: dict[str, int]) -> Job:
        mark = self._root / "mark"
        script = f"{mark} {tag} begin; {script}; {mark} {tag} end"
        body = {"module": "shell", "module_args": script, "host_pattern": "one", "inventory": self._inventory("one")}
        return Job(tag, number, "ansiblecommand", body, lines)

    def _playbook(
        self,
        tag: str,
        number: str,
        playbook: str,
        inventory: str,
        variables: dict[str, Any],
        lines: dict[str, int],
        state: str = "succeeded",
    ) -> Job:
        body = {
            "playbook_dir": str(self._root / "playbooks"),
            "playbook": playbook,
            "inventory": self._inventory(inventory),
            "extra_vars": {"tag": tag, "mark": str(self._root / "mark"), **variables},
        }
        return Job(tag, number, "ansibleplaybook", body, lines, state)

    def _inventory(self, name: str) -> str:
        return str(self._root / "inventories" / name)


@dataclass
class Submission:
    """A job on its way: what the service answered, and when. Times are time.time(), as marks and records have them."""

    job: Job
    sent_at: float
    answered_at: float = 0.0
    code: int | None = None
    error: str = ""
    task_id: str | None = None


@dataclass(frozen=True)
class Mark:
    """One line of a job's own file."""

    word: str
    at: float
    pids: tuple[int, ...]


def marks(root: Path, tag: str) -> list[Mark]:
    path = root / "marks" / tag
    if not path.exists():
        return []
    rows = [line.split() for line in path.read_text().splitlines()]
    return [Mark(word, float(at), tuple(map(int, pids))) for word, at, *pids in rows]


def lines_of(output: str) -> dict[str, list[int]]:
    """The numbers of the lines in an output, by the name they carry, in their order."""
    found: dict[str, list[int]] = {}
    for name, number in _LINE.findall(output):
        found.setdefault(name, []).append(int(number))
    return found


@dataclass
class Submitter:
    """Sends jobs from threads of its own, so that one that hangs holds up nobody else."""

    url: str
    submissions: list[Submission] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._pool = ThreadPoolExecutor(8, thread_name_prefix="submit")
        self._client = httpx.Client(base_url=self.url, auth=ADMIN, timeout=ANSWER_SECONDS)
        self._pending: list[Future[None]] = []
        self._stop = threading.Event()

    def send(self, job: Job) -> Submission:
        submission = Submission(job, time.time())
        self.submissions.append(submission)
        self._pending.append(self._pool.submit(self._send, submission))
        return submission

    def keep_sending(self, jobs: Iterator[Job], pauses: Iterator[float]) -> None:
        """Until `finish`, in a thread."""

        def for_ever() -> None:
            for job, pause in zip(jobs, pauses, strict=False):
                if self._stop.wait(pause):
                    return
                self.send(job)

        self._pending.append(self._pool.submit(for_ever))

    def stop(self) -> None:
        """Send nothing more, and have an answer to everything."""
        self._stop.set()
        for pending in list(self._pending):
            pending.result()

    def close(self) -> None:
        self.stop()
        self._pool.shutdown()
        self._client.close()

    def _send(self, submission: Submission) -> None:
        job = submission.job
        try:
            reply = self._client.post(f"/api/{job.route}", json=job.body)
            submission.code = reply.status_code
            if reply.status_code == 202:
                submission.task_id = str(reply.json()["task_id"])
            else:
                submission.error = reply.text[:300]
        except httpx.HTTPError as error:
            submission.error = f"{type(error).__name__}: {error}"
        submission.answered_at = time.time()
