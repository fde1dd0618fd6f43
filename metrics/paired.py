# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Measures of single images: how near one is to the image it should be, and how colourful it is.

All take 8-bit images, as files hold them, and compute in float64. Of a set of images metrics report the mean.
"""

from __future__ import annotations

import hashlib

import torch
import torch.nn.functional as F
from torch import Tensor

from ggdr.metrics.detector import Detector
from ggdr.metrics.detectors import DetectorFiles
from ggdr.metrics.lpips import LPIPS_MIN_SIZE

MAX_LEVEL = 255  # of 8 bits
SSIM_WINDOW, SSIM_SIGMA = 11, 1.5  # pixels
SSIM_K1, SSIM_K2 = 0.01, 0.03
VERSION = "paired-v1"


def mean_absolute_error(a: Tensor, b: Tensor) -> Tensor:
    """Mean |difference| of two images' values, as values of [-1, 1]: the L1 distance that pix2pix trains with.

    Args:
        a: [N, C, H, W] uint8.
        b: the same.

    Returns:
        [N] float64 in [0, 2]; one grey level is 1 / 127.5.

    Raises:
        ValueError: another type, or shapes that differ.
    """
    _check_pair(a, b)
    return (a.double() - b.double()).abs().flatten(1).mean(1) / (MAX_LEVEL / 2)


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of two images: 10 log10(255^2 / mean squared difference).

    Args:
        a: [N, C, H, W] uint8.
        b: the same.

    Returns:
        [N] float64 in dB, at least 0; infinite where two images are the same. See `highest_psnr`.

    Raises:
        ValueError: another type, or shapes that differ.
    """
    _check_pair(a, b)
    return 10 * torch.log10(MAX_LEVEL**2 / (a.double() - b.double()).square().flatten(1).mean(1))


