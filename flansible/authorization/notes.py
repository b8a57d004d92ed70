"""What confined runs are not shown though they might look for it, in sentences for the user; without others' names.

Called by flansible.worker.sandbox for what flansible.authorization.shown_paths hides. A run prints the notes of its own
folders alone: what is left out of another project is of no use to it.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flansible.authorization import inventory_files
from flansible.authorization.path_parts import is_below, is_in, upwards
from flansible.models import Step

if TYPE_CHECKING:
    from flansible.authorization.shown_paths import ShownPaths

_MOST_NAMES = 5


@dataclass(frozen=True)
class Note:
    """folders: where a run looks for what is left out; none: it concerns every run."""

    text: str
    folders: frozenset[str] = frozenset()


def of(shown: ShownPaths) -> tuple[Note, ...]:
    """Returns the notes on what the rule hides."""
    return *_on_inventories(shown), *_on_variables(shown), *_on_links(shown)


def concerning(notes: Iterable[Note], step: Step, root: str) -> tuple[str, ...]:
    """Returns the notes on what lies in the run's directory, beside its inventories and in its playbooks' projects.

    A project is a folder in playbook_root, or playbook_root itself with playbooks in it. root: playbook_root, resolved.
    """
    directory, end = os.path.realpath(step.cwd), step.argv.index("--")
    inventories = _values(step.argv[:end], "--inventory")
    playbooks = step.argv[end + 1 :] if step.program == "ansible-playbook" else ()
    folders = [os.path.dirname(os.path.realpath(os.path.join(directory, name))) for name in playbooks]
    folders += _values(step.argv[:end], "--playbook-dir") + ([directory] if directory != root else [])
    own = {directory, *inventories, *map(os.path.dirname, inventories)}
    trees = {_project(folder, root) for folder in folders}
    return tuple(
        note.text
        for note in notes
        if not note.folders or any(folder in own or is_in(folder, trees) for folder in note.folders)
    )


def _values(options: Iterable[str], name: str) -> list[str]:
    return [option.removeprefix(f"{name}=") for option in options if option.startswith(f"{name}=")]


def _project(folder: str, root: str) -> str:
    return next((part for part in upwards(folder) if os.path.dirname(part) == root), folder)


def _on_inventories(shown: ShownPaths) -> Iterator[Note]:
    doubtful = defaultdict(list)
    for path in sorted(path for path in shown.beside if inventory_files.kind_of(path) == "names"):
        doubtful[_neighbour(shown, path)].append(_shown_name(shown, path))
    for folder, names in doubtful.items():
        text = f"{', '.join(names[:_MOST_NAMES])}: not shown, since it reads as an inventory that is not yours"
        yield Note(text, frozenset({folder}))
    # In a folder of inventories alone it is no surprise.
    for folder in filter(inventory_files.is_project, sorted(shown.neighbours)):
        found = {path for path in shown.beside if is_below(path, folder)} - shown.others
        if sure := {path for path in found if inventory_files.kind_of(path) != "names"}:
            what = f"{len(sure)} of what lies beside your inventory in {_shown_name(shown, folder)}"
            yield Note(f"{what} not shown, since it reads as inventories that are not yours", frozenset({folder}))
    for path in shown.undecided[:_MOST_NAMES]:
        text = f"{_shown_name(shown, path)}: not shown, since there is too much beside your inventory to be judged"
        yield Note(text, frozenset({_neighbour(shown, path)}))


def _on_variables(shown: ShownPaths) -> Iterator[Note]:
    for place, count in sorted(shown.judged_variables.left_out.items()):
        text = (
            f"{count} of the entries of {_shown_name(shown, place)} not shown, since they are named like hosts or "
            "groups of inventories that are not yours"
        )
        yield Note(text, frozenset(shown.judged_variables.beside[place]))


def _on_links(shown: ShownPaths) -> Iterator[Note]:
    refused = Counter({place: len(links) for place, links in shown.followed_links.refused.items()})
    refused.update(os.path.dirname(link) for link in shown.judged_variables.refused)
    for place, count in sorted(refused.items()):
        name = _shown_name(shown, place) if place else "your inventories"
        folders = shown.judged_variables.beside.get(place) or filter(None, {place})
        yield Note(f"{count} links of {name} lead to what runs of yours are not shown", frozenset(folders))
    if not shown.followed_links.is_whole:
        yield Note("your inventories and what their links lead to are too much: not all links are followed")


def _neighbour(shown: ShownPaths, path: str) -> str:
    """Returns the folder of the user's inventory in which a path was found; its own folder, if none."""
    return next((folder for folder in upwards(path) if folder in shown.neighbours), os.path.dirname(path))


def _shown_name(shown: ShownPaths, path: str) -> str:
    return os.path.relpath(path, shown.root) if is_below(path, shown.root) else path
