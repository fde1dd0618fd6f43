# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Reference vectors: where they are, and how closely results must agree with them; see tests/golden/README.md."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import torch

FOLDERS = [Path(__file__).parent / "golden"]
if os.environ.get("GGDR_GOLDEN"):
    FOLDERS.append(Path(os.environ["GGDR_GOLDEN"]))
    if not FOLDERS[-1].is_dir():
        raise NotADirectoryError(f"GGDR_GOLDEN is {str(FOLDERS[-1])!r}; expected a folder of reference vectors")


def golden_files(pattern: str) -> list[Path]:
    """Reference files whose names fit a pattern; one in $GGDR_GOLDEN stands in for ours of the same name."""
    found = {path.name: path for folder in FOLDERS for path in folder.glob(pattern)}
    return [found[name] for name in sorted(found)]


def golden_params(prefix: str) -> list:
    """The files whose names start with `prefix` as pytest parameters; FileNotFoundError if there are none."""
    files = golden_files(f"{prefix}*.npz")
    if not files:
        raise FileNotFoundError(f"no {prefix}*.npz in {FOLDERS[0]}")
    import pytest  # `python -m tests.golden_cases` does without

    return [pytest.param(path, id=path.stem) for path in files]


class Golden:
    """One reference file: `meta`, arrays as tensors on a device, and the part below a prefix as a dict."""

    def __init__(self, path: Path, device: str = "cpu") -> None:
        self._file = np.load(path, allow_pickle=False)
        self.device = torch.device(device)
        self.meta = json.loads(str(self._file["meta"]))

    def __getitem__(self, name: str) -> torch.Tensor:
        return torch.from_numpy(self._file[name]).to(self.device)

    def below(self, prefix: str) -> dict[str, torch.Tensor]:
        """Arrays named `prefix/NAME`, by NAME."""
        return {k.removeprefix(prefix + "/"): self[k] for k in self._file.files if k.startswith(prefix + "/")}


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """max|a-b| as a multiple of 1e-4 * max(1, max|b|), which the reference vectors allow; infinite for NaN."""
    assert actual.shape == expected.shape, f"shape {tuple(actual.shape)}, expected {tuple(expected.shape)}"
    error = (actual.detach() - expected).abs().max().item()
    return error / (1e-4 * max(1.0, expected.abs().max().item())) if error == error else float("inf")


def assert_agrees(actual: torch.Tensor, expected: torch.Tensor, name: str = "") -> None:
    """That the error is one that the reference vectors allow."""
    assert_all_agree({name: relative_error(actual, expected)})


def assert_all_agree(errors: dict[str, float]) -> None:
    """That errors by name, as multiples of what is allowed, are allowed, and that there are some."""
    assert errors
    wrong = {name: round(error, 2) for name, error in errors.items() if not error <= 1}
    assert not wrong, f"errors as multiples of what is allowed: {wrong}"
