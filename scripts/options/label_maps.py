# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What the values in label maps mean, as options say it."""

from __future__ import annotations

import re

import click

from ggdr.scripts.options.numbers import WholeNumber
from ggdr.scripts.options.parameters import CheckedText
from ggdr.torch_utils.data.label_maps import MAX_CLASSES


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


class IgnoredLabels(CheckedText):
    """The text of `parse_ignored`."""

    name, parse = "ignored", staticmethod(parse_ignored)


classes_option = click.option(
    "--classes",
    type=WholeNumber(1, MAX_CLASSES),
    metavar="N",
    help="Number of classes in label maps: the N smallest values that are not ignored.  [default: as classes.json "
    "says, those of Cityscapes, ADE20K, COCO-Stuff and CMP facades, else the values that occur]",
)
ignore_label_option = click.option(
    "--ignore-label",
    type=IgnoredLabels(),
    metavar="N,N|none",
    help="Values in label maps that stand for no class.  [default: 255; of ADE20K and CMP facades also 0]",
)
