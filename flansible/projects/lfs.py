"""Git LFS: files of which the repository has a pointer only, and its host, beside git, the content.

git-lfs fetches what a commit needs into the mirror, with the project's credential and from the project's own url
(`.lfsconfig` could name another); git then writes the tree again through the filter of git-lfs, the only one that there
is. Where that cannot be, pointers stay and the output says so.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from flansible.errors import ProjectError
from flansible.projects.git_command import GitRunner, protocol_of
from flansible.projects.git_configuration import as_variables
from flansible.projects.mirror import Mirror

_START = b"version https://git-lfs.github.com/spec/v1\n"
_MOST_POINTER_BYTES = 1024
_MOST_ATTRIBUTES_BYTES = 100 * 1024
FILTER = {
    "filter.lfs.process": "git-lfs filter-process",
    "filter.lfs.smudge": "git-lfs smudge -- %f",
    "filter.lfs.required": "true",
}
Say = Callable[[str], object]


def is_needed(git: GitRunner, url: str, folder: Path, say: Say) -> bool:
    """Whether files of this tree are to be fetched by git-lfs; says why not, if they are and cannot be."""
    if not _uses_lfs(folder):
        return False
    problem = None
    if git.order.public_only:
        problem = "for a project that admin does not own, its host has to be in project_hosts"
    elif protocol_of(url) == "git":
        problem = "git:// has no way to them"
    elif shutil.which("git-lfs", path=git.environment.get("PATH")) is None:
        problem = "git-lfs is not installed on this worker"
    if problem is not None:
        say(f"files of Git LFS are not fetched, their pointers stay: {problem}")
    return problem is None


def fetch(git: GitRunner, mirror: Mirror, url: str, commit: str, folder: Path) -> None:
    """Fetches into the mirror what the pointers in a commit's tree stand for. Raises ProjectError."""
    if _pointed_bytes(folder) > git.order.bounds.bytes:
        raise ProjectError(f"commit {commit[:12]} with Git LFS is larger than what a worker keeps (projects_bytes)")
    values = {"remote.origin.url": url, "lfs.url": _server(url)}
    mirror.fetch_lfs(commit, as_variables(values))


def _uses_lfs(folder: Path) -> bool:
    for above, _, names in os.walk(folder):
        if ".gitattributes" in names:
            path = Path(above, ".gitattributes")
            if path.is_file() and not path.is_symlink():
                with open(path, "rb") as file:
                    if b"filter=lfs" in file.read(_MOST_ATTRIBUTES_BYTES):
                        return True
    return False


def _pointed_bytes(folder: Path) -> int:
    """Returns how large the files will be whose pointers are in a folder."""
    total = 0
    for above, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(above, name)
            found = os.lstat(path)
            if not os.path.islink(path) and found.st_size <= _MOST_POINTER_BYTES:
                with open(path, "rb") as file:
                    text = file.read()
                if text.startswith(_START):
                    sizes = [line[5:] for line in text.splitlines() if line.startswith(b"size ")]
                    total += sum(int(size) for size in sizes if size.isdigit())
    return total


def _server(url: str) -> str:
    """Returns the address of the LFS server, as git-lfs finds it for a remote."""
    protocol = protocol_of(url)
    if protocol == "file":
        return url if "://" in url else f"file://{url}"
    if protocol == "ssh":
        return url  # git-lfs asks there for it
    base = url.rstrip("/")
    return base + ("/info/lfs" if base.endswith(".git") else ".git/info/lfs")
