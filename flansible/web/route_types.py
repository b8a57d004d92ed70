"""Route and Header: what one entry of the table of URLs says.

The table itself is in flansible.web.routes; flansible.web.openapi documents the entries that are handed to it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from flask_restful import Resource
from pydantic import BaseModel

from flansible.web.serialization import JSON


@dataclass(frozen=True)
class Header:
    """A header of a request or a reply. schema: the JSON schema of its value."""

    name: str
    description: str
    schema: dict[str, Any]


@dataclass(frozen=True)
class Route:
    """One URL with one method.

    reply: the model of the JSON body, None for a text body; media_types: every form of the reply. errors: the error
    statuses it can return, beside those that every route can; also: further statuses with the same body as `status`;
    other: a further status with a body of another model; empty: statuses without a body.
    """

    path: str
    method: str
    resource: type[Resource]
    reply: type[BaseModel] | None
    status: int = 200
    body: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    headers: tuple[Header, ...] = ()
    reply_headers: tuple[Header, ...] = ()
    media_types: tuple[str, ...] = (JSON,)
    public: bool = False
    errors: tuple[int, ...] = field(default=())
    also: tuple[int, ...] = field(default=())
    other: tuple[int, type[BaseModel]] | None = None
    empty: tuple[int, ...] = field(default=())
    name: str = ""

    @property
    def endpoint(self) -> str:
        """Returns the operation's name, for `url_for`: the last fixed word of the path, unless `name` is set."""
        return self.name or self.path.split("/")[2]
