"""Tables as Markdown, and their place in a page: between `<!-- begin NAME -->` and `<!-- end NAME -->`."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

TOP = Path(__file__).parents[1]
_SIGNIFICANT = 2


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [list(head), ["---"] * len(head), *(list(row) for row in rows)]
    for line in lines:
        if len(line) != len(head):
            raise ValueError(f"a row of {len(line)} cells in a table of {len(head)}: {line}")
    return "".join("|" + "|".join(cells) + "|\n" if cells[0] == "---" else _row(cells) for cells in lines)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |\n"


def number(value: float) -> str:
    """As many digits as mean something: 0.0512, 0.51, 5.1, 51, 5,100."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    digits = max(0, _SIGNIFICANT - 1 - math.floor(math.log10(abs(value))))
    return f"{value:.{digits}f}"


def judged(value: float, goal: float | None, shown: str) -> str:
    """`shown`, in bold where it is above the goal."""
    return f"**{shown}**" if goal is not None and value > goal else shown


def splice(page: str, name: str, text: str) -> str:
    """`page` with `text` in the place called `name`. Raises ValueError where there is not exactly one such place."""
    begin, end = f"<!-- begin {name} -->\n", f"<!-- end {name} -->"
    place = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if len(place.findall(page)) != 1:
        raise ValueError(f"the page needs one place from {begin.strip()!r} to {end!r}")
    return place.sub(lambda _: f"{begin}{text.strip()}\n{end}", page)


def put(file: Path, name: str, text: str) -> None:
    file.write_text(splice(file.read_text(encoding="utf-8"), name, text), encoding="utf-8")
