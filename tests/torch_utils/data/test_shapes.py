# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Drawn shapes: the same for a number whatever else is drawn, varied, and label maps that tell what is there."""

from __future__ import annotations

import numpy as np
import pytest

from ggdr.torch_utils.data import shape_fields as fields
from ggdr.torch_utils.data import shapes
from ggdr.torch_utils.data.label_maps import class_colors
from ggdr.torch_utils.data.shapes import CLASSES, RESOLUTIONS, ShapesSource

OUTLINES = [fields.disc, fields.ring, fields.square, fields.triangle, fields.cross, fields.star, fields.bar]
TEXTURES = [fields.plain, fields.fade, fields.stripes, fields.checks, fields.dots, fields.clouds]


def drawn(source, indices):
    """Images uint8 [n, H, W, 3] and classes uint8 [n, H, W]."""
    images = np.stack([image for _, image in source.items(indices)])
    return images, np.stack([numbers for _, numbers in source.label_maps(indices)])


@pytest.fixture(scope="module")
def sample():
    """192 images and their classes, at 32x32."""
    return drawn(ShapesSource(32, 192), range(192))


def test_an_image_depends_on_its_number_and_the_seed_alone(sample):
    images, maps = sample
    shapes.draw_block.cache_clear()
    # Fewer images, in another order.
    few_images, few_maps = drawn(ShapesSource(32, 71), [70, 3, 41])
    assert (few_images == images[[70, 3, 41]]).all() and (few_maps == maps[[70, 3, 41]]).all()
    other_images, other_maps = drawn(ShapesSource(32, 71, seed=1), [3])
    assert (other_images != images[3]).any() and (other_maps != maps[3]).any()


def test_no_two_images_or_label_maps_are_equal(sample):
    for arrays in sample:
        assert len({array.tobytes() for array in arrays}) == len(arrays)


def test_a_scene_is_the_same_at_every_resolution(sample):
    images, maps = sample
    large_images, large_maps = drawn(ShapesSource(64), range(16))
    # The middles of small pixels lie at corners of large ones: classes agree but for edges.
    assert (large_maps[:, ::2, ::2] == maps[:16]).mean() > 0.9
    halved = large_images.reshape(16, 32, 2, 32, 2, 3).mean((2, 4))
    assert np.abs(halved - images[:16]).mean() < 8


@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_images_and_classes_have_the_resolution(resolution):
    source = ShapesSource(resolution, 1)
    images, maps = drawn(source, [0])
    assert images.shape == (1, resolution, resolution, 3) and images.dtype == np.uint8
    assert maps.shape == (1, resolution, resolution) and maps.dtype == np.uint8
    assert source.default_resolution == resolution and source.count == 1


def test_every_class_is_there_and_none_else(sample):
    _, maps = sample
    shares = np.bincount(maps.ravel(), minlength=256) / maps.size
    assert shares[CLASSES.num :].sum() == 0
    assert shares[2 : CLASSES.num].min() > 0.01 and 0.2 < shares[0] < 0.6 and 0.2 < shares[1] < 0.5
    of_images = [set(np.unique(numbers).tolist()) for numbers in maps]
    assert min(map(len, of_images)) >= 1 and np.mean([len(found) for found in of_images]) > 3
    # Without a sky, or without a field, there are some too.
    assert any(0 not in found for found in of_images) and any(1 not in found for found in of_images)


def test_images_vary_in_colour_light_and_place(sample):
    images, maps = sample
    means = images.mean((1, 2))
    assert (means.std(0) > 20).all() and 80 < images.mean() < 160
    # The mean of all images tells no object's place.
    objects = (maps >= 2).mean(0)
    assert objects.min() > 0.05 and objects.max() < 0.55
    assert (images.std((1, 2)) > 4).all()  # no image is of one colour


