# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Videos: what they say about themselves, their frames, and files that are none."""

from __future__ import annotations

import subprocess

import imageio_ffmpeg
import numpy as np
import pytest

from ggdr.torch_utils.data.image_files import DataError
from ggdr.torch_utils.data.video_files import open_video
from ggdr.torch_utils.pictures.animation import save_animation

NUM = 12


def ffmpeg(*args):
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error", *map(str, args)], check=True)


def scene(i):
    """A frame of large squares that are a little further to the right in each."""
    squares = np.random.RandomState(0).randint(0, 256, (6, 8, 3), np.uint8)
    return np.roll(np.kron(squares, np.ones((8, 8, 1), np.uint8)), 2 * i, axis=1)


@pytest.fixture
def film(tmp_path):
    save_animation(map(scene, range(NUM)), tmp_path / "film.mp4", fps=24)
    return tmp_path / "film.mp4"


def test_frames_come_in_order_and_in_their_colours(film):
    video = open_video(film)
    assert (video.size, video.fps, video.num_frames, video.has_sound) == ((64, 48), 24, NUM, False)
    frames = list(video.frames())
    assert len(frames) == NUM
    for i, frame in enumerate(frames):
        assert np.abs(frame.astype(int) - scene(i)).mean() < 5 < np.abs(frame.astype(int) - scene(i + 2)).mean()


@pytest.mark.parametrize("kind", ["mkv", "webm", "mov", "avi", "m4v"])
def test_other_containers_sizes_and_sound(film, tmp_path, kind):
    codec = {"webm": "libvpx-vp9", "avi": "mpeg4"}.get(kind, "libx264")
    out = tmp_path / f"a:b.{kind}"  # no address
    sound = ["-f", "lavfi", "-i", "sine=duration=0.5", *(["-c:a", "libopus"] if kind == "webm" else [])]
    ffmpeg("-i", film, *sound, "-c:v", codec, "-vf", "scale=66:50", "-r", "23.976", f"file:{out}")
    video = open_video(out)
    assert video.size == (66, 50) and abs(video.fps - 23.98) < 0.01 and video.has_sound
    assert abs(len(list(video.frames())) - NUM) <= 2


def test_a_video_on_its_side_is_turned_upright(film, tmp_path):
    ffmpeg("-display_rotation", "90", "-i", film, "-c", "copy", tmp_path / "turned.mp4")
    video = open_video(tmp_path / "turned.mp4")
    frame = next(video.frames())
    assert video.size == (48, 64) and np.abs(frame.astype(int) - np.rot90(scene(0))).mean() < 5


def test_files_that_are_no_videos_are_named(film, tmp_path):
    path = tmp_path / "bad.mp4"
    for content, message in (
        (b"", "no video of a known kind"),
        (b"#EXTM3U\n#EXTINF:1,\nfilm.mp4\n", "no video of a known kind"),
        (b"ffconcat version 1.0\nfile film.mp4\n", "no video of a known kind"),
        (film.read_bytes()[:400], "corrupt or truncated"),
        (film.read_bytes()[:32] + b"#EXTM3U\nfilm.mp4\n", "corrupt or truncated"),
    ):
        path.write_bytes(content)
        with pytest.raises(DataError, match=f"bad.mp4: .*{message}"):
            open_video(path)
    with pytest.raises(DataError, match="nowhere.mp4: cannot be read"):
        open_video(tmp_path / "nowhere.mp4")
