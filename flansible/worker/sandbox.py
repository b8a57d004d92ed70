"""What a confined run sees: the arguments of bubblewrap for the fork server of one user.

Everything is left out but what is named here: the system and this Python's packages read-only, the user's inventories
and playbook_root read-only, a home of their own, an empty /tmp. Whatever of Flansible's own lies inside one of these
folders, and inventories that are not the user's, are left out by giving the rest of the folder piece by piece: what
covered them would be gone as soon as somebody replaced the file below it.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatch
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import flansible
from flansible.authorization import isolation
from flansible.config import Settings, comma_list
from flansible.errors import RunnerError
from flansible.models import Confinement
from flansible.system.atomic_files import replacing

HOME = "/home/flansible-user"  # as the sandbox has it: nothing else that is shown lies there
_SHARED = ("collections", "roles")
_SHARED_PLACE = "/home/flansible-shared"
_TMPFS_BYTES = 1024**3
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}")
_ENVIRONMENT = re.compile(r"LANG$|LANGUAGE$|LC_\w+$|TZ$|PATH$|USER$|LOGNAME$|SHELL$|TERM$|COLUMNS$|LINES$")
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
# Of /etc what programs need to find names, hosts, libraries and certificates. No shadow, no keys, no /etc/ansible.
_ETC = (
    "alternatives", "ca-certificates", "ca-certificates.conf", "crypto-policies", "debian_version", "default/locale",
    "gai.conf", "group", "host.conf", "hostname", "hosts", "inputrc", "issue", "ld.so.cache", "ld.so.conf",
    "ld.so.conf.d", "locale.alias", "locale.conf", "localtime", "login.defs", "lsb-release", "machine-id", "magic",
    "mime.types", "networks", "nsswitch.conf", "os-release", "pki/ca-trust", "pki/tls/certs", "profile", "protocols",
    "python3", "python3.11", "python3.12", "python3.13", "redhat-release", "resolv.conf", "rpc", "services", "shells",
    "ssh/ssh_config", "ssh/ssh_known_hosts", "ssl/certs", "ssl/openssl.cnf", "terminfo", "timezone",
)  # fmt: skip
_EMPTY_IN_PROC = ("kcore", "keys", "kmsg", "timer_list", "sched_debug")
_VARIABLES = ("group_vars", "host_vars")
_WORD = re.compile(r"[^\s=\[\]:,;#'\"{}]+")
# With something beside it: [web:children] alone in its line is a heading.
_RANGE = re.compile(r"[\w.-]+\[\w+:[\w:]+\][\w.:\[\]-]*|\[\w+:[\w:]+\][\w.-][\w.:\[\]-]*")
_LONGEST_INVENTORY_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True)
class Sandbox:
    """One user's. Two that are equal show the same files, so that runs can share a fork server.

    arguments: bubblewrap's, up to the command; stamps: which files they mean, since a name may mean another one later.
    """

    user: str
    home: str
    arguments: tuple[str, ...] = field(repr=False)
    stamps: tuple[tuple[int, int], ...] = field(repr=False)
    environment: tuple[tuple[str, str], ...] = field(repr=False)


def home_of(user: str, data_dir: Path) -> Path:
    """Where the home of this user's runs lies; the operator may put ssh keys and known_hosts there."""
    name = user if _PLAIN_NAME.fullmatch(user) else "=" + sha256(user.encode()).hexdigest()[:32]
    return data_dir / "homes" / name


def make_home(user: str, data_dir: Path) -> Path:
    """The same, and it exists afterwards, closed to others. Raises OSError."""
    home = home_of(user, data_dir)
    if not home.exists():
        home.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Complete before it has its name. Where collections and roles are that the service's user has for everybody,
        # a link tells: a mount inside the home could be led elsewhere by whoever writes there.
        new = Path(tempfile.mkdtemp(dir=home.parent, prefix=".new-"))
        (new / ".ansible").mkdir(mode=0o700)
        for name in _SHARED:
            (new / ".ansible" / name).symlink_to(f"{_SHARED_PLACE}/{name}")
        try:
            new.rename(home)
        except OSError:
            shutil.rmtree(new)
            if not home.is_dir():
                raise
    return home


