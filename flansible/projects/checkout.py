"""Writes the tree of a commit from the mirror: all that the commit has, export-ignored files and submodules included.

Nothing in the repository is obeyed while it is written. Links that lead out of the tree are left out.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from flansible.errors import ProjectError
from flansible.projects import lfs
from flansible.projects.git_command import GitRunner, host_of, protocol_of, words_of
from flansible.projects.git_configuration import as_variables
from flansible.projects.mirror import Mirror, using
from flansible.projects.order import mirror_of
from flansible.projects.shelf import measure

_DEEPEST = 5  # submodules in submodules
_MOST_SUBMODULES = 100
_MOST_FOLDERS = 100  # in one another
_MOST_NAMED = 10
_UNCLEAR = re.compile(r"[%?#/\\\s\x00-\x1f]")

# Few bytes in git can be many files, so the size is looked at first: as on disk, with 4 KiB at least for each name. And
# few names can be a path that Python does not walk.
_SCRIPT = """\
git ls-tree -r -t -l "$1" 2>/dev/null | awk '
  { total += 4096 * (1 + int(($4 + 4095) / 4096)) }
  total > ENVIRON["MOST_BYTES"] + 0 { problem = 67; exit }
  split($0, folders, "/") > ENVIRON["DEEPEST"] + 0 { problem = 68; exit }
  END { exit problem }' & size=$!
git log -1 --format='%H %cs' "$1^{commit}" -- 2>/dev/null || exit 66
rm -f "$GIT_INDEX_FILE"
wait $size || exit $?
exec git read-tree --reset -u "$1"
"""
_NOT_THERE, _TOO_LARGE, _TOO_DEEP = 66, 67, 68

Say = Callable[[str], object]


def write(
    git: GitRunner,
    mirror: Mirror,
    commit: str,
    folder: Path,
    filters: Mapping[str, str] | None = None,
    most_bytes: int | None = None,
) -> str | None:
    """Writes a commit into a folder; returns its day, None if the mirror lacks it or it is none. Raises ProjectError.

    filters: configuration of git for those of .gitattributes; without them there is none; most_bytes: by default those
    of all trees.
    """
    environment = {
        "GIT_DIR": str(mirror.path),
        "GIT_INDEX_FILE": str(git.private / "home" / "index"),
        "GIT_WORK_TREE": str(folder),
        "MOST_BYTES": str(git.order.bounds.bytes if most_bytes is None else most_bytes),
        "DEEPEST": str(_MOST_FOLDERS),
        **as_variables(filters or {}),
    }
    writable = (folder, mirror.path) if filters else (folder,)
    # In one sandbox: making one takes longer than git does.
    done = git.execute(["sh", "-c", _SCRIPT, "sh", commit], writable, environment, is_offline=True)
    if done.returncode == _NOT_THERE:
        return None
    if done.returncode == _TOO_LARGE:
        raise ProjectError(f"commit {commit[:12]} is larger than what a worker keeps (projects_bytes)")
    if done.returncode == _TOO_DEEP:
        raise ProjectError(f"commit {commit[:12]} has more than {_MOST_FOLDERS} folders in one another")
    if done.returncode != 0:
        raise ProjectError(words_of(done.stderr) or f"commit {commit[:12]} cannot be written")
    found, _, day = done.stdout.decode().strip().partition(" ")
    return day if found == commit else None  # a tag's own id is none of a commit


def complete(git: GitRunner, mirror: Mirror, folder: Path, say: Say, is_offline: bool = False) -> None:
    """Adds what Git LFS has and submodules, and removes links that lead out of the folder. Raises ProjectError.

    is_offline: raises it also for what has to be fetched.
    """
    order = git.order
    _write_large_files(git, mirror, order.url, order.commit, folder, say, is_offline)
    if order.submodules:
        _Submodules(git, folder, say).write(mirror, order.url, order.commit, folder)
    removed = remove_outer_links(folder)
    if removed:
        more = f" and {len(removed) - _MOST_NAMED} more" if len(removed) > _MOST_NAMED else ""
        say(f"links out of the project are left out: {', '.join(removed[:_MOST_NAMED])}{more}")


def _write_large_files(
    git: GitRunner, mirror: Mirror, url: str, commit: str, folder: Path, say: Say, is_offline: bool = False
) -> None:
    if not lfs.is_needed(git, url, folder, say):
        return
    if is_offline:
        raise ProjectError("files of Git LFS have to be fetched")
    say("fetching files of Git LFS")
    lfs.fetch(git, mirror, url, commit, folder)
    write(git, mirror, commit, folder, lfs.FILTER)


class _Submodules:
    """Writes the submodules of a tree, which together with it have the bytes of one."""

    def __init__(self, git: GitRunner, tree: Path, say: Say) -> None:
        self._git = git
        self._say = say
        self._bytes_left = git.order.bounds.bytes - measure(tree).bytes

    def write(self, mirror: Mirror, url: str, commit: str, folder: Path, depth: int = 0) -> None:
        """Writes those of a commit, and theirs. url, folder: where it comes from, and where it is. Raises
        ProjectError."""
        git = self._git
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
            self._say(f"submodule {path} at {wanted[:12]}")
            with using(git, mirror_of(git.order.own_folder, inner)) as own:
                self._write_one(own, inner, path, wanted, target)
                self.write(own, inner, wanted, target, depth + 1)

    def _write_one(self, mirror: Mirror, url: str, path: str, commit: str, target: Path) -> None:
        git, left = self._git, self._bytes_left
        if write(git, mirror, commit, target, most_bytes=left) is None:
            mirror.fetch(url, depth=git.order.depth, commit=commit)
            if write(git, mirror, commit, target, most_bytes=left) is None:
                raise ProjectError(f"submodule {path}: its remote does not have commit {commit}")
        _write_large_files(git, mirror, url, commit, target, self._say)
        self._bytes_left -= measure(target).bytes


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
    if protocol_of(base) == "file" or _is_elsewhere(given, base):
        allowed = "only the project's own host may be used, and no escape before the path"
        raise ProjectError(f"submodule url {given!r} leads elsewhere, or git could read it so: {allowed}")
    return given


def _is_elsewhere(given: str, base: str) -> bool:
    # git decodes a url before it looks for the host, which only a slash ends for it.
    authority = given.partition("://")[2].partition("/")[0] if "://" in given else given.partition(":")[0]
    if _UNCLEAR.search(authority) or "::" in given or given.startswith("-"):
        return True
    try:
        return protocol_of(given) != protocol_of(base) or host_of(given) != host_of(base)
    except ValueError:  # no url
        return True


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
    removed = []
    for above, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = os.path.join(above, name)
            if os.path.islink(path) and not _leads_within(path, str(folder)):
                os.unlink(path)
                removed.append(os.path.relpath(path, folder))
    return sorted(removed)


def _leads_within(path: str, folder: str) -> bool:
    """Whether a link leads to a path in the folder. It is not followed: what it leads through is in the folder, where
    each link is looked at by itself."""
    target = os.readlink(path)
    # An absolute one names a folder that this tree has only until it gets its name.
    if os.path.isabs(target):
        return False
    parts = [part for part in target.split("/") if part not in ("", ".")]
    ups = next((number for number, part in enumerate(parts) if part != ".."), len(parts))
    if ups > os.path.relpath(path, folder).count("/"):
        return False
    if ".." not in parts[ups:]:
        return True
    with contextlib.suppress(OSError):
        os.stat(path)  # the system follows forty links; realpath any number, each of them anew for each link
        return f"{os.path.realpath(path)}/".startswith(f"{os.path.realpath(folder)}/")
    return False
