"""Loads the Lua scripts, one per file in `lua/`, at import: an upgrade of the files does not change a running process.

Every step that decides something is one script, which Redis runs as a whole: two processes can never both win. The
comment at the head of each file says what it decides, its KEYS and ARGV, what it returns, and which other keys it
derives from what it reads; one Redis is assumed, not a cluster. A line `-- include: name` stands for the file
`lua/common/<name>.lua`; the embedded Redis is 6.2, which has no function libraries.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import sha1
from pathlib import Path

_FOLDER = Path(__file__).parent / "lua"
_INCLUDE = re.compile(r"^-- include: (\w+)$", re.MULTILINE)


@dataclass(frozen=True)
class LuaScript:
    """A script with its common parts. digest: names it in EVALSHA."""

    source: str
    digest: str


def _load(path: Path) -> LuaScript:
    source = _INCLUDE.sub(lambda line: (_FOLDER / "common" / f"{line[1]}.lua").read_text(), path.read_text())
    return LuaScript(source, sha1(source.encode(), usedforsecurity=False).hexdigest())


SCRIPTS = {path.stem: _load(path) for path in sorted(_FOLDER.glob("*.lua"))}
