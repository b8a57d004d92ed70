"""Has Ansible print its colours as it would on a terminal, but behind a mark of this run instead of an escape.

The supervisor takes the marks out (flansible.worker.colour_parser), so that plain text stays what a pipe would get.
The fork server puts our functions in the place of Ansible's; each run names its mark before Ansible prints anything.
"""

from __future__ import annotations

import sys

from ansible import constants
from ansible.utils import color

from flansible.runner.ansible_internals import replace

_mark: str | None = None
_stringc, _hostcolor = color.stringc, color.hostcolor


def mark_colours(mark: str) -> None:
    """Leaves everything as it is where the configuration forces colours on (they are text then) or off."""
    global _mark
    if not constants.ANSIBLE_NOCOLOR and not constants.ANSIBLE_FORCE_COLOR:
        replace(color, "ANSIBLE_COLOR", True)
        _mark = mark


def take_over() -> None:
    """Put our functions wherever Ansible's are: modules that imported them by name keep them under that name.

    Looking at every module there is costs a run more than all else that is done to it here; so it is done once, before.
    """
    replaced = {
        "stringc": (replace(color, "stringc", _coloured), _coloured),
        "hostcolor": (replace(color, "hostcolor", _coloured_host), _coloured_host),
    }
    for module in list(sys.modules.values()):
        for name, (old, new) in replaced.items():
            if getattr(module, name, None) is old:
                setattr(module, name, new)


def _coloured(text: str, color_name: str, wrap_nonvisible_chars: bool = False) -> str:
    if _mark is None:
        return str(_stringc(text, color_name, wrap_nonvisible_chars))
    code = color.parsecolor(color_name)
    return "\n".join(f"{_mark}[{code}m{line}{_mark}[0m" for line in text.split("\n"))


def _coloured_host(host: str, stats: dict[str, int], color_host: bool = True) -> str:
    if _mark is None:
        return str(_hostcolor(host, stats, color_host))
    # As wide as without colour, whatever the length of the colour's code.
    plain = f"{host:<26}"
    if not color_host:
        return plain
    if stats["failures"] != 0 or stats["unreachable"] != 0:
        name = constants.COLOR_ERROR
    else:
        name = constants.COLOR_CHANGED if stats["changed"] != 0 else constants.COLOR_OK
    return _coloured(host, name) + plain[len(host) :]
