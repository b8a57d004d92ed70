"""A worker's thread for projects: what it reports to the store, and that room is made without a run."""

from __future__ import annotations

from pathlib import Path

from flansible.projects import order
from flansible.projects.order import Bounds
from flansible.projects.shelf import Shelf
from flansible.store import Store
from flansible.worker.project_upkeep import ProjectUpkeep

COMMIT = "c" * 40
ROOMY = Bounds(1 << 40, 1e9, 1 << 40)


def build(shelf: Shelf) -> None:
    shelf.make()
    lease = shelf.lease(COMMIT)
    with shelf.building(COMMIT) as folder:
        assert folder is not None
        (folder / "site.yml").write_text("[]")
    lease.close()


def test_trees_are_reported_in_use_and_at_hand_until_they_are_gone(store: Store, tmp_path: Path) -> None:
    shelf = order.trees(tmp_path / "shop")
    build(shelf)
    upkeep = ProjectUpkeep(store, "w@host", tmp_path, ROOMY)
    upkeep.tick()
    [kept] = store.trees("shop")["w@host"]
    assert (kept.commit, kept.in_use, kept.bytes > 0) == (COMMIT, False, True)
    with upkeep.following():
        lease = shelf.lease(COMMIT)
        upkeep.tick()
        assert store.trees("shop")["w@host"][0].in_use
        lease.close()
    upkeep.tick()
    assert not store.trees("shop")["w@host"][0].in_use
    assert shelf.remove_unused(COMMIT)
    with upkeep.following():
        upkeep.tick()
    assert store.trees("shop") == {}


def test_what_is_over_the_bounds_goes_though_nothing_runs(store: Store, tmp_path: Path) -> None:
    shelf = order.trees(tmp_path / "shop")
    build(shelf)
    lease = shelf.lease(COMMIT)
    ProjectUpkeep(store, "w@host", tmp_path, Bounds(0, 1e9, 0)).tick()
    assert shelf.is_there(COMMIT)  # a run uses it
    lease.close()
    ProjectUpkeep(store, "w@host", tmp_path, Bounds(0, 1e9, 0)).tick()
    assert not shelf.path(COMMIT).exists() and store.trees("shop") == {}
