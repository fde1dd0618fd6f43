# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The Inception network of the FID: its features and logits, computed in a quicker but equal order.

The published layers are a convolution, batch norm and ReLU each. Here batch norms are folded into the convolutions,
and those of a block that read the same input are joined into one. An average pool commutes with a 1x1 convolution,
so it follows the one that it comes before in the paper, and has fewer channels to go through.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ggdr.metrics.batch_norm import fold_batch_norm, folded_shapes
from ggdr.metrics.detector import Detector
from ggdr.metrics.detectors import DetectorFiles
from ggdr.metrics.resize import INPUT_SIZE, prepare
from ggdr.metrics.weights import NO_WEIGHTS_HINT, load_weights
from ggdr.torch_utils.downloads import WeightsFile, find_hashed
from ggdr.torch_utils.ops.bias_act import bias_act
from ggdr.torch_utils.ops.cpu.conv3x3 import conv3x3

INCEPTION_FILE = WeightsFile(
    name="pt_inception-2015-12-05-6726825d.pth",
    urls=(
        "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
        "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
    ),
    sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    size=95_628_359,
    what="the Inception network of the FID",
    by_hand="give its path with --inception FILE",
    hint=NO_WEIGHTS_HINT,
    aliases=("weights-inception-2015-12-05-6726825d.pth",),
)

POOL_DIM, LOGITS_DIM = 2048, 1008


class InceptionFeatures(NamedTuple):
    pool: Tensor  # [N, 2048] float32, averages after ReLU
    logits: Tensor  # [N, 1008] float32, without the bias


