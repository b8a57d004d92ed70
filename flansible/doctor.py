"""`flansible doctor`: looks at this machine and installation; one line per check, with what to do where one is needed.

Called by the command alone; changes nothing. No state of the machine ends in a traceback: what cannot be looked at, or
does not answer in time, is a line of its own. Passwords are never printed, not those in URLs either.
"""

from __future__ import annotations

import locale
import os
import queue
import re
import shlex
import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path

from flansible import celery_app, config, passwords, rbac, redis_server
from flansible.config import EMBEDDED, Settings
from flansible.errors import BrokerUnavailable, ConfigurationError, StoreUnavailable
from flansible.store import Store
from flansible.versions import ansible_version

AREA_SECONDS = 10.0
PROGRAM_SECONDS = 5.0
MIN_PYTHON = (3, 11)
MIN_FREE_BYTES = 1_000_000_000
_URL_PASSWORD = re.compile(r"://[^\s/]*:\S*@")


class Mark(StrEnum):
    """How a check came out; FAIL alone makes the exit code 1."""

    OK = "ok"
    WARN = "warn"
    FAIL = "FAIL"


@dataclass(frozen=True)
class Check:
    """One line: what was looked at, what was found, and for a warning or a failure what to do."""

    mark: Mark
    subject: str
    found: str
    advice: str = ""

    def __str__(self) -> str:
        text = f"{self.mark:<4} {self.subject}: {self.found}" + (f"; {self.advice}" if self.advice else "")
        masked = re.sub(r"://\S*@", "://***@", text)
        return "".join(char if char.isprintable() else " " for char in masked)


def main(config_file: str | None) -> int:
    """Print every check; 1 when something must be mended, else 0."""
    marks: Counter[Mark] = Counter()
    for check in _all_checks(config_file):
        # Standard output may be unable to write what a path is called; that is no reason to stop.
        charset = sys.stdout.encoding or "ascii"
        print(str(check).encode(charset, "backslashreplace").decode(charset), flush=True)
        marks[check.mark] += 1
    print(f"{marks[Mark.FAIL]} to mend, {marks[Mark.WARN]} to think about, {marks[Mark.OK]} well")
    return 1 if marks[Mark.FAIL] else 0


def _all_checks(config_file: str | None) -> Iterator[Check]:
    for name, area in MACHINE.items():
        yield from look(name, area)
    loaded: list[Settings] = []
    yield from look("configuration", partial(configuration, config_file, loaded))
    if not loaded:
        found = "rbac.json, folders, Redis, broker and worker were not looked at"
        yield Check(Mark.WARN, "configuration", found, "mend it, then run `flansible doctor` again")
        return
    for name, configured in CONFIGURED.items():
        yield from look(name, partial(configured, loaded[0]))


def look(name: str, area: Callable[[], list[Check]]) -> list[Check]:
    """What an area's function finds; one failed check when it does not come back in time, or stumbles."""
    answers: queue.SimpleQueue[list[Check]] = queue.SimpleQueue()

    def work() -> None:
        try:
            answers.put(area())
        except Exception as error:
            # The border: the machine may be in any state. Only OSErrors are quoted; others may quote a URL's password.
            reason = str(error) if isinstance(error, OSError) else type(error).__name__
            advice = "run doctor as the user of the service"
            answers.put([Check(Mark.FAIL, name, f"cannot be looked at ({reason})", advice)])

    # A thread that does not come back is left to itself, and ends with the process.
    threading.Thread(target=work, name=name, daemon=True).start()
    try:
        return answers.get(timeout=AREA_SECONDS)
    except queue.Empty:
        return [Check(Mark.FAIL, name, f"no answer within {AREA_SECONDS:g} s", "see what keeps it")]


# The machine.


def python() -> list[Check]:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < MIN_PYTHON:
        wanted = ".".join(map(str, MIN_PYTHON))
        return [Check(Mark.FAIL, "python", version, f"install Flansible under Python {wanted} or later")]
    return [Check(Mark.OK, "python", f"{version} ({sys.executable})")]


def utf8() -> list[Check]:
    """Ansible refuses to start without UTF-8; asked the way it asks."""
    advice = "set LC_ALL=C.UTF-8 in the environment of the service"
    try:
        locale.setlocale(locale.LC_ALL, "")
        found = locale.getlocale()[1] or "none"
    except (locale.Error, ValueError) as error:
        return [Check(Mark.FAIL, "locale", f"cannot be used ({error})", advice)]
    for what, name in (("encoding", found), ("file system encoding", sys.getfilesystemencoding())):
        if name.lower() not in ("utf-8", "utf8"):
            return [Check(Mark.FAIL, "locale", f"{what} is {name}, and Ansible wants UTF-8", advice)]
    return [Check(Mark.OK, "locale", found)]


