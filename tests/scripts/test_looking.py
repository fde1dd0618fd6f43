# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr interpolate`, `stylemix`, `truncation` and `directions`: what holds for all, and bad input."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from tests.looking_cases import COMMANDS, close, images_of, laid_out_sheets, ok, run_looking  # noqa: F401
from tests.tiny import pixels, tiny_generator


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("img_channels", [1, 4])
def test_grey_and_transparent_networks_work(run, tmp_path, name, img_channels):
    G = tiny_generator(img_channels=img_channels)
    ok(run(name, G=G))
    if name in ("interpolate", "truncation"):
        ok(run(name, "--frames", "2", "--out", str(tmp_path / "x.mp4"), G=G))


@pytest.mark.parametrize("name", COMMANDS)
def test_pixels_are_enlarged_by_whole_numbers(run, laid_out, name):
    ok(run(name, "--size", "20"))
    cell = laid_out[0][0][-1][-1]
    assert cell.shape == (16, 16, 3) and (cell[::2, ::2] == cell[1::2, 1::2]).all()


@pytest.mark.parametrize("name", COMMANDS)
def test_conditional_networks_show_the_class_asked_for(run, laid_out, name):
    G = tiny_generator(c_dim=3)
    seeds = {"stylemix": ["--rows", "0", "--cols", "1"], "truncation": ["--psis", "1", "--seeds", "0-1"]}
    options = seeds.get(name, ["--seeds", "0-1"])
    shown = {}
    for label in (0, 2):
        ok(run(name, *options, "--class", str(label), G=G))
        cells = laid_out[0][0]
        shown[label] = {"stylemix": (1, 0), "directions": (0, 3)}.get(name, (0, 0))
        row, column = shown[label]
        assert close(cells[row][column], images_of([0, 1], G, label=label)[0])
        laid_out.clear()
    for wrong in ([], ["--class", "3"]):
        result = run(name, *options, *wrong, G=G)
        assert result.exit_code == 2 and "3 classes: expected one of 0 to 2" in " ".join(result.output.split())


@pytest.mark.parametrize("name", COMMANDS)
def test_the_noise_stands_still_and_can_be_left_out(run, laid_out, name):
    for mode in ("const", "const", "none"):
        ok(run(name, "--noise-mode", mode))
    num = len(laid_out) // 3
    first, again, without = (laid_out[i * num][0][-1][-1] for i in range(3))
    assert (first == again).all() and not close(first, without)


@pytest.mark.parametrize(
    ("name", "options", "messages"),
    [
        ("interpolate", ["--seeds", "3"], ["a walk needs 2 latents or more, of seeds or files; got 1, of seed 3"]),
        ("interpolate", ["--grid", "2x2", "--seeds", "0-8"], ["2x2 walks need 8 latents, or 12, 16", "got 9"]),
        ("interpolate", ["--out", "walk.avi"], ["--out", ".mp4, .gif, .webp or .png", "'walk.avi'"]),
        ("interpolate", ["--out", "walk.gif", "--fps", "60"], ["--fps", "50 frames", "got 60"]),
        ("interpolate", ["--fps", "0"], ["--fps"]),
        ("interpolate", ["--frames", "0"], ["--frames"]),
        ("interpolate", ["--trunc-cutoff", "5"], ["--trunc-cutoff", "4 ws", "got 5"]),
        ("interpolate", ["--class", "1"], ["--class", "unconditional"]),
        ("stylemix", ["--layers", "0-4"], ["--layers", "4 layers: expected 0 to 3, got 4"]),
        ("stylemix", ["--layers", "course"], ["--layers", "coarse, middle, fine, all", "'course'"]),
        ("stylemix", ["--rows", "b"], ["--rows", "'b'"]),
        ("stylemix", ["--out", "mix.mp4"], ["--out", ".png, .jpg or .webp"]),
        ("stylemix", ["--trunc-cutoff", "5"], ["--trunc-cutoff", "got 5"]),
        ("truncation", ["--psis", "0,x"], ["--psis", "'x'"]),
        ("truncation", ["--psis", "nan"], ["--psis", "'nan'"]),
        ("truncation", ["--psis", "1e9"], ["--psis", "from -100 to 100"]),
        ("truncation", ["--psis", "1", "--out", "psi.mp4"], ["--psis", "two strengths", "got 1"]),
        ("truncation", ["--out", "psi.webp", "--fps", "51"], ["--fps", "got 51"]),
        ("directions", ["--num", "6"], ["--num", "layers 0-3 span 5 directions", "got 6"]),
        ("directions", ["--num", "5", "--layers", "3"], ["--num", "layers 3 span 4 directions", "got 5"]),
        ("directions", ["--method", "ica"], ["--method", "ica"]),
        ("directions", ["--strength", "0"], ["--strength"]),
        ("directions", ["--steps", "1"], ["--steps"]),
        ("directions", ["--layers", "4"], ["--layers", "got 4"]),
        ("directions", ["--use", "missing.safetensors"], ["--use", "missing.safetensors"]),
    ],
)
def test_bad_options_are_named_and_nothing_is_made(run, tmp_path, name, options, messages):
    result = run(name, *options)
    assert result.exit_code == 2 and isinstance(result.exception, SystemExit)
    for message in messages:
        assert message in " ".join(result.output.split())
    assert not (tmp_path / "out").exists() and not Path(options[-1]).exists()


@pytest.mark.parametrize("name", COMMANDS)
def test_places_that_cannot_be_written_are_named(run, tmp_path, name):
    (tmp_path / "file").write_text("mine")
    option = "--outdir" if name == "directions" else "--out"
    result = run(name, option, str(tmp_path / "file" / "x.png"))
    assert result.exit_code == 2 and isinstance(result.exception, SystemExit)
    assert option in result.output and (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("name", COMMANDS)
def test_a_full_disk_keeps_the_old_picture_and_ends_with_a_message(run, tmp_path, monkeypatch, name):
    (tmp_path / "out").mkdir()
    old = tmp_path / "out" / ("overview.png" if name == "directions" else "x.png")
    old.write_bytes(b"old")

    def crash(self, file, format, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", crash)
    result = run(name)
    assert result.exit_code == 2 and "No space left on device" in " ".join(result.output.split())
    assert old.read_bytes() == b"old" and not list(tmp_path.glob("out/*.partial"))


@pytest.mark.parametrize("name", COMMANDS)
def test_sheets_are_pictures(run, tmp_path, name):
    ok(run(name))
    image = pixels(tmp_path / "out" / ("overview.png" if name == "directions" else "x.png"))
    assert image.ndim == 3 and image.shape[2] == 3 and (image[0] == 255).all()


@pytest.mark.parametrize("name", COMMANDS)
def test_help_ends_with_examples(name):
    result = CliRunner().invoke(importlib.import_module(f"ggdr.scripts.{name}").main, ["--help"])
    assert result.exit_code == 0
    assert result.output.count(f"  ggdr {name} --network") == 2
