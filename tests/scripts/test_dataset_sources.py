# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What `ggdr dataset` and others say of files and folders that are not as they should be."""

from __future__ import annotations

import json
import os
import struct
import zipfile
import zlib
from pathlib import Path

import pytest

from ggdr.metrics.image_sets import FileImages
from ggdr.metrics.resize import MODES
from ggdr.scripts.measuring.real_images import comparison_warnings
from ggdr.scripts.viewing.photographs import read_targets, unread_files
from ggdr.torch_utils.data.dataset import ImageDataset
from ggdr.torch_utils.data.file_kinds import kind_of
from ggdr.torch_utils.data.image_files import DataError, load_image
from tests.conftest import python
from tests.dataset_files import RGB, classes_of, convert, encode, pixels_of, run, write, write_zip

PNG = encode(RGB[0])

# Files that are no images.


def test_other_endings_of_what_is_read_are_images_and_other_files_are_counted(tmp_path):
    files = {f"{i}.{ending}": encode(RGB[i], "jpeg") for i, ending in enumerate(("jpg", "JFIF", "jpe"))}
    others = {"a.HEIC": b"x", "b.heic": b"x", "c": b"x", ".d.heic": b"x", "Thumbs.db": b"x", "__MACOSX/e.txt": b"x"}
    for source in (write(tmp_path / "in", files | others), write_zip(tmp_path / "in.zip", files | others)):
        output = run(source, tmp_path / "out.zip", "--overwrite")
        assert (
            "3 images" in output
            and "note: 3 files left out, not read as images: 2 .heic, 1 without an ending" in output
        )
        told = f"{source}: 3 files left out, not read as images: 2 .heic, 1 without an ending"
        assert told.endswith(ImageDataset(source).left_out)
        assert comparison_warnings(FileImages(source), None, MODES["stylegan"]) == [told] and unread_files(
            [source]
        ) == [told]
    assert ImageDataset(tmp_path / "out.zip").left_out == ""


def test_a_folder_of_other_files_alone_says_which(tmp_path):
    output = run(write(tmp_path / "in", {"a.avif": b"x"}), tmp_path / "out.zip", expect=2)
    assert "no images in this folder" in output and "1 file left out, not read as images: 1 .avif" in output


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("a b/IMG_1.HEIC", "magick mogrify -format png '{}a b'/*.HEIC"),
        ("photo.jxl", "magick mogrify -format png {}*.jxl"),
        ("drawing.svg", "magick mogrify -format png {}*.svg"),
        ("IMG_1.CR2", "darktable-cli {}IMG_1.CR2 {}IMG_1.png"),
        ("book.pdf", "pdftoppm -png {}book.pdf {}book"),
        ("clip.mp4", "ffmpeg -i {}clip.mp4 -vf fps=1 {}clip-%05d.png"),
    ],
)
def test_a_folder_of_pictures_that_are_not_read_says_how_to_convert_them(tmp_path, name, command):
    files = {"readme.txt": b"x", name: b"x"}
    there = f"1 {Path(name).suffix.lower()}"
    shown = command.replace("{}", f"{tmp_path}/in/")
    told = run(write(tmp_path / "in", files), tmp_path / "out.zip", expect=2)
    assert "no images in this folder; 2 files left out" in told and there in told and "files named" not in told
    assert f"; convert them first, for example: {shown}\n" in told
    told = run(write_zip(tmp_path / "in.zip", files), tmp_path / "out.zip", expect=2)
    assert f"; unpack it and convert them first, for example: {command.replace('{}', '')}\n" in told
    if "/" not in name:
        told = run(tmp_path / "in" / name, tmp_path / "out.zip", expect=2)
        assert "unknown kind of source" in told and f"for example: {shown}\n" in told


def test_a_folder_of_other_files_says_which_are_read(tmp_path):
    output = run(write(tmp_path / "in", {"a.txt": b"x"}), tmp_path / "out.zip", expect=2)
    assert "not read as images: 1 .txt; expected files named .apng, .bmp" in output


# Classes.


def folders(*names: str) -> dict[str, bytes]:
    return {f"{name}/{i}.png": PNG for name in names for i in range(2)}


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_classes_below_parts_of_a_set_are_found(tmp_path, kind):
    files = folders("train/dog", "Val/cat", "train/cat")
    source = write(tmp_path / "in", files) if kind == "folder" else write_zip(tmp_path / "in.zip", files)
    output = run(source, tmp_path / "out.zip")
    assert "note: Val and train are parts of a set, not classes" in output and output.rstrip().endswith("cat, dog")
    assert classes_of(ImageDataset(tmp_path / "out.zip", use_labels=True)) == [0, 0, 0, 0, 1, 1]
    assert ImageDataset(source, use_labels=True).classes == ["cat", "dog"]


