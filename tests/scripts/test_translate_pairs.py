# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr translate pairs`: sources, layout, the same bytes each time, and what is refused; then training on them."""

from __future__ import annotations

import zipfile

import click
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from ggdr.translation.data.datasets import PairedImages
from ggdr.translation.data.decode import Side
from ggdr.translation.data.pair_tasks import HOLE_COLOR, TASKS
from tests.dataset_files import encode
from tests.torch_utils.data.conftest import our_files, png, write


def pairs(*args, code=0):
    """Runs `ggdr translate pairs` in this process; returns what it printed, without line ends."""
    return command("pairs", *args, code=code)


def command(*args, code=0):
    from ggdr.scripts.cli import main

    result = CliRunner().invoke(main, ["translate", *map(str, args)], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


def colours(number, size=(40, 32)):
    """A smooth image of another look for each number, uint8 [H, W, 3]."""
    coarse = np.random.RandomState(number).randint(0, 256, (4, 5, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC))


@pytest.fixture
def photos(tmp_path):
    """Ten images, in folders, of two sizes."""
    files = {f"{'ab'[i % 2]}/{i}.png": png(colours(i, (40, 32) if i < 8 else (32, 48))) for i in range(10)}
    return write(tmp_path / "photos", files)


def images_of(dest):
    """{name: pixels} of a set of pairs."""
    if dest.suffix == ".zip":
        with zipfile.ZipFile(dest) as archive:
            return {name: np.asarray(Image.open(archive.open(name))) for name in archive.namelist()}
    return {str(path.relative_to(dest)): np.asarray(Image.open(path)) for path in dest.rglob("*.png")}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", ["out", "out.zip"])
def test_pairs_are_read_as_such(photos, tmp_path, task, name):
    dest = tmp_path / name
    output = pairs("--task", task, photos, dest, "--test", 0.2)
    assert f"{dest}: 8 pairs to train on and 2 to test, {task}" in output
    found = images_of(dest)
    assert {key.partition("/")[0] for key in found} == {"trainA", "trainB", "testA", "testB"}
    # In the order of names: folder a, then b. Test images are spread over it.
    originals = [np.asarray(Image.open(path)) for path in sorted(photos.rglob("*.png"))]
    assert sorted(key for key in found if key.startswith("testB")) == [
        "testB/img00000000.png", "testB/img00000005.png",
    ]  # fmt: skip
    for i, original in enumerate(originals):
        split = "test" if i in (0, 5) else "train"
        assert (found[f"{split}B/img{i:08d}.png"] == original).all()
        assert found[f"{split}A/img{i:08d}.png"].shape[:2] == original.shape[:2]
    for split, num in (("train", 8), ("test", 2)):
        dataset = PairedImages(dest, split=split)
        assert len(dataset) == num and dataset.sides == (Side(3), Side(3))
        assert [each.split("/")[0] for each in dataset.first_pair()] == [f"{split}A", f"{split}B"]


def test_the_same_bytes_come_each_time_whatever_the_number_of_processes(photos, tmp_path, monkeypatch):
    from ggdr.torch_utils.data import convert_dataset

    monkeypatch.setattr(convert_dataset, "_BATCH_IMAGES", 3)
    args = ["--task", "inpaint", photos, "--test", 0.3]
    for name, more in (("a", ["--workers", 1]), ("b", ["--workers", 2]), ("c", ["--workers", 1, "--seed", 1])):
        pairs(*args, tmp_path / f"{name}.zip", *more)
    a, b, c = ((tmp_path / f"{name}.zip").read_bytes() for name in "abc")
    assert a == b and a != c
    # An image has the same hole in whatever selection it comes.
    pairs(*args[:-2], tmp_path / "some", "--max-images", 5)
    whole, some = images_of(tmp_path / "a.zip"), images_of(tmp_path / "some")
    assert len(some) == 10 and len(whole) == 20
    holes = {(image == HOLE_COLOR).all(axis=2).tobytes() for name, image in whole.items() if "A/" in name}
    assert all(
        (image == HOLE_COLOR).all(axis=2).tobytes() in holes for name, image in some.items() if name[:6] == "trainA"
    )


def test_options_of_tasks_do_what_they_say(photos, tmp_path):
    for name, args in (
        ("f2", ["--task", "superres", "--factor", 2]),
        ("f8", ["--task", "superres", "--factor", 8]),
        ("s1", ["--task", "edges"]),
        ("s4", ["--task", "edges", "--sigma", 6]),
        ("rect", ["--task", "inpaint", "--holes", "rectangle"]),
    ):
        pairs(*args, photos, tmp_path / name)
    a = {name: images_of(tmp_path / name) for name in ("f2", "f8", "s1", "s4", "rect")}

    def distance(name):
        images = [(image, a[name][key.replace("A/", "B/")]) for key, image in a[name].items() if "A/" in key]
        return np.mean([np.abs(x.astype(float) - y).mean() for x, y in images])

    assert 0 < distance("f2") < distance("f8") / 3
    key = "trainA/img00000002.png"
    assert (a["s1"][key] == 0).sum() > (a["s4"][key] == 0).sum() and set(np.unique(a["s1"][key])) == {0, 255}
    hole = (a["rect"][key] == HOLE_COLOR).all(axis=2)
    assert hole.any() and hole.sum() == hole.any(axis=0).sum() * hole.any(axis=1).sum()


def test_size_cuts_squares_out_of_the_middle(photos, tmp_path):
    pairs("--task", "colorize", photos, tmp_path / "out", "--size", 32)
    found = images_of(tmp_path / "out")
    assert {image.shape[:2] for image in found.values()} == {(32, 32)}
    first = np.asarray(Image.open(photos / "a" / "0.png"))
    assert (found["trainB/img00000000.png"] == first[:, 4:36]).all()
    message = pairs("--task", "colorize", photos, tmp_path / "large", "--size", 40, code=2)
    assert "photos/a/0.png: is 40x32, smaller than the 40x40 of --size" in message
    assert not (tmp_path / "large").exists()


def test_sources_of_all_kinds(tmp_path):
    ours = write(tmp_path / "set.zip", our_files([colours(i, (16, 16)) for i in range(6)], [0, 1] * 3))
    transparent = np.zeros((9, 12, 4), np.uint8)
    transparent[:, 6:] = (200, 10, 30, 255)
    mixed = {
        "one/grey.jpg": encode(np.full((20, 20), 77, np.uint8), "jpeg"),
        "two/seen.png": png(transparent),
        "two/wide.webp": encode(colours(3, (60, 20)), "webp", lossless=True),
    }
    for source, num in ((ours, 6), (write(tmp_path / "mixed", mixed), 3), ("digits", 4)):
        dest = tmp_path / f"{num}"
        output = pairs("--task", "superres", source, dest, "--max-images", num)
        assert f"{num} pairs to train on, superres" in output
    found = images_of(tmp_path / "3")
    assert (found["trainB/img00000001.png"][:, :6] == 255).all()
    assert (found["trainB/img00000001.png"][:, 6:] == (200, 10, 30)).all()
    assert images_of(tmp_path / "4")["trainB/img00000000.png"].shape == (32, 32, 3)


def test_pairs_that_teach_nothing_are_told_of(tmp_path):
    grey = {f"{i}.png": png(np.full((16, 16), i, np.uint8)) for i in range(3)}
    source = write(tmp_path / "grey", grey)
    message = pairs("--task", "colorize", source, tmp_path / "out", code=2)
    assert "colorize changes none of its images, so that there is nothing to learn" in message
    write(source, {"z.png": png(colours(1))})
    assert "note: 3 of 4 pairs have two equal images" in pairs("--task", "colorize", source, tmp_path / "out")


def test_broken_images_are_named_and_may_be_left_out(photos, tmp_path):
    (photos / "a" / "4.png").write_bytes(b"nothing")
    (photos / "notes.txt").write_text("x")
    args = ["--task", "colorize", photos, tmp_path / "out"]
    message = pairs(*args, code=2)
    assert "photos/a/4.png: cannot be decoded" in message and "--skip-broken leaves such files out" in message
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".*partial"))
    output = pairs(*args, "--skip-broken")
    assert "9 pairs to train on" in output and "note: " in output and "a/4.png" in output and "1 .txt" in output


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--task", "colourize"], "'--task': expected colorize or edges or inpaint or superres, got 'colourize'; did"),
        (["--task", "colorize", "--factor", "4"], "'--factor': is for --task superres, and has no meaning for"),
        (["--task", "superres", "--sigma", "4"], "'--sigma': is for --task edges, and has no meaning for superres"),
        (["--task", "edges", "--holes", "mixed"], "'--holes': is for --task inpaint"),
        (["--task", "superres", "--factor", "1"], "expected a whole number from 2 to 16, got '1'"),
        (["--task", "edges", "--test", "1"], "expected a number from 0 and below 1, got '1'"),
        (["--task", "edges", "--test", "0.97"], "10 images, of which --test 0.97 leaves none to train on"),
        (["--task", "edges", "--size", "4"], "expected a whole number from 8 to 8192, got '4'"),
        (["--task", "inpaint", "--holes", "round"], "expected rectangle or strokes or mixed, got 'round'"),
        ([], "Missing option '--task'"),
    ],
)  # fmt: skip
def test_bad_options_are_a_message_and_write_nothing(args, message, photos, tmp_path):
    assert message in pairs(*args, photos, tmp_path / "out", code=2)
    assert not (tmp_path / "out").exists()


