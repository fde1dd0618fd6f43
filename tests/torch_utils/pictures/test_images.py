# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Image conversion, sample grids and image files."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from ggdr.torch_utils.pictures.images import (
    GridSize,
    from_u8,
    grid_classes,
    grid_size,
    make_grid,
    save_image,
    to_u8,
)


def numbered_images(num: int, channels: int = 1, height: int = 2, width: int = 3) -> torch.Tensor:
    """uint8 images, each pixel of image i being 10 * i + row, so that every placement differs."""
    rows = torch.arange(height).view(1, 1, height, 1)
    return (10 * torch.arange(1, num + 1).view(-1, 1, 1, 1) + rows).expand(-1, channels, -1, width).to(torch.uint8)


def test_to_u8_truncates_and_clamps():
    img = torch.tensor([-2.0, -1.0, 0.0, 0.0039, 0.0079, 1.0, 2.0])
    assert to_u8(img).tolist() == [0, 0, 128, 128, 129, 255, 255]


def test_from_u8_is_undone_by_to_u8_for_every_value():
    values = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_u8(from_u8(values)), values)
    assert from_u8(values)[[0, 255]].tolist() == [-1, 1]


def test_make_grid_fills_row_by_row():
    grid = make_grid(numbered_images(6), columns=3)
    assert grid.shape == (4, 9, 1) and grid.dtype == np.uint8
    assert grid[:, ::3, 0].tolist() == [[10, 20, 30], [11, 21, 31], [40, 50, 60], [41, 51, 61]]


def test_make_grid_leaves_the_rest_of_the_last_row_transparent():
    grid = make_grid(numbered_images(3, channels=4), columns=2)
    assert grid.shape == (4, 6, 4)
    assert (grid[2:, 3:] == 0).all() and (grid[2:, :3] > 0).all()


def test_make_grid_enlarges_by_repeating_pixels():
    images_u8 = torch.randint(256, [2, 3, 2, 2], dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    small, large = make_grid(images_u8, columns=2), make_grid(images_u8, columns=2, scale=3)
    assert large.shape == (6, 12, 3)
    for dy in range(3):
        for dx in range(3):
            assert np.array_equal(large[dy::3, dx::3], small)


def test_make_grid_takes_float_images():
    img = torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1)
    assert make_grid(img, columns=2)[:, :, 0].tolist() == [[0, 255]]


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_row_labels_stand_in_a_margin_at_the_left_of_their_row(channels: int):
    images_u8 = torch.full([4, channels, 32, 32], 77, dtype=torch.uint8)
    grid = make_grid(images_u8, columns=2, row_labels=["", "truck"])
    margin = grid.shape[1] - 64
    assert margin > 20 and (grid[:, margin:] == 77).all()
    assert grid[:32, :margin, 0].max() == 0
    assert grid[32:, :margin, 0].max() > 200
    if channels == 4:
        assert (grid[:, :margin, 3] == 255).all()


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_column_labels_stand_in_a_band_above_their_column(channels: int):
    images_u8 = torch.full([4, channels, 32, 32], 77, dtype=torch.uint8)
    labels = ["", "a name that is wider than its column"]
    grid = make_grid(images_u8, columns=2, row_labels=["a", "b"], column_labels=labels)
    band, margin = grid.shape[0] - 64, grid.shape[1] - 64
    assert 8 < band < 32 and (grid[band:, margin:] == 77).all()
    assert grid[:band, : margin + 32, 0].max() == 0 and grid[:band, margin + 32 :, 0].max() > 200
    plain = make_grid(images_u8, columns=2, row_labels=["a", "b"])
    assert np.array_equal(grid[band:], plain)
    if channels == 4:
        assert (grid[:, :, 3] > 0).all()


