# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Numbers as values of options, whose messages say in words what was expected."""

from __future__ import annotations

import math
from typing import Any

import click


class WholeNumber(click.IntRange):
    """A whole number in a range.

    Args:
        word: that is taken in place of a number, as "auto".
    """

    def __init__(self, min: int | None = None, max: int | None = None, *, word: str | None = None) -> None:
        super().__init__(min, max)
        self.word = word

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        if self.word is not None and value == self.word:
            return self.word
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter:
            or_word = "" if self.word is None else f" or {self.word}"
            self.fail(f"expected a whole number{_in_range(self)}{or_word}, got {value!r}", param, ctx)

    def _describe_range(self) -> str:
        return _in_range(self).strip()


class FiniteFloat(click.FloatRange):
    """A number in a range; NaN and infinity, which Python reads as numbers too, are refused."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            number = super().convert(value, param, ctx)
        except click.BadParameter:
            number = math.nan
        if not math.isfinite(number):
            self.fail(f"expected a number{_in_range(self)}, got {value!r}", param, ctx)
        return number

    def _describe_range(self) -> str:
        return _in_range(self).strip()


def _in_range(kind: click.IntRange | click.FloatRange) -> str:
    """ " from 1 to 9", " from 1", " above 0 and below 1", or nothing."""
    ends = []
    if kind.min is not None:
        ends.append(f"{'above' if kind.min_open else 'from'} {_shown(kind.min)}")
    if kind.max is not None:
        is_plain = ends and not kind.min_open  # "from 1 to 9"
        ends.append(f"{'below' if kind.max_open else 'to' if is_plain else 'up to'} {_shown(kind.max)}")
    joint = " " if ends and ends[-1].startswith("to") else " and "
    return f" {joint.join(ends)}" if ends else ""


def _shown(end: float) -> str:
    return str(end) if isinstance(end, int) else f"{end:.15g}"
