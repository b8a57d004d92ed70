"""Reads rbac.json into users and checks their passwords. What each user may do is in flansible.authorization.

The form of the file is in flansible.identity.rbac_schema; `RbacFile` reads it again when it changes. Called by the web
processes, Flower and the commands. No Flask, no Redis.
"""

from __future__ import annotations

import dataclasses
import hmac
import logging
import os
import re
import shlex
import threading
from collections.abc import Callable, Iterable
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Protocol

from werkzeug.security import check_password_hash, generate_password_hash

from flansible.config import Settings
from flansible.errors import ConfigurationError, Fault
from flansible.identity import rbac_schema
from flansible.identity.rbac_schema import PROJECT_PATH, Cancels, GroupEntry, Role, Sees, UserEntry
from flansible.identity.writable_folders import Grants, WritableFolders
from flansible.system import account, atomic_files
from flansible.system.atomic_files import OnChange, ignore_change

log = logging.getLogger(__name__)

ADMIN = rbac_schema.ADMIN
OWN_ENTRY = "own"
GROUP_PREFIX = "group:"
_HASH = re.compile(r"(scrypt|pbkdf2):[^$]+\$[^$]+\$[0-9a-f]+")
_CACHED_PASSWORDS = 1000
_OUR_METHOD = "scrypt:32768:8:1"  # generate_password_hash's own


@dataclasses.dataclass(frozen=True)
class ProjectGrant:
    """A project that an entry may use. refs: globs of those at which its inventories count, beside its own."""

    name: str
    refs: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class User:
    """A user of rbac.json, with all paths resolved. A field that is None or empty restricts nothing, or adds nothing.

    These are the rights of one entry: the user's own, or that of a group (`entry`), under the user's name. The rules of
    flansible.authorization judge one entry at a time: what `entries` has. as_member: the entries of the user's groups.

    playbooks: globs below playbook_root; modules_allowed, modules_denied: globs of names; hosts: Ansible patterns;
    max_running, max_queued: None is config.ini's value, 0 no limit; hidden: inventories of other entries only;
    writable: folders that the user's runs may write; written: those that any user's runs may; credentials: globs of
    names; queues: by name, each with its inventories, resolved or as `shop:inventories/dev`; sees, cancels: whose
    tasks. project_inventories: those in projects, as `shop:inventories/dev`. Limits are the user's, the same in each
    entry.
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
    lasting_processes: bool = False
    paths: tuple[Path, ...] = ()
    environment: tuple[str, ...] = ()
    max_forks: int | None = None
    max_seconds: int | None = None
    hidden: tuple[Path, ...] = ()
    writable: tuple[Path, ...] = ()
    written: tuple[Path, ...] = ()
    projects: tuple[ProjectGrant, ...] = ()
    project_inventories: tuple[str, ...] = ()
    may_define: tuple[str, ...] = ()
    credentials: tuple[str, ...] = ()
    queues: tuple[tuple[str, tuple[str, ...]], ...] = ()
    sees: Sees = "own"
    cancels: Cancels = "own"
    entry: str = OWN_ENTRY
    as_member: tuple[User, ...] = ()

    @cached_property
    def entries(self) -> tuple[User, ...]:
        """The user's own entry, then those of the groups, in the order in which the user's entry names them."""
        return dataclasses.replace(self, as_member=()), *self.as_member

    @property
    def groups(self) -> tuple[str, ...]:
        """The names of the user's groups."""
        return tuple(entry.entry.removeprefix(GROUP_PREFIX) for entry in self.as_member)

    @property
    def may_act(self) -> bool:
        """Whether an entry may start and cancel tasks."""
        return self.is_admin or any(entry.role == "operator" for entry in self.entries)

    @property
    def is_admin(self) -> bool:
        return self.name == ADMIN

    @property
    def sees_all(self) -> bool:
        """Whether the user may read all users' tasks."""
        return self.is_admin or any(entry.sees == "all" for entry in self.entries)

    @property
    def readable(self) -> tuple[Path, ...]:
        """Files and folders that the user's runs may read beside playbook_root."""
        return self.inventories + self.paths


