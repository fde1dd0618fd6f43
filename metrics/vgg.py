# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""VGG16 for images of ImageNet, whose features precision and recall are measured on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ggdr.metrics.detector import Detector
from ggdr.metrics.detectors import DetectorFiles
from ggdr.metrics.resize import check_images_u8
from ggdr.metrics.weights import NO_WEIGHTS_HINT, load_weights
from ggdr.torch_utils.downloads import WeightsFile, find_hashed
from ggdr.torch_utils.ops.bias_act import bias_act
from ggdr.torch_utils.ops.cpu.conv3x3 import conv3x3

VGG16_FILE = WeightsFile(
    name="vgg16-397923af.pth",
    urls=("https://download.pytorch.org/models/vgg16-397923af.pth",),
    sha256="397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
    size=553_433_881,
    what="VGG16",
    by_hand="give its path with --vgg FILE",
    hint=NO_WEIGHTS_HINT,
)

INPUT_SIZE, FC_DIM = 224, 4096
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's images in [0, 1]

# Channels of the convolutions, and their number in the published `features`; pools lie between the stages.
STAGES = (
    ((64, 0), (64, 2)),
    ((128, 5), (128, 7)),
    ((256, 10), (256, 12), (256, 14)),
    ((512, 17), (512, 19), (512, 21)),
    ((512, 24), (512, 26), (512, 28)),
)


class Conv3x3(nn.Module):
    """3x3 convolution that keeps the size, and ReLU."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.empty(c_out, c_in, 3, 3))
        self.register_buffer("bias", torch.empty(c_out))

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type == "cpu":
            return bias_act(conv3x3(x, self.weight, padding=1), self.bias, act="relu", gain=1)
        return F.conv2d(x, self.weight, self.bias, padding=1).relu_()


class ConvStages(nn.ModuleDict):
    """The convolutions by their published number, in five stages."""

    def __init__(self) -> None:
        super().__init__()
        c_in = 3
        for stage in STAGES:
            for c_out, number in stage:
                self[str(number)] = Conv3x3(c_in, c_out)
                c_in = c_out

    def forward(self, x: Tensor) -> list[Tensor]:
        """Normalised images [N, 3, H, W] float32 to the last feature map of each stage, after ReLU."""
        if x.device.type == "cpu":
            x = x.contiguous(memory_format=torch.channels_last)
        maps = []
        for stage in STAGES:
            if maps:
                x = F.max_pool2d(x, 2)
            for _, number in stage:
                x = self[str(number)](x)
            maps.append(x)
        return maps


class VGG16(nn.Module):
    """The network up to its second fully connected layer, without weights; its tensors have torchvision's names.

    Source: Simonyan & Zisserman 2014, arXiv:1409.1556, configuration D.
    """

    def __init__(self) -> None:
        super().__init__()
        self.features = ConvStages()
        self.classifier = nn.ModuleDict({"0": nn.Linear(512 * 7 * 7, FC_DIM), "3": nn.Linear(FC_DIM, FC_DIM)})

    def features_fc2(self, images_u8: Tensor) -> Tensor:
        """Features of the second fully connected layer, after ReLU, as Kynkäänniemi et al. use them.

        Args:
            images_u8: [N, 3, H, W] uint8, of any size.

        Returns:
            [N, 4096] float32.

        Raises:
            ValueError: another type or shape.

        Source: Kynkäänniemi et al. 2019, arXiv:1904.06991.
        """
        return self.fc2(prepare(images_u8))

    def fc2(self, x: Tensor) -> Tensor:
        """The same, [N, 4096], of what `prepare` gives."""
        x = F.max_pool2d(self.features(x)[-1], 2)
        for layer in self.classifier.values():
            x = layer(x.flatten(1)).relu_()
        return x


def prepare(images_u8: Tensor) -> Tensor:
    """Images as VGG16 takes them.

    The paper does not say how images come to the network's size. Here it is an antialiased bilinear filter in float32,
    then ImageNet's mean and deviation. NVIDIA's network is a compiled file with a preparation of its own, so values of
    precision and recall may differ from theirs in the last digits.

    Args:
        images_u8: [N, 3, H, W] uint8, of any size.

    Returns:
        [N, 3, 224, 224] float32.

    Raises:
        ValueError: another type or shape.
    """
    check_images_u8(images_u8, may_be_empty=True)
    x = F.interpolate(images_u8.float(), (INPUT_SIZE, INPUT_SIZE), mode="bilinear", antialias=True) / 255
    return normalise(x, MEAN, STD)


def normalise(x: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """(x - mean) / std of each channel of [N, C, H, W]."""
    return (x - x.new_tensor(mean)[:, None, None]) / x.new_tensor(std)[:, None, None]


def load_into(net: nn.Module, tensors: Mapping[str, Tensor], device: torch.device | str) -> None:
    """Gives a network on the meta device these tensors, moved to another one, and evaluation mode."""
    net.load_state_dict({name: tensor.to(device) for name, tensor in tensors.items()}, assign=True)
    net.eval().requires_grad_(False)


def shapes_of(net: nn.Module) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a network's tensors."""
    return {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}


def load_vgg16(path: str | Path, device: torch.device | str = "cpu") -> VGG16:
    """The network with the weights of a file of torchvision's format.

    Raises:
        WeightsError: the file cannot be read, or holds other tensors.
    """
    with torch.device("meta"):
        net = VGG16()
    tensors = load_weights(Path(path), shapes_of(net), what=VGG16_FILE.what, ignored=r"^classifier\.6\.")
    load_into(net, tensors, device)
    return net


def load_detector(files: DetectorFiles) -> Detector:
    """The detector of precision, recall, density and coverage."""
    path, sha256 = find_hashed(VGG16_FILE, files.path("vgg"))
    net = load_vgg16(path, files.device)
    resize = f"antialiased bilinear to {INPUT_SIZE}x{INPUT_SIZE}"
    return Detector("vgg16", sha256[:16], resize, lambda x: {"features": net.fc2(x)}, prepare)
