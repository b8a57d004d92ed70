"""Finds the roles that a play uses, and where their argument_specs may lie. Called by flansible.playbooks.contents.

Static names only: a template or a path as the name of a role is not followed. Nothing is executed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import yaml

from flansible.playbooks import ansible_cfg, yaml_outline

_NAME = re.compile(r"\w[\w.-]{0,200}")
_SECTIONS = ("pre_tasks", "tasks", "post_tasks", "handlers")
_BLOCKS = ("block", "rescue", "always")
_INCLUDES = tuple(prefix + name for prefix in ("", "ansible.builtin.") for name in ("include_role", "import_role"))
_COLLECTION_DOTS = 2


class UsedRole(NamedTuple):
    """A role of a play. entry: the entry point of its argument_specs."""

    name: str
    entry: str


class SearchPath(NamedTuple):
    """Folders of roles and of collections, as the ansible.cfg of a run's directory names them."""

    roles: tuple[Path, ...] = ()
    collections: tuple[Path, ...] = ()


def of(play: dict[str, yaml.Node]) -> Iterator[UsedRole]:
    """Yields the roles in `roles`, and those that play tasks include or import, also within blocks."""
    for item in yaml_outline.items(play.get("roles")):
        found = yaml_outline.entries(item)
        name = yaml_outline.text(found.get("role") or found.get("name")) if found else yaml_outline.text(item)
        if _NAME.fullmatch(name):
            yield UsedRole(name, "main")
    seen: set[int] = set()
    for section in _SECTIONS:
        yield from _included(play.get(section), seen)


def _included(tasks: yaml.Node | None, seen: set[int]) -> Iterator[UsedRole]:
    # With aliases, a list can contain itself, or be reached in a billion ways.
    if tasks is None or id(tasks) in seen:
        return
    seen.add(id(tasks))
    for item in yaml_outline.items(tasks):
        task = yaml_outline.entries(item)
        for word in _BLOCKS:
            yield from _included(task.get(word), seen)
        arguments = next((yaml_outline.entries(task[word]) for word in _INCLUDES if word in task), {})
        name = yaml_outline.text(arguments.get("name") or arguments.get("role"))
        entry = os.path.splitext(yaml_outline.text(arguments.get("tasks_from")) or "main")[0]
        if _NAME.fullmatch(name):
            yield UsedRole(name, entry)


def folders(role: str, playbook_folder: Path, search: SearchPath) -> Iterator[Path]:
    """Yields the folders that the role may be in, in Ansible's order."""
    if role.count(".") == _COLLECTION_DOTS:
        namespace, collection, name = role.split(".")
        for base in (playbook_folder / "collections", *search.collections):
            yield base / "ansible_collections" / namespace / collection / "roles" / name
    for base in (playbook_folder / "roles", *search.roles, playbook_folder):
        yield base / role


def search_path(directory: Path, may_read: Callable[[Path], bool]) -> SearchPath:
    """Reads roles_path and collections_path of the ansible.cfg in a run's directory."""
    path = Path(os.path.realpath(directory / "ansible.cfg"))
    options = ansible_cfg.defaults(path) if may_read(path) else {}
    collections = options.get("collections_path") or options.get("collections_paths") or ""
    return SearchPath(_paths(options.get("roles_path", ""), path.parent), _paths(collections, path.parent))


def _paths(value: str, base: Path) -> tuple[Path, ...]:
    words = (word.strip() for word in value.split(os.pathsep))
    return tuple(base / os.path.expanduser(word) for word in words if word and "\0" not in word and "{{" not in word)
