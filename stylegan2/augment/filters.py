# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""FIR filters of the augmentations: 2x resampling, and filtering in frequency bands.

Each filter runs along one axis after the other, and differentiates any number of times.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ggdr.stylegan2.augment.config import NUM_BANDS
from ggdr.torch_utils.ops.upfirdn2d import upfirdn2d

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
_REACH = len(SYM6) // 2  # samples of the doubled axis to either side that a sample depends on


def upsample_mirrored(img: Tensor, columns: tuple[int, int], rows: tuple[int, int]) -> Tensor:
    """Mirrors by size - 1 pixels on all sides, doubles the resolution with the sym6 filter, and takes a part of it.

    Row i of all the result lies at pixel i / 2 - (size - 1), up to the filter's phase: sym6 is not quite symmetric,
    and its centre of mass comes 0.05 pixels later. No more is computed than the part needs.

    Args:
        img:     [N, C, H, W] float32 or float64.
        columns: first and last + 1, from 0 to 2 * (3 * W - 2).
        rows:    first and last + 1, from 0 to 2 * (3 * H - 2).

    Returns:
        [N, C, rows, columns].
    """
    mirror_x, pad_x = _paddings(img.shape[3], *columns)
    mirror_y, pad_y = _paddings(img.shape[2], *rows)
    if torch.are_deterministic_algorithms_enabled() and img.device.type != "cpu":
        img = _mirrored_in_order(img, mirror_x, mirror_y)
    else:
        img = F.pad(img, (*mirror_x, *mirror_y), mode="reflect")
    return upfirdn2d(img, _sym6(img.dtype, img.device), up=2, padding=(*pad_x, *pad_y), gain=4.0)


def downsample(img: Tensor) -> Tensor:
    """Undoes the doubling: the reversed sym6 filter, every second sample, less 3 pixels at each end.

    Args:
        img: [N, C, 2 * (H + 6), 2 * (W + 6)]. Its column i lies at pixel i / 2 - 3 of the result.

    Returns:
        [N, C, H, W].
    """
    return upfirdn2d(img, _sym6(img.dtype, img.device), down=2, padding=_REACH - 1 - 2 * 3, flip_filter=True)


def _mirrored_in_order(img: Tensor, columns: tuple[int, int], rows: tuple[int, int]) -> Tensor:
    """Mirrored pixels before and behind an image, with a gradient that is added up in always the same order.

    That of torch's padding adds with atomics on a GPU; that of indexing does not in the mode for this.
    """
    for dim, (before, behind) in ((3, columns), (2, rows)):
        size = img.shape[dim]
        seen = [mirror(pixel, size) for pixel in range(-before, size + behind)]
        img = img.index_select(dim, torch.tensor(seen, device=img.device))
    return img


def _paddings(size: int, start: int, stop: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Mirrored pixels before and behind an axis, and what upfirdn2d is to pad (crop, where negative) to get a part."""
    margin = size - 1
    # What samples start to stop depend on, in pixels of the axis.
    first, last = (start - _REACH) // 2 - margin, (stop + _REACH - 2) // 2 - margin
    before, behind = (min(max(reach, 0), margin) for reach in (-first, last - margin))
    pad = _REACH - start + 2 * (margin - before)
    length = 2 * (before + size + behind)
    return (before, behind), (pad, stop - start + len(SYM6) - 1 - pad - length)


@lru_cache(maxsize=16)
def _sym6(dtype: torch.dtype, device: torch.device) -> Tensor:
    """[12] of sum 1, to run along both axes."""
    taps = np.asarray(SYM6) / np.sum(SYM6)
    with torch.inference_mode(False):  # a cached inference tensor could not take part in autograd later
        return torch.from_numpy(taps).to(device=device, dtype=dtype)


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


def _dilate(taps: np.ndarray, factor: int) -> np.ndarray:
    """H(z) -> H(z^factor)."""
    out = np.zeros((len(taps) - 1) * factor + 1)
    out[::factor] = taps
    return out
