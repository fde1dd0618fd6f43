# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Networks that turn images into features: Inception, VGG16, the offline detector, and the user's own."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ggdr.metrics.float32 import exact_float32
from ggdr.metrics.resize import Mode, prepare
from ggdr.metrics.weights import INCEPTION, LPIPS_VGG, VGG16
from ggdr.torch_utils.downloads import WeightsError, find_hashed, sha256_of


@dataclass(frozen=True)
class Detector:
    """What the features of a metric are made with.

    Attributes:
        name:    inception, vgg16, offline or custom.
        hash:    16 hex digits of its weights (of a function of the user's: of its source).
        resize:  how images come to its size; for result lines.
        extract: uint8 [N, 3, H, W] to {"features": [N, D] float32, perhaps "logits": [N, K]}.
    """

    name: str
    hash: str
    resize: str
    extract: Callable[[Tensor], Mapping[str, Tensor]]

    def __call__(self, images_u8: Tensor) -> Mapping[str, Tensor]:
        """The features of images uint8 [N, 3, H, W], in float32 whatever the settings of a training around it."""
        with torch.inference_mode(), exact_float32(images_u8.device):
            return self.extract(images_u8)


@dataclass
class DetectorFiles:
    """Where detectors come from, and those that were loaded.

    Attributes:
        inception: path of pt_inception-2015-12-05-6726825d.pth; None: the cache, or a download.
        vgg:       path of vgg16-397923af.pth; likewise.
        lpips:     path of LPIPS' linear layers; likewise.
        custom:    "module:function" or the path of a TorchScript file.
    """

    mode: Mode
    device: torch.device
    inception: Path | None = None
    vgg: Path | None = None
    lpips: Path | None = None
    custom: str | None = None
    _loaded: dict[str, Any] = field(default_factory=dict)

    def get(self, name: str) -> Detector:
        """The detector of this name, loaded once.

        Raises:
            WeightsError: its weights are not there, or are others.
        """
        if name not in self._loaded:
            make = {
                "inception": self._inception,
                "vgg16": self._vgg16,
                "offline": self._offline,
                "custom": self._custom,
            }[name]
            self._loaded[name] = make()
        return self._loaded[name]

    def get_lpips(self) -> tuple[Callable[[Tensor, Tensor], Tensor], str]:
        """LPIPS between two batches of float images in [-1, 1], as [N]; and the hash of its weights."""
        if "lpips" not in self._loaded:
            self._loaded["lpips"] = self._lpips()
        return self._loaded["lpips"]

    def _lpips(self) -> tuple[Callable[[Tensor, Tensor], Tensor], str]:
        from ggdr.metrics.lpips import load_lpips

        vgg, vgg_hash = find_hashed(VGG16, self.vgg)
        linear, linear_hash = find_hashed(LPIPS_VGG, self.lpips)
        net = load_lpips(vgg, linear, self.device)

        def distance(img0: Tensor, img1: Tensor) -> Tensor:
            with torch.inference_mode(), exact_float32(self.device):
                return net(img0, img1)

        return distance, f"{vgg_hash[:8]}{linear_hash[:8]}"

    def _inception(self) -> Detector:
        from ggdr.metrics.inception import load_inception

        path, sha256 = find_hashed(INCEPTION, self.inception)
        net = load_inception(path, self.device)

        def extract(images_u8: Tensor) -> Mapping[str, Tensor]:
            out = net(prepare(images_u8, self.mode))
            return {"features": out.pool, "logits": out.logits}

        resize = f"{self.mode.resize} to 299x299, {self.mode.normalise}"
        return Detector("inception", sha256[:16], resize, extract)

    def _vgg16(self) -> Detector:
        from ggdr.metrics.vgg import load_vgg16

        path, sha256 = find_hashed(VGG16, self.vgg)
        net = load_vgg16(path, self.device)
        return Detector(
            "vgg16",
            sha256[:16],
            "antialiased bilinear to 224x224",
            lambda images_u8: {"features": net.features_fc2(images_u8)},
        )

    def _offline(self) -> Detector:
        from ggdr.metrics.offline import OfflineFeatures

        net = OfflineFeatures().to(self.device).eval()
        return Detector("offline", net.hash[:16], net.resize, lambda images_u8: {"features": net(images_u8)})

    def _custom(self) -> Detector:
        if self.custom is None:
            raise WeightsError("metrics named *_custom need --detector module:function or --detector FILE.pt")
        function, digest = custom_features(self.custom, self.device)

        def extract(images_u8: Tensor) -> Mapping[str, Tensor]:
            features = function(images_u8)
            if not (isinstance(features, Tensor) and features.ndim == 2 and len(features) == len(images_u8)):
                got = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
                raise WeightsError(f"--detector {self.custom}: expected features [{len(images_u8)}, D], got {got}")
            return {"features": features.float()}

        return Detector("custom", digest, "the detector's own", extract)


def custom_features(text: str, device: torch.device) -> tuple[Callable[[Tensor], Tensor], str]:
    """A detector of the user's, and 16 hex digits that name it.

    Args:
        text: "module:function", a function of the device that returns a callable (perhaps a network) from images
            uint8 [N, 3, H, W] to features [N, D]; or a TorchScript file of such a network.

    Raises:
        WeightsError: it cannot be loaded.
    """
    path = Path(text)
    if path.suffix in (".pt", ".pth", ".ts") or path.is_file():
        try:
            return torch.jit.load(path, map_location=device).eval(), sha256_of(path)[:16]
        except (OSError, RuntimeError, ValueError) as error:
            raise WeightsError(f"--detector {text}: no TorchScript file that can be read ({error})") from error
    module_name, _, function_name = text.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # as `python` has it, and an installed command has not
    try:
        module = importlib.import_module(module_name)
        make = getattr(module, function_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise WeightsError(
            f"--detector {text}: expected module:function that can be imported, or a TorchScript file ({error})"
        ) from error
    extract = make(device)
    if isinstance(extract, nn.Module):
        return extract.to(device).eval(), state_hash(extract)
    if not callable(extract):
        raise WeightsError(f"--detector {text}: expected a callable from {function_name}, got {extract!r}")
    with suppress(OSError, TypeError):
        return extract, hashlib.sha256(inspect.getsource(module).encode()).hexdigest()[:16]
    return extract, hashlib.sha256(text.encode()).hexdigest()[:16]


def state_hash(net: nn.Module) -> str:
    """16 hex digits of a network's weights and buffers."""
    sha = hashlib.sha256()
    for name, value in net.state_dict().items():
        sha.update(name.encode() + value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()[:16]
