# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr interpolate`, `stylemix`, `truncation` and `directions`: what they show, and what they say about bad input."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from ggdr.scripts.options.layer_sets import parse_layers, spans
from ggdr.scripts.truncation import parse_psis
from ggdr.stylegan2.generator import Generator
from ggdr.stylegan2.latent import sampling as latents
from ggdr.stylegan2.latent.sampling import generate_images, latents_of_seeds, map_latents, pictures
from ggdr.stylegan2.latent.w_directions import load_directions, move, save_directions
from ggdr.torch_utils.pictures import animation, sheets
from tests.tiny import pixels, save_tiny, tiny_generator

RES = 8  # of the tiny generator
COMMANDS = ["interpolate", "stylemix", "truncation", "directions"]


@pytest.fixture
def run(tmp_path):
    """Runs a command on a snapshot of a tiny network, pixels not enlarged; options after its own override them."""

    def run_command(name: str, *options: str, G: Generator | None = None) -> Result:
        network = save_tiny(tmp_path / "net.safetensors", G or tiny_generator())
        out = ["--outdir", str(tmp_path / "out")] if name == "directions" else ["--out", str(tmp_path / "out/x.png")]
        args = ["--network", str(network), *out, "--device", "cpu", "--size", str(RES), *options]
        if name == "directions" and "--use" not in options:
            args += ["--samples", "200", "--num", "3"] if "--num" not in options else ["--samples", "200"]
        return CliRunner().invoke(importlib.import_module(f"ggdr.scripts.{name}").main, args)

    return run_command


@pytest.fixture
def laid_out(monkeypatch):
    """The arguments of each contact sheet that is made."""
    calls: list[tuple[list, dict]] = []
    contact_sheet = sheets.contact_sheet

    def spy(cells, **options):
        calls.append((cells, options))
        return contact_sheet(cells, **options)

    monkeypatch.setattr(sheets, "contact_sheet", spy)
    return calls


@pytest.fixture
def filmed(monkeypatch):
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


# Interpolation.


@pytest.mark.parametrize("space", ["w", "z"])
@pytest.mark.parametrize("curve", ["cubic", "linear"])
def test_the_video_passes_through_the_key_images_and_closes(run, tmp_path, filmed, space, curve):
    options = ["--space", space, "--curve", curve, "--trunc", "0.8", "--noise-mode", "none"]
    out = tmp_path / "walk.mp4"
    result = ok(run("interpolate", "--seeds", "5,0-2", "--frames", "6", "--out", str(out), *options))
    assert "24 frames, 0.8 s" in result.output
    assert len(filmed) == 24 and len(list(iio.imread(out))) == 24
    for frame, image in zip(filmed[::6], images_of([5, 0, 1, 2], truncation_psi=0.8, noise_mode="none"), strict=True):
        assert close(frame, image)
    # The step over the seam is one like the others; a jump, or a frame shown twice, is not.
    steps = [
        np.abs(a.astype(int) - b.astype(int)).mean() for a, b in zip(filmed, [*filmed[1:], filmed[0]], strict=True)
    ]
    assert 0 < steps[-1] <= max(steps[:-1])


def test_a_straight_walk_is_a_line_in_w_and_an_arc_in_z(run, tmp_path, filmed):
    options = ["--seeds", "0-1", "--frames", "4", "--no-loop", "--curve", "linear", "--out", str(tmp_path / "walk.gif")]
    ok(run("interpolate", *options))
    ok(run("interpolate", *options, "--space", "z"))
    G = tiny_generator()
    a, b = latents_of_seeds([0, 1], G.z_dim)
    a, b = a / a.norm(), b / b.norm()
    angle = torch.arccos(a @ b)
    on_arc = ((0.75 * angle).sin() * a + (0.25 * angle).sin() * b) / angle.sin()
    ws = map_latents(G, torch.stack([a, b, on_arc]))
    for frame, w in ((filmed[1], 0.75 * ws[0] + 0.25 * ws[1]), (filmed[6], ws[2])):
        assert close(frame, next(pictures(G, w[None], batch_size=1)))
    assert not close(filmed[1], filmed[6])


def test_an_open_walk_ends_on_the_last_seed(run, tmp_path, filmed):
    ok(run("interpolate", "--seeds", "0-2", "--frames", "4", "--no-loop", "--out", str(tmp_path / "walk.gif")))
    assert len(filmed) == 9
    first, last = images_of([0, 2])
    assert close(filmed[0], first) and close(filmed[-1], last)


