"""Makes Ansible print its colours as on a terminal, but with a mark of this run in place of the escape character.

The supervisor removes the marks (flansible.worker.colour_parser), so that plain text stays what a pipe would get. All
that handles text before it is printed, a project's own callback or Ansible's log file, sees it without colours, as the
command line without a terminal does: a colour travels beside its text, and becomes a mark where the text is printed.
The fork server replaces Ansible's functions; each run sets its mark before Ansible prints anything.
"""

from __future__ import annotations

import sys
from typing import Any

from ansible import constants
from ansible.plugins.callback import CallbackBase, default
from ansible.utils import color, display
from ansible.utils.display import Display

from flansible.runner.ansible_internals import replace

_LINE_ENDS = frozenset("\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029")  # of str.splitlines, which makes a diff's lines
_mark: str | None = None
_stringc, _hostcolor, _colorize = color.stringc, color.hostcolor, color.colorize


class _Coloured(str):
    """Text that is to be printed in colour. Whatever is made of it, padded or joined, is plain text."""

    __slots__ = ("colour",)

    def __new__(cls, text: str, colour: str = "") -> _Coloured:  # a copy is made with the text alone
        return super().__new__(cls, text)

    def __init__(self, text: str, colour: str) -> None:
        self.colour = colour


class _ColourOfLines(str):
    """The colours of a diff: as a colour's name, to Display, that of a success; `lines` has each coloured line's."""

    __slots__ = ("lines",)

    def __new__(cls, name: str, lines: list[tuple[str, str]] | None = None) -> _ColourOfLines:
        return super().__new__(cls, name)

    def __init__(self, name: str, lines: list[tuple[str, str]]) -> None:
        self.lines = lines


def mark_colours(mark: str) -> None:
    """Sets this run's mark, unless the configuration forces colours on (they are text then) or off."""
    global _mark
    if not constants.ANSIBLE_NOCOLOR and not constants.ANSIBLE_FORCE_COLOR:
        _mark = mark


def replace_colour_functions() -> None:
    """Replaces Ansible's colour functions.

    Done once, in the fork server: searching all modules would cost a run more than all else that is done to it here.
    """
    name = _stringc.__name__
    for module in list(sys.modules.values()):
        if getattr(module, name, None) is _stringc:
            setattr(module, name, _coloured)
    replace(display, "stringc", _marked)
    replace(default, "hostcolor", _marked_host)
    replace(default, "colorize", _marked_count)
    _keep_colours_of_diffs()
    print_text = Display.display

    def print_coloured(self: Display, msg: str, color: str | None = None, *args: Any, **kwargs: Any) -> None:
        if color is None and isinstance(msg, _Coloured):
            color = msg.colour
        print_text(self, msg, color, *args, **kwargs)

    replace(Display, "display", print_coloured)


def _keep_colours_of_diffs() -> None:
    lines: list[tuple[str, str]] = []

    def note(text: str, color_name: str) -> str:
        lines.append((text, color_name))
        return text

    def get_diff(self: CallbackBase, difflist: Any) -> str:
        lines.clear()
        text = make_diff(self, difflist)
        if _mark is None:
            return str(text)
        return _Coloured(text, _ColourOfLines(constants.COLOR_OK, lines.copy()))

    def note_or_force(text: str, color_name: str) -> str:
        return str(_stringc(text, color_name)) if _mark is None else note(text, color_name)

    make_diff = replace(CallbackBase, "_get_diff", get_diff)
    replace(sys.modules[CallbackBase.__module__], "stringc", note_or_force)


def _coloured(text: str, color_name: str, wrap_nonvisible_chars: bool = False) -> str:
    if _mark is None:
        return str(_stringc(text, color_name, wrap_nonvisible_chars))
    return _Coloured(text, color_name)


def _marked(text: str, color_name: str) -> str:
    if _mark is None:
        return str(_stringc(text, color_name))
    if isinstance(color_name, _ColourOfLines):
        return _marked_lines(text, color_name.lines)
    # Around the whole text: a result may have millions of lines. Whoever shows it colours each line, as Ansible does.
    return f"{_mark}[{color.parsecolor(color_name)}m{text}{_mark}[0m"


def _marked_lines(text: str, lines: list[tuple[str, str]]) -> str:
    """Marks these lines, in their order; the others are plain. Display has made \\n of each \\r\\n."""
    found, position = [], 0
    for line, color_name in lines:
        line = line.replace("\r\n", "\n").removesuffix("\n")
        start = text.find(line, position)
        while start > 0 and text[start - 1] not in _LINE_ENDS:
            start = text.find(line, start + 1)
        if start >= 0:
            marked = "\n".join(_marked(part, color_name) for part in line.split("\n"))
            found += [text[position:start], marked]
            position = start + len(line)
    return "".join(found) + text[position:]


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


def _marked_count(lead: str, number: int, color_name: str | None) -> str:
    plain = str(_colorize(lead, number, None))
    if _mark is None:
        return str(_colorize(lead, number, color_name))
    return _marked(plain, color_name) if number != 0 and color_name is not None else plain
