# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Latents that `ggdr project` and `ggdr generate --save-w` wrote stand where seeds do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from ggdr.scripts.generate import main as generate
from ggdr.scripts.options.latents import parse_latents
from ggdr.stylegan2.latent.sampling import latents_of_seeds, map_latents
from tests.looking_cases import COMMANDS, close, filmed_frames, images_of, laid_out_sheets, ok, run_looking  # noqa: F401
from tests.tiny import pixels, save_tiny, tiny_generator

OPTION = {"stylemix": "--rows"}


def latent_file(path: Path, seeds: list[int], *, name: str = "ws", **others: np.ndarray) -> Path:
    """What `ggdr project` writes (name "ws") or `ggdr generate --save-w` ("w"), of these seeds' latents."""
    G = tiny_generator()
    np.savez(path, **{name: map_latents(G, latents_of_seeds(seeds, G.z_dim)).numpy(), **others})
    return path


def run_generate(tmp_path: Path, *options: str, c_dim: int = 0) -> Result:
    network = save_tiny(tmp_path / "net.safetensors", tiny_generator(c_dim=c_dim))
    args = ["--network", str(network), "--outdir", str(tmp_path / "out"), "--device", "cpu", *options]
    return CliRunner().invoke(generate, args)


def test_seeds_and_files_are_read_in_order():
    assert parse_latents("0-1, p/a.npz,0") == [0, 1, Path("p/a.npz"), 0]
    with pytest.raises(ValueError, match="got 'a.png'"):
        parse_latents("0,a.png")


@pytest.mark.parametrize("name", COMMANDS)
def test_a_latent_of_a_file_looks_as_its_seed(run, laid_out, tmp_path, name):
    option, file = OPTION.get(name, "--seeds"), latent_file(tmp_path / "photo.npz", [5])
    shown = []
    for item in ("5", file):
        ok(run(name, option, f"{item},1", "--trunc-cutoff", "2", *(["--psis", "0.5,1"] if name == "truncation" else []))
           if name != "directions" else run(name, option, f"{item},1"))  # fmt: skip
        shown.append(laid_out[0][0])
        texts = str(laid_out[0][1])
        laid_out.clear()
    assert "photo" in texts
    for of_seed, of_file in zip(*shown, strict=True):
        assert all(a is b is None or close(a, b) for a, b in zip(of_seed, of_file, strict=True))


def test_a_walk_goes_from_photograph_to_photograph_and_seed(run, filmed, tmp_path):
    a, b = (latent_file(tmp_path / f"{i}.npz", [i]) for i in (7, 8))
    options = ["--frames", "3", "--no-loop", "--out", str(tmp_path / "walk.gif")]
    ok(run("interpolate", "--seeds", f"{a},2,{b}", *options))
    assert len(filmed) == 7
    for frame, image in zip(filmed[::3], images_of([7, 2, 8]), strict=True):
        assert close(frame, image)
    result = run("interpolate", "--seeds", str(a), *options)
    assert result.exit_code == 2 and f"a walk needs 2 latents or more, of seeds or files; got 1, of {a}" in " ".join(
        result.output.split()
    )
    result = run("interpolate", "--seeds", f"{a},2", "--space", "z", *options)
    assert result.exit_code == 2 and "'--space'" in result.output and "expected w, got z" in result.output


def test_what_save_w_stored_is_generated_again_and_pictures_take_the_files_names(tmp_path):
    ok(run_generate(tmp_path, "--seeds", "3-5", "--format", "npz", "--save-w", "--trunc", "0.7"))
    images = np.load(tmp_path / "out" / "images.npz")["images"]
    (tmp_path / "a").mkdir()
    other = latent_file(tmp_path / "a" / "images-1.npz", [9])
    ok(run_generate(tmp_path, "--seeds", f"{tmp_path / 'out' / 'images.npz'},{other}", "--batch", "2"))
    names = sorted(path.name for path in (tmp_path / "out").glob("*.png"))
    assert names == ["images-0.png", "images-1-2.png", "images-1.png", "images-2.png"]
    for i in range(3):
        assert close(pixels(tmp_path / "out" / f"images-{i}.png"), images[i])
    ok(run_generate(tmp_path, "--seeds", f"4,{other}", "--format", "npz"))
    assert np.load(tmp_path / "out" / "images.npz")["seeds"].tolist() == [4, -1]


def test_latents_of_files_are_truncated_as_those_of_seeds(tmp_path):
    file = latent_file(tmp_path / "photo.npz", [5])
    ok(run_generate(tmp_path, "--seeds", f"5,{file}", "--trunc", "0.4", "--trunc-cutoff", "2"))
    assert close(pixels(tmp_path / "out" / "seed0005.png"), pixels(tmp_path / "out" / "photo.png"))


def test_files_alone_need_no_class(tmp_path):
    file = latent_file(tmp_path / "photo.npz", [5])
    ok(run_generate(tmp_path, "--seeds", str(file), c_dim=3))
    assert run_generate(tmp_path, "--seeds", f"{file},0", c_dim=3).exit_code == 2


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (None, "no such file"),
        ({"images": np.zeros(3)}, "holds no latents: expected ws, as of ggdr project, or w"),
        ({"ws": np.zeros((1, 4, 9), np.float32)}, "holds latents float32 [1, 4, 9], expected float [N, 4, 5]"),
        ({"ws": np.zeros((0, 4, 5), np.float32)}, "expected float [N, 4, 5]"),
        ({"ws": np.zeros((1, 4, 5), int)}, "holds latents int64"),
        ({"w": np.full((1, 4, 5), np.nan, np.float32)}, "NaN or infinite"),
    ],
)
def test_files_that_do_not_fit_are_named_and_nothing_is_made(tmp_path, arrays, message):
    if arrays is not None:
        np.savez(tmp_path / "x.npz", **arrays)
    result = run_generate(tmp_path, "--seeds", str(tmp_path / "x.npz"))
    output = " ".join(result.output.split())
    assert result.exit_code == 2 and "'--seeds'" in output and message in output and "x.npz" in output
    assert not (tmp_path / "out").exists()


def test_noise_that_cannot_be_had_again_is_spoken_of(tmp_path):
    file = latent_file(tmp_path / "photo.npz", [5], noise00=np.zeros(3))
    assert "its noise is not used" in ok(run_generate(tmp_path, "--seeds", str(file))).output
    result = run_generate(tmp_path, "--seeds", str(file), "--noise-mode", "random")
    assert result.exit_code == 2 and "'--noise-mode'" in result.output
