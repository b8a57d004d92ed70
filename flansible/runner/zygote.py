"""The zygote: a process with Ansible preloaded, under no configuration, that forks the fork servers.

Started by exec from the worker (flansible.worker.zygote_handle) as `python -m flansible.runner.forkserver FD zygote
...` in `/`, with an ANSIBLE_CONFIG that names neutral.cfg and no other variable of Ansible's. FD is a Unix socket: each
message on it is one byte with two descriptors, the socket of a new fork server and its file for standard error. The
answer is one byte with a pidfd of the new process, or one byte alone when it could not be forked.

    worker ─ FD ─▶ zygote ── fork ──▶ fork server ── fork ──▶ keeper ── fork ──▶ run
       └──────── `configure`, then runs ───▶ ┘

What is loaded here is shared by all fork servers: each costs the time and the memory of its own configuration only
(flansible.runner.reconfigure). One that cannot take on its configuration answers `refused` and ends; the worker starts
it by exec then. Nothing comes back from a fork server, and the zygote reads nothing but these messages.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Callable

from ansible.cli import __version__ as ansible_version

from flansible import wire
from flansible.runner.module_cache import ModuleCache
from flansible.runner.module_packer import Packer
from flansible.runner.reconfigure import Captured

DESCRIPTORS_PER_SERVER = 2
_IDLE_MILLISECONDS = 1000

ServeRuns = Callable[[socket.socket, Captured, ModuleCache], None]


def serve(control: socket.socket, captured: Captured, serve_runs: ServeRuns, pack_usual: bool = False) -> None:
    """Forks a fork server for each request until the worker closes `control`.

    captured: for `serve_runs`; pack_usual: while idle after the start, packs modules for the fork servers that come.
    """
    modules = ModuleCache()
    packer = Packer(modules)
    wakeup, woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    poll = select.poll()
    for descriptor in (control.fileno(), wakeup):
        poll.register(descriptor, select.POLLIN)
    gc.collect()
    gc.freeze()  # as in a fork server: its pages are shared by all that is forked
    control.sendall(wire.encode({"type": "loaded", "ansible_version": ansible_version}))
    idle_timeout = _IDLE_MILLISECONDS if pack_usual else None
    while True:
        ready = {descriptor for descriptor, _ in poll.poll(idle_timeout)}
        if not ready:
            packer.request_usual()
            idle_timeout = None
        if wakeup in ready:
            os.read(wakeup, 4096)
            _reap(packer)
        if control.fileno() in ready:
            message, received, _, _ = socket.recv_fds(control, 1, DESCRIPTORS_PER_SERVER)
            if not message:
                _reap(packer)  # the fork servers, which the worker has ended before
                return packer.stop()
            for descriptor in received:
                os.set_inheritable(descriptor, False)
            own_descriptors = (control.fileno(), wakeup, woken, *packer.descriptors)
            pid = _fork(own_descriptors, received, captured, modules, serve_runs)
            for descriptor in received:
                os.close(descriptor)
            _answer(control, pid)


def _reap(packer: Packer) -> None:
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            if pid == packer.child:
                packer.child_ended(status)


def _answer(control: socket.socket, pid: int | None) -> None:
    """Sends a pidfd of the new process: while it has not been reaped, its number is no other's."""
    try:
        pidfd = os.pidfd_open(pid) if pid is not None else None
    except OSError:
        pidfd = None
    with contextlib.suppress(OSError):  # the worker is gone: the next message says so
        if pidfd is None:
            control.sendall(b"N")
        else:
            socket.send_fds(control, [b"F"], [pidfd])
            os.close(pidfd)


def _fork(
    own_descriptors: tuple[int, ...],
    received: list[int],
    captured: Captured,
    modules: ModuleCache,
    serve_runs: ServeRuns,
) -> int | None:
    """Forks a fork server, which never returns from here. Returns its process id, None when it could not be forked."""
    if len(received) < DESCRIPTORS_PER_SERVER:
        return None  # they came, and there was no room for them
    try:
        pid = os.fork()
    except OSError:
        return None
    if pid != 0:
        return pid
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        for descriptor in own_descriptors:
            os.close(descriptor)
        control, stderr = received
        os.dup2(stderr, 2)
        os.close(stderr)
        serve_runs(socket.socket(fileno=control), captured, modules)
        status = 0
    except BaseException:
        traceback.print_exc(file=sys.stderr)
    finally:
        # Whatever happens, a forked copy must never return into the zygote's loop.
        sys.stderr.flush()
        os._exit(status)