def test_a_class_may_be_called_as_a_part(tmp_path):
    assert convert(tmp_path, write(tmp_path / "in", folders("train", "bus"))).classes == ["bus", "train"]


def test_a_stray_image_is_left_out_and_named(tmp_path):
    source = write(tmp_path / "in", folders("dog", "cat") | {"cover.png": encode(RGB[1])})
    output = run(source, tmp_path / "out.zip")
    assert "4 images" in output and "2 classes: cat, dog" in output
    assert "note: cover.png left out, since it lies beside the class folders (--no-labels keeps all images)" in output
    assert (pixels_of(ImageDataset(tmp_path / "out.zip")) == RGB[0]).all()
    assert "5 images" in run(source, tmp_path / "all.zip", "--no-labels")
    with pytest.raises(DataError) as failure:
        ImageDataset(source, use_labels=True)
    assert str(failure.value) == (
        f"{source}: has no labels, which a conditional model needs (cover.png lies beside the class folders); expected "
        "images in class folders only; move it into one of them or away, or convert the set with ggdr dataset SOURCE "
        "DEST, which leaves it out"
    )


def test_many_strays_are_no_strays(tmp_path):
    source = write(tmp_path / "in", folders("dog", "cat") | {"a.png": PNG, "b.png": PNG})
    output = run(source, tmp_path / "out.zip")
    assert "6 images" in output and "no labels: a.png and 1 more lie beside the class folders" in output
    with pytest.raises(DataError, match="class folders only; move them into one of them or away$"):
        ImageDataset(source, use_labels=True)


def test_backslashes_in_a_zip_are_slashes_also_in_its_labels(tmp_path):
    def backslashed(path: Path, files: dict[str, bytes]) -> Path:
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in files.items():
                info = zipfile.ZipInfo()
                info.filename = name.replace("/", "\\")
                archive.writestr(info, data)
        return path

    assert ImageDataset(backslashed(tmp_path / "a.zip", folders("dog", "cat"))).classes == ["cat", "dog"]
    labels = {"labels": [["dog\\0.png", 3], ["dog/1.png", 5]]}
    files = folders("dog") | {"dataset.json": json.dumps(labels).encode()}
    assert classes_of(ImageDataset(backslashed(tmp_path / "b.zip", files), use_labels=True)) == [3, 5]


@pytest.mark.parametrize(
    ("files", "options", "last"),
    [
        ({"a.png": PNG}, [], "no labels: expected dataset.json, or from 2 to 65,536 class folders, found 0"),
        (
            folders("train", "val"),
            [],
            "are parts of a set, not classes; expected dataset.json, or from 2 to 65,536 class folders, found 0",
        ),
        ({"a.png": PNG, "dataset.json": b'{"labels": null}'}, [], "no labels: dataset.json says that there are none"),
        (folders("a", "b"), ["--no-labels"], "no labels: --no-labels was given"),
        (folders(*"abcdefghijklm"), [], "13 classes: a, b, c, d, e, f, g, h, ..., m"),
        ({"a.png": PNG, "dataset.json": b'{"labels": [["a.png", [1, 2]]]}'}, [], "labels of length 2"),
    ],
)
def test_the_summary_says_which_labels_there_are_or_why_there_are_none(tmp_path, files, options, last):
    assert run(write(tmp_path / "in", files), tmp_path / "out.zip", *options).rstrip().endswith(last)


# Images that cannot be read.


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(500), "HEIC: convert"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1avif", "AVIF: convert"),
        (b"\0\0\0\x18ftypisom\0\0\0\0", "a video"),
        (b"\n<!DOCTYPE html><title>404</title>", "a web page: download it again"),
        (b"\xef\xbb\xbf<HTML>", "a web page"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code>', "XML, an error of a server"),
        (b'<?xml version="1.0"?><svg xmlns="x">', r"a vector graphic \(SVG\)"),
        (b'{"error": 404}', "JSON"),
        (b"%PDF-1.7", "PDF"),
        (b"PK\3\4", "a zip: unpack"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer to a file in Git LFS"),
        (b"Salted__abcdefgh", "encrypted: decrypt"),
        (b"", "an empty file"),
    ],
)
def test_what_only_has_the_name_of_an_image_is_called_what_it_is(tmp_path, data, kind):
    with pytest.raises(DataError, match=f"p.jpg: cannot be decoded, it is {kind}"):
        load_image(data, "p.jpg")
    write(tmp_path / "d", {"p.jpg": data})
    with pytest.raises(DataError, match=f"p.jpg: cannot be decoded, it is {kind}"):
        ImageDataset(tmp_path / "d")
    assert kind_of(PNG[:20]) is None and kind_of(b"rubbish") is None


