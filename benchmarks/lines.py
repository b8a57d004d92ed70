"""A million lines of output from one run, against the command line writing to a file: `make lines`.

Each kind of work is run through the API and in a shell, in turn; what the service has stored must be, byte for byte,
what the command line wrote. Prints both times and how long reading the output takes. Then each is run once more for the
memory of each role before the run, at its most, and afterwards: looking at it costs time. Not part of the tests.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import httpx

from benchmarks.service import BIN, Running, Sampler, Usage, machine, megabytes, running, usage_by_role, usage_of_tree
from benchmarks.works import Work

POLL_SECONDS = 0.05
SETTLE_SECONDS = 3.0
ROLES = ("web", "worker", "fork server", "run", "redis")
LINE = "line {} of the output of one run"
LINES_PER_ITEM = 3
# Each item's result is printed as soon as it is there: the lines come over the whole time of the run.
LIVE = """\
- hosts: one
  gather_facts: false
  tasks:
    - name: Print
      ansible.builtin.debug:
        msg: "{{ lookup('ansible.builtin.file', 'chunk-' ~ item).splitlines() }}"
      loop: "{{ range(0, CHUNKS) | list }}"
      loop_control: {label: ""}
"""
LOOP = """\
- hosts: one
  gather_facts: false
  tasks:
    - name: Count
      ansible.builtin.debug:
        msg: line {{ item }}
      loop: "{{ range(0, ITEMS) | list }}"
