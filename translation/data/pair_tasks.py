# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Tasks whose pairs can be made of any images: what a network is given of one, to make the image of it.

Imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from ggdr.torch_utils.data.dataset import random_state
from ggdr.translation.data.holes import HOLES, draw_hole

TASKS = ("colorize", "edges", "inpaint", "superres")
HOLE_COLOR = (255, 0, 255)  # magenta, which photographs do not have: the network can tell what is missing
MIN_SIDE = 8  # pixels of an image
FACTORS = (2, 16)
SIGMAS = (0.3, 20.0)

_HOLES = 3  # part of a seed, as crops.py and datasets.py have one


@dataclass(frozen=True)
class PairTask:
    """Makes A of B.

    Attributes:
        name:   one of TASKS: A is B in grey; a drawing of its edges; B with a hole; B coarse and enlarged again.
        factor: of superres: A has 1/factor of the pixels along each side, before it is enlarged.
        sigma:  of edges, in pixels; see `edge_drawing`.
        holes:  of inpaint, one of HOLES; see `draw_hole`. They are HOLE_COLOR.
        seed:   of inpaint.

    Raises:
        ValueError: a setting is not one of these.
    """

    name: str
    factor: int = 4
    sigma: float = 1.0
    holes: str = "mixed"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.name not in TASKS:
            raise ValueError(f"task must be one of {', '.join(TASKS)}, got {self.name!r}")
        if self.holes not in HOLES:
            raise ValueError(f"holes must be one of {', '.join(HOLES)}, got {self.holes!r}")
        if not FACTORS[0] <= self.factor <= FACTORS[1]:
            raise ValueError(f"factor must be from {FACTORS[0]} to {FACTORS[1]}, got {self.factor}")
        if not SIGMAS[0] <= self.sigma <= SIGMAS[1]:
            raise ValueError(f"sigma must be from {SIGMAS[0]:g} to {SIGMAS[1]:g} pixels, got {self.sigma}")

    @property
    def min_side(self) -> int:
        """Shortest side of an image that something is left of, in pixels."""
        return max(MIN_SIDE, 2 * self.factor) if self.name == "superres" else MIN_SIDE

    def __call__(self, b: np.ndarray, number: int) -> np.ndarray:
        """A of one image.

        Args:
            b:      uint8 [H, W, 3].
            number: of the image in its source, which decides on its hole.

        Returns:
            uint8 [H, W], or [H, W, 3] of inpaint and superres.
        """
        if self.name == "inpaint":
            hole = draw_hole(*b.shape[:2], self.holes, random_state(self.seed, _HOLES, number))
            return np.where(hole[..., None], np.array(HOLE_COLOR, np.uint8), b)
        img = Image.fromarray(b)
        if self.name == "superres":
            coarse = tuple(-(-side // self.factor) for side in img.size)
            # As benchmarks of super-resolution shrink; Pillow widens the kernel, so that nothing is aliased.
            small = img.resize(coarse, Image.Resampling.BICUBIC)
            return np.asarray(small.resize(img.size, Image.Resampling.BICUBIC))
        grey = np.asarray(img.convert("L"))
        if self.name == "colorize":
            return grey
        from ggdr.translation.data.edges import edge_drawing

        return edge_drawing(grey, self.sigma)
