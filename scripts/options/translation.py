# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Options of the commands that translate images."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import click

from ggdr.scripts.errors import nearest

MODELS = ("pix2pix",)  # hosts that `ggdr translate train` trains; the first is the default
GENERATORS = ("unet", "resnet")  # the first is the default
MAX_EPOCHS = 10**6


class NamedChoice(click.Choice):
    """One of several names; the message has the nearest."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(names)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value not in self.choices:
            expected = " or ".join(self.choices)
            self.fail(f"expected {expected}, got {value!r}{nearest(str(value), self.choices)}", param, ctx)
        return value


class Epochs(click.ParamType):
    """The text of `parse_epochs`."""

    name = "epochs"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            parse_epochs(value)
        except (TypeError, ValueError) as error:
            self.fail(str(error), param, ctx)
        return value


class IgnoredLabels(click.ParamType):
    """The text of `parse_ignored`."""

    name = "ignored"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            parse_ignored(value)
        except (TypeError, ValueError) as error:
            self.fail(str(error), param, ctx)
        return value


def parse_ignored(text: str) -> tuple[int, ...]:
    """Values of label maps: "255" is (255,), "0,255" (0, 255), "none" ().

    Raises:
        ValueError: anything else, or values that 8 bits do not have.
    """
    if text == "none":
        return ()
    values = [int(part) for part in text.split(",") if re.fullmatch(r"[0-9]{1,3}", part) and int(part) < 256]
    if len(set(values)) != len(text.split(",")):
        raise ValueError(f"expected different numbers from 0 to 255 with commas between them, or none; got {text!r}")
    return tuple(sorted(values))


def parse_epochs(text: str) -> tuple[int, int]:
    """Epochs with a constant learning rate, and epochs in which it falls to 0: "100+50" is (100, 50), "100" (100, 0).

    Raises:
        ValueError: anything else, no epoch at all, or more than a million.
    """
    match = re.fullmatch(r"([0-9]{1,7})(?:\+([0-9]{1,7}))?", text)
    constant, falling = (0, 0) if match is None else (int(match[1]), int(match[2] or 0))
    if not 1 <= constant + falling <= MAX_EPOCHS:
        raise ValueError(
            f"expected epochs with a constant learning rate + epochs with a falling one, such as 100+100 or 50, "
            f"1 to {MAX_EPOCHS} in all; got {text!r}"
        )
    return constant, falling
