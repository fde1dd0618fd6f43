# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Contact sheets and animations."""

from __future__ import annotations

import imageio.v3 as iio
import numpy as np
import pytest
from PIL import Image, ImageSequence

from ggdr.torch_utils.pictures.animation import save_animation
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


def read_frames(path) -> list[np.ndarray]:
    """All frames of an animation, [H, W, 3]."""
    if path.suffix == ".mp4":
        return list(iio.imread(path))
    with Image.open(path) as image:
        return [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(image)]


def moving_bar(num: int, height: int = 33, width: int = 47) -> list[np.ndarray]:
    """Frames with a white column that moves to the right."""
    frames = np.zeros((num, height, width, 3), np.uint8)
    for i in range(num):
        frames[i, :, 4 * i : 4 * i + 4] = 255
    return list(frames)


@pytest.mark.parametrize("kind", ["mp4", "webp", "gif"])
def test_an_animation_holds_all_frames_in_order(tmp_path, kind):
    path = tmp_path / f"bar.{kind}"
    frames = moving_bar(9)
    assert save_animation(iter(frames), path, fps=10) == 9
    read = read_frames(path)
    assert len(read) == 9
    assert read[0].shape[:2] == ((34, 48) if kind == "mp4" else (33, 47))
    for i, frame in enumerate(read):
        assert np.abs(frame[:33, :47].astype(int) - frames[i]).mean() < 12
    assert [path.name for path in tmp_path.iterdir()] == [f"bar.{kind}"]


@pytest.mark.parametrize("kind", ["webp", "gif"])
def test_animations_loop_at_their_speed(tmp_path, kind):
    path = tmp_path / f"bar.{kind}"
    save_animation(moving_bar(4), path, fps=8)
    with Image.open(path) as image:
        image.load()  # Pillow knows a frame's duration when it has read it
        assert image.info["loop"] == 0
        assert abs(image.info["duration"] - 125) <= 5


def test_grey_frames_are_written_as_rgb(tmp_path):
    save_animation([frame[..., :1] for frame in moving_bar(3)], tmp_path / "bar.webp", fps=10)
    assert [frame.shape for frame in read_frames(tmp_path / "bar.webp")] == [(33, 47, 3)] * 3


@pytest.mark.parametrize(
    ("frames", "name", "fps", "message"),
    [
        (moving_bar(2), "bar.avi", 10, "ending in .mp4, .gif, .webp"),
        ([], "bar.gif", 10, "no frames"),
        ([*moving_bar(1), *moving_bar(1, 8)], "bar.gif", 10, "frame 1 is"),
        ([np.zeros((4, 4), np.uint8)], "bar.mp4", 10, "expected uint8"),
        (moving_bar(2), "bar.gif", 0, "fps above 0"),
    ],
)
def test_what_is_no_animation_is_refused_and_leaves_nothing(tmp_path, frames, name, fps, message):
    (tmp_path / name).write_bytes(b"old")
    with pytest.raises(ValueError, match=message):
        save_animation(frames, tmp_path / name, fps=fps)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes() == b"old"
