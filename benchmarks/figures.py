"""What is made of measured numbers: medians, ratios of pairs, their spread. Pure; used by every benchmark."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

SLOWER = 1.05
_ROUNDS_TO_DROP_ENDS = 7


@dataclass(frozen=True)
class Ratio:
    """How one side compares with another, from pairs that were measured one right after the other."""

    median: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """A word only where all of the spread says the same."""
        if self.low > SLOWER:
            return "slower"
        return "faster" if self.high < 1 / SLOWER else "same"


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """The median and the whole spread of ours / theirs, pair by pair."""
    found = _ratios(ours, theirs)
    return Ratio(statistics.median(found), found[0], found[-1])


def steady_ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """As `ratio`, but from seven pairs on the spread leaves out the lowest and the highest.

    One pair that something else disturbed must neither hide a regression nor make one up. What is left of seven or more
    pairs holds the true median with a probability of 87 % or more, of nine with 96 %.
    """
    found = _ratios(ours, theirs)
    kept = found[1:-1] if len(found) >= _ROUNDS_TO_DROP_ENDS else found
    return Ratio(statistics.median(found), kept[0], kept[-1])


def _ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    return sorted(one / other for one, other in zip(ours, theirs, strict=True))


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of them does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def slope(few: tuple[float, float], many: tuple[float, float]) -> float:
    """What one more costs, from two points (count, cost): what is paid once for all drops out."""
    return (many[1] - few[1]) / (many[0] - few[0])
