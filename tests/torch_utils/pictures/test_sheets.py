# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Contact sheets."""

from __future__ import annotations

import numpy as np
import pytest

from ggdr.torch_utils.pictures.sheets import PAPER, as_rgb, contact_sheet, enlarged

RED, BLUE = (np.full((8, 8, 3), color, np.uint8) for color in ((255, 0, 0), (0, 0, 255)))


def found(sheet: np.ndarray, color: np.ndarray) -> np.ndarray:
    """Top left corner (y, x) of a colour on the sheet."""
    return np.argwhere((sheet == color[0, 0]).all(axis=2))[0]


def test_cells_stand_in_their_rows_and_columns_a_gap_apart():
    sheet = contact_sheet([[RED, None], [None, BLUE]], gap=5)
    assert (found(sheet, BLUE) - found(sheet, RED)).tolist() == [13, 13]
    for color in (RED, BLUE):
        y, x = found(sheet, color)
        assert (sheet[y : y + 8, x : x + 8] == color).all()
        assert (sheet[y + 8, x : x + 8] == PAPER).all()


def test_labels_take_room_without_covering_pictures():
    plain = contact_sheet([[RED, BLUE]])
    labelled = contact_sheet([[RED, BLUE]], rows=["a row\nin two lines"], columns=["b", "c"], title="T", note="n\nm")
    assert labelled.shape[0] > plain.shape[0] and labelled.shape[1] > plain.shape[1]
    y, x = found(labelled, RED)
    assert (labelled[y : y + 8, x : x + 8] == RED).all() and (labelled[y : y + 8, x + 12 : x + 20] == BLUE).all()
    for margin in (labelled[:y], labelled[:, :x], labelled[y + 8 :]):
        assert (margin.min(axis=2) < 128).any(), "no ink where text is expected"


def test_a_long_title_is_not_cut():
    sheet = contact_sheet([[RED]], title="a title much wider than one picture of eight pixels")
    assert (sheet[:, -8:] == PAPER).all()


def test_sheets_refuse_what_they_cannot_lay_out():
    with pytest.raises(ValueError, match="needs a picture"):
        contact_sheet([[None]])
    with pytest.raises(ValueError, match="expected 1 row labels, got 2"):
        contact_sheet([[RED]], rows=["a", "b"])


def test_transparency_is_shown_over_white_and_grey_repeated():
    half = np.array([[[255, 0, 0, 0], [0, 0, 255, 255]]], np.uint8)
    assert as_rgb(half).tolist() == [[[255, 255, 255], [0, 0, 255]]]
    assert as_rgb(np.array([[[7]]], np.uint8)).tolist() == [[[7, 7, 7]]]


def test_enlarging_keeps_pixels_square_and_never_shrinks():
    image = np.arange(8, dtype=np.uint8).reshape(2, 4, 1)
    assert enlarged(image, 9).shape == (4, 8, 1)
    assert (enlarged(image, 9)[::2, ::2] == image).all()
    assert enlarged(image, 3) is not None and enlarged(image, 3).shape == image.shape


def test_a_legend_shows_each_colour_once_and_wraps_within_the_sheet():
    cells = [[np.full((40, 120, 3), 200, np.uint8)]]
    colors = {f"a class {i}": (10 * i, 255 - 10 * i, i) for i in range(1, 9)}
    plain, sheet = contact_sheet(cells), contact_sheet(cells, legend=colors)
    assert sheet.shape[1] == plain.shape[1] and sheet.shape[0] > plain.shape[0] + 3 * 20
    for color in colors.values():
        ys, xs = np.nonzero((sheet == color).all(axis=2))
        assert ys.min() >= plain.shape[0] - 10 and np.ptp(ys) < 20 and np.ptp(xs) < 20
