"""The fork server: a process with Ansible preloaded that forks one keeper, and with it one run, per request.

Forked from the zygote (flansible.runner.zygote), which has loaded Ansible already, or started by exec from the worker
(flansible.worker.runner_process) as `python -m flansible.runner.forkserver FD [files=SOFT:HARD] [usual]
worker=PID:START`, in the directory and environment that select the Ansible configuration of its runs; for users other
than admin in a sandbox. With the word `zygote` it is the zygote itself. FD is a Unix socket: each message on it is one
byte with three descriptors, a run's channel, its output pipe and its event pipe. One thread; runs share no state but
the packed modules of the installation (flansible.runner.module_cache), whose names the keepers write to a pipe. When
the worker ends, the socket ends and so does this process; each keeper sees the end of its own channel.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import select
import signal
import socket
import sys
import time

import psutil

from flansible import wire
from flansible.errors import NotForkable
from flansible.runner import cleanup, process_tree
from flansible.system import rlimits

with cleanup.without_own_temp_dir():
    from flansible.runner import keeper, play, preload, reconfigure, zygote
    from flansible.runner.module_cache import ModuleCache
    from flansible.runner.module_packer import Packer
    from flansible.runner.reconfigure import Captured

DESCRIPTORS_PER_RUN = 3
_END_SECONDS = 2.0
_POLL_SECONDS = 0.02
_WANTED_BYTES = 64 * 1024
_IDLE_MILLISECONDS = 1000


def main(argv: list[str]) -> int:
    control = socket.socket(fileno=int(argv[1]))
    control.set_inheritable(False)
    for word in argv[2:]:
        if word.startswith("files="):
            rlimits.set_open_files_limit(*map(int, word.removeprefix("files=").split(":")))
    preload.note_import_output()
    if "zygote" in argv[2:]:
        # First: what is loaded afterwards takes the place that the parsing of this has left free, 3 MB.
        captured = reconfigure.capture()
        preload.load()
        zygote.serve(control, captured, serve_configured, "usual" in argv[2:])
    else:
        preload.load()
        _serve_loaded(control, ModuleCache(), "usual" in argv[2:])
    return 0


def serve_configured(control: socket.socket, captured: Captured, modules: ModuleCache) -> None:
    """Takes on the configuration that the worker sends, in a process forked from the zygote; then forks runs."""
    frame = wire.receive(control)
    if frame is None:
        return
    os.environ.clear()
    os.environ.update(frame["environment"])
    reason = ""
    try:
        os.chdir(frame["directory"])
        reconfigure.apply(captured)
    except NotForkable as error:
        reason = str(error)
    except (Exception, SystemExit):
        # A start by exec prints what Ansible has to say about it, and ends as Ansible does.
        reason = "broken configuration"
    if reason:
        return control.sendall(wire.encode({"type": "refused", "reason": reason}))
    preload.note_import_output()
    _serve_loaded(control, modules, frame["pack_usual"])


def _serve_loaded(control: socket.socket, modules: ModuleCache, pack_usual: bool) -> None:
    """Forks runs, under the configuration that this process has taken on."""
    ansible_version, config_file = preload.finish()
    gc.collect()
    gc.freeze()  # what is loaded now is shared by every run; a collection must not touch, and so copy, its pages
    control.sendall(wire.encode({"type": "ready", "ansible_version": ansible_version, "config_file": config_file}))
    with contextlib.suppress(OSError):  # a full disk: each run says so
        cleanup.sweep(play.local_tmp_base())
    serve(control, modules, pack_usual)


def serve(control: socket.socket, modules: ModuleCache, pack_usual: bool = False) -> None:
    """Forks a keeper for each request until the worker closes `control`."""
    wakeup, woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    wanted, wanting = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    poll = select.poll()
    for descriptor in (control.fileno(), wakeup, wanted):
        poll.register(descriptor, select.POLLIN)
    packer = Packer(modules)
    children = _Children(packer)
    process_tree.become_subreaper()
    idle_timeout = _IDLE_MILLISECONDS if pack_usual else None
    while True:
        ready = {descriptor for descriptor, _ in poll.poll(idle_timeout)}
        if not ready:
            packer.request_usual()
            idle_timeout = None
        if wakeup in ready:
            os.read(wakeup, 4096)
            children.reap()
        if wanted in ready:
            packer.request(os.read(wanted, _WANTED_BYTES))
        if control.fileno() in ready:
            message, received, _, _ = socket.recv_fds(control, 1, DESCRIPTORS_PER_RUN)
            for descriptor in received:
                # Received descriptors are inheritable, unlike opened ones: git and its hooks would get the event pipe.
                os.set_inheritable(descriptor, False)
            if not message:
                return packer.stop()
            try:
                if len(received) < DESCRIPTORS_PER_RUN:
                    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))  # they came, and there was no room for them
                own_descriptors = control.fileno(), wakeup, woken, wanted, *packer.descriptors
                children.keepers.add(_fork_keeper(own_descriptors, received, keeper.KeeperResources(modules, wanting)))
            except OSError as error:
                if received:
                    keeper.report_failure(received[0], error)
            finally:
                for descriptor in received:
                    os.close(descriptor)


def _fork_keeper(own_descriptors: tuple[int, ...], received: list[int], resources: keeper.KeeperResources) -> int:
    """Forks a keeper, which never returns from here. Returns its process id."""
    pid = os.fork()
    if pid != 0:
        return pid
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for descriptor in own_descriptors:
            os.close(descriptor)
        channel, output, events = received
        keeper.keep_run(socket.socket(fileno=channel), output, events, resources)
        status = 0
    finally:
        # Whatever happens, a forked copy must never return into the fork server's loop.
        os._exit(status)


class _Children:
    """The child processes: keepers, the packer's child, and daemons of ended runs, adopted as their subreaper.

    Any other child is an orphan: when a keeper is killed, its run's processes become our children, in whatever session
    they are, and only we can end them.
    """

    def __init__(self, packer: Packer) -> None:
        self.keepers: set[int] = set()
        self._packer = packer
        self._adopted: set[int] = set()

    def reap(self) -> None:
        """Reaps every child that has ended. After a killed keeper, ends its run and removes its files."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._adopted.discard(pid)
            if pid == self._packer.child:
                self._packer.child_ended(status)
            if pid not in self.keepers:
                continue
            self.keepers.discard(pid)
            if os.WIFSIGNALED(status):
                self._end_orphans()
                for files in cleanup.files_of_killed_keeper(play.local_tmp_base(), pid):
                    files.remove()
            else:
                self._adopted.update(self._orphans())

    def _orphans(self) -> set[int]:
        return set(process_tree.children()) - self.keepers - self._adopted - {self._packer.child}

    def _has_ended_keeper(self) -> bool:
        """Whether another keeper has ended and is not reaped yet."""
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return any(os.waitid(os.P_PID, pid, flags) is not None for pid in self.keepers)

    def _end_orphans(self) -> None:
        """Kills the run of a killed keeper, repeatedly: its orphaned descendants become our children in turn."""
        give_up_at = time.monotonic() + _END_SECONDS
        of_run: set[int] = set()
        while (orphans := self._orphans()) and time.monotonic() < give_up_at:
            if of_run and self._has_ended_keeper():
                self._adopted.update(orphans - of_run)  # what that keeper's run has left on purpose
                orphans &= of_run
            for pid in orphans:
                with contextlib.suppress(psutil.NoSuchProcess):
                    orphan = psutil.Process(pid)
                    found = [orphan, *orphan.children(recursive=True)]
                    of_run.update(process.pid for process in found)
                    process_tree.kill(found)
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
            time.sleep(_POLL_SECONDS)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
