# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The work of `ggdr project`: the latents of targets, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ggdr.scripts.options.progress import Progress
from ggdr.scripts.viewing.photographs import Target
from ggdr.scripts.viewing.projection_distance import DistanceTo
from ggdr.scripts.viewing.projection_files import Result, save_result
from ggdr.stylegan2 import Generator
from ggdr.stylegan2.latent.projection import ProjectionConfig, WStatistics, project
from ggdr.torch_utils.checkpoint import SnapshotError
from ggdr.torch_utils.float32 import exact_float32
from ggdr.torch_utils.pictures.images import from_u8, to_u8

NUM_FRAMES = 120  # of a video, before its last image is held


@dataclass(frozen=True)
class Projector:
    """Projects batches of targets with one network.

    Attributes:
        start:      the mean of W, where latents start, and its spread.
        noise_mode: const, none or optimise.
    """

    G: Generator
    distance_to: DistanceTo
    config: ProjectionConfig
    start: WStatistics
    noise_mode: str
    seed: int

    def __call__(self, targets: Sequence[Target], num_frames: int, on_step: Callable[[int], None]) -> list[Result]:
        """The results of targets, each with about `num_frames` frames of the optimisation.

        Raises:
            ProjectionError: a distance became NaN or infinite.
        """
        device = self.start.mean.device
        target = from_u8(torch.from_numpy(np.stack([t.image for t in targets]))).permute(0, 3, 1, 2).contiguous()
        shown = set(np.linspace(0, self.config.steps, num_frames).round().astype(int).tolist())
        frames: dict[int, np.ndarray] = {}

        def images_of(ws: Tensor, noise: Sequence[Tensor] | None) -> np.ndarray:
            with torch.no_grad():
                return to_u8(self.synthesis(ws, noise)).permute(0, 2, 3, 1).cpu().numpy()

        def watch(step: int, ws: Tensor, noise: Sequence[Tensor] | None) -> None:
            if step in shown:
                frames[step] = images_of(ws, noise)
            on_step(step)

        with exact_float32(device):
            found = project(
                self.distance_to(target.to(device)),
                self.synthesis,
                self.start.mean.expand(len(targets), -1),
                self.G.num_ws,
                self.start.std,
                self.config,
                noise_shapes=self.G.synthesis.noise_shapes() if self.noise_mode == "optimise" else None,
                seed=self.seed,
                on_step=watch,
            )
            images = images_of(found.ws, found.noise)
        ws, losses = found.ws.cpu().numpy(), found.losses.numpy()
        noise = [x.cpu().numpy() for x in found.noise or ()]
        return [
            Result(
                targets[i],
                images[i],
                ws[i : i + 1],
                [x[i : i + 1] for x in noise],
                losses[i],
                {step: frame[i] for step, frame in frames.items()},
            )
            for i in range(len(targets))
        ]

    def synthesis(self, ws: Tensor, noise: Sequence[Tensor] | None) -> Tensor:
        """ws [N, num_ws, w_dim] to images; noise None is that of `noise_mode`."""
        return self.G.synthesis(ws, noise=noise, noise_mode="none" if self.noise_mode == "none" else "const")


def project_targets(
    projector: Projector,
    targets: Sequence[Target],
    outdir: Path,
    about: Mapping[str, Any],
    *,
    video: str | None,
    batch_size: int,
    progress: Progress,
) -> list[Result]:
    """Projects targets, and writes the files of each batch when it is done.

    Args:
        about: goes with each latent.
        video: mp4, gif, webp or None.

    Returns:
        The results in the targets' order, without frames.

    Raises:
        ProjectionError: a distance became NaN or infinite.
        OSError: a file cannot be written.
    """
    results: list[Result] = []
    num_steps = projector.config.steps
    for batch in (targets[i : i + batch_size] for i in range(0, len(targets), batch_size)):

        def on_step(step: int, num_before: int = len(results), num: int = len(batch)) -> None:
            progress("steps", num_before * num_steps + num * step, len(targets) * num_steps)

        for result in projector(batch, 0 if video is None else NUM_FRAMES, on_step):
            save_result(result, outdir, about, video=video)
            results.append(replace(result, frames={}))
    return results


def check_images_of(network: Path, G: Generator, start: WStatistics) -> None:
    """SnapshotError if the network makes no images."""
    with torch.no_grad():
        img = G.synthesis(start.mean.expand(1, G.num_ws, -1), noise_mode="const")
    if not img.isfinite().all():
        raise SnapshotError(f"{network}: its images hold NaN or infinite numbers: the network has diverged")