class Conv(nn.Module):
    """Published layers that read the same input, as one convolution, and ReLU.

    Args:
        layers:   their names, and how many channels each has.
        padded:   whether zeros around the image keep its size.
        relu:     False leaves ReLU to the caller.
        max_pool: a max pool follows; it comes before the bias, which then meets a quarter of the pixels.
        winograd: whether a 3x3 layer of stride 1, with ReLU, is quicker so on a CPU.
    """

    def __init__(
        self,
        c_in: int,
        layers: Mapping[str, int],
        kernel: int | tuple[int, int] = 1,
        *,
        stride: int = 1,
        padded: bool = True,
        relu: bool = True,
        max_pool: bool = False,
        winograd: bool = False,
    ) -> None:
        super().__init__()
        self.c_in, self.layers, self.stride, self.padded = c_in, dict(layers), stride, padded
        self.relu, self.max_pool, self.winograd = relu, max_pool, winograd
        self.kernel = (kernel, kernel) if isinstance(kernel, int) else kernel
        self.register_buffer("weight", torch.empty(sum(layers.values()), c_in, *self.kernel))
        self.register_buffer("bias", torch.empty(sum(layers.values())))

    def forward(self, x: Tensor) -> Tensor:
        if self.winograd and x.device.type == "cpu":
            x = conv3x3(x, self.weight, padding=int(self.padded))
            if self.max_pool:
                x = F.max_pool2d(x, 3, stride=2)
            return bias_act(x, self.bias, act="relu", gain=1)
        padding = tuple(k // 2 for k in self.kernel) if self.padded else 0
        x = F.conv2d(x, self.weight, self.bias, self.stride, padding)
        if self.max_pool:
            x = F.max_pool2d(x, 3, stride=2)
        return x.relu_() if self.relu else x

    def split(self, x: Tensor) -> tuple[Tensor, ...]:
        """The outputs of the published layers."""
        return self(x).split(list(self.layers.values()), dim=1)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the published tensors."""
        found: dict[str, tuple[int, ...]] = {}
        for name, c_out in self.layers.items():
            found |= folded_shapes(f"{name}.conv", f"{name}.bn", (c_out, self.c_in, *self.kernel))
        return found

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Folds the published tensors."""
        folded = [fold_batch_norm(tensors, f"{name}.conv", f"{name}.bn") for name in self.layers]
        weights, biases = zip(*folded, strict=True)
        self.weight.copy_(torch.cat(weights))
        self.bias.copy_(torch.cat(biases))


def _conv(c_in: int, name: str, c_out: int, kernel: int | tuple[int, int], **settings: bool | int) -> Conv:
    return Conv(c_in, {name: c_out}, kernel, **settings)


def _join(*branches: Tensor) -> Tensor:
    """Channels of all branches, after ReLU; those that have been through it do not change."""
    return torch.cat(branches, dim=1).relu_()


def _average(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


class BlockA(nn.Module):
    """[N, C, 35, 35] -> [N, 224 + pool, 35, 35]"""

    def __init__(self, c_in: int, pool: int) -> None:
        super().__init__()
        first = {"branch1x1": 64, "branch5x5_1": 48, "branch3x3dbl_1": 64, "branch_pool": pool}
        self.first = Conv(c_in, first, relu=False)
        self.conv5x5 = _conv(48, "branch5x5_2", 64, 5)
        self.conv3x3 = nn.Sequential(
            _conv(64, "branch3x3dbl_2", 96, 3, winograd=True), _conv(96, "branch3x3dbl_3", 96, 3, winograd=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        direct, to_5x5, to_3x3, pool = self.first.split(x)
        return _join(direct, self.conv5x5(to_5x5.relu()), self.conv3x3(to_3x3.relu()), _average(pool))


class BlockB(nn.Module):
    """[N, 288, 35, 35] -> [N, 768, 17, 17]"""

    def __init__(self) -> None:
        super().__init__()
        self.conv3x3 = _conv(288, "branch3x3", 384, 3, stride=2, padded=False)
        self.twice = nn.Sequential(
            _conv(288, "branch3x3dbl_1", 64, 1),
            _conv(64, "branch3x3dbl_2", 96, 3, winograd=True),
            _conv(96, "branch3x3dbl_3", 96, 3, stride=2, padded=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.conv3x3(x), self.twice(x), F.max_pool2d(x, 3, stride=2)], dim=1)


class BlockC(nn.Module):
    """[N, 768, 17, 17] -> the same shape"""

    def __init__(self, c7: int) -> None:
        super().__init__()
        row, column = (1, 7), (7, 1)
        self.first = Conv(
            768, {"branch1x1": 192, "branch7x7_1": c7, "branch7x7dbl_1": c7, "branch_pool": 192}, relu=False
        )
        self.conv7x7 = nn.Sequential(_conv(c7, "branch7x7_2", c7, row), _conv(c7, "branch7x7_3", 192, column))
        self.twice = nn.Sequential(
            _conv(c7, "branch7x7dbl_2", c7, column),
            _conv(c7, "branch7x7dbl_3", c7, row),
            _conv(c7, "branch7x7dbl_4", c7, column),
            _conv(c7, "branch7x7dbl_5", 192, row),
        )

    def forward(self, x: Tensor) -> Tensor:
        direct, to_7x7, to_twice, pool = self.first.split(x)
        return _join(direct, self.conv7x7(to_7x7.relu()), self.twice(to_twice.relu()), _average(pool))


class BlockD(nn.Module):
    """[N, 768, 17, 17] -> [N, 1280, 8, 8]"""

    def __init__(self) -> None:
        super().__init__()
        self.first = Conv(768, {"branch3x3_1": 192, "branch7x7x3_1": 192}, relu=False)
        self.conv3x3 = _conv(192, "branch3x3_2", 320, 3, stride=2, padded=False)
        self.conv7x7x3 = nn.Sequential(
            _conv(192, "branch7x7x3_2", 192, (1, 7)),
            _conv(192, "branch7x7x3_3", 192, (7, 1)),
            _conv(192, "branch7x7x3_4", 192, 3, stride=2, padded=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        to_3x3, to_7x7x3 = self.first.split(x)
        branches = self.conv3x3(to_3x3.relu()), self.conv7x7x3(to_7x7x3.relu()), F.max_pool2d(x, 3, stride=2)
        return torch.cat(branches, dim=1)


class BlockE(nn.Module):
    """[N, C, 8, 8] -> [N, 2048, 8, 8]; the last one takes maxima where all others average."""

    def __init__(self, c_in: int, *, max_pool: bool) -> None:
        super().__init__()
        first = {"branch1x1": 320, "branch3x3_1": 384, "branch3x3dbl_1": 448}
        self.first = Conv(c_in, first if max_pool else first | {"branch_pool": 192}, relu=False)
        self.pool = _conv(c_in, "branch_pool", 192, 1) if max_pool else None
        self.conv3x3 = _conv(448, "branch3x3dbl_2", 384, 3)
        row, column = (1, 3), (3, 1)
        self.fork = nn.ModuleList([_conv(384, "branch3x3_2a", 384, row), _conv(384, "branch3x3_2b", 384, column)])
        self.fork2 = nn.ModuleList(
            [_conv(384, "branch3x3dbl_3a", 384, row), _conv(384, "branch3x3dbl_3b", 384, column)]
        )

    def forward(self, x: Tensor) -> Tensor:
        direct, forked, to_3x3, *pool = self.first.split(x)
        forked, forked2 = forked.relu(), self.conv3x3(to_3x3.relu())
        pooled = _average(pool[0]) if self.pool is None else self.pool(F.max_pool2d(x, 3, stride=1, padding=1))
        forks = [conv(forked) for conv in self.fork] + [conv(forked2) for conv in self.fork2]
        return _join(direct, *forks, pooled)


class InceptionV3(nn.Module):
    """The network of the TensorFlow graph of 2015-12-05, without weights.

    Average pools leave the padding out; the last block has a max pool instead.

    Sources: Szegedy et al. 2015, arXiv:1512.00567; Heusel et al. 2017, arXiv:1706.08500.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            _conv(3, "Conv2d_1a_3x3", 32, 3, stride=2, padded=False),
            _conv(32, "Conv2d_2a_3x3", 32, 3, padded=False, winograd=True),
            _conv(32, "Conv2d_2b_3x3", 64, 3, max_pool=True, winograd=True),
            _conv(64, "Conv2d_3b_1x1", 80, 1),
            _conv(80, "Conv2d_4a_3x3", 192, 3, padded=False, max_pool=True, winograd=True),
        )
        self.blocks = nn.Sequential()
        for name, block in {
            "Mixed_5b": BlockA(192, pool=32),
            "Mixed_5c": BlockA(256, pool=64),
            "Mixed_5d": BlockA(288, pool=64),
            "Mixed_6a": BlockB(),
            "Mixed_6b": BlockC(128),
            "Mixed_6c": BlockC(160),
            "Mixed_6d": BlockC(160),
            "Mixed_6e": BlockC(192),
            "Mixed_7a": BlockD(),
            "Mixed_7b": BlockE(1280, max_pool=False),
            "Mixed_7c": BlockE(2048, max_pool=True),
        }.items():
            self.blocks.add_module(name, block)
        self.register_buffer("fc_weight", torch.empty(LOGITS_DIM, POOL_DIM))

    def forward(self, x: Tensor) -> InceptionFeatures:
        """Features of images float32 [N, 3, 299, 299], as `ggdr.metrics.resize.prepare` makes them.

        Raises:
            ValueError: another type or shape.
        """
        if x.dtype != torch.float32 or tuple(x.shape[1:]) != (3, INPUT_SIZE, INPUT_SIZE):
            raise ValueError(f"expected float32 [N, 3, {INPUT_SIZE}, {INPUT_SIZE}], got {x.dtype} {tuple(x.shape)}")
        if x.device.type == "cpu":
            x = x.contiguous(memory_format=torch.channels_last)
        pool = self.blocks(self.stem(x)).mean([2, 3])
        return InceptionFeatures(pool, pool @ self.fc_weight.T)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the published tensors."""
        found: dict[str, tuple[int, ...]] = {"fc.weight": (LOGITS_DIM, POOL_DIM), "fc.bias": (LOGITS_DIM,)}
        for prefix, conv in self._convolutions():
            found |= {prefix + name: shape for name, shape in conv.shapes().items()}
        return found

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes the published tensors, float32, with these shapes."""
        self.fc_weight.copy_(tensors["fc.weight"])
        for prefix, conv in self._convolutions():
            conv.load({name: tensors[prefix + name] for name in conv.shapes()})

    def _convolutions(self) -> Iterator[tuple[str, Conv]]:
        """All convolutions, each with what the published names of its layers begin with."""
        yield from (("", conv) for conv in self.stem)
        for name, block in self.blocks.named_children():
            for conv in block.modules():
                if isinstance(conv, Conv):
                    yield f"{name}.", conv


def load_inception(path: str | Path, device: torch.device | str = "cpu") -> InceptionV3:
    """The network with the weights of a file of the published format, in evaluation mode.

    Raises:
        WeightsError: the file cannot be read, or holds other tensors.
    """
    net = InceptionV3()
    net.load(load_weights(Path(path), net.shapes(), what=INCEPTION_FILE.what, ignored=r"\.num_batches_tracked$"))
    if torch.device(device).type == "cpu":
        net.to(memory_format=torch.channels_last)
    return net.to(device).eval()


def load_detector(files: DetectorFiles) -> Detector:
    """The detector of the FID, with logits, resized as the mode says."""
    path, sha256 = find_hashed(INCEPTION_FILE, files.path("inception"))
    net = load_inception(path, files.device)

    def extract(x: Tensor) -> Mapping[str, Tensor]:
        out = net(x)
        return {"features": out.pool, "logits": out.logits}

    resize = f"{files.mode.resize} to {INPUT_SIZE}x{INPUT_SIZE}, {files.mode.normalise}"
    return Detector("inception", sha256[:16], resize, extract, lambda images_u8: prepare(images_u8, files.mode))
