"""The zygotes of one worker: one outside of sandboxes, and one in each sandbox that is in use.

Used by flansible.worker.forkserver_pool. A zygote loads Ansible once for all configurations of its sandbox; a user's
projects share one, and no two users do.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Container

from flansible.errors import NotForkable, RunnerError
from flansible.system import memory
from flansible.worker.runner_process import MODULE, StartedProcess
from flansible.worker.sandbox import Sandbox
from flansible.worker.zygote_handle import Zygote

log = logging.getLogger(__name__)

_MOST_SANDBOXED = 16  # each holds its own copy of Ansible: some 50 MB
_RETRY_SECONDS = 60.0
_UNUSED_SECONDS = 120.0  # longer than any fork takes


class Zygotes:
    """Starts them when they are needed. Those that are replaced are handed over, to be ended by the pool."""

    def __init__(self, module: str, limits: tuple[int, int] | None) -> None:
        """module: with another one than the real fork server's there is no zygote; limits: see Zygote."""
        self._module = module
        self._limits = limits
        self._lock = threading.Lock()
        # By the least recently used.
        self._zygotes: OrderedDict[Sandbox | None, Zygote] = OrderedDict()
        self._starting: defaultdict[str | None, threading.Lock] = defaultdict(threading.Lock)
        self._fails_until = 0.0
        self._closed = False

    def all(self) -> list[Zygote]:
        with self._lock:
            return list(self._zygotes.values())

    def living(self, sandbox: Sandbox | None, pack_usual: bool, retire: Callable[[Zygote], None]) -> Zygote:
        """Returns the zygote of a sandbox, None for that outside, and starts it if necessary. Raises NotForkable.

        retire: is called with each one that makes room for it.
        """
        if self._module != MODULE:
            raise NotForkable("another module")
        with self._starting[sandbox.principal if sandbox else None]:
            if (found := self._find(sandbox)) is not None:
                return found
            for old in self._take_replaced(sandbox):
                retire(old)
            made = self._start(sandbox, pack_usual)
            with self._lock:
                if not self._closed:
                    self._zygotes[sandbox] = made
                    return made
        made.kill_sandbox()
        made.close()
        raise NotForkable("no zygote")

    def touch(self, host: StartedProcess) -> None:
        """Notes that a run uses what it has forked, if it is one of these."""
        with self._lock:
            for sandbox in [key for key, one in self._zygotes.items() if one is host]:
                self._zygotes.move_to_end(sandbox)

    def remove(self, zygote: Zygote) -> None:
        """Keeps it from further forks."""
        with self._lock:
            for sandbox in [key for key, one in self._zygotes.items() if one is zygote]:
                del self._zygotes[sandbox]

    def take_unused(self, used: Container[StartedProcess]) -> list[Zygote]:
        """Removes and returns those in sandboxes that have had no fork server for a while."""
        before = time.monotonic() - _UNUSED_SECONDS
        with self._lock:
            unused = [key for key, one in self._zygotes.items() if key and one not in used and one.used_at < before]
            return [self._zygotes.pop(key) for key in unused]

    def take_all(self) -> list[Zygote]:
        """Removes and returns all, for good."""
        with self._lock:
            self._closed = True
            found, self._zygotes = list(self._zygotes.values()), OrderedDict()
            return found

    def _find(self, sandbox: Sandbox | None) -> Zygote | None:
        with self._lock:
            found = self._zygotes.get(sandbox)
            if found is None or not found.can_fork:
                return None
            self._zygotes.move_to_end(sandbox)
            return found

    def _take_replaced(self, sandbox: Sandbox | None) -> list[Zygote]:
        with self._lock:
            # A user's older sandboxes too: what it shows has changed, and no run asks for them again.
            principal = sandbox.principal if sandbox else None
            keys = [key for key in self._zygotes if (key.principal if key else None) == principal]
            replaced = [self._zygotes.pop(key) for key in keys]
            others = [key for key in self._zygotes if key is not None]
            most = min(_MOST_SANDBOXED, max(1, len(others))) if memory.is_short() else _MOST_SANDBOXED
            excess = len(others) + 1 - most if sandbox is not None else 0
            return replaced + [self._zygotes.pop(key) for key in others[: max(0, excess)]]

    def _start(self, sandbox: Sandbox | None, pack_usual: bool) -> Zygote:
        if self._closed or (sandbox is None and time.monotonic() < self._fails_until):
            raise NotForkable("no zygote")
        try:
            return Zygote(self._limits, pack_usual, sandbox)
        except RunnerError as error:
            log.warning("a zygote cannot be started, and fork servers start more slowly: %s", error)
            if sandbox is None:
                self._fails_until = time.monotonic() + _RETRY_SECONDS
            raise NotForkable("no zygote") from error
