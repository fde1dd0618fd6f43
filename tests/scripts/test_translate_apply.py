# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr translate apply`: sizes, names, transparency and grey, and what is refused."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image, ImageCms, ImageSequence

from ggdr.scripts.translating.image_files import to_srgb
from ggdr.torch_utils.checkpoint import SnapshotError, load_snapshot, save_snapshot
from ggdr.torch_utils.data.image_files import load_image
from ggdr.torch_utils.data.video_files import open_video
from ggdr.torch_utils.pictures.animation import save_animation
from ggdr.torch_utils.pictures.images import from_u8, to_u8
from ggdr.translation.config import (
    ComboGANGeneratorConfig,
    PatchDiscriminatorConfig,
    ResnetGeneratorConfig,
    UnetGeneratorConfig,
)
from ggdr.translation.layers import init_weights
from ggdr.translation.networks import build_network
from ggdr.translation.snapshot import load_translator


def translate(*args, code=0, command="apply"):
    """Runs `ggdr translate apply` or another in this process; returns what it printed, without line ends."""
    from ggdr.scripts.cli import main

    result = CliRunner().invoke(main, ["translate", command, *map(str, args)], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


def save_networks(path, channels=3):
    """A snapshot of tiny networks as a run saves it."""
    configs = {"G": UnetGeneratorConfig(channels, 3, 4, 6), "D": PatchDiscriminatorConfig(channels + 3, 4, 2)}
    nets = {name: build_network(config) for name, config in configs.items()}
    for net in nets.values():
        init_weights(net, torch.Generator().manual_seed(0))
    states = {name: net.state_dict() for name, net in nets.items()}
    save_snapshot(path, states, {name: config.to_json() for name, config in configs.items()})
    return path


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    return save_networks(tmp_path_factory.mktemp("network") / "net.safetensors")


def image(mode="RGB", size=(70, 40)):
    noise = np.random.RandomState(0).randint(0, 256, (size[1], size[0], 4), np.uint8)
    return Image.fromarray(noise).convert(mode)


def test_translations_have_the_sizes_and_names_of_their_images(network, tmp_path):
    folder = tmp_path / "in"
    (folder / "below").mkdir(parents=True)
    image(size=(33, 64)).save(folder / "below" / "a.b.jpg")
    image().save(folder / "c.png")
    image(size=(20, 21)).save(tmp_path / "alone.webp", lossless=True)
    out = tmp_path / "out"
    assert "3 images written" in translate(folder, tmp_path / "alone.webp", "--network", network, "--outdir", out)
    sizes = {str(p.relative_to(out)): Image.open(p).size for p in out.rglob("*.png")}
    assert sizes == {"below/a.b.png": (33, 64), "c.png": (70, 40), "alone.png": (20, 21)}
    x = from_u8(torch.from_numpy(np.asarray(Image.open(folder / "c.png")).copy()).permute(2, 0, 1)[None])
    expected = to_u8(load_translator(network)(x))[0].permute(1, 2, 0).numpy()
    assert np.array_equal(np.asarray(Image.open(out / "c.png")), expected)
    # One image's result depends on no other, and on the seed of the noise.
    translate(folder / "c.png", "--network", network, "--outdir", tmp_path / "two")
    assert (tmp_path / "two" / "c.png").read_bytes() == (out / "c.png").read_bytes()
    translate(folder / "c.png", "--network", network, "--outdir", tmp_path / "two", "--seed", 1)
    assert (tmp_path / "two" / "c.png").read_bytes() != (out / "c.png").read_bytes()


def test_transparency_is_kept_and_grey_is_colour(network, tmp_path):
    clear = image("RGBA")
    clear.save(tmp_path / "clear.png")
    white = Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear).convert("RGB")
    white.save(tmp_path / "white.png")
    image("L").save(tmp_path / "grey.png")
    image("L").convert("RGB").save(tmp_path / "grey_rgb.png")
    files = [tmp_path / f"{name}.png" for name in ("clear", "white", "grey", "grey_rgb")]
    translate(*files, "--network", network, "--outdir", tmp_path / "out")
    made = {path.stem: np.asarray(Image.open(tmp_path / "out" / path.name)) for path in files}
    assert np.array_equal(made["clear"][:, :, 3], np.asarray(clear)[:, :, 3])
    assert np.array_equal(made["clear"][:, :, :3], made["white"]) and np.array_equal(made["grey"], made["grey_rgb"])
    translate(files[0], "--network", network, "--outdir", tmp_path / "jpg", "--format", "jpg")
    assert Image.open(tmp_path / "jpg" / "clear.jpg").mode == "RGB"
    grey = save_networks(tmp_path / "grey.safetensors", channels=1)
    translate(tmp_path / "grey_rgb.png", "--network", grey, "--outdir", tmp_path / "from_grey")
    assert Image.open(tmp_path / "from_grey" / "grey_rgb.png").mode == "RGB"


