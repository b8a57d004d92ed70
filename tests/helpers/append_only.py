"""Commands as Redis writes them to its append-only file."""

from __future__ import annotations


def command(*words: str | bytes) -> bytes:
    encoded = [word if isinstance(word, bytes) else word.encode() for word in words]
    return b"*%d\r\n" % len(encoded) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in encoded)


def clock(seconds: float) -> bytes:
    return command("HSET", "flansible:store", "run_id", "f" * 40, "at", str(seconds))
