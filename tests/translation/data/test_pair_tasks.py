# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What a network is given of an image: grey, edges, holes, coarse pixels."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from ggdr.translation.data.edges import edge_drawing
from ggdr.translation.data.holes import HOLES, draw_hole, draw_segment
from ggdr.translation.data.pair_tasks import HOLE_COLOR, PairTask


def photo(height=40, width=60, seed=0):
    """Smooth colours, uint8 [height, width, 3]."""
    coarse = np.random.RandomState(seed).randint(0, 256, (5, 7, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def test_colorize_gives_the_brightness():
    b = np.zeros((8, 8, 3), np.uint8)
    b[:4], b[4:, :4], b[4:, 4:] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    a = PairTask("colorize")(b, 0)
    assert a.shape == (8, 8) and a.dtype == np.uint8
    assert (a[0, 0], a[7, 0], a[7, 7]) == (round(255 * 0.299), round(255 * 0.587), round(255 * 0.114))


def test_superres_keeps_the_size_and_what_is_coarse():
    b = photo(41, 63)
    for factor in (2, 4, 8):
        a = PairTask("superres", factor=factor)(b, 0)
        assert a.shape == b.shape and a.dtype == np.uint8
        assert abs(a.astype(float).mean() - b.mean()) < 2
    checks = np.kron(np.indices((16, 16)).sum(0) % 2, np.ones((2, 2))).astype(np.uint8)[..., None].repeat(3, 2) * 255
    a = PairTask("superres", factor=8)(checks, 0)
    assert checks.std() > 100 and a.std() < 20, "what is finer than a coarse pixel is gone, and not aliased"


@pytest.mark.parametrize("kind", HOLES)
@pytest.mark.parametrize("shape", [(8, 8), (40, 61), (200, 33)])
def test_holes_have_other_places_each_time_and_leave_most_of_the_image(kind, shape):
    holes = [draw_hole(*shape, kind, np.random.RandomState(i)) for i in range(30)]
    assert all(hole.shape == shape and hole.dtype == bool for hole in holes)
    assert all(0.02 < hole.mean() < 0.6 for hole in holes)
    assert len({hole.tobytes() for hole in holes}) > 25
    covered = np.mean(holes, axis=0)
    assert covered.max() < 0.8 and (covered > 0).mean() > 0.6


def test_a_rectangle_is_one_and_mixed_holes_are_of_both_kinds():
    def is_rectangle(hole):
        rows, columns = hole.any(axis=1), hole.any(axis=0)
        return hole.sum() == rows.sum() * columns.sum()

    assert all(is_rectangle(draw_hole(40, 60, "rectangle", np.random.RandomState(i))) for i in range(20))
    assert not any(is_rectangle(draw_hole(40, 60, "strokes", np.random.RandomState(i))) for i in range(20))
    mixed = [is_rectangle(draw_hole(40, 60, "mixed", np.random.RandomState(i))) for i in range(40)]
    assert 8 < sum(mixed) < 32


def test_a_stroke_has_its_width_and_round_ends():
    hole = np.zeros((40, 40), bool)
    draw_segment(hole, np.array([20.0, 10.0]), np.array([20.0, 30.0]), 3.0)
    assert hole[:, 20].sum() == 6 and hole[17:23, 20].all()
    assert np.flatnonzero(hole.any(axis=0))[[0, -1]].tolist() == [7, 32]
    assert hole[17:23, 7].sum() == hole[17:23, 32].sum() == 4
    assert (hole == hole[::-1]).all() and (hole == hole[:, ::-1]).all()


def test_inpaint_fills_holes_with_a_colour_and_changes_nothing_else():
    b, task = photo(), PairTask("inpaint", seed=3)
    a = task(b, 5)
    hole = (a == HOLE_COLOR).all(axis=2)
    assert 0.02 < hole.mean() < 0.6 and (a[~hole] == b[~hole]).all()
    assert (task(b, 5) == a).all()
    assert (task(b, 6) != a).any() and (PairTask("inpaint", seed=4)(b, 5) != a).any()


def test_edges_are_thin_lines_where_the_brightness_changes():
    disc = np.hypot(*(np.indices((64, 64)) - 31.5)) < 20
    lines = edge_drawing(np.where(disc, 200, 50).astype(np.uint8)) == 0
    radius = np.hypot(*(np.argwhere(lines) - 31.5).T)
    assert abs(radius - 20).max() < 1.5
    assert 0.8 < lines.sum() / (2 * np.pi * 20) < 1.3, "a pixel wide, all the way round"
    for step in (np.tile(np.repeat([50, 200], 16), (32, 1)), np.tile(np.repeat([50, 200], 16), (32, 1)).T):
        assert (edge_drawing(step.astype(np.uint8)) == 0).sum() == 32
    assert set(np.unique(edge_drawing(photo().mean(axis=2).astype(np.uint8)))) == {0, 255}


def test_noise_and_even_surfaces_have_no_edges():
    assert (edge_drawing(np.full((20, 30), 90, np.uint8)) == 255).all()
    noise = np.random.RandomState(0).normal(128, 2, (64, 64)).round().astype(np.uint8)
    assert (edge_drawing(noise) == 255).all()


def test_lines_begin_where_edges_are_strong_and_go_on_where_they_are_weaker():
    grey = np.full((64, 64), 100, np.uint8)
    grey[:, 36:44] = grey[:, 52:60] = 220
    grey[40:, 36:44] = 170  # its edges become weaker
    grey[10:20, 5:12] = 130  # these are weak all round
    lines = edge_drawing(grey) == 0
    assert lines[:, 34:38].any(axis=1).all() and lines[:, 42:46].any(axis=1).all() and not lines[5:25, 2:16].any()
    grey[:, 30:] = 100
    assert (edge_drawing(grey) == 0)[5:25, 2:16].any(), "they are the strongest now"


def test_a_larger_sigma_leaves_small_things_out():
    small = np.full((64, 64), 60, np.uint8)
    small[8:56, 8:56] = 180
    small[30:32, 30:32] = 60
    fine, coarse = (edge_drawing(small, sigma) == 0 for sigma in (0.7, 4.0))
    assert fine[24:40, 24:40].any() and not coarse[24:40, 24:40].any() and coarse.any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "sharpen"}, "task must be one of colorize, edges, inpaint, superres, got 'sharpen'"),
        ({"name": "superres", "factor": 1}, "factor must be from 2 to 16, got 1"),
        ({"name": "edges", "sigma": float("nan")}, "sigma must be from 0.3 to 20 pixels, got nan"),
        ({"name": "inpaint", "holes": "round"}, "holes must be one of rectangle, strokes, mixed, got 'round'"),
    ],
)
def test_settings_that_make_no_task_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        PairTask(**settings)