def test_what_cannot_be_written_is_refused_before_anything_is(network, tmp_path):
    image().save(tmp_path / "a.png")
    image().save(tmp_path / "a.jpg")
    before = (tmp_path / "a.png").read_bytes()
    args, out = ["--network", network, "--outdir"], tmp_path / "out"
    message = translate(tmp_path / "a.png", tmp_path / "a.jpg", *args, out, code=2)
    assert "a.jpg: its translation would be" in message and "as that of" in message and not out.exists()
    message = translate(tmp_path / "a.png", *args, tmp_path, code=2)
    assert "would replace" in message and (tmp_path / "a.png").read_bytes() == before
    (tmp_path / "text.png").write_text("no image")
    assert "text.png: cannot be decoded" in translate(tmp_path / "text.png", *args, out, code=2)
    message = translate(tmp_path / "a.png", tmp_path / "text.png", *args, out, code=2)
    assert "1 of 2 files cannot be translated, and nothing was written: " in message and not out.exists()
    (tmp_path / "empty").mkdir()
    assert "empty" in translate(tmp_path / "empty", *args, out, code=2)
    data = io.BytesIO()
    image().save(data, "PNG")
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as file:
        file.writestr(f"{tmp_path}/stolen.png", data.getvalue())
    translate(tmp_path / "evil.zip", *args, out, code=2)
    assert not (tmp_path / "stolen.png").exists()


def test_a_snapshot_that_is_none_is_named(network, tmp_path):
    image().save(tmp_path / "a.png")
    args = [tmp_path / "a.png", "--outdir", tmp_path / "out", "--network"]
    bad = tmp_path / "bad.safetensors"
    snapshot = load_snapshot(network)

    def changed(networks, **config):
        save_snapshot(bad, networks, {**snapshot.config, **config})
        return translate(*args, bad, code=2)

    assert "settings of G describe no network of image translation" in changed(snapshot.networks, G={"z_dim": 3})
    assert "G is a patch_discriminator, expected a resnet_generator or" in changed(
        snapshot.networks, G=snapshot.config["D"]
    )
    assert "holds D, but no G" in changed({"D": snapshot.networks["D"]})
    G = dict(snapshot.networks["G"])
    assert "weights of G do not fit" in changed({"G": {**G, "model.model.0.weight": torch.zeros(1)}})
    name = next(name for name in G if name.endswith("num_batches_tracked"))
    assert "counts of batches" in changed({"G": {**G, name: torch.zeros([])}})
    with pytest.raises(SnapshotError, match="no such file"):
        load_translator(tmp_path / "nowhere.safetensors")


