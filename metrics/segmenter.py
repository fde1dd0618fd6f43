# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Segmenters: networks that say of each pixel of an image which class it is of. Ours, and the user's own."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ggdr.metrics.custom import custom_features, state_hash
from ggdr.metrics.image_sets import to_rgb
from ggdr.torch_utils.checkpoint import Snapshot, SnapshotError, load_snapshot, save_snapshot
from ggdr.torch_utils.data.label_maps import LabelClasses, classes_from_json, describe_difference
from ggdr.torch_utils.downloads import WeightsError
from ggdr.torch_utils.float32 import exact_float32
from ggdr.torch_utils.pictures.images import from_u8
from ggdr.torch_utils.restore import restore_network
from ggdr.torch_utils.untrusted.text import printable

OPTION = "--segmenter"
FILE_NAME = "segmenter.safetensors"
KEY = "segmenter"  # of its weights and settings in a snapshot
WIDEST = 8  # times `width`: the most feature maps of a layer
# Far beyond any that was trained; what a file claims beyond them is a mistake, or an attack on memory.
LIMITS = {"channels": (1, 4), "classes": (1, 255), "width": (1, 1024), "downs": (1, 8)}


@dataclass(frozen=True)
class SegmenterConfig:
    """What a segmenter is built from; raises ValueError for settings that none can have.

    Attributes:
        channels: of images.
        classes:  that it tells apart.
        width:    feature maps at the size of the image; twice as many at half of it, and so on, up to WIDEST times.
        downs:    how often it halves the image.
    """

    channels: int
    classes: int
    width: int = 16
    downs: int = 3

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            low, high = LIMITS[name]
            if type(value) is not int or not low <= value <= high:
                got = printable(repr(value), 80)
                raise ValueError(f"{name} must be a whole number from {low} to {high}, got {got}")


class SegmenterNetwork(nn.Module):
    """A U-Net of convolutions, batch norms and ReLUs, whose maps are joined on the way up.

    Args:
        config: what it is built from.

    Source: Ronneberger et al. 2015, arXiv:1505.04597, Figure 1, with padded convolutions, and batch norms as in Ioffe
    and Szegedy 2015, arXiv:1502.03167.
    """

    def __init__(self, config: SegmenterConfig) -> None:
        super().__init__()
        self.config = config
        widths = [config.width * min(2**i, WIDEST) for i in range(config.downs + 1)]
        pairs = list(zip(widths, widths[1:], strict=False))
        self.first = _block(config.channels, widths[0])
        self.down = nn.ModuleList(_block(above, below) for above, below in pairs)
        self.up = nn.ModuleList(_block(above + below, above) for above, below in reversed(pairs))
        self.to_logits = nn.Conv2d(widths[0], config.classes, 1)

    def forward(self, img: Tensor) -> Tensor:
        """Logits of the classes.

        Args:
            img: [N, channels, H, W] float32 in [-1, 1]. Sides that cannot be halved `downs` times are continued.

        Returns:
            [N, classes, H, W] float32.
        """
        height, width = img.shape[2:]
        multiple = 2**self.config.downs
        x = F.pad(img, (0, -width % multiple, 0, -height % multiple), mode="replicate")
        maps = [self.first(x)]
        for block in self.down:
            maps.append(block(F.max_pool2d(maps[-1], 2)))
        x = maps.pop()
        for block in self.up:
            x = F.interpolate(x, scale_factor=2, mode="nearest")
            x = block(torch.cat([maps.pop(), x], dim=1))
        return self.to_logits(x)[:, :, :height, :width]


