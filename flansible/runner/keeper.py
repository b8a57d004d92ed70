"""The keeper: one small process per run, between the fork server and the run.

It is the child subreaper of everything its run starts, so a process cannot leave the run's tree by `setsid` or by
losing its parent. It ends that tree on a `stop` frame or when the supervisor is gone, removes what the run left on this
machine, and sends how the run ended. Forked by flansible.runner.forkserver; its only link to the supervisor is the
run's channel.

    running ── run exits ──────────────────────────────────────────▶ `exited`; daemons that it left live on,
       │                                                             or are killed (`ends_processes` of a confined run)
       │
       └─ `stop`, or channel ends, or the lease: TERM to the run ── run exits ──▶ TERM to the rest, KILL after the
                          │                                                  ▲     grace ▶ `exited`
                          └── grace is over, or kill_at: KILL to the run ────┘

The deadline of the lease (`stop_at`, `kill_at`; docs/architecture/fencing.md) is moved by `lease` frames. It holds
without the supervisor: that may be stopped, or cut off from a store that has given the task to another worker.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
import socket
import sys
import time
import traceback
from dataclasses import dataclass, field

import psutil

from flansible import wire
from flansible.errors import WireError
from flansible.runner import play, process_tree, ssh_cleanup
from flansible.runner.agent_socket import AgentSocket
from flansible.runner.cleanup import RunFiles
from flansible.runner.module_cache import ModuleCache

_POLL_SECONDS = 0.02
_KILL_LIMIT_SECONDS = 10.0
_ORPHAN_GRACE_SECONDS = 5.0  # at most, when the supervisor is gone: its task waits for our end
_LOOK_SECONDS = 1.0  # how often the clock is read: poll(2) does not count the time in which the machine is suspended
_LEFTOVERS_SECONDS = 0.3  # for what is about to end by itself, such as an ssh whose session is over
_MAX_STOPPED_NAMES = 200


def _now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass
class _Termination:
    """State of ending the run: when its lease makes it begin, whether it began, when to kill, and which processes it
    has ended. Times are of CLOCK_BOOTTIME."""

    stop_at: float = math.inf
    lease_kill_at: float = math.inf
    stopping: bool = False
    grace_ends_at: float = math.inf
    ended: dict[int, str] = field(default_factory=dict)  # process id -> name, in the order found

    @property
    def kill_at(self) -> float:
        return min(self.grace_ends_at, self.lease_kill_at)

    def take_lease(self, lease: wire.Frame) -> None:
        """Takes the deadline from a `run` or `lease` frame."""
        if lease.get("stop_at") is not None:
            self.stop_at, self.lease_kill_at = float(lease["stop_at"]), float(lease["kill_at"])

    def note(self, found: list[psutil.Process]) -> None:
        for process in found:
            if process.pid not in self.ended and (name := process_tree.process_name(process.pid)) is not None:
                self.ended[process.pid] = name


@dataclass(frozen=True)
class KeeperResources:
    """What the fork server shares with keepers: the packed modules, and the pipe for names of modules to pack."""

    modules: ModuleCache
    wanted_pipe: int


def keep_run(channel: socket.socket, output: int, events: int, resources: KeeperResources) -> None:
    """Forks the run that the channel's first frame describes, and supervises its processes until the end."""
    request = wire.receive(channel)
    if request is None or request.get("type") != "run":
        return
    ending = _Termination()
    ending.take_lease(request)
    if _now() >= ending.stop_at:
        return  # this process, or the fork server, was stopped meanwhile
    try:
        _keep(channel, output, events, request, resources, ending)
    except OSError as error:
        report_failure(channel.fileno(), error)


def report_failure(channel: int, error: OSError) -> None:
    """Sends why a run could not be started, or not be watched any more: a full disk, no descriptors, no processes."""
    where = f": {error.filename}" if error.filename else ""
    reason = f"the run could not be started or watched: {error.strerror or error}{where}"
    with contextlib.suppress(OSError):
        os.write(channel, wire.encode({"type": "failed", "reason": reason}))


