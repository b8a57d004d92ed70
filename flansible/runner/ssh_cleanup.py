"""Ends the ssh control masters of a canceled run; another run of the same user may be using them. Without Ansible.

Called by the keeper. A master in use accepts no more sessions and ends with its last one, which may be a command on the
host that outlives its run; any other is ended with the run. Only for those of the fast ssh profile, which have their
sockets in a separate directory.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess

import psutil

_TITLE = re.compile(r"ssh: (\S+) \[mux\]")
_CONNECTED = "03"
_OF_KERNEL = ("[vdso]", "[vsyscall]")
_STOP_SECONDS = 2.0


def find_masters(directory: str | None, found: list[psutil.Process]) -> dict[psutil.Process, str]:
    """Finds the masters among these processes with a socket in `directory`; returns their socket paths."""
    masters = {}
    for process in found if directory else ():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            title = _TITLE.match(" ".join(process.cmdline()))
            if title and title[1].startswith(f"{directory}/"):
                masters[process] = title[1]
    return masters


def find_connections(found: list[psutil.Process]) -> set[psutil.Process]:
    """Finds ssh's own masters among these processes, in whatever folder their sockets are.

    A run can write any title, and have ssh execute its code: by options, which a master's title has none of, or within
    ssh itself (LD_PRELOAD).
    """
    program = os.path.realpath(shutil.which("ssh") or "ssh")
    masters = set()
    for process in found:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied, OSError):
            if _TITLE.fullmatch(" ".join(process.cmdline()).strip()) and process.exe() == program:
                if _executes_only_what_is_installed(process.pid):
                    masters.add(process)
    return masters


def _executes_only_what_is_installed(pid: int) -> bool:
    """Whether all code of a process is from files that nothing in this sandbox can write, and is unchanged.

    Raises OSError.
    """
    code = ""
    with open(f"/proc/{pid}/smaps") as file:
        for line in file:
            first, *words = line.split(maxsplit=5)
            if not first.endswith(":"):  # a mapping: addresses, rights, offset, device, inode, path
                code = (words[4].strip() if len(words) > 4 else "?") if "x" in words[0] else ""
                if code and code not in _OF_KERNEL and not _is_read_only(code):
                    return False
            elif first == "Anonymous:" and code and words[0] != "0":
                return False  # its pages are not those of the file any more
    return True


def _is_read_only(path: str) -> bool:
    return path.startswith("/") and bool(os.statvfs(path).f_flag & os.ST_RDONLY)


def stop_masters(masters: dict[psutil.Process, str]) -> set[psutil.Process]:
    """Stops masters from accepting sessions. Returns those that another run uses, which end by themselves."""
    commands = [_start_stop_command(path) for path in masters.values()]
    stopped = [_succeeded(command) for command in commands]
    used = _connected_socket_paths()
    spared = set()
    for (master, path), has_stopped in zip(masters.items(), stopped, strict=True):
        if has_stopped and any(name.startswith(path) for name in used):
            # Its title now lacks the socket: flansible.system.ssh_control finds it by this file when the worker stops.
            with contextlib.suppress(OSError), open(f"{os.path.dirname(path)}/stopped-{master.pid}", "w"):
                spared.add(master)
    return spared


def _start_stop_command(path: str) -> subprocess.Popen[bytes]:
    # -F: the user's configuration could name another socket. ssh does not connect to the host.
    command = ["ssh", "-F", "none", "-O", "stop", "-o", f"ControlPath={path}", "host"]
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet)


def _succeeded(command: subprocess.Popen[bytes]) -> bool:
    try:
        return command.wait(_STOP_SECONDS) == 0
    except subprocess.TimeoutExpired:
        command.kill()
        command.wait()
        return False


def _connected_socket_paths() -> list[str]:
    """Lists the paths of connected Unix sockets. A master's is its socket path with letters that ssh appends."""
    with open("/proc/net/unix") as file:
        fields = [line.split() for line in file]
    return [words[7] for words in fields if len(words) > 7 and words[5] == _CONNECTED]
