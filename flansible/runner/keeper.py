"""The keeper: one small process per run, between the fork server and the run.

It is the child subreaper of everything its run starts, so a process cannot leave the run's tree by `setsid` or by
losing its parent. It ends that tree when the supervisor says so or is gone, removes the run's temp directory, and
tells how the run ended. Forked by flansible.runner.forkserver; talks to the supervisor over the run's channel.
"""

from __future__ import annotations

import ctypes
import os
import select
import shutil
import signal
import socket
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass, field

import psutil

from flansible import wire
from flansible.errors import WireError
from flansible.runner import play

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_KILL_ROUND_SECONDS = 0.02
_TEMP_SUFFIX_LENGTH = 8  # what tempfile.mkdtemp appends
_KILL_LIMIT_SECONDS = 10.0


@dataclass
class _Ending:
    """How the run is being ended, once it is."""

    stopping: bool = False
    kill_at: float = 0.0
    ended: set[int] = field(default_factory=set)


def keep(channel: socket.socket, output: int, events: int) -> None:
    """Fork the run that the channel's first frame describes and see it to its end."""
    request = wire.receive(channel)
    if request is None or request.get("type") != "run":
        return
    become_subreaper()
    temp_dir = _make_temp_dir(request)
    run_pid = os.fork()
    if run_pid == 0:
        _be_the_run(channel, output, events, request, temp_dir)
    os.close(output)
    os.close(events)
    try:
        ending = _Ending()
        _tell(channel, {"type": "started", "pid": run_pid})
        status = _watch(channel, run_pid, float(request["grace_seconds"]), ending)
        if ending.stopping or os.WIFSIGNALED(status):
            _kill_all(ending)
        _tell(channel, _exited(status, ending))
    finally:
        if temp_dir:
            shutil.rmtree(temp_dir, ignore_errors=True)


def _exited(status: int, ending: _Ending) -> wire.Frame:
    signalled = os.WIFSIGNALED(status)
    return {
        "type": "exited",
        "returncode": None if signalled else os.waitstatus_to_exitcode(status),
        "signal": os.WTERMSIG(status) if signalled else None,
        "stopped": len(ending.ended),
    }


def _watch(channel: socket.socket, run_pid: int, grace_seconds: float, ending: _Ending) -> int:
    """Wait for the run; end its whole tree on a `stop` frame or when the channel ends. Returns its wait status."""
    watched = os.pidfd_open(run_pid)
    poll = select.poll()
    poll.register(channel, select.POLLIN)
    poll.register(watched, select.POLLIN)
    try:
        while True:
            timeout = None
            if ending.stopping:
                timeout = max(0.0, (ending.kill_at - time.monotonic()) * 1000)
            ready = {descriptor for descriptor, _ in poll.poll(timeout)}
            if watched in ready:
                return os.waitpid(run_pid, 0)[1]
            if channel.fileno() in ready:
                poll.unregister(channel)
                _begin_ending(run_pid, _grace(channel, grace_seconds), ending)
            elif ending.stopping and time.monotonic() >= ending.kill_at:
                _kill(run_pid)
    finally:
        os.close(watched)


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
    ending.ended = {process.pid for process in _tree()}
    # To the run alone: Ansible's handler passes TERM on to its workers, and each to its own session.
    try:
        os.kill(run_pid, signal.SIGTERM)
    except ProcessLookupError:
        pass


def _kill_all(ending: _Ending) -> None:
    """TERM was given; now give what is left the rest of the grace, then KILL until nothing is left."""
    for process in _tree():
        ending.ended.add(process.pid)
        _signal(process, signal.SIGTERM)
    while _reaped_tree() and time.monotonic() < ending.kill_at:
        time.sleep(_KILL_ROUND_SECONDS)
    give_up_at = time.monotonic() + _KILL_LIMIT_SECONDS
    # A dying process may still fork: look again until the tree is empty. Orphans come to us, the subreaper.
    while (left := _reaped_tree()) and time.monotonic() < give_up_at:
        for process in left:
            ending.ended.add(process.pid)
            _signal(process, signal.SIGKILL)
        time.sleep(_KILL_ROUND_SECONDS)


def _tree() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def _reaped_tree() -> list[psutil.Process]:
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return []
        if pid == 0:
            return _tree()


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        # Gone already, or another user's (become): its parent's end is all we can bring about.
        pass


def _tell(channel: socket.socket, frame: wire.Frame) -> None:
    try:
        channel.sendall(wire.encode(frame))
    except OSError:
        # The supervisor is gone; the watch loop sees the channel's end and acts on it.
        pass


def _make_temp_dir(request: wire.Frame) -> str | None:
    """The run's own DEFAULT_LOCAL_TMP: Ansible makes one per process when it loads, and forks would share it."""
    if request["program"] == "git":
        return None
    return tempfile.mkdtemp(prefix=_temp_prefix(os.getpid()), dir=play.local_tmp_base())


def remove_temp_dirs_of(keeper_pid: int) -> None:
    """For the fork server, when a keeper was killed: nobody else knows of its run's temp directory."""
    base, prefix = play.local_tmp_base(), _temp_prefix(keeper_pid)
    for name in os.listdir(base):
        # By its length as well: the number may be the beginning of another's.
        if name.startswith(prefix) and len(name) == len(prefix) + _TEMP_SUFFIX_LENGTH:
            shutil.rmtree(os.path.join(base, name), ignore_errors=True)


def _temp_prefix(keeper_pid: int) -> str:
    return f"ansible-local-{keeper_pid}"  # as Ansible has it: the name shows in the output of -vvv


def _be_the_run(channel: socket.socket, output: int, events: int, request: wire.Frame, temp_dir: str | None) -> None:
    """Become the run; never returns."""
    status = 250  # ansible's own code for an unexpected exception
    try:
        os.setsid()
        # Should the keeper be killed, the run must not go on unsupervised.
        _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        channel.close()
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.close(output)
        status = play.run(request, events, temp_dir)
    except BaseException:
        traceback.print_exc(file=sys.stderr)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def become_subreaper() -> None:
    """From now on the orphans among our descendants become our children."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}) failed")