def test_places_that_cannot_be_are_named(photos, tmp_path):
    args = ["--task", "edges"]
    assert "nowhere: no such file or folder" in pairs(*args, tmp_path / "nowhere", tmp_path / "out", code=2)
    assert "lies inside SOURCE" in pairs(*args, photos, photos / "out", code=2)
    assert "is SOURCE itself" in pairs(*args, photos, photos, code=2)
    assert "expected a name ending in .zip, or that of a folder" in pairs(*args, photos, tmp_path / "x.png", code=2)
    empty = write(tmp_path / "empty", {"a.txt": b""})
    assert "no images in this folder; 1 file left out" in pairs(*args, empty, tmp_path / "out", code=2)
    dest = tmp_path / "dest"
    pairs(*args, photos, dest)
    assert "dest exists; give --overwrite to replace it" in pairs(*args, photos, dest, code=2)
    assert "5 pairs" in pairs(*args, photos, dest, "--overwrite", "--max-images", 5)
    assert len(images_of(dest)) == 10
    (dest / "mine.txt").write_text("x")
    assert "holds mine.txt, so it is no set of pairs of ours" in pairs(*args, photos, dest, "--overwrite", code=2)
    tiny = write(tmp_path / "tiny", {"a.png": png(np.zeros((7, 30, 3), np.uint8))})
    assert "a.png: is 30x7, expected sides of 8 pixels or more for edges" in pairs(*args, tiny, tmp_path / "o", code=2)
    small = ["--task", "superres", "--factor", 16, photos, tmp_path / "o"]
    assert "32 pixels or more for superres" in pairs(*small, "--size", 24, code=2)


