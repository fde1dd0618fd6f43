# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Resize, crop and flip: where they lie, and what they are drawn from."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from ggdr.torch_utils.data.image_files import DataError
from ggdr.translation.data.crops import MIDDLE, CropConfig, Draw, crop_draws


def coordinates(width: int, height: int) -> Image.Image:
    """Red is the column, green the row."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0], pixels[..., 1] = np.arange(width), np.arange(height)[:, None]
    return Image.fromarray(pixels)


def test_a_crop_lies_where_the_draw_says():
    crop = CropConfig(8, fit="none")
    img = coordinates(20, 12)
    for x, y, left, top in ((0, 0, 0, 0), (0.999, 0.999, 12, 4), (0.5, 0.5, 6, 2), (0.999, 0, 12, 0)):
        out = crop.apply(img, Draw(x, y, False), "img")
        assert out.shape == (3, 8, 8) and out.dtype == np.uint8
        assert (out[0] == np.arange(left, left + 8)).all() and (out[1] == np.arange(top, top + 8)[:, None]).all()
        flipped = crop.apply(img, Draw(x, y, True), "img")
        assert (flipped == out[:, :, ::-1]).all()
    assert (CropConfig(8, fit="none", flip=False).apply(img, Draw(0, 0, True), "img")[0, 0] == np.arange(8)).all()


def test_all_places_of_a_crop_are_equally_probable():
    crop, img = CropConfig(6, fit="none"), coordinates(9, 6)
    lefts = [crop.apply(img, draw._replace(flip=False), "img")[0, 0, 0] for draw in crop_draws(0, 4000, 0)]
    counts = np.bincount(lefts)
    assert len(counts) == 4 and (abs(counts - 1000) < 120).all()


@pytest.mark.parametrize(
    ("config", "size", "resized"),
    [
        (CropConfig(256), (640, 480), (286, 286)),
        (CropConfig(256, fit="cover"), (640, 480), (381, 286)),
        (CropConfig(256, fit="cover"), (480, 640), (286, 381)),
        (CropConfig(256, fit="cover"), (100, 100), (286, 286)),
        (CropConfig(256, enlarge=1.0, fit="cover"), (100, 3001), (256, 7683)),
        (CropConfig(128), (128, 128), (143, 143)),
        (CropConfig(256, fit="none"), (640, 480), (640, 480)),
    ],
)
def test_images_are_resized_as_the_fit_says(config, size, resized):
    assert config.resized(*size) == resized


def test_the_resize_interpolates_images_and_picks_pixels_of_label_maps():
    stripes = Image.fromarray(np.tile(np.array([0, 200], np.uint8), (16, 8)))
    crop = CropConfig(20, enlarge=1.1)
    assert crop.resized(*stripes.size) == (22, 22)
    assert set(np.unique(crop.apply(stripes, MIDDLE, "img", nearest=True))) == {0, 200}
    assert len(np.unique(crop.apply(stripes, MIDDLE, "img"))) > 2
    # Bicubic: overshoots a step, as bilinear does not.
    step = Image.fromarray(np.repeat(np.array([[50, 200]], np.uint8), 4, axis=0).repeat(4, axis=1))
    out = CropConfig(32, enlarge=1.0).apply(step, MIDDLE, "img")
    assert out.min() < 50 and out.max() > 200


def test_an_image_that_is_smaller_than_its_crop_is_named():
    with pytest.raises(DataError, match=r"^a/b.png: is 20x12, smaller than the crop of 16x16, and .* \(fit none\)"):
        CropConfig(16, fit="none").apply(coordinates(20, 12), MIDDLE, "a/b.png")


def test_a_strip_does_not_become_an_image_of_gigabytes():
    strip = Image.new("RGB", (200, 1))
    with pytest.raises(DataError, match=r"^a.png: is 200x1, and would be 57200x286 .* at most 16384 pixels"):
        CropConfig(256, fit="cover").apply(strip, MIDDLE, "a.png")
    assert CropConfig(256).apply(strip, MIDDLE, "a.png").shape == (3, 256, 256)


def test_draws_depend_on_position_alone():
    whole = crop_draws(1000, 100, seed=5)  # a block ends inside
    assert [draw for i in range(1000, 1100, 4) for draw in crop_draws(i, 4, seed=5)] == whole
    assert crop_draws(1000, 100, seed=6) != whole and crop_draws(1001, 99, seed=5) == whole[1:]
    assert 0.4 < np.mean([draw.flip for draw in crop_draws(0, 1000, 5)]) < 0.6


def test_draws_are_the_same_in_every_release():
    (draw,) = crop_draws(7, 1, seed=0)
    assert draw == Draw(0.8794707215892823, 0.7859426337429788, False)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 0}, "size must be a whole number from 1 to 8192, got 0"),
        ({"size": 256.0}, "size must be a whole number from 1 to 8192, got 256.0"),
        ({"enlarge": 0.9}, "enlarge must be a number from 1 to 8, got 0.9"),
        ({"enlarge": float("nan")}, "enlarge must be a number from 1 to 8, got nan"),
        ({"fit": "crop"}, "fit must be one of stretch, cover, none, got 'crop'"),
        ({"flip": 1}, "flip must be true or false, got 1"),
    ],
)
def test_settings_that_make_no_crop_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        CropConfig(**settings)