def png_of_size(width: int, height: int) -> bytes:
    """A PNG that says it is this large."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_images_of_too_many_pixels_are_told_to_shrink():
    message = "a.png: has 182,000,000 pixels, more than the 178,956,970 that are read: shrink it first"
    with pytest.raises(DataError, match=message):
        load_image(png_of_size(14_000, 13_000), "a.png")


def test_images_of_many_pixels_make_no_warning(tmp_path):
    (tmp_path / "a.png").write_bytes(png_of_size(10_000, 10_000))
    code = "from ggdr.torch_utils.data.image_files import read_size\nprint(read_size(open('a.png', 'rb'), 'a.png'))"
    code = f"import os\nos.chdir({str(tmp_path)!r})\n{code}"
    assert python("-c", code).communicate()[0] == "((10000, 10000), '1')\n"


@pytest.mark.parametrize("workers", [1, 2])
def test_broken_images_are_left_out_and_named_if_asked(tmp_path, workers):
    jpeg = encode(RGB[0], "jpeg")
    source = write_zip(tmp_path / "in.zip", {f"{i:03d}.png": PNG for i in range(300)} | {"a.jpg": jpeg[:-200]})
    output = run(source, tmp_path / "out.zip", expect=2)
    assert "a.jpg: cannot be decoded" in output and "--skip-broken leaves such files out" in output
    data = bytearray(source.read_bytes())
    data[data.index(b"000.png") + 60] ^= 255  # the first one's bytes: its checksum is another
    source.write_bytes(data)
    output = run(source, tmp_path / "out.zip", "--skip-broken", "--workers", workers)
    assert "299 images" in output and "2 broken ones left out" in output
    assert "000.png: cannot be read" in output and "a.jpg: cannot be decoded" in output
    assert len(ImageDataset(tmp_path / "out.zip")) == 299


def test_labels_stay_with_their_images_where_broken_ones_are_left_out(tmp_path):
    source = write(tmp_path / "in", folders("a", "b") | {"a/0.png": PNG[:-60]})
    output = run(source, tmp_path / "out.zip", "--skip-broken")
    assert "1 broken ones left out" in output
    assert classes_of(ImageDataset(tmp_path / "out.zip", use_labels=True)) == [0, 1, 1]
    assert "no image of the source can be read" in run(
        write(tmp_path / "bad", {"a.png": b"x"}), tmp_path / "bad.zip", "--skip-broken", expect=2
    )


# Names that are no UTF-8.


@pytest.fixture
def latin(tmp_path) -> Path:
    """A folder with an image and a class folder whose names are Latin-1."""
    folder = write(tmp_path / "old", {"a/b.png": PNG})
    try:
        os.rename(folder / "a", os.fsencode(folder) + b"/caf\xe9")
        (folder / "b").mkdir()
        Path(os.fsdecode(os.fsencode(folder) + b"/b/\xe9.png")).write_bytes(PNG)
    except OSError:
        pytest.skip("names are UTF-8 on this system")
    return folder


def test_names_that_are_no_utf8_are_read_hashed_and_drawn(latin, tmp_path):
    from ggdr.torch_utils.pictures.plot_style import plain_text

    dataset = ImageDataset(latin, use_labels=True)
    assert len(dataset.fingerprint()) == 64 and dataset.images_u8([0, 1]).shape[0] == 2
    assert dataset.describe_labels() == r"2 classes: b, caf\udce9"
    assert len(FileImages(latin).fingerprint()) == 64
    targets = read_targets([latin], 8, 3)
    assert [plain_text(target.short_name).encode() for target in targets] == [rb"\udce9", b"b"]
    assert all(target.describe().encode() for target in targets)
    output = run(latin, tmp_path / "out.zip")
    assert r"2 classes: b, caf\udce9" in output
    assert ImageDataset(tmp_path / "out.zip", use_labels=True).classes == dataset.classes


def test_the_command_shows_names_that_are_no_utf8(latin):
    Path(os.fsdecode(os.fsencode(latin) + b"/b/\xe9.png")).write_bytes(b"rubbish")
    process = python("-m", "ggdr", "train", "--data", latin, "--cond", "--outdir", latin / "run", "--dry-run")
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 2 and "Traceback" not in output and r"b/\udce9.png" in output, output
