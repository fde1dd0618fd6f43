# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The transforms by name, and pipes and generators for tests."""

from __future__ import annotations

import torch

from ggdr.stylegan2.augment.pipe import PIPES, AugmentConfig, AugmentPipe

GEOMETRY = ["xflip", "rotate90", "xint", "scale", "rotate", "aniso", "xfrac"]
COLOR = ["brightness", "contrast", "lumaflip", "hue", "saturation"]
SINGLE = [*GEOMETRY, *COLOR, "imgfilter", "noise", "cutout"]


def make_pipe(name: str, p: float = 1.0) -> AugmentPipe:
    """A named pipe, or one transform of strength 1."""
    return AugmentPipe(PIPES[name] if name in PIPES else AugmentConfig(**{name: 1.0}), p)


def make_rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