def account() -> list[Check]:
    if os.geteuid() == 0:
        advice = "make a user for the service (adduser --system --group flansible) and start it as that user"
        return [Check(Mark.WARN, "account", "root: what runs on this machine by Ansible runs as root", advice)]
    return [Check(Mark.OK, "account", f"user id {os.geteuid()}, not root")]


def ansible() -> list[Check]:
    """The version is read, not imported; the range is the one in setup.py."""
    version = ansible_version()
    if version.installed is None:
        return [Check(Mark.FAIL, "ansible-core", "is not installed for this Python", version.install_command)]
    if version.tested is None:
        advice = f"{shlex.quote(sys.executable)} -m pip install flansible"
        found = f"{version.installed}; which versions were tested is not known, because Flansible is not installed"
        return [Check(Mark.WARN, "ansible-core", found, advice)]
    if not version.is_tested:
        found = f"{version.installed} is not one of those tested"
        return [Check(Mark.FAIL, "ansible-core", found, version.install_command)]
    return [Check(Mark.OK, "ansible-core", f"{version.installed} (tested: {version.tested.specifier})")]


def ssh() -> list[Check]:
    return [_program("ssh", "-V", Mark.FAIL, "Ansible reaches other machines with it", "openssh-client")]


def git() -> list[Check]:
    return [_program("git", "--version", Mark.WARN, "POST /api/git and update_git_repo need it", "git")]


