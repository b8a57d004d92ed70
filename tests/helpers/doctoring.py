"""`flansible doctor` as a process of its own, and what it looks at: config.ini, rbac.json."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from werkzeug.security import generate_password_hash

from flansible.doctor.check import Check, Mark
from tests.helpers.passwords import CHEAP_HASHES

FLANSIBLE = [sys.executable, "-P", "-m", "flansible"]
MARKER = "MARKER-password"
HASHED = generate_password_hash(MARKER, CHEAP_HASHES)


def run(folder: Path, *arguments: str, **environ: str) -> tuple[int, str]:
    """Exit code and output of `flansible doctor` in `folder`."""
    ended = subprocess.run(
        [*FLANSIBLE, "doctor", *arguments],
        cwd=folder,
        env=os.environ | environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="backslashreplace",
        timeout=120,
    )
    assert "Traceback" not in ended.stdout, ended.stdout
    assert MARKER not in ended.stdout, ended.stdout
    return ended.returncode, ended.stdout


def write_config(folder: Path, **values: object) -> Path:
    path = folder / "config.ini"
    path.write_text("[Default]\n" + "".join(f"{key} = {value}\n" for key, value in values.items()))
    path.chmod(0o600)
    return path


def write_users(path: Path, *users: dict[str, Any]) -> Path:
    path.write_text(json.dumps({"rbac": list(users)}))
    path.chmod(0o600)
    return path


def user(name: str = "admin", password: str = HASHED, *inventories: object) -> dict[str, Any]:
    return {"user": name, "password": password, "inventories": [str(path) for path in inventories]}


def marks(checks: list[Check], *parts: str) -> list[Mark]:
    """The marks of the lines that have all these parts."""
    return [check.mark for check in checks if all(part in str(check) for part in parts)]
