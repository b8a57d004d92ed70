r"""Writes names of files that are no UTF-8 as text: a byte that is none becomes `\xE9`.

Python holds such a byte as half of a surrogate pair (os.fsdecode), which JSON cannot carry from one program to another.
Lists and records have the escaped form, requests too; paths that are compared, opened or handed to Ansible have the
file's own name. A backslash of a name that looks like an escape is `\x5C`.

Pure; called by the web process.
"""

from __future__ import annotations

import re

# No other byte has an escape: none can bring a slash, a dot or a null byte into a path.
_CODE = "x(?:5[Cc]|[89A-Fa-f][0-9A-Fa-f])"
_ESCAPED = re.compile(rf"\\{_CODE}".encode())
_UNSAFE = re.compile(rf"\\(?={_CODE})|[\udc80-\udcff]")


def escape(name: str) -> str:
    """Returns the text for a name as Python has it."""
    return _UNSAFE.sub(lambda found: f"\\x{ord(found[0]) & 0xFF:02X}", name)


def unescape(text: str) -> str:
    """Returns the name as Python has it. Bytes that together are UTF-8 become characters: one file has one name."""
    raw = _ESCAPED.sub(lambda found: bytes.fromhex(found[0][2:].decode()), text.encode(errors="surrogateescape"))
    return raw.decode(errors="surrogateescape")
