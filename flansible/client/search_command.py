"""`flansible search`: finished tasks by a word, on a terminal or as JSON lines."""

from __future__ import annotations

import json
import sys
from typing import Any

from flansible.client.profile import Profile
from flansible.client.terminal_filter import filtered

_PAGE = 100


def search(login: Profile, text: str, limit: int, *, in_output: bool, as_json: bool) -> int:
    """Prints up to so many hits, newest first. Returns the exit code: 1 for none, as grep does."""
    count, before = 0, None
    with login.client() as client:
        while True:
            page = client.search(text, in_output, min(limit - count, _PAGE), before)
            for hit in page["hits"]:
                _write(json.dumps(hit) if as_json else "\n".join(_lines(hit)))
            count += len(page["hits"])
            before = page["next_before"]
            if before is None or count >= limit:
                return 0 if count else 1


def _lines(hit: dict[str, Any]) -> list[str]:
    task = hit["task"]
    lines = [f"{task['task_id']}  {task['submitted_at']}  {task['state']:9}  {task['summary']}"]
    for place in hit["places"]:
        where = {"message": place["host"], "output": f"line {place['line']}"}.get(place["field"], place["field"])
        lines.append(f"    {where}: {place['text']}".replace("\n", "\n        "))
    return lines


def _write(text: str) -> None:
    # What a task has printed may have control characters: they are shown, not obeyed.
    for part in filtered([f"{text}\n".encode(errors="backslashreplace")]):
        sys.stdout.buffer.write(part)
    sys.stdout.buffer.flush()
