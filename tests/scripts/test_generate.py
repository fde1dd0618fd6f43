# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr generate`: seeds, files, and what it says about bad input."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import safetensors.torch
import torch
from click.testing import CliRunner, Result
from PIL import Image

from ggdr.scripts.generate import main
from ggdr.scripts.options.network import parse_grid, parse_seeds
from ggdr.stylegan2.generator import Generator
from ggdr.stylegan2.latent.sampling import generate_images
from tests.conftest import ROOT
from tests.tiny import pixels, save_tiny, tiny_generator

SNAPSHOTS = [f"network-snapshot-00000{kimg}.safetensors" for kimg in (0, 8, 4)]


@pytest.fixture
def run(tmp_path):
    """Runs the command on a snapshot of a tiny network; options after its own override them."""

    def run_generate(*options: str, G: Generator | None = None) -> Result:
        G = G or tiny_generator()
        network = save_tiny(tmp_path / "net.safetensors", G)
        args = ["--network", str(network), "--outdir", str(tmp_path / "out"), "--device", "cpu", *options]
        return CliRunner().invoke(main, args)

    return run_generate


def images_of(G: Generator, seeds: list[int], **options) -> torch.Tensor:
    options = {"device": "cpu", "batch_size": 4, **options}
    return torch.cat([images_u8 for _, images_u8, _ in generate_images(G, seeds, **options)])


# Seeds.


@pytest.mark.parametrize(
    ("text", "seeds"),
    [
        ("7", [7]),
        ("0-3,100", [0, 1, 2, 3, 100]),
        (" 5 , 1 - 2 ", [5, 1, 2]),
        ("3,1-4,3", [3, 1, 2, 3, 4, 3]),
        ("9-9", [9]),
    ],
)
def test_seeds_are_read_in_order_and_can_come_back(text: str, seeds: list[int]):
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "got ''"),
        ("1,,2", "got '' in '1,,2'"),
        ("a-b", "got 'a-b'"),
        ("-3", "got '-3'"),
        ("1.5", "got '1.5'"),
        ("5-3", "from low to high, got '5-3'"),
        ("0-99999999999", "1000000 seeds at most"),
        (str(2**63), "expected seeds up to"),
    ],
)
def test_bad_seeds_are_named(text: str, message: str):
    with pytest.raises(ValueError, match=message):
        parse_seeds(text)


def test_grid_is_columns_by_rows():
    assert parse_grid("8x4") == (8, 4)
    for text in ("8", "0x4", "8x", "axb", "-1x2"):
        with pytest.raises(ValueError, match="expected columns x rows"):
            parse_grid(text)


@pytest.mark.parametrize("noise_mode", ["const", "random", "none"])
def test_a_seed_gives_the_same_image_in_any_batch_and_company(noise_mode: str):
    G = tiny_generator()
    together = images_of(G, [3, 1, 4, 5], noise_mode=noise_mode)
    alone = images_of(G, [4], noise_mode=noise_mode)
    ones = images_of(G, [5, 4, 1, 3], noise_mode=noise_mode, batch_size=1)
    # Kernels may round differently by batch size: one level at most.
    assert (together[2].int() - alone[0].int()).abs().max() <= 1
    assert (together.int() - ones[[3, 2, 1, 0]].int()).abs().max() <= 1
    assert (together[0].int() - together[1].int()).abs().max() > 1


def test_global_random_state_neither_matters_nor_moves():
    G = tiny_generator()
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = images_of(G, [0, 1], noise_mode="random")
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(images_of(G, [0, 1], noise_mode="random"), first)


def test_a_caller_that_stops_halfway_is_not_left_in_inference_mode():
    images = generate_images(tiny_generator(), [0, 1], device="cpu", batch_size=1)
    next(images)
    assert not torch.is_inference_mode_enabled()


def test_latent_is_the_first_draw_of_the_seed_on_the_cpu():
    G = tiny_generator()
    z = torch.randn([6], generator=torch.Generator("cpu").manual_seed(42))
    ((_, _, ws),) = generate_images(G, [42], device="cpu", batch_size=1)
    assert torch.allclose(ws, G.mapping(z[None], torch.zeros([1, 0])), atol=1e-6)


def test_options_reach_the_network():
    G = tiny_generator(c_dim=3)
    plain = images_of(G, [0, 1], label=1)
    assert not torch.equal(images_of(G, [0, 1], label=2), plain)
    assert not torch.equal(images_of(G, [0, 1], label=1, noise_mode="none"), plain)
    assert not torch.equal(images_of(G, [0, 1], label=1, noise_mode="random"), plain)
    mean = images_of(G, [0, 1], label=1, truncation_psi=0.0)
    assert torch.equal(mean[0], mean[1]) and not torch.equal(mean, plain)
    assert torch.equal(images_of(G, [0, 1], label=1, truncation_psi=0.0, truncation_cutoff=0), plain)


