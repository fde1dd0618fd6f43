# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Files of networks, which are compared with the network before they appear under their name."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from ggdr.scripts.exporting.staging import staged_files
from ggdr.scripts.reports.card_facts import public
from ggdr.torch_utils import export_formats
from ggdr.torch_utils.checkpoint import Snapshot
from ggdr.torch_utils.export_formats import (
    TOLERANCE,
    ExportError,
    Part,
    largest_difference,
    save_onnx,
    save_state_dict,
    save_torch_export,
)
from ggdr.translation.config import NetworkConfig


@dataclass(frozen=True)
class Comparison:
    """How far the outputs of a file are from those of PyTorch.

    Attributes:
        difference: the largest one, as a share of the largest value.
        judge:      what ran the file.
    """

    difference: float
    judge: str


def missing_for_onnx() -> list[str]:
    """The packages that writing ONNX needs and that are not installed."""
    return [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]


def export_graph(
    part: Part, out: Path, file_format: str, *, metadata: Mapping[str, str], opset: int | None
) -> Comparison | None:
    """Writes a part as "onnx" or "torch-export"; None for a file of ONNX where no onnxruntime is installed.

    Args:
        opset: version of ONNX' operations; None: PyTorch's.

    Raises:
        ExportError: it cannot be written, or computes something else.
        OSError: the folder cannot be written to.
    """
    with staged_files(out) as path:
        if file_format == "torch-export":
            difference = save_torch_export(part, path, metadata=metadata)
            comparison = Comparison(difference, f"torch {torch.__version__}")
        else:
            save_onnx(part, path, opset=opset, metadata=metadata)
            comparison = _compare_onnx(part, path)
        if comparison is not None and not comparison.difference <= TOLERANCE:
            raise ExportError(
                f"it differs from PyTorch by {comparison.difference:.2g} of the largest value; {TOLERANCE:g} is allowed"
            )
    return comparison


def _compare_onnx(part: Part, path: Path) -> Comparison | None:
    """None without onnxruntime."""
    try:
        import onnxruntime
    except ImportError:
        return None
    difference = largest_difference(part, export_formats.onnx_runner(path))
    return Comparison(difference, f"onnxruntime {onnxruntime.__version__}")


def export_state_dict(net: nn.Module, name: str, snapshot: Snapshot, out: Path) -> tuple[int, Path]:
    """Writes the state dict of a network or of a part of it, and its settings as JSON beside it.

    Args:
        net:  of `snapshot`, as `open_network` or `open_translator_network` opens it.
        name: of the part of a StyleGAN2; of a translator's network.

    Returns:
        The number of tensors, and the file of the settings.

    Raises:
        OSError: the folder cannot be written to.
    """
    is_translator = isinstance(net.config, NetworkConfig)
    state = (net if is_translator or name in ("generator", "discriminator") else getattr(net, name)).state_dict()
    stored = net.config.to_json() if is_translator else vars(net.config)
    settings = {"network": name, "settings": stored, "snapshot": public(snapshot.config)}
    with staged_files(out) as path:
        save_state_dict(state, path)
        path.with_suffix(".json").write_text(json.dumps(settings, indent=2) + "\n")
    return len(state), out.with_suffix(".json")
