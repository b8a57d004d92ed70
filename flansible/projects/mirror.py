"""The bare mirror of a project's repository on this machine: fetched by one process at a time, read by any.

Branches and tags, and nothing else: what others may push without a right, such as `refs/pull/`, is not in it, and a
commit that only such a ref has is of no project.
"""

from __future__ import annotations

import contextlib
import difflib
import fcntl
import heapq
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

from flansible.errors import ProjectError
from flansible.projects.git_command import GitRunner
from flansible.projects.order import COMMIT, Order
from flansible.projects.shelf import measure
from flansible.system.atomic_files import remove_folder

_HEADS, _TAGS = "refs/heads/", "refs/tags/"
_GONE = ".gone-"
_MOST_NEAR = 5
_MOST_COMPARED = 1000
_MOST_PACKS = 30
_MOST_TAGS = 1000
_FETCHED = (f"+{_HEADS}*:{_HEADS}*", f"+{_TAGS}*:{_TAGS}*")


@dataclass(frozen=True)
class Refs:
    """The branches and tags of a repository. default: the full name of its default branch, if it has one."""

    commits: dict[str, str]
    default: str | None = None

    def full_name(self, ref: str) -> str | None:
        """Returns the full name of a branch or tag; None if there is none. ref: '' for the default."""
        if not ref:
            return self.default
        names = (ref,) if ref.startswith("refs/") else (_HEADS + ref, _TAGS + ref)
        return next((name for name in names if name in self.commits), None)

    def is_ambiguous(self, ref: str) -> bool:
        """Whether a short name is that of a branch and of a tag: who may push the one could pass for the other."""
        return _HEADS + ref in self.commits and _TAGS + ref in self.commits

    def is_allowed(self, name: str, allowed: Iterable[str]) -> bool:
        """Whether one of these globs has a ref, by its full name, or by its short one unless that is ambiguous."""
        names = (name,) if self.is_ambiguous(short(name)) else (name, short(name))
        return any(fnmatchcase(one, glob) for one in names for glob in allowed)

    def nearest(self, ref: str, allowed: Iterable[str]) -> list[str]:
        """Returns the names most like this one, of those that a request may name."""
        wanted, names = short(ref), (short(name) for name in self.commits if self.is_allowed(name, allowed))
        # To compare two takes half a millisecond, and a repository may have a hundred thousand.
        alike = heapq.nlargest(_MOST_COMPARED, names, key=lambda name: len(os.path.commonprefix((name, wanted))))
        return difflib.get_close_matches(wanted, alike, _MOST_NEAR, 0.4)


