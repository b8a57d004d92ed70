"""Checks whether runs of users other than admin can be sandboxed (by bubblewrap), and why not.

Called by the web process before it authorizes a run, by the worker before it starts one, by health and by the doctor.
What a sandbox shows is in flansible.worker.sandbox.
"""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from flansible.errors import ConfigurationError, Fault

if TYPE_CHECKING:
    from flansible.identity.users import User

Mode = Literal["auto", "bwrap", "none"]

# New namespaces for users, mounts, processes and IPC; no privileges, and no further namespaces.
NAMESPACES = ("--unshare-user", "--disable-userns", "--unshare-pid", "--unshare-ipc", "--cap-drop", "ALL")
_PROBE_SECONDS = 5.0
_TRY_AGAIN_SECONDS = 10.0
ADVICE = "install bubblewrap (apt-get install bubblewrap), or set isolation = none if you trust these users"


@dataclass(frozen=True)
class Isolation:
    """Whether runs are sandboxed here. mode: the setting; why_not: empty when bubblewrap works, else the reason."""

    mode: Mode
    why_not: str = ""

    @property
    def in_force(self) -> bool:
        """Whether users other than admin run in a sandbox."""
        return self.mode != "none" and not self.why_not

    @property
    def is_missing(self) -> bool:
        """Whether bubblewrap is to be used but does not work: what could reach the control machine is then refused."""
        return self.mode != "none" and bool(self.why_not)

    def __str__(self) -> str:
        if self.mode == "none":
            return "none: runs of users other than admin are not sandboxed"
        return f"{self.mode}: {self.why_not}" if self.why_not else "bubblewrap"


_lock = threading.Lock()
_probed: tuple[float, str] | None = None


def of(mode: Mode) -> Isolation:
    """Returns the isolation on this machine. Probes once; after a failure again after some seconds."""
    global _probed
    if mode == "none":
        return Isolation(mode)
    with _lock:
        if _probed is None or (_probed[1] and time.monotonic() - _probed[0] > _TRY_AGAIN_SECONDS):
            _probed = time.monotonic(), _probe()
        return Isolation(mode, _probed[1])


def for_user(user: User, mode: Mode) -> Isolation:
    """Returns the isolation of this user's runs. Those of admin have none, so bubblewrap is not probed for them."""
    return Isolation("none") if user.is_admin else of(mode)


def require(mode: Mode) -> None:
    """Raises ConfigurationError when config.ini requires bubblewrap and it does not work here."""
    found = of(mode)
    if mode == "bwrap" and found.is_missing:
        raise ConfigurationError([Fault("config", "isolation", f"bwrap: {found.why_not}; {ADVICE}")])


def _probe() -> str:
    """Returns why bubblewrap cannot be used; empty when it can."""
    program = shutil.which("bwrap")
    if program is None:
        return "bwrap is not installed"
    command = [program, *NAMESPACES, "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "--", "true"]
    try:
        ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_PROBE_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"bwrap cannot be started: {error}"
    said = ended.stderr.decode(errors="replace").strip().splitlines()
    return "" if ended.returncode == 0 else f"bwrap does not work here: {said[-1] if said else ended.returncode}"
