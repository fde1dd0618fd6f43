# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What `ggdr dataset` makes of the pixels of all kinds of images."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from ggdr.torch_utils.data.convert import Conversion, encode_png
from ggdr.torch_utils.data.convert_dataset import convert_dataset
from ggdr.torch_utils.data.image_files import DataError
from ggdr.torch_utils.data.loader import ImageDataset
from tests.dataset_files import RGB, classes_of, convert, encode, pixels_of, run, write


def test_box_halving_is_the_mean_of_four_pixels():
    result = Conversion(resolution=8)(encode(RGB[0]), "x")
    mean = RGB[0].reshape(8, 2, 8, 2, 3).astype(float).mean((1, 3))
    assert np.abs(result - mean).max() <= 1  # Pillow rounds rows, then columns
    assert (Conversion(resolution=8, filter="lanczos")(encode(RGB[0]), "x") != result).any()


def test_center_crop_takes_the_centre_of_the_longer_side():
    wide = np.zeros((8, 14, 3), dtype=np.uint8)
    wide[:, 3:11] = RGB[0, :8, :8]
    for pixels in (wide, wide.transpose(1, 0, 2)):
        expected = RGB[0, :8, :8] if pixels is wide else RGB[0, :8, :8].transpose(1, 0, 2)
        assert (Conversion(transform="center-crop")(pixels, "x") == expected).all()


def test_center_crop_wide_keeps_four_by_three_between_black_bars():
    wide = np.full((12, 20, 3), 7, dtype=np.uint8)
    wide[:, 2:18] = 200
    result = Conversion(resolution=16, transform="center-crop-wide")(wide, "x")
    assert (result[2:14] == 200).all() and (result[:2] == 0).all() and (result[14:] == 0).all()
    tall = np.full((40, 16, 4), 7, dtype=np.uint8)
    tall[14:26] = 200
    result = Conversion(resolution=16, transform="center-crop-wide", channels=4)(encode(tall), "x")
    assert (result[2:14] == 200).all() and (result[:2] == [0, 0, 0, 255]).all()


@pytest.mark.parametrize("order", ["<", ">"])
def test_sixteen_bit_grey_is_scaled_to_the_full_range(order):
    values = np.array([[0, 128, 129, 257], [32767, 32768, 65407, 65535]] * 4, dtype=f"{order}u2").repeat(2, 1)
    file = encode(values.astype("<u2"), "png") if order == "<" else encode(values, "tiff")
    result = Conversion(channels=1)(file, "x")
    assert (result == np.rint(values.astype(float) * 255 / 65535)).all()


def test_floating_point_images_are_refused():
    with pytest.raises(DataError, match="x.tif: holds floating-point pixels"):
        Conversion()(encode(np.zeros((8, 8), dtype=np.float32), "tiff"), "x.tif")


def test_transparency_is_laid_over_white_or_kept():
    rgba = np.zeros((8, 8, 4), dtype=np.uint8)
    rgba[:, :4] = [200, 100, 0, 255]
    rgba[:, 4:] = [200, 100, 0, 0]
    assert (Conversion(channels=4)(encode(rgba), "x") == rgba).all()
    rgb = Conversion()(encode(rgba), "x")
    assert (rgb[:, :4] == [200, 100, 0]).all() and (rgb[:, 4:] == 255).all()
    assert (Conversion(channels=1)(encode(rgba[..., [0, 3]]), "x")[:, 4:] == 255).all()


def test_shrinking_does_not_bleed_colour_out_of_transparent_pixels():
    rgba = np.zeros((16, 16, 4), dtype=np.uint8)
    rgba[:, ::2] = [200, 0, 0, 255]
    rgba[:, 1::2] = [0, 255, 0, 0]
    for result in (Conversion(resolution=8, channels=c)(encode(rgba), "x") for c in (3, 4)):
        assert (result[..., 1] == result[..., 2]).all()


