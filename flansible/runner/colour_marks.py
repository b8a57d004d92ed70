"""Makes Ansible print its colours as on a terminal, but with a mark of this run in place of the escape character.

The supervisor removes the marks (flansible.worker.colour_parser), so that plain text stays what a pipe would get. The
fork server replaces Ansible's colour functions; each run sets its mark before Ansible prints anything.
"""

from __future__ import annotations

import sys

from ansible import constants
from ansible.utils import color

from flansible.runner.ansible_internals import replace

_mark: str | None = None
_stringc, _hostcolor = color.stringc, color.hostcolor


def mark_colours(mark: str) -> None:
    """Sets this run's mark, unless the configuration forces colours on (they are text then) or off."""
    global _mark
    if not constants.ANSIBLE_NOCOLOR and not constants.ANSIBLE_FORCE_COLOR:
        replace(color, "ANSIBLE_COLOR", True)
        _mark = mark


def replace_colour_functions() -> None:
    """Replaces Ansible's colour functions in every module that imported them by name.

    Done once, in the fork server: searching all modules would cost a run more than all else that is done to it here.
    """
    replaced = {
        "stringc": (replace(color, "stringc", _marked), _marked),
        "hostcolor": (replace(color, "hostcolor", _marked_host), _marked_host),
    }
    for module in list(sys.modules.values()):
        for name, (old, new) in replaced.items():
            if getattr(module, name, None) is old:
                setattr(module, name, new)


def _marked(text: str, color_name: str, wrap_nonvisible_chars: bool = False) -> str:
    if _mark is None:
        return str(_stringc(text, color_name, wrap_nonvisible_chars))
    code = color.parsecolor(color_name)
    return "\n".join(f"{_mark}[{code}m{line}{_mark}[0m" for line in text.split("\n"))


def _marked_host(host: str, stats: dict[str, int], color_host: bool = True) -> str:
    if _mark is None:
        return str(_hostcolor(host, stats, color_host))
    # Padded to the width without colour, whatever the length of the colour's code.
    plain = f"{host:<26}"
    if not color_host:
        return plain
    if stats["failures"] != 0 or stats["unreachable"] != 0:
        name = constants.COLOR_ERROR
    else:
        name = constants.COLOR_CHANGED if stats["changed"] != 0 else constants.COLOR_OK
    return _marked(host, name) + plain[len(host) :]
