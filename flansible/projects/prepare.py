"""Makes a commit ready on this machine: fetched, its signature verified, its tree written, its requirements installed.

Called in a run process of the runner, whose output is the task's: each step says what it does.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from flansible.errors import ProjectError
from flansible.projects import checkout, requirements, shelf
from flansible.projects import mirror as mirrors
from flansible.projects.git_command import GitRunner, prepared
from flansible.projects.mirror import Mirror, list_tags, resolve, using
from flansible.projects.order import Bounds, Order, all_shelves, trees
from flansible.projects.order import requirements as requirements_shelf

Say = Callable[[str], object]


def answer(fields: dict[str, Any], credential: dict[str, str]) -> dict[str, Any]:
    """Carries out an order to resolve a ref or to list tags; returns what is found, or which error it is."""
    order = Order.of(fields)
    order.own_folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    try:
        with prepared(order, credential) as git, using(git, order.mirror) as mirror:
            return list_tags(mirror, order) if order.what == "tags" else resolve(mirror, order)
    except ProjectError as error:
        return {"error": "unreachable", "message": str(error)}


def make_ready(fields: dict[str, Any], credential: dict[str, str], say: Say) -> None:
    """Carries out an order to prepare a commit. Raises ProjectError in words for the user, and OSError."""
    order = Order.of(fields)
    kept_trees, kept = trees(order.own_folder), requirements_shelf(order.own_folder)
    for one in (kept_trees, kept):
        one.make()
    with ExitStack() as stack:
        stack.callback(kept_trees.lease(order.tree).close)
        with prepared(order, credential) as git:
            _make_tree(git, stack.enter_context(using(git, order.mirror)), say)
        tree = kept_trees.path(order.tree)
        found = requirements.of(tree, order.requirements, order.is_admins)
        if found is not None:
            stack.callback(kept.lease(found.key).close)
            with kept.building(found.key) as folder:
                if folder is not None:
                    say(f"installing {', '.join(found.files)}")
                    # Whatever Galaxy runs could use a credential: it starts after the project's is gone.
                    with prepared(order, {}) as git:
                        said = requirements.install(git, tree, found, folder)
                    for line in said.splitlines():
                        say(line)
                    try:
                        checkout.remove_outer_links(folder)
                    except RecursionError:
                        raise ProjectError("what is installed has too many folders in one another") from None
        make_room(Path(order.folder), order.bounds)


def tree_of(fields: dict[str, Any]) -> Path:
    """Returns where the tree of an order is, or will be."""
    order = Order.of(fields)
    return trees(order.own_folder).path(order.tree)


def write_tree(fields: dict[str, Any], say: Say) -> None:
    """Writes the tree of a commit that the mirror has; does nothing for any other, and for what needs more than that.

    For the worker's own process: it fetches nothing, waits for nobody, and is ended after the order's seconds. Raises
    ProjectError and OSError.
    """
    order = Order.of(fields)
    if order.submodules or order.allowed_signers is not None or not order.sandbox or not order.mirror.is_dir():
        return
    with (
        prepared(order, {}) as git,
        using(git, order.mirror) as mirror,
        trees(order.own_folder).building(order.tree, may_wait=False) as folder,
    ):
        if folder is None:
            return
        if (day := checkout.write(git, mirror, order.commit, folder)) is None:
            raise ProjectError("the commit has to be fetched")
        checkout.complete(git, mirror, folder, say, is_offline=True)
        say(f"{order.name} at {order.commit[:12]} of {day}")


def make_room(projects: Path, bounds: Bounds) -> None:
    """Removes what no run uses and is more than may be kept, of all projects on this machine."""
    shelf.make_room(all_shelves(projects), bounds.bytes, bounds.kept_seconds, time.time())
    mirrors.make_room(projects, bounds.mirror_bytes)


def _make_tree(git: GitRunner, mirror: Mirror, say: Say) -> None:
    order = git.order
    with trees(order.own_folder).building(order.tree) as folder:
        if folder is None:
            return
        day = checkout.write(git, mirror, order.commit, folder)
        if day is None:
            say(f"fetching {order.name} from {order.url}")
            mirror.fetch(order.url, depth=order.depth, commit=order.commit)
            day = checkout.write(git, mirror, order.commit, folder)
        if day is None:
            raise ProjectError(f"the remote has no commit {order.commit}, or not any more")
        if order.allowed_signers is not None:
            _verify(git, mirror)
        checkout.complete(git, mirror, folder, say)
        say(f"{order.name} at {order.commit[:12]} of {day}")


def _verify(git: GitRunner, mirror: Mirror) -> None:
    """Raises ProjectError unless one of the allowed signers has signed the commit."""
    assert git.order.allowed_signers is not None
    signers = git.private / "allowed_signers"
    signers.write_text(git.order.allowed_signers)
    option = f"gpg.ssh.allowedSignersFile={signers}"
    done = git.execute(["git", f"--git-dir={mirror.path}", "-c", option, "verify-commit", git.order.commit])
    if done.returncode != 0:
        raise ProjectError(f"commit {git.order.commit[:12]} has no signature of an allowed signer")