def _program(name: str, option: str, missing: Mark, purpose: str, package: str) -> Check:
    advice = f"install it, on Debian: apt-get install {package}"
    path = shutil.which(name)
    if path is None:
        return Check(missing, name, f"is not on the PATH, and {purpose}", advice)
    try:
        ended = subprocess.run(
            [path, option],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=PROGRAM_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return Check(missing, name, f"{path} {option} did not end within {PROGRAM_SECONDS:g} s", advice)
    said = ended.stdout.decode(errors="replace").strip().partition("\n")[0]
    if ended.returncode != 0:
        return Check(missing, name, f"{path} {option} failed: {said}", advice)
    return Check(Mark.OK, name, f"{said} ({path})")


MACHINE: dict[str, Callable[[], list[Check]]] = {
    "python": python,
    "locale": utf8,
    "account": account,
    "ansible-core": ansible,
    "ssh": ssh,
    "git": git,
}


# What was configured.


def configuration(config_file: str | None, loaded: list[Settings]) -> list[Check]:
    """The settings go to `loaded`, when there is nothing wrong with them."""
    path = config.find_config(config_file)
    # Of the file alone first, so that a broken one is looked at as well.
    checks = _config_permissions(path) if path and path.is_file() else []
    try:
        loaded.append(config.load(config_file))
    except ConfigurationError as error:
        return checks + [Check(Mark.FAIL, "configuration", str(fault), "mend it") for fault in error.faults]
    return [*checks, Check(Mark.OK, "configuration", str(path or "no config.ini: defaults and FLANSIBLE_* variables"))]


def _config_permissions(path: Path) -> list[Check]:
    checks = _check_writable("configuration", path)
    if path.stat().st_mode & 0o004 and _URL_PASSWORD.search(path.read_text(encoding="utf-8", errors="replace")):
        found = f"{path} has a URL with a password, and everybody on this machine can read it"
        checks.append(Check(Mark.FAIL, "configuration", found, f"chmod o-r {_quoted(path)}"))
    return checks


def users(settings: Settings) -> list[Check]:
    path = settings.rbac_file
    if not path.exists():
        advice = (
            f"make one: {_passwd(settings, rbac.ADMIN)}, or let `flansible up` make one (admin/admin, loopback only)"
        )
        return [Check(Mark.WARN, "rbac.json", f"{path} does not exist", advice)]
    checks = _check_writable("rbac.json", path)
    try:
        found = rbac.RbacFile(path).users()
    except ConfigurationError as error:
        checks += [Check(Mark.FAIL, "rbac.json", str(fault), "mend it") for fault in error.faults]
        return checks + _check_readable(path, Mark.FAIL)
    plain = sorted(user.name for user in found.values() if not rbac.is_hash(user.password))
    checks += _check_readable(path, Mark.FAIL if plain else Mark.WARN)
    checks += [_check_plain(settings, plain, len(found)), *_check_admin(settings, found)]
    for user in found.values():
        gone = [str(inventory) for inventory in user.inventories if not os.path.exists(inventory)]
        if gone:
            found_gone = f"{user.name} has inventories that are not there: {', '.join(gone)}"
            checks.append(Check(Mark.WARN, "rbac.json", found_gone, f"make them, or take them out of {path}"))
    return checks


def _check_plain(settings: Settings, plain: list[str], count: int) -> Check:
    if not plain:
        return Check(Mark.OK, "rbac.json", f"{settings.rbac_file}: users: {count}, all passwords hashed")
    commands = " and ".join(_passwd(settings, name) for name in plain)
    return Check(Mark.WARN, "rbac.json", f"passwords that are not hashed: {', '.join(plain)}", f"hash them: {commands}")


def _check_admin(settings: Settings, found: dict[str, rbac.User]) -> list[Check]:
    if rbac.ADMIN not in found:
        what = "nobody sees all tasks, and Flower cannot be used"
        return [Check(Mark.WARN, "rbac.json", f"no user admin: {what}", _passwd(settings, rbac.ADMIN))]
    if not passwords.has_default_admin(found):
        return []
    addresses = (settings.Flask_tcp_ip, settings.flower_tcp_ip)
    reachable = [address for address in addresses if not config.is_loopback(address)]
    where = f"and {reachable[0]} can be reached from outside" if reachable else "known to everybody on this machine"
    mark = Mark.FAIL if reachable else Mark.WARN
    return [Check(mark, "rbac.json", f"admin's password is admin, {where}", _passwd(settings, rbac.ADMIN))]


def _passwd(settings: Settings, user: str) -> str:
    option = f"--config {_quoted(settings.config_file)} " if settings.config_file else ""
    return f"flansible passwd {option}{shlex.quote(user)}"


def _check_readable(path: Path, mark: Mark) -> list[Check]:
    if not path.stat().st_mode & 0o004:
        return []
    return [Check(mark, "rbac.json", f"everybody on this machine can read {path}", f"chmod o-r {_quoted(path)}")]


def _check_writable(subject: str, path: Path) -> list[Check]:
    """The file, and its folder: who can put another file in its place can write it."""
    folder_mode = path.parent.stat().st_mode
    checks = []
    if path.stat().st_mode & 0o002:
        found = f"everybody on this machine can write {path}"
        checks.append(Check(Mark.FAIL, subject, found, f"chmod o-w {_quoted(path)}"))
    if folder_mode & 0o002 and not folder_mode & 0o1000:
        found = f"everybody on this machine can replace {path}"
        checks.append(Check(Mark.FAIL, subject, found, f"chmod o-w {_quoted(path.parent)}"))
    return checks


def playbook_root(settings: Settings) -> list[Check]:
    path = settings.playbook_root
    if not path.is_dir():
        advice = f"mkdir -p {_quoted(path)}, or set playbook_root in config.ini"
        return [Check(Mark.WARN, "playbook_root", f"{path} is not a folder", advice)]
    if not os.access(path, os.R_OK | os.X_OK):
        advice = f"let this user read it: chmod u+rx {_quoted(path)}"
        return [Check(Mark.FAIL, "playbook_root", f"{path} cannot be read by this user", advice)]
    if path.stat().st_mode & 0o002:
        found = f"everybody on this machine can write in {path}, so Ansible ignores an ansible.cfg there"
        return [Check(Mark.WARN, "playbook_root", found, f"chmod o-w {_quoted(path)}")]
    return [Check(Mark.OK, "playbook_root", str(path))]


def data_dir(settings: Settings) -> list[Check]:
    path = settings.data_dir
    there = _nearest_existing(path)
    checks = [_check_folder(path, there)]
    free = shutil.disk_usage(there).free
    found = f"{free / 1e9:.1f} GB free for {path}"
    if free < MIN_FREE_BYTES:
        checks.append(Check(Mark.WARN, "disk", found, "make room, or set data_dir in config.ini to a folder elsewhere"))
    else:
        checks.append(Check(Mark.OK, "disk", found))
    return checks


def _check_folder(path: Path, there: Path) -> Check:
    if there != path:
        if os.access(there, os.W_OK | os.X_OK):
            return Check(Mark.OK, "data_dir", f"{path} is not there yet; `flansible up` makes it")
        return Check(Mark.FAIL, "data_dir", f"{path} cannot be made in {there}", "set data_dir in config.ini")
    if not path.is_dir():
        return Check(Mark.FAIL, "data_dir", f"{path} is not a folder", "set data_dir in config.ini to one")
    status = path.stat()
    if status.st_uid != os.geteuid():
        advice = "run doctor and the service as that user, or set data_dir in config.ini"
        return Check(Mark.FAIL, "data_dir", f"{path} belongs to user id {status.st_uid}", advice)
    if status.st_mode & 0o077:
        found = f"others may enter {path}, where records of all runs lie"
        return Check(Mark.FAIL, "data_dir", found, f"chmod 700 {_quoted(path)}")
    return Check(Mark.OK, "data_dir", str(path))


def _nearest_existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.exists())


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))


