"""Writes rbac.json: for `flansible passwd`, and the files that `flansible init` and `flansible up` make."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from werkzeug.security import generate_password_hash

from flansible.config import is_loopback
from flansible.errors import ConfigurationError, Fault
from flansible.identity import users as rbac_users
from flansible.system import atomic_files

DEFAULT_ADMIN_PASSWORD = "admin"
MIN_CHARACTERS = 8
ADVICE = "set one with `flansible passwd admin`, or listen on 127.0.0.1 (Flask_tcp_ip, flower_tcp_ip)"


def set_password(path: Path, user: str, password: str, inventories: tuple[str, ...] = ()) -> bool:
    """Stores a scrypt hash for `user`; True if the user is new. Raises ConfigurationError; then nothing changed."""
    hashed = generate_password_hash(password)  # takes long: not while others wait
    try:
        with atomic_files.exclusive_lock(path):
            text, is_new = _changed(path, user, hashed, inventories)
            atomic_files.replace(path, text)
    except OSError as error:
        raise ConfigurationError([Fault(str(path), "", f"cannot be written: {error}")]) from error
    return is_new


def is_too_short(user: str, password: str) -> bool:
    """Whether a new password could be guessed: admin's must have MIN_CHARACTERS. Other users have fewer rights."""
    return user == rbac_users.ADMIN and len(password) < MIN_CHARACTERS


def check(path: Path, user: str, inventories: tuple[str, ...] = ()) -> None:
    """Raises ConfigurationError if `set_password` would, for the user or the inventories."""
    _changed(path, user, "any", inventories)


def _changed(path: Path, user: str, hashed: str, inventories: tuple[str, ...]) -> tuple[str, bool]:
    """Returns the new text of the file, and whether the user is new."""
    document = _read(path)
    entry = next((item for item in document["rbac"] if item["user"] == user), None)
    is_new = entry is None
    if entry is None:
        entry = {"user": user, "password": "", "inventories": []}
        document["rbac"].append(entry)
    entry["password"] = hashed
    if inventories:
        entry["inventories"] = [os.path.abspath(path) for path in inventories]
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    rbac_users.parse(text, path)
    return text, is_new


def create_default(path: Path) -> None:
    """Creates rbac.json with the user admin, password admin: for a service that only this machine can reach."""
    atomic_files.replace(path, _admin_document(DEFAULT_ADMIN_PASSWORD))


def new_document(password: str) -> str:
    """Returns the text of an rbac.json with the user admin alone, whose password is stored as a hash."""
    return _admin_document(generate_password_hash(password))


def _admin_document(stored: str) -> str:
    document = {"rbac": [{"user": rbac_users.ADMIN, "password": stored, "inventories": []}]}
    return json.dumps(document, indent=2) + "\n"


def has_default_admin(users: dict[str, rbac_users.User]) -> bool:
    """Whether admin's password is still the default."""
    admin = users.get(rbac_users.ADMIN)
    return admin is not None and rbac_users.password_matches(admin.password, DEFAULT_ADMIN_PASSWORD)


def refuse_default_admin(path: Path, addresses: list[str]) -> None:
    """Raises ConfigurationError if admin has the default password and one of `addresses` is not loopback."""
    reachable = next((address for address in addresses if not is_loopback(address)), None)
    if reachable and has_default_admin(rbac_users.RbacFile(path).users()):
        message = f"admin's password is still the default, and {reachable} is not a loopback address; {ADVICE}"
        raise ConfigurationError([Fault(str(path), "admin", message)])


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {"rbac": []}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError([Fault(str(path), "", f"cannot be read: {error}")]) from error
    rbac_users.parse(text, path)
    document: dict[str, Any] = json.loads(text)
    return document
