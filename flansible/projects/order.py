"""What a run process is to do with a project, as it comes in the run's first frame."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from flansible.projects.shelf import Shelf

COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Bounds:
    """Of what no run uses on this machine. bytes, kept_seconds: of trees and requirements; mirror_bytes: of mirrors."""

    bytes: int
    kept_seconds: float
    mirror_bytes: int


@dataclass(frozen=True)
class Order:
    """One step of a project.

    what: `prepare` makes the tree of `commit` ready; `resolve` finds the commit of `ref`; `tags` lists those that match
    `ref`, a glob. folder: of all projects on this machine; ref: empty for the remote's default branch; allow_refs:
    globs of branches and tags; must_answer: whether the remote has to; public_only: whether its addresses have to be
    public ones; is_admins: whether admin owns the project; allowed_signers: the text of such a file, or null;
    requirements: `auto`, `none` or a path; seconds: for one command; sandbox: the words before it, empty where nothing
    is confined; offline_sandbox: before one that needs no network.
    """

    what: Literal["prepare", "resolve", "tags"]
    folder: str
    name: str
    url: str
    ref: str
    commit: str
    allow_refs: tuple[str, ...]
    must_answer: bool
    public_only: bool
    is_admins: bool
    known_hosts: str | None
    allowed_signers: str | None
    submodules: bool
    depth: int | None
    requirements: str
    seconds: float
    sandbox: tuple[str, ...]
    offline_sandbox: tuple[str, ...]
    bounds: Bounds

    @classmethod
    def of(cls, fields: dict[str, Any]) -> Order:
        """Reads the form in a frame."""
        lists = {name: tuple(fields[name]) for name in ("allow_refs", "sandbox", "offline_sandbox")}
        return cls(**{**fields, **lists, "bounds": Bounds(**fields["bounds"])})

    @property
    def own_folder(self) -> Path:
        return Path(self.folder) / self.name

    @property
    def mirror(self) -> Path:
        return mirror_of(self.own_folder, self.url)

    @property
    def tree(self) -> str:
        """The key of the tree on its shelf."""
        return tree_key(self.commit, self.submodules, self.allowed_signers)


def tree_key(commit: str, submodules: bool, allowed_signers: str | None) -> str:
    """Returns the key of a tree on its shelf: one that is there was verified by these signers."""
    modules = "-modules" if submodules else ""
    signers = "" if allowed_signers is None else f"-{sha256(allowed_signers.encode()).hexdigest()[:8]}"
    return commit + modules + signers


def mirror_of(folder: Path, url: str) -> Path:
    """Returns where the mirror of this URL is: a project that gets another one begins anew."""
    return folder / "mirrors" / f"{sha256(url.encode()).hexdigest()[:16]}.git"


def folder_of_all(data_dir: Path) -> Path:
    """Returns the folder of all projects on this machine."""
    return Path(os.path.realpath(data_dir)) / "projects"


def folder_of(data_dir: Path, project: str) -> Path:
    """Returns the folder of a project."""
    return folder_of_all(data_dir) / project


def copies(folder: Path, principal: str) -> Path:
    """Returns the folder of the copies that runs with these rights may write: it is in no other sandbox."""
    return folder / "copies" / sha256(principal.encode()).hexdigest()[:16]


def trees(folder: Path) -> Shelf:
    """Returns the shelf of a project's trees."""
    return Shelf(folder, "trees")


def requirements(folder: Path) -> Shelf:
    """Returns the shelf of a project's installed requirements."""
    return Shelf(folder, "requirements")


def all_shelves(projects: Path) -> list[Shelf]:
    """Returns the shelves of all projects on this machine."""
    folders = [path for path in projects.glob("*") if (path / "kept").is_dir()]
    return [make(folder) for folder in folders for make in (trees, requirements)]