def _keep(
    channel: socket.socket,
    output: int,
    events: int,
    request: wire.Frame,
    resources: KeeperResources,
    ending: _Termination,
) -> None:
    process_tree.become_subreaper()
    # git needs none: its directory may have a broken ansible.cfg, and it leaves nothing behind.
    files = None if request["program"] in ("git", "project") else RunFiles.make(play.local_tmp_base())
    try:
        agent = AgentSocket(files) if files and request.get("agent") else None
    except OSError:
        if files:
            files.remove()
        raise
    if agent is not None:
        request["environment"]["SSH_AUTH_SOCK"] = agent.path
    keeper = os.getpid()
    run_pid = os.fork()
    if run_pid == 0:
        if agent is not None:
            agent.listener.close()
        os.close(resources.wanted_pipe)
        _run_child(keeper, channel, output, events, request, files, resources.modules)
    os.close(output)
    os.close(events)
    try:
        _send(channel, {"type": "started", "pid": run_pid, "keeper": keeper}, agent)
        status = _watch(channel, run_pid, float(request["grace_seconds"]), ending)
        if ending.stopping or os.WIFSIGNALED(status):
            if not ending.stopping:
                ending.grace_ends_at = 0.0
            _kill_all(ending, request.get("ssh_masters"))
            if files:
                files.remove()
        else:
            if (request.get("rules") or {}).get("ends_processes"):
                _end_leftovers(ending)
            if files:
                _request_packing(resources, files)
        _send(channel, _exited_frame(status, ending))
    except OSError:
        _kill_tree(ending, set())  # it must not go on unwatched
        raise
    finally:
        if files:
            _remove_files(files)


def _request_packing(resources: KeeperResources, files: RunFiles) -> None:
    """Requests that the fork server packs the modules that this run had to pack itself."""
    if names := resources.modules.missing(files.folder):
        with contextlib.suppress(OSError):  # the pipe is full, or the fork server is gone
            os.write(resources.wanted_pipe, "".join(f"{name}\n" for name in names).encode())


def _exited_frame(status: int, ending: _Termination) -> wire.Frame:
    signalled = os.WIFSIGNALED(status)
    return {
        "type": "exited",
        "returncode": None if signalled else os.waitstatus_to_exitcode(status),
        "signal": os.WTERMSIG(status) if signalled else None,
        "stopped": [{"pid": pid, "name": name} for pid, name in list(ending.ended.items())[:_MAX_STOPPED_NAMES]],
        "stopped_count": len(ending.ended),
    }


def _remove_files(files: RunFiles) -> None:
    """Removes the run's files; only its folder, when a daemon or job it left may still need the tagged ones."""
    if _reap_and_list():
        files.remove_folder()
    else:
        files.remove()


def _watch(channel: socket.socket, run_pid: int, grace_seconds: float, ending: _Termination) -> int:
    """Waits for the run; terminates it on a `stop` frame, when the channel ends, or when its lease does. Returns its
    wait status."""
    watched = os.pidfd_open(run_pid)
    wakeup, woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    poll = select.poll()
    for descriptor in (channel.fileno(), watched, wakeup):
        poll.register(descriptor, select.POLLIN)
    try:
        while True:
            due = ending.kill_at if ending.stopping else ending.stop_at
            # Never without a pause: a killed run may be in a system call that takes minutes to end.
            timeout = min(_LOOK_SECONDS, max(_POLL_SECONDS, due - _now()))
            ready = {descriptor for descriptor, _ in poll.poll(timeout * 1000)}
            if watched in ready:
                return os.waitpid(run_pid, 0)[1]
            if wakeup in ready:
                os.read(wakeup, 4096)
                _reap_adopted(run_pid)
            if channel.fileno() in ready:
                frame = _receive(channel)
                if frame is None:
                    poll.unregister(channel)
                if frame is not None and frame.get("type") == "lease":
                    ending.take_lease(frame)
                else:
                    gone = min(grace_seconds, _ORPHAN_GRACE_SECONDS)
                    _begin_termination(run_pid, float(frame["grace_seconds"]) if frame else gone, ending)
            elif not ending.stopping and _now() >= ending.stop_at:
                _begin_termination(run_pid, grace_seconds, ending)
            elif ending.stopping and _now() >= ending.kill_at:
                _kill(run_pid)
    finally:
        signal.set_wakeup_fd(-1)
        for descriptor in (watched, wakeup, woken):
            os.close(descriptor)