def test_seeds_are_dealt_out_to_the_cells_of_a_grid(run, tmp_path, filmed):
    ok(run("interpolate", "--grid", "3x2", "--seeds", "0-11", "--frames", "2", "--out", str(tmp_path / "walk.webp")))
    assert len(filmed) == 4 and filmed[0].shape == (2 * RES, 3 * RES, 3)
    for key in (0, 1):
        images = images_of(list(range(6 * key, 6 * key + 6)))
        for i, image in enumerate(images):
            y, x = RES * (i // 3), RES * (i % 3)
            assert close(filmed[2 * key][y : y + RES, x : x + RES], image)


def test_each_cell_has_keys_enough_by_default(run, tmp_path, filmed):
    result = ok(run("interpolate", "--grid", "2x1", "--frames", "1", "--out", str(tmp_path / "walk.gif")))
    assert "8 frames" in result.output and filmed[0].shape == (RES, 2 * RES, 3)


@pytest.mark.parametrize("batch", ["1", "3", "64"])
def test_frames_do_not_depend_on_the_batch(run, tmp_path, filmed, batch):
    options = ["--seeds", "0-5", "--grid", "2x1", "--frames", "3", "--out", str(tmp_path / "walk.gif")]
    ok(run("interpolate", *options))
    expected = list(filmed)
    filmed.clear()
    ok(run("interpolate", *options, "--batch", batch))
    assert len(filmed) == len(expected) == 9
    assert all(close(a, b) for a, b in zip(filmed, expected, strict=True))


def test_frames_are_written_as_they_are_made(run, tmp_path, monkeypatch):
    made: list[int] = []
    ahead: list[int] = []

    def save_animation(frames, path, *, fps):
        for i, _ in enumerate(frames):
            ahead.append(len(made) - i)
        return i + 1

    to_u8 = latents.to_u8
    monkeypatch.setattr(latents, "to_u8", lambda img: made.extend(range(len(img))) or to_u8(img))
    monkeypatch.setattr(animation, "save_animation", save_animation)
    ok(run("interpolate", "--seeds", "0-3", "--frames", "25", "--batch", "4", "--out", str(tmp_path / "walk.mp4")))
    assert len(ahead) == 100 and max(ahead) <= 4


def test_stills_show_a_row_from_each_key_to_the_next(run, laid_out):
    ok(run("interpolate", "--seeds", "0-3", "--grid", "2x1", "--frames", "3"))
    ((cells, options),) = laid_out
    assert options["rows"] == ["0 to 2", "2 to 0", "1 to 3", "3 to 1"]
    assert [len(row) for row in cells] == [4] * 4
    images = images_of([0, 1, 2, 3])
    for row, (first, last) in zip(cells, [(0, 2), (2, 0), (1, 3), (3, 1)], strict=True):
        assert close(row[0], images[first]) and close(row[-1], images[last])
        assert not close(row[1], row[0])


# Style mixing.


def test_style_mixing_names_its_panels_and_shows_its_sources(run, laid_out):
    result = ok(run("stylemix", "--rows", "0-1", "--cols", "2-4", "--layers", "all,coarse,1-2", "--trunc", "0.7"))
    assert "3 tables" in result.output
    titles = [options["title"] for _, options in laid_out]
    assert titles == ["All, layers 0-3 (4x4 to 8x8)", "Coarse, layer 0 (4x4)", "Layers 1-2 (8x8)"]
    images = images_of([0, 1, 2, 3, 4], truncation_psi=0.7)
    for cells, options in laid_out:
        assert options["rows"] == ["", "0", "1"] and options["columns"] == ["", "2", "3", "4"]
        assert cells[0][0] is None and [len(row) for row in cells] == [4, 4, 4]
        assert all(close(cells[1 + i][0], images[i]) for i in range(2))
        assert all(close(cells[0][1 + j], images[2 + j]) for j in range(3))
    # With all layers a table holds nothing but the columns' images.
    for row in laid_out[0][0][1:]:
        assert all(close(row[1 + j], images[2 + j]) for j in range(3))


@pytest.mark.parametrize("batch", ["1", "7"])
def test_style_mixing_puts_the_columns_styles_into_the_rows_images(run, laid_out, batch):
    ok(run("stylemix", "--rows", "0-1", "--cols", "2-4", "--layers", "0,2", "--batch", batch))
    G = tiny_generator()
    ws = map_latents(G, latents_of_seeds(range(5), G.z_dim))
    ((cells, _),) = laid_out
    for i in range(2):
        for j in range(3):
            mixed = ws[i].clone()
            mixed[[0, 2]] = ws[2 + j, [0, 2]]
            (expected,) = pictures(G, mixed[None], batch_size=1)
            assert close(cells[1 + i][1 + j], expected)


@pytest.mark.parametrize(
    ("text", "sets"),
    [
        ("coarse", ["coarse"]),
        ("Coarse, middle,coarse", ["coarse", "middle"]),
        ("0-2,5", [[0, 1, 2, 5]]),
        ("5,fine,0-2,1", [[0, 1, 2, 5], "fine"]),
    ],
)
def test_layers_are_names_and_numbers(text, sets):
    assert parse_layers(text) == sets


def test_numbers_are_written_as_ranges():
    assert spans([0, 1, 2, 5, 7, 8]) == "0-2, 5, 7-8"


# Truncation.


def test_psi_one_is_the_plain_image_and_psi_zero_the_same_for_all_seeds(run, laid_out):
    ok(run("truncation", "--seeds", "0-2", "--psis", "-0.5,0,1,1.5"))
    ((cells, options),) = laid_out
    assert options["columns"] == ["psi -0.5", "psi 0", "psi 1", "psi 1.5"]
    assert options["rows"] == ["seed 0", "seed 1", "seed 2"]
    for row, plain, beyond in zip(cells, images_of([0, 1, 2]), images_of([0, 1, 2], truncation_psi=1.5), strict=True):
        assert close(row[2], plain) and close(row[3], beyond)
        assert close(row[1], cells[0][1]) and not close(row[0], row[1])


def test_a_cutoff_leaves_the_layers_beyond_it(run, laid_out):
    ok(run("truncation", "--seeds", "0-1", "--psis", "0", "--trunc-cutoff", "2"))
    ((cells, _),) = laid_out
    expected = images_of([0, 1], truncation_psi=0, truncation_cutoff=2)
    assert all(close(row[0], image) for row, image in zip(cells, expected, strict=True))
    assert not close(cells[0][0], cells[1][0])


@pytest.mark.parametrize("kind", ["mp4", "gif", "webp"])
def test_a_sweep_goes_from_the_lowest_to_the_highest_and_back(run, tmp_path, filmed, laid_out, kind):
    out = tmp_path / f"psi.{kind}"
    options = ["--seeds", "0-7", "--psis", "1,-10,0.5", "--frames", "6", "--fps", "12"]
    result = ok(run("truncation", *options, "--out", str(out)))
    assert "6 frames, 0.5 s" in result.output and out.stat().st_size > 0
    assert len({frame.shape for frame in filmed}) == 1
    psis = [float(options["title"].removeprefix("psi ")) for _, options in laid_out]
    assert psis == [-10, -7.25, -1.75, 1, -1.75, -7.25]
    assert [len(row) for row in laid_out[0][0]] == [4, 4]
    for cell, image in zip(sum(laid_out[3][0], []), images_of(list(range(8))), strict=True):
        assert close(cell, image)


def test_strengths_are_read_in_order_and_once_each():
    assert parse_psis("1, -0.5,1.0,2") == [1, -0.5, 2]


# Directions.


@pytest.mark.parametrize("method", ["sefa", "pca"])
def test_directions_are_shown_from_side_to_side_around_each_seed(run, tmp_path, laid_out, method):
    options = ["--method", method, "--layers", "1-2", "--strength", "2", "--steps", "5", "--seeds", "3,1"]
    ok(run("directions", *options, "--trunc", "0.9"))
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"overview.png", "directions.safetensors", *(f"direction0{k}.png" for k in range(3))}
    found = load_directions(tmp_path / "out" / "directions.safetensors")
    assert found.method == method and found.layers == (1, 2)
    G = tiny_generator()
    ws = map_latents(G, latents_of_seeds([3, 1], G.z_dim), truncation_psi=0.9)
    *single, (overview, overview_options) = laid_out
    for k, (cells, options) in enumerate(single):
        assert options["columns"] == ["-2 sd", "-1 sd", "0", "+1 sd", "+2 sd"]
        assert options["rows"] == ["seed 3", "seed 1"]
        amounts = found.std[k] * torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0])
        expected = pictures(G, move(ws, found.vectors[k], amounts, [1, 2]).flatten(0, 1), batch_size=16)
        assert all(close(cell, image) for cell, image in zip(sum(cells, []), expected, strict=True))
        assert all(
            close(row[2], image) for row, image in zip(cells, images_of([3, 1], truncation_psi=0.9), strict=True)
        )
        assert not close(cells[0][0], cells[0][4])
        assert all(close(a, b) for a, b in zip(overview[k], cells[0], strict=True))
    assert "Seed 3, layers 1-2" in overview_options["note"]


