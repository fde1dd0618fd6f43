# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr project`: what it reads, what it writes, and what it says about bad input."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from ggdr.metrics.lpips import LPIPS, load_lpips
from ggdr.metrics.vgg import shapes_of
from ggdr.scripts.project import main
from ggdr.scripts.viewing.photographs import Target, read_targets
from ggdr.scripts.viewing.projection_distance import compare_by_lpips
from ggdr.scripts.viewing.projection_files import MAX_NAMED, psnr_text, save_sheet
from ggdr.scripts.viewing.projection_files import Result as Found
from ggdr.stylegan2 import load_generator
from ggdr.stylegan2.generator import Generator
from ggdr.stylegan2.latent.sampling import generate_images
from ggdr.torch_utils.pictures.images import save_image
from tests.tiny import pixels, save_tiny, tiny_generator

FILES = ["photo-loss.png", "photo-projected.png", "photo-target.png", "photo.mp4", "photo.npz", "sheet.png"]


@pytest.fixture
def run(tmp_path):
    """Runs the command for a few steps on a tiny network; options after its own override them."""

    def run_project(*options: object, G: Generator | None = None, guide_res: int | None = None) -> Result:
        network = save_tiny(tmp_path / "net.safetensors", G or tiny_generator(), guide_res=guide_res)
        args = ["--network", network, "--outdir", tmp_path / "out", "--device", "cpu", "--steps", 4, *options]
        return CliRunner().invoke(main, [str(arg) for arg in args])

    return run_project


@pytest.fixture
def photo(tmp_path) -> Path:
    """An image that the tiny network makes."""
    return write_image_of(tiny_generator(), tmp_path / "photo.png")


def write_image_of(G: Generator, path: Path, *, seed: int = 3, label: int | None = None) -> Path:
    ((_, images_u8, _),) = generate_images(G, [seed], device="cpu", batch_size=1, label=label)
    save_image(images_u8[0], path)
    return path


def gradient(width: int, height: int) -> np.ndarray:
    """[height, width, 3] uint8; red grows to the right, green downwards."""
    image = np.zeros((height, width, 3), np.uint8)
    image[:, :, 0] = np.linspace(0, 255, width)
    image[:, :, 1] = np.linspace(0, 255, height)[:, None]
    return image


def latent_of(tmp_path: Path, name: str = "photo") -> dict[str, np.ndarray]:
    with np.load(tmp_path / "out" / f"{name}.npz") as file:
        return dict(file)


def text_of(result: Result) -> str:
    return " ".join(result.output.split())


# Files.


@pytest.mark.parametrize("noise_mode", ["const", "none", "optimise"])
def test_the_latent_on_disk_gives_the_projected_image_again(run, tmp_path, photo, noise_mode: str):
    result = run(photo, "--noise-mode", noise_mode, "--space", "w+")
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == FILES
    # As docs/visualise.md shows it.
    G = load_generator(tmp_path / "net.safetensors")
    with np.load(tmp_path / "out" / "photo.npz") as file:
        ws = torch.from_numpy(file["ws"])
        noise = [torch.from_numpy(file[name]) for name in sorted(file) if name.startswith("noise")] or None
    with torch.no_grad():
        img = G.synthesis(ws, noise=noise, noise_mode="none" if noise_mode == "none" else "const")
    save_image(img[0], tmp_path / "again.png")
    assert (noise is None) == (noise_mode != "optimise")
    again, stored = pixels(tmp_path / "again.png"), pixels(tmp_path / "out" / "photo-projected.png")
    assert np.abs(again.astype(int) - stored).max() <= 1
    assert np.array_equal(pixels(tmp_path / "out" / "photo-target.png"), pixels(photo))


def test_latent_says_how_it_was_found(run, tmp_path, photo):
    assert run(photo, "--seed", 5, "--space", "w").exit_code == 0
    latent = latent_of(tmp_path)
    assert set(latent) == {"ws", "losses", "about"}
    assert latent["ws"].shape == (1, tiny_generator().num_ws, 5) and latent["ws"].dtype == np.float32
    assert (latent["ws"] == latent["ws"][:, :1]).all()
    assert latent["losses"].shape == (5,) and latent["losses"].dtype == np.float32
    about = json.loads(str(latent["about"]))
    assert about["image"] == str(photo) and about["network"].endswith("net.safetensors")
    assert (about["seed"], about["steps"], about["space"], about["distance"]) == (5, 4, "w", "pixels")


