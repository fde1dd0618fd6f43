# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr interpolate`: walks pass through the images of their seeds."""

from __future__ import annotations

import imageio.v3 as iio
import numpy as np
import pytest
import torch

from ggdr.stylegan2.latent import sampling as latents
from ggdr.stylegan2.latent.sampling import latents_of_seeds, map_latents, pictures
from ggdr.torch_utils.pictures import animation
from tests.looking_cases import RES, close, filmed_frames, images_of, laid_out_sheets, ok, run_looking  # noqa: F401
from tests.tiny import tiny_generator


@pytest.mark.parametrize("space", ["w", "z"])
@pytest.mark.parametrize("curve", ["cubic", "linear"])
def test_the_video_passes_through_the_key_images_and_closes(run, tmp_path, filmed, space, curve):
    options = ["--space", space, "--curve", curve, "--trunc", "0.8", "--noise-mode", "none"]
    out = tmp_path / "walk.mp4"
    result = ok(run("interpolate", "--seeds", "5,0-2", "--frames", "6", "--out", str(out), *options))
    assert "24 frames, 0.8 s" in result.output
    assert len(filmed) == 24 and len(list(iio.imread(out))) == 24
    for frame, image in zip(filmed[::6], images_of([5, 0, 1, 2], truncation_psi=0.8, noise_mode="none"), strict=True):
        assert close(frame, image)
    # The step over the seam is one like the others; a jump, or a frame shown twice, is not.
    steps = [
        np.abs(a.astype(int) - b.astype(int)).mean() for a, b in zip(filmed, [*filmed[1:], filmed[0]], strict=True)
    ]
    assert 0 < steps[-1] <= max(steps[:-1])


def test_a_straight_walk_is_a_line_in_w_and_an_arc_in_z(run, tmp_path, filmed):
    options = ["--seeds", "0-1", "--frames", "4", "--no-loop", "--curve", "linear", "--out", str(tmp_path / "walk.gif")]
    ok(run("interpolate", *options))
    ok(run("interpolate", *options, "--space", "z"))
    G = tiny_generator()
    a, b = latents_of_seeds([0, 1], G.z_dim)
    a, b = a / a.norm(), b / b.norm()
    angle = torch.arccos(a @ b)
    on_arc = ((0.75 * angle).sin() * a + (0.25 * angle).sin() * b) / angle.sin()
    ws = map_latents(G, torch.stack([a, b, on_arc]))
    for frame, w in ((filmed[1], 0.75 * ws[0] + 0.25 * ws[1]), (filmed[6], ws[2])):
        assert close(frame, next(pictures(G, w[None], batch_size=1)))
    assert not close(filmed[1], filmed[6])


def test_an_open_walk_ends_on_the_last_seed(run, tmp_path, filmed):
    ok(run("interpolate", "--seeds", "0-2", "--frames", "4", "--no-loop", "--out", str(tmp_path / "walk.gif")))
    assert len(filmed) == 9
    first, last = images_of([0, 2])
    assert close(filmed[0], first) and close(filmed[-1], last)


def test_a_walk_can_come_back_to_a_key(run, tmp_path, filmed):
    out = ["--out", str(tmp_path / "walk.gif")]
    ok(run("interpolate", "--seeds", "0,1,0,2", "--frames", "4", "--no-loop", *out))
    assert len(filmed) == 13
    for frame, image in zip(filmed[::4], images_of([0, 1, 0, 2]), strict=True):
        assert close(frame, image)
    for space in ("w", "z"):
        filmed.clear()
        ok(run("interpolate", "--seeds", "3,3", "--frames", "2", "--space", space, "--curve", "linear", *out))
        assert len(filmed) == 4 and close(filmed[0], filmed[1])


def test_seeds_are_dealt_out_to_the_cells_of_a_grid(run, tmp_path, filmed):
    ok(run("interpolate", "--grid", "3x2", "--seeds", "0-11", "--frames", "2", "--out", str(tmp_path / "walk.webp")))
    assert len(filmed) == 4 and filmed[0].shape == (2 * RES, 3 * RES, 3)
    for key in (0, 1):
        images = images_of(list(range(6 * key, 6 * key + 6)))
        for i, image in enumerate(images):
            y, x = RES * (i // 3), RES * (i % 3)
            assert close(filmed[2 * key][y : y + RES, x : x + RES], image)


def test_each_cell_has_keys_enough_by_default(run, tmp_path, filmed):
    result = ok(run("interpolate", "--grid", "2x1", "--frames", "1", "--out", str(tmp_path / "walk.gif")))
    assert "8 frames" in result.output and filmed[0].shape == (RES, 2 * RES, 3)


@pytest.mark.parametrize("batch", ["1", "3", "64"])
def test_frames_do_not_depend_on_the_batch(run, tmp_path, filmed, batch):
    options = ["--seeds", "0-5", "--grid", "2x1", "--frames", "3", "--out", str(tmp_path / "walk.gif")]
    ok(run("interpolate", *options))
    expected = list(filmed)
    filmed.clear()
    ok(run("interpolate", *options, "--batch", batch))
    assert len(filmed) == len(expected) == 9
    assert all(close(a, b) for a, b in zip(filmed, expected, strict=True))


def test_frames_are_written_as_they_are_made(run, tmp_path, monkeypatch):
    made: list[int] = []
    ahead: list[int] = []

    def save_animation(frames, path, *, fps):
        for i, _ in enumerate(frames):
            ahead.append(len(made) - i)
        return i + 1

    to_u8 = latents.to_u8
    monkeypatch.setattr(latents, "to_u8", lambda img: made.extend(range(len(img))) or to_u8(img))
    monkeypatch.setattr(animation, "save_animation", save_animation)
    ok(run("interpolate", "--seeds", "0-3", "--frames", "25", "--batch", "4", "--out", str(tmp_path / "walk.mp4")))
    assert len(ahead) == 100 and max(ahead) <= 4


def test_stills_show_a_row_from_each_key_to_the_next(run, laid_out):
    ok(run("interpolate", "--seeds", "0-3", "--grid", "2x1", "--frames", "3"))
    ((cells, options),) = laid_out
    assert options["rows"] == ["0 to 2", "2 to 0", "1 to 3", "3 to 1"]
    assert [len(row) for row in cells] == [4] * 4
    images = images_of([0, 1, 2, 3])
    for row, (first, last) in zip(cells, [(0, 2), (2, 0), (1, 3), (3, 1)], strict=True):
        assert close(row[0], images[first]) and close(row[-1], images[last])
        assert not close(row[1], row[0])
