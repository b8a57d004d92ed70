"""Copies of a project's tree that one run may write. Made and removed by workers.

The folder of a user's copies is writable in all sandboxes of that user: whoever works in it by path can be led out of
it, by a link that another run of the user puts in the way. So a copy is made, and removed, in a folder that no sandbox
has, and moves from there and back at once.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from flansible.errors import RunnerError
from flansible.projects import order, shelf
from flansible.system.atomic_files import new_folder, remove_abandoned, writable_folder

_PREFIX = ".run-"
_TICK_SECONDS = 0.1


@contextmanager
def private_copy(tree: Path, folder: Path, principal: str, must_end: Callable[[], bool]) -> Iterator[Path]:
    """Yields a copy of a tree for a run with these rights; gone afterwards.

    folder: the project's; must_end: asked while the copy is made, which ends once it says so. Raises RunnerError, then
    as well, and OSError.
    """
    shown = order.copies(folder, principal)
    aside = shown.with_name(".making")
    for path in (shown, aside):
        path.mkdir(mode=0o755, parents=True, exist_ok=True)
    remove_abandoned(shown, _PREFIX)
    with new_folder(aside, _PREFIX) as made:
        _copy(tree, made, folder.name, must_end)
        shelf.make_writable(made)
        target = shown / made.name
        os.rename(made, target)
        try:
            yield target
        finally:
            with contextlib.suppress(OSError):  # the run may have removed it, or put something else in its place
                with contextlib.suppress(NotADirectoryError), writable_folder(target):
                    pass
                os.rename(target, made)


def _copy(tree: Path, made: Path, project: str, must_end: Callable[[], bool]) -> None:
    words = ["cp", "-a", "--reflink=auto", "--", f"{tree}/.", str(made)]
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as copying:
        said = None
        while said is None:
            try:
                _, said = copying.communicate(timeout=_TICK_SECONDS)
            except subprocess.TimeoutExpired:
                if must_end():
                    copying.kill()
                    raise RunnerError(f"the copy of project {project} was ended") from None
    if copying.returncode != 0:
        raise RunnerError(f"project {project} cannot be copied: {said.strip()[:500]}")
