# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Running the commands that look at a snapshot, and seeing what they draw."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
from click.testing import CliRunner, Result

from ggdr.stylegan2.generator import Generator
from ggdr.stylegan2.latent.sampling import generate_images
from ggdr.torch_utils.pictures import animation, sheets
from tests.tiny import save_tiny, tiny_generator

RES = 8  # of the tiny generator
COMMANDS = ["interpolate", "stylemix", "truncation", "directions"]


@pytest.fixture(name="run")
def run_looking(tmp_path):
    """Runs a command on a snapshot of a tiny network, pixels not enlarged; options after its own override them."""

    def run_command(name: str, *options: str, G: Generator | None = None) -> Result:
        network = save_tiny(tmp_path / "net.safetensors", G or tiny_generator())
        out = ["--outdir", str(tmp_path / "out")] if name == "directions" else ["--out", str(tmp_path / "out/x.png")]
        args = ["--network", str(network), *out, "--device", "cpu", "--size", str(RES), *options]
        if name == "directions" and "--use" not in options:
            args += ["--samples", "200", "--num", "3"] if "--num" not in options else ["--samples", "200"]
        return CliRunner().invoke(importlib.import_module(f"ggdr.scripts.{name}").main, args)

    return run_command


@pytest.fixture(name="laid_out")
def laid_out_sheets(monkeypatch):
    """The arguments of each contact sheet that is made."""
    calls: list[tuple[list, dict]] = []
    contact_sheet = sheets.contact_sheet

    def spy(cells, **options):
        calls.append((cells, options))
        return contact_sheet(cells, **options)

    monkeypatch.setattr(sheets, "contact_sheet", spy)
    return calls


@pytest.fixture(name="filmed")
def filmed_frames(monkeypatch):
    """The frames of the animations that are saved."""
    frames: list[np.ndarray] = []
    save_animation = animation.save_animation

    def spy(images, path, *, fps):
        return save_animation((frames.append(image) or image for image in images), path, fps=fps)

    monkeypatch.setattr(animation, "save_animation", spy)
    return frames


def ok(result: Result) -> Result:
    assert result.exit_code == 0, result.output
    return result


def images_of(seeds: list[int], G: Generator | None = None, **options) -> list[np.ndarray]:
    """[H, W, C] uint8 of each seed, as `ggdr generate` makes them."""
    batches = generate_images(G or tiny_generator(), seeds, device="cpu", batch_size=len(seeds), **options)
    return list(next(batches)[1].permute(0, 2, 3, 1).numpy())


def close(a: np.ndarray, b: np.ndarray) -> bool:
    """Equal but for rounding, which may differ by batch size."""
    return a.shape == b.shape and np.abs(a.astype(int) - b.astype(int)).max() <= 1
