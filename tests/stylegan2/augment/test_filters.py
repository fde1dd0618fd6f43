# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The wavelets' coefficients by the conditions that define them, and the matrices made of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ggdr.stylegan2.augment.filters import (
    SYM2,
    SYM6,
    _mirrored_in_order,
    band_filters,
    band_taps,
    downsample,
    mirror,
    upsample_mirrored,
)
from ggdr.torch_utils.ops.upfirdn2d import upfirdn2d

F64, CPU = torch.float64, torch.device("cpu")


@pytest.mark.parametrize(("taps", "moments"), [(SYM2, 2), (SYM6, 6)])
def test_scaling_filters_are_orthonormal_with_all_their_vanishing_moments(taps, moments):
    h = np.asarray(taps)
    assert len(h) == 2 * moments
    for shift in range(moments):
        product = h[: len(h) - 2 * shift] @ h[2 * shift :]
        assert product == pytest.approx(float(shift == 0), abs=1e-10)
    wavelet = h * (-1.0) ** np.arange(len(h))
    for moment in range(moments):
        scale = len(h) ** moment
        assert wavelet @ np.arange(len(h)) ** moment / scale == pytest.approx(0, abs=1e-10)


def test_bands_add_up_to_the_image_and_split_the_frequencies_in_octaves():
    taps = band_taps()
    assert taps.shape == (4, 43)
    torch.testing.assert_close(band_filters(16, F64, CPU).sum(dim=0), torch.eye(16, dtype=F64))
    np.testing.assert_allclose(taps, taps[:, ::-1], atol=1e-12)
    response = np.abs(np.fft.rfft(taps, 512))
    centres = [0, 3 / 16, 3 / 8, 1]  # the middle of each octave, in units of half the sampling rate
    for band, centre in enumerate(centres):
        assert response[:, round(centre * 256)].argmax() == band
    np.testing.assert_allclose(response[:, 0], [1, 0, 0, 0], atol=1e-10)


@pytest.mark.parametrize("size", [8, 16, 33])
def test_downsampling_undoes_upsampling(size):
    x = torch.randn(1, 1, size, size, dtype=F64)
    rows = 2 * (size - 1) - 6, 2 * (2 * size - 1) + 6  # the image and 3 pixels around it
    torch.testing.assert_close(downsample(upsample_mirrored(x, rows, rows)), x, atol=1e-10, rtol=0)


@pytest.mark.parametrize("size", [8, 21])
def test_every_part_of_the_upsampled_image_is_what_the_whole_has_there(size):
    f = torch.tensor(SYM6, dtype=F64) / sum(SYM6)
    x = torch.randn(2, 1, size, size + 2, dtype=F64)
    padded = torch.nn.functional.pad(x, [size + 1] * 2 + [size - 1] * 2, mode="reflect")
    whole = upfirdn2d(padded, f, up=2, padding=(6, 5, 6, 5), gain=4)
    height, width = whole.shape[2:]
    torch.testing.assert_close(upsample_mirrored(x, (0, width), (0, height)), whole)
    for start in range(0, height - 2, 3):
        for stop in range(start + 2, height, 5):
            part = upsample_mirrored(x, (width - stop, width - start), (start, stop))
            torch.testing.assert_close(part, whole[:, :, start:stop, width - stop : width - start])


def test_mirroring_in_order_is_padding_and_has_its_gradient():
    x = torch.randn(2, 3, 5, 7, dtype=F64, requires_grad=True)
    expected = torch.nn.functional.pad(x, (6, 2, 0, 4), mode="reflect")
    got, direction = _mirrored_in_order(x, (6, 2), (0, 4)), torch.randn_like(expected)
    assert torch.equal(got, expected)
    grads = [torch.autograd.grad((y * direction).sum(), x)[0] for y in (got, expected)]
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("size", [8, 100])
def test_downsampling_drops_three_pixels_at_each_end(size):
    f = torch.tensor(SYM6, dtype=F64) / sum(SYM6)
    wide = torch.randn(2, 1, 2 * (size + 6), 2 * (size + 6), dtype=F64)
    expected = upfirdn2d(wide, f, down=2, padding=5, flip_filter=True)[:, :, 3:-3, 3:-3]
    torch.testing.assert_close(downsample(wide), expected)


def test_mirror_repeats_for_any_reach():
    assert [mirror(i, 4) for i in range(-7, 8)] == [1, 0, 1, 2, 3, 2, 1, 0, 1, 2, 3, 2, 1, 0, 1]
    assert {mirror(i, 1) for i in range(-3, 4)} == {0}
