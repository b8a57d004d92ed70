"""Known vulnerabilities in what is pinned: `make check` runs pip-audit over both lists of requirements.

A vulnerability that is found fails. Where the registry has no such service, or it cannot be reached, that is said and
no failure: one package is asked about first, so that a place without it is not asked a hundred times.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

TOP = Path(__file__).parents[1]
LISTS = (TOP / "requirements.txt", TOP / "requirements-test.txt")
PROBED = "cryptography=="
SECONDS = 300


def main() -> int:
    pins = [line for path in LISTS for line in path.read_text().splitlines() if "==" in line and line[0] != "#"]
    first = [line for line in pins if line.startswith(PROBED)]
    if not any("vulns" in dependency for dependency in audit(first)):
        print("The registry in use here knows of no vulnerabilities, or is not reached: nothing was audited.")
        return 0
    found = audit(pins)
    known = [dependency for dependency in found if "vulns" in dependency]
    for dependency in known:
        for one in dependency["vulns"]:
            mended = ", ".join(one["fix_versions"]) or "no version"
            print(f"{dependency['name']} {dependency['version']}: {one['id']}, mended in {mended}")
    print(f"{len(known)} of {len(found)} packages were audited")
    return 1 if any(dependency["vulns"] for dependency in known) else 0


def audit(pins: list[str]) -> list[dict[str, Any]]:
    """pip-audit's word on each; one it could not ask about has a `skip_reason` and no `vulns`."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join((*pins, "")))
        file.flush()
        command = [sys.executable, "-m", "pip_audit", "--no-deps", "--disable-pip", "--progress-spinner", "off"]
        try:
            ended = subprocess.run(
                [*command, "--format", "json", "-r", file.name],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=SECONDS,
            )
            found: list[dict[str, Any]] = json.loads(ended.stdout)["dependencies"]
        except (subprocess.TimeoutExpired, ValueError, KeyError):
            return []
    return found


if __name__ == "__main__":
    sys.exit(main())
