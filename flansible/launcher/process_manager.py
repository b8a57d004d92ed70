"""The parent process of `flansible up`: starts the children in order, restarts those that die, stops them in order.

Start: 1. Redis (the embedded one), until it answers PING. When it ends instead, its file is mended if that is damaged
       2. the worker, the web server and, if wanted, Flower, all at once
       3. when /api/health answers 200: the line "Flansible is ready at ..."
Stop:  1. the worker and Flower: no new runs. Runs may continue for drain_seconds, and the web server still shows them;
          a second signal ends them at once
       2. sandboxes that a killed worker left
       3. the web server: no new requests
       4. Redis
       5. ssh control masters that a killed worker left, Redis' socket, the locks on data_dir
A child that does not stop in time is killed, and so is what it leaves in its process group. When this process is killed
itself, the kernel signals its children (PR_SET_PDEATHSIG).

up.py execs this program. It lives as long as the service, so it must need little memory: standard library only (import
law).
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from flansible.system import ssh_control, standard_output

log = logging.getLogger(__name__)

READY_TIMEOUT_SECONDS = 60.0
# A worker's time to stop beyond drain_seconds: runs have three seconds to end after TERM; then they are killed and
# their final states recorded.
WORKER_SECONDS = 4.5
# Blocked during the exec: a signal must not arrive while there is no handler.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_TICK_SECONDS = 0.05
_RESTARTS_PER_MINUTE = 10
_REPAIRED, _NOT_REPAIRED = 0, 1  # exit codes of a repair; any other: nothing is damaged
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_SANDBOX_SECONDS = 1.0
_SANDBOX = "bwrap\n"  # /proc/PID/comm of a sandbox's first process
_STOP_ORDER = (("worker", "flower"), ("web",), ("redis",))  # children that are stopped together

WrapConnection = Callable[[socket.socket], socket.socket]


@dataclass(frozen=True)
class Role:
    """One child: how to start it, how long it may take to stop, and which signal it gets when this process dies.

    repair: the command that is run when it ends with exit code 1, before it is started again; [] for none.
    """

    name: str
    command: list[str]
    stop_seconds: float
    death_signal: int = signal.SIGTERM
    repair: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Plan:
    """What to start, and how to check that it works.

    redis_socket: of the embedded Redis, '' without one; owns_socket_dir: whether its folder was made for it alone;
    ssh_masters: the folder of the workers' ssh control sockets; locks: open descriptors, kept until the end, the last
    one by the children as well; is_quiet: what the children print to standard output is thrown away.
    """

    roles: list[Role]
    url: str
    health_address: tuple[str, int]
    is_tls: bool
    redis_socket: str
    owns_socket_dir: bool
    ssh_masters: str
    locks: list[int]
    log_level: str
    is_quiet: bool


def exec_process_manager(plan: Plan) -> None:
    """Execs this module in the same process, to carry the plan out without the memory that preparing it took."""
    descriptor = os.memfd_create("plan", 0)
    os.write(descriptor, json.dumps(asdict(plan)).encode())
    os.lseek(descriptor, 0, os.SEEK_SET)
    for lock in plan.locks:
        os.set_inheritable(lock, True)
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    # -P: files in the working directory must not be imported in place of our modules.
    program = "flansible.launcher.tls_probe" if plan.is_tls else "flansible.launcher.process_manager"
    os.execv(sys.executable, [sys.executable, "-P", "-m", program, str(descriptor)])


def _read_plan(descriptor: int) -> Plan:
    with os.fdopen(descriptor, "rb") as file:
        given = json.load(file)
    for lock in given["locks"]:
        os.set_inheritable(lock, False)
    roles = [Role(**role) for role in given.pop("roles")]
    host, port = given.pop("health_address")
    return Plan(roles=roles, health_address=(host, port), **given)


@dataclass
class _Child:
    role: Role
    process: subprocess.Popen[bytes] | None = None
    starts: list[float] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.role.name


class _ProcessManager:
    def __init__(self, plan: Plan, wrap: WrapConnection) -> None:
        self._plan = plan
        self._wrap = wrap
        self._children = [_Child(role) for role in plan.roles]
        self._stopping = False
        self._stop_at_once = False

    def run(self) -> int:
        """Starts the children, watches them until SIGINT, SIGTERM or SIGHUP, stops them; returns the exit code."""
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        for number in SIGNALS:
            signal.signal(number, self._on_signal)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        try:
            if not self._start_all():
                return 0 if self._stopping else 1
            standard_output.write_line(f"Flansible is ready at {self._plan.url}")
            return self._watch()
        finally:
            self._stop_all()

    def _start_all(self) -> bool:
        """Starts the children in order; False when a signal or a failure came before the service was ready."""
        plan = self._plan
        for child in self._children:
            self._start(child)
            if child.name == "redis" and not self._wait_for(lambda: _redis_answers(plan.redis_socket)):
                return False
        return self._wait_for(lambda: _is_healthy(plan.health_address, self._wrap))

    def _start(self, child: _Child) -> None:
        child.starts.append(time.monotonic())
        parent, lock = os.getpid(), self._plan.locks[-1]
        child.process = subprocess.Popen(
            child.role.command,
            stdin=subprocess.DEVNULL,
            # Only this process prints to standard output, one line when ready. Children's output goes to standard
            # error.
            stdout=subprocess.DEVNULL if self._plan.is_quiet else sys.stderr,
            start_new_session=True,  # so that Ctrl-C reaches this process alone
            pass_fds=(lock,),
            preexec_fn=lambda: _set_death_signal(parent, child.role.death_signal),
        )

    def _wait_for(self, condition: Callable[[], bool]) -> bool:
        give_up_at = time.monotonic() + READY_TIMEOUT_SECONDS
        while not self._stopping:
            if condition():
                return True
            dead = next((child for child in self._children if child.process and child.process.poll() is not None), None)
            if dead is not None and dead.process is not None:
                if self._repair(dead) == _REPAIRED:
                    self._start(dead)
                    give_up_at = time.monotonic() + READY_TIMEOUT_SECONDS
                    continue
                if self._stopping:
                    return False
                print(f"{dead.name} ended with exit code {dead.process.returncode} while starting", file=sys.stderr)
                return False
            if time.monotonic() > give_up_at:
                print(
                    f"not ready after {READY_TIMEOUT_SECONDS:g} s; see {self._plan.url}/api/health",
                    file=sys.stderr,
                )
                return False
            time.sleep(_TICK_SECONDS)
        return False

    def _watch(self) -> int:
        """Restarts children that die, until a signal; returns 1 when one dies ten times within a minute."""
        while not self._stopping:
            self._reap_adopted()
            for child in self._children:
                if child.process is None or child.process.poll() is None or self._stopping:
                    continue
                recent = [moment for moment in child.starts if moment > time.monotonic() - 60]
                if len(recent) >= _RESTARTS_PER_MINUTE:
                    print(f"{child.name} died {len(recent)} times within a minute; stopping", file=sys.stderr)
                    return 1
                log.error("%s ended with exit code %s; restarting it", child.name, child.process.returncode)
                # Its own children too: gunicorn's still hold the port.
                _kill_group(child.process)
                if self._repair(child) == _NOT_REPAIRED:
                    return 1
                time.sleep(restart_pause_seconds(len(recent)))
                self._start(child)
            time.sleep(_TICK_SECONDS)
        return 0

    def _repair(self, child: _Child) -> int | None:
        """Runs the repair of a child that ended with exit code 1; returns its exit code, None without one."""
        if not child.role.repair or child.process is None or child.process.returncode != 1:
            return None
        parent = os.getpid()
        process = subprocess.Popen(
            child.role.repair,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
            start_new_session=True,
            preexec_fn=lambda: _set_death_signal(parent, signal.SIGTERM),
        )
        while process.poll() is None:
            if self._stopping:
                process.terminate()
            time.sleep(_TICK_SECONDS)
        return process.returncode

    def _stop_all(self) -> None:
        self._stopping = True
        for names in _STOP_ORDER:
            self._stop([child for child in self._children if child.name in names])
            if "worker" in names:
                self._end_sandboxes()
        with contextlib.suppress(OSError):
            ssh_control.end_orphaned_masters(Path(self._plan.ssh_masters))
        if self._plan.redis_socket:
            _remove_socket(self._plan.redis_socket, self._plan.owns_socket_dir)
        for descriptor in self._plan.locks:
            os.close(descriptor)

    def _reap_adopted(self) -> list[int]:
        """Reaps ended children that this process did not start; returns those that still run.

        Those are left by the worker, or by one that was killed: this process is the subreaper of all its descendants.
        """
        ours = {child.process.pid for child in self._children if child.process is not None}
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            adopted = [pid for pid in map(int, file.read().split()) if pid not in ours]
        return [pid for pid in adopted if os.waitpid(pid, os.WNOHANG)[0] == 0]

    def _end_sandboxes(self) -> None:
        """Kills sandboxes that a killed worker left, with the processes in them. A worker that stops ends its own."""
        give_up_at = time.monotonic() + _SANDBOX_SECONDS
        while left := [pid for pid in self._reap_adopted() if _is_sandbox(pid)]:
            for pid in left:
                os.kill(pid, signal.SIGKILL)
            if time.monotonic() > give_up_at:
                break
            time.sleep(_TICK_SECONDS)

    def _stop(self, children: list[_Child]) -> None:
        """Sends TERM to these children, waits, and kills those that do not end. A second signal shortens the wait."""
        running = [child for child in children if child.process is not None]
        give_up_at = {child.name: time.monotonic() + child.role.stop_seconds for child in running}
        for child in running:
            _send(child, signal.SIGTERM)
        is_shortened = False
        while left := [child for child in running if child.process is not None and child.process.poll() is None]:
            if self._stop_at_once and not is_shortened:
                is_shortened = True
                for child in left:
                    give_up_at[child.name] = min(give_up_at[child.name], time.monotonic() + WORKER_SECONDS)
                    if child.name == "worker":
                        _send(child, signal.SIGTERM)
            for child in left:
                if time.monotonic() > give_up_at[child.name]:
                    log.info("%s does not end; killing it", child.name)
                    _send(child, signal.SIGKILL)
            time.sleep(_TICK_SECONDS)
        for child in running:
            _kill_group(child.process)

    def _on_signal(self, _number: int, _frame: object) -> None:
        self._stop_at_once = self._stopping
        self._stopping = True


def restart_pause_seconds(recent_starts: int) -> float:
    """Returns the pause before a restart: none for a child that had lived for longer than a minute."""
    return min(2.0, 0.2 * max(0, recent_starts - 1))


def _set_death_signal(parent: int, number: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
    if os.getppid() != parent:  # it died before the prctl
        os._exit(1)


def _is_sandbox(pid: int) -> bool:
    with open(f"/proc/{pid}/comm") as file:
        return file.read() == _SANDBOX


def _send(child: _Child, number: signal.Signals) -> None:
    if child.process is not None and child.process.poll() is None:
        child.process.send_signal(number)


def _kill_group(process: subprocess.Popen[bytes] | None) -> None:
    """Kills what an ended child left in its process group. Runs are in none of these groups."""
    if process is not None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _remove_socket(path: str, owns_socket_dir: bool) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    if owns_socket_dir:
        with contextlib.suppress(OSError):
            os.rmdir(os.path.dirname(path))


def _redis_answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
            probe.sendall(b"PING\r\n")
            return probe.recv(64).startswith(b"+PONG")  # -LOADING while it reads its file
        except OSError:
            return False


def _is_healthy(address: tuple[str, int], wrap: WrapConnection) -> bool:
    # Not http.client, which imports half of the email package.
    try:
        with socket.create_connection(address, 5) as plain, wrap(plain) as connection:
            connection.sendall(b"GET /api/health HTTP/1.0\r\n\r\n")
            return connection.recv(64).split(b" ")[1:2] == [b"200"]
    except OSError:
        return False


def _without_tls(connection: socket.socket) -> socket.socket:
    return connection


def main(wrap: WrapConnection = _without_tls) -> None:
    """wrap: wraps a connection to the web server in TLS, if the server speaks it."""
    plan = _read_plan(int(sys.argv[1]))
    logging.basicConfig(
        level=plan.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    sys.exit(_ProcessManager(plan, wrap).run())


if __name__ == "__main__":
    main()
