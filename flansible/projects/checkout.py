"""Writes the tree of a commit from the mirror: all that the commit has, export-ignored files and submodules included.

Nothing in the repository is obeyed while it is written. Links that lead out of the tree are left out.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from flansible.errors import ProjectError
from flansible.projects.git_command import GitRunner, host_of, protocol_of
from flansible.projects.mirror import Mirror
from flansible.projects.order import mirror_of

_DEEPEST = 5  # submodules in submodules
_MOST_SUBMODULES = 100
_MOST_NAMED = 10

Say = Callable[[str], object]


def write(git: GitRunner, mirror: Mirror, folder: Path, say: Say) -> None:
    """Writes the commit of git's order into an empty folder. Raises ProjectError."""
    order = git.order
    _check_size(git, mirror, order.commit)
    _write(git, mirror, order.commit, folder)
    if order.submodules:
        _write_submodules(git, mirror, order.url, order.commit, folder, say)
    removed = remove_outer_links(folder)
    if removed:
        more = f" and {len(removed) - _MOST_NAMED} more" if len(removed) > _MOST_NAMED else ""
        say(f"links out of the project are left out: {', '.join(removed[:_MOST_NAMED])}{more}")


def _check_size(git: GitRunner, mirror: Mirror, commit: str) -> None:
    """Raises ProjectError for a tree that is larger than all that may be kept: few bytes in git can be many files."""
    listed = git.run("ls-tree", "-r", "-l", "-z", commit, repository=mirror.path).split(b"\0")
    sizes = (line.partition(b"\t")[0].split()[-1] for line in listed if line)
    total = sum(int(size) for size in sizes if size.isdigit())
    if total > git.order.most_bytes:
        raise ProjectError(f"commit {commit[:12]} has {total} bytes, more than a worker keeps (projects_bytes)")


def _write(git: GitRunner, mirror: Mirror, commit: str, folder: Path) -> None:
    index = git.private / "home" / "index"
    environment = {"GIT_INDEX_FILE": str(index), "GIT_WORK_TREE": str(folder)}
    try:
        for words in (("read-tree", commit), ("checkout-index", "--all", "--force", "--quiet")):
            git.run(*words, repository=mirror.path, environment=environment, writable=(folder,))
    finally:
        index.unlink(missing_ok=True)


def _write_submodules(
    git: GitRunner, mirror: Mirror, url: str, commit: str, folder: Path, say: Say, depth: int = 0
) -> None:
    listed = git.run("ls-tree", "-r", "-z", commit, repository=mirror.path).decode(errors="surrogateescape")
    commits = {}
    for line in filter(None, listed.split("\0")):
        about, _, path = line.partition("\t")
        if about.startswith("160000 "):
            commits[path] = about.split()[2]
    if not commits:
        return
    if depth == _DEEPEST or len(commits) > _MOST_SUBMODULES:
        raise ProjectError("there are too many submodules, or submodules in submodules")
    urls = _urls(git, mirror, commit)
    for path, wanted in sorted(commits.items()):
        if path not in urls:
            raise ProjectError(f"submodule {path} has no url in .gitmodules")
        inner = absolute_url(urls[path], url)
        target = folder / path
        if target.is_symlink() or not os.path.realpath(target).startswith(f"{os.path.realpath(folder)}{os.sep}"):
            raise ProjectError(f"submodule {path} would be written outside of the project")
        target.mkdir(parents=True, exist_ok=True)
        say(f"submodule {path} at {wanted[:12]}")
        own = Mirror(git, mirror_of(git.order.own_folder, inner))
        if not own.has(wanted):
            own.fetch(inner, depth=git.order.depth, commit=wanted)
        _check_size(git, own, wanted)
        _write(git, own, wanted, target)
        _write_submodules(git, own, inner, wanted, target, say, depth + 1)


def _urls(git: GitRunner, mirror: Mirror, commit: str) -> dict[str, str]:
    """Returns the urls of the submodules by their paths."""
    words = ("config", "-z", f"--blob={commit}:.gitmodules", "--get-regexp", r"^submodule\..*\.(path|url)$")
    try:
        text = git.run(*words, repository=mirror.path).decode(errors="surrogateescape")
    except ProjectError:
        return {}
    found: dict[str, dict[str, str]] = {}
    for entry in filter(None, text.split("\0")):
        key, _, value = entry.partition("\n")
        name, _, option = key.removeprefix("submodule.").rpartition(".")
        found.setdefault(name, {})[option] = value
    return {one["path"]: one["url"] for one in found.values() if "path" in one and "url" in one}


def absolute_url(given: str, base: str) -> str:
    """Returns a submodule's url: on the same host by the same protocol. Raises ProjectError for any other."""
    if given.startswith(("./", "../")):
        return _joined(base, given)
    is_elsewhere = protocol_of(given) != protocol_of(base) or host_of(given) != host_of(base)
    if is_elsewhere or "::" in given or given.startswith("-") or protocol_of(base) == "file":
        raise ProjectError(f"submodule url {given!r} leads elsewhere: only the project's own host may be used")
    return given


def _joined(base: str, given: str) -> str:
    if "://" in base:
        parts = urlsplit(base)
        return parts._replace(path=_below(parts.path, given)).geturl()
    host, colon, path = ("", "", base) if base.startswith("/") else base.partition(":")
    joined = _below(path if path.startswith("/") else f"/{path}", given)
    return host + colon + (joined if path.startswith("/") else joined.lstrip("/"))


def _below(path: str, given: str) -> str:
    return posixpath.normpath(posixpath.join(path, given))


def remove_outer_links(folder: Path) -> list[str]:
    """Removes links that lead out of the folder, by whatever way; returns their paths in it."""
    root = os.path.realpath(folder)
    removed = []
    for above, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = os.path.join(above, name)
            if os.path.islink(path) and not _leads_within(path, root):
                os.unlink(path)
                removed.append(os.path.relpath(path, folder))
    return sorted(removed)


def _leads_within(path: str, root: str) -> bool:
    # An absolute one names a folder that this tree has only until it gets its name.
    if os.path.isabs(os.readlink(path)):
        return False
    return os.path.realpath(path).startswith(f"{root}{os.sep}") or os.path.realpath(path) == root
