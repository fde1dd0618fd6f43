# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What the regularisers' options have in common, and what a host offers regularisers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from ggdr.scripts.errors import OptionError
from ggdr.scripts.options.numbers import FiniteFloat, WholeNumber

if TYPE_CHECKING:
    from ggdr.torch_utils.data.label_maps import LabelClasses

MIN_RES, MAX_DEFAULT_RES = 8, 64


@dataclass(frozen=True)
class Site:
    """What a host offers regularisers.

    Attributes:
        resolution:  of the images.
        guides:      sides of G's feature maps that D can be taught, in pixels, rising.
        has_average: whether the host keeps a moving average of G.
        shows_reals: whether regularisers see D's pass on real images.
        channels:    of the images.
        data:        the dataset, for messages.
        labels:      the classes of its label maps; None if it has none.
    """

    resolution: int
    guides: Sequence[int]
    has_average: bool = False
    shows_reals: bool = False
    channels: int = 3
    data: str = "the dataset"
    labels: LabelClasses | None = None

    def check_reals(self, name: str) -> None:
        """Raises OptionError unless regularisers see D's pass on real images."""
        if not self.shows_reals:
            text = f"{name} looks at real images, which regularisers see in `ggdr train` alone; ggdr looks at fakes"
            raise OptionError("--regularizer", text)


def res_option(name: str, text: str, *, multiple: bool = True) -> Callable[[Any], Any]:
    """--NAME-res: the side of what is predicted, or several."""
    several = "; may be given several times" if multiple else ""
    return click.option(
        f"--{name}-res",
        type=WholeNumber(min=MIN_RES),
        metavar="PIXELS",
        multiple=multiple,
        help=f"{text}{several}.  [default: the one nearest to resolution / 4, from 8 to 64]",
    )


def weight_option(name: str, default: float, of: str) -> Callable[[Any], Any]:
    """--NAME-weight."""
    return click.option(
        f"--{name}-weight",
        type=FiniteFloat(min=0),
        metavar="FLOAT",
        help=f"Weight of {of}; 0 only measures it: the decoder learns, D is trained as without."
        f"  [default: {default:g}]",
    )


def resolve_weight(command: Mapping[str, Any], name: str, default: float) -> float:
    """The value of --NAME-weight."""
    weight = command.get(_parameter(name, "weight"))
    return default if weight is None else weight


def resolve_res(command: Mapping[str, Any], name: str, site: Site) -> tuple[int, ...]:
    """The values of --NAME-res, rising; raises OptionError for a size that G has no features of."""
    allowed = [res for res in site.guides if res >= MIN_RES]
    default = max(min(MAX_DEFAULT_RES, site.resolution // 4), MIN_RES)
    nearest = min(allowed, key=lambda res: abs(res - default), default=default)
    given = command.get(_parameter(name, "res")) or nearest
    chosen = (given,) if isinstance(given, int) else given
    for res in chosen:
        if res not in allowed:
            raise OptionError(f"--{name}-res", f"{res} is not among the feature maps {', '.join(map(str, allowed))}")
    return tuple(sorted(set(chosen)))


def describe_res(sizes: Sequence[int]) -> str:
    """Sides of maps for people."""
    return ", ".join(f"{res}x{res}" for res in sizes)


def _parameter(name: str, what: str) -> str:
    return f"{name}-{what}".replace("-", "_")
