"""Leaves our own frames out of the tracebacks that Ansible shows: the command line's has none of them.

With `display_traceback` a failure is shown with its exception's traceback, and functions of ours are in it wherever one
stands in for a function of Ansible's. Called by the fork server, for all runs.
"""

from __future__ import annotations

import os
from types import TracebackType
from typing import Any

from ansible.module_utils._internal._errors import EventFactory

from flansible.runner.ansible_internals import replace

_OURS = os.path.join(os.path.dirname(__file__), "")


def hide_own_frames() -> None:
    """Hides them in this process and those forked from it."""

    def format_without_ours(factory: EventFactory, exception: BaseException) -> Any:
        traceback = exception.__traceback__
        try:
            return format_traceback(factory, exception.with_traceback(_without_ours(traceback)))
        finally:
            exception.with_traceback(traceback)

    format_traceback = replace(EventFactory, "_get_formatted_traceback", format_without_ours)


def _without_ours(traceback: TracebackType | None) -> TracebackType | None:
    frames = []
    while traceback is not None:
        if not traceback.tb_frame.f_code.co_filename.startswith(_OURS):
            frames.append(traceback)
        traceback = traceback.tb_next
    kept = None
    for frame in reversed(frames):
        kept = TracebackType(kept, frame.tb_frame, frame.tb_lasti, frame.tb_lineno)
    return kept