def _block(in_channels: int, out_channels: int) -> nn.Sequential:
    """Two convolutions of 3x3 pixels."""
    layers: list[nn.Module] = []
    for channels in (in_channels, out_channels):
        layers += [
            nn.Conv2d(channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)


class Segmenter:
    """Says of each pixel which class it is of.

    Args:
        function: images [N, C, H, W] float32 in [-1, 1] to logits [N, classes, h, w].
        name:     for messages: a file, or module:function.
        digest:   16 hex digits of its weights or source.
        classes:  that it tells apart; None where it does not say.
        channels: of images that it takes; None where it does not say.
        about:    how it came about, from its file, which anyone may have written.
    """

    def __init__(
        self,
        function: Callable[[Tensor], Tensor],
        *,
        name: str,
        digest: str,
        classes: LabelClasses | None = None,
        channels: int | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        self.function, self.name, self.digest = function, name, digest
        self.classes, self.channels, self.about = classes, channels, dict(about or {})

    @torch.no_grad()
    def __call__(self, img: Tensor) -> Tensor:
        """Logits of the classes, of which the largest of a pixel is its class.

        Args:
            img: [N, C, H, W] float32 in [-1, 1], on the segmenter's device.

        Returns:
            [N, classes, H, W] float32. Smaller or larger logits are resized to the images, bilinearly.

        Raises:
            ValueError: the images have other channels, or it gives no logits [N, classes, h, w]; names the segmenter.
        """
        if self.channels is not None and img.shape[1] != self.channels:
            raise ValueError(f"{self.name}: takes images [N, {self.channels}, H, W], got {list(img.shape)}")
        with exact_float32(img.device):
            logits = self.function(img)
            if not (isinstance(logits, Tensor) and logits.ndim == 4 and len(logits) == len(img)):
                got = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
                raise ValueError(f"{self.name}: expected logits [{len(img)}, classes, h, w], got {got}")
            logits = logits.float()
            if logits.shape[2:] != img.shape[2:]:
                logits = F.interpolate(logits, img.shape[2:], mode="bilinear", align_corners=False)
        return logits

    def of_files(self, images_u8: Tensor) -> Tensor:
        """Logits of images as files hold them, uint8 [N, 1, 3 or 4, H, W]; see `__call__`.

        What does not say how many channels it takes is given three: grey is repeated, transparency laid over white.
        """
        return self(from_u8(images_u8 if self.channels is not None else to_rgb(images_u8)))

    def check(self, images_u8: Tensor, classes: LabelClasses) -> None:
        """Whether it can judge such images, as in `of_files`, against label maps of these classes.

        Raises:
            ValueError: it cannot see them, or tells other classes apart; names both.
        """
        try:
            num = self.of_files(images_u8).shape[1]
        except (RuntimeError, TypeError, AttributeError) as error:
            size = f"{images_u8.shape[3]}x{images_u8.shape[2]}"
            raise ValueError(f"{self.name}: cannot see images of {size} pixels: {printable(error)}") from error
        if num != classes.num:
            raise ValueError(f"{self.name}: finds {num} classes, and the label maps have {classes.num}")
        difference = describe_difference(self.classes or classes, classes)
        if difference:
            raise ValueError(f"{self.name}: finds {difference}")


def load_segmenter(text: str | os.PathLike, device: torch.device | str = "cpu", *, option: str = OPTION) -> Segmenter:
    """A segmenter of ours or of the user's own, in evaluation mode.

    Example:
        >>> segment = load_segmenter("segmenter.safetensors")
        >>> found = segment(torch.zeros(1, 3, 32, 32)).argmax(1)  # [1, 32, 32] int64

    Args:
        text:   a file that `save_segmenter` wrote (.safetensors); or "module:function", a function of the device that
                returns a callable from images float32 [N, C, H, W] in [-1, 1] to logits [N, classes, h, w]; or a
                TorchScript file of one.
        option: that it is the value of, for messages.

    Raises:
        WeightsError: it cannot be loaded; names the option.
    """
    device, text = torch.device(device), str(text)
    if Path(text).suffix == ".safetensors":
        if not Path(text).exists():
            raise WeightsError(f"{option} {text}: no such file; expected one that `ggdr segmenter train` wrote")
        try:
            return segmenter_of(load_snapshot(text), device)
        except (SnapshotError, OSError) as error:
            raise WeightsError(f"{option} {error}") from error
    function, digest = custom_features(text, device, option=option)
    return Segmenter(function, name=printable(text), digest=digest)


def segmenter_of(snapshot: Snapshot, device: torch.device | str = "cpu") -> Segmenter:
    """The segmenter of a file that has been read.

    Raises:
        SnapshotError: it holds none, or a damaged one.
    """
    path, stored = snapshot.path, snapshot.config.get(KEY)
    if not isinstance(stored, Mapping):
        held = printable(", ".join(snapshot.networks))
        raise SnapshotError(f"{path}: holds {held}, expected a segmenter, as `ggdr segmenter train` writes it")
    try:
        config, classes = SegmenterConfig(**stored), classes_from_json(snapshot.config.get("labels"))
    except (TypeError, ValueError) as error:
        raise SnapshotError(f"{path}: settings of the segmenter are damaged: {printable(error)}") from error
    if classes.num != config.classes:
        raise SnapshotError(f"{path}: names {classes.num} classes, and its network has {config.classes}")
    net = restore_network(lambda: SegmenterNetwork(config), snapshot, KEY, device)
    about = snapshot.config.get("about")
    return Segmenter(
        net,
        name=printable(path),
        digest=state_hash(net),  # not that of the file, in which metadata come in any order
        classes=classes,
        channels=config.channels,
        about=about if isinstance(about, Mapping) else None,
    )


def save_segmenter(
    path: str | os.PathLike, net: SegmenterNetwork, classes: LabelClasses, about: Mapping[str, Any]
) -> None:
    """Writes a segmenter to a safetensors file, atomically.

    Args:
        about: JSON: how it came about, and what it was measured at.
    """
    settings = {KEY: asdict(net.config), "labels": classes.to_json()}
    save_snapshot(path, {KEY: net.state_dict()}, {**settings, "about": dict(about)})