def test_palette_images_keep_colours_and_transparent_entry():
    indexed = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) % 2, "L").convert("P")
    indexed.putpalette([10, 20, 30, 40, 50, 60])
    assert (Conversion()(encode(indexed), "x")[0, :2] == [[10, 20, 30], [40, 50, 60]]).all()
    transparent = encode(indexed, transparency=1)
    assert (Conversion()(transparent, "x")[0, :2] == [[10, 20, 30], [255, 255, 255]]).all()
    assert Conversion(channels=4)(transparent, "x")[0, :2, 3].tolist() == [255, 0]


def test_grey_cmyk_and_bilevel_images_become_rgb():
    grey = RGB[0, ..., 0]
    assert (Conversion()(encode(grey), "x") == grey[..., None]).all()
    bilevel = Image.fromarray(grey).convert("1")
    assert set(np.unique(Conversion()(encode(bilevel), "x"))) == {0, 255}
    cmyk = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    assert np.abs(Conversion()(encode(cmyk, "jpeg"), "x").astype(int) - [255, 0, 0]).max() <= 3


@pytest.mark.parametrize("shape", [(8, 8), (32, 32, 3), (256, 256, 3), (80, 300, 4)])
@pytest.mark.parametrize("compress", [None, 0, 1, 6])
def test_any_reader_gets_the_encoded_pixels_back(shape, compress):
    ramp = np.arange(np.prod(shape), dtype=np.uint32).reshape(shape)
    for pixels in (ramp.astype(np.uint8), (ramp // 1000 * 37).astype(np.uint8), np.zeros(shape, dtype=np.uint8)):
        with Image.open(io.BytesIO(encode_png(pixels, compress))) as img:
            img.verify()  # checksums, which decoding alone passes over
        with Image.open(io.BytesIO(encode_png(pixels, compress))) as img:
            assert (np.asarray(img) == pixels).all()


UPRIGHT = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: np.rot90(x, -1),  # to be turned clockwise
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda x: np.rot90(x, 1),
}


@pytest.mark.parametrize("kind", ["png", "webp", "tiff"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation_is_honoured(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "webp" else {}
    result = Conversion()(encode(RGB[0], kind, exif=exif.tobytes(), **options), "x")
    assert (result == UPRIGHT[orientation](RGB[0])).all()


def test_unreadable_exif_does_not_spoil_an_image():
    assert (Conversion()(encode(RGB[0], exif=b"Exif\0\0rubbish"), "x") == RGB[0]).all()


def test_small_images_are_refused_enlarged_or_left_out_as_told(tmp_path):
    files = {"a/0.png": encode(RGB[0]), "a/1.png": encode(RGB[1, :8, :8]), "b/2.png": encode(RGB[2])}
    source = write(tmp_path / "in", files)
    message = run(source, tmp_path / "out.zip", "--resolution", 16, expect=2)
    assert "a/1.png" in message and "8x8" in message and "--small" in message
    skipped = convert(tmp_path, source, "--resolution", 16, "--small", "skip")
    assert (pixels_of(skipped) == RGB[[0, 2]]).all() and classes_of(skipped) == [0, 1]
    assert len(convert(tmp_path, source, "--resolution", 16, "--small", "upscale", "--overwrite")) == 3
    message = run(source, tmp_path / "b.zip", "--resolution", 32, "--small", "skip", expect=2)
    assert "smaller" in message and not (tmp_path / "b.zip").exists()


def test_a_dataset_is_converted_in_python(tmp_path):
    files = {f"{i}.png": encode(pixels) for i, pixels in enumerate(RGB)} | {"small.png": encode(RGB[0, :8, :8])}
    source, heard = write(tmp_path / "photos", files), []
    converted = convert_dataset(
        str(source),
        tmp_path / "out.zip",
        resolution=16,
        small="skip",
        num_workers=1,
        progress=lambda done, total: heard.append((done, total)),
    )
    assert (converted.num_images, converted.num_small, converted.resolution) == (6, 1, 16)
    assert converted.labels is None and heard == [(7, 7)]
    assert (pixels_of(ImageDataset(tmp_path / "out.zip")) == RGB).all()
    with pytest.raises(DataError, match="every image is smaller"):
        convert_dataset(str(source), tmp_path / "none.zip", resolution=32, small="skip")
    assert not (tmp_path / "none.zip").exists()