def build(user: str, confinement: Confinement, masters: str | None, settings: Settings) -> Sandbox:
    """The sandbox of this user's runs; masters: the directory for sockets of ssh masters. Raises RunnerError."""
    program = shutil.which("bwrap")
    if program is None:
        raise RunnerError(f"bwrap is not installed; {isolation.ADVICE}")
    try:
        home = make_home(user, settings.data_dir)
        shown = _Shown(frozenset(os.path.realpath(path) for path in settings.private_paths))
        shown.system()
        shown.python()
        for path in (*comma_list(settings.sandbox_paths), *confinement.readable):
            shown.tree(os.path.realpath(path))
            shown.variables_beside(path, confinement.readable)
        root = os.path.realpath(settings.playbook_root)
        shown.tree(root, _hidden_below(root, confinement, settings))
        for name in _SHARED:
            if os.path.isdir(source := os.path.realpath(os.path.expanduser(f"~/.ansible/{name}"))):
                shown.add("--ro-bind", source, f"{_SHARED_PLACE}/{name}")
        shown.add("--ro-bind", _passwd(settings.data_dir), "/etc/passwd")
        for source, place in _ssh_configurations(settings.data_dir):
            shown.add("--ro-bind", source, place)
    except OSError as error:
        raise RunnerError(f"the sandbox of {user} cannot be made: {error}") from error
    if masters:
        shown.add("--bind", masters, masters)
    arguments = (
        *(program, *isolation.NAMESPACES),
        *shown.arguments,
        *("--bind", str(home), HOME, "--remount-ro", "/"),
    )
    return Sandbox(user, str(home), arguments, tuple(shown.stamps), _environment())


class Sandboxes:
    """Those of one worker, as its settings have them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def of(self, user: str, confinement: Confinement, masters: str | None) -> Sandbox | None:
        """None where there is none. Raises RunnerError when it cannot be made."""
        if not isolation.of(self._settings.isolation).in_force:
            return None
        return build(user, confinement, masters, self._settings)

    def rules(self, confinement: Confinement) -> dict[str, Any]:
        """What the run itself has to keep to, for flansible.runner.enforcement."""
        missing = isolation.of(self._settings.isolation).is_missing
        return {
            "hosts": confinement.hosts,
            "control_node": confinement.control_node,
            # Without the sandbox that was wanted, nothing of theirs may be executed on this machine.
            "remote_only": missing and not confinement.control_node,
        }


class _Shown:
    """Collects what is shown, and which files that is."""

    def __init__(self, private: frozenset[str]) -> None:
        self._private = private
        self.arguments: list[str] = []
        self.stamps: list[tuple[int, int]] = []

    def add(self, option: str, source: str, place: str) -> None:
        found = os.stat(source)
        self.stamps.append((found.st_dev, found.st_ino))
        self.arguments += [option, source, place]

    def system(self) -> None:
        """Programs and libraries, names and certificates; devices, processes and temporary files of its own."""
        for path in _SYSTEM:
            if os.path.islink(path):
                self.arguments += ["--symlink", os.readlink(path), path]
            elif os.path.isdir(path):
                self.tree(path)
        for name in _ETC:
            if os.path.exists(f"/etc/{name}"):
                self.add("--ro-bind", f"/etc/{name}", f"/etc/{name}")
        self.arguments += ["--proc", "/proc", "--dev", "/dev"]
        for name in _kernel_files():
            source = "/dev/null" if name in _EMPTY_IN_PROC else f"/proc/{name}"
            self.arguments += ["--ro-bind", source, f"/proc/{name}"]
        for place in ("/tmp", "/dev/shm"):
            self.arguments += ["--perms", "1777", "--size", str(_TMPFS_BYTES), "--tmpfs", place]
        # Of bubblewrap's own making, and without a bound to what could be written there.
        self.arguments += ["--remount-ro", "/dev", "--symlink", "/tmp", "/var/tmp"]

    def python(self) -> None:
        """This Python, its packages, and Flansible where it is not one of them."""
        places = [sys.prefix, sys.exec_prefix, sys.base_prefix, os.path.dirname(os.path.realpath(sys.executable))]
        places += [path for path in sys.path if os.path.basename(path) in ("site-packages", "dist-packages")]
        # The package alone: the folder above may be a checkout with config.ini and rbac.json in it.
        places.append(os.path.dirname(flansible.__file__))
        done = ["/usr"]
        for place in places:
            if os.path.isdir(place) and not any(_is_below(place, other) for other in done):
                self.tree(place)
                done.append(place)

    def tree(self, path: str, hidden: frozenset[str] = frozenset()) -> None:
        """A file, or a folder with all that is in it but what is hidden or private."""
        left_out = hidden | self._private
        if any(_is_below(path, other) for other in left_out) or not os.path.exists(path):
            return
        if not any(_is_below(other, path) for other in left_out):
            self.add("--ro-bind", path, path)
            return
        self.arguments += ["--dir", path]
        with os.scandir(path) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.is_symlink():
                    if entry.path not in left_out:
                        self.arguments += ["--symlink", os.readlink(entry.path), entry.path]
                elif entry.is_dir() or entry.is_file():
                    self.tree(entry.path, hidden)

    def variables_beside(self, given: str, readable: Iterable[str]) -> None:
        """Of an inventory that is a file: what group_vars and host_vars beside it have for its hosts and groups."""
        inventory = os.path.realpath(given)
        if not os.path.isfile(inventory):
            return
        folder = os.path.dirname(inventory)
        alone = all(
            name in _VARIABLES or any(_is_below(os.path.join(folder, name), one) for one in readable)
            for name in os.listdir(folder)
        )
        named = None if alone else _Names(inventory)
        for place in (os.path.join(folder, name) for name in _VARIABLES):
            if not os.path.isdir(place) or os.path.islink(place):
                continue
            names = sorted(os.listdir(place))
            known = [
                name
                for name in names
                if named is None or name.partition(".")[0] in named or os.path.splitext(name)[0] in named
            ]
            # In one piece where that is possible: bubblewrap takes three thousand pieces, not more.
            for path in [place] if known == names else [os.path.join(place, name) for name in known]:
                self.tree(os.path.realpath(path))


def _is_below(path: str, folder: str) -> bool:
    """Whether it is the folder, or in it. Both are real paths."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


