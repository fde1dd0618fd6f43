# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Network snapshots and the resumable training state.

Networks are safetensors files with their settings as JSON in the metadata. The training state is a torch file
of tensors and plain values, read by `tensor_file`. Neither can carry code.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ggdr.torch_utils.atomic_write import atomic_write
from ggdr.torch_utils.untrusted.json_text import parse_json
from ggdr.torch_utils.untrusted.regular_files import check_regular
from ggdr.torch_utils.untrusted.text import error_text, printable
from ggdr.torch_utils.untrusted.torch_files import TensorFileError, read_tensor_file

try:
    import safetensors
    import safetensors.torch
except ModuleNotFoundError:
    raise ModuleNotFoundError("snapshots need safetensors: pip install safetensors", name="safetensors") from None

SNAPSHOT_FORMAT = "ggdr-network-snapshot-1"
STATE_FORMAT = "ggdr-training-state-1"
MAX_NIMG = 2**53  # larger counts are no counts, and not all of them fit into a float


class SnapshotError(ValueError):
    """A file that is not the snapshot or training state that was expected of it."""


@dataclass(frozen=True)
class Snapshot:
    """What a network snapshot holds."""

    path: Path
    config: dict[str, Any]  # JSON: settings to build the networks from, and how they came about
    networks: dict[str, dict[str, Tensor]]  # state dicts by name: "G", "D", "G_ema", ...

    @property
    def nimg(self) -> int | None:
        """Images that it was trained on; None if it does not say."""
        nimg = self.config.get("nimg")
        return nimg if type(nimg) is int and 0 <= nimg <= MAX_NIMG else None


def save_snapshot(
    path: str | os.PathLike, networks: Mapping[str, Mapping[str, Tensor]], config: Mapping[str, Any]
) -> None:
    """Writes state dicts and their JSON-able settings to one safetensors file, atomically."""
    tensors = {f"{net}.{k}": v.contiguous() for net, state in networks.items() for k, v in state.items()}
    metadata = {"format": SNAPSHOT_FORMAT, "config": json.dumps(config)}
    data = safetensors.torch.save(tensors, metadata=metadata)
    with atomic_write(path) as file:
        file.write(data)


def load_snapshot(path: str | os.PathLike, *, tensors: bool = True) -> Snapshot:
    """Reads a network snapshot. Its tensors are views of the file, which is read as they are used.

    Args:
        tensors: False for the settings alone, in a fraction of the time; no networks are in it then.

    Raises:
        SnapshotError: the file is missing, truncated, or not a snapshot of this project.
    """
    path = Path(path)
    networks: dict[str, dict[str, Tensor]] = {}
    try:
        check_regular(path)
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != SNAPSHOT_FORMAT:
                raise SnapshotError(
                    f"{path}: a safetensors file, but not a network snapshot of this project "
                    f"(its format is {printable(repr(metadata.get('format')))}, expected {SNAPSHOT_FORMAT!r}); "
                    "`ggdr import-weights` makes snapshots of other files"
                )
            config = parse_json(metadata["config"])
            for key in file.keys() if tensors else ():
                net, dot, name = key.partition(".")
                if not (net.replace("-", "_").isidentifier() and dot and name):  # commands print the names of networks
                    raise ValueError(f"tensor {printable(key)} belongs to no network")
                networks.setdefault(net, {})[name] = file.get_tensor(key)
    except SnapshotError:
        raise
    except FileNotFoundError as error:
        raise SnapshotError(f"{path}: no such file; expected a network-snapshot-*.safetensors") from error
    except Exception as error:  # damaged headers end in errors of safetensors, of PyTorch and of numbers' limits
        raise SnapshotError(f"{path}: not a readable network snapshot (.safetensors): {error_text(error)}") from error
    if not isinstance(config, dict) or (tensors and not networks):
        raise SnapshotError(f"{path}: not a network snapshot, since it holds no settings or no tensors")
    return Snapshot(path, config, networks)


def save_state(path: str | os.PathLike, state: Mapping[str, Any]) -> None:
    """Writes the training state (tensors, numbers, strings, lists, dicts), atomically."""
    # By way of memory, since torch's own writer hides why a write failed.
    data = io.BytesIO()
    torch.save({**state, "format": STATE_FORMAT}, data)
    with atomic_write(path) as file:
        file.write(data.getbuffer())


def load_state(path: str | os.PathLike) -> dict[str, Any]:
    """Reads a training state to the CPU.

    Raises:
        SnapshotError: the file is missing, truncated, not a training state, or holds more than plain data.
    """
    path = Path(path)
    try:
        state = read_tensor_file(path)
    except FileNotFoundError as error:
        raise SnapshotError(f"{path}: no such file; expected a training state") from error
    except (TensorFileError, OSError) as error:
        reason = error.reason if isinstance(error, TensorFileError) else error_text(error)
        raise SnapshotError(f"{path}: not a readable training state: {reason}") from error
    if not isinstance(state, dict) or state.get("format") != STATE_FORMAT:
        raise SnapshotError(f"{path}: not a training state of this project (expected format {STATE_FORMAT!r})")
    return state
