"""The doctor's checks of the configuration: config.ini, rbac.json and folders."""

from __future__ import annotations

import os
import shlex
import shutil
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509

from flansible import config
from flansible.authorization import entries, isolation
from flansible.config import Settings, tls
from flansible.doctor import open_services, rbac_check, secret_files
from flansible.doctor.check import Check, Mark, quoted
from flansible.errors import ConfigurationError, Fault
from flansible.identity import passwords
from flansible.identity import users as rbac_users

MIN_FREE_BYTES = 1_000_000_000
FULL_BYTES = 10_000_000
RENEW_BEFORE = timedelta(days=14)


def configuration(config_file: str | None, loaded: list[Settings]) -> list[Check]:
    """Checks config.ini; valid settings are appended to `loaded`."""
    path = config.find_config(config_file)
    # Permissions first, so that those of a broken file are checked as well.
    checks = _config_permissions(path) if path and path.is_file() else []
    try:
        loaded.append(config.load(config_file))
    except ConfigurationError as error:
        return checks + [Check(Mark.FAIL, "configuration", str(fault), "fix it") for fault in error.faults]
    return [*checks, Check(Mark.OK, "configuration", str(path or "no config.ini: defaults and FLANSIBLE_* variables"))]


def _config_permissions(path: Path) -> list[Check]:
    return _exposed("configuration", path, secret_files.has_url_password(path))


def users(settings: Settings) -> list[Check]:
    path = settings.rbac_file
    if not path.exists():
        make_one = _passwd(settings, rbac_users.ADMIN)
        advice = f"create it: {make_one}, or let `flansible up` create it (admin/admin, loopback only)"
        return [Check(Mark.WARN, "rbac.json", f"{path} does not exist", advice)]
    checks = _exposed("rbac.json", path, secret_files.holds_secrets(path))
    try:
        found = rbac_users.RbacFile(path, settings=settings).users()
    except ConfigurationError as error:
        known = {fault.key for fault in error.faults}
        faults = error.faults + [fault for fault in _violations(path) if fault.key not in known]
        checks += [Check(Mark.FAIL, "rbac.json", str(fault), "fix it") for fault in faults]
        return checks
    plain = sorted(user.name for user in found.values() if not rbac_users.is_hash(user.password))
    groups = len(_entries(found)) - len(found)
    count = f"users: {len(found)}" + (f", groups: {groups}" if groups else "")
    checks += [_check_plain(settings, plain, count), *_check_admin(settings, found)]
    for name, entry in _entries(found).items():
        gone = [str(inventory) for inventory in entry.inventories if not os.path.exists(inventory)]
        if gone:
            found_gone = f"{name} has inventories that do not exist: {', '.join(gone)}"
            checks.append(Check(Mark.WARN, "rbac.json", found_gone, f"create them, or remove them from {path}"))
    return checks


def _entries(found: dict[str, rbac_users.User]) -> dict[str, rbac_users.User]:
    """Returns the users' own entries and those of their groups, by names for sentences."""
    groups = {entries.label(entry): entry for user in found.values() for entry in user.as_member}
    return found | groups


def _violations(path: Path) -> list[Fault]:
    try:
        return rbac_check.violations(path)
    except OSError:
        return []  # already reported


def _check_plain(settings: Settings, plain: list[str], count: str) -> Check:
    if not plain:
        return Check(Mark.OK, "rbac.json", f"{settings.rbac_file}: {count}, all passwords hashed")
    commands = " and ".join(_passwd(settings, name) for name in plain)
    return Check(Mark.WARN, "rbac.json", f"passwords that are not hashed: {', '.join(plain)}", f"hash them: {commands}")


def _check_admin(settings: Settings, found: dict[str, rbac_users.User]) -> list[Check]:
    if rbac_users.ADMIN not in found:
        what = "no user can see all tasks or use Flower"
        return [Check(Mark.WARN, "rbac.json", f"no user admin: {what}", _passwd(settings, rbac_users.ADMIN))]
    if not passwords.has_default_admin(found):
        return []
    addresses = (settings.Flask_tcp_ip, settings.flower_tcp_ip)
    reachable = [address for address in addresses if not config.is_loopback(address)]
    where = f"and {reachable[0]} can be reached from outside" if reachable else "known to every user of this machine"
    mark = Mark.FAIL if reachable else Mark.WARN
    return [Check(mark, "rbac.json", f"admin's password is admin, {where}", _passwd(settings, rbac_users.ADMIN))]


def _passwd(settings: Settings, user: str) -> str:
    option = f"--config {quoted(settings.config_file)} " if settings.config_file else ""
    return f"flansible passwd {option}{shlex.quote(user)}"


def _exposed(subject: str, path: Path, is_secret: bool) -> list[Check]:
    """Reports the exposures that would stop the start."""
    return [Check(Mark.FAIL, subject, item.found, item.command) for item in secret_files.exposures(path, is_secret)]


