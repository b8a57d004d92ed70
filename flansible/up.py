"""`flansible up`: a private Redis, a worker, the web server and perhaps Flower, as children of one process.

Starts them in order, prints one line when /api/health says all is well, and starts again what dies. Stops first the
worker, whose runs may go on for drain_seconds while the web server still shows them, then the web server, then Redis;
a second signal ends the runs at once. Should this process be killed, the kernel tells its children (PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import http.client
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from flansible import passwords, rbac, redis_server, ssh_masters
from flansible.config import Settings, is_loopback
from flansible.errors import ConfigurationError, Fault
from flansible.versions import require_tested_ansible

log = logging.getLogger(__name__)

READY_TIMEOUT_SECONDS = 60.0
_TICK_SECONDS = 0.05
_RESTARTS_PER_MINUTE = 10
_PR_SET_PDEATHSIG = 1
# To stop: with the default drain_seconds of 2 these make up the ten seconds within which all is gone.
_WORKER_SECONDS = 4.5  # beyond drain_seconds: runs get three to end by themselves, then they are killed and settled
_WEB_SECONDS = 2.0
_REDIS_SECONDS = 1.0
_FLOWER_SECONDS = 1.0
# Who is stopped together with whom, and in which order: no new runs, then no new requests, then no store.
_STOP_ORDER = (("worker", "flower"), ("web",), ("redis",))
_OTHER_UP_SECONDS = 3.0  # one that is just being stopped may have the data_dir a moment longer
_ORPHANS_SECONDS = 20.0  # what one has started that was killed: its runs are being ended


@dataclass
class _Child:
    """One role: how to start it, how long it may take to stop, and what it is sent when this process has died."""

    name: str
    command: list[str]
    stop_seconds: float
    death_signal: signal.Signals = signal.SIGTERM
    process: subprocess.Popen[bytes] | None = None
    starts: list[float] = field(default_factory=list)


class Service:
    """Everything `up` starts. Raises ConfigurationError from `run` before anything is started."""

    def __init__(self, settings: Settings, with_flower: bool = False) -> None:
        self._settings = settings
        self._with_flower = with_flower
        self._children: list[_Child] = []
        self._stopping = False
        self._hurrying = False
        self._locks: list[int] = []

    def run(self) -> int:
        """Start, serve until SIGINT or SIGTERM, stop. Returns the exit code."""
        settings = self._settings
        require_tested_ansible(settings.allow_untested_ansible)
        _make_private(settings.data_dir)
        self._locks.append(_lock(settings.data_dir, "up.lock", _OTHER_UP_SECONDS, _OTHER_UP))
        # Inherited by the children: it is free once the last of them has ended.
        self._locks.append(_lock(settings.data_dir, "children.lock", _ORPHANS_SECONDS, _ORPHANS))
        _prepare_rbac(settings, self._addresses())
        _check_port(settings.Flask_tcp_ip, settings.Flask_tcp_port, "Flask_tcp_port")
        self._children = self._plan()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        try:
            if not self._start_all():
                return 0 if self._stopping else 1
            print(f"Flansible is ready at {url(settings)}", flush=True)
            return self._watch()
        finally:
            self._stop_all()

    def _addresses(self) -> list[str]:
        """Where someone with a password could log in."""
        settings = self._settings
        return [settings.Flask_tcp_ip, settings.flower_tcp_ip] if self._with_flower else [settings.Flask_tcp_ip]

    def _plan(self) -> list[_Child]:
        plan = []
        if self._settings.embeds_redis:
            _make_private(self._settings.redis_socket.parent)
            plan.append(_Child("redis", redis_server.command_line(self._settings), _REDIS_SECONDS))
        worker_seconds = self._settings.drain_seconds + _WORKER_SECONDS
        # QUIT is their word for at once: without this process nobody would wait for them, nor for Redis.
        plan.append(_Child("worker", self._role("worker"), worker_seconds, signal.SIGQUIT))
        plan.append(_Child("web", self._role("web"), _WEB_SECONDS, signal.SIGQUIT))
        if self._with_flower:
            _check_port(self._settings.flower_tcp_ip, self._settings.flower_tcp_port, "flower_tcp_port")
            plan.append(_Child("flower", self._role("flower"), _FLOWER_SECONDS))
        return plan

    def _role(self, name: str) -> list[str]:
        # -P: what lies in the working directory must not be imported in place of our modules.
        command = [sys.executable, "-P", "-m", "flansible", name]
        if self._settings.config_file:
            command += ["--config", str(self._settings.config_file)]
        return command

    def _start_all(self) -> bool:
        """True when the service is ready; False when a signal or a failure came first."""
        for child in self._children:
            _start(child, self._locks[-1])
            if child.name == "redis" and not self._wait_for(lambda: _answers(self._settings.redis_socket)):
                return False
        return self._wait_for(lambda: _healthy(self._settings))

    def _wait_for(self, condition: Callable[[], bool]) -> bool:
        give_up_at = time.monotonic() + READY_TIMEOUT_SECONDS
        while not self._stopping:
            if condition():
                return True
            dead = next((child for child in self._children if child.process and child.process.poll() is not None), None)
            if dead is not None and dead.process is not None:
                print(f"{dead.name} ended with exit code {dead.process.returncode} while starting", file=sys.stderr)
                return False
            if time.monotonic() > give_up_at:
                print(
                    f"not ready after {READY_TIMEOUT_SECONDS:g} s; see {url(self._settings)}/api/health",
                    file=sys.stderr,
                )
                return False
            time.sleep(_TICK_SECONDS)
        return False

    def _watch(self) -> int:
        """Until asked to stop; start again what has died, but not for ever."""
        while not self._stopping:
            for child in self._children:
                if child.process is None or child.process.poll() is None or self._stopping:
                    continue
                recent = [moment for moment in child.starts if moment > time.monotonic() - 60]
                if len(recent) >= _RESTARTS_PER_MINUTE:
                    print(f"{child.name} died {len(recent)} times within a minute; giving up", file=sys.stderr)
                    return 1
                log.error("%s ended with exit code %s; starting it again", child.name, child.process.returncode)
                # Its own children must not stand in the way: gunicorn's have the port.
                _kill_group(child.process)
                time.sleep(restart_pause_seconds(len(recent)))
                _start(child, self._locks[-1])
            time.sleep(_TICK_SECONDS)
        return 0

    def _stop_all(self) -> None:
        self._stopping = True
        for names in _STOP_ORDER:
            self._stop([child for child in self._children if child.name in names])
        with contextlib.suppress(OSError):
            ssh_masters.end_forsaken(self._settings.ssh_masters_dir)
        if self._settings.embeds_redis:
            _remove_socket(self._settings)
        for descriptor in self._locks:
            os.close(descriptor)

    def _stop(self, children: list[_Child]) -> None:
        """Ask them to end, wait for that, and end what does not. Who hurries us hurries the worker."""
        running = [child for child in children if child.process is not None]
        give_up_at = {child.name: time.monotonic() + child.stop_seconds for child in running}
        for child in running:
            _send(child, signal.SIGTERM)
        hurried = False
        while left := [child for child in running if child.process is not None and child.process.poll() is None]:
            if self._hurrying and not hurried:
                hurried = True
                for child in left:
                    give_up_at[child.name] = min(give_up_at[child.name], time.monotonic() + _WORKER_SECONDS)
                    if child.name == "worker":
                        _send(child, signal.SIGTERM)
            for child in left:
                if time.monotonic() > give_up_at[child.name]:
                    log.info("%s does not end; it is killed", child.name)
                    _send(child, signal.SIGKILL)
            time.sleep(_TICK_SECONDS)
        for child in running:
            _kill_group(child.process)

    def _on_signal(self, _number: int, _frame: object) -> None:
        self._hurrying = self._stopping
        self._stopping = True


def restart_pause_seconds(recent_starts: int) -> float:
    """Before a child that has died is started again: none for one that had lived for longer than a minute."""
    return min(2.0, 0.2 * max(0, recent_starts - 1))


def url(settings: Settings) -> str:
    """Where a browser on this machine finds the service."""
    host = settings.Flask_tcp_ip
    return f"http://[{host}]:{settings.Flask_tcp_port}" if ":" in host else f"http://{host}:{settings.Flask_tcp_port}"


def _prepare_rbac(settings: Settings, addresses: list[str]) -> None:
    """Make an rbac.json when there is none; refuse the password everybody knows where others could use it."""
    path = settings.rbac_file
    if not path.exists():
        reachable = next((address for address in addresses if not is_loopback(address)), None)
        if reachable:
            message = f"does not exist, and {reachable} is not a loopback address: admin needs a password; "
            raise ConfigurationError([Fault(str(path), "", message + passwords.ADVICE)])
        passwords.create_default(path)
        print(f"Made {path}: user admin, password admin; change it with `flansible passwd admin`", file=sys.stderr)
    rbac.RbacFile(path)
    passwords.refuse_default_admin(path, addresses)


def _make_private(path: Path) -> None:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.stat().st_uid != os.getuid():
            raise ConfigurationError([Fault(str(path), "data_dir", "belongs to another user")])
        path.chmod(0o700)
    except OSError as error:
        raise ConfigurationError([Fault(str(path), "data_dir", f"cannot be made: {error}")]) from error


_OTHER_UP = "another `flansible up` uses this data_dir; stop it, or give this one a data_dir of its own"
_ORPHANS = "what an earlier `flansible up` started has not ended yet, though that one has; see `ps`"


def _lock(data_dir: Path, name: str, patience_seconds: float, complaint: str) -> int:
    descriptor = os.open(data_dir / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    give_up_at = time.monotonic() + patience_seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            if time.monotonic() > give_up_at:
                os.close(descriptor)
                raise ConfigurationError([Fault(str(data_dir), "data_dir", complaint)]) from None
            time.sleep(_TICK_SECONDS)


def _check_port(address: str, port: int, key: str) -> None:
    host = address.strip("[]")
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        message = f"cannot listen on {address} port {port}: {error.strerror or error}; choose another"
        raise ConfigurationError([Fault("config", key, message)]) from error


def _start(child: _Child, lock: int) -> None:
    child.starts.append(time.monotonic())
    parent = os.getpid()
    child.process = subprocess.Popen(
        child.command,
        stdin=subprocess.DEVNULL,
        # Standard output is ours alone: one line when ready. What children have to say goes to standard error.
        stdout=sys.stderr,
        start_new_session=True,  # Ctrl-C reaches us alone, and we stop them in order
        pass_fds=(lock,),
        preexec_fn=lambda: _die_with(parent, child.death_signal),
    )


def _die_with(parent: int, number: signal.Signals) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
    if os.getppid() != parent:  # it died before the kernel was asked
        os._exit(1)


def _send(child: _Child, number: signal.Signals) -> None:
    if child.process is not None and child.process.poll() is None:
        child.process.send_signal(number)


def _kill_group(process: subprocess.Popen[bytes] | None) -> None:
    """What a child that has ended left of its process group. Runs are in none of these groups."""
    if process is not None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _remove_socket(settings: Settings) -> None:
    settings.redis_socket.unlink(missing_ok=True)
    if settings.redis_socket.parent != settings.data_dir:
        # The short alias of a deep data_dir, made for the socket alone.
        with contextlib.suppress(OSError):
            settings.redis_socket.parent.rmdir()


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
            probe.sendall(b"PING\r\n")
            return probe.recv(64).startswith(b"+PONG")  # -LOADING while it reads its file
        except OSError:
            return False


def _healthy(settings: Settings) -> bool:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.Flask_tcp_ip, settings.Flask_tcp_ip)
    connection = http.client.HTTPConnection(host, settings.Flask_tcp_port, timeout=5)
    try:
        connection.request("GET", "/api/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
