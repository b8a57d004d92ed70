"""How long a run takes through the API against the same command in a shell: `make bench`.

Starts a service of its own on a free port and measures both sides in turn, so that a noisy machine is noisy for both.
Times are wall seconds from submission to the final state, seen by a client that polls every 10 ms. Prints medians, the
ratio API / CLI of each pair, and its spread. Not part of the tests.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx

BIN = Path(sys.executable).parent
POLL_SECONDS = 0.01
PLAYBOOK = """\
- hosts: localhost
  gather_facts: false
  tasks:
    - ansible.builtin.debug: msg=hello
    - ansible.builtin.ping:
    - ansible.builtin.command: echo hello
"""


@dataclass(frozen=True)
class Work:
    name: str
    route: str
    body: dict[str, Any]
    argv: list[str]


def works(directory: Path) -> list[Work]:
    playbook = {"playbook_dir": str(directory), "playbook": "play.yml"}
    return [
        Work("ad-hoc debug", "ansiblecommand", {"module": "debug"}, ["ansible", "localhost", "-m", "debug"]),
        Work("ad-hoc ping", "ansiblecommand", {"module": "ping"}, ["ansible", "localhost", "-m", "ping"]),
        Work("playbook: debug, ping, command", "ansibleplaybook", playbook, ["ansible-playbook", "play.yml"]),
    ]


def through_the_api(client: httpx.Client, work: Work) -> float:
    began = time.perf_counter()
    task_id = client.post(f"/api/{work.route}", json=work.body).raise_for_status().json()["task_id"]
    while (status := client.get(f"/api/ansibletaskstatus/{task_id}").json())["Status"] == "PROGRESS":
        time.sleep(POLL_SECONDS)
    seconds = time.perf_counter() - began
    if status["Status"] != "SUCCESS":
        sys.exit(f"{work.name} did not succeed: {status['description']}")
    return seconds


def in_a_shell(directory: Path, work: Work) -> float:
    began = time.perf_counter()
    command = [str(BIN / work.argv[0]), *work.argv[1:]]
    subprocess.run(command, cwd=directory, stdin=subprocess.DEVNULL, capture_output=True, check=True)
    return time.perf_counter() - began


def measure(client: httpx.Client, directory: Path, rounds: int) -> None:
    print(f"| work | API (s) | CLI (s) | API / CLI | spread over {rounds} pairs |")
    print("|---|---|---|---|---|")
    for work in works(directory):
        through_the_api(client, work)
        in_a_shell(directory, work)
        pairs = [(through_the_api(client, work), in_a_shell(directory, work)) for _ in range(rounds)]
        api, cli = (statistics.median(side) for side in zip(*pairs, strict=True))
        ratios = sorted(ours / theirs for ours, theirs in pairs)
        ratio = statistics.median(ratios)
        print(
            f"| {work.name} | {api:.3f} | {cli:.3f} | {ratio:.2f} | {ratios[0]:.2f} to {ratios[-1]:.2f} |", flush=True
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="flansible-bench-") as folder:
        directory = Path(folder) / "playbooks"
        directory.mkdir()
        (directory / "play.yml").write_text(PLAYBOOK)
        service = subprocess.Popen(
            [str(BIN / "flansible"), "up"],
            cwd=folder,
            env={**os.environ, "FLANSIBLE_FLASK_TCP_PORT": str(port)},
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            if service.stdout is None or not service.stdout.readline().startswith("Flansible is ready"):
                sys.exit("the service did not start")
            versions = f"Python {platform.python_version()}, ansible-core {version('ansible-core')}"
            print(f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores, {versions}\n")
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", auth=("admin", "admin"), timeout=60) as client:
                measure(client, directory, rounds)
        finally:
            service.send_signal(signal.SIGTERM)
            service.wait(15)


if __name__ == "__main__":
    main()
