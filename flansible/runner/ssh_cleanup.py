"""The ssh masters that a run has made, when that run is ended: another run of the same user may be using them.

Called by the keeper. Such a master takes no more sessions and ends with its last one, which may be a command on the
host that outlives its run; any other is ended with the run.
Only those of the fast ssh profile, which have their sockets in a directory of its own. Knows no Ansible.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess

import psutil

_TITLE = re.compile(r"ssh: (\S+) \[mux\]")
_CONNECTED = "03"
_STOP_SECONDS = 2.0


def of(directory: str | None, found: list[psutil.Process]) -> dict[psutil.Process, str]:
    """Those among `found` with a socket in `directory`, and its path."""
    masters = {}
    for process in found if directory else ():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            title = _TITLE.match(" ".join(process.cmdline()))
            if title and title[1].startswith(f"{directory}/"):
                masters[process] = title[1]
    return masters


def dismiss(masters: dict[psutil.Process, str]) -> set[psutil.Process]:
    """Let them take no more sessions. Returns those that another run uses, which end by themselves."""
    orders = [_order_to_stop(path) for path in masters.values()]
    stopped = [_obeyed(order) for order in orders]
    used = _used_paths()
    spared = set()
    for (master, path), obeyed in zip(masters.items(), stopped, strict=True):
        if obeyed and any(name.startswith(path) for name in used):
            # Its name no longer tells whose it is: flansible.system.ssh_control finds it by this when the worker stops.
            with contextlib.suppress(OSError), open(f"{os.path.dirname(path)}/stopped-{master.pid}", "w"):
                spared.add(master)
    return spared


def _order_to_stop(path: str) -> subprocess.Popen[bytes]:
    # -F: a configuration of the user's could name another socket. The host is not asked.
    command = ["ssh", "-F", "none", "-O", "stop", "-o", f"ControlPath={path}", "host"]
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet)


def _obeyed(order: subprocess.Popen[bytes]) -> bool:
    try:
        return order.wait(_STOP_SECONDS) == 0
    except subprocess.TimeoutExpired:
        order.kill()
        order.wait()
        return False


def _used_paths() -> list[str]:
    """Of Unix sockets that somebody is connected to. A master's has its path, and letters that ssh appends."""
    with open("/proc/net/unix") as file:
        fields = [line.split() for line in file]
    return [words[7] for words in fields if len(words) > 7 and words[5] == _CONNECTED]
