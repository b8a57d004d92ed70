"""Copies of a project's tree that one run may write. Made and removed by workers.

The folder of a user's copies is writable in all sandboxes of that user: whoever works in it by path can be led out of
it, by a link that another run of the user puts in the way. So a copy is made, and removed, in a folder that no sandbox
has, and moves from there and back at once.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flansible.errors import RunnerError
from flansible.projects import order, shelf
from flansible.system.atomic_files import new_folder, remove_abandoned

_PREFIX = ".run-"


@contextmanager
def private_copy(tree: Path, folder: Path, principal: str) -> Iterator[Path]:
    """Yields a copy of a tree for a run with these rights; gone afterwards. folder: the project's.

    Raises RunnerError and OSError.
    """
    shown = order.copies(folder, principal)
    aside = shown.with_name(".making")
    for path in (shown, aside):
        path.mkdir(mode=0o755, parents=True, exist_ok=True)
    remove_abandoned(shown, _PREFIX)
    with new_folder(aside, _PREFIX) as made:
        words = ["cp", "-a", "--reflink=auto", "--", f"{tree}/.", str(made)]
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RunnerError(f"project {folder.name} cannot be copied: {done.stderr.strip()[:500]}")
        shelf.make_writable(made)
        target = shown / made.name
        os.rename(made, target)
        try:
            yield target
        finally:
            with contextlib.suppress(OSError):  # the run may have removed it, or put something else in its place
                os.rename(target, made)
                if made.is_symlink():
                    made.unlink()
