"""`flansible up`: a private Redis, a worker, the web server and perhaps Flower, as children of one process.

Checks the configuration, creates what is missing and writes the plan; then this process execs
flansible.launcher.process_manager, which carries the plan out with a third of the memory.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flansible.authorization import isolation
from flansible.config import Settings, is_loopback, tls
from flansible.config.ansible_version import require_tested_ansible
from flansible.errors import ConfigurationError, Fault
from flansible.identity import passwords, users
from flansible.launcher import embedded_redis, process_manager, redis_repair
from flansible.launcher.process_manager import Plan, Role
from flansible.system import account

_TICK_SECONDS = 0.05
# Time to stop: with the default drain_seconds of 2 these add up to the ten seconds within which everything has ended.
_WEB_SECONDS = 2.0
_REDIS_SECONDS = 1.0
_FLOWER_SECONDS = 1.0
_OTHER_UP_SECONDS = 3.0  # another `flansible up` that is being stopped holds the data_dir a moment longer
_ORPHANS_SECONDS = 20.0  # the children of a killed one are still ending its runs


def serve(settings: Settings, with_flower: bool = False) -> None:
    """Prepares everything, then execs the process that starts and watches it: does not return.

    Raises ConfigurationError before anything is started.
    """
    addresses = [settings.Flask_tcp_ip, settings.flower_tcp_ip] if with_flower else [settings.Flask_tcp_ip]
    require_tested_ansible(settings.allow_untested_ansible)
    isolation.require(settings.isolation)
    tls.check(settings)
    account.require_home()
    if not settings.data_dir.exists():
        # Nothing was started here before, so nothing of ours that is about to end can have the ports.
        _check_ports(settings, with_flower)
    _make_private(settings.data_dir)
    locks = [
        _lock(settings.data_dir, "up.lock", _OTHER_UP_SECONDS, _OTHER_UP),
        # Inherited by the children: released when the last of them has ended.
        _lock(settings.data_dir, "children.lock", _ORPHANS_SECONDS, _ORPHANS),
    ]
    _check_ports(settings, with_flower)
    _prepare_rbac(settings, addresses)
    _report_missing_playbooks(settings)
    process_manager.exec_process_manager(_plan(settings, with_flower, locks))


def repair_redis(settings: Settings) -> list[str]:
    """Cuts the embedded Redis' file behind its last whole command; returns what was done.

    Raises ConfigurationError when the service is running, or when the file cannot be mended.
    """
    with stopped(settings):
        return redis_repair.mend(settings.data_dir, cut_all=True)


@contextmanager
def stopped(settings: Settings) -> Iterator[None]:
    """Keeps the service from starting. Raises ConfigurationError when it is running."""
    lock = _lock(settings.data_dir, "children.lock", _OTHER_UP_SECONDS, _OTHER_UP)
    try:
        yield
    finally:
        os.close(lock)


def _plan(settings: Settings, with_flower: bool, locks: list[int]) -> Plan:
    # A server that listens on all addresses is probed on the loopback address.
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.Flask_tcp_ip, settings.Flask_tcp_ip)
    return Plan(
        roles=_roles(settings, with_flower),
        url=settings.url,
        health_address=(host.strip("[]"), settings.Flask_tcp_port),
        is_tls=settings.is_tls,
        redis_socket=str(settings.redis_socket) if settings.embeds_redis else "",
        # A short directory made for the socket, where the path of data_dir is too long for one.
        owns_socket_dir=settings.redis_socket.parent != settings.data_dir,
        ssh_masters=str(settings.ssh_masters_dir),
        locks=locks,
        log_level=settings.log_level,
        # For a person at a terminal the audit log and lines of each part are noise, unless config.ini asks for them.
        is_quiet=sys.stderr.isatty() and "audit_stdout" not in settings.model_fields_set,
    )


def _roles(settings: Settings, with_flower: bool) -> list[Role]:
    roles = []
    if settings.embeds_redis:
        _make_private(settings.redis_socket.parent)
        command = embedded_redis.command_line(settings)
        embedded_redis.check_files(settings)
        repair = embedded_redis.repair_command(settings)
        roles.append(Role("redis", command, _REDIS_SECONDS, repair=repair))
    worker_seconds = settings.drain_seconds + process_manager.WORKER_SECONDS
    # QUIT makes worker and gunicorn stop at once: when this process is killed, nothing waits for them or for Redis.
    roles.append(Role("worker", _command(settings, "worker"), worker_seconds, signal.SIGQUIT))
    roles.append(Role("web", _command(settings, "web"), _WEB_SECONDS, signal.SIGQUIT))
    if with_flower:
        roles.append(Role("flower", _command(settings, "flower"), _FLOWER_SECONDS))
    return roles


def _command(settings: Settings, name: str) -> list[str]:
    # -P: files in the working directory must not be imported in place of our modules.
    command = [sys.executable, "-P", "-m", "flansible", name]
    if settings.config_file:
        command += ["--config", str(settings.config_file)]
    return command


def _prepare_rbac(settings: Settings, addresses: list[str]) -> None:
    """Creates rbac.json if it is missing; refuses the default password where other machines can connect."""
    path = settings.rbac_file
    if not path.exists():
        reachable = next((address for address in addresses if not is_loopback(address)), None)
        if reachable:
            message = f"does not exist, and {reachable} is not a loopback address: admin needs a password; "
            raise ConfigurationError([Fault(str(path), "", message + passwords.ADVICE)])
        passwords.create_default(path)
        print(f"Made {path}: user admin, password admin; change it with `flansible passwd admin`", file=sys.stderr)
    users.RbacFile(path, settings=settings)
    passwords.refuse_default_admin(path, addresses)


def _report_missing_playbooks(settings: Settings) -> None:
    root = settings.playbook_root
    if not os.path.isdir(root):
        print(
            f"Playbooks are looked for in {root}, which does not exist: put yours there, or set playbook_root. "
            "For a first one, stop this and run `flansible init`",
            file=sys.stderr,
        )


def _make_private(path: Path) -> None:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.stat().st_uid != os.getuid():
            raise ConfigurationError(
                [Fault(str(path), "data_dir", "is owned by another user; choose another data_dir")]
            )
        path.chmod(0o700)
    except OSError as error:
        raise ConfigurationError([Fault(str(path), "data_dir", f"cannot be created: {error}")]) from error


_OTHER_UP = "another `flansible up` uses this data_dir; stop it, or set another data_dir for this one"
_ORPHANS = "processes that an earlier `flansible up` started are still running; end them (see `ps`)"


def _lock(data_dir: Path, name: str, wait_seconds: float, message: str) -> int:
    descriptor = os.open(data_dir / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    give_up_at = time.monotonic() + wait_seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            if time.monotonic() > give_up_at:
                os.close(descriptor)
                raise ConfigurationError([Fault(str(data_dir), "data_dir", message)]) from None
            time.sleep(_TICK_SECONDS)


def _check_ports(settings: Settings, with_flower: bool) -> None:
    _check_port(settings.Flask_tcp_ip, settings.Flask_tcp_port, "Flask_tcp_port")
    if with_flower:
        _check_port(settings.flower_tcp_ip, settings.flower_tcp_port, "flower_tcp_port")


def _check_port(address: str, port: int, key: str) -> None:
    host = address.strip("[]")
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        reason = error.strerror or error
        message = f"cannot listen on {address} port {port}: {reason}; choose another in config.ini, or for once with "
        message += f"FLANSIBLE_{key.upper()}={port + 1}"
        raise ConfigurationError([Fault("config", key, message)]) from error