def parse(text: str, source: Path, settings: Settings | None = None) -> dict[str, User]:
    """Returns the users by name. Raises ConfigurationError with every fault of the text, each with its key.

    settings: for what `writable` must not be; without them, it is checked against the users alone.
    """
    document = rbac_schema.read(text, source)
    users = {entry.user: _rights(entry, source.parent, entry.user, entry.password) for entry in document.rbac}
    groups = {entry.name: _rights(entry, source.parent, entry=GROUP_PREFIX + entry.name) for entry in document.groups}
    entries = [*users.values(), *groups.values()]
    inventories = sorted({path for entry in entries for path in entry.inventories})
    written = tuple(sorted({path for entry in entries for path in entry.writable}))
    if written:
        _check_writable(users, groups, source, settings)
    for kept in (users, groups):
        for name, entry in kept.items():
            hidden = _inventories_of_others(entry, inventories)
            kept[name] = dataclasses.replace(entry, hidden=hidden, written=written)
    return {
        entry.user: _with_groups(users[entry.user], [groups[name] for name in entry.groups]) for entry in document.rbac
    }


def _check_writable(users: dict[str, User], groups: dict[str, User], source: Path, settings: Settings | None) -> None:
    # No name of a user has a colon, so a group has none of theirs here.
    entries = users | {f"{GROUP_PREFIX}{name}": entry for name, entry in groups.items()}
    grants = {name: Grants(entry.inventories, entry.paths, entry.writable) for name, entry in entries.items()}
    faults = [
        Fault(str(source), f"{_named(name)}: writable[{number}]", why)
        for name, number, why in WritableFolders(grants, settings).faults()
    ]
    if faults:
        raise ConfigurationError(faults)


def _named(name: str) -> str:
    group = name.removeprefix(GROUP_PREFIX)
    return f'user "{name}"' if group == name else f'group "{group}"'


def _with_groups(own: User, groups: list[User]) -> User:
    """Returns a user with the entries of the groups. A limit is that of the own entry, else the groups' smallest."""
    if not groups:
        return own

    def limit(of: Callable[[User], int | None]) -> int | None:
        return _smallest(map(of, groups)) if of(own) is None else of(own)

    running, queued = limit(lambda entry: entry.max_running), limit(lambda entry: entry.max_queued)
    forks, seconds = limit(lambda entry: entry.max_forks), limit(lambda entry: entry.max_seconds)
    own, *as_member = (
        dataclasses.replace(
            entry, name=own.name, max_running=running, max_queued=queued, max_forks=forks, max_seconds=seconds
        )
        for entry in (own, *groups)
    )
    return dataclasses.replace(own, as_member=tuple(as_member))


def _smallest(limits: Iterable[int | None]) -> int | None:
    """Returns the smallest limit; 0 is no limit, None is one that is not given."""
    given = [limit for limit in limits if limit is not None]
    return min(filter(None, given), default=0) if given else None


def _rights(
    given: UserEntry | GroupEntry, base: Path, name: str = "", password: str = "", entry: str = OWN_ENTRY
) -> User:
    modules, limits = given.modules, given.limits
    return User(
        name=name,
        password=password,
        inventories=tuple(resolve(path, base) for path in given.inventories if not PROJECT_PATH.fullmatch(path)),
        project_inventories=tuple(filter(None, map(_project_inventory, given.inventories))),
        projects=tuple(
            ProjectGrant(one) if isinstance(one, str) else ProjectGrant(one.name, tuple(one.refs))
            for one in given.projects
        ),
        max_running=limits.running,
        max_queued=limits.queued,
        role=given.role,
        sees="all" if given.role == "auditor" else given.sees,
        cancels=given.cancels,
        playbooks=None if given.playbooks is None else tuple(given.playbooks),
        modules_allowed=None if modules is None or modules.allow is None else tuple(modules.allow),
        modules_denied=tuple(modules.deny or ()) if modules else (),
        hosts=None if given.hosts is None else tuple(given.hosts),
        may_become=given.become,
        may_use_git=_may_use_git(given) if given.git is None else given.git,
        control_node=given.control_node,
        lasting_processes=given.lasting_processes,
        paths=tuple(resolve(path, base) for path in given.paths),
        writable=tuple(resolve(path, base) for path in given.writable),
        environment=tuple(given.environment),
        may_define=tuple(given.may_define),
        credentials=tuple(given.credentials),
        queues=tuple(
            (name, tuple(_project_inventory(path) or str(resolve(path, base)) for path in paths))
            for name, paths in given.queues.items()
        ),
        max_forks=limits.forks,
        max_seconds=limits.time_limit,
        entry=entry,
    )


