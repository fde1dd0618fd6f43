# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Animations."""

from __future__ import annotations

import imageio.v3 as iio
import numpy as np
import pytest
from PIL import Image, ImageSequence

from ggdr.torch_utils.pictures.animation import save_animation


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
