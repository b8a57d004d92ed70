"""Gathers, from a task's events, the facts of each host; and writes the latest ones."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, delete, insert, select

from flansible.history import encoding, schema
from flansible.history.encoding import milliseconds

# What a play's gather_facts runs, and `setup` by its other names. Other modules return some facts, and `set_fact` what
# a playbook has made of them.
_COLLECTIONS = ("", "ansible.builtin.", "ansible.legacy.")
_MODULES = frozenset(f"{collection}{name}" for collection in _COLLECTIONS for name in ("setup", "gather_facts"))
_MAX_BYTES = 100 * 1024 * 1024  # of one task, compressed: of about 20,000 hosts
_ROWS = 500


class GatheredFacts:
    """The facts of one task's hosts, compressed; those of several results of a host are joined."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[int, bytes]] = {}
        self._bytes = 0

    def add(self, event: Mapping[str, Any]) -> None:
        """Takes a host's result in."""
        result = event.get("result")
        facts = result.get("ansible_facts") if isinstance(result, dict) else None
        if event.get("module") not in _MODULES or not isinstance(facts, dict) or not facts:
            return
        host = str(event["host"])
        before = self._found.get(host)
        if before is not None:
            facts = {**json.loads(encoding.unpack(before[1])), **facts}
        packed = encoding.pack(json.dumps(facts, separators=(",", ":")).encode())
        size = self._bytes + len(packed) - (len(before[1]) if before else 0)
        if size <= _MAX_BYTES:
            self._bytes = size
            self._found[host] = _gathered(event.get("time")), packed

    def clear(self) -> None:
        self._found.clear()
        self._bytes = 0

    def write(self, connection: Connection, task_key: int, scope: int, host_keys: Mapping[str, int]) -> None:
        """Writes the facts of these hosts in place of those that were gathered before. host_keys: by name."""
        table = schema.host_facts
        rows = [
            {"host_key": key, "scope_key": scope, "task_key": task_key, "gathered": at, "data": data}
            for name, key in host_keys.items()
            if (found := self._found.get(name)) is not None
            for at, data in [found]
        ]
        for begin in range(0, len(rows), _ROWS):
            part = rows[begin : begin + _ROWS]
            there = (table.c.scope_key == scope, table.c.host_key.in_([row["host_key"] for row in part]))
            stored = connection.execute(select(table.c.host_key, table.c.gathered).where(*there))
            known = {row.host_key: row.gathered for row in stored}
            # A task that gathered its facts early may end late, or wait longer to be archived.
            if latest := [row for row in part if row["gathered"] >= known.get(row["host_key"], 0)]:
                earlier = table.c.host_key.in_([row["host_key"] for row in latest])
                connection.execute(delete(table).where(table.c.scope_key == scope, earlier))
                connection.execute(insert(table), latest)


def _gathered(time: Any) -> int:
    """Returns the time of an event; 0 where it has none that can be read."""
    try:
        return milliseconds(time)
    except (TypeError, ValueError):
        return 0
