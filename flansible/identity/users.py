"""Who is who: rbac.json to users, passwords to users. What each may do is in flansible.authorization.

The form of the file is flansible.identity.rbac_schema's. No Flask, no Redis: the web process and Flower ask. Reading
again when the file changes is in `RbacFile`.
"""

from __future__ import annotations

import dataclasses
import hmac
import logging
import os
import re
import threading
from hashlib import blake2b
from pathlib import Path
from typing import Protocol

from werkzeug.security import check_password_hash, generate_password_hash

from flansible.errors import ConfigurationError, Fault
from flansible.identity import rbac_schema
from flansible.identity.rbac_schema import Role, UserEntry
from flansible.system import atomic_files
from flansible.system.atomic_files import OnChange, ignore_change

log = logging.getLogger(__name__)

ADMIN = rbac_schema.ADMIN
_HASH = re.compile(r"(scrypt|pbkdf2):[^$]+\$[^$]+\$[0-9a-f]+")
_CACHED_PASSWORDS = 1000
_OUR_METHOD = "scrypt:32768:8:1"  # generate_password_hash's own


@dataclasses.dataclass(frozen=True)
class User:
    """One user of rbac.json; all paths are resolved. What is None or empty restricts nothing, or adds nothing.

    playbooks: globs below playbook_root; modules_allowed, modules_denied: globs of names; hosts: Ansible patterns;
    max_running, max_queued: None is config.ini's, 0 none; hidden: inventories that are others' alone.
    """

    name: str
    password: str = dataclasses.field(repr=False)
    inventories: tuple[Path, ...]
    max_running: int | None = None
    max_queued: int | None = None
    role: Role = "operator"
    playbooks: tuple[str, ...] | None = None
    modules_allowed: tuple[str, ...] | None = None
    modules_denied: tuple[str, ...] = ()
    hosts: tuple[str, ...] | None = None
    may_become: bool = True
    may_use_git: bool = True
    control_node: bool = False
    paths: tuple[Path, ...] = ()
    environment: tuple[str, ...] = ()
    max_forks: int | None = None
    max_seconds: int | None = None
    hidden: tuple[Path, ...] = ()

    @property
    def is_admin(self) -> bool:
        return self.name == ADMIN

    @property
    def sees_all(self) -> bool:
        """Whether everybody's tasks are shown, not only the user's own."""
        return self.is_admin or self.role == "auditor"

    @property
    def readable(self) -> tuple[Path, ...]:
        """What the user's runs may read beside playbook_root; what lies in these folders too."""
        return self.inventories + self.paths


def parse(text: str, source: Path) -> dict[str, User]:
    """Users by name. Raises ConfigurationError with every fault of the text, each with its key."""
    users = [_user(entry, source.parent) for entry in rbac_schema.read(text, source).rbac]
    inventories = sorted({path for user in users for path in user.inventories})
    return {user.name: dataclasses.replace(user, hidden=_not_of(user, inventories)) for user in users}


def _user(entry: UserEntry, base: Path) -> User:
    modules, limits = entry.modules, entry.limits
    return User(
        name=entry.user,
        password=entry.password,
        inventories=tuple(resolve(path, base) for path in entry.inventories),
        max_running=limits.running,
        max_queued=limits.queued,
        role=entry.role,
        playbooks=None if entry.playbooks is None else tuple(entry.playbooks),
        modules_allowed=None if modules is None or modules.allow is None else tuple(modules.allow),
        modules_denied=tuple(modules.deny or ()) if modules else (),
        hosts=None if entry.hosts is None else tuple(entry.hosts),
        may_become=entry.become,
        may_use_git=entry.playbooks is None if entry.git is None else entry.git,
        control_node=entry.control_node,
        paths=tuple(resolve(path, base) for path in entry.paths),
        environment=tuple(entry.environment),
        max_forks=limits.forks,
        max_seconds=limits.time_limit,
    )


def _not_of(user: User, inventories: list[Path]) -> tuple[Path, ...]:
    return tuple(path for path in inventories if not any(path.is_relative_to(own) for own in user.readable))


def resolve(path: str, base: Path | str) -> Path:
    """The real path, symlinks and `..` resolved; a relative one counts from `base`. It need not exist."""
    return Path(os.path.realpath(os.path.join(base, os.path.expanduser(path))))


def is_hash(password: str) -> bool:
    return _HASH.fullmatch(password) is not None


def password_matches(stored: str, given: str) -> bool:
    """Whether `given` is the password that `stored` (plain or werkzeug's hash format) stands for."""
    try:
        if is_hash(stored):
            return check_password_hash(stored, given)
        return hmac.compare_digest(stored.encode(), given.encode())
    except ValueError:  # parameters that the hash cannot have, or text that has no bytes
        return False


class Gate(Protocol):
    """Counts wrong passwords, and lets no more be tried when there were too many."""

    def enter(self) -> None:
        """A password is about to be checked. What this raises leaves it unchecked."""

    def was_wrong(self) -> None:
        """It was."""


