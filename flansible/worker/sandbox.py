"""Builds sandboxes: the arguments of bubblewrap for the fork server of one confined user.

A sandbox shows only what is mounted here: the system, this Python, the user's inventories and playbook_root read-only,
the user's home, an empty /tmp. flansible.authorization.shown_paths decides what of these folders is hidden; `build`
lists the mounts.
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
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import flansible
from flansible.authorization import isolation, shown_paths
from flansible.authorization.shown_paths import ShownPaths, is_below
from flansible.config import Settings
from flansible.errors import RunnerError
from flansible.models import Confinement
from flansible.system.atomic_files import replacing

HOME = "/home/flansible-user"  # as the sandbox has it: nothing else that is shown lies there
_SHARED = ("collections", "roles")
_SHARED_FOLDER = "/home/flansible-shared"
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


@dataclass(frozen=True)
class Sandbox:
    """The sandbox of one user. Equal ones show the same files, so their runs can share a fork server.

    arguments: bubblewrap's, up to the command; stamps: the files meant, as a path may point to a different file later.
    """

    user: str
    home: str
    arguments: tuple[str, ...] = field(repr=False)
    stamps: tuple[tuple[int, int], ...] = field(repr=False)
    environment: tuple[tuple[str, str], ...] = field(repr=False)


def home_of(user: str, data_dir: Path) -> Path:
    """Returns the path of the home of a user's runs; the operator may put ssh keys and known_hosts there."""
    name = user if _PLAIN_NAME.fullmatch(user) else "=" + sha256(user.encode()).hexdigest()[:32]
    return data_dir / "homes" / name


def make_home(user: str, data_dir: Path) -> Path:
    """Returns the home and creates it if necessary, closed to others. Raises OSError."""
    home = home_of(user, data_dir)
    if not home.exists():
        home.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Complete before it gets its name. Links lead to the collections and roles of the service's user: a mount
        # within the home could be redirected by a run, which can write there.
        new = Path(tempfile.mkdtemp(dir=home.parent, prefix=".new-"))
        (new / ".ansible").mkdir(mode=0o700)
        for name in _SHARED:
            (new / ".ansible" / name).symlink_to(f"{_SHARED_FOLDER}/{name}")
        try:
            new.rename(home)
        except OSError:
            shutil.rmtree(new)
            if not home.is_dir():
                raise
    return home


def build(user: str, confinement: Confinement, ssh_sockets: str | None, settings: Settings) -> Sandbox:
    """Builds the sandbox of a user's runs. ssh_sockets: the folder for sockets of ssh masters. Raises RunnerError.

    The order of the mounts is their meaning: a later one covers an earlier one at the same place.

     1. The system: programs, libraries and parts of /etc; then /proc, with its writable files read-only, and /dev.
     2. /tmp and /dev/shm: empty and writable. Before the rest, parts of which may lie in /tmp.
     3. This Python and its packages, and sandbox_paths.
     4. The user's inventories and paths.
     5. group_vars and host_vars beside the user's inventory files.
     6. playbook_root without what is hidden. Its hidden parts are left out, not covered, so 3 to 5 stay within them.
     7. Collections and roles of the service's user, below _SHARED_FOLDER.
     8. /etc/passwd with the sandbox's home, and copies of ssh's configuration: over those of 1.
     9. The sockets of ssh masters, writable.
    10. The user's home, writable.
    11. / read-only: it holds the folders that bubblewrap has made for the mounts, so nothing can follow.
    """
    program = shutil.which("bwrap")
    if program is None:
        raise RunnerError(f"bwrap is not installed; {isolation.ADVICE}")
    try:
        home = make_home(user, settings.data_dir)
        mounts = trees(confinement, settings)
        for name in _SHARED:
            if os.path.isdir(source := os.path.realpath(os.path.expanduser(f"~/.ansible/{name}"))):
                mounts.add("--ro-bind", source, f"{_SHARED_FOLDER}/{name}")
        mounts.add("--ro-bind", _passwd(settings.data_dir), "/etc/passwd")
        for source, target in _ssh_configurations(settings.data_dir):
            mounts.add("--ro-bind", source, target)
    except OSError as error:
        raise RunnerError(f"the sandbox of {user} cannot be made: {error}") from error
    if ssh_sockets:
        mounts.add("--bind", ssh_sockets, ssh_sockets)
    arguments = (
        *(program, *isolation.NAMESPACES),
        *mounts.arguments,
        *("--bind", str(home), HOME, "--remount-ro", "/"),
    )
    return Sandbox(user, str(home), arguments, tuple(mounts.stamps), _environment())


def trees(confinement: Confinement, settings: Settings) -> Mounts:
    """Returns the mounts 1 to 6 of `build`: all that is shown at its own path. Raises OSError."""
    system = (path for path in _SYSTEM if not os.path.islink(path))
    programs = filter(os.path.isdir, (*system, *_python_folders()))
    shown = shown_paths.of(confinement.readable, confinement.hidden, settings, programs)
    mounts = Mounts(shown)
    mounts.add_system()
    for path in (*sorted(shown.opened), *confinement.readable, *shown.variables, shown.root):
        mounts.add_tree(path)
    return mounts


