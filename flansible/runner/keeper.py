"""The keeper: one small process per run, between the fork server and the run.

It is the child subreaper of everything its run starts, so a process cannot leave the run's tree by `setsid` or by
losing its parent. It ends that tree when the supervisor says so or is gone, removes what the run left on this machine,
and tells how the run ended. Forked by flansible.runner.forkserver; talks to the supervisor over the run's channel.
"""

from __future__ import annotations

import contextlib
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
from flansible.runner.cleanup import RunFiles
from flansible.runner.module_cache import Payloads

_KILL_ROUND_SECONDS = 0.02
_KILL_LIMIT_SECONDS = 10.0
_NAMES_TOLD = 200


@dataclass
class _Ending:
    """How the run is being ended, once it is."""

    stopping: bool = False
    kill_at: float = 0.0
    ended: dict[int, str] = field(default_factory=dict)  # process id -> name, in the order found

    def note(self, found: list[psutil.Process]) -> None:
        for process in found:
            if process.pid not in self.ended and (name := process_tree.name_of(process.pid)) is not None:
                self.ended[process.pid] = name


@dataclass(frozen=True)
class Lent:
    """What the fork server gives to every keeper: the packed modules, and the pipe for names of those it lacks."""

    payloads: Payloads
    wanting: int


def keep(channel: socket.socket, output: int, events: int, lent: Lent) -> None:
    """Fork the run that the channel's first frame describes and see it to its end."""
    request = wire.receive(channel)
    if request is None or request.get("type") != "run":
        return
    process_tree.become_subreaper()
    # git gets none: its directory may have a broken ansible.cfg, and it leaves nothing.
    files = RunFiles.make(play.local_tmp_base()) if request["program"] != "git" else None
    keeper = os.getpid()
    run_pid = os.fork()
    if run_pid == 0:
        os.close(lent.wanting)
        _be_the_run(keeper, channel, output, events, request, files, lent.payloads)
    os.close(output)
    os.close(events)
    try:
        ending = _Ending()
        _tell(channel, {"type": "started", "pid": run_pid})
        status = _watch(channel, run_pid, float(request["grace_seconds"]), ending)
        if ending.stopping or os.WIFSIGNALED(status):
            _kill_all(ending, request.get("ssh_masters"))
            if files:
                files.remove()
        elif files:
            _ask_for(lent, files)
        _tell(channel, _exited(status, ending))
    finally:
        if files:
            _remove_files(files)


def _ask_for(lent: Lent, files: RunFiles) -> None:
    """Have the fork server keep the modules that this run had to pack."""
    if names := lent.payloads.wanted(files.folder):
        with contextlib.suppress(OSError):  # it has more to do than it can note, or is gone
            os.write(lent.wanting, "".join(f"{name}\n" for name in names).encode())


def _exited(status: int, ending: _Ending) -> wire.Frame:
    signalled = os.WIFSIGNALED(status)
    return {
        "type": "exited",
        "returncode": None if signalled else os.waitstatus_to_exitcode(status),
        "signal": os.WTERMSIG(status) if signalled else None,
        "stopped": [{"pid": pid, "name": name} for pid, name in list(ending.ended.items())[:_NAMES_TOLD]],
        "stopped_count": len(ending.ended),
    }


def _remove_files(files: RunFiles) -> None:
    """All of them, unless a daemon or job that the run has left may still need what bears its number."""
    if _reaped_tree():
        files.remove_folder()
    else:
        files.remove()


