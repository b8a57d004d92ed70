"""Has the modules that runs ask for packed, one after another, each by a child of the fork server's."""

from __future__ import annotations

import os
import signal
import sys
import traceback

from ansible import constants

from flansible.runner import cleanup, module_cache, play, process_tree
from flansible.runner.cleanup import RunFiles
from flansible.runner.module_cache import Payloads

_LONGEST_SECONDS = 60
_MOST_WAITING = 200
_USUAL = ("command", "ping")


class Packer:
    """Knows what is to be packed, and the child that packs."""

    def __init__(self, known: Payloads) -> None:
        self._known = known
        self._names: list[str] = []
        self._name = ""
        self._result = -1
        self.child: int | None = None

    def want(self, names: bytes) -> None:
        """Names, a line each, as keepers send them."""
        for name in names.decode(errors="replace").splitlines():
            if self._known.is_new(name) and name != self._name and name not in self._names:
                self._names.append(name)
        del self._names[_MOST_WAITING:]
        self._start()

    def want_usual(self) -> None:
        """Nothing has been asked for so far: pack what most services need first."""
        compression = constants.config.get_config_value("DEFAULT_MODULE_COMPRESSION")
        self.want("".join(f"ansible.modules.{name}-{compression}-none\n" for name in _USUAL).encode())

    def ended(self, status: int) -> None:
        """The child is gone, with this wait status."""
        with open(self._result, "rb") as file:
            file.seek(0)
            self._known.add(self._name, file.read() if status == 0 else b"")
        self._clean_up()
        self._start()

    def stop(self) -> None:
        """The fork server ends: so does the child, and nothing of it stays."""
        if self.child is not None:
            os.kill(self.child, signal.SIGKILL)
            os.waitpid(self.child, 0)
            self._clean_up()

    def _clean_up(self) -> None:
        for files in cleanup.of_keeper(play.local_tmp_base(), self.child or 0):
            files.remove_folder()
        self.child, self._name = None, ""

    def _start(self) -> None:
        if self.child is not None or not self._names:
            return
        self._name = self._names.pop(0)
        self._result = os.memfd_create("flansible-payload")
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            _pack(parent, self._name, self._result)
        self.child = pid


def _pack(parent: int, name: str, result: int) -> None:
    """Write what was built; never returns."""
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.alarm(_LONGEST_SECONDS)
        process_tree.be_told_of_parents_death(signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(status)
        # The fork server removes it, or the next one should this be killed as well.
        files = RunFiles.make(play.local_tmp_base())
        with open(result, "wb") as file:
            file.write(module_cache.build(name, files.folder))
        status = 0
    except BaseException:
        traceback.print_exc(file=sys.stderr)
    finally:
        # Whatever happens, a forked copy must never return into the fork server's loop.
        os._exit(status)
