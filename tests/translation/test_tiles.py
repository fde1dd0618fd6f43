# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Tiles: what they cover, how they blend, and that they give what the whole image gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from ggdr.torch_utils.pictures.images import from_u8, to_u8
from ggdr.translation.tiles import split_side, translate_in_tiles


def noise(height, width):
    return np.random.RandomState(0).randint(0, 256, (height, width, 3), np.uint8)


def whole(run, image):
    return to_u8(run(torch.from_numpy(image).permute(2, 0, 1)[None]))[0].permute(1, 2, 0).numpy()


def network(reach, stride=1):
    """A fixed network on a grid of `stride` pixels, which sees `reach` cells of it to each side."""
    torch.manual_seed(0)
    convs = nn.Sequential(
        nn.Conv2d(3, 8, stride, stride),
        nn.Conv2d(8, 8, 2 * reach + 1, padding=reach, padding_mode="reflect"),
        nn.ConvTranspose2d(8, 3, stride, stride),
    ).requires_grad_(False)

    def run(images_u8):
        x = from_u8(images_u8)
        height, width = x.shape[2:]
        x = nn.functional.pad(x, (0, -width % stride, 0, -height % stride), mode="reflect")
        return convs(x)[:, :, :height, :width]

    return run


@pytest.mark.parametrize(
    ("size", "tile", "overlap", "multiple"),
    [(1, 8, 2, 4), (101, 16, 8, 4), (257, 64, 16, 16), (65, 64, 0, 1), (1000, 256, 64, 256), (500, 33, 7, 1)],
)
def test_tiles_cover_a_side_and_their_weights_sum_to_one(size, tile, overlap, multiple):
    spans = split_side(size, tile, overlap, multiple)
    assert spans[0].start == 0 and spans[-1].end == size
    total = torch.zeros(size)
    for span in spans:
        assert 0 < span.end - span.start <= tile and span.weights.min() >= 0
        total[span.start : span.end] += span.weights
    torch.testing.assert_close(total, torch.ones(size))
    for a, b in zip(spans, spans[1:], strict=False):
        assert a.end - b.start >= overlap
    if tile >= 2 * multiple:
        assert all(span.start % multiple == 0 for span in spans)


def test_weights_change_by_little_from_pixel_to_pixel_and_are_0_at_borders():
    spans = split_side(1000, 256, 64)
    for i, span in enumerate(spans):
        assert span.weights.diff().abs().max() < 0.06
        assert (span.weights[:16] == 0).all() or i == 0
        assert (span.weights[-16:] == 0).all() or i == len(spans) - 1


@pytest.mark.parametrize(("size", "tile", "overlap"), [(0, 8, 2), (8, 8, 5), (8, 0, 0), (8, 8, -1)])
def test_sizes_that_cannot_be_are_refused(size, tile, overlap):
    with pytest.raises(ValueError, match="expected size, tile and multiple"):
        split_side(size, tile, overlap)


@pytest.mark.parametrize(("height", "width"), [(96, 128), (97, 61), (33, 150), (40, 40)])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_tiles_give_what_the_whole_image_gives_if_the_network_sees_no_further_than_the_fade(height, width, batch_size):
    image, run = noise(height, width), network(reach=2, stride=4)  # sees 8 pixels and a cell of 4
    out = translate_in_tiles(run, image, 3, tile=96, overlap=48, multiple=4, batch_size=batch_size)
    assert np.abs(out.astype(int) - whole(run, image)).max() <= 1  # of rounding
    if max(height, width) > 96:
        # One that sees further than the fade sees the tiles' borders.
        far = network(reach=7, stride=4)
        assert (
            np.abs(
                translate_in_tiles(far, image, 3, tile=96, overlap=48, multiple=4).astype(int) - whole(far, image)
            ).max()
            > 1
        )


def test_an_image_that_fits_into_a_tile_is_translated_whole():
    image, seen = noise(21, 50), []
    run = network(reach=3)
    out = translate_in_tiles(lambda x: seen.append(x.shape) or run(x), image, 3, tile=50, overlap=10)
    assert seen == [(1, 3, 21, 50)] and np.array_equal(out, whole(run, image))


def test_tiles_of_two_constants_blend_without_a_step():
    """A network that gives each tile another brightness: the image goes over from one to the next smoothly."""
    count = iter(range(100))
    image = noise(32, 160)
    out = translate_in_tiles(lambda x: torch.full([1, 1, *x.shape[2:]], next(count) / 4), image, 1, tile=64, overlap=32)
    steps = np.diff(out[0, :, 0].astype(int))
    assert (out == out[:1]).all() and steps.max() > 0 and 0 <= steps.min() and steps.max() <= 4
