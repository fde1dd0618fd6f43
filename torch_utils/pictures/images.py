# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Image tensors to pictures on disk: 8-bit conversion, sample grids, PNG, JPEG and WebP files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ggdr.torch_utils.atomic_write import atomic_write
from ggdr.torch_utils.pictures.fonts import lettering

# Pillow's format name and options by file suffix. WebP is lossless (`exact` keeps the colour under alpha 0),
# JPEG as close to it as the format goes (quality 95, colour not subsampled).
FORMATS: dict[str, tuple[str, dict[str, object]]] = {
    "png": ("PNG", {}),
    "jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
    "jpeg": ("JPEG", {"quality": 95, "subsampling": 0}),
    "webp": ("WEBP", {"lossless": True, "exact": True}),
}
MIN_GRID_WIDTH = 1024  # pixels: smaller sample grids are enlarged
MAX_GRID_WIDTH = 2048  # pixels: fewer columns above this ...
MIN_GRID_COLUMNS = 3  # ... but never fewer than these
MAX_GRID_COLUMNS = 16


class GridSize(NamedTuple):
    """Layout of a sample grid: `columns` x `rows` images, each enlarged `scale` times."""

    columns: int
    rows: int
    scale: int

    @property
    def num_images(self) -> int:
        return self.columns * self.rows


def to_u8(img: Tensor) -> Tensor:
    """Convert images to 8 bits, truncating as the field's metrics define it.

    Args:
        img: [..., C, H, W] float in [-1, 1]; values outside are clamped.

    Returns:
        Same shape, uint8.
    """
    return (img.float() * 127.5 + 128).clamp(0, 255).to(torch.uint8)


def from_u8(images_u8: Tensor) -> Tensor:
    """Convert uint8 images of any shape to float32 in [-1, 1]."""
    return images_u8.float() / 127.5 - 1