@pytest.mark.parametrize("method", ["sefa", "pca"])
def test_directions_do_not_depend_on_seeds_or_batch(run, tmp_path, method):
    files = []
    for options in (["--seeds", "0"], ["--seeds", "4-5", "--batch", "3"]):
        ok(run("directions", "--method", method, *options))
        files.append(load_directions(tmp_path / "out" / "directions.safetensors"))
    for name in ("vectors", "std", "share"):
        assert torch.equal(getattr(files[0], name), getattr(files[1], name))


def test_directions_of_a_file_are_used_as_they_are(run, tmp_path, laid_out):
    ok(run("directions", "--layers", "coarse", "--steps", "3"))
    first = [cells for cells, _ in laid_out]
    laid_out.clear()
    use = ["--use", str(tmp_path / "out" / "directions.safetensors"), "--outdir", str(tmp_path / "again")]
    ok(run("directions", *use, "--steps", "3", "--num", "2"))
    assert sorted(path.name for path in (tmp_path / "again").iterdir()) == [
        "direction00.png",
        "direction01.png",
        "overview.png",
    ]
    for (cells, _), expected in zip(laid_out[:2], first[:2], strict=True):
        assert all(close(a, b) for a, b in zip(sum(cells, []), sum(expected, []), strict=True))
    # For other layers, if asked.
    laid_out.clear()
    ok(run("directions", *use, "--steps", "3", "--layers", "fine"))
    assert "layers 3" in laid_out[-1][1]["note"] and not close(laid_out[0][0][0][0], first[0][0][0])


