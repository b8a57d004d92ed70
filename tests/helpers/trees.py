"""Files of a service in a temporary folder, and what a confined run of one of its users is shown of them."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from flansible.config import load
from flansible.models import Confinement, Step
from flansible.worker import sandbox
from flansible.worker.ansible_config import notes_for

PLAY = "- hosts: all\n  tasks: []\n"
DEV = "[web]\nweb1\n"
PROD = "[shop]\nshop1\n"


@dataclass
class Tree:
    """Files of a service, and what rbac.json says of them for one user."""

    top: Path
    inventories: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    sandbox_paths: list[str] = field(default_factory=list)
    writable: list[str] = field(default_factory=list)

    def add(self, **files: str) -> None:
        self.write(files)

    def write(self, files: dict[str, str]) -> None:
        for name, text in files.items():
            path = self.top / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            if text.startswith("#!"):
                path.chmod(0o755)

    def link(self, name: str, target: str) -> None:
        (self.top / name).parent.mkdir(parents=True, exist_ok=True)
        (self.top / name).symlink_to(target)

    def sandbox(self) -> sandbox.Sandbox:
        self.write({"config.ini": f"[Default]\nsandbox_paths = {', '.join(self.sandbox_paths)}\n", "rbac.json": "{}"})
        (self.top / "playbooks").mkdir(exist_ok=True)
        own = tuple(os.path.realpath(self.top / path) for path in self.inventories)
        confinement = Confinement(
            readable=(*own, *(os.path.realpath(self.top / path) for path in self.paths)),
            hidden=tuple(os.path.realpath(self.top / path) for path in self.others),
            inventories=own,
            writable=tuple(os.path.realpath(self.top / path) for path in self.writable),
        )
        return sandbox.build("dev", confinement, None, load(str(self.top / "config.ini"), {}))

    def run(self, *command: str) -> str:
        one = self.sandbox()
        command = (*one.arguments, "--", *command)
        return subprocess.run(command, env=dict(one.environment), capture_output=True, text=True, timeout=60).stdout

    def seen(self) -> set[str]:
        """Files below the top that can be read, links followed."""
        found = self.run("find", "-L", str(self.top), "-type", "f").splitlines()
        return {os.path.relpath(path, self.top) for path in found}

    def files(self, text: str) -> set[str]:
        """Files below the top with this text in them."""
        found = (path for path in self.top.rglob("*") if path.is_file() and text in path.read_text(errors="replace"))
        return {os.path.relpath(path, self.top) for path in found}

    def notes(self) -> str:
        return "; ".join(note.text for note in self.sandbox().notes)

    def notes_of(self, program: str, directory: str, *argv: str) -> list[str]:
        """The folders that the notes of a run name."""
        step = Step(program=program, argv=tuple(word.format(self.top) for word in argv), cwd=str(self.top / directory))
        return [word for text in notes_for(step, self.sandbox()) for word in text.split() if "/" in word]


@contextlib.contextmanager
def new_tree() -> Iterator[Tree]:
    path = Path(os.path.realpath(tempfile.mkdtemp(prefix="flansible-layouts-")))
    try:
        yield Tree(path)
    finally:
        shutil.rmtree(path)
