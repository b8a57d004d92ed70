"""Certificates of our own making, by openssl: an authority, and a server's that it has signed."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.helpers.waiting import require_program

_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


@dataclass(frozen=True)
class Pair:
    certificate: Path
    key: Path


def authority(folder: Path, name: str = "authority") -> Pair:
    """Signs itself, and whatever `signed` makes with it."""
    pair = Pair(folder / f"{name}.pem", folder / f"{name}.key")
    _openssl("req", "-x509", *_NEW_KEY, "-days", "2", "-subj", f"/CN={name}", *_out(pair))
    return pair


def signed(folder: Path, by: Pair, name: str = "server", days: int = 2, host: str = "localhost") -> Pair:
    """For the host's name and 127.0.0.1. The key is readable by its owner alone."""
    pair = Pair(folder / f"{name}.pem", folder / f"{name}.key")
    names = ("-addext", f"subjectAltName=DNS:{host},IP:127.0.0.1")
    signer = ("-CA", str(by.certificate), "-CAkey", str(by.key))
    _openssl("req", "-x509", *_NEW_KEY, "-days", str(days), "-subj", f"/CN={name}", *names, *signer, *_out(pair))
    pair.key.chmod(0o600)
    return pair


def _out(pair: Pair) -> tuple[str, ...]:
    return ("-keyout", str(pair.key), "-out", str(pair.certificate))


def _openssl(*arguments: str) -> None:
    ended = subprocess.run([require_program("openssl"), *arguments], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
