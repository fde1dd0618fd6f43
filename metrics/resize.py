# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Images as the Inception network wants them, the way each of four tools makes them: a score depends on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

INPUT_SIZE = 299


@dataclass(frozen=True)
class Mode:
    """How a tool computes the FID.

    `as_stored` is said of image files: they are read as Pillow's convert("RGB") alone does, not turned by EXIF and
    without their transparency. The mode without it reads them as `ggdr dataset` does.

    One choice of theirs is left out: torch-fidelity and clean-fid add features up for the mean in float32, whose
    rounding can be seen in about the fifth decimal of an FID. Here all statistics are in float64.
    """

    name: str
    resize: Literal["tf1_bilinear", "torch_bilinear", "pil_bicubic"]
    normalise: Literal["(x-128)/128", "2x/255-1"]
    ddof: int  # covariances are divided by N - ddof
    as_stored: bool = True

    @property
    def reading(self) -> str:
        """How files are read, for result lines."""
        return "as stored, without alpha" if self.as_stored else "upright, alpha over white"


MODES = {
    mode.name: mode
    for mode in (
        Mode("stylegan", "tf1_bilinear", "(x-128)/128", ddof=0, as_stored=False),
        Mode("torch-fidelity", "tf1_bilinear", "(x-128)/128", ddof=1),
        Mode("pytorch-fid", "torch_bilinear", "2x/255-1", ddof=1),
        Mode("clean", "pil_bicubic", "(x-128)/128", ddof=1),
    )
}


def check_images_u8(images_u8: Tensor, *, may_be_empty: bool = False) -> None:
    """Raises ValueError unless these are images uint8 [N, 3, H, W]."""
    is_empty = not (may_be_empty or images_u8.numel())
    if images_u8.dtype != torch.uint8 or images_u8.ndim != 4 or images_u8.shape[1] != 3 or is_empty:
        raise ValueError(f"images must be uint8 [N, 3, H, W], got {images_u8.dtype} {list(images_u8.shape)}")


def prepare(images_u8: Tensor, mode: Mode) -> Tensor:
    """Resizes and normalises.

    Args:
        images_u8: [N, 3, H, W] uint8, of any size.

    Returns:
        [N, 3, 299, 299] float32, about in [-1, 1], on the same device. Each image's depends on that image alone.

    Raises:
        ValueError: another type or shape.
    """
    check_images_u8(images_u8)
    resize = {"tf1_bilinear": tf1_bilinear, "torch_bilinear": torch_bilinear, "pil_bicubic": pil_bicubic}[mode.resize]
    same_size = images_u8.shape[2:] == (INPUT_SIZE, INPUT_SIZE)
    x = images_u8.float() if same_size else resize(images_u8)
    return (x - 128) / 128 if mode.normalise == "(x-128)/128" else x * (2 / 255) - 1


def tf1_bilinear(images_u8: Tensor) -> Tensor:
    """As TensorFlow 1 resizes, [N, C, H, W] uint8 to [N, C, 299, 299] float32.

    Pixel i of the result lies at i * size / 299, where others add half a pixel; shrinking skips pixels.
    """
    # Along rows, then along columns, and with its formula: rounding errors are the same. Neighbours are gathered
    # while they are bytes.
    height, width = images_u8.shape[2:]
    low, high, fraction = _tf1_neighbours(width, images_u8.device)
    x = _between(images_u8[..., low], images_u8[..., high], fraction)
    low, high, fraction = _tf1_neighbours(height, images_u8.device)
    return _between(x.index_select(2, low), x.index_select(2, high), fraction[:, None])


def _tf1_neighbours(size: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Of each pixel of the result: the pixels before and behind it, and how far it is from the one before."""
    place = torch.arange(INPUT_SIZE, dtype=torch.float32, device=device) * (size / INPUT_SIZE)
    low = place.long()
    return low, (low + 1).clamp_max(size - 1), place - low


def _between(low: Tensor, high: Tensor, fraction: Tensor) -> Tensor:
    low = low.float()
    return (high.float() - low).mul_(fraction).add_(low)


def torch_bilinear(images_u8: Tensor) -> Tensor:
    """As PyTorch resizes when not told otherwise, [N, C, H, W] to [N, C, 299, 299] float32; shrinking skips pixels."""
    return F.interpolate(images_u8.float(), (INPUT_SIZE, INPUT_SIZE), mode="bilinear", align_corners=False)


def pil_bicubic(images_u8: Tensor) -> Tensor:
    """As Pillow resizes in float, [N, C, H, W] to [N, C, 299, 299] float32; shrinking averages.

    The filter overshoots; the results are clipped to [0, 255], and not rounded.
    """
    # PyTorch computes the filter in the type of the images, Pillow in float64.
    x = F.interpolate(images_u8.double(), (INPUT_SIZE, INPUT_SIZE), mode="bicubic", align_corners=False, antialias=True)
    return x.clamp_(0, 255).float()
