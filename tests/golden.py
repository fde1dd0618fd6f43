# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Reference vectors: where they are, and how closely results must agree with them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

GOLDEN_DIR = Path(os.environ.get("GGDR_GOLDEN") or Path(__file__).parents[1] / ".." / "shared" / "golden")


def golden_files(prefix: str) -> list[Path]:
    """All reference files whose name starts with `prefix`; empty when the folder is absent."""
    return sorted(GOLDEN_DIR.glob(f"{prefix}*.npz"))


def golden_params(prefix: str) -> list:
    """The files as pytest parameters, or one skipped parameter that says what is missing."""
    files = golden_files(prefix)
    if files:
        return [pytest.param(path, id=path.stem) for path in files]
    reason = f"no {prefix}*.npz in {GOLDEN_DIR}; set GGDR_GOLDEN to the folder of reference vectors"
    return [pytest.param(None, marks=pytest.mark.skip(reason=reason), id=f"{prefix}-absent")]


class Golden:
    """One reference file: `meta`, arrays as tensors, and the part below a prefix as a dict."""

    def __init__(self, path: Path) -> None:
        self._file = np.load(path, allow_pickle=False)
        self.meta = json.loads(str(self._file["meta"]))

    def __getitem__(self, name: str) -> torch.Tensor:
        return torch.from_numpy(self._file[name])

    def below(self, prefix: str) -> dict[str, torch.Tensor]:
        """Arrays named `prefix/NAME`, by NAME."""
        return {k.removeprefix(prefix + "/"): self[k] for k in self._file.files if k.startswith(prefix + "/")}


def assert_agrees(actual: torch.Tensor, expected: torch.Tensor, name: str = "") -> None:
    """max|a-b| <= 1e-4 * max(1, max|b|), the agreement the reference vectors ask for."""
    assert actual.shape == expected.shape, f"{name}: shape {tuple(actual.shape)}, expected {tuple(expected.shape)}"
    error = (actual.detach() - expected).abs().max().item()
    bound = 1e-4 * max(1.0, expected.abs().max().item())
    assert error <= bound, f"{name}: max|a-b| = {error:.3g}, allowed {bound:.3g}"