class _Names:
    """The hosts and groups that an inventory file names, as far as its text tells."""

    def __init__(self, inventory: str) -> None:
        with open(inventory, errors="replace") as file:
            text = file.read(_LONGEST_INVENTORY_BYTES)
        self._words = {*_WORD.findall(text), "all", "ungrouped"}
        # web[01:50].example.com: any host between.
        ranges = {_any_between(word) for word in _RANGE.findall(text)}
        self._ranges = re.compile("|".join(sorted(ranges)) or "(?!)")

    def __contains__(self, name: str) -> bool:
        return name in self._words or self._ranges.fullmatch(name) is not None


def _any_between(word: str) -> str:
    """A pattern for the hosts of a range: of numbers, or of letters."""
    pieces = re.split(r"(\[[\w:]+\])", word)
    return "".join(
        (r"[0-9]+" if piece[1].isdigit() else r"[A-Za-z]+") if number % 2 else re.escape(piece)
        for number, piece in enumerate(pieces)
    )


def _hidden_below(root: str, confinement: Confinement, settings: Settings) -> frozenset[str]:
    """What in playbook_root is another's inventory, or looks like one."""
    # What contains playbook_root, being another's, does not take it away.
    hidden = {path for path in confinement.hidden if _is_below(path, root) and path != root}
    if settings.default_inventory and "," not in settings.default_inventory:
        hidden.add(os.path.realpath(settings.default_inventory))
    for inventory in confinement.readable:
        folder = os.path.dirname(inventory)
        if _is_below(folder, root) and folder != root:
            hidden.update(os.path.join(folder, name) for name in os.listdir(folder))
    patterns = comma_list(settings.hidden_paths)
    for folder in (root, *(entry.path for entry in os.scandir(root) if entry.is_dir(follow_symlinks=False))):
        names = (os.path.relpath(os.path.join(folder, name), root) for name in os.listdir(folder))
        hidden.update(os.path.join(root, name) for name in names if any(fnmatch(name, one) for one in patterns))
    return frozenset(hidden)


@cache
def _kernel_files() -> tuple[str, ...]:
    """What /proc has beside processes, and is a folder or can be written.

    To a service that is root, its sandbox is root as well where a file is asked: core_pattern and its kin are commands
    to the kernel. bubblewrap itself covers only a part of them.
    """
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit() or entry.is_symlink():
            continue
        mode = entry.stat().st_mode
        if stat.S_ISDIR(mode) or mode & 0o222 or entry.name in _EMPTY_IN_PROC:
            found.append(entry.name)
    return tuple(sorted(found))


def _passwd(data_dir: Path) -> str:
    """A file like /etc/passwd in which this user has the sandbox's home: ssh asks there, not the environment."""
    own = pwd.getpwuid(os.getuid())
    others = [entry for entry in pwd.getpwall() if entry.pw_uid != own.pw_uid]
    text = "".join(
        f"{entry.pw_name}:x:{entry.pw_uid}:{entry.pw_gid}:{entry.pw_gecos}:{home}:{entry.pw_shell}\n"
        for entry, home in [(own, HOME), *((other, other.pw_dir) for other in others)]
    )
    return _kept(data_dir, "passwd", text)


def _ssh_configurations(data_dir: Path) -> list[tuple[str, str]]:
    """Copies of what ssh includes in its configuration, each with its place.

    ssh refuses such a file unless root or its user owns it, and in a sandbox of anybody but root, root is nobody.
    """
    found = []
    for path in sorted(Path("/etc/ssh/ssh_config.d").glob("*.conf")):
        with contextlib.suppress(OSError, UnicodeDecodeError):
            found.append((_kept(data_dir, path.name, path.read_text()), str(path)))
    return found


def _kept(data_dir: Path, name: str, text: str) -> str:
    """The path of a file with this text, which is the same as long as the text is."""
    path = data_dir / "homes" / f".{name}-{sha256(text.encode()).hexdigest()[:16]}"
    if not path.exists():
        with replacing(path, mode=0o644) as temporary:
            temporary.write_text(text)
    return str(path)


def _environment() -> tuple[tuple[str, str], ...]:
    """What programs need to find each other and their language; nothing else of the service's."""
    kept = {name: value for name, value in os.environ.items() if _ENVIRONMENT.fullmatch(name)}
    return tuple(sorted({**kept, "HOME": HOME}.items()))
