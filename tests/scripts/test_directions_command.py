# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr directions`: sheets of directions that were found, or read from a file."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ggdr.stylegan2.latent.sampling import latents_of_seeds, map_latents, pictures
from ggdr.stylegan2.latent.w_directions import load_directions, move, save_directions
from tests.looking_cases import close, images_of, laid_out_sheets, ok, run_looking  # noqa: F401
from tests.tiny import tiny_generator


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
