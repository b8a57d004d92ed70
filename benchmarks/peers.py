"""Compares ansible-runner, its Python API and its command, in a separate environment with the same ansible-core.

The environment is made on first use, in `.bench/` of the checkout, and used again.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from benchmarks.service import Running
from benchmarks.tables import TOP
from benchmarks.works import PLAY, Side

RUNNER_VERSION = "2.4.3"
_SCRIPT = Path(__file__).with_name("runner_side.py")


def _environment() -> Path:
    """The folder of its programs."""
    ansible = version("ansible-core")
    place = TOP / ".bench" / f"ansible-runner-{RUNNER_VERSION}-{ansible}"
    done = place / ".installed"
    if not done.exists():
        print(f"making {place.relative_to(TOP)}", file=sys.stderr, flush=True)
        venv.create(place, clear=True, with_pip=True)
        wanted = [f"ansible-runner=={RUNNER_VERSION}", f"ansible-core=={ansible}"]
        # Not in the checkout: pip would take what lies there for part of the environment.
        command = [str(place / "bin/python"), "-m", "pip", "-qq", "install", *wanted]
        subprocess.run(command, cwd=place, stdout=sys.stderr, check=True)
        done.touch()
    return place / "bin"


@dataclass(frozen=True)
class Runner:
    """ansible-runner, ready to run: `module` or `play` as each of its two ways."""

    bin: Path
    folder: Path
    environ: dict[str, str]
    process: subprocess.Popen[str]

    def module(self, name: str) -> tuple[Side, Side]:
        asked = {"private_data_dir": str(self.folder), "module": name, "host_pattern": "localhost"}
        return lambda: self._call(asked), lambda: self._command("-m", name, "--hosts", "localhost")

    def play(self, file: str) -> tuple[Side, Side]:
        asked = {"private_data_dir": str(self.folder), "playbook": file}
        return lambda: self._call(asked), lambda: self._command("-p", file)

    def _call(self, asked: dict[str, str]) -> float:
        if self.process.stdin is None or self.process.stdout is None:
            raise TypeError("the process must have been started with pipes")
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer or (found := json.loads(answer))["status"] != "successful":
            sys.exit(f"ansible-runner did not succeed: {asked}: {answer}")
        return float(found["seconds"])

    def _command(self, *arguments: str) -> float:
        command = [str(self.bin / "ansible-runner"), "run", str(self.folder), *arguments]
        began = time.perf_counter()
        done = subprocess.run(command, env=self.environ, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        if done.returncode:
            sys.exit(f"{' '.join(command)} ended with {done.returncode}: {done.stdout.decode()[-1000:]}")
        return time.perf_counter() - began


@contextmanager
def runner(service: Running) -> Iterator[Runner]:
    """In the service's folder, with its HOME."""
    programs = _environment()
    folder = service.root / "ansible-runner"
    (folder / "project").mkdir(parents=True)
    (folder / "project/play.yml").write_text(PLAY)
    environ = {**service.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    command = [str(programs / "python"), str(_SCRIPT)]
    process = subprocess.Popen(command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield Runner(programs, folder, environ, process)
    finally:
        with contextlib.suppress(BrokenPipeError):
            process.communicate(timeout=30)