class _OpenGate:
    def enter(self) -> None:
        pass

    def was_wrong(self) -> None:
        pass


_OPEN = _OpenGate()


class RbacFile:
    """rbac.json, read again when it changes; a broken edit keeps the last good users and is told in `fault`.

    Verifying a hash costs tens of milliseconds on purpose. A password that was right is remembered in memory, under a
    key only this process knows, until the file changes: polling stays cheap and a removed user is out at once.
    """

    def __init__(self, path: Path, on_change: OnChange = ignore_change) -> None:
        """Raises ConfigurationError when the file is missing or wrong: there is no last good one yet."""
        self.path = path
        self.fault: str | None = None
        self._on_change = on_change
        self._lock = threading.Lock()
        # A check takes a core and 32 MB. One at a time: a client that opens many connections at once is checked once,
        # and wrong passwords, however many, leave the other cores to those whose password is known.
        self._checking = threading.Lock()
        self._secret = os.urandom(32)
        self._verified: set[tuple[str, bytes]] = set()
        self._no_ones = {_OUR_METHOD: generate_password_hash(os.urandom(16).hex(), _OUR_METHOD)}
        self._stamp, self._users = self._read()

    def authenticate(self, name: str, password: str, gate: Gate = _OPEN) -> User | None:
        """The user whose password this is, or None. An unknown name costs as much as a wrong password.

        The gate is not asked for a password that was right before: who locks a user out by guessing does not lock out
        the clients that this process knows.
        """
        if (user := self.known(name, password)) is not None:
            return user
        with self._checking:
            if (user := self.known(name, password)) is not None:
                return user
            gate.enter()
            user = self.users().get(name)
            if not self._is_right(user, password):
                # Told before the next one is let in: who tries many at once has no more tries.
                gate.was_wrong()
                return None
            return user

    def known(self, name: str, password: str) -> User | None:
        """The user, when this was found to be the password before; costs next to nothing."""
        user = self.users().get(name)
        return user if user and (name, self._digest(user.password, password)) in self._verified else None

    def _digest(self, stored: str, given: str) -> bytes:
        """What a password that was right is remembered by; keyed BLAKE2, because HMAC takes twice as long."""
        pair = f"{stored}\0{given}".encode(errors="surrogatepass")
        return blake2b(pair, key=self._secret, digest_size=32).digest()

    def _is_right(self, user: User | None, password: str) -> bool:
        """Whether it is the user's password; then it is remembered.

        However the user's password is stored, and for a user that does not exist: the work is the same, one check of
        each method of hashing that is in the file, and of ours. Else the time would tell who exists.
        """
        mine = _method(user.password) if user else None
        found = False
        for method in {_OUR_METHOD, mine, *(_method(one.password) for one in self._users.values())}:
            if user is not None and method == mine:
                found = password_matches(user.password, password)
            elif method is not None:
                password_matches(self._no_ones_of(method), password)
        if user is None or not found or "\0" in password:
            return False
        with self._lock:
            if len(self._verified) >= _CACHED_PASSWORDS:
                self._verified.clear()
            self._verified.add((user.name, self._digest(user.password, password)))
        return True

    def _no_ones_of(self, method: str) -> str:
        """A hash by this method that no password fits: a wrong one costs what a wrong one for a real user does."""
        if method not in self._no_ones:
            algorithm = method.partition(":")[0]
            length = 128 if algorithm == "scrypt" else 64
            self._no_ones[method] = f"{method}${'x' * 16}${'0' * length}"
        return self._no_ones[method]

    def users(self) -> dict[str, User]:
        """The users in force now."""
        try:
            stamp = atomic_files.stamp(self.path)
        except OSError:
            stamp = None
        if stamp != self._stamp:
            with self._lock:
                if stamp != self._stamp:
                    self._reload(stamp)
        return self._users

    def _reload(self, stamp: tuple[int, ...] | None) -> None:
        try:
            self._stamp, self._users = self._read()
            self._verified = set()
            self.fault = None
            log.info("%s changed and was read again: %d users", self.path, len(self._users))
            self._on_change(f"{len(self._users)} users", True)
        except ConfigurationError as error:
            # Remember the broken version's stamp, so that it is logged once and read again only when edited.
            self._stamp, self.fault = stamp, str(error)
            log.error("%s; the last good version stays in force", error)
            self._on_change(f"the last good version stays in force: {error}", False)

    def _read(self) -> tuple[tuple[int, ...] | None, dict[str, User]]:
        try:
            stamp = atomic_files.stamp(self.path)
            text = self.path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            hint = "run `flansible up` once to have one made, or `flansible passwd admin`"
            raise ConfigurationError([Fault(str(self.path), "", f"cannot be read ({error}); {hint}")]) from error
        return stamp, parse(text, self.path)


def _method(stored: str) -> str | None:
    """How a password was hashed, with all parameters: what a check of it costs. None when it is plain."""
    return stored.partition("$")[0] if is_hash(stored) else None