def _project_inventory(path: str) -> str:
    """Returns an inventory in a project, normalized; empty for a path of this machine."""
    found = PROJECT_PATH.fullmatch(path)
    return f"{found['project']}:{os.path.normpath(found['path'])}" if found else ""


def _may_use_git(given: UserEntry | GroupEntry) -> bool:
    """The default of `git`. Who has no inventories but those of groups is to do what the groups may."""
    is_by_groups = isinstance(given, UserEntry) and bool(given.groups) and not given.inventories
    return given.playbooks is None and not is_by_groups


def _inventories_of_others(user: User, inventories: list[Path]) -> tuple[Path, ...]:
    return tuple(path for path in inventories if not any(path.is_relative_to(own) for own in user.readable))


def resolve(path: str, base: Path | str) -> Path:
    """Returns the real path, with links and `..` resolved, relative to `base`. It need not exist."""
    return Path(os.path.realpath(os.path.join(base, os.path.expanduser(path))))


def is_hash(password: str) -> bool:
    return _HASH.fullmatch(password) is not None


def password_matches(stored: str, given: str) -> bool:
    """Whether `given` is the `stored` password, which is plain or in werkzeug's hash format."""
    try:
        if is_hash(stored):
            return check_password_hash(stored, given)
        return hmac.compare_digest(stored.encode(), given.encode())
    except ValueError:  # invalid hash parameters, or text that cannot be encoded
        return False


class PasswordThrottle(Protocol):
    """Limits how many wrong passwords may be tried."""

    def check(self) -> None:
        """Called before a password is checked. Raises when there were too many; the password stays unchecked."""

    def record_failure(self) -> None:
        """Called when the password was wrong."""


class _NoThrottle:
    def check(self) -> None:
        pass

    def record_failure(self) -> None:
        pass


_NO_THROTTLE = _NoThrottle()