def highest_psnr(num_values: int) -> float:
    """The PSNR, in dB, of images of so many values (C x H x W) of which one differs, by one level.

    No two different images have a higher one. It counts for equal images in a mean, which else were infinite: 83 dB at
    3x32x32, 101 dB at 3x256x256.
    """
    return 10 * torch.log10(torch.tensor(MAX_LEVEL**2 * num_values, dtype=torch.float64)).item()


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity of two images: of each channel by itself, and the mean over channels and pixels.

    Means, variances (divided by N) and covariances are weighted with a Gaussian of 11x11 pixels and sigma 1.5, where
    that lies wholly on the image.

    Args:
        a: [N, C, H, W] uint8, at least 11x11.
        b: the same.

    Returns:
        [N] float64 in [-1, 1]; 1 where two images are the same.

    Raises:
        ValueError: another type, a smaller size, or shapes that differ.

    Source: Wang et al. 2004, "Image quality assessment: from error visibility to structural similarity", Eq. (13),
    with its constants K1 = 0.01, K2 = 0.03.
    """
    _check_pair(a, b)
    if min(a.shape[2:]) < SSIM_WINDOW:
        raise ValueError(f"SSIM needs images of at least {SSIM_WINDOW}x{SSIM_WINDOW}, got {list(a.shape)}")
    x, y = a.double(), b.double()
    mean_x, mean_y = _windowed(x), _windowed(y)
    var_x, var_y = _windowed(x * x) - mean_x**2, _windowed(y * y) - mean_y**2
    cov = _windowed(x * y) - mean_x * mean_y
    c1, c2 = (SSIM_K1 * MAX_LEVEL) ** 2, (SSIM_K2 * MAX_LEVEL) ** 2
    similarity = (2 * mean_x * mean_y + c1) * (2 * cov + c2) / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
    return similarity.flatten(1).mean(1)


def colourfulness(images_u8: Tensor) -> Tensor:
    """How colourful images are: 0 for grey ones; about 15 slightly, 45 quite, 109 extremely colourful.

    Args:
        images_u8: [N, 3, H, W] uint8, RGB.

    Returns:
        [N] float64, at least 0.

    Raises:
        ValueError: another type or number of channels.

    Source: Hasler and Suesstrunk 2003, "Measuring colourfulness in natural images", M^(3).
    """
    if images_u8.dtype != torch.uint8 or images_u8.ndim != 4 or images_u8.shape[1] != 3:
        raise ValueError(f"images must be uint8 [N, 3, H, W], got {images_u8.dtype} {list(images_u8.shape)}")
    red, green, blue = images_u8.double().flatten(2).unbind(1)
    opponent = torch.stack([red - green, (red + green) / 2 - blue])
    spread = opponent.var(dim=2, unbiased=False).sum(0).sqrt()
    return spread + 0.3 * opponent.mean(2).square().sum(0).sqrt()


def load_pairs_detector(files: DetectorFiles) -> Detector:
    """Features [N, 2] of images and what they should be, beside each other in channels: mean error and PSNR."""
    return _detector("pairs", lambda images_u8: _errors(*_side_by_side(images_u8, 0)), all_channels=True)


def load_cycle_detector(files: DetectorFiles) -> Detector:
    """The same of images that came back from their translation, and the ones they were: the last six channels."""
    return _detector("cycle", lambda images_u8: _errors(*_side_by_side(images_u8, -6)), all_channels=True)


def load_ssim_detector(files: DetectorFiles) -> Detector:
    """Features [N, 1] of images and what they should be: their SSIM."""
    return _detector(
        "ssim", lambda images_u8: ssim(*_side_by_side(images_u8, 0))[:, None], min_size=SSIM_WINDOW, all_channels=True
    )


def load_colour_detector(files: DetectorFiles) -> Detector:
    """Features [N, 1] of images: how colourful they are."""
    return _detector("colour", lambda images_u8: colourfulness(images_u8)[:, None])


def load_lpips_detector(files: DetectorFiles) -> Detector:
    """Features [N, 1] of images and what they should be: their LPIPS."""
    distance = files.get("lpips")

    def measure(images_u8: Tensor) -> Tensor:
        return distance(*(x.float() / 127.5 - 1 for x in _side_by_side(images_u8, 0)))[:, None]

    return _detector(distance.name, measure, distance.hash, min_size=LPIPS_MIN_SIZE, all_channels=True)


def _detector(name: str, measure, weights_hash: str | None = None, **options) -> Detector:
    """A detector of images as they are; a formula's hash is that of its name and version."""
    shown = weights_hash or hashlib.sha256(f"{VERSION} {name}".encode()).hexdigest()[:16]
    return Detector(name, shown, "not resized", lambda images_u8: {"features": measure(images_u8).float()}, **options)


def _errors(a: Tensor, b: Tensor) -> Tensor:
    """[N, 2] float64: mean absolute error, and PSNR, of equal images the highest that there is."""
    highest = highest_psnr(a[0].numel())
    return torch.stack([mean_absolute_error(a, b), psnr(a, b).clamp(max=highest)], dim=1)


def _side_by_side(images_u8: Tensor, start: int) -> tuple[Tensor, Tensor]:
    """Two images of three channels that follow each other from a channel on."""
    first = start % images_u8.shape[1]
    return images_u8[:, first : first + 3], images_u8[:, first + 3 : first + 6]


def _windowed(x: Tensor) -> Tensor:
    """Means weighted with SSIM's window: [N, C, H, W] -> [N, C, H - 10, W - 10]."""
    at = torch.arange(SSIM_WINDOW, dtype=x.dtype, device=x.device) - SSIM_WINDOW // 2
    window = torch.exp(-(at**2) / (2 * SSIM_SIGMA**2))
    window = window / window.sum()
    planes = x.flatten(0, 1)[:, None]
    blurred = F.conv2d(F.conv2d(planes, window.view(1, 1, -1, 1)), window.view(1, 1, 1, -1))
    return blurred.view(*x.shape[:2], *blurred.shape[2:])


def _check_pair(a: Tensor, b: Tensor) -> None:
    """ValueError unless both are 8-bit images of one shape."""
    if not a.dtype == b.dtype == torch.uint8 or a.shape != b.shape or a.ndim != 4:
        raise ValueError(
            f"images must be uint8 [N, C, H, W] of one shape, got {a.dtype} {list(a.shape)} and "
            f"{b.dtype} {list(b.shape)}"
        )