def test_a_file_that_is_damaged_behind_its_header_does_not_stop_the_others(network, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in "abc":
        image(size=(200, 150)).save(folder / f"{name}.png")
    whole = (folder / "b.png").read_bytes()
    (folder / "b.png").write_bytes(whole[: len(whole) // 2])
    message = translate(folder, "--network", network, "--outdir", tmp_path / "out", "--batch", 3, code=2)
    assert "2 images written" in message and "1 of 3 files were not translated: " in message and "b.png: " in message
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "c.png"]


def test_of_many_files_that_cannot_be_read_ten_are_named(network, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(14):
        image(size=(40, 40)).save(folder / f"{i:02}.png")
        if i:
            whole = (folder / f"{i:02}.png").read_bytes()
            (folder / f"{i:02}.png").write_bytes(whole[: len(whole) // 2])
    message = translate(folder, "--network", network, "--outdir", tmp_path / "out", code=2)
    assert "13 of 14 files were not translated: " in message and "; and 3 more" in message
    assert "10.png" in message and "11.png" not in message


def test_a_file_that_is_given_twice_is_taken_once(network, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    image().save(folder / "a.png")
    args = ["--network", network, "--outdir", tmp_path / "out"]
    message = translate(folder / "a.png", folder, folder / ".." / "in" / "a.png", *args)
    assert message.count("given twice, taken once") == 2 and "1 image written" in message


def test_images_in_batches_are_as_alone(network, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(5):
        noise = np.random.RandomState(i).randint(0, 256, (40, 70 if i != 2 else 33, 3), np.uint8)
        Image.fromarray(noise).save(folder / f"{i}.png")
    for batch in (1, 3):
        translate(folder, "--network", network, "--outdir", tmp_path / str(batch), "--batch", batch)
    for i in range(5):
        alone, together = (np.asarray(Image.open(tmp_path / name / f"{i}.png")).astype(int) for name in "13")
        assert np.abs(alone - together).max() <= 1


def test_large_images_go_through_in_tiles(network, tmp_path):
    image(size=(300, 140)).save(tmp_path / "large.png")
    image(size=(64, 50)).save(tmp_path / "small.png")
    files, args = [tmp_path / "large.png", tmp_path / "small.png"], ["--network", network]
    translate(*files, *args, "--outdir", tmp_path / "whole")
    translate(*files, *args, "--outdir", tmp_path / "tiles", "--tile", 64, "--overlap", 8, "--batch", 2)
    made = {name: np.asarray(Image.open(tmp_path / name)) for name in ("whole/large.png", "tiles/large.png")}
    assert made["tiles/large.png"].shape == (140, 300, 3)
    assert not np.array_equal(*made.values())
    assert (tmp_path / "whole/small.png").read_bytes() == (tmp_path / "tiles/small.png").read_bytes()
    # The first tile, where no other one reaches.
    Image.open(files[0]).crop((0, 0, 64, 64)).save(tmp_path / "corner.png")
    translate(tmp_path / "corner.png", *args, "--outdir", tmp_path / "tiles")
    corner = np.asarray(Image.open(tmp_path / "tiles/corner.png")).astype(int)
    assert np.abs(corner - made["tiles/large.png"][:64, :64])[:20, :20].max() <= 1
    for option, expected in (
        (["--tile", 100], "expected 64 or 128, got 100"),
        (["--tile", 64, "--overlap", 33], "expected up to half of the tile, 32, got 33"),
        (["--overlap", 3], "there are no tiles without --tile"),
    ):
        assert expected in translate(*files, *args, "--outdir", tmp_path / "no", *option, code=2)


def test_an_image_for_which_memory_does_not_suffice_is_refused_with_advice(network, tmp_path, monkeypatch):
    from ggdr.torch_utils.timing import free_memory

    image(size=(2000, 1000)).save(tmp_path / "large.png")
    monkeypatch.setattr(free_memory, "free_bytes", lambda device: 30 * 2**20)
    args = [tmp_path / "large.png", "--network", network, "--outdir", tmp_path / "out"]
    message = translate(*args, code=2)
    assert "2000x1000 pixels take about" in message and "0.0 GiB are free" in message and "--tile 256" in message
    assert "at once" not in translate(*args, "--batch", 4, code=2)
    image(size=(2000, 1000)).save(tmp_path / "another.png")
    assert "2000x1000 pixels, 2 at once, take" in translate(tmp_path / "another.png", *args, "--batch", 4, code=2)
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(free_memory, "free_bytes", lambda device: None)
    assert "1 image written" in translate(*args)


def test_images_stand_upright_and_lose_their_profiles(network, tmp_path):
    picture = image(size=(70, 40))
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its left side
    picture.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    picture.save(tmp_path / "upright.png")
    # A profile whose red and green are exchanged.
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    tags = {srgb[i : i + 4]: i + 4 for i in range(132, 132 + 12 * int.from_bytes(srgb[128:132], "big"), 12)}
    swapped = bytearray(srgb)
    for a, b in ((b"rXYZ", b"gXYZ"), (b"gXYZ", b"rXYZ")):
        swapped[tags[a] : tags[a] + 8] = srgb[tags[b] : tags[b] + 8]
    r, g, b = picture.split()
    Image.merge("RGB", [g, r, b]).save(tmp_path / "profile.png", icc_profile=bytes(swapped))
    alpha = Image.merge("RGB", [g, r, b]).convert("RGBA")
    alpha.putalpha(200)
    alpha.save(tmp_path / "alpha.png", icc_profile=bytes(swapped))
    picture.save(tmp_path / "damaged.png", icc_profile=b"no profile")
    names = ("upright", "turned", "profile", "damaged", "alpha")
    shown = {}
    for name in names:
        img = load_image((tmp_path / f"{name}.png").read_bytes(), name)
        shown[name] = np.asarray(to_srgb(img)).astype(int)
    for name in ("turned", "profile", "damaged"):
        assert np.abs(shown[name] - shown["upright"]).max() <= 2, name
    assert np.abs(shown["alpha"][..., :3] - shown["upright"]).max() <= 2 and (shown["alpha"][..., 3] == 200).all()
    translate(*(tmp_path / f"{name}.png" for name in names), "--network", network, "--outdir", tmp_path / "out")
    made = {name: Image.open(tmp_path / "out" / f"{name}.png") for name in names}
    assert all("icc_profile" not in img.info and not img.getexif() and img.size == (70, 40) for img in made.values())
    assert np.array_equal(made["turned"], made["upright"])


def test_videos_and_animations_keep_size_and_time(network, tmp_path):
    frames = [np.asarray(image(size=(47, 33))) // (i + 1) for i in range(5)]
    save_animation(frames, tmp_path / "film.mp4", fps=12.5)
    save_animation(frames, tmp_path / "moves.gif", fps=5, durations_ms=[100, 200, 300, 100, 50])
    save_animation(frames, tmp_path / "moves2.webp", fps=5)
    files = [tmp_path / name for name in ("film.mp4", "moves.gif", "moves2.webp")]
    (tmp_path / "still.gif").write_bytes(b"")
    image().convert("P").save(tmp_path / "still.gif")
    args = ["--network", network, "--outdir"]
    message = translate(*files, tmp_path / "still.gif", *args, tmp_path / "out", "--batch", 2)
    assert "1 image and 3 videos written" in message and "left out" not in message
    video = open_video(tmp_path / "out" / "film.mp4")
    assert (video.size, video.fps, video.num_frames) == ((48, 34), 12.5, 5)
    for name in ("moves.gif", "moves2.webp"):
        before, after = (list(ImageSequence.Iterator(Image.open(x / name))) for x in (tmp_path, tmp_path / "out"))
        assert len(after) == 5 and after[0].size == (47, 33)
    with Image.open(tmp_path / "out" / "moves.gif") as img:
        assert [frame.info["duration"] for frame in ImageSequence.Iterator(img)] == [100, 200, 300, 100, 50]
    # Each frame as the image alone.
    with Image.open(tmp_path / "moves2.webp") as img:
        img.seek(3)
        img.convert("RGB").save(tmp_path / "frame.png")
    translate(tmp_path / "frame.png", *args, tmp_path / "one")
    with Image.open(tmp_path / "out" / "moves2.webp") as img:
        img.seek(3)
        difference = np.asarray(img.convert("RGB")).astype(int) - np.asarray(Image.open(tmp_path / "one" / "frame.png"))
    assert np.abs(difference).mean() < 6  # of a lossy file
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    assert "bad.mp4: no video of a known kind" in translate(tmp_path / "bad.mp4", *args, tmp_path / "no", code=2)


def test_what_is_left_out_is_said(network, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    image().save(folder / "pages.tif", save_all=True, append_images=[image()] * 2)
    (folder / "film.mp4").write_bytes(b"")
    message = translate(folder, "--network", network, "--outdir", tmp_path / "out")
    assert "1 file left out, not read as images: 1 .mp4" in message and "the first of 3 pages or frames" in message


@pytest.fixture(scope="module")
def seasons(tmp_path_factory):
    """A snapshot of ComboGAN with three domains, and its generator."""
    path = tmp_path_factory.mktemp("combogan") / "seasons.safetensors"
    config = ComboGANGeneratorConfig(channels=4, encoder_blocks=1, decoder_blocks=1, domains=3)
    G = build_network(config)
    init_weights(G, torch.Generator().manual_seed(0))
    save_snapshot(path, {"G": G.state_dict()}, {"G": config.to_json(), "domains": ["spring", "summer", "winter"]})
    return path


def test_domains_are_options_or_names_of_folders(seasons, tmp_path):
    for name in ("spring", "trainsummer", "photos"):
        (tmp_path / name).mkdir()
        image().save(tmp_path / name / f"{name}.png")
    args = ["--network", seasons, "--outdir"]
    spring, summer, photos = (tmp_path / name for name in ("spring", "trainsummer", "photos"))

    def made(*words):
        translate(*words, *args, tmp_path / "out")
        return (tmp_path / "out" / f"{words[0].name}.png").read_bytes()

    assert made(spring, "--to", "winter") == made(spring, "--from", "Spring", "--to", "WINTER")
    assert made(summer, "--to", "winter") == made(summer, "--from", "summer", "--to", "winter")
    assert made(spring, "--to", "winter") != made(spring, "--to", "winter", "--from", "summer")
    assert made(spring, "--to", "winter") != made(spring, "--to", "summer")
    for words, expected in (
        ([spring], "is a ComboGAN of 3 domains, spring, summer, winter: say which the images become"),
        ([spring, "--to", "winer"], "got 'winer'; did you mean 'winter'?"),
        ([photos, "--to", "winter"], "its folder, 'photos', is called like none"),
        ([spring, "--to", "spring"], "expected another domain than --to, got spring"),
    ):
        assert expected in translate(*words, *args, tmp_path / "no", code=2)
        assert not (tmp_path / "no").exists()


def test_of_two_domains_one_follows_from_the_other(tmp_path, network):
    config = ResnetGeneratorConfig(channels=4, blocks=1)
    nets = {name: build_network(config) for name in ("G_A", "G_B")}
    for i, net in enumerate(nets.values()):
        init_weights(net, torch.Generator().manual_seed(i))
    path = tmp_path / "cyclegan.safetensors"
    states = {name: net.state_dict() for name, net in nets.items()}
    save_snapshot(path, states, {**dict.fromkeys(nets, config.to_json()), "domains": ["horse", "zebra"]})
    image().save(tmp_path / "a.png")

    def made(*words):
        translate(tmp_path / "a.png", *words, "--network", path, "--outdir", tmp_path / "out")
        return (tmp_path / "out" / "a.png").read_bytes()

    assert made("--to", "zebra") == made("--from", "horse") == made("--from", "horse", "--to", "zebra")
    assert made("--to", "zebra") != made("--to", "horse")
    one_way = [tmp_path / "a.png", "--network", network, "--outdir", tmp_path / "no", "--to", "zebra"]
    assert "pix2pix, which translates one way only: leave it out" in translate(*one_way, code=2)


def test_a_sheet_shows_images_translations_and_what_comes_back(seasons, network, tmp_path):
    for name in ("spring", "summer"):
        (tmp_path / name).mkdir()
        for i in range(3):
            image(size=(20, 20)).save(tmp_path / name / f"{i}.png")
    sizes = {}

    def sheet(*words, code=0):
        args = ["--out", tmp_path / "sheet.png", "--size", 20]
        message = translate(tmp_path / "spring", *words, *args, code=code, command="sheet")
        if not code:
            sizes[words] = Image.open(tmp_path / "sheet.png").size
        return message

    assert "3 of 3 images written" in sheet("--network", network)
    assert "2 of 6 images written" in sheet(tmp_path / "summer", "--network", seasons, "--most", 2)
    sheet("--network", seasons)
    sheet("--network", seasons, "--to", "winter")
    (one_way, most, every, one) = sizes.values()
    # Rows of 20 pixels and 4 between: one for each image, and one more for what comes back from several domains.
    assert every[1] - one[1] == 3 * 24 and every[0] > one[0] > one_way[0] and one[1] == one_way[1]
    picture = np.asarray(Image.open(tmp_path / "sheet.png"))
    back = load_translator(seasons)
    x = from_u8(torch.from_numpy(np.asarray(Image.open(tmp_path / "spring" / "0.png")).copy()).permute(2, 0, 1)[None])
    there = to_u8(back(x, "spring", "winter"))
    again = to_u8(back(from_u8(there), "winter", "spring"))
    for cell in (to_u8(x), there, again):
        pixels = cell[0].permute(1, 2, 0).numpy()
        assert any(
            np.array_equal(picture[y : y + 20, x : x + 20], pixels)
            for y in range(picture.shape[0] - 19)
            for x in range(picture.shape[1] - 19)
        )
    save_animation([np.asarray(image())] * 3, tmp_path / "film.mp4", fps=5)
    assert "a sheet is made of images" in sheet(tmp_path / "film.mp4", "--network", network, code=2)