class RbacFile:
    """rbac.json, read again when it changes; a broken edit keeps the last valid users and sets `fault`.

    Verifying a hash costs tens of milliseconds on purpose. A right password is cached in memory, as a digest keyed
    by this process, until the file changes: polling stays cheap, and a removed user is refused at once.
    """

    def __init__(self, path: Path, on_change: OnChange = ignore_change, settings: Settings | None = None) -> None:
        """Raises ConfigurationError when the file is missing or wrong: there are no valid users yet.

        settings: as of `parse`.
        """
        self.path = path
        self._settings = settings
        self.fault: str | None = None
        self._on_change = on_change
        self._lock = threading.Lock()
        # A check takes a core and 32 MB, so there is one at a time: a client with many connections is checked once, and
        # any number of wrong passwords leaves the other cores to clients whose password is known.
        self._checking = threading.Lock()
        self._secret = os.urandom(32)
        self._verified: set[tuple[str, bytes]] = set()
        self._dummy_hashes = {_OUR_METHOD: generate_password_hash(os.urandom(16).hex(), _OUR_METHOD)}
        self._stamp, self._users = self._read()

    def authenticate(self, name: str, password: str, throttle: PasswordThrottle = _NO_THROTTLE) -> User | None:
        """Returns the user if the password is right, else None. The time does not show whether the name exists.

        | what is given                        | throttle | work                                                  |
        |--------------------------------------|----------|-------------------------------------------------------|
        | a password that was right earlier    | no       | one lookup                                            |
        | another password of a user           | yes      | one check for each hash method in the file, and ours: |
        | a name that is not in the file       | yes      | the user's hash for its method, else a dummy hash     |

        A known password passes without the throttle, so that an attacker who locks a user out by guessing does not lock
        out the clients that this process knows.
        """
        if (user := self.known(name, password)) is not None:
            return user
        with self._checking:
            if (user := self.known(name, password)) is not None:
                return user
            throttle.check()
            user = self.users().get(name)
            if not self._check_password(user, password):
                # Recorded before the next check begins: parallel guesses are counted like those in turn.
                throttle.record_failure()
                return None
            return user

    def known(self, name: str, password: str) -> User | None:
        """Returns the user if this password was right in an earlier check, else None. Cheap."""
        user = self.users().get(name)
        return user if user and (name, self._digest(user.password, password)) in self._verified else None

    def _digest(self, stored: str, given: str) -> bytes:
        """Digests a right password for the cache; keyed BLAKE2, because HMAC takes twice as long."""
        pair = f"{stored}\0{given}".encode(errors="surrogatepass")
        return blake2b(pair, key=self._secret, digest_size=32).digest()

    def _check_password(self, user: User | None, password: str) -> bool:
        """Whether it is the user's password; a right one is cached.

        The work is the same for each way of storing a password, and for an unknown user (None): one check for each
        hash method in the file, and for ours. Otherwise the time would show which users exist.
        """
        mine = _method(user.password) if user else None
        found = False
        for method in {_OUR_METHOD, mine, *(_method(one.password) for one in self._users.values())}:
            if user is not None and method == mine:
                found = password_matches(user.password, password)
            elif method is not None:
                password_matches(self._dummy_hash(method), password)
        if user is None or not found or "\0" in password:
            return False
        with self._lock:
            if len(self._verified) >= _CACHED_PASSWORDS:
                self._verified.clear()
            self._verified.add((user.name, self._digest(user.password, password)))
        return True

    def _dummy_hash(self, method: str) -> str:
        """Returns a hash of this method that no password matches; checking against it costs what a real check costs."""
        if method not in self._dummy_hashes:
            algorithm = method.partition(":")[0]
            length = 128 if algorithm == "scrypt" else 64
            self._dummy_hashes[method] = f"{method}${'x' * 16}${'0' * length}"
        return self._dummy_hashes[method]

    def users(self) -> dict[str, User]:
        """Returns the current users by name; reads the file again if it changed."""
        try:
            stamp = atomic_files.stamp(self.path)
        except OSError:
            stamp = None
        if stamp != self._stamp:
            with self._lock:
                if stamp != self._stamp:
                    self._reload(stamp)
        return self._users

    @property
    def last_read(self) -> dict[str, User]:
        """The users as they were read last, without a look at the file."""
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
            log.error("%s; the last valid version stays in force", error)
            self._on_change(f"the last valid version stays in force: {error}", False)

    def _read(self) -> tuple[tuple[int, ...] | None, dict[str, User]]:
        try:
            stamp = atomic_files.stamp(self.path)
            text = self.path.read_text(encoding="utf-8")
        except FileNotFoundError as error:
            message = "does not exist; create it with `flansible init`, `flansible up` or `flansible passwd admin`"
            raise ConfigurationError([Fault(str(self.path), "", message)]) from error
        except (OSError, UnicodeDecodeError) as error:
            hint = f"; {self._let_in()}" if isinstance(error, PermissionError) else ""
            raise ConfigurationError([Fault(str(self.path), "", f"cannot be read ({error}){hint}")]) from error
        return stamp, parse(text, self.path, self._settings)

    def _let_in(self) -> str:
        """Returns what to do about a file, or a folder above it, that is closed to this user."""
        user = account.name()
        closed = next((folder for folder in reversed(self.path.parents) if not os.access(folder, os.X_OK)), None)
        return f"let {user} into {closed}" if closed else f"as root: chown {user} {shlex.quote(str(self.path))}"


def _method(stored: str) -> str | None:
    """Returns the hash method with its parameters, which decide what a check costs; None for a plain password."""
    return stored.partition("$")[0] if is_hash(stored) else None
