"""Has the database migrated, by a process of its own: Alembic takes 11 MB, and no process needs it any more after that.

Called by the worker, before it archives.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys

from flansible.errors import ConfigurationError, Fault, HistoryUnavailable
from flansible.history.database import Database
from flansible.history.schema import VERSION

log = logging.getLogger(__name__)

EXIT_NEWER, EXIT_UNAVAILABLE = 2, 3
MIGRATION_SECONDS = 600.0


def upgrade(database: Database, url: str) -> None:
    """Brings the tables to VERSION, if they are older; returns when they are. Does no harm when others do it as well.

    Raises ConfigurationError when they are newer, HistoryUnavailable when the database is away.
    """
    found = database.require_known_version()
    if found == VERSION:
        return
    # -P: files in the working directory must not be imported in place of our modules.
    command = [sys.executable, "-P", "-m", "flansible.history.migrate"]
    try:
        ended = subprocess.run(command, input=os.fsencode(url), capture_output=True, timeout=MIGRATION_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = f"could not be migrated to version {VERSION}: {type(error).__name__}"
        raise HistoryUnavailable(f"the history database {reason}", reason) from error
    said = ended.stderr.decode(errors="replace").strip()
    if ended.returncode == EXIT_NEWER:
        raise ConfigurationError([Fault("history", "", said)])
    if ended.returncode != 0:
        reason = said if ended.returncode == EXIT_UNAVAILABLE else f"could not be migrated to version {VERSION}"
        log.debug("the migration ended with exit code %d: %s", ended.returncode, said)
        raise HistoryUnavailable(f"the history database {reason}", reason)
    if found:
        log.warning("the history database was migrated from version %d to %d", found, VERSION)
