"""`flansible export`: finished tasks as JSON lines, for keeping longer than the retention does.

Reads the store itself, so the web server need not run. One line is one task, written piece by piece: neither a large
output nor a long history has to fit into memory.
"""

from __future__ import annotations

import codecs
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from flansible.errors import ConfigurationError, Fault
from flansible.models import FINAL_STATES, TaskStatus
from flansible.store import Store
from flansible.system import timestamps
from flansible.system.atomic_files import replacing

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

    Returns how many were written, and how many were left out because they are not final. Raises StoreUnavailable.
    """
    written = unfinished = 0
    for task_id in reversed(list(_ids(store, since, until))):
        task = store.task(task_id)
        if task is None:
            continue  # expired meanwhile
        if task.state not in FINAL_STATES:
            unfinished += 1
            continue
        _write(store, task, with_output, file)
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


def _write(store: Store, task: TaskStatus, with_output: bool, file: IO[str]) -> None:
    run = store.authorized_run(task.task_id)
    file.write('{"task": ' + task.model_dump_json(exclude_none=True))
    file.write(', "request": ' + json.dumps(run.model_dump(mode="json") if run else None))
    file.write(', "events": [')
    separator = ""
    for event in store.events(task.task_id):
        file.write(separator + json.dumps(event))
        separator = ", "
    file.write("]")
    if with_output:
        file.write(', "output": "')
        for text in _text(store, task.task_id):
            file.write(json.dumps(text)[1:-1])
        file.write('"')
    file.write("}\n")


def _text(store: Store, task_id: str) -> Iterator[str]:
    # Bytes that are not UTF-8 are escaped as Python does it: surrogateescape gives the same bytes back.
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    offset = 0
    while chunk := store.output(task_id, offset, _CHUNK_BYTES):
        offset += len(chunk)
        yield decoder.decode(chunk)
    yield decoder.decode(b"", final=True)
