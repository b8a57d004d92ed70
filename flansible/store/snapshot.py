"""Has the embedded Redis write all its records to a file, as they are at one moment. Called by `flansible backup`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from flansible.errors import StoreUnavailable
from flansible.store.connection import Connection, translated

_FILE = "dump.rdb"  # Redis' own name for it; nothing else of ours has Redis write one
_TICK_SECONDS = 0.05


class Snapshots(Connection):
    """Takes snapshots of the Redis whose folder this is."""

    def take(self, folder: Path, target: Path, timeout_seconds: float = 600.0) -> None:
        """Writes a snapshot and moves it to `target`, on the same file system. Raises StoreUnavailable, OSError."""
        written = folder / _FILE
        written.unlink(missing_ok=True)
        with translated():
            failures = self._failed()
            self._redis.bgsave(schedule=True)  # after a rewrite of its append-only file, where one is going on
        give_up_at = time.monotonic() + timeout_seconds
        # Redis gives the file its name when it is whole.
        while not written.exists():
            if time.monotonic() > give_up_at or self._failed() > failures:
                reason = "could not write its records to a file: is the disk full?"
                raise StoreUnavailable(f"Redis {reason}", reason=reason)
            time.sleep(_TICK_SECONDS)
        written.rename(target)

    def _failed(self) -> int:
        """1 where the last snapshot has failed, and none is being written."""
        with translated():
            info: Any = self._redis.info("persistence")
        return int(info.get("rdb_last_bgsave_status") != "ok" and not info.get("rdb_bgsave_in_progress"))
