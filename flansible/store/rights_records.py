"""What users may do by the present rbac.json: published by web processes for the workers, which do not have it.

Kept by principal: the user's name, with the group's where it is the entry of one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from flansible.models import Confinement, Rights
from flansible.store.connection import Connection, text, translated
from flansible.store.keys import RIGHTS


class RightsRecords(Connection):
    """The part of Store for the users' rights."""

    def publish_rights(self, rights: Mapping[str, Rights]) -> dict[str, Rights]:
        """Replaces all rights, by principal; returns the former ones of those whose rights were others, or are gone.

        Of several processes that publish the same, one gets them.
        """
        # pydantic's own JSON cannot hold paths that are no UTF-8
        pairs = [part for name, item in rights.items() for part in (name, json.dumps(item.model_dump(mode="json")))]
        answer: Any = self._run("publish_rights", [RIGHTS], *pairs)
        return {text(name): _rights(value) for name, value in zip(answer[::2], answer[1::2], strict=True)}

    def rights(self) -> dict[str, Rights]:
        """Returns all rights by principal; empty before any were published."""
        with translated():
            found: Any = self._redis.hgetall(RIGHTS)
        return {text(name): _rights(value) for name, value in found.items()}

    def rights_of(self, principals: Iterable[str]) -> dict[str, Rights | None] | None:
        """Returns the rights of these, None for one that is gone; None for all before any were published."""
        names = list(principals)
        with translated():
            pipeline = self._redis.pipeline(transaction=False)
            pipeline.exists(RIGHTS)
            for name in names:
                pipeline.hget(RIGHTS, name)
            is_published, *found = pipeline.execute()
        if not is_published:
            return None
        return {name: _rights(value) if value else None for name, value in zip(names, found, strict=True)}


def _rights(value: bytes) -> Rights:
    """Reads a user's rights, without limits that only a newer version knows."""
    found = json.loads(value)
    limits = found["confinement"]
    known = limits and {name: limits[name] for name in limits.keys() & Confinement.model_fields.keys()}
    return Rights.model_validate({"entry": found["entry"], "confinement": known})
