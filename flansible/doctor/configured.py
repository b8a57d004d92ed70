"""The doctor's checks of what was configured: config.ini, rbac.json and folders."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from pathlib import Path

from flansible import config, isolation, passwords, rbac
from flansible.config import Settings
from flansible.doctor import schema
from flansible.doctor.check import Check, Mark, quoted
from flansible.errors import ConfigurationError, Fault

MIN_FREE_BYTES = 1_000_000_000
_URL_PASSWORD = re.compile(r"://[^\s/]*:\S*@")


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
        checks.append(Check(Mark.FAIL, "configuration", found, f"chmod o-r {quoted(path)}"))
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
        told = {fault.key for fault in error.faults}
        faults = error.faults + [fault for fault in _violations(path) if fault.key not in told]
        checks += [Check(Mark.FAIL, "rbac.json", str(fault), "mend it") for fault in faults]
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


def _violations(path: Path) -> list[Fault]:
    try:
        return schema.violations(path)
    except OSError:
        return []  # that it cannot be read is told already


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
    option = f"--config {quoted(settings.config_file)} " if settings.config_file else ""
    return f"flansible passwd {option}{shlex.quote(user)}"


def _check_readable(path: Path, mark: Mark) -> list[Check]:
    if not path.stat().st_mode & 0o004:
        return []
    return [Check(mark, "rbac.json", f"everybody on this machine can read {path}", f"chmod o-r {quoted(path)}")]


def _check_writable(subject: str, path: Path) -> list[Check]:
    """The file, and its folder: who can put another file in its place can write it."""
    folder_mode = path.parent.stat().st_mode
    checks = []
    if path.stat().st_mode & 0o002:
        found = f"everybody on this machine can write {path}"
        checks.append(Check(Mark.FAIL, subject, found, f"chmod o-w {quoted(path)}"))
    if folder_mode & 0o002 and not folder_mode & 0o1000:
        found = f"everybody on this machine can replace {path}"
        checks.append(Check(Mark.FAIL, subject, found, f"chmod o-w {quoted(path.parent)}"))
    return checks


def isolated(settings: Settings) -> list[Check]:
    """Whether runs of users other than admin are confined."""
    found = isolation.of(settings.isolation)
    if found.is_missing:
        mark = Mark.FAIL if found.mode == "bwrap" else Mark.WARN
        what = "the service does not start" if found.mode == "bwrap" else "users' runs that need a sandbox are refused"
        return [Check(mark, "isolation", f"{found}: {what}", isolation.ADVICE)]
    if not found.in_force:
        return [Check(Mark.WARN, "isolation", str(found), "give logins only to those you would let on this machine")]
    return [Check(Mark.OK, "isolation", str(found))]


def playbook_root(settings: Settings) -> list[Check]:
    path = settings.playbook_root
    if not path.is_dir():
        advice = f"mkdir -p {quoted(path)}, or set playbook_root in config.ini"
        return [Check(Mark.WARN, "playbook_root", f"{path} is not a folder", advice)]
    if not os.access(path, os.R_OK | os.X_OK):
        advice = f"let this user read it: chmod u+rx {quoted(path)}"
        return [Check(Mark.FAIL, "playbook_root", f"{path} cannot be read by this user", advice)]
    if path.stat().st_mode & 0o002:
        found = f"everybody on this machine can write in {path}, so Ansible ignores an ansible.cfg there"
        return [Check(Mark.WARN, "playbook_root", found, f"chmod o-w {quoted(path)}")]
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
        return Check(Mark.FAIL, "data_dir", found, f"chmod 700 {quoted(path)}")
    return Check(Mark.OK, "data_dir", str(path))


def _nearest_existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.exists())