def secrets(settings: Settings) -> list[Check]:
    """Checks the files that are secret as a whole."""
    checks = []
    for key in secret_files.SECRET_KEYS:
        path = getattr(settings, key)
        if path is not None and path.is_file():
            found = _exposed(key, path, True) or _shared_with_group(key, path)
            checks += found or [Check(Mark.OK, key, f"{path}: only this user can read it")]
    return checks


def isolated(settings: Settings) -> list[Check]:
    """Checks whether runs of users other than admin are confined."""
    found = isolation.of(settings.isolation)
    if found.is_missing:
        mark = Mark.FAIL if found.mode == "bwrap" else Mark.WARN
        what = "the service does not start" if found.mode == "bwrap" else "users' runs that need a sandbox are refused"
        return [Check(mark, "isolation", f"{found}: {what}", isolation.ADVICE)]
    if not found.in_force:
        return [
            Check(
                Mark.WARN, "isolation", str(found), "give logins only to people you would give a shell on this machine"
            )
        ]
    return [Check(Mark.OK, "isolation", str(found))]


def _shared_with_group(key: str, path: Path) -> list[Check]:
    """Warns only: web servers and workers may run as different users that share a group."""
    if not path.stat().st_mode & stat.S_IRGRP:
        return []
    return [Check(Mark.WARN, key, f"the group of {path} can read it", f"chmod g-r {quoted(path)}, unless it is meant")]


def certificate(settings: Settings) -> list[Check]:
    """Checks whether TLS works with the certificate and key, and until when."""
    if settings.tls_certificate is None:
        return []
    try:
        tls.check(settings)
    except ConfigurationError as error:
        return [Check(Mark.FAIL, "tls", str(fault), "fix it") for fault in error.faults]
    ends_at = x509.load_pem_x509_certificate(settings.tls_certificate.read_bytes()).not_valid_after_utc
    left = ends_at - datetime.now(UTC)
    found = f"{settings.tls_certificate} is valid until {ends_at:%Y-%m-%d %H:%M} UTC"
    if left <= timedelta():
        return [Check(Mark.FAIL, "tls", found, "renew it: clients refuse it")]
    return [Check(Mark.WARN, "tls", found, "renew it") if left < RENEW_BEFORE else Check(Mark.OK, "tls", found)]


def plain_http(settings: Settings) -> list[Check]:
    """Warns of passwords that other machines' users could read on their way."""
    found = open_services.find_plain_http(settings)
    return [Check(Mark.WARN, "http", found.found, found.advice)] if found else []


def playbook_root(settings: Settings) -> list[Check]:
    path = settings.playbook_root
    if not path.is_dir():
        advice = f"mkdir -p {quoted(path)}, or set playbook_root in config.ini"
        return [Check(Mark.WARN, "playbook_root", f"{path} is not a folder", advice)]
    if not os.access(path, os.R_OK | os.X_OK):
        advice = f"let this user read it: chmod u+rx {quoted(path)}"
        return [Check(Mark.FAIL, "playbook_root", f"{path} cannot be read by this user", advice)]
    if path.stat().st_mode & 0o002:
        found = f"every user of this machine can write in {path}, so Ansible ignores an ansible.cfg there"
        return [Check(Mark.WARN, "playbook_root", found, f"chmod o-w {quoted(path)}")]
    return [Check(Mark.OK, "playbook_root", str(path))]


def data_dir(settings: Settings) -> list[Check]:
    path = settings.data_dir
    there = _nearest_existing(path)
    checks = [_check_folder(path, there)]
    free = shutil.disk_usage(there).free
    found = f"{free / 1e9:.1f} GB free for {path}"
    if free < MIN_FREE_BYTES:
        mark = Mark.FAIL if free < FULL_BYTES else Mark.WARN
        checks.append(
            Check(mark, "disk", found, "free some space, or set data_dir in config.ini to a folder elsewhere")
        )
    else:
        checks.append(Check(Mark.OK, "disk", found))
    return checks


def _check_folder(path: Path, there: Path) -> Check:
    if there != path:
        if os.access(there, os.W_OK | os.X_OK):
            return Check(Mark.OK, "data_dir", f"{path} does not exist yet; `flansible up` creates it")
        return Check(Mark.FAIL, "data_dir", f"{path} cannot be created in {there}", "set data_dir in config.ini")
    if not path.is_dir():
        return Check(Mark.FAIL, "data_dir", f"{path} is not a folder", "set data_dir in config.ini to one")
    status = path.stat()
    if status.st_uid != os.geteuid():
        advice = "run doctor and the service as that user, or set data_dir in config.ini"
        return Check(Mark.FAIL, "data_dir", f"{path} belongs to user id {status.st_uid}", advice)
    if status.st_mode & 0o077:
        found = f"other users can enter {path}, which holds the records of all runs"
        return Check(Mark.FAIL, "data_dir", found, f"chmod 700 {quoted(path)}")
    return Check(Mark.OK, "data_dir", str(path))


def _nearest_existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.exists())