def test_they_are_trained_on_and_applied(photos, tmp_path):
    pairs("--task", "colorize", photos, tmp_path / "grey2colour", "--test", 0.2)
    tiny = ["--channels", 4, "--device", "cpu", "--kimg", 0.008, "--cfg", "cpu"]
    output = command("train", "--data", tmp_path / "grey2colour", "--outdir", tmp_path / "run", *tiny)
    assert "the input is trainA/img00000001.png, the target trainB/img00000001.png" in output
    assert "8 pairs from" in output
    command("apply", "--network", tmp_path / "run", tmp_path / "grey2colour" / "testA", "--outdir", tmp_path / "out")
    made = np.asarray(Image.open(tmp_path / "out" / "img00000000.png"))
    assert made.shape == (32, 40, 3)


def test_an_option_of_both_commands_that_convert_has_one_text():
    from ggdr.scripts.dataset import main as dataset
    from ggdr.scripts.translating.pairs import pairs as make

    helps = [{x.name: x.help for x in main.params if isinstance(x, click.Option)} for main in (dataset, make)]
    common = (helps[0].keys() & helps[1].keys()) - {"seed"}  # one draws shapes, the other holes
    assert common == {"skip_broken", "max_images", "workers", "overwrite"}
    assert {name: helps[0][name] for name in common} == {name: helps[1][name] for name in common}