def grid_size(resolution: int, num_images: int | None = None, *, num_classes: int = 0) -> GridSize:
    """Choose a sample grid that fits a screen: many small images, or few large ones.

    Args:
        resolution:  side of an image in pixels.
        num_images:  upper bound on the number of images, e.g. the size of the dataset; None is no bound.
        num_classes: for a conditional model each row shows one class; 0 or 1 is unconditional.

    Returns:
        A grid of 3 to 16 columns, about 2048 pixels wide at most where three columns allow it, with `scale`
        the integer that makes it 1024 pixels wide or more. 32x32: 16 x 16 images, enlarged twice.

    Raises:
        ValueError: a number is below 1 (`num_classes`: below 0).
    """
    if resolution < 1 or num_classes < 0 or (num_images is not None and num_images < 1):
        raise ValueError(
            f"expected resolution >= 1, num_images >= 1 or None, num_classes >= 0; "
            f"got {resolution}, {num_images}, {num_classes}"
        )
    columns = min(max(MAX_GRID_WIDTH // resolution, MIN_GRID_COLUMNS), MAX_GRID_COLUMNS)
    rows = min(columns, num_classes) if num_classes > 1 else columns
    if num_images is not None and num_images < columns * rows:
        # Rows of classes stay as long as each can show one image; else the nearest to a square that fits.
        rows = min(rows, num_images) if num_classes > 1 else max(int(num_images**0.5), 1)
        columns = min(columns, num_images // rows)
    scale = -(-MIN_GRID_WIDTH // (columns * resolution))  # rounded up
    return GridSize(columns, rows, scale)


def grid_classes(grid: GridSize, num_classes: int) -> list[int]:
    """Class of each row of a conditional model's sample grid; evenly spread where classes outnumber rows."""
    if num_classes < 1:
        raise ValueError(f"expected num_classes >= 1, got {num_classes}")
    if num_classes <= grid.rows:
        return [row % num_classes for row in range(grid.rows)]
    return [row * num_classes // grid.rows for row in range(grid.rows)]


def make_grid(
    img: Tensor,
    columns: int,
    *,
    scale: int = 1,
    row_labels: Sequence[str] | None = None,
    column_labels: Sequence[str] | None = None,
) -> np.ndarray:
    """Lay images out row by row.

    Args:
        img:           [N, C, H, W] float in [-1, 1], or uint8; C is 1, 3 or 4.
        columns:       images in a row. Cells left over in the last row are black (transparent if C is 4).
        scale:         each pixel becomes scale x scale pixels (nearest neighbour).
        row_labels:    text for a margin at the left, one for each row.
        column_labels: text for a band at the top, one for each column; what is too wide is cut.

    Returns:
        [rows * H * scale (+ band), columns * W * scale (+ margin), C] uint8.

    Raises:
        ValueError: wrong shape or dtype, or the number of labels is not that of rows or columns.
    """
    if img.ndim != 4 or img.shape[1] not in (1, 3, 4) or len(img) == 0:
        raise ValueError(f"expected images [N, C, H, W], N >= 1, C = 1, 3 or 4, got {tuple(img.shape)}")
    if columns < 1 or scale < 1:
        raise ValueError(f"expected columns >= 1 and scale >= 1, got {columns} and {scale}")
    tiles = _as_u8(img)
    num, channels, height, width = tiles.shape
    rows = -(-num // columns)  # rounded up
    if row_labels is not None and len(row_labels) != rows:
        raise ValueError(f"expected {rows} row labels, one for each row, got {len(row_labels)}")
    if column_labels is not None and len(column_labels) != columns:
        raise ValueError(f"expected {columns} column labels, one for each column, got {len(column_labels)}")

    grid = np.zeros((rows * columns, channels, height, width), np.uint8)
    grid[:num] = tiles
    grid = grid.reshape(rows, columns, channels, height, width).transpose(0, 3, 1, 4, 2)
    grid = grid.reshape(rows * height, columns * width, channels)
    grid = grid.repeat(scale, axis=0).repeat(scale, axis=1)
    if row_labels is not None:
        grid = np.concatenate([_label_margin(row_labels, height * scale, channels), grid], axis=1)
    if column_labels is not None:
        band = _label_band(column_labels, width * scale, grid.shape[1] - columns * width * scale, channels)
        grid = np.concatenate([band, grid])
    return grid


def save_image(image: np.ndarray | Tensor, path: str | Path, format: str | None = None) -> None:
    """Write one picture; the file appears whole or not at all.

    Args:
        image:  numpy [H, W, C] or [H, W] uint8 (as from `make_grid`), or a tensor [C, H, W], uint8 or float
                in [-1, 1]; C is 1, 3 or 4.
        path:   the file.
        format: "png", "jpg" or "webp" (lossless); None goes by the file's suffix.

    Raises:
        ValueError: unknown format, wrong shape or dtype, or four channels in a JPEG.
        OSError: the file cannot be written.
    """
    from PIL import Image

    path = Path(path)
    suffix = (format or path.suffix.removeprefix(".")).lower()
    if suffix not in FORMATS:
        raise ValueError(f"cannot write {path}: unknown image format {suffix!r}, expected png, jpg or webp")
    if isinstance(image, Tensor):
        if image.ndim != 3:
            raise ValueError(f"cannot write {path}: expected a tensor [C, H, W], got {tuple(image.shape)}")
        image = _as_u8(image).transpose(1, 2, 0)
    if image.ndim == 2:
        image = image[:, :, None]
    if image.ndim != 3 or image.shape[2] not in (1, 3, 4) or image.dtype != np.uint8:
        raise ValueError(
            f"cannot write {path}: expected uint8 [H, W, C], C = 1, 3 or 4, got {image.dtype} {image.shape}"
        )

    name, options = FORMATS[suffix]
    if name == "JPEG" and image.shape[2] == 4:
        raise ValueError(f"cannot write {path}: a JPEG has no alpha channel, use png or webp for 4 channels")
    picture = Image.fromarray(np.ascontiguousarray(image[:, :, 0] if image.shape[2] == 1 else image))
    with atomic_write(path) as file:
        picture.save(file, format=name, **options)


def _as_u8(img: Tensor) -> np.ndarray:
    """Numpy uint8 of the same shape; ValueError for integer types other than uint8."""
    if img.is_floating_point():
        img = to_u8(img.detach())
    if img.dtype != torch.uint8:
        raise ValueError(f"expected float images in [-1, 1] or uint8, got {img.dtype}")
    return img.cpu().numpy()


def _label_band(labels: Sequence[str], column_width: int, margin: int, channels: int) -> np.ndarray:
    """[band, margin + columns * column_width, channels] uint8: white text on black, in the middle of each column."""
    from PIL import Image, ImageDraw

    size = min(max(column_width * 0.2, 8), 28)
    height = round(size * 1.6)
    cells = [np.zeros((height, margin), np.uint8)]
    for label in labels:
        text, font = lettering(label, size)
        cell = Image.new("L", (column_width, height))
        ImageDraw.Draw(cell).text((column_width / 2, height / 2), text, fill=255, font=font, anchor="mm")
        cells.append(np.asarray(cell))
    return _on_black(np.concatenate(cells, axis=1), channels)


def _on_black(text: np.ndarray, channels: int) -> np.ndarray:
    """Letters [H, W] uint8 as opaque pixels [H, W, channels]."""
    picture = text[:, :, None].repeat(channels, axis=2)
    if channels == 4:
        picture[:, :, 3] = 255
    return picture


def _label_margin(labels: Sequence[str], row_height: int, channels: int) -> np.ndarray:
    """[rows * row_height, margin, channels] uint8: white text on black, centred on each row."""
    from PIL import Image, ImageDraw

    texts = [lettering(label, min(max(row_height * 0.5, 8), 28)) for label in labels]
    boxes = [font.getbbox(text) for text, font in texts]
    padding = 6
    width = int(max(box[2] for box in boxes)) + 2 * padding
    picture = Image.new("L", (width, row_height * len(labels)))
    draw = ImageDraw.Draw(picture)
    for row, (text, font) in enumerate(texts):
        draw.text((width - padding, (row + 0.5) * row_height), text, fill=255, font=font, anchor="rm")
    return _on_black(np.asarray(picture), channels)
