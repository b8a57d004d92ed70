"""Writes rbac.json: for `flansible passwd`, and the files that `flansible init` and `flansible up` make."""

from __future__ import annotations

import json
from pathlib import Path

from werkzeug.security import generate_password_hash

from flansible.config import is_loopback
from flansible.errors import ConfigurationError, Fault
from flansible.identity import rbac_editor
from flansible.identity import users as rbac_users
from flansible.system import atomic_files

DEFAULT_ADMIN_PASSWORD = "admin"
MIN_CHARACTERS = 8
ADVICE = "set one with `flansible passwd admin`, or listen on 127.0.0.1 (Flask_tcp_ip, flower_tcp_ip)"


def set_password(path: Path, user: str, password: str, inventories: tuple[str, ...] = ()) -> bool:
    """Stores a scrypt hash for `user`; True if the user is new. Raises ConfigurationError; then nothing changed."""
    hashed = generate_password_hash(password)  # takes long: not while others wait
    with rbac_editor.editing(path) as document:
        return rbac_editor.set_password(document, user, hashed, inventories)


def is_too_short(user: str, password: str) -> bool:
    """Whether a new password could be guessed: admin's must have MIN_CHARACTERS. Other users have fewer rights."""
    return user == rbac_users.ADMIN and len(password) < MIN_CHARACTERS


def check(path: Path, user: str, inventories: tuple[str, ...] = ()) -> None:
    """Raises ConfigurationError if `set_password` would, for the user or the inventories."""
    with rbac_editor.editing(path, is_trial=True) as document:
        rbac_editor.set_password(document, user, "any", inventories)


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
