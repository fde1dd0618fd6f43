# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""LPIPS: a distance between images that was fitted to what people say."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from ggdr.metrics.detector import PairDistance
from ggdr.metrics.detectors import DetectorFiles
from ggdr.metrics.vgg import STAGES, VGG16_FILE, ConvStages, load_into, normalise, shapes_of
from ggdr.metrics.weights import NO_WEIGHTS_HINT, load_weights
from ggdr.torch_utils.downloads import WeightsFile, find_hashed

LPIPS_FILE = WeightsFile(
    name="lpips-vgg-v0.1-a78928a0.pth",
    urls=("https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/master/lpips/weights/v0.1/vgg.pth",),
    sha256="a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
    size=7289,
    what="the linear layers of LPIPS (VGG, v0.1)",
    by_hand="give its path with --lpips FILE",
    hint=NO_WEIGHTS_HINT,
)

# ImageNet's mean and deviation, as LPIPS rounds them, for images in [-1, 1].
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
LPIPS_MIN_SIZE = 16  # pixels: the last stage sees one of them
EPS = 1e-10  # added to the norm of a pixel's features


class LPIPS(nn.Module):
    """LPIPS v0.1 on VGG16, without weights.

    Source: Zhang et al. 2018, arXiv:1801.03924, Eq. (1).
    """

    def __init__(self) -> None:
        super().__init__()
        self.features = ConvStages()
        self.linear = nn.ParameterList([torch.empty(1, stage[-1][0], 1, 1) for stage in STAGES])

    def forward(self, img0: Tensor, img1: Tensor) -> Tensor:
        """Distances between images, pair by pair.

        Args:
            img0: [N, 3, H, W] float32 in [-1, 1], of at least 16x16 pixels.
            img1: the same.

        Returns:
            [N] float32, at least 0.

        Raises:
            ValueError: the shapes or types differ or are others.
        """
        if img0.shape != img1.shape or img0.ndim != 4 or img0.shape[1] != 3 or min(img0.shape[2:]) < LPIPS_MIN_SIZE:
            raise ValueError(
                f"images must be [N, 3, H, W] of at least {LPIPS_MIN_SIZE}x{LPIPS_MIN_SIZE}, "
                f"got {list(img0.shape)} and {list(img1.shape)}"
            )
        if not img0.dtype == img1.dtype == torch.float32:
            raise ValueError(f"images must be float32 in [-1, 1], got {img0.dtype} and {img1.dtype}")
        distances = img0.new_zeros([len(img0)])
        maps = self.features(normalise(torch.cat([img0, img1]), SHIFT, SCALE))
        for feat, weight in zip(maps, self.linear, strict=True):
            feat0, feat1 = (feat / (feat.square().sum(1, keepdim=True).sqrt() + EPS)).chunk(2)
            distances += ((feat0 - feat1).square_() * weight).sum(1).mean([1, 2])
        return distances


def load_lpips(vgg: str | Path, linear: str | Path, device: torch.device | str = "cpu") -> LPIPS:
    """LPIPS with the weights of VGG16, a file of torchvision's format, and of its own linear layers.

    Raises:
        WeightsError: a file cannot be read, or holds other tensors.
    """
    with torch.device("meta"):
        net = LPIPS()
    of_vgg = {name: shape for name, shape in shapes_of(net).items() if name.startswith("features.")}
    own = {f"lin{i}.model.1.weight": tuple(weight.shape) for i, weight in enumerate(net.linear)}
    tensors = load_weights(Path(vgg), of_vgg, what=VGG16_FILE.what, ignored=r"^classifier\.")
    weights = load_weights(Path(linear), own, what=LPIPS_FILE.what)
    load_into(net, tensors | {f"linear.{i}": weight for i, weight in enumerate(weights.values())}, device)
    return net


def load_detector(files: DetectorFiles) -> PairDistance:
    """The distance of path lengths."""
    vgg, vgg_hash = find_hashed(VGG16_FILE, files.path("vgg"))
    linear, linear_hash = find_hashed(LPIPS_FILE, files.path("lpips"))
    return PairDistance("lpips-vgg", f"{vgg_hash[:8]}{linear_hash[:8]}", load_lpips(vgg, linear, files.device))
