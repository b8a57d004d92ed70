"""Private keys as clients send them: mends what carrying one as text does to it, and sees whether it is encrypted.

Pure; called by the web process.
"""

from __future__ import annotations

import base64
import binascii
import re

_OPENSSH = re.compile(r"-----BEGIN OPENSSH PRIVATE KEY-----(.*)-----END OPENSSH PRIVATE KEY-----", re.DOTALL)
_PEM = re.compile(r"^(?:-----BEGIN ENCRYPTED PRIVATE KEY-----$|Proc-Type: 4,ENCRYPTED)", re.MULTILINE)
_ARMOUR = re.compile(r"-----BEGIN ((?:[A-Z]+ )*PRIVATE KEY)-----\n.+\n-----END \1-----\n", re.DOTALL)
_MAGIC = b"openssh-key-v1\0"
_PLAIN = b"\0\0\0\x04none"  # the name of the cipher, which is next


def mended(text: str) -> str:
    """Returns the key with line ends, and without the spaces and the byte order mark, that OpenSSH refuses."""
    lines = re.split(r"\r\n|\r|\n", text.removeprefix("\ufeff").strip())
    return "".join(f"{line.strip()}\n" for line in lines)


def is_private_key(text: str) -> bool:
    """Whether a mended text has the form of a private key: whether it is one, only ssh can tell."""
    return _ARMOUR.fullmatch(text) is not None


def is_encrypted(text: str) -> bool:
    """Whether a mended key has a passphrase. A text that is no key has none: ssh says what is wrong with it."""
    if found := _OPENSSH.search(text):
        try:
            content = base64.b64decode(found[1])
        except binascii.Error:
            return False
        return content.startswith(_MAGIC) and not content.startswith(_MAGIC + _PLAIN)
    return _PEM.search(text) is not None
