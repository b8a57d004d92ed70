"""How many files a process may have open: each follower takes one, each run five, and many systems give 1,024."""

from __future__ import annotations

import resource

_WANTED = 16384


def allow_many() -> tuple[int, int]:
    """Raise our soft limit as far as we may. Returns the limits before: what we start may depend on those."""
    soft, hard = before = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _WANTED if hard == resource.RLIM_INFINITY else min(_WANTED, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return before


def limit(soft: int, hard: int) -> None:
    """Give this process these limits."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
