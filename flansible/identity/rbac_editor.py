"""Changes rbac.json: under its lock, with the order of entries and keys kept, and only to a file that is valid.

Called by flansible.identity.passwords and by the commands in flansible.identity.admin_commands.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flansible.errors import ConfigurationError, Fault
from flansible.identity import users as rbac_users
from flansible.system import atomic_files

Document = dict[str, Any]


@contextmanager
def editing(path: Path, *, is_trial: bool = False) -> Iterator[Document]:
    """Yields the file's content, and writes what the body has made of it. is_trial: nothing is written.

    A file that does not exist is one without users. Raises ConfigurationError; then the file is as it was.
    """
    try:
        with atomic_files.exclusive_lock(path):
            document = read(path)
            yield document
            text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
            rbac_users.parse(text, path)
            if not is_trial:
                atomic_files.replace(path, text)
    except OSError as error:
        raise ConfigurationError([Fault(str(path), "", f"cannot be locked: {error}")]) from error


def read(path: Path) -> Document:
    """Reads a valid file. Raises ConfigurationError."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {"rbac": []}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError([Fault(str(path), "", f"cannot be read: {error}")]) from error
    rbac_users.parse(text, path)
    document: Document = json.loads(text)
    return document


def entry_of(document: Document, user: str) -> dict[str, Any] | None:
    """Returns the entry of a user, to be changed in place."""
    return next((entry for entry in document["rbac"] if entry["user"] == user), None)


def set_password(document: Document, user: str, hashed: str, inventories: tuple[str, ...]) -> bool:
    """Sets a user's password, and the inventories if any are given; True if the user is new."""
    entry = entry_of(document, user)
    is_new = entry is None
    if entry is None:
        entry = {"user": user, "password": "", "inventories": []}
        document["rbac"].append(entry)
    entry["password"] = hashed
    if inventories:
        entry["inventories"] = [os.path.abspath(path) for path in inventories]
    return is_new


def set_groups(document: Document, user: str, groups: tuple[str, ...]) -> None:
    """Sets the groups of a user, who has to be there; without any the key is removed."""
    entry = entry_of(document, user)
    assert entry is not None
    if groups:
        entry["groups"] = list(groups)
    else:
        entry.pop("groups", None)


def remove(document: Document, user: str) -> None:
    document["rbac"] = [entry for entry in document["rbac"] if entry["user"] != user]
