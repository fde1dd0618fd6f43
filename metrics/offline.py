# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Features of images that need no trained network, so no download; fd_offline50k_full and its like are made of them.

312 numbers an image, in three parts, each for luma and for chroma:

* layout (96): the colours of an 8x8 picture of the image, as its cosine transform;
* strength (144): how much there is of each of eight 3x3 patterns (the cosine transform's again: edges, lines, corners,
  checks) at three scales, each half the size of the one before; of luma in each quadrant, of chroma overall;
* unevenness (72): whether that is spread over the image, as in noise, or gathered in a few places, as in a photograph.

All of it is formulas and a few constants, the same on every machine. In photographs (CIFAR-10) the variances add up to
100, so that a Frechet distance is in per cent of the variety of photographs.

The distance grows with noise, blur, blocks, wrong colours or contrast, missing modes, repeated images and broken
shapes, and falls as a generator learns. It knows nothing of objects: a dog with five legs costs nothing, and colours
that people hardly mind may cost much. It is no FID, and its values mean nothing beside one: compare them with each
other only, at the same size and number of images and the same `OfflineFeatures.hash`.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ggdr.metrics.detector import Detector
from ggdr.metrics.detectors import DetectorFiles
from ggdr.metrics.resize import check_images_u8
from ggdr.torch_utils.float32 import exact_float32

VERSION = "offline-v1"
SIZE, LARGE_SIZE, MIN_SIZE = 32, 64, 8  # pixels
NUM_LEVELS = 3
GRID = 8  # of the layout
FLOOR = 0.01  # added to a response before its root is taken, which is steep at 0; about a grey level
CHUNK_PIXELS = 2**16  # of resized images at once: what a CPU's cache holds

# Of red, green and blue in [-1, 1]: luma, and two of chroma.
COLOURS = np.array([[1 / 3, 1 / 3, 1 / 3], [1, -1, 0], [1 / 2, 1 / 2, -1]])
# Numbers in each part, and their factor: with it their variances add up to 20, and to 10 for textures in chroma.
PARTS = {
    "layout of luma": (64, 7.47),
    "layout of chroma": (32, 14.5),
    "strength in luma": (96, 5.26),
    "strength in chroma": (48, 8.63),
    "unevenness in luma": (24, 39.0),
    "unevenness in chroma": (48, 36.6),
}


class OfflineFeatures(nn.Module):
    """The detector; it has no weights but constants.

    Attributes:
        dim:    numbers in a feature vector.
        resize: how images come to its size; for result lines.
    """

    dim = sum(num for num, _ in PARTS.values())
    resize = f"antialiased bilinear to {LARGE_SIZE}x{LARGE_SIZE}, or {SIZE}x{SIZE} below that"

    def __init__(self) -> None:
        super().__init__()
        scale = np.concatenate([np.full(num, scale) for num, scale in PARTS.values()])
        for name, values in (("patterns", _patterns()), ("layout", _layout()), ("scale", scale)):
            self.register_buffer(name, torch.from_numpy(values).float(), persistent=False)

    @property
    def hash(self) -> str:
        """SHA-256 (hex) of the version and all constants."""
        sha = hashlib.sha256(VERSION.encode())
        for values in (self.patterns, self.layout, self.scale):
            sha.update(values.cpu().numpy().astype("<f4").tobytes())
        return sha.hexdigest()

    @torch.no_grad()
    def forward(self, images_u8: Tensor) -> Tensor:
        """Features of images; each image's depend on that image alone.

        Args:
            images_u8: [N, 3, H, W] uint8, at least 8x8.

        Returns:
            [N, 312] float32.

        Raises:
            ValueError: another type or shape.
        """
        check_images_u8(images_u8, may_be_empty=True)
        height, width = images_u8.shape[2:]
        if min(height, width) < MIN_SIZE:
            raise ValueError(f"images must be at least {MIN_SIZE}x{MIN_SIZE}, got {height}x{width}")
        size = LARGE_SIZE if min(height, width) >= LARGE_SIZE else SIZE
        with exact_float32(images_u8.device):
            return torch.cat([self._features(chunk, size) for chunk in images_u8.split(CHUNK_PIXELS // size**2)])

    def _features(self, images_u8: Tensor, size: int) -> Tensor:
        """Features of a chunk, by way of images of this size."""
        x = images_u8.contiguous().float() / 127.5 - 1
        if x.shape[2:] != (size, size):
            x = F.interpolate(x, (size, size), mode="bilinear", align_corners=False, antialias=True)
        layout = F.avg_pool2d(x, size // GRID).flatten(1) @ self.layout

        strengths, unevenness = [], []
        for level in range(NUM_LEVELS):
            x = F.avg_pool2d(x, 2) if level else x
            response = F.conv2d(x, self.patterns).abs_()  # [n, 24, size - 2, size - 2], eight of luma first
            rms = torch.linalg.vector_norm(response, dim=(2, 3)) / response.shape[2]
            unevenness.append(rms - response.mean((2, 3)))
            # The root makes faint patterns count, as they do to the eye where nothing else is.
            strengths.append(F.avg_pool2d(response.add_(FLOOR).sqrt_(), response.shape[2] // 2))

        strength = torch.stack(strengths, 1)  # [n, levels, 24, 2, 2]
        uneven = torch.stack(unevenness, 1)  # [n, levels, 24]
        parts = [layout, strength[:, :, :8], strength[:, :, 8:].mean((3, 4)), uneven[:, :, :8], uneven[:, :, 8:]]
        return torch.cat([part.flatten(1) for part in parts], dim=1) * self.scale


def load_detector(files: DetectorFiles) -> Detector:
    """The detector of metrics named _offline; it takes no files."""
    net = OfflineFeatures().to(files.device).eval()
    return Detector(
        "offline", net.hash[:16], net.resize, lambda images_u8: {"features": net(images_u8)}, min_size=MIN_SIZE
    )


def _patterns() -> np.ndarray:
    """[24, 3, 3, 3]: of luma, then of each chroma, the eight patterns of a 3x3 cosine transform that average to 0."""
    basis = np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]]) / np.sqrt([[3], [2], [6]])
    patterns = np.einsum("ay,bx->abyx", basis, basis).reshape(9, 3, 3)[1:]
    return np.einsum("kyx,oc->okcyx", patterns, COLOURS).reshape(24, 3, 3, 3)


def _layout() -> np.ndarray:
    """[3 * 8 * 8, 96]: from red, green and blue cells to 8x8 waves of luma and the 4x4 lowest of each chroma.

    Waves are weighted by the root of their frequency: in photographs the low ones would drown out all others.
    """
    frequency, cell = np.arange(GRID)[:, None], np.arange(GRID) + 0.5
    basis = np.cos(np.pi / GRID * frequency * cell) * np.where(frequency == 0, 1, np.sqrt(2)) / GRID
    weight = np.sqrt(np.maximum(np.hypot(frequency, frequency.T), 0.7))
    waves = np.einsum("uv,uy,vx,oc->cyxouv", weight, basis, basis, COLOURS)
    luma, chroma = waves[..., 0, :, :], waves[..., 1:, :4, :4]
    return np.concatenate([part.reshape(3 * GRID**2, -1) for part in (luma, chroma)], axis=1)