"""


def works(playbooks: Path, lines: int, chunks: int, line_bytes: int) -> list[Work]:
    script = f"seq -f '{LINE.format('%.0f')}' 1 {lines}"
    each = lines // chunks
    for chunk in range(chunks):
        numbers = range(chunk * each + 1, (chunk + 1) * each + 1)
        (playbooks / f"chunk-{chunk}").write_text("".join(LINE.format(number) + "\n" for number in numbers))
    (playbooks / "live.yml").write_text(LIVE.replace("CHUNKS", str(chunks)))
    items = max(1, lines // 250 // LINES_PER_ITEM)
    (playbooks / "loop.yml").write_text(LOOP.replace("ITEMS", str(items)))
    adhoc = {"module": "command", "module_args": script, "host_pattern": "one", "inventory": "hosts"}
    one_line = f"head -c {line_bytes} /dev/zero | tr '\\0' x"
    long_line = {**adhoc, "module": "shell", "module_args": one_line}
    return [
        Work(
            f"ad-hoc: a line of {line_bytes:,} bytes",
            "ansiblecommand",
            long_line,
            ["ansible", "one", "-i", "hosts", "-m", "shell", "-a", one_line],
        ),
        Work(
            f"ad-hoc: one result of {lines:,} lines",
            "ansiblecommand",
            adhoc,
            ["ansible", "one", "-i", "hosts", "-m", "command", "-a", script],
        ),
        playbook(f"playbook: {chunks} results of {each:,} lines", playbooks, "live.yml"),
        playbook(f"playbook: a loop of {items:,} items, {LINES_PER_ITEM} lines each", playbooks, "loop.yml"),
    ]


def playbook(name: str, playbooks: Path, file: str) -> Work:
    body = {"playbook_dir": str(playbooks), "playbook": file, "inventory": "hosts"}
    return Work(name, "ansibleplaybook", body, ["ansible-playbook", "-i", "hosts", file])


def in_a_shell(service: Running, work: Work, file: Path, peak: dict[str, Usage] | None = None) -> float:
    """Seconds; with `peak`, the most that its processes take is put there as "cli"."""
    began = time.perf_counter()
    with file.open("wb") as out:
        process = subprocess.Popen(
            [str(BIN / work.argv[0]), *work.argv[1:]],
            cwd=service.playbooks,
            env=service.environ,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    if peak is None:
        process.wait()
    else:
        sampler = Sampler(lambda: {"cli": usage_of_tree(process.pid)}, peak=peak)
        with sampler.watching():
            process.wait()
    if process.returncode:
        sys.exit(f"{work.name} did not succeed in a shell: {file.read_text()[-2000:]}")
    return time.perf_counter() - began


def through_the_api(client: httpx.Client, work: Work) -> tuple[str, float]:
    began = time.perf_counter()
    task_id = client.post(f"/api/{work.route}", json=work.body).raise_for_status().json()["task_id"]
    while (status := client.get(f"/api/ansibletaskstatus/{task_id}").json())["Status"] == "PROGRESS":
        time.sleep(POLL_SECONDS)
    if status["Status"] != "SUCCESS":
        sys.exit(f"{work.name} did not succeed: {status['description']}")
    return str(task_id), time.perf_counter() - began


def read(client: httpx.Client, task_id: str, file: Path) -> float:
    """The whole output into a file, as it comes."""
    began = time.perf_counter()
    with file.open("wb") as out, client.stream("GET", f"/api/ansibletaskoutput/{task_id}") as reply:
        for chunk in reply.raise_for_status().iter_raw():
            out.write(chunk)
    return time.perf_counter() - began


@dataclass(frozen=True)
class Measured:
    work: Work
    lines: int
    size: int
    equal: bool
    api_seconds: list[float]
    cli_seconds: list[float]
    read_seconds: float
    before: dict[str, Usage]
    peak: dict[str, Usage]
    after: dict[str, Usage]


def measure(service: Running, client: httpx.Client, work: Work, rounds: int) -> Measured:
    ours, theirs = service.root / "ours", service.root / "theirs"
    api, cli, reading, equal = [], [], [], True
    for _ in range(rounds):
        task_id, seconds = through_the_api(client, work)
        api.append(seconds)
        reading.append(read(client, task_id, ours))
        cli.append(in_a_shell(service, work, theirs))
        equal = equal and same(ours, theirs)
    memory = weigh(service, client, work)
    text = theirs.read_bytes()
    return Measured(work, text.count(b"\n"), len(text), equal, api, cli, statistics.median(reading), *memory)


def weigh(service: Running, client: httpx.Client, work: Work) -> tuple[dict[str, Usage], ...]:
    """Before, at most and after a run whose output is read."""

    def look() -> dict[str, Usage]:
        return usage_by_role(service.process.pid)

    time.sleep(SETTLE_SECONDS)
    before, sampler = look(), Sampler(look)
    with sampler.watching():
        task_id, _ = through_the_api(client, work)
        read(client, task_id, Path(os.devnull))
    time.sleep(SETTLE_SECONDS)
    after = look()
    in_a_shell(service, work, service.root / "theirs", sampler.peak)
    return before, sampler.peak, after


def same(ours: Path, theirs: Path) -> bool:
    if ours.read_bytes() == theirs.read_bytes():
        return True
    tell_difference(ours, theirs)
    return False


def tell_difference(ours: Path, theirs: Path) -> None:
    command = ["diff", "--text", str(theirs), str(ours)]
    difference = subprocess.run(command, stdout=subprocess.PIPE, text=True, errors="replace", check=False).stdout
    print(
        "The service's output differs from the command line's:",
        *difference.splitlines()[:20],
        sep="\n",
        file=sys.stderr,
    )


def show(measured: list[Measured]) -> None:
    print("\n| output of one run | lines | MB | as the CLI's | API (s) | CLI (s) | API / CLI | reading it (s) |")
    print("|---|---|---|---|---|---|---|---|")
    for item in measured:
        api, cli = statistics.median(item.api_seconds), statistics.median(item.cli_seconds)
        ratios = sorted(ours / theirs for ours, theirs in zip(item.api_seconds, item.cli_seconds, strict=True))
        times = f"{api:.1f} | {cli:.1f} | {statistics.median(ratios):.2f} | {item.read_seconds:.1f}"
        how = "byte for byte" if item.equal else "**no**"
        print(f"| {item.work.name} | {item.lines:,} | {item.size / 1e6:.1f} | {how} | {times} |")
    print("\nMB of memory (PSS) before the run, at most, afterwards; of the command line's processes at most:\n")
    print(f"| output of one run | {' | '.join(ROLES)} | all of ours | CLI |")
    print(f"|---|{'---|' * (len(ROLES) + 2)}")
    for item in measured:
        cells = [" / ".join(_pss(when, role) for when in (item.before, item.peak, item.after)) for role in ROLES]
        cells.append(" / ".join(_all(when) for when in (item.before, item.peak, item.after)))
        print(f"| {item.work.name} | {' | '.join(cells)} | {_pss(item.peak, 'cli')} |")


def _pss(usage: dict[str, Usage], role: str) -> str:
    return megabytes(usage[role].pss) if role in usage else "–"


def _all(usage: dict[str, Usage]) -> str:
    return megabytes(sum(found.pss for role, found in usage.items() if role in ROLES))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--chunks", type=int, default=100, help="results that the lines of the second kind come in")
    parser.add_argument("--line-bytes", type=int, default=40_000_000, help="length of the line of the first kind")
    parser.add_argument("--rounds", type=int, default=3, help="pairs of runs for the times")
    asked = parser.parse_args()
    print(machine(), flush=True)
    with running() as service, service.client() as client:
        kinds = works(service.playbooks, asked.lines, asked.chunks, asked.line_bytes)
        through_the_api(client, Work("warm", "ansiblecommand", {"module": "debug"}, []))
        measured = []
        for work in kinds:
            measured.append(measure(service, client, work, asked.rounds))
            print(f"measured: {work.name}", file=sys.stderr, flush=True)
    show(measured)
    if not all(item.equal for item in measured):
        sys.exit(1)


if __name__ == "__main__":
    main()
