# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Images of anyone's as metrics read them: kinds, sizes, transparency, EXIF; and stored statistics."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ggdr.metrics.image_sets import (
    ArrayImages,
    FileImages,
    GeneratedImages,
    load_statistics,
    open_images,
    over_white,
    to_rgb,
)
from ggdr.torch_utils.data.image_files import DataError
from ggdr.torch_utils.pictures.images import from_u8
from tests.dataset_files import RGB, convert, encode, pixels_of, write
from tests.metric_cases import noise_images, write_images

RGBA = noise_images(4, channels=4, res=16)


def read(source: FileImages | ArrayImages | GeneratedImages, num: int) -> np.ndarray:
    """[N, H, W, 3], of images of one size."""
    (batch,) = source.batches([np.arange(num)])
    return batch.permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize("channels", [1, 3])
def test_files_of_any_kind_are_read_as_rgb(tmp_path, channels):
    images = noise_images(3, channels=channels, res=9)[:, :, :7]
    source = FileImages(write_images(tmp_path / "images", images))
    assert np.array_equal(read(source, 3), np.repeat(images, 3, axis=3) if channels == 1 else images)
    assert source.describe()["size"] == [7, 9]


def test_transparency_is_laid_over_white_wherever_images_come_from(tmp_path):
    """From files, arrays and generators as from the dataset that `ggdr dataset` makes."""
    folder = write_images(tmp_path / "rgba", RGBA)
    np.savez(tmp_path / "rgba.npz", images=RGBA)
    expected = pixels_of(convert(tmp_path, folder, "--resolution", 16))
    generated = GeneratedImages(lambda numbers: torch.from_numpy(RGBA[numbers]).permute(0, 3, 1, 2))
    for source in (open_images(folder), open_images(tmp_path / "rgba.npz"), generated):
        assert np.array_equal(read(source, 4), expected)


def test_modes_of_other_tools_leave_transparency_out(tmp_path):
    folder = write_images(tmp_path / "rgba", RGBA)
    np.savez(tmp_path / "rgba.npz", images=RGBA)
    generated = GeneratedImages(
        lambda numbers: torch.from_numpy(RGBA[numbers]).permute(0, 3, 1, 2), as_stored=True
    )  # fmt: skip
    for source in (open_images(folder, as_stored=True), open_images(tmp_path / "rgba.npz", as_stored=True), generated):
        assert np.array_equal(read(source, 4), RGBA[..., :3])
    for path in (folder, tmp_path / "rgba.npz"):
        assert open_images(path).fingerprint() != open_images(path, as_stored=True).fingerprint()


