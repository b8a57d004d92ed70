"""How much memory is left, on the machine and in our control group."""

from __future__ import annotations

from pathlib import Path

_MEMINFO = Path("/proc/meminfo")
_OWN_GROUP = Path("/proc/self/cgroup")
_GROUPS = Path("/sys/fs/cgroup")


_LEAST_SHARE = 0.1


def is_short() -> bool:
    """Whether so little is left that what could be ended should make room for what is started."""
    return available_share() < _LEAST_SHARE


def available_share() -> float:
    """Returns the share of memory that can be had, of the machine's or of a limit on our processes; 1.0 if unknown."""
    return min(_of_machine(), _of_group())


def _of_machine() -> float:
    try:
        lines = [line.split() for line in _MEMINFO.read_text().splitlines()]
        found = {words[0]: int(words[1]) for words in lines if len(words) > 1}
        return found["MemAvailable:"] / found["MemTotal:"]
    except (OSError, ValueError, KeyError, ZeroDivisionError):
        return 1.0


def _of_group() -> float:
    try:
        [path] = [line.partition("::")[2] for line in _OWN_GROUP.read_text().splitlines() if line.startswith("0::")]
        group = _GROUPS / path.lstrip("/")
        limit = int((group / "memory.max").read_text())
        held = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        # What it has of files is given up when it is needed.
        used = int((group / "memory.current").read_text()) - int(held.get("inactive_file", 0))
        return max(0.0, 1 - used / limit)
    except (OSError, ValueError, ZeroDivisionError):
        return 1.0
