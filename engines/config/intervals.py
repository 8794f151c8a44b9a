"""Intervals such as "(0, 1]": which numbers a flag takes, written where the flag is declared."""

import math
from typing import NamedTuple


class Interval(NamedTuple):
    """Lower and upper end, and whether each belongs to it."""

    low: float
    high: float
    with_low: bool
    with_high: bool

    @classmethod
    def parse(cls, text: str) -> "Interval":
        """"[0, inf)" -> the numbers from 0 on. "inf" itself never belongs to it.

        Raises:
            ValueError: the text is no interval.
        """
        low, comma, high = text[1:-1].partition(",")
        if not comma or text[:1] not in "[(" or text[-1:] not in "])":
            raise ValueError(f"{text!r} is no interval: write it as [0, 1), with inf for no end")
        return cls(float(low), float(high), text[0] == "[", text[-1] == "]")

    def __contains__(self, value: float) -> bool:
        """False for nan and for both infinities."""
        above = self.low <= value if self.with_low else self.low < value
        below = value <= self.high if self.with_high else value < self.high
        return math.isfinite(value) and above and below