def test_edges_are_smooth_in_images_where_label_maps_have_steps():
    """Between a white object and a black ground, the brightness is the share of the pixel that is covered."""
    canvas = shapes._Canvas(shapes._draw_scenes([0], 0), 32)
    canvas.rgb[:] = 0
    distance = (np.hypot(canvas._x - 0.5, canvas._y - 0.5) - 0.3).astype(np.float32)
    canvas._lay(np.array([0]), distance, np.ones((1, 3, 32, 32), np.float32), np.array([5]))
    cover, numbers = canvas.rgb[0, 0], canvas.numbers[0]
    assert set(np.unique(numbers).tolist()) == {0, 5} and ((numbers == 5) == (distance[0] < 0)).all()
    assert ((cover > 0.5) == (numbers == 5)).all() and 40 < ((cover > 0) & (cover < 1)).sum() < 140
    assert cover.sum() / 32**2 == pytest.approx(np.pi * 0.3**2, rel=0.01)


def test_an_object_hides_what_lies_behind_it():
    canvas = shapes._Canvas(shapes._draw_scenes([0], 0), 32)
    inside = np.full((1, 32, 32), -1, np.float32)
    for value, number in ((0.25, 2), (0.75, 3)):
        canvas._lay(np.array([0]), inside, np.full((1, 3, 32, 32), value, np.float32), np.array([number]))
    assert (canvas.rgb == 0.75).all() and (canvas.numbers == 3).all()


@pytest.mark.parametrize("outline", OUTLINES, ids=lambda outline: outline.__name__)
def test_outlines_are_distances_to_shapes_of_radius_about_one(outline):
    axis = np.linspace(-2, 2, 401, dtype=np.float32)
    x, y = np.meshgrid(axis, axis)
    distance = outline(x, y)
    assert distance.dtype == np.float32
    reach = np.hypot(x, y)[distance < 0].max()
    assert 0.9 < reach < 1.5
    # The slope is 1 but at corners and middle lines.
    slope = np.hypot(*np.gradient(distance, axis[1] - axis[0]))
    assert np.quantile(slope, 0.99) < 1.02 and np.median(slope) == pytest.approx(1, abs=0.02)


def test_outlines_lie_as_their_names_say():
    def inside(outline, x, y):
        return bool(outline(np.float32([[[x]]]), np.float32([[[y]]])).item() < 0)

    assert inside(fields.disc, 0, 0) and not inside(fields.ring, 0, 0) and inside(fields.ring, 0.75, 0)
    assert inside(fields.triangle, 0, -1) and not inside(fields.triangle, 0, 0.7)  # a corner on top
    assert inside(fields.star, 0, -1.1) and not inside(fields.star, 0, 1.1)  # a point on top, none below
    assert inside(fields.cross, 1, 0) and inside(fields.cross, 0, 1) and not inside(fields.cross, 0.8, 0.8)
    assert inside(fields.square, 0.8, 0.8) and inside(fields.bar, 1.3, 0) and not inside(fields.bar, 0, 0.4)


@pytest.mark.parametrize("texture", TEXTURES, ids=lambda texture: texture.__name__)
def test_textures_run_from_0_to_1(texture):
    u, v = (axis.astype(np.float32)[None] for axis in np.meshgrid(np.linspace(-3, 3, 257), np.linspace(-3, 3, 257)))
    values = texture(u, v, np.float32([[[6 / 256]]]), np.float32([[[0.3]]]))
    assert values.dtype == np.float32 and values.min() >= 0 and values.max() <= 1
    if texture is not fields.plain:
        assert values.max() - values.min() > 0.5 and 0.15 < values.mean() < 0.85


def test_colours_of_classes_differ():
    colors = class_colors(CLASSES)[: CLASSES.num].astype(int)
    apart = np.abs(colors[:, None] - colors[None]).sum(2)
    assert (apart[~np.eye(CLASSES.num, dtype=bool)] > 80).all() and len(CLASSES.names) == CLASSES.num == 9


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"resolution": 48}, "resolution must be one of 16, 32, 64, 128, 256, got 48"),
        ({"num_images": 0}, "expected images from 1 and a seed from 0, got 0 and 0"),
        ({"seed": -1}, "got 10000 and -1"),
    ],
    ids=["resolution", "images", "seed"],
)
def test_other_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ShapesSource(**arguments)