@pytest.mark.parametrize("strength", ["0.3", "0.7", "1e-3"])
def test_the_middle_of_odd_steps_is_the_image_itself(run, laid_out, strength):
    ok(run("directions", "--strength", strength, "--steps", "7", "--num", "1"))
    assert laid_out[0][1]["columns"][3] == "0"


# All of them.


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
    for class_idx in (0, 2):
        ok(run(name, *options, "--class", str(class_idx), G=G))
        cells = laid_out[0][0]
        shown[class_idx] = {"stylemix": (1, 0), "directions": (0, 3)}.get(name, (0, 0))
        row, column = shown[class_idx]
        assert close(cells[row][column], images_of([0, 1], G, class_idx=class_idx)[0])
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
        ("interpolate", ["--seeds", "3"], ["--seeds", "1x1 walks need 2 seeds", "got 1"]),
        ("interpolate", ["--grid", "2x2", "--seeds", "0-8"], ["--seeds", "need 8 seeds, or 12, 16", "got 9"]),
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


def test_a_file_of_directions_that_does_not_fit_is_refused(run, tmp_path):
    G = tiny_generator(res=16)
    ok(run("directions", G=G))
    path = tmp_path / "out" / "directions.safetensors"
    outdir = ["--outdir", str(tmp_path / "again")]
    for use, options, message in [
        (path, [], "moves layers 0-5"),
        (path, ["--layers", "all", "--num", "4"], "holds 3 directions"),
        (path, ["--layers", "all", "--method", "pca"], "no --method"),
        (path, ["--layers", "all", "--samples", "5"], "no --samples"),
        (tmp_path / "net.safetensors", [], "but not of directions"),
    ]:
        result = run("directions", "--use", str(use), *outdir, *options)
        assert result.exit_code == 2 and message in " ".join(result.output.split()), result.output
    found = load_directions(path)
    save_directions(path, replace(found, vectors=found.vectors[:, :4]))
    result = run("directions", "--use", str(path), *outdir, G=G)
    assert result.exit_code == 2 and "of a W of 4 numbers" in " ".join(result.output.split())
    assert not (tmp_path / "again").exists()


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