def test_an_image_of_the_generator_is_found(run, tmp_path, photo):
    result = run(photo, "--steps", 100, "--no-video", guide_res=8)
    assert "the features of the snapshot's discriminator" in result.output
    losses = latent_of(tmp_path)["losses"]
    assert losses[-1] < losses[0] / 10
    error = pixels(tmp_path / "out" / "photo-projected.png").astype(float) - pixels(photo)
    assert np.abs(error).mean() < 8
    assert f"photo: distance {losses[0]:.3g} to {losses[-1]:.3g}, PSNR" in text_of(result)


def test_same_seed_same_files_whatever_the_global_random_state(run, tmp_path, photo):
    latents = []
    for seed, state in ((1, 0), (1, 99), (2, 0)):
        torch.manual_seed(state)
        assert run(photo, "--seed", seed, "--no-video").exit_code == 0
        latents.append(latent_of(tmp_path)["ws"])
    assert np.array_equal(latents[0], latents[1]) and not np.array_equal(latents[0], latents[2])


@pytest.mark.parametrize("kind", ["mp4", "gif", "webp"])
def test_video_shows_target_and_every_step_and_stays_on_the_last(run, tmp_path, photo, kind: str):
    assert run(photo, "--video", kind).exit_code == 0
    frames = iio.imread(tmp_path / "out" / f"photo.{kind}", index=None if kind == "mp4" else ...)
    # GIF and WebP store an image that stays as one, and Pillow then shows it longer.
    assert len(frames) == 5 + 30 if kind == "mp4" else len(frames) >= 5
    first, last = frames[0][..., :3].astype(float), frames[-1][..., :3].astype(float)
    assert first.shape[1] > 2 * 256
    left, right = slice(0, 260), slice(270, 520)
    assert np.abs(first[:280, left] - last[:280, left]).mean() < 3
    assert np.abs(first[:280, right] - last[:280, right]).mean() > 3


def test_no_video_is_made_unless_wanted(run, tmp_path, photo):
    assert run(photo, "--no-video").exit_code == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [x for x in FILES if x != "photo.mp4"]


@pytest.mark.parametrize("img_channels", [1, 4])
def test_networks_of_other_channels_work(run, tmp_path, img_channels: int):
    G = tiny_generator(img_channels=img_channels)
    path = write_image_of(G, tmp_path / "photo.png")
    assert run(path, G=G, guide_res=8).exit_code == 0
    target = pixels(tmp_path / "out" / "photo-target.png")
    assert np.array_equal(target, pixels(path)) and target.shape == ((8, 8), (8, 8, 4))[img_channels == 4]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == FILES


def test_class_chooses_where_latents_start(run, tmp_path):
    G = tiny_generator(c_dim=3)
    path = write_image_of(G, tmp_path / "photo.png", label=1)
    starts = []
    for label in (0, 1):
        assert run(path, "--class", label, "--no-video", G=G).exit_code == 0
        starts.append(latent_of(tmp_path)["losses"][0])
    assert abs(starts[0] - starts[1]) > 0.01


# Images.


def test_images_are_cropped_to_their_centre_and_resized_and_it_is_said(run, tmp_path):
    Image.fromarray(gradient(64, 32)).save(tmp_path / "photo.png")
    result = run(tmp_path / "photo.png", "--no-video")
    assert "photo.png: 64x32, cropped to its central 32x32, shrunk to 8x8" in text_of(result)
    target = pixels(tmp_path / "out" / "photo-target.png").astype(int)
    expected = gradient(64, 32)[:, 16:48].reshape(8, 4, 8, 4, 3).mean((1, 3))
    assert np.abs(target - expected).max() <= 1


def test_images_of_every_kind_are_read(tmp_path):
    picture = Image.fromarray(gradient(16, 16))
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side
    picture.save(tmp_path / "turned.png", exif=exif)
    picture.convert("L").save(tmp_path / "grey.png")
    picture.convert("RGBA").save(tmp_path / "clear.webp", lossless=True)
    Image.fromarray(np.full([4, 4], 65535, np.uint16)).save(tmp_path / "deep.png")
    paths = [tmp_path / name for name in ("turned.png", "grey.png", "clear.webp", "deep.png")]
    turned, grey, clear, deep = read_targets(paths, 16, 3)
    assert np.array_equal(turned.image, np.rot90(gradient(16, 16), -1))
    assert np.array_equal(grey.image, np.asarray(picture.convert("L").convert("RGB")))
    assert np.array_equal(clear.image, gradient(16, 16))
    assert (deep.image == 255).all() and "4x4, enlarged to 16x16" in deep.describe()
    assert read_targets(paths[:1], 8, 1)[0].image.shape == (8, 8, 1)


