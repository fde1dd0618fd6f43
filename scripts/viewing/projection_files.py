# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What `ggdr project` writes: for each image its projection, loss curve, video and latent; and a sheet of all."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ggdr.scripts.viewing.photographs import Target
from ggdr.torch_utils.atomic_write import atomic_write
from ggdr.torch_utils.pictures.animation import save_animation
from ggdr.torch_utils.pictures.images import save_image
from ggdr.torch_utils.pictures.sheets import contact_sheet, thumbnail

FPS = 30
HOLD = 30  # frames that a video stays on its last image
MAX_NAMED = 10  # images up to which the sheet names each
MAX_ON_SHEET = 200


@dataclass(frozen=True)
class Result:
    """What was found for a target.

    Attributes:
        image:  [res, res, C] uint8, the image of the latent.
        ws:     [1, num_ws, w_dim] float32.
        noise:  [1, 1, res, res] float32 for each noise input; empty if it was not looked for.
        losses: [steps + 1] float32.
        frames: images like `image` by the step after which they were made; may be empty.
    """

    target: Target
    image: np.ndarray
    ws: np.ndarray
    noise: Sequence[np.ndarray]
    losses: np.ndarray
    frames: Mapping[int, np.ndarray] = field(default_factory=dict)

    def closeness(self) -> str:
        """How close it came, in half a line."""
        return f"distance {self.losses[0]:.3g} to {self.losses[-1]:.3g}, {psnr_text(self.image, self.target.image)}"


def psnr_text(image: np.ndarray, target: np.ndarray) -> str:
    """The peak signal-to-noise ratio of 8-bit images, such as "PSNR 21.3 dB"."""
    error = np.square(image.astype(np.float64) - target).mean()
    return f"PSNR {20 * math.log10(255) - 10 * math.log10(error):.1f} dB" if error else "equal"


def save_result(result: Result, outdir: Path, about: Mapping[str, Any], *, video: str | None) -> None:
    """The files of one image; `about` goes with the latent, and `video` is mp4, gif, webp or None.

    Raises:
        OSError: one cannot be written.
    """
    name = result.target.name
    save_image(result.target.image, outdir / f"{name}-target.png")
    save_image(result.image, outdir / f"{name}-projected.png")
    save_latent(result, outdir / f"{name}.npz", about)
    save_loss_curve(result, outdir / f"{name}-loss.png")
    if video is not None:
        save_animation(_video_frames(result), outdir / f"{name}.{video}", fps=FPS)


def save_latent(result: Result, path: Path, about: Mapping[str, Any]) -> None:
    """ws, losses, noise00, noise01, ... if they were looked for, and how it was found as JSON; uncompressed."""
    arrays = {"ws": result.ws, "losses": result.losses}
    arrays |= {f"noise{i:02d}": noise for i, noise in enumerate(result.noise)}
    about = {"image": result.target.where, **about}
    with atomic_write(path) as file:
        np.savez(file, about=np.array(json.dumps(about)), **arrays)


def save_loss_curve(result: Result, path: Path) -> None:
    """The distance over the steps, as a picture."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    from ggdr.torch_utils.pictures.plot_style import COLORS, plain_text, plot_style

    with plot_style():
        figure = Figure(figsize=(4.8, 3.0), dpi=160, layout="constrained")
        FigureCanvasAgg(figure)
        ax = figure.subplots()
        ax.plot(result.losses, color=COLORS[0], linewidth=1.3)
        last = len(result.losses) - 1
        ax.plot([last], result.losses[-1:], "o", color=COLORS[0], markersize=4, clip_on=False)
        title = f"{plain_text(result.target.short_name)}\n{result.closeness()}"
        ax.set(title=title, xlabel="step", ylabel="distance", xlim=(0, last))
        if result.losses.min() > 0:
            ax.set_yscale("log")
            ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            ax.yaxis.set_major_formatter("{x:g}")
            ax.yaxis.set_minor_formatter(NullFormatter())
        with atomic_write(path) as file:
            figure.savefig(file, format="png")


def _video_frames(result: Result) -> Iterator[np.ndarray]:
    """Target and projection side by side, after each step that there is an image of; the last one is held."""
    frame, num_steps = None, len(result.losses) - 1
    for step, image in result.frames.items():
        note = f"step {step} of {num_steps}, {psnr_text(image, result.target.image)}"
        cells = [[thumbnail(x, smallest=256, largest=512) for x in (result.target.image, image)]]
        frame = contact_sheet(cells, columns=("target", "projection"), note=note)
        yield frame
    yield from [frame] * HOLD


def save_sheet(results: Sequence[Result], path: Path, *, title: str | None = None) -> None:
    """Every projection beside its target; of many images several pairs a row, of very many the first ones."""
    shown = results[:MAX_ON_SHEET]
    cells = [[thumbnail(result.target.image), thumbnail(result.image)] for result in shown]
    if len(shown) <= MAX_NAMED:
        names = [f"{result.target.short_name}\n{psnr_text(result.image, result.target.image)}" for result in shown]
        sheet = contact_sheet(cells, rows=names, columns=("target", "projection"), title=title)
    else:
        pairs = math.isqrt(len(shown) // 2)
        rows = [sum(cells[i : i + pairs], []) for i in range(0, len(cells), pairs)]
        left_out = len(results) - len(shown)
        note = f"{left_out} more are not shown" if left_out else None
        sheet = contact_sheet(rows, columns=("target", "projection") * pairs, title=title, note=note)
    save_image(sheet, path)
