# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Features of the user's own, for metrics named _custom."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor, nn

from ggdr.metrics.detector import Detector
from ggdr.metrics.detectors import DetectorFiles
from ggdr.torch_utils.downloads import WeightsError, sha256_of
from ggdr.torch_utils.untrusted.regular_files import check_regular


def load_detector(files: DetectorFiles) -> Detector:
    """The detector that --detector names."""
    text = files.given.get("detector")
    if text is None:
        raise WeightsError("metrics named *_custom need --detector module:function or --detector FILE.pt")
    function, digest = custom_features(text, files.device)

    def extract(images_u8: Tensor) -> Mapping[str, Tensor]:
        features = function(images_u8)
        if not (isinstance(features, Tensor) and features.ndim == 2 and len(features) == len(images_u8)):
            got = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise WeightsError(f"--detector {text}: expected features [{len(images_u8)}, D], got {got}")
        return {"features": features.float()}

    return Detector("custom", digest, "the detector's own", extract)


def custom_features(
    text: str, device: torch.device, *, option: str = "--detector"
) -> tuple[Callable[[Tensor], Tensor], str]:
    """A function of images that the user gives, and 16 hex digits that name it.

    Args:
        text:   "module:function", a function of the device that returns a callable (perhaps a network) from images
                to features; or a TorchScript file of such a network.
        option: that it is the value of, for messages.

    Raises:
        WeightsError: it cannot be loaded.
    """
    path = Path(text)
    if path.suffix in (".pt", ".pth", ".ts") or path.is_file():
        try:
            check_regular(path)
            return torch.jit.load(path, map_location=device).eval(), sha256_of(path)[:16]
        except (OSError, RuntimeError, ValueError) as error:
            raise WeightsError(f"{option} {text}: no TorchScript file that can be read ({error})") from error
    module_name, _, function_name = text.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # as `python` has it, and an installed command has not
    try:
        module = importlib.import_module(module_name)
        make = getattr(module, function_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise WeightsError(
            f"{option} {text}: expected module:function that can be imported, or a TorchScript file ({error})"
        ) from error
    extract = make(device)
    if isinstance(extract, nn.Module):
        return extract.to(device).eval(), state_hash(extract)
    if not callable(extract):
        raise WeightsError(f"{option} {text}: expected a callable from {function_name}, got {extract!r}")
    with suppress(OSError, TypeError):
        return extract, hashlib.sha256(inspect.getsource(module).encode()).hexdigest()[:16]
    return extract, hashlib.sha256(text.encode()).hexdigest()[:16]


def state_hash(net: nn.Module) -> str:
    """16 hex digits of a network's weights and buffers."""
    sha = hashlib.sha256()
    for name, value in net.state_dict().items():
        sha.update(name.encode() + value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()[:16]