def test_folders_zips_and_files_of_one_name_are_projected_in_batches(run, tmp_path, photo):
    for folder in ("faces", "faces/more"):
        (tmp_path / folder).mkdir()
        write_image_of(tiny_generator(), tmp_path / folder / "photo.png", seed=len(folder))
    with zipfile.ZipFile(tmp_path / "pack.zip", "w") as archive:
        archive.write(tmp_path / "faces" / "photo.png", "inside.png")
    result = run(photo, tmp_path / "faces", tmp_path / "pack.zip", "--batch", 3, "--no-video")
    assert result.exit_code == 0, result.output
    latents = {path.stem: latent_of(tmp_path, path.stem) for path in (tmp_path / "out").glob("*.npz")}
    assert set(latents) == {"photo", "photo-2", "photo-3", "inside"}
    images = {name: json.loads(str(latent["about"]))["image"] for name, latent in latents.items()}
    assert images["photo"] == str(photo) and images["inside"].endswith("pack.zip/inside.png")
    # The same picture in another batch.
    same = next(name for name in ("photo-2", "photo-3") if images[name].endswith("faces/photo.png"))
    assert np.allclose(latents[same]["ws"], latents["inside"]["ws"], atol=1e-3)
    assert not np.allclose(latents[same]["ws"], latents["photo"]["ws"], atol=1e-2)


def test_sheets_of_few_images_name_them_and_those_of_many_are_about_square(tmp_path):
    def found(i: int) -> Found:
        image = np.full([8, 8, 3], i, np.uint8)
        target = Target(f"image{i}", f"image{i}.png", (8, 8), image)
        return Found(target, image, np.zeros([1, 2, 3]), [], np.ones(3))

    save_sheet([found(i) for i in range(2)], tmp_path / "few.png")
    save_sheet([found(i) for i in range(MAX_NAMED * 5)], tmp_path / "many.png")
    few, many = pixels(tmp_path / "few.png"), pixels(tmp_path / "many.png")
    assert few.shape[1] > 2 * 128 + 50
    assert 0.5 < many.shape[0] / many.shape[1] < 2


def test_long_names_are_shortened_on_pictures():
    target = Target("from-2021-08-14-a-very-long-name-of-a-photograph-0001", "", (8, 8), np.zeros([8, 8, 3], np.uint8))
    assert target.short_name == "from-2021-08…tograph-0001"
    assert replace(target, name="photo").short_name == "photo"


def test_psnr_of_8_bit_images():
    black = np.zeros([4, 4, 3], np.uint8)
    assert psnr_text(black, black) == "equal"
    assert psnr_text(black + 255, black) == "PSNR 0.0 dB"
    assert psnr_text(black + 5, black) == "PSNR 34.2 dB"


# LPIPS.


@pytest.fixture
def lpips_files(tmp_path) -> list[Path]:
    """Random weights of VGG16 and of LPIPS."""
    rng = torch.Generator().manual_seed(0)
    shapes = shapes_of(LPIPS())
    vgg = {k: torch.randn(v, generator=rng) * 0.05 for k, v in shapes.items() if not k.startswith("linear.")}
    linear = {f"lin{i}.model.1.weight": torch.rand(shapes[f"linear.{i}"], generator=rng) for i in range(5)}
    torch.save(vgg, tmp_path / "vgg.pth")
    torch.save(linear, tmp_path / "lpips.pth")
    return [tmp_path / "vgg.pth", tmp_path / "lpips.pth"]


def test_lpips_is_used_if_its_weights_are_given(run, tmp_path, photo, lpips_files):
    vgg, linear = lpips_files
    result = run(photo, "--vgg", vgg, "--lpips", linear, "--no-video", "--steps", 2, guide_res=8)
    assert result.exit_code == 0 and "compared by LPIPS" in result.output, result.output
    assert json.loads(str(latent_of(tmp_path)["about"]))["distance"] == "LPIPS"
    assert np.isfinite(latent_of(tmp_path)["losses"]).all()


