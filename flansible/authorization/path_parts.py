"""Compares paths by their parts: absolute strings with links resolved. Called by the rule on shown paths."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator


def is_below(path: str, folder: str) -> bool:
    """Whether a path is the folder, or in it."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def is_in(path: str, folders: Container[str]) -> bool:
    """Whether a path is one of these, or in one."""
    return any(part in folders for part in upwards(path))


def longest(parts: Iterable[str], folders: Container[str]) -> int:
    """Returns the length of the longest part of a path that is one of these, 0 if none is. parts: of `upwards`."""
    for part in parts:
        if part in folders:
            return len(part)
    return 0


def upwards(path: str) -> list[str]:
    """Returns the path and the folders around it, from the inside out."""
    return [path, *above(path)]


def above(path: str) -> Iterator[str]:
    """Yields the folders around a path, from the inside out."""
    if not path.startswith("/"):
        raise ValueError(f"{path} is not absolute")
    while path != "/":
        path = path[: path.rindex("/")] or "/"
        yield path