class Mirror:
    """path: of the bare repository. Got by `using`, which keeps it from being removed."""

    def __init__(self, git: GitRunner, path: Path) -> None:
        self._git = git
        self.path = path

    @property
    def is_there(self) -> bool:
        return (self.path / "HEAD").exists()

    def has(self, commit: str) -> bool:
        return self.is_there and self._git.succeeds("cat-file", "-e", f"{commit}^{{commit}}", repository=self.path)

    def fetch(self, url: str, *, depth: int | None = None, commit: str | None = None) -> None:
        """Fetches all branches and tags; commit: what must be there afterwards, if it is known. Raises ProjectError."""
        with self._locked():
            if commit is not None and self.has(commit):
                return  # another process was fetching it
            self._make()
            shallow = () if depth is None else (f"--depth={depth}",)
            self._fetch(url, *_FETCHED, options=(*shallow, "--prune"))
            if commit is not None and not self.has(commit):
                # No branch has it any more, or not as deep as that.
                self._fetch(url, commit, options=shallow)
            self._repack()

    def fetch_lfs(self, commit: str, environment: dict[str, str]) -> None:
        """Fetches what the pointers of a commit stand for. environment: names the server. Raises ProjectError."""
        with self._locked():
            words = ("lfs", "fetch", "origin", commit)
            self._git.run(*words, repository=self.path, writable=(self.path,), environment=environment)

    def refs(self) -> Refs:
        """Returns the branches and tags as of the last fetch."""
        if not self.is_there:
            return Refs({})
        default = self.path / "flansible-default"
        return replace(self._refs(), default=default.read_text() if default.exists() else None)

    def _refs(self, *options: str) -> Refs:
        words = ("for-each-ref", "--format=%(refname) %(objectname) %(*objectname)", *options, _HEADS, _TAGS)
        text = self._git.run(*words, repository=self.path).decode(errors="replace")
        found = (line.split(" ") for line in _lines(text))
        return Refs({name: inner or outer for name, outer, inner in found})

    def keep_default(self, refs: Refs) -> None:
        """Remembers the default branch: a fetch does not say it."""
        if self.is_there and refs.default:
            (self.path / "flansible-default").write_text(refs.default)

    def contains(self, commit: str, allowed: Iterable[str]) -> bool:
        """Whether a branch or tag that a request may name has this commit."""
        every = self._refs()
        return any(every.is_allowed(name, allowed) for name in self._refs(f"--contains={commit}").commits)

    def is_within(self, commit: str, remote: Refs, allowed: Iterable[str]) -> bool:
        """Whether a branch or tag of the remote that a request may name has this commit, as far as that is known
        without a fetch."""
        if any(found == commit and remote.is_allowed(name, allowed) for name, found in remote.commits.items()):
            return True
        try:
            here = self._refs(f"--contains={commit}").commits.items()
        except ProjectError:
            return False  # the commit is not here
        return any(remote.commits.get(name) == found and remote.is_allowed(name, allowed) for name, found in here)

    def date(self, commit: str) -> str:
        """Returns the day of a commit."""
        return self._git.run("log", "-1", "--format=%cs", commit, "--", repository=self.path).decode().strip()

    def remote_refs(self, url: str) -> Refs:
        """Asks the remote. Raises ProjectError."""
        given, environment = self._git.dialled(url)
        listed = self._git.run("ls-remote", "--symref", "--", given, environment=environment)
        return parse_refs(listed.decode(errors="replace"))

    def _make(self) -> None:
        if not self.is_there:
            self.path.mkdir(parents=True, exist_ok=True)
            self._git.run("init", "--quiet", "--bare", "--template=", "--", str(self.path), writable=(self.path,))

    def _fetch(self, url: str, *refs: str, options: Sequence[str]) -> None:
        given, environment = self._git.dialled(url)
        fixed = ("fetch", "--quiet", "--force", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules")
        words = (*fixed, *options, "--", given, *refs)
        self._git.run(*words, repository=self.path, writable=(self.path,), environment=environment)

    def _repack(self) -> None:
        packs = list((self.path / "objects" / "pack").glob("*.pack"))
        if len(packs) > _MOST_PACKS:
            words = ("repack", "-a", "-d", "-q", "--keep-unreachable")
            self._git.run(*words, repository=self.path, writable=(self.path,))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path.with_suffix(".lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            # Of a git that was killed: whoever runs one holds our lock. Half a pack may be large.
            for left in (*self.path.rglob("*.lock"), *self.path.glob("objects/pack/tmp_*")):
                left.unlink(missing_ok=True)
            yield


@contextmanager
def using(git: GitRunner, path: Path) -> Iterator[Mirror]:
    """Yields a mirror, which `make_room` leaves meanwhile. Waits while it is being removed. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(_use_file(path), "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        os.utime(lock.fileno())  # when it was used last
        yield Mirror(git, path)


def make_room(projects: Path, most_bytes: int) -> None:
    """Removes mirrors that nobody uses, the longest unused first, until the rest fits."""
    for left in projects.glob(f"*/mirrors/{_GONE}*"):
        with contextlib.suppress(OSError):
            remove_folder(left)  # of one who was killed while removing
    found = []
    for path in projects.glob("*/mirrors/*.git"):
        with contextlib.suppress(OSError):
            found.append((_last_use(path), path, measure(path).bytes))
    total = sum(size for _, _, size in found)
    for _, path, size in sorted(found):
        if total <= most_bytes:
            return
        gone = path.with_name(_GONE + path.name)
        with contextlib.suppress(OSError):
            with open(_use_file(path), "a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.rename(path, gone)
            total -= size
            remove_folder(gone)


def _use_file(path: Path) -> Path:
    return path.with_suffix(".used")


def _last_use(path: Path) -> float:
    used = _use_file(path)
    return (used if used.exists() else path).stat().st_mtime


def parse_refs(text: str) -> Refs:
    """Reads the output of `git ls-remote --symref`."""
    commits: dict[str, str] = {}
    default = None
    for line in _lines(text):
        value, _, name = line.partition("\t")
        if value.startswith("ref: ") and name == "HEAD":
            default = value.removeprefix("ref: ")
        elif name.startswith((_HEADS, _TAGS)) and COMMIT.fullmatch(value):
            commits[name.removesuffix("^{}")] = value  # an annotated tag's commit follows the tag
    return Refs(commits, default)


def _lines(text: str) -> list[str]:
    """Splits what git has listed. Names of refs have what Python, but not git, takes for a line break or a space: who
    may push `main<U+2028>x` would push what counts as main."""
    return text.split("\n")[:-1]


def short(name: str) -> str:
    """Shortens the full name of a ref; not that of a branch `refs/tags/v1`, which would pass for the tag."""
    return re.sub(r"^refs/(heads|tags)/(?!refs/)", "", name)


def resolve(mirror: Mirror, order: Order) -> dict[str, object]:
    """Finds the commit of a ref, or of a commit; returns what the web process is told."""
    ref, allowed = order.ref, order.allow_refs
    if COMMIT.fullmatch(ref):
        return _resolve_commit(mirror, order)
    try:
        refs, problem = mirror.remote_refs(order.url), ""
        mirror.keep_default(refs)
    except ProjectError as error:
        refs, problem = mirror.refs(), str(error)
        if order.must_answer or refs.full_name(ref) is None:
            return {"error": "unreachable", "message": problem}
    if refs.is_ambiguous(ref):
        return {"error": "ambiguous_ref"}
    name = refs.full_name(ref)
    if name is None or name not in refs.commits:
        return {"error": "unknown_ref", "near": refs.nearest(ref, allowed)}
    if ref and not refs.is_allowed(name, allowed):
        return {"error": "not_reachable"}
    commit = refs.commits[name]
    found: dict[str, object] = {"commit": commit, "ref": short(name)}
    return found | ({"remote": problem, "date": mirror.date(commit)} if problem else {})


def list_tags(mirror: Mirror, order: Order) -> dict[str, object]:
    """Lists the tags that match a glob, the highest version first."""
    try:
        refs = mirror.remote_refs(order.url)
    except ProjectError as error:
        if order.must_answer or not mirror.is_there:
            return {"error": "unreachable", "message": str(error)}
        refs = mirror.refs()
    names = (short(name) for name in refs.commits if name.startswith(_TAGS))
    found = sorted((name for name in names if fnmatchcase(name, order.ref)), key=_version, reverse=True)
    return {"tags": found[:_MOST_TAGS]}


def _version(name: str) -> list[tuple[int, str]]:
    """Sorts numbers in names by their value: v1.10 is above v1.9. Of any length, so not as numbers."""
    parts = re.split(r"(\d+)", name)
    return [(len(part.lstrip("0")), part.lstrip("0")) if part.isdecimal() else (0, part) for part in parts]


def _resolve_commit(mirror: Mirror, order: Order) -> dict[str, object]:
    commit, problem = order.ref, ""
    found: dict[str, object] = {"commit": commit, "ref": commit}
    try:
        refs = mirror.remote_refs(order.url)
        if mirror.is_within(commit, refs, order.allow_refs):
            return found
        mirror.fetch(order.url, depth=order.depth)
    except ProjectError as error:
        problem = str(error)
        if order.must_answer or not mirror.has(commit):
            return {"error": "unreachable", "message": problem}
    if not mirror.has(commit):
        return {"error": "unknown_ref", "near": []}
    if not mirror.contains(commit, order.allow_refs):
        return {"error": "not_reachable"}
    return found | ({"remote": problem, "date": mirror.date(commit)} if problem else {})