def _watch(channel: socket.socket, run_pid: int, grace_seconds: float, ending: _Ending) -> int:
    """Wait for the run; end its whole tree on a `stop` frame or when the channel ends. Returns its wait status."""
    watched = os.pidfd_open(run_pid)
    wakeup, woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    poll = select.poll()
    for descriptor in (channel.fileno(), watched, wakeup):
        poll.register(descriptor, select.POLLIN)
    try:
        while True:
            timeout = None
            if ending.stopping:
                timeout = max(0.0, (ending.kill_at - time.monotonic()) * 1000)
            ready = {descriptor for descriptor, _ in poll.poll(timeout)}
            if watched in ready:
                return os.waitpid(run_pid, 0)[1]
            if wakeup in ready:
                os.read(wakeup, 4096)
                _reap_adopted(run_pid)
            if channel.fileno() in ready:
                poll.unregister(channel)
                _begin_ending(run_pid, _grace(channel, grace_seconds), ending)
            elif ending.stopping and time.monotonic() >= ending.kill_at:
                _kill(run_pid)
    finally:
        signal.set_wakeup_fd(-1)
        for descriptor in (watched, wakeup, woken):
            os.close(descriptor)


def _reap_adopted(run_pid: int) -> None:
    """Take note of the ends of daemons that have come to us; never of the run's, which _watch waits for."""
    while True:
        # Looks without taking. Where it finds the run it would not look further; but then we are about to end anyway.
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is None or ended.si_pid == run_pid:
            return
        os.waitpid(ended.si_pid, 0)


def _grace(channel: socket.socket, default: float) -> float:
    """Seconds between TERM and KILL: what a `stop` frame says, else (the supervisor is gone) the run's own."""
    try:
        frame = wire.receive(channel)
    except (OSError, WireError):
        return default
    return float(frame.get("grace_seconds", default)) if frame else default


def _begin_ending(run_pid: int, grace_seconds: float, ending: _Ending) -> None:
    ending.stopping = True
    ending.kill_at = time.monotonic() + grace_seconds
    ending.note(process_tree.descendants())
    # To the run alone: Ansible's handler passes TERM on to its workers, and each to its own session.
    try:
        os.kill(run_pid, signal.SIGTERM)
    except ProcessLookupError:
        pass


def _kill_all(ending: _Ending, masters_directory: str | None) -> None:
    """TERM was given; now give what is left the rest of the grace, then KILL until nothing is left.

    But for masters of ssh that other runs of the user are using: those end with them.
    """
    left = process_tree.descendants()
    spared = set(shared := ssh_cleanup.of(masters_directory, left))
    ending.note([process for process in left if process not in spared])
    for process in left:
        if process not in spared:
            process_tree.send(process, signal.SIGTERM)
    while set(_reaped_tree()) - spared and time.monotonic() < ending.kill_at:
        time.sleep(_KILL_ROUND_SECONDS)
    _kill_until_none_is_left(ending, spared)
    if shared:
        _kill_until_none_is_left(ending, ssh_cleanup.dismiss(shared))


def _kill_until_none_is_left(ending: _Ending, spared: set[psutil.Process]) -> None:
    give_up_at = time.monotonic() + _KILL_LIMIT_SECONDS
    # A dying process may still fork: look again until the tree is empty. Orphans come to us, the subreaper.
    while (left := [one for one in _reaped_tree() if one not in spared]) and time.monotonic() < give_up_at:
        ending.note(left)
        process_tree.kill(left)
        time.sleep(_KILL_ROUND_SECONDS)


def _reaped_tree() -> list[psutil.Process]:
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


def _tell(channel: socket.socket, frame: wire.Frame) -> None:
    try:
        channel.sendall(wire.encode(frame))
    except OSError:
        # The supervisor is gone; the watch loop sees the channel's end and acts on it.
        pass


def _be_the_run(
    keeper: int,
    channel: socket.socket,
    output: int,
    events: int,
    request: wire.Frame,
    files: RunFiles | None,
    payloads: Payloads,
) -> None:
    """Become the run; never returns."""
    status = play.EXIT_UNEXPECTED
    try:
        os.setsid()
        # Should the keeper be killed, the run must not go on unsupervised.
        process_tree.be_told_of_parents_death(signal.SIGTERM)
        if os.getppid() != keeper:
            os._exit(status)
        channel.close()
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.close(output)
        status = play.run(request, events, files, payloads)
    except BaseException:
        traceback.print_exc(file=sys.stderr)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
