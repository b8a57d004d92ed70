"""Random trees of playbooks and inventories with a config.ini and rbac.json, for the tests of what is shown."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hypothesis import strategies as st

from flansible.authorization import shown_paths
from flansible.authorization.shown_paths import ShownPaths, is_below
from flansible.authorization.variable_files import NamesReader
from flansible.config import Settings, load
from flansible.models import Confinement
from flansible.worker import sandbox

# Few names, so that a file is another user's inventory in one example and lies beside one in the next.
NAMES = ("dev", "prod", "hosts", "inventories", "group_vars", "host_vars", "web1.yml", "all", "shop.yml", ".hidden")
PATTERNS = ("inventories, */inventories", "", "dev, */ho*, .*", "*/*")
TARGETS = ("..", "../..", "../prod", "../hosts", "../../hosts", *NAMES)
INVENTORY = "web1\n[web]\nweb1\n"


@dataclass(frozen=True)
class Layout:
    """Files, folders and links in one folder, and what config.ini and rbac.json say of it. All paths relative to it."""

    files: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    root: str = "playbooks"
    readable: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    default: str = ""
    private: str = "rbac.json"
    sandbox_paths: tuple[str, ...] = ()
    patterns: str = PATTERNS[0]


@dataclass(frozen=True)
class Built:
    """A layout that was made in `top`, for a user whose runs are confined."""

    top: Path
    settings: Settings
    confinement: Confinement

    @property
    def shown(self) -> ShownPaths:
        return shown_paths.of(self.confinement.readable, self.confinement.hidden, self.settings)

    def paths(self) -> list[str]:
        """Each file and link."""
        found = [os.path.join(folder, name) for folder, dirs, names in os.walk(self.top) for name in (*names, *dirs)]
        return [path for path in found if os.path.islink(path) or not os.path.isdir(path)]

    def named(self, paths: list[str]) -> set[str]:
        return {os.path.relpath(path, self.top) for path in paths}

    def listed(self) -> set[str]:
        """What web processes may read to the user."""
        shown = self.shown
        return self.named([path for path in self.paths() if shown.is_listed(path)])

    def ruled(self, reader: NamesReader | None = None) -> set[str]:
        """What the rule shows to the user's runs."""
        shown = shown_paths.of(self.confinement.readable, self.confinement.hidden, self.settings, reader=reader)
        trees = list(filter(os.path.exists, (shown.root, *shown.readable, *shown.opened, *shown.variables)))
        visible = [path for path in self.paths() if any(is_below(path, tree) for tree in trees)]
        return self.named([path for path in visible if not shown.is_hidden(path)])

    def mounted(self) -> set[str]:
        """What bubblewrap's arguments show at its own path, and the links that they make."""
        words = sandbox.trees(self.confinement, self.settings).arguments
        binds = [words[index + 1] for index, word in enumerate(words) if word == "--ro-bind"]
        links = {words[index + 2] for index, word in enumerate(words) if word == "--symlink"}
        return self.named(
            [path for path in self.paths() if path in links or any(is_below(path, bind) for bind in binds)]
        )


@contextlib.contextmanager
def built(layout: Layout) -> Iterator[Built]:
    top = Path(os.path.realpath(tempfile.mkdtemp(prefix="flansible-shown-")))
    try:
        _make(top, layout)
        readable = tuple(os.path.realpath(top / path) for path in layout.readable)
        # As identity.users has it: what lies in an inventory or path of the user's is not hidden from them.
        others = (os.path.realpath(top / path) for path in layout.others)
        hidden = tuple(path for path in others if not any(is_below(path, own) for own in readable))
        yield Built(top, load(str(top / "config.ini"), {}), Confinement(readable=readable, hidden=hidden))
    finally:
        shutil.rmtree(top)


def _make(top: Path, layout: Layout) -> None:
    (top / layout.root).mkdir(parents=True, exist_ok=True)
    # Names collide: what cannot be made, since something else has its place, is left out.
    for path in (top / name for name in layout.folders):
        with contextlib.suppress(OSError):
            path.mkdir(parents=True)
    for path in (top / name for name in layout.files):
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(INVENTORY)
    for name, target in layout.links:
        with contextlib.suppress(OSError):
            (top / name).parent.mkdir(parents=True, exist_ok=True)
            (top / name).symlink_to(target)
    (top / "config.ini").write_text(
        f"[Default]\nplaybook_root = {layout.root}\nrbac_file = {layout.private}\nhidden_paths = {layout.patterns}\n"
        f"default_inventory = {layout.default}\nsandbox_paths = {', '.join(layout.sandbox_paths)}\n"
    )


_names = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map("/".join)
_paths = st.one_of(_names, _names.map("playbooks/{}".format))


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    files = draw(st.lists(_paths, max_size=12))
    paths = st.one_of(st.sampled_from(files), _paths) if files else _paths
    few_paths = st.lists(paths, max_size=2).map(tuple)
    return Layout(
        files=tuple(files),
        folders=draw(few_paths),
        links=draw(st.lists(st.tuples(_paths, st.sampled_from(TARGETS)), max_size=3).map(tuple)),
        root=draw(st.sampled_from(("playbooks", "playbooks/dev", "."))),
        readable=draw(few_paths),
        others=draw(few_paths),
        default=draw(st.one_of(st.just(""), paths)),
        private=draw(st.one_of(st.just("rbac.json"), paths)),
        sandbox_paths=draw(few_paths),
        patterns=draw(st.sampled_from(PATTERNS)),
    )
