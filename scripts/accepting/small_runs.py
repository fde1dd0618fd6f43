# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Short runs of `ggdr train` on the bundled digits, and how far two of them are apart."""

from __future__ import annotations

from pathlib import Path

import torch

from ggdr.scripts.accepting.commands import output_of_ggdr
from ggdr.scripts.accepting.step import Place, StepFailed
from ggdr.scripts.training.snapshot_files import snapshots_in
from ggdr.torch_utils.checkpoint import load_snapshot

BATCH = {"cuda": 16, "cpu": 8}
TINY = ("--channel-base", 64, "--channel-max", 8)  # on a CPU


def digits(place: Place) -> Path:
    """A dataset of 1,797 handwritten digits at 32x32 pixels, made by the first step that asks for it."""
    path = place.shared / "digits.zip"
    if not path.exists():
        output_of_ggdr("dataset", "digits", path, "--channels", 1)
    return path


def train_words(place: Place, outdir: Path, *, iterations: int, snapshots: int, precision: str) -> list[object]:
    """Words of `ggdr train` for a small network, with so many snapshots."""
    batch = BATCH[place.device]
    tick = iterations // snapshots * batch / 1000
    words = ["train", "--data", digits(place), "--outdir", outdir, "--cfg", "demo", "--batch", batch]
    words += [] if place.on_gpu else TINY
    words += ["--device", place.device, "--precision", precision]
    return [*words, "--kimg", iterations * batch / 1000, "--tick", tick, "--snap", 1]


def trained_run(place: Place) -> Path:
    """A run with one snapshot, made by the first step that asks for it."""
    run = place.shared / "run"
    iterations = 128 if place.on_gpu else 16
    words = train_words(place, run, iterations=iterations, snapshots=1, precision="auto")
    output_of_ggdr(*words, "--resume", "latest")
    return run


def largest_difference(a: Path, b: Path) -> float:
    """Of the weights in the last snapshots of two runs, relative to the largest of each tensor; 0: the same bits.

    Raises:
        StepFailed: the snapshots have other names, or tensors.
    """
    paths = [_last_snapshot(run) for run in (a, b)]
    if paths[0].name != paths[1].name:
        raise StepFailed(f"runs of the same length end with {paths[0].name} and {paths[1].name}")
    nets = [load_snapshot(path).networks for path in paths]
    flat = [{f"{net}.{key}": x for net, state in found.items() for key, x in state.items()} for found in nets]
    if flat[0].keys() != flat[1].keys():
        raise StepFailed(f"snapshots of two runs differ in {sorted(flat[0].keys() ^ flat[1].keys())[0]}")
    return max(_difference(x, flat[1][name]) for name, x in flat[0].items())


def _last_snapshot(run: Path) -> Path:
    found = snapshots_in(run)
    if not found:
        raise StepFailed(f"the run {run.name} wrote no snapshot")
    return found[-1]


def _difference(x: torch.Tensor, y: torch.Tensor) -> float:
    if torch.equal(x, y):
        return 0.0
    x, y = x.double(), y.double()
    found = ((x - y).abs().max() / y.abs().max().clamp(min=1e-30)).item()
    return float("inf") if found != found else found
