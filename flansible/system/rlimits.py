"""The limit on open files (RLIMIT_NOFILE): each follower takes one, each run five; many systems allow 1,024."""

from __future__ import annotations

import resource

_WANTED = 16384


def raise_open_files_limit() -> tuple[int, int]:
    """Raises the soft limit as far as allowed. Returns the limits before, which our child processes may need."""
    soft, hard = before = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _WANTED if hard == resource.RLIM_INFINITY else min(_WANTED, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return before


def set_open_files_limit(soft: int, hard: int) -> None:
    """Sets both limits of this process."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
