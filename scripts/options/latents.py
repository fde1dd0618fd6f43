# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Which latents to look at: those of seeds, and those in files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import click

from ggdr.scripts.options.network import MAX_SEEDS, ReadBy, parse_seeds

HELP = "Numbers and inclusive ranges, e.g. 0-63,100; and latent files, the .npz of `ggdr project` or `ggdr generate "
HELP += "--save-w`, e.g. 0-3,photo.npz."


def parse_latents(text: str) -> list[int | Path]:
    """Seeds and latent files of a comma-separated list: "0-1,p/a.npz" is [0, 1, Path("p/a.npz")].

    Raises:
        ValueError: what is no name ending in .npz is none of `parse_seeds` either, or there are over a million.
    """
    found: list[int | Path] = []
    for part in text.split(","):
        is_file = part.strip().lower().endswith(".npz")
        found += [Path(part.strip())] if is_file else parse_seeds(part)
        if len(found) > MAX_SEEDS:
            raise ValueError(f"expected {MAX_SEEDS} seeds at most, got more in {text!r}")
    return found


LATENTS = ReadBy(parse_latents)


def latents_option(default: str | None = None) -> Callable:
    """--seeds LIST, required where there is no default."""
    how = {"required": True} if default is None else {"default": default}
    return click.option("--seeds", "listed", metavar="LIST", type=LATENTS, help=HELP, **how)


def has_seeds(listed: Sequence[int | Path]) -> bool:
    """Whether some of the latents are those of seeds, which depend on the label."""
    return any(isinstance(item, int) for item in listed)
