"""Has Ansible print its colours as it would on a terminal, but behind a mark of this run instead of an escape.

The supervisor takes the marks out (flansible.worker.colours), so that plain text stays what a pipe would get. Called in
the run process before Ansible prints anything.
"""

from __future__ import annotations

import sys
from typing import Any

from ansible import constants
from ansible.utils import color


def mark_colours(mark: str) -> None:
    """Leaves everything as it is where the configuration forces colours on (they are text then) or off."""
    if constants.ANSIBLE_NOCOLOR or constants.ANSIBLE_FORCE_COLOR:
        return
    color.ANSIBLE_COLOR = True
    stringc, hostcolor = color.stringc, color.hostcolor

    def marked(text: str, color_name: str, wrap_nonvisible_chars: bool = False) -> str:
        code = color.parsecolor(color_name)
        return "\n".join(f"{mark}[{code}m{line}{mark}[0m" for line in text.split("\n"))

    def marked_host(host: str, stats: dict[str, int], color_host: bool = True) -> str:
        # As wide as without colour, whatever the length of the colour's code.
        plain = f"{host:<26}"
        if not color_host:
            return plain
        if stats["failures"] != 0 or stats["unreachable"] != 0:
            name = constants.COLOR_ERROR
        else:
            name = constants.COLOR_CHANGED if stats["changed"] != 0 else constants.COLOR_OK
        return marked(host, name) + plain[len(host) :]

    # Modules that imported the functions by name keep them under that name.
    replaced: dict[str, tuple[Any, Any]] = {"stringc": (stringc, marked), "hostcolor": (hostcolor, marked_host)}
    for module in list(sys.modules.values()):
        for name, (old, new) in replaced.items():
            if getattr(module, name, None) is old:
                setattr(module, name, new)
