# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""FIR filters of the augmentations as banded matrices: 2x resampling, and filtering in frequency bands.

Each filter runs along one axis after the other, and the mirrored continuation of the image is part of its
matrix. For the few channels of an image, the product with a banded matrix, block by block, is many times
quicker on a CPU than a depthwise convolution (`benchmarks/augment.py` measures both), needs no padded copy,
and differentiates any number of times.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ggdr.stylegan2.augment.config import NUM_BANDS

# Scaling filters of Daubechies' least asymmetric wavelets, which sum to sqrt(2). Source: I. Daubechies, "Ten
# Lectures on Wavelets", SIAM 1992; to double precision as in PyWavelets 1.9 (`pywt.Wavelet("sym6").dec_lo`).
SYM2 = (-0.12940952255092145, 0.22414386804185735, 0.836516303737469, 0.48296291314469025)
SYM6 = (
    0.015404109327027373,
    0.0034907120842174702,
    -0.11799011114819057,
    -0.048311742585633,
    0.4910559419267466,
    0.787641141030194,
    0.3379294217276218,
    -0.07263752278646252,
    -0.021060292512300564,
    0.04472490177066578,
    0.0017677118642428036,
    -0.007800708325034148,
)
_BLOCK = 256  # rows of a banded matrix in one product, which takes only the columns that they need


@dataclass(frozen=True, eq=False)
class BandedMatrix:
    """A linear map along one axis.

    Attributes:
        matrix: [out, in].
        first:  first column of each row that is not zero.
        last:   last column of each row that is not zero.
    """

    matrix: Tensor
    first: tuple[int, ...]
    last: tuple[int, ...]

    @staticmethod
    def of(matrix: np.ndarray, dtype: torch.dtype, device: torch.device) -> BandedMatrix:
        """Finds the band of a [out, in] float64 array. No row may be zero."""
        nonzero = matrix != 0
        return BandedMatrix(
            matrix=torch.from_numpy(matrix).to(device=device, dtype=dtype),
            first=tuple(nonzero.argmax(axis=1).tolist()),
            last=tuple((matrix.shape[1] - 1 - nonzero[:, ::-1].argmax(axis=1)).tolist()),
        )

    def along_height(self, x: Tensor, start: int = 0, stop: int | None = None) -> Tensor:
        """[..., in, w] -> [..., stop - start, w]: rows start to stop of the result."""
        blocks = [self.matrix[rows, cols] @ x[..., cols, :] for rows, cols in self._blocks(start, stop)]
        return blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim=-2)

    def along_width(self, x: Tensor, start: int = 0, stop: int | None = None) -> Tensor:
        """[..., h, in] -> [..., h, stop - start]: columns start to stop of the result."""
        blocks = [x[..., cols] @ self.matrix[rows, cols].T for rows, cols in self._blocks(start, stop)]
        return blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim=-1)

    def _blocks(self, start: int, stop: int | None) -> list[tuple[slice, slice]]:
        """Runs of rows, and the columns which they need."""
        stop = len(self.first) if stop is None else stop
        runs = [slice(i, min(i + _BLOCK, stop)) for i in range(start, stop, _BLOCK)]
        return [(rows, slice(min(self.first[rows]), max(self.last[rows]) + 1)) for rows in runs]


@lru_cache(maxsize=16)
def upsampling(size: int, dtype: torch.dtype, device: torch.device) -> BandedMatrix:
    """Mirrors by size - 1 pixels on both sides, and doubles the resolution with the sym6 filter.

    Returns:
        [2 * (3 * size - 2), size]. Row i lies at pixel i / 2 - (size - 1), up to the filter's phase: sym6 is
        not quite symmetric, and its centre of mass comes 0.05 pixels later.
    """
    margin = size - 1
    taps = _unit_sum(SYM6)[::-1] * 2  # reversed, so that row i correlates; times 2 for the inserted zeros
    matrix = np.zeros([2 * (size + 2 * margin), size])
    for pixel in range(-margin, size + margin):
        column = mirror(pixel, size)
        centre = 2 * (pixel + margin) + 6  # the pixel's place after 6 columns of padding
        for k, tap in enumerate(taps):
            if 0 <= centre - k < len(matrix):
                matrix[centre - k, column] += tap
    return _constant(matrix, dtype, device)


@lru_cache(maxsize=16)
def downsampling(size: int, dtype: torch.dtype, device: torch.device) -> BandedMatrix:
    """Undoes the doubling: the reversed sym6 filter, every second sample, less 3 pixels at either end.

    Returns:
        [size, 2 * (size + 6)]. Column i lies at pixel i / 2 - 3.
    """
    taps = _unit_sum(SYM6)
    matrix = np.zeros([size, 2 * (size + 6)])
    for row in range(size):
        matrix[row, 2 * row + 1 : 2 * row + 1 + len(taps)] = taps
    return _constant(matrix, dtype, device)


@lru_cache(maxsize=16)
def band_filters(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zero-phase filters that split an axis into frequency bands, lowest first; their sum is the identity.

    Returns:
        [NUM_BANDS, size, size]. The image goes on mirrored beyond its edges, as often as the filter's length
        needs.

    Source: Karras et al. 2020, arXiv:2006.06676, Appendix B (filter bank of the sym2 wavelet).
    """
    taps = band_taps()
    reach = taps.shape[1] // 2
    matrix = np.zeros([NUM_BANDS, size, size])
    for row in range(size):
        for k in range(taps.shape[1]):
            matrix[:, row, mirror(row + k - reach, size)] += taps[:, k]
    with torch.inference_mode(False):  # a cached inference tensor could not take part in autograd later
        return torch.from_numpy(matrix).to(device=device, dtype=dtype)


def band_taps() -> np.ndarray:
    """[NUM_BANDS, 43] float64: taps of the band filters, centred and symmetric.

    With L(z) = H(z) H(1/z) / 2 for the sym2 scaling filter H, and its mirror image L(-z) = 1 - L(z), the
    bands are L(z) L(z^2) L(z^4), L(z) L(z^2) L(-z^4), L(z) L(-z^2) and L(-z): low to high, in octaves.
    """
    low = np.convolve(SYM2, SYM2[::-1]) / 2
    high = low * (-1.0) ** (np.arange(len(low)) - len(low) // 2)
    rest, bands = np.ones(1), []
    for octave in range(NUM_BANDS - 1):
        bands.append(np.convolve(rest, _dilate(high, 2**octave)))
        rest = np.convolve(rest, _dilate(low, 2**octave))
    bands.append(rest)
    return np.stack([np.pad(band, (len(rest) - len(band)) // 2) for band in reversed(bands)])


def mirror(pixel: int, size: int) -> int:
    """The pixel seen at index `pixel` of an axis with mirrors at the centres of its first and last pixel."""
    period = max(2 * (size - 1), 1)
    pixel %= period
    return min(pixel, period - pixel) if size > 1 else 0


def _unit_sum(taps: tuple[float, ...]) -> np.ndarray:
    return np.asarray(taps) / np.sum(taps)


def _dilate(taps: np.ndarray, factor: int) -> np.ndarray:
    """H(z) -> H(z^factor)."""
    out = np.zeros((len(taps) - 1) * factor + 1)
    out[::factor] = taps
    return out


def _constant(matrix: np.ndarray, dtype: torch.dtype, device: torch.device) -> BandedMatrix:
    with torch.inference_mode(False):  # a cached inference tensor could not take part in autograd later
        return BandedMatrix.of(matrix, dtype, device)
