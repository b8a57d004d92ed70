"""`flansible export`: finished tasks as JSON lines, for keeping longer than the retention does.

Reads the store itself, so the web server need not run. One line is one task, written piece by piece: neither a large
output nor a long history has to fit into memory.
"""

from __future__ import annotations

import codecs
import json
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from flansible.errors import ConfigurationError, Fault, RecordUnreadable
from flansible.models import FINAL_STATES, TaskStatus
from flansible.store import READ_AGAIN_SECONDS, Store
from flansible.system import timestamps
from flansible.system.atomic_files import replacing

log = logging.getLogger(__name__)

_PAGE = 1000
_CHUNK_BYTES = 1024 * 1024


def parse_moment(text: str) -> datetime:
    """Parses a date, an RFC 3339 time (UTC unless it names a zone), or how long ago: `90m`, `12h`, `7d`, `2w`.

    Raises ValueError.
    """
    ago = timestamps.parse_span(text)
    if ago is not None:
        return datetime.now(UTC) - ago
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


@contextmanager
def open_target(path: str | None) -> Iterator[IO[str]]:
    """Opens the file to write; None is standard output. A file replaces an older one only when it is complete. Raises
    ConfigurationError when it cannot be written."""
    if path is None:
        yield sys.stdout
        return
    try:
        with replacing(Path(path)) as temporary, open(temporary, "w", encoding="utf-8") as file:
            yield file
    except OSError as error:
        raise ConfigurationError([Fault("--output", "", f"{path} cannot be written: {error.strerror}")]) from error


def export(store: Store, since: datetime, until: datetime | None, with_output: bool, file: IO[str]) -> tuple[int, int]:
    """Writes the tasks submitted from `since` up to `until`, oldest first.

    Returns how many were written, and how many were left out because they are not final. Raises StoreUnavailable, and
    TaskDeleted when the retention deletes one in the middle of its line: what was written is not whole then.
    """
    written = unfinished = 0
    for task_id in reversed(list(_ids(store, since, until))):
        keep = _Keeper(store, task_id)
        task = store.task(task_id)
        if task is None:
            continue  # expired meanwhile
        if task.state not in FINAL_STATES:
            unfinished += 1
            continue
        _write(store, task, with_output, keep, file)
        written += 1
    return written, unfinished


def _ids(store: Store, since: datetime, until: datetime | None) -> Iterator[str]:
    """Yields the ids of the tasks in this time, newest first."""
    before: int | None = None
    while True:
        page = store.tasks(None, None, before, _PAGE)
        times = [datetime.fromisoformat(task.submitted_at) for task in page.tasks]
        for task, submitted in zip(page.tasks, times, strict=True):
            if since <= submitted and (until is None or submitted < until):
                yield task.task_id
        before = page.next_before
        # The clocks of web servers may differ a little, so only a whole page of older tasks is the end.
        if before is None or (times and max(times) < since):
            return


def _write(store: Store, task: TaskStatus, with_output: bool, keep: _Keeper, file: IO[str]) -> None:
    try:
        run = store.authorized_run(task.task_id)
    except RecordUnreadable as error:
        log.warning("%s; it is exported without its request", error)
        run = None
    file.write('{"task": ' + task.model_dump_json(exclude_none=True))
    file.write(', "request": ' + json.dumps(run.model_dump(mode="json") if run else None))
    file.write(', "events": [')
    separator = ""
    for event in store.events(task.task_id):
        keep()
        file.write(separator + json.dumps(event))
        separator = ", "
    file.write("]")
    if with_output:
        file.write(', "output": "')
        for text in _text(store, task.task_id):
            keep()
            file.write(json.dumps(text)[1:-1])
        file.write('"')
    require = store.position if task.output_expired_at else store.recorded_position
    require(task.task_id)  # what was read is all there is, if it is still there
    file.write("}\n")


class _Keeper:
    """Has the retention spare a task while it is written, however long that takes."""

    def __init__(self, store: Store, task_id: str) -> None:
        self._store, self._task_id = store, task_id
        self._again_at = 0.0
        self()

    def __call__(self) -> None:
        if time.monotonic() >= self._again_at:
            self._store.keep_while_read([self._task_id])
            self._again_at = time.monotonic() + READ_AGAIN_SECONDS


def _text(store: Store, task_id: str) -> Iterator[str]:
    # Bytes that are not UTF-8 are escaped as Python does it: surrogateescape gives the same bytes back.
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    offset = 0
    while chunk := store.output(task_id, offset, _CHUNK_BYTES):
        offset += len(chunk)
        yield decoder.decode(chunk)
    yield decoder.decode(b"", final=True)