def test_every_colour_and_opacity_is_laid_over_white_as_pillow_does():
    grid = np.stack(np.meshgrid(np.arange(256), np.arange(256)), axis=-1)[..., [0, 0, 0, 1]].astype(np.uint8)
    image = Image.fromarray(grid, "RGBA")
    expected = np.asarray(Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB"))
    images_u8 = torch.from_numpy(grid.copy()).permute(2, 0, 1)[None]
    assert np.array_equal(to_rgb(images_u8)[0].permute(1, 2, 0).numpy(), expected)
    difference = over_white(from_u8(images_u8)) - from_u8(to_rgb(images_u8))
    assert difference.abs().max() < 1.01 / 255


TURNED = Image.Exif()
TURNED[0x0112] = 6


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_photographs_are_turned_as_ggdr_dataset_does_and_by_other_tools_are_not(tmp_path, kind):
    lying = noise_images(2, res=24)[:, :16]  # 24 wide, 16 high
    files = {f"{i}.{kind}": encode(image, kind, exif=TURNED.tobytes()) for i, image in enumerate(lying)}
    folder = write(tmp_path / "phone", files)
    stored = np.stack([np.asarray(Image.open(folder / name).convert("RGB")) for name in files])
    upright, raw = FileImages(folder), FileImages(folder, as_stored=True)
    assert upright.describe()["size"] == [16, 24] and raw.describe()["size"] == [24, 16]
    assert np.array_equal(read(raw, 2), stored)
    assert np.array_equal(read(upright, 2), np.rot90(stored, -1, axes=(1, 2)))


KINDS = {
    "la.png": Image.fromarray(RGBA[0]).convert("LA"),
    "cmyk.jpg": Image.fromarray(RGB[0]).convert("CMYK"),
    "bilevel.png": Image.fromarray(RGB[0]).convert("1"),
    "palette.gif": Image.fromarray(RGB[0]).quantize(8),
}


@pytest.mark.parametrize("name", KINDS)
def test_modes_of_other_tools_read_what_pillow_converts_to_rgb(tmp_path, name):
    (tmp_path / "set").mkdir()
    KINDS[name].save(tmp_path / "set" / name)
    expected = np.asarray(Image.open(tmp_path / "set" / name).convert("RGB"))
    assert np.array_equal(read(FileImages(tmp_path / "set", as_stored=True), 1)[0], expected)


def test_16_bit_images_are_read_as_ggdr_dataset_does_and_refused_where_tools_differ(tmp_path):
    folder = write(tmp_path / "deep", {"a.png": encode(RGB[0, ..., 0].astype(np.uint16) * 257)})
    assert np.array_equal(read(FileImages(folder), 1)[0, ..., 0], RGB[0, ..., 0])
    with pytest.raises(DataError, match="a.png: has pixel type 'I.*expected 8-bit grey or colour"):
        read(FileImages(folder, as_stored=True), 1)


@pytest.fixture
def mixed(tmp_path) -> Path:
    images = {f"{i}.png": encode(RGB[i][: 16 - 2 * i]) for i in range(3)}
    return write(tmp_path / "mixed", images | {"3.png": encode(RGB[3][:16])})


@pytest.mark.parametrize("workers", [0, 1])
def test_images_of_different_sizes_come_as_they_are(mixed, workers):
    source = FileImages(mixed, mirror=True, workers=workers)
    batches = list(source.batches([np.array([0, 1, 6]), np.array([0, 3])]))
    assert [tuple(image.shape) for image in batches[0]] == [(3, 16, 16), (3, 14, 16), (3, 12, 16)]
    assert torch.equal(batches[0][2].flip(2), torch.from_numpy(RGB[2][:12]).permute(2, 0, 1))
    assert isinstance(batches[1], torch.Tensor) and batches[1].shape == (2, 3, 16, 16)
    assert source.describe()["size"] == "16x12 to 16x16"


def test_large_images_come_few_at_a_time(mixed, monkeypatch):
    monkeypatch.setattr("ggdr.metrics.image_sets.USUAL_PIXELS", 600)
    assert FileImages(mixed).most_batch == 2
    monkeypatch.setattr("ggdr.torch_utils.data.rgb_decoder.MOST_PIXELS", 500)
    with pytest.raises(DataError, match=r"2.png: 3 images up to this one have 672 pixels, .* --batch below 4"):
        list(FileImages(mixed).batches([np.arange(4)]))


def test_flips_follow_the_images(tmp_path):
    images = noise_images(3)
    source = FileImages(write_images(tmp_path / "images.zip", images), mirror=True)
    (batch,) = source.batches([np.array([1, 4])])
    assert source.num == 6
    assert np.array_equal(batch[1].numpy(), batch[0].numpy()[:, :, ::-1])
    assert source.fingerprint() != FileImages(tmp_path / "images.zip").fingerprint()


def test_arrays_of_generate_and_of_others_are_read(tmp_path):
    images = noise_images(5)
    np.savez(tmp_path / "ours.npz", images=images, seeds=np.arange(5))
    np.savez(tmp_path / "theirs.npz", images)
    for name in ("ours.npz", "theirs.npz"):
        (batch,) = open_images(tmp_path / name).batches([np.array([3])])
        assert np.array_equal(batch[0].permute(1, 2, 0).numpy(), images[3])
    np.savez(tmp_path / "floats.npz", images / 255.0)
    with pytest.raises(DataError, match=r"floats.npz: expected images uint8 .* got float64 \[5, 16, 16, 3\]"):
        ArrayImages(tmp_path / "floats.npz")
    (tmp_path / "broken.npz").write_bytes(b"PK")
    with pytest.raises(DataError, match="broken.npz: no .npz file"):
        open_images(tmp_path / "broken.npz")


def test_bad_images_are_named(tmp_path):
    folder = write_images(tmp_path / "images", noise_images(3))
    source = FileImages(folder)
    (folder / "img00001.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    with pytest.raises(DataError, match="img00001.png: cannot be decoded"):
        list(source.batches([np.arange(3)]))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty: no images in this folder"):
        FileImages(tmp_path / "empty")


def test_statistics_that_do_not_fit_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", mu=np.zeros(3), sigma=np.eye(4))
    with pytest.raises(DataError, match=r"expected mu \[D\] and sigma \[D, D\], got \[3\] and \[4, 4\]"):
        load_statistics(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", mu=np.full(3, np.nan), sigma=np.eye(3))
    with pytest.raises(DataError, match="not finite"):
        load_statistics(tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz", mu=np.zeros(3), sigma=np.eye(3), num=np.int64(1))
    with pytest.raises(DataError, match="expected a number of images in num, at least 2"):
        load_statistics(tmp_path / "c.npz")