# What answers.


def redis(settings: Settings) -> list[Check]:
    """Each Redis that is used: the one of the records, and the broker's when it is another."""
    checks = [_redis_program()] if settings.embeds_redis else []
    keys = {settings.store_url: "CELERY_RESULT_BACKEND"}
    if not settings.broker_url.startswith("amqp"):
        keys.setdefault(settings.broker_url, "CELERY_BROKER_URL")
    for url, key in keys.items():
        checks += _redis_server(url, key, embedded=getattr(settings, key) == EMBEDDED)
    return checks


def _redis_program() -> Check:
    program = redis_server.find_program()
    if program is None:
        advice = (
            "on Debian: apt-get install redis-server (or valkey-server); or set CELERY_BROKER_URL and "
            "CELERY_RESULT_BACKEND to a Redis you have"
        )
        return Check(Mark.FAIL, "redis", "there is no redis-server for `flansible up` to start", advice)
    return Check(Mark.OK, "redis", f"program: {program}")


def _redis_server(url: str, key: str, embedded: bool) -> list[Check]:
    try:
        store = Store(url)
    except ValueError:
        # The message may quote a part of the URL, and a password with it.
        return [Check(Mark.FAIL, "redis", f"the URL in {key} cannot be understood", f"mend {key}")]
    with closing(store):
        try:
            store.ping()
        except StoreUnavailable as error:
            if embedded:
                return [Check(Mark.OK, "redis", "the embedded one is not running; `flansible up` starts it")]
            return [Check(Mark.FAIL, "redis", f"{key}: {error}", f"start that Redis, or mend {key}")]
        try:
            found = store.server_settings()
        except StoreUnavailable as error:
            advice = "see yourself that it keeps its data and evicts nothing"
            return [Check(Mark.WARN, "redis", f"{key}: its settings cannot be read ({error})", advice)]
    version = Check(Mark.OK, "redis", f"{key}: version {found['redis_version']}")
    return [version, _persistence(found, key), _eviction(found, key)]


def _persistence(found: dict[str, str], key: str) -> Check:
    if found["appendonly"] == "yes":
        return Check(Mark.OK, "redis", f"{key}: keeps an append-only file")
    if found.get("save"):
        return Check(Mark.OK, "redis", f"{key}: keeps snapshots (save {found['save']})")
    advice = "in redis-cli: CONFIG SET appendonly yes, then CONFIG REWRITE"
    if "save" not in found:
        what = "no append-only file, and it forbids CONFIG: whether it keeps snapshots cannot be seen"
        return Check(Mark.WARN, "redis", f"{key}: {what}", "see that its provider keeps its data over a restart")
    return Check(Mark.WARN, "redis", f"{key}: keeps nothing: records are lost when it restarts", advice)


def _eviction(found: dict[str, str], key: str) -> Check:
    policy, limit = found["maxmemory-policy"], found["maxmemory"]
    if policy == "noeviction":
        return Check(Mark.OK, "redis", f"{key}: evicts nothing")
    if limit == "0":
        return Check(Mark.OK, "redis", f"{key}: evicts nothing (maxmemory 0)")
    advice = "in redis-cli: CONFIG SET maxmemory-policy noeviction, then CONFIG REWRITE"
    what = f"throws away records when {limit} bytes are full (maxmemory-policy {policy})"
    return Check(Mark.FAIL, "redis", f"{key}: {what}", advice)


def broker(settings: Settings) -> list[Check]:
    celery_app.configure(settings)
    try:
        celery_app.ping_broker()
        name = celery_app.ping_worker()
    except ValueError:
        what = "the URL in CELERY_BROKER_URL cannot be understood"
        return [Check(Mark.FAIL, "broker", what, "mend CELERY_BROKER_URL")]
    except BrokerUnavailable as error:
        if settings.CELERY_BROKER_URL == EMBEDDED:
            return [Check(Mark.OK, "broker", "the embedded Redis, which is not running; `flansible up` starts it")]
        return [Check(Mark.FAIL, "broker", str(error), "start it, or mend CELERY_BROKER_URL")]
    answers = Check(Mark.OK, "broker", "answers")
    if name is None:
        advice = "start one with `flansible worker`, or the whole service with `flansible up`"
        return [answers, Check(Mark.WARN, "worker", "none answers: tasks would wait", advice)]
    return [answers, Check(Mark.OK, "worker", f"{name} answers")]


CONFIGURED: dict[str, Callable[[Settings], list[Check]]] = {
    "rbac.json": users,
    "playbook_root": playbook_root,
    "data_dir": data_dir,
    "redis": redis,
    "broker": broker,
}