# Files.


@pytest.mark.parametrize("img_channels", [1, 3, 4])
def test_one_picture_is_written_for_each_seed(run, tmp_path, img_channels: int):
    G = tiny_generator(img_channels=img_channels)
    result = run("--seeds", "0-4,12345", "--batch", "4", G=G)
    assert result.exit_code == 0, result.output
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == [*(f"seed000{i}.png" for i in range(5)), "seed12345.png"]
    expected = images_of(G, [0, 1, 2, 3, 4, 12345])
    for i, name in enumerate(names):
        image = pixels(tmp_path / "out" / name).reshape(8, 8, img_channels)
        assert np.array_equal(image, expected[i].permute(1, 2, 0).numpy())
    assert f"6 images written to {tmp_path / 'out'}" in result.output


def test_module_runs_as_a_script(run, tmp_path):
    run("--seeds", "0")
    args = [
        "--network",
        str(tmp_path / "net.safetensors"),
        "--seeds",
        "0",
        "--outdir",
        str(tmp_path / "again"),
    ]
    command = [sys.executable, "-m", "ggdr", "generate", *args, "--device", "cpu"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert np.array_equal(pixels(tmp_path / "again" / "seed0000.png"), pixels(tmp_path / "out" / "seed0000.png"))


@pytest.mark.parametrize(("file_format", "kind"), [("jpg", "JPEG"), ("webp", "WEBP")])
def test_formats_are_what_they_are_called(run, tmp_path, file_format: str, kind: str):
    assert run("--seeds", "0", "--format", file_format).exit_code == 0
    with Image.open(tmp_path / "out" / f"seed0000.{file_format}") as picture:
        assert picture.format == kind and picture.size == (8, 8)


def test_grid_replaces_single_pictures_and_leaves_spare_cells_empty(run, tmp_path):
    assert run("--seeds", "0-4", "--grid", "3x2", "--batch", "2").exit_code == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["grid.png"]
    grid = pixels(tmp_path / "out" / "grid.png")
    assert grid.shape == (16, 24, 3)
    expected = images_of(tiny_generator(), [0, 1, 2, 3, 4], batch_size=2).permute(0, 2, 3, 1).numpy()
    assert np.array_equal(grid[:8, 16:], expected[2]) and np.array_equal(grid[8:, :8], expected[3])
    assert (grid[8:, 16:] == 0).all()


def test_npz_holds_images_seeds_and_w(run, tmp_path):
    G = tiny_generator()
    assert run("--seeds", "5,0-2", "--format", "npz", "--save-w", "--trunc", "0.5", "--batch", "3", G=G).exit_code == 0
    with np.load(tmp_path / "out" / "images.npz") as file:
        assert set(file) == {"images", "seeds", "w"}
        assert file["images"].shape == (4, 8, 8, 3) and file["images"].dtype == np.uint8
        assert file["seeds"].tolist() == [5, 0, 1, 2]
        assert file["w"].shape == (4, G.num_ws, 5) and file["w"].dtype == np.float32
        # w is truncated already: the synthesis network alone makes the image from it.
        img = G.synthesis(torch.from_numpy(file["w"]), noise_mode="const")
        again = (img * 127.5 + 128).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
        assert np.abs(again.astype(int) - file["images"]).max() <= 1


def test_npz_has_no_w_unless_asked(run, tmp_path):
    assert run("--seeds", "0", "--format", "npz").exit_code == 0
    with np.load(tmp_path / "out" / "images.npz") as file:
        assert set(file) == {"images", "seeds"}


# Bad input.


@pytest.mark.parametrize(
    ("options", "messages"),
    [
        (["--seeds", "3-1"], ["--seeds", "3-1"]),
        (["--seeds", "x"], ["--seeds", "'x'", "0-63,100"]),
        (["--seeds", "0-4", "--grid", "2x2"], ["--grid", "4 images", "5 seeds"]),
        (["--seeds", "0", "--grid", "2"], ["--grid", "columns x rows"]),
        (["--seeds", "0", "--grid", "2x2", "--format", "npz"], ["--grid", "png, jpg or webp"]),
        (["--seeds", "0", "--save-w"], ["--save-w", "npz", "got png"]),
        (["--seeds", "0", "--class", "1"], ["--class", "unconditional"]),
        (["--seeds", "0", "--trunc-cutoff", "99"], ["--trunc-cutoff", "got 99"]),
        (["--seeds", "0", "--batch", "0"], ["--batch"]),
        (["--seeds", "0", "--noise-mode", "loud"], ["--noise-mode", "loud"]),
        (["--seeds", "0", "--network", "missing.safetensors"], ["--network", "missing.safetensors"]),
        ([], ["--seeds"]),
    ],
)
def test_bad_options_are_named_and_nothing_is_made(run, tmp_path, options: list[str], messages: list[str]):
    result = run(*options)
    assert result.exit_code == 2 and isinstance(result.exception, SystemExit)
    for message in messages:
        assert message in " ".join(result.output.split())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("options", [[], ["--class", "3"]])
def test_conditional_network_says_how_many_classes_it_has(run, options: list[str]):
    result = run("--seeds", "0", *options, G=tiny_generator(c_dim=3))
    assert result.exit_code == 2
    assert "3 classes: expected one of 0 to 2" in " ".join(result.output.split())


def test_jpeg_of_four_channels_is_refused(run, tmp_path):
    result = run("--seeds", "0", "--format", "jpg", G=tiny_generator(img_channels=4))
    assert result.exit_code == 2 and "no alpha" in result.output
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_cuda_that_is_not_there_is_refused(run):
    result = run("--seeds", "0", "--device", "cuda")
    assert result.exit_code == 2 and "--device" in result.output and "no CUDA device" in result.output


@pytest.mark.parametrize("kind", ["text", "empty", "truncated", "foreign"])
def test_file_that_is_no_snapshot_is_refused_with_its_name(run, tmp_path, kind: str):
    path = tmp_path / "other.safetensors"
    foreign = safetensors.torch.save({"weight": torch.zeros(2)})
    save_tiny(path, tiny_generator())
    whole = path.read_bytes()
    path.write_bytes({"text": b"hello", "empty": b"", "truncated": whole[: len(whole) // 2], "foreign": foreign}[kind])
    result = run("--seeds", "0", "--network", str(path))
    assert result.exit_code == 2 and isinstance(result.exception, SystemExit)
    assert "--network" in result.output and "other.safetensors" in result.output
    assert "snapshot" in result.output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("theirs.pkl", "no snapshot; networks of others are imported first: ggdr import-weights theirs.pkl"),
        ("theirs.pt", "ggdr import-weights theirs.pt theirs.safetensors"),
        ("ffhq256", "a published network is imported first: ggdr import-weights ffhq256 ffhq256.safetensors"),
        ("empty", "empty: a folder that holds no network-best.safetensors and no network-snapshot-*.safetensors"),
        ("run/training-state.pt", "expected a network-snapshot-*.safetensors of that run"),
        ("typo.safetensors", "'typo.safetensors' does not exist"),
    ],
)
def test_what_is_taken_for_a_snapshot_is_told_what_to_do(run, tmp_path, monkeypatch, given: str, message: str):
    monkeypatch.chdir(tmp_path)
    for folder in ("run", "empty"):
        (tmp_path / folder).mkdir()
    for name in ("theirs.pkl", "theirs.pt", "run/training-state.pt", *(f"run/{s}" for s in SNAPSHOTS)):
        (tmp_path / name).write_bytes(b"PK")
    result = run("--seeds", "0", "--network", given)
    assert result.exit_code == 2 and message in " ".join(result.output.split())


@pytest.mark.parametrize("outdir", ["file", "file/below", "/proc/nothing-can-be-made-here"])
def test_folder_that_cannot_be_written_is_named(run, tmp_path, outdir: str):
    (tmp_path / "file").write_text("mine")
    result = run("--seeds", "0", "--outdir", str(tmp_path / outdir))
    assert result.exit_code == 2 and isinstance(result.exception, SystemExit)
    assert "--outdir" in result.output and outdir.split("/")[-1] in result.output
    assert (tmp_path / "file").read_text() == "mine"


def test_full_disk_keeps_the_old_picture_and_exits_with_a_message(run, tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "seed0000.png").write_bytes(b"old")

    def crash(self, file, format, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", crash)
    result = run("--seeds", "0")
    assert result.exit_code == 2 and "No space left on device" in " ".join(result.output.split())
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["seed0000.png"]
    assert (tmp_path / "out" / "seed0000.png").read_bytes() == b"old"


def test_help_ends_with_examples():
    result = CliRunner().invoke(main, ["--help"])
    assert result.exit_code == 0
    assert result.output.count("  ggdr generate --network") == 2