def test_lpips_sees_every_channel_and_has_a_gradient(lpips_files):
    net = load_lpips(*lpips_files)
    rng = torch.Generator().manual_seed(1)
    for channels, res in ((1, 8), (3, 16), (4, 8)):
        target = torch.rand([2, channels, res, res], generator=rng) * 2 - 1
        img = target.flip(3).requires_grad_()
        distance = compare_by_lpips(net, img, target)
        assert distance.shape == (2,) and (distance > 0).all()
        (grad,) = torch.autograd.grad(distance.sum(), img)
        assert grad.isfinite().all() and (grad.abs().amax([0, 2, 3]) > 0).all()
        assert compare_by_lpips(net, target, target).abs().max() == 0
        black = torch.full_like(target, -1).requires_grad_()
        (grad,) = torch.autograd.grad(compare_by_lpips(net, black, black.detach()).sum(), black)
        assert grad.isfinite().all()


# Bad input.


@pytest.mark.parametrize(
    ("options", "messages"),
    [
        (["missing.jpg"], ["missing.jpg", "does not exist"]),
        (["text.png"], ["text.png", "cannot be decoded"]),
        (["empty"], ["empty", "no images in this folder"]),
        (["float.tiff"], ["float.tiff", "floating-point"]),
        ([], ["IMAGE"]),
        (["photo.png", "--space", "z"], ["--space", "'z'"]),
        (["photo.png", "--steps", "0"], ["--steps"]),
        (["photo.png", "--lr", "0"], ["--lr"]),
        (["photo.png", "--lr", "nan"], ["--lr", "expected a number above 0"]),
        (["photo.png", "--lr", "1e4"], ["--lr", "1000"]),
        (["photo.png", "--video", "avi"], ["--video", "avi"]),
        (["photo.png", "--class", "1"], ["--class", "unconditional"]),
        (["photo.png", "--vgg", "text.png"], ["--lpips", "both"]),
        (["photo.png", "--lpips", "text.png"], ["--vgg", "both"]),
        (["photo.png", "--vgg", "no.pth", "--lpips", "text.png"], ["no.pth", "no such file"]),
        (["photo.png", "--vgg", "text.png", "--lpips", "text.png"], ["text.png", "expected VGG16"]),
        (["photo.png", "--network", "text.png"], ["--network", "text.png", "snapshot"]),
    ],
)
def test_bad_input_is_named_and_nothing_is_made(run, tmp_path, monkeypatch, photo, options, messages):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "empty").mkdir()
    Image.fromarray(np.zeros([4, 4], np.float32)).save(tmp_path / "float.tiff")
    result = run(*options)
    assert result.exit_code == 2 and isinstance(result.exception, SystemExit), result.output
    for message in messages:
        assert message in text_of(result)
    assert not (tmp_path / "out").exists()


def test_conditional_network_says_how_many_classes_it_has(run, photo):
    result = run(photo, G=tiny_generator(c_dim=3))
    assert result.exit_code == 2 and "Missing option '--class'." in text_of(result)


def test_folder_that_cannot_be_written_is_named(run, tmp_path, photo):
    (tmp_path / "file").write_text("mine")
    result = run(photo, "--outdir", tmp_path / "file" / "below")
    assert result.exit_code == 2 and "--outdir" in result.output and isinstance(result.exception, SystemExit)


def test_a_network_that_has_diverged_is_named(run, photo):
    G = tiny_generator()
    G.synthesis.b8.conv1.weight.fill_(float("nan"))
    result = run(photo, G=G)
    assert result.exit_code == 2 and "net.safetensors" in result.output and "diverged" in text_of(result)


def test_a_search_that_diverges_names_the_learning_rate(run, tmp_path, photo, monkeypatch):
    def diverging(target, D):
        return lambda img: img.flatten(1).mean(1) * float("nan")

    monkeypatch.setattr("ggdr.stylegan2.latent.image_distance.distance_to", diverging)
    result = run(photo, "--lr", "2")
    assert result.exit_code == 2 and "--lr 2: the distance is NaN" in text_of(result)
    assert "lower learning rate" in text_of(result) and not list((tmp_path / "out").iterdir())


def test_help_ends_with_examples():
    result = CliRunner().invoke(main, ["--help"])
    assert result.exit_code == 0 and result.output.count("  ggdr project ") == 2