class Sandboxes:
    """The sandboxes of one worker, under its settings."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def of(self, user: str, confinement: Confinement, ssh_sockets: str | None) -> Sandbox | None:
        """Returns the user's sandbox, or None where runs are not confined. Raises RunnerError."""
        if not isolation.of(self._settings.isolation).in_force:
            return None
        return build(user, confinement, ssh_sockets, self._settings)

    def rules(self, confinement: Confinement) -> dict[str, Any]:
        """Returns the rules that the run itself enforces, for flansible.runner.enforcement."""
        missing = isolation.of(self._settings.isolation).is_missing
        return {
            "hosts": confinement.hosts,
            "control_node": confinement.control_node,
            # Where bubblewrap is to be used and does not work, no code of the user may be executed on this machine.
            "remote_only": missing and not confinement.control_node,
        }


class Mounts:
    """Collects bubblewrap's arguments, and which files they mean.

    Whatever is hidden in a folder is left out by mounting the rest of the folder piece by piece. A mount over the
    hidden file would be gone as soon as the file below it is replaced.
    """

    def __init__(self, shown: ShownPaths) -> None:
        self._shown = shown
        self._done: list[str] = []
        self.arguments: list[str] = []
        self.stamps: list[tuple[int, int]] = []

    def add(self, option: str, source: str, target: str) -> None:
        found = os.stat(source)
        self.stamps.append((found.st_dev, found.st_ino))
        self.arguments += [option, source, target]

    def add_system(self) -> None:
        """Adds programs and libraries, names and certificates, and new devices, processes and temporary files."""
        for path in _SYSTEM:
            if os.path.islink(path):
                self.arguments += ["--symlink", os.readlink(path), path]
            elif os.path.isdir(path):
                self.add_tree(path)
        for name in _ETC:
            if os.path.exists(f"/etc/{name}"):
                self.add("--ro-bind", f"/etc/{name}", f"/etc/{name}")
        self.arguments += ["--proc", "/proc", "--dev", "/dev"]
        for name in _kernel_files():
            source = "/dev/null" if name in _EMPTY_IN_PROC else f"/proc/{name}"
            self.arguments += ["--ro-bind", source, f"/proc/{name}"]
        for path in ("/tmp", "/dev/shm"):
            self.arguments += ["--perms", "1777", "--size", str(_TMPFS_BYTES), "--tmpfs", path]
        # bubblewrap makes /dev a tmpfs without a limit: what could be written there would fill the memory.
        self.arguments += ["--remount-ro", "/dev", "--symlink", "/tmp", "/var/tmp"]

    def add_tree(self, path: str) -> None:
        """Adds a file, or a folder with all in it that is not hidden. Nothing twice."""
        if not any(is_below(path, done) for done in self._done):
            self._add_shown(path)
            self._done.append(path)

    def _add_shown(self, path: str) -> None:
        if self._shown.is_hidden(path) or not os.path.exists(path):
            return
        if not (os.path.isdir(path) and self._shown.is_partly_hidden(path)):
            self.add("--ro-bind", path, path)
            return
        self.arguments += ["--dir", path]
        with os.scandir(path) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.is_symlink():
                    if not self._shown.is_hidden(entry.path):
                        self.arguments += ["--symlink", os.readlink(entry.path), entry.path]
                elif entry.is_dir() or entry.is_file():
                    self._add_shown(entry.path)


def _python_folders() -> list[str]:
    """Returns the folders of this Python, its packages, and Flansible."""
    folders = [sys.prefix, sys.exec_prefix, sys.base_prefix, os.path.dirname(os.path.realpath(sys.executable))]
    folders += [path for path in sys.path if os.path.basename(path) in ("site-packages", "dist-packages")]
    # The package alone: the folder above may be a checkout with config.ini and rbac.json in it.
    return [*folders, os.path.dirname(flansible.__file__)]


@cache
def _kernel_files() -> tuple[str, ...]:
    """Returns what in /proc is not a process and is a folder or writable.

    In the sandbox of a service that is root, the kernel treats file accesses as root's, and writing core_pattern and
    the like commands the kernel. bubblewrap itself covers only some of them.
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
    """Writes a copy of /etc/passwd with the sandbox's home, which ssh reads there, not in the environment."""
    own = pwd.getpwuid(os.getuid())
    others = [entry for entry in pwd.getpwall() if entry.pw_uid != own.pw_uid]
    text = "".join(
        f"{entry.pw_name}:x:{entry.pw_uid}:{entry.pw_gid}:{entry.pw_gecos}:{home}:{entry.pw_shell}\n"
        for entry, home in [(own, HOME), *((other, other.pw_dir) for other in others)]
    )
    return _kept(data_dir, "passwd", text)


def _ssh_configurations(data_dir: Path) -> list[tuple[str, str]]:
    """Copies the files that ssh's configuration includes; returns each copy with the path of its original.

    ssh refuses such a file unless root or the user owns it, and without root a sandbox maps root to nobody.
    """
    found = []
    for path in sorted(Path("/etc/ssh/ssh_config.d").glob("*.conf")):
        with contextlib.suppress(OSError, UnicodeDecodeError):
            found.append((_kept(data_dir, path.name, path.read_text()), str(path)))
    return found


def _kept(data_dir: Path, name: str, text: str) -> str:
    """Writes a file with this text and returns its path, which stays the same as long as the text does."""
    path = data_dir / "homes" / f".{name}-{sha256(text.encode()).hexdigest()[:16]}"
    if not path.exists():
        with replacing(path, mode=0o644) as temporary:
            temporary.write_text(text)
    return str(path)


def _environment() -> tuple[tuple[str, str], ...]:
    """Returns the variables for paths and language; the service's others stay out of the sandbox."""
    kept = {name: value for name, value in os.environ.items() if _ENVIRONMENT.fullmatch(name)}
    return tuple(sorted({**kept, "HOME": HOME}.items()))
