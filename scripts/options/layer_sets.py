# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What --layers means to the commands that change some of a generator's styles."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ggdr.scripts.errors import nearest
from ggdr.scripts.options.network import ReadBy, parse_seeds
from ggdr.scripts.options.parameters import bad_parameter

if TYPE_CHECKING:
    from ggdr.stylegan2.generator import SynthesisNetwork

LAYER_NAMES = ("coarse", "middle", "fine", "all")


def parse_layers(text: str) -> list[str | list[int]]:
    """Sets of layers: each name of LAYER_NAMES is one, and all numbers and ranges together are another.

    "coarse,fine" is ["coarse", "fine"], "0-2,5" is [[0, 1, 2, 5]], "fine,0,1" is ["fine", [0, 1]].

    Raises:
        ValueError: anything else.
    """
    sets: list[str | list[int]] = []
    numbers: list[int] | None = None
    for part in text.lower().split(","):
        if part.strip() in LAYER_NAMES:
            if part.strip() not in sets:
                sets.append(part.strip())
            continue
        try:
            found = parse_seeds(part)
        except ValueError as error:
            got = f"got {part.strip()!r}{nearest(part.strip(), LAYER_NAMES)}"
            raise ValueError(f"expected coarse, middle, fine, all, or numbers such as 0-2,5; {got}") from error
        if numbers is None:
            numbers = []
            sets.append(numbers)
        numbers[:] = sorted({*numbers, *found})
    return sets


LAYERS = ReadBy(parse_layers)


def find_layers(network: Path, synthesis: SynthesisNetwork, sets: Sequence[str | list[int]]) -> dict[str, list[int]]:
    """The layers of each set, by a text that describes it; BadParameter for layers that the network has not."""
    from ggdr.stylegan2.latent.style_mixing import layer_bands, layer_resolutions

    resolutions = layer_resolutions(synthesis)
    named = {**layer_bands(synthesis), "all": list(range(synthesis.num_ws))}
    found = {}
    for layers in sets:
        indices = named[layers] if isinstance(layers, str) else layers
        if indices[-1] >= synthesis.num_ws:
            text = f"{network} has {synthesis.num_ws} layers: expected 0 to {synthesis.num_ws - 1}, got {indices[-1]}"
            raise bad_parameter(text, "--layers")
        first, last = resolutions[indices[0]], resolutions[indices[-1]]
        pixels = f"{first}x{first}" + (f" to {last}x{last}" if last > first else "")
        name = f"{layers}, " if isinstance(layers, str) else ""
        found[f"{name}{'layers' if len(indices) > 1 else 'layer'} {spans(indices)} ({pixels})"] = indices
    return found


def spans(indices: Sequence[int]) -> str:
    """Ascending numbers as numbers and ranges: [0, 1, 2, 5] is "0-2, 5"."""
    runs: list[list[int]] = []
    for i in indices:
        if runs and i == runs[-1][-1] + 1:
            runs[-1].append(i)
        else:
            runs.append([i])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)