@pytest.mark.parametrize(
    ("img", "options", "message"),
    [
        (torch.zeros([2, 2, 4, 4]), {}, r"C = 1, 3 or 4, got \(2, 2, 4, 4\)"),
        (torch.zeros([3, 4, 4]), {}, r"got \(3, 4, 4\)"),
        (torch.zeros([0, 3, 4, 4]), {}, "N >= 1"),
        (torch.zeros([1, 3, 4, 4], dtype=torch.int64), {}, "got torch.int64"),
        (torch.zeros([3, 3, 4, 4]), {"row_labels": ["a"]}, "expected 2 row labels.*got 1"),
        (torch.zeros([3, 3, 4, 4]), {"column_labels": ["a"]}, "expected 2 column labels.*got 1"),
        (torch.zeros([3, 3, 4, 4]), {"scale": 0}, "scale >= 1"),
    ],
)
def test_make_grid_says_what_it_expected(img: torch.Tensor, options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        make_grid(img, columns=2, **options)


@pytest.mark.parametrize("resolution", [8, 16, 32, 64, 128, 256, 512, 1024])
def test_grid_is_wide_enough_to_see_and_not_wider_than_needed(resolution: int):
    grid = grid_size(resolution)
    width = grid.columns * resolution * grid.scale
    assert 1024 <= width <= max(2048, 3 * resolution)
    assert grid.scale == 1 or width - grid.columns * resolution < 1024
    assert grid.rows == grid.columns >= 3


def test_grid_of_small_images_is_large_and_enlarged_and_of_large_images_small():
    assert grid_size(32) == GridSize(columns=16, rows=16, scale=2)
    assert grid_size(1024) == GridSize(columns=3, rows=3, scale=1)


@pytest.mark.parametrize("num_images", [1, 2, 5, 17, 100, 200, 255, 256, 1000])
@pytest.mark.parametrize("num_classes", [0, 10])
def test_grid_never_needs_more_images_than_there_are(num_images: int, num_classes: int):
    grid = grid_size(32, num_images, num_classes=num_classes)
    assert 1 <= grid.num_images <= num_images
    assert grid.num_images >= num_images / 2 or grid.columns == 16


def test_grid_of_a_conditional_model_has_a_row_for_each_class():
    grid = grid_size(32, num_classes=10)
    assert (grid.columns, grid.rows) == (16, 10)
    assert grid_classes(grid, 10) == list(range(10))
    assert grid_classes(GridSize(3, 3, 1), 9) == [0, 3, 6]
    assert grid_classes(GridSize(3, 3, 1), 2) == [0, 1, 0]


def test_grid_size_refuses_numbers_below_one():
    with pytest.raises(ValueError, match="got 32, 0, 0"):
        grid_size(32, 0)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_lossless_formats_give_back_every_value(tmp_path, channels: int, suffix: str):
    image = np.random.default_rng(0).integers(0, 256, [7, 5, channels], dtype=np.uint8)
    path = tmp_path / f"x.{suffix}"
    save_image(image, path)
    with Image.open(path) as picture:
        assert picture.format == suffix.upper()
        mode = {1: "L", 3: "RGB", 4: "RGBA"}[channels]
        assert np.array_equal(np.asarray(picture.convert(mode)).reshape(image.shape), image)


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_is_close(tmp_path, channels: int):
    image = np.full([16, 16, channels], 90, np.uint8)
    image[:, 8:] = 180
    save_image(image, tmp_path / "x.jpg")
    with Image.open(tmp_path / "x.jpg") as picture:
        assert picture.format == "JPEG"
        assert np.abs(np.asarray(picture).reshape(image.shape).astype(int) - image).max() <= 4


def test_tensors_are_saved_channels_first(tmp_path):
    img = torch.full([3, 4, 6], -1.0)
    img[0, 1] = 1  # second row red
    save_image(img, tmp_path / "a.png")
    save_image(to_u8(img), tmp_path / "b.bin", format="png")
    for name in ("a.png", "b.bin"):
        with Image.open(tmp_path / name) as picture:
            assert picture.size == (6, 4)
            assert picture.getpixel((5, 1)) == (255, 0, 0) and picture.getpixel((5, 2)) == (0, 0, 0)


@pytest.mark.parametrize(
    ("image", "name", "message"),
    [
        (np.zeros([4, 4, 4], np.uint8), "x.jpg", "x.jpg: a JPEG has no alpha"),
        (np.zeros([4, 4, 3], np.uint8), "x.tga", "unknown image format 'tga', expected png, jpg or webp"),
        (np.zeros([4, 4, 3], np.float32), "x.png", "expected uint8.*got float32"),
        (np.zeros([4, 4, 2], np.uint8), "x.png", r"C = 1, 3 or 4, got uint8 \(4, 4, 2\)"),
        (torch.zeros([1, 3, 4, 4]), "x.png", r"expected a tensor \[C, H, W\], got \(1, 3, 4, 4\)"),
    ],
)
def test_what_cannot_be_saved_leaves_the_old_file(tmp_path, image, name: str, message: str):
    (tmp_path / name).write_bytes(b"old")
    with pytest.raises(ValueError, match=message):
        save_image(image, tmp_path / name)
    assert (tmp_path / name).read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_crash_while_writing_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "x.png"
    path.write_bytes(b"old")

    def crash(self, file, format, **options):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", crash)
    with pytest.raises(OSError, match="No space left"):
        save_image(np.zeros([4, 4, 3], np.uint8), path)
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1
