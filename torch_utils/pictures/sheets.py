# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Contact sheets: pictures in rows and columns, with names beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ggdr.torch_utils.pictures.fonts import Lettering, lettering

INK, PAPER, FAINT = (32, 32, 32), (255, 255, 255), (110, 110, 110)
TEXT_SIZE, TITLE_SIZE = 15, 20  # pixels
PAD = 10  # pixels around text
LEGEND_LINE = TEXT_SIZE + PAD  # pixels from line to line


def enlarged(image: np.ndarray, size: int) -> np.ndarray:
    """[H, W, C] -> the largest whole multiple of it whose longer side is not above `size`; at least itself.

    Pixels stay square and sharp (nearest neighbour).
    """
    scale = max(size // max(image.shape[:2]), 1)
    return image.repeat(scale, axis=0).repeat(scale, axis=1)


def thumbnail(image: np.ndarray, *, smallest: int = 128, largest: int = 256) -> np.ndarray:
    """[H, W, C] at a size to look at: enlarged by a whole number to `smallest` at most, or shrunk to `largest`."""
    from PIL import Image

    height, width = image.shape[:2]
    if max(height, width) <= largest:
        return enlarged(image, smallest)
    scale = largest / max(height, width)
    small = Image.fromarray(image.squeeze()).resize((round(width * scale), round(height * scale)), Image.Resampling.BOX)
    return np.asarray(small).reshape(small.height, small.width, image.shape[2])


def as_rgb(image: np.ndarray) -> np.ndarray:
    """[H, W, 1, 3 or 4] uint8 -> [H, W, 3]; grey is repeated, transparency shown over white."""
    if image.shape[2] == 4:
        alpha = image[:, :, 3:].astype(np.uint16)
        return ((image[:, :, :3] * alpha + 255 * (255 - alpha)) // 255).astype(np.uint8)
    return np.broadcast_to(image, (*image.shape[:2], 3))


def contact_sheet(
    cells: Sequence[Sequence[np.ndarray | None]],
    *,
    rows: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    title: str | None = None,
    note: str | None = None,
    legend: Mapping[str, tuple[int, int, int]] | None = None,
    gap: int = 4,
) -> np.ndarray:
    """Lays pictures out on white, dark text beside and above them.

    Args:
        cells:   rows of pictures [H, W, 1, 3 or 4] uint8; each stands in the middle of its cell, which is as large as
                 the largest picture of all. None, and what a short row lacks, is left white.
        rows:    text beside each row; may hold line ends.
        columns: text above each column; may hold line ends.
        title:   above all of it.
        note:    below all of it, fainter; may hold line ends.
        legend:  what colours stand for, between pictures and note.
        gap:     white pixels between cells.

    Returns:
        [H, W, 3] uint8.

    Raises:
        ValueError: no picture, or labels that are not as many as rows or columns.
    """
    from PIL import Image, ImageDraw

    pictures = [cell for row in cells for cell in row if cell is not None]
    if not pictures:
        raise ValueError("a contact sheet needs a picture, got none")
    num_rows, num_columns = len(cells), max(len(row) for row in cells)
    for what, labels, expected in (("row", rows, num_rows), ("column", columns, num_columns)):
        if labels is not None and len(labels) != expected:
            raise ValueError(f"expected {expected} {what} labels, got {len(labels)}")
    height, width = (max(picture.shape[axis] for picture in pictures) for axis in (0, 1))

    # Margins as large as their texts.
    row_texts, column_texts = ([lettering(text, TEXT_SIZE) for text in texts or ()] for texts in (rows, columns))
    title_text = lettering(title, TITLE_SIZE) if title else None
    note_text = lettering(note, TEXT_SIZE) if note else None
    left = max((_size(text)[0] for text in row_texts), default=0) + 2 * PAD if rows else PAD
    top = _size(title_text)[1] + 2 * PAD if title_text else PAD
    names_bottom = top + (max(_size(text)[1] for text in column_texts) if columns else 0)
    top = names_bottom + PAD // 2 if columns else top
    grid_width, grid_height = (n * (side + gap) - gap for n, side in ((num_columns, width), (num_rows, height)))
    bottom = _size(note_text)[1] + 2 * PAD if note_text else PAD
    widest = max((_size(text)[0] for text in (title_text, note_text) if text), default=0)
    sheet_width = max(left + grid_width, PAD + widest) + PAD
    swatches = _legend(legend or {}, sheet_width)
    legend_top = top + grid_height
    note_top = legend_top + len(swatches) * LEGEND_LINE
    sheet = Image.new("RGB", (sheet_width, note_top + bottom), PAPER)

    draw = ImageDraw.Draw(sheet)
    if title_text:
        draw.text((PAD, PAD), title_text.text, fill=INK, font=title_text.font)
    for i, (text, font) in enumerate(column_texts):
        middle = left + i * (width + gap) + width / 2
        draw.multiline_text((middle, names_bottom), text, fill=INK, font=font, anchor="md", align="center")
    for i, (text, font) in enumerate(row_texts):
        middle = top + i * (height + gap) + height / 2
        draw.multiline_text((left - PAD, middle), text, fill=INK, font=font, anchor="rm", align="right")
    for i, line in enumerate(swatches):
        y = legend_top + i * LEGEND_LINE + PAD
        for x, lettered, color in line:
            draw.rectangle((x, y, x + TEXT_SIZE, y + TEXT_SIZE), fill=color, outline=FAINT)
            beside = x + TEXT_SIZE + PAD, y + TEXT_SIZE / 2
            draw.text(beside, lettered.text, fill=INK, font=lettered.font, anchor="lm")
    if note_text:
        draw.multiline_text((PAD, note_top + PAD), note_text.text, fill=FAINT, font=note_text.font)
    for i, row in enumerate(cells):
        for j, picture in enumerate(row):
            if picture is not None:
                x = left + j * (width + gap) + (width - picture.shape[1]) // 2
                y = top + i * (height + gap) + (height - picture.shape[0]) // 2
                sheet.paste(Image.fromarray(np.ascontiguousarray(as_rgb(picture))), (x, y))
    return np.asarray(sheet)


def _legend(
    colors: Mapping[str, tuple[int, int, int]], width: int
) -> list[list[tuple[int, Lettering, tuple[int, int, int]]]]:
    """Lines of a legend: where each entry begins, its text, and its colour."""
    lines, x = [], width
    for name, color in colors.items():
        lettered = lettering(name, TEXT_SIZE)
        needed = TEXT_SIZE + PAD + _size(lettered)[0]
        if x + needed + PAD > width:
            lines.append([])
            x = PAD
        lines[-1].append((x, lettered, color))
        x += needed + 2 * PAD
    return lines


def _size(lettered: Lettering) -> tuple[int, int]:
    """Width and height in pixels of a text of one or more lines."""
    from PIL import Image, ImageDraw

    draw = ImageDraw.Draw(Image.new("L", (1, 1)))
    x0, _, x1, y1 = draw.multiline_textbbox((0, 0), lettered.text, font=lettered.font)
    return int(np.ceil(x1 - x0)), int(np.ceil(y1))
