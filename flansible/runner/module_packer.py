"""Packs the modules that runs requested, one after another, each in a child process of the fork server."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback

from ansible import constants

from flansible.runner import cleanup, module_cache, play, process_tree
from flansible.runner.cleanup import RunFiles
from flansible.runner.module_cache import ModuleCache

_MAX_PACK_SECONDS = 60
_PAUSE_SECONDS = 60  # before one is tried again: the disk may be full, or the machine out of memory or processes
_MAX_WAITING = 200
_USUAL = ("command", "ping")


class Packer:
    """The queue of modules to pack, and the one child that packs."""

    def __init__(self, known: ModuleCache) -> None:
        self._known = known
        self._names: list[str] = []
        self._broke_off: dict[str, float] = {}  # when, by name
        self._name = ""
        self._result = -1
        self.child: int | None = None

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What a process forked meanwhile inherits of it."""
        return (self._result,) if self.child is not None else ()

    def request(self, names: bytes) -> None:
        """Queues names, a line each, as keepers send them."""
        for name in names.decode(errors="replace").splitlines():
            if self._known.is_new(name) and self._may_try(name) and name != self._name and name not in self._names:
                self._names.append(name)
        del self._names[_MAX_WAITING:]
        self._start()

    def request_usual(self) -> None:
        """Queues the modules that most services need first. Called when no run came soon after the start."""
        compression = constants.config.get_config_value("DEFAULT_MODULE_COMPRESSION")
        self.request("".join(f"ansible.modules.{name}-{compression}-none\n" for name in _USUAL).encode())

    def child_ended(self, status: int) -> None:
        """Takes the result of the child that ended with this wait status, and starts the next."""
        with open(self._result, "rb") as file:
            file.seek(0)
            if status == 0:
                self._known.add(self._name, file.read())
            else:
                self._broke_off[self._name] = time.monotonic()
        self._clean_up()
        self._start()

    def stop(self) -> None:
        """Kills the child and removes its files, as the fork server ends."""
        if self.child is not None:
            os.kill(self.child, signal.SIGKILL)
            os.waitpid(self.child, 0)
            self._clean_up()

    def _clean_up(self) -> None:
        for files in cleanup.files_of_killed_keeper(play.local_tmp_base(), self.child or 0):
            files.remove_folder()
        self.child, self._name = None, ""

    def _may_try(self, name: str) -> bool:
        return name not in self._broke_off or time.monotonic() > self._broke_off[name] + _PAUSE_SECONDS

    def _start(self) -> None:
        if self.child is not None or not self._names:
            return
        name = self._names.pop(0)
        parent = os.getpid()
        result = -1
        try:
            result = os.memfd_create("flansible-payload")
            pid = os.fork()
        except OSError:  # out of descriptors or processes: that must not end what serves runs
            if result >= 0:
                os.close(result)
            self._broke_off[name] = time.monotonic()
            return
        if pid == 0:
            _pack(parent, name, result)
        self.child, self._name, self._result = pid, name, result


def _pack(parent: int, name: str, result: int) -> None:
    """Packs one module into `result` in this forked child; never returns."""
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.alarm(_MAX_PACK_SECONDS)
        process_tree.set_parent_death_signal(signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(status)
        # Removed by the fork server, or by the next one if that is killed as well.
        files = RunFiles.make(play.local_tmp_base())
        with open(result, "wb") as file:
            file.write(module_cache.pack(name, files.folder))
        status = 0
    except BaseException:
        traceback.print_exc(file=sys.stderr)
    finally:
        # Whatever happens, a forked copy must never return into the fork server's loop.
        os._exit(status)
