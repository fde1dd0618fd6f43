# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""A pool of older fakes, which CycleGAN's and ComboGAN's discriminators see beside new ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

Gather = Callable[[Tensor, int], Tensor]  # see ProcessGroup.gather_rows


class ImagePool:
    """Until it is full, images go in and are returned; then every other one is exchanged for one from the pool.

    An iteration draws once for all images of all processes (`draw`), looks its images up in any number of shares
    (`query`), and ends with `step_end`, which puts in what was drawn. So the images of one batch never meet each other,
    and the result depends neither on the number of processes nor on that of shares. With batches of one it is the
    published procedure. A host draws in Phase.draw, queries in Phase.losses, and passes `step_end` on.

    Source: Shrivastava et al. 2016, arXiv:1612.07828, Section 2.3; Zhu et al. 2017, arXiv:1703.10593, Section 4.

    Args:
        size: number of images; 0: all images are returned as they are.
        seed: of its draws; the same on every process.

    Raises:
        ValueError: a negative size.
    """

    def __init__(self, size: int = 50, *, seed: int = 0) -> None:
        if size < 0:
            raise ValueError(f"a pool holds 0 images or more, got {size}")
        self.size = size
        self.rng = torch.Generator().manual_seed(seed)
        self.images: Tensor | None = None  # [number so far, C, H, W]
        self._plan: dict[str, Tensor] | None = None  # of this iteration, for all images of all processes
        self._new: list[tuple[Tensor, Tensor]] = []  # their places in the batch, and images of this process

    def __len__(self) -> int:
        return 0 if self.images is None else len(self.images)

    def draw(self, n: int) -> dict[str, Tensor]:
        """What becomes of n images, those of all processes in their common order, to be split as draws are.

        Returns:
            {"index": their numbers, "slot": the place in the pool that each goes to, or -1,
            "swap": whether the image that is there comes out in its place}, all [n] on the CPU.
        """
        count = len(self)
        slot, swap = torch.full([n], -1), torch.zeros([n], dtype=torch.bool)
        num_free = min(self.size - count, n)
        slot[:num_free] = torch.arange(count, count + num_free)
        if count == self.size:
            # Each from a place of its own; of more images than places the rest goes by.
            places = torch.randperm(count, generator=self.rng)[:n]
            coins = torch.rand([n], generator=self.rng) < 0.5
            swap[: len(places)] = coins[: len(places)]
            slot[: len(places)] = torch.where(swap[: len(places)], places, -1)
        self._plan, self._new = {"index": torch.arange(n), "slot": slot, "swap": swap}, []
        return dict(self._plan)

    def query(self, images: Tensor, draws: Mapping[str, Tensor]) -> Tensor:
        """The images to show to D; the pool stays as it is.

        Args:
            images: [n, C, H, W], new fakes; their gradients are cut.
            draws:  the share of `draw` that belongs to them.

        Raises:
            ValueError: they have another shape than those in the pool, or are not as many as the draws.
        """
        images = images.detach()
        if len(images) != len(draws["index"]):
            raise ValueError(f"got {len(images)} images and draws for {len(draws['index'])}")
        if self.images is not None and images.shape[1:] != self.images.shape[1:]:
            raise ValueError(
                f"the pool holds images of shape {tuple(self.images.shape[1:])}, got {tuple(images.shape[1:])}"
            )
        self._new.append((draws["index"], images))
        rows = draws["swap"].nonzero().flatten()
        if not len(rows):
            return images
        stored = self.images[draws["slot"][rows].to(images.device)]
        return images.index_copy(0, rows.to(images.device), stored)

    @torch.no_grad()
    def step_end(self, gather: Gather = lambda rows, num: rows) -> None:
        """Puts the images of this iteration in; to be called on every process, after all of their shares.

        Args:
            gather: brings the shares rank::world of the processes together; ProcessGroup.gather_rows.
        """
        if self._plan is None or not self.size:
            return
        index, images = (torch.cat(parts) for parts in zip(*self._new, strict=True))
        slots = self._plan["slot"]
        images = gather(images[index.argsort()], len(slots))
        added, swapped = slots >= len(self), self._plan["swap"]
        if swapped.any():
            self.images[slots[swapped].to(images.device)] = images[swapped.to(images.device)]
        if added.any():
            new = images[added.to(images.device)]
            self.images = new.clone() if self.images is None else torch.cat([self.images, new])
        self._plan, self._new = None, []

    def state(self) -> dict[str, Any]:
        """What an exact resume needs, between iterations."""
        return {"images": self.images, "rng": self.rng.get_state()}

    def load_state(self, state: Mapping[str, Any], device: torch.device | str = "cpu") -> None:
        """Takes back what `state` gave; of more images than fit, the first ones.

        Raises:
            ValueError: its images are no tensor [n, C, H, W] of numbers.
        """
        images = state["images"]
        if images is not None:
            if not isinstance(images, Tensor) or images.ndim != 4 or not images.is_floating_point():
                raise ValueError("the images of a pool are no tensor [n, C, H, W] of floating point numbers")
            images = images[: self.size].to(device, copy=True)
        self.images = images if images is None or len(images) else None
        self.rng.set_state(state["rng"])
        self._plan, self._new = None, []
