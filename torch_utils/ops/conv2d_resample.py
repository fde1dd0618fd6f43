# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""2-D convolution with built-in FIR up- or downsampling."""

from __future__ import annotations

from torch import Tensor

from ggdr.torch_utils.ops.convolution import conv2d
from ggdr.torch_utils.ops.cpu.conv3x3 import conv3x3, conv3x3_up
from ggdr.torch_utils.ops.upfirdn2d import downsample2d, upfirdn2d, upsample2d


def conv2d_resample(x: Tensor, w: Tensor, f: Tensor | None = None, *, up: int = 1, down: int = 1) -> Tensor:
    """Convolves with "same" padding, upsampling before or downsampling after in the sense of sampling theory.

    A strided or transposed convolution does the resampling, so that no arithmetic is spent on zeros or on
    pixels that are dropped.

    Args:
        x:    [N, Cin, H, W].
        w:    [Cout, Cin, k, k], k 1 or 3, float32 or the type of `x`, to which it is cast. Correlation if up = 1;
              convolution (taps flipped) if up = 2, as StyleGAN2's weights are stored.
        f:    FIR filter [n, n]; needed if up or down is 2.
        up:   1 or 2.
        down: 1 or 2; not together with up.

    Returns:
        [N, Cout, H*up//down, W*up//down].
    """
    k = w.shape[-1]
    assert up in (1, 2) and down in (1, 2) and up * down <= 2 and k in (1, 3)
    if k == 1:
        w = w.to(x.dtype)
        if up == 2:
            return upsample2d(conv2d(x, w), f)
        return conv2d(downsample2d(x, f) if down == 2 else x, w)
    if up == 2:
        # The transposed convolution gives (2H+1)x(2W+1); the filter brings it back to 2Hx2W.
        x = conv3x3_up(x, w.transpose(0, 1))
        pad = (f.shape[-1] - 2) // 2, (f.shape[-1] - 1) // 2
        return upfirdn2d(x, f, padding=(*pad, *pad), gain=4.0)
    if down == 2:
        pad = (f.shape[-1] - 1) // 2 + 1, (f.shape[-1] - 2) // 2 + 1
        return conv3x3(upfirdn2d(x, f, padding=(*pad, *pad)), w, stride=2)
    return conv3x3(x, w, padding=1)