def _reap_adopted(run_pid: int) -> None:
    """Reaps daemons that became our children; never the run, which _watch waits for."""
    while True:
        # WNOWAIT peeks. Once it returns the run it would return no other child; but then we are about to end anyway.
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is None or ended.si_pid == run_pid:
            return
        os.waitpid(ended.si_pid, 0)


def _receive(channel: socket.socket) -> wire.Frame | None:
    """Receives a `stop` or `lease` frame; None when the supervisor is gone."""
    try:
        return wire.receive(channel)
    except (OSError, WireError):
        return None


def _begin_termination(run_pid: int, grace_seconds: float, ending: _Termination) -> None:
    """Sends TERM to the run. Called again, it can only shorten the grace."""
    ending.grace_ends_at = min(ending.grace_ends_at, _now() + grace_seconds)
    if ending.stopping:
        return
    ending.stopping = True
    ending.note(process_tree.descendants())
    # To the run alone: Ansible's handler forwards TERM to its workers, and each of them to its session.
    try:
        os.kill(run_pid, signal.SIGTERM)
    except ProcessLookupError:
        pass


def _kill_all(ending: _Termination, masters_directory: str | None) -> None:
    """Sends TERM to what is left, waits for the rest of the grace, then kills until nothing is left.

    Spares ssh control masters that other runs of the user are using: those end with these runs.
    """
    left = process_tree.descendants()
    spared = set(shared := ssh_cleanup.find_masters(masters_directory, left))
    ending.note([process for process in left if process not in spared])
    for process in left:
        if process not in spared:
            process_tree.send(process, signal.SIGTERM)
    while set(_reap_and_list()) - spared and _now() < ending.kill_at:
        time.sleep(_POLL_SECONDS)
    _kill_tree(ending, spared)
    if shared:
        _kill_tree(ending, ssh_cleanup.stop_masters(shared))


def _end_leftovers(ending: _Termination) -> None:
    """Kills what a confined run has left, but for ssh's connections, which the user's next run uses."""
    give_up_at = time.monotonic() + _LEFTOVERS_SECONDS
    while left := set(_reap_and_list()):
        spared = ssh_cleanup.find_connections(list(left))
        if left == spared or time.monotonic() >= give_up_at:
            return _kill_tree(ending, spared)
        time.sleep(_POLL_SECONDS)


def _kill_tree(ending: _Termination, spared: set[psutil.Process]) -> None:
    give_up_at = time.monotonic() + _KILL_LIMIT_SECONDS
    # A dying process may still fork: repeat until the tree is empty. We adopt orphans, as their subreaper.
    while (left := [one for one in _reap_and_list() if one not in spared]) and time.monotonic() < give_up_at:
        ending.note(left)
        process_tree.kill(left)
        time.sleep(_POLL_SECONDS)


def _reap_and_list() -> list[psutil.Process]:
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return []
        if pid == 0:
            return process_tree.descendants()


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def _send(channel: socket.socket, frame: wire.Frame, agent: AgentSocket | None = None) -> None:
    """Sends a frame, and with it the listening end of the agent's socket, which the keeper then closes."""
    try:
        if agent is None:
            channel.sendall(wire.encode(frame))
        else:
            with agent.listener:
                socket.send_fds(channel, [wire.encode(frame)], [agent.listener.fileno()])
    except OSError:
        # The supervisor is gone; the watch loop sees the channel's end and acts on it.
        pass


def _run_child(
    keeper: int,
    channel: socket.socket,
    output: int,
    events: int,
    request: wire.Frame,
    files: RunFiles | None,
    modules: ModuleCache,
) -> None:
    """Runs the request in this forked child; never returns."""
    status = play.EXIT_UNEXPECTED
    try:
        os.setsid()
        # If the keeper is killed, the run must not continue unsupervised.
        process_tree.set_parent_death_signal(signal.SIGTERM)
        if os.getppid() != keeper:
            os._exit(status)
        channel.close()
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.close(output)
        status = play.run(request, events, files, modules)
    except BaseException:
        traceback.print_exc(file=sys.stderr)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
