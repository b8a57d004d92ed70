"""A system user of this machine without a home, and commands run as that user at a terminal."""

from __future__ import annotations

import os
import pty
import pwd
import select
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TOP = Path(__file__).parents[2]
# Where this Python and Flansible are. A user who may not enter a folder above them is shown these parts of it.
_NEEDED = (Path(sys.base_prefix), Path(sys.prefix), TOP)


@contextmanager
def system_user() -> Iterator[pwd.struct_passwd]:
    """A new account with the home /nonexistent; where only root could make one, the account of this process."""
    if os.geteuid() != 0:
        yield pwd.getpwuid(os.geteuid())
        return
    name = f"fl-s-{os.getpid()}"
    subprocess.run(["useradd", "--system", "--user-group", "--home-dir", "/nonexistent", name], check=True)
    try:
        yield pwd.getpwnam(name)
    finally:
        subprocess.run(["userdel", "--force", "--remove", name], check=False, capture_output=True)


class Terminal:
    """A command of `user` at a terminal of its own. `shown`: what the terminal has shown so far."""

    def __init__(self, user: pwd.struct_passwd, command: list[str], folder: Path, environ: dict[str, str]) -> None:
        self.shown = ""
        self._master, terminal = pty.openpty()
        try:
            self.process = subprocess.Popen(
                _as_user(user, command, folder),
                cwd=folder,
                env=environ,
                stdin=terminal,
                stdout=terminal,
                stderr=terminal,
            )
        finally:
            os.close(terminal)

    def wait_for(self, text: str, seconds: float = 90.0) -> None:
        """Waits until the terminal shows this, or fails with what it shows."""
        give_up_at = time.monotonic() + seconds
        while text not in self.shown:
            assert self._read(give_up_at - time.monotonic()), f"no {text!r} in:\n{self.shown}"

    def wait(self, seconds: float = 60.0) -> int:
        """Waits for the command's end, and returns its exit code."""
        give_up_at = time.monotonic() + seconds
        while self._read(give_up_at - time.monotonic()):
            pass
        return self.process.wait(max(0.0, give_up_at - time.monotonic()))

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._master)

    def _read(self, seconds: float) -> bool:
        """Reads once; False at the end, or when the time is over."""
        if not select.select([self._master], [], [], max(0.0, seconds))[0]:
            return False
        try:
            data = os.read(self._master, 65536)
        except OSError:  # the last process that had the terminal has closed it
            return False
        self.shown += data.decode(errors="replace").replace("\r\n", "\n")
        return bool(data)


def _as_user(user: pwd.struct_passwd, command: list[str], folder: Path) -> list[str]:
    if os.geteuid() != 0:
        return command
    become = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--init-groups", "--", *command]
    closed = {above for tree in _NEEDED for above in tree.parents if not above.stat().st_mode & 0o001}
    if not closed:
        return become
    script = ["set -e", "keep=$(mktemp -d)", "mount -t tmpfs none $keep"]
    for number, tree in enumerate(_NEEDED):
        script.append(f"mkdir $keep/{number}; mount --bind {shlex.quote(str(tree))} $keep/{number}")
    script += [f"mount -t tmpfs -o mode=755 none {shlex.quote(str(path))}" for path in sorted(closed)]
    for number, tree in enumerate(_NEEDED):
        if closed & set(tree.parents):
            place = shlex.quote(str(tree))
            script.append(f"mkdir -p {place}; mount --bind $keep/{number} {place}")
    script += ["umount $keep/*", "umount $keep", "rmdir $keep", 'cd "$0"', 'exec "$@"']
    return ["unshare", "--mount", "sh", "-c", "\n".join(script), str(folder), *become]
