# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Images that the project draws itself, with exact label maps: textured shapes before a field and a sky.

What is where and how it looks is drawn at random for each image by its number, with the seed, and does not depend on
the resolution. Objects lie before one another. Edges in images are smooth; a pixel of a label map has the class that
its middle shows. Two thirds of the objects have the texture and about the hue that is usual for their kind. Light comes
from one side: it fades over image and objects, and objects cast soft shadows. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ggdr.torch_utils.data import shape_fields as fields
from ggdr.torch_utils.data.dataset import random_state
from ggdr.torch_utils.data.label_maps import LabelClasses

RESOLUTIONS = (16, 32, 64, 128, 256)
NUM_IMAGES, RESOLUTION = 10_000, 64  # unless told
_OUTLINES = (fields.disc, fields.ring, fields.square, fields.triangle, fields.cross, fields.star, fields.bar)
_TEXTURES = (fields.plain, fields.fade, fields.stripes, fields.checks, fields.dots, fields.clouds)
_USUAL_TEXTURES = (4, 1, 3, 2, 5, 0, 2)  # of each outline
CLASSES = LabelClasses(
    values=tuple(range(2 + len(_OUTLINES))),
    names=("sky", "field", *(outline.__name__ for outline in _OUTLINES)),
    colors=("#8ecae6", "#6a994e", "#e63946", "#ff9f1c", "#3a0ca3", "#f9dc5c", "#f15bb5", "#00a896", "#8d5524"),
)
_FIRST_OBJECT = 2  # class of the first outline; 0 is the sky, 1 the field
_MOST_OBJECTS = 5
_BLOCK = 32  # images that are drawn at once

# Columns of random numbers, of each layer: sky, field, objects.
_COLUMNS = (
    "kind", "x", "y", "size", "angle", "texture", "is_usual", "frequency", "texture_angle", "phase",
    "hue", "saturation", "value", "other_hue", "other_saturation", "other_value",
)  # fmt: skip


@dataclass(frozen=True)
class _Scenes:
    """A block of images before they are drawn.

    Attributes:
        layers: random numbers from 0 to 1 by _COLUMNS, each [n, 2 + _MOST_OBJECTS]: sky, field, and objects.
        num:    [n] objects.
        light:  [n, 2], to where it falls, of length 1.
    """

    layers: dict[str, np.ndarray]
    num: np.ndarray
    light: np.ndarray


@lru_cache(maxsize=2)
def draw_block(block: int, resolution: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images _BLOCK * block and following: uint8 [_BLOCK, H, W, 3], and their classes, uint8 [_BLOCK, H, W]."""
    scenes = _draw_scenes(range(_BLOCK * block, _BLOCK * (block + 1)), seed)
    canvas = _Canvas(scenes, resolution)
    canvas.paint_sky()
    canvas.paint_field()
    for layer in range(_FIRST_OBJECT, _FIRST_OBJECT + _MOST_OBJECTS):
        canvas.paint_objects(layer)
    return canvas.finish(), canvas.numbers


class ShapesSource:
    """`shapes` as a source of `ggdr dataset`; see `archives.Source`.

    Args:
        resolution: side in pixels, one of RESOLUTIONS.
        num_images: images 0 to num_images - 1.
        seed:       another one gives other images.

    Raises:
        ValueError: an argument is none of these.
    """

    labels = None
    label_note = "objects of several kinds share an image"
    left_out = ""
    small = "error"
    has_label_maps = True

    def __init__(self, resolution: int = RESOLUTION, num_images: int = NUM_IMAGES, seed: int = 0) -> None:
        if resolution not in RESOLUTIONS:
            raise ValueError(f"shapes: resolution must be one of {', '.join(map(str, RESOLUTIONS))}, got {resolution}")
        if num_images < 1 or seed < 0:
            raise ValueError(f"shapes: expected images from 1 and a seed from 0, got {num_images} and {seed}")
        self.default_resolution, self.count, self.seed = resolution, num_images, seed

    def __str__(self) -> str:
        return "shapes"

    def items(self, indices: Iterable[int]) -> Iterator[tuple[str, np.ndarray]]:
        """(name, pixels uint8 [H, W, 3]) of the given images."""
        return self._drawn(indices, 0)

    def label_maps(self, indices: Iterable[int]) -> Iterator[tuple[str, np.ndarray]]:
        """(name, classes uint8 [H, W]) of the given images."""
        return self._drawn(indices, 1)

    def label_classes(
        self, num: int | None, ignored: Sequence[int] | None, progress: Callable[[int, int], None]
    ) -> LabelClasses:
        """CLASSES; raises ValueError if others are asked for."""
        if num is not None or ignored is not None:
            raise ValueError(f"shapes: has {CLASSES.num} classes of its own, got others")
        return CLASSES

    def _drawn(self, indices: Iterable[int], part: int) -> Iterator[tuple[str, np.ndarray]]:
        for i in indices:
            yield f"shapes[{i}]", draw_block(i // _BLOCK, self.default_resolution, self.seed)[part][i % _BLOCK]


def _draw_scenes(indices: Sequence[int], seed: int) -> _Scenes:
    """What is in these images; of each it depends on its number and the seed alone."""
    shape = (2 + _MOST_OBJECTS, len(_COLUMNS))
    rows = [random_state(seed, i).random_sample(2 + np.prod(shape)) for i in indices]
    numbers = np.stack(rows).astype(np.float32)
    layers = numbers[:, 2:].reshape(-1, *shape)
    turns = 2 * np.pi * numbers[:, 1]
    return _Scenes(
        {name: layers[:, :, column] for column, name in enumerate(_COLUMNS)},
        1 + _choice(numbers[:, 0], _MOST_OBJECTS),
        np.stack([np.cos(turns), np.sin(turns)], axis=1),
    )


class _Canvas:
    """Images in work.

    Attributes:
        rgb:     [n, 3, H, W] float32 from 0.
        numbers: [n, H, W] uint8, classes.
    """

    def __init__(self, scenes: _Scenes, resolution: int) -> None:
        self._scenes = scenes
        n = len(scenes.num)
        self._pixel = np.float32(1 / resolution)
        middles = (np.arange(resolution, dtype=np.float32) + np.float32(0.5)) * self._pixel
        axes = np.meshgrid(middles, middles)
        self._x, self._y = (np.broadcast_to(axis, (n, resolution, resolution)) for axis in axes)
        self.rgb = np.zeros((n, 3, resolution, resolution), np.float32)
        self.numbers = np.zeros((n, resolution, resolution), np.uint8)

    def paint_sky(self) -> None:
        """Two colours, with clouds of one in the other, paler towards the ground."""
        every = np.arange(len(self.rgb))
        kinds = np.full(len(every), _TEXTURES.index(fields.clouds))
        texture = self._texture(every, 0, kinds, self._x / 2, self._y / 2)
        light, dark = self._colors(every, 0, pale=0.45)
        haze = np.float32(0.35) * self._y[:, None]
        rgb = _mix(dark, light, texture[:, None])
        self.rgb[:] = rgb + (1 - rgb) * haze

    def paint_field(self) -> None:
        """Below a wavy line, which lies outside of some images."""
        draws = {name: values[:, 1] for name, values in self._scenes.layers.items()}
        every = np.arange(len(self.rgb))
        height = _wide(1.3 * draws["y"] - 0.1)
        turns = _wide(0.4 + draws["x"]) * self._x + _wide(draws["angle"])
        wave = _wide(0.12 * draws["size"]) * np.sin(np.float32(2 * np.pi) * turns)
        distance = height + wave - self._y
        kinds = _choice(draws["texture"], len(_TEXTURES))
        texture = self._texture(every, 1, kinds, self._x, self._y)
        self._lay(every, distance, _mix(*self._colors(every, 1, pale=0.2), texture[:, None]), np.full(len(every), 1))

    def paint_objects(self, layer: int) -> None:
        """One more object in each image that has so many, before what is there."""
        which = np.flatnonzero(self._scenes.num > layer - _FIRST_OBJECT)
        draws = {name: values[which, layer] for name, values in self._scenes.layers.items()}
        kinds = _choice(draws["kind"], len(_OUTLINES))
        light = self._scenes.light[which]
        size = 0.1 + 0.2 * draws["size"] ** 1.5
        x, y = self._x[which] - _wide(draws["x"]), self._y[which] - _wide(draws["y"])
        turned = self._turned(x, y, draws["angle"], size)
        distance = self._distance(kinds, *turned) * _wide(size)

        # A shadow on what lies behind.
        shift = _wide(0.25 * size)
        shadow = self._distance(
            kinds,
            *self._turned(x - shift * _wide(light[:, 0]), y - shift * _wide(light[:, 1]), draws["angle"], size),
        )
        self.rgb[which] *= 1 - np.float32(0.4) * np.clip(0.5 - 2 * shadow, 0, 1)[:, None]

        # The object, darker where it turns away from the light.
        usual = np.array(_USUAL_TEXTURES)[kinds]
        textures = np.where(draws["is_usual"] < 2 / 3, usual, _choice(draws["texture"], len(_TEXTURES)))
        texture = self._texture(which, layer, textures, x, y)
        towards = (x * _wide(light[:, 0]) + y * _wide(light[:, 1])) / _wide(size)
        shade = 1 - np.float32(0.22) * np.clip(towards, -1.2, 1.2)
        hue = (kinds / len(_OUTLINES) + 0.16 * (draws["hue"] - 0.5)).astype(np.float32)
        hue = np.where(draws["is_usual"] < 2 / 3, hue, draws["hue"])
        color = _mix(*self._colors(which, layer, hue=hue), texture[:, None]) * shade[:, None]
        self._lay(which, distance, color, kinds + _FIRST_OBJECT)

    def finish(self) -> np.ndarray:
        """The images in the light, uint8 [n, H, W, 3]."""
        light = self._scenes.light
        fade = (self._x - np.float32(0.5)) * _wide(light[:, 0]) + (self._y - np.float32(0.5)) * _wide(light[:, 1])
        lit = self.rgb * (1 - np.float32(0.35) * fade)[:, None]
        return np.rint(255 * np.clip(lit, 0, 1)).astype(np.uint8).transpose(0, 2, 3, 1)

    def _lay(self, which: np.ndarray, distance: np.ndarray, color: np.ndarray, classes: np.ndarray) -> None:
        """Paint where distances [m, H, W], in sides of the image, are negative; edges are a pixel wide."""
        cover = np.clip(np.float32(0.5) - distance / self._pixel, 0, 1)[:, None]
        self.rgb[which] = _mix(self.rgb[which], color, cover)
        self.numbers[which] = np.where(distance < 0, _wide(classes).astype(np.uint8), self.numbers[which])

    def _texture(self, which: np.ndarray, layer: int, textures: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """[m, H, W] of images `which`, each with its own texture."""
        draws = {name: values[which, layer] for name, values in self._scenes.layers.items()}
        frequency = 2.5 + 5.5 * draws["frequency"]  # periods a side
        u, v = self._turned(x, y, draws["texture_angle"], 1 / frequency)
        drawn = np.empty_like(u)
        for number in np.unique(textures):
            these = textures == number
            pixel, phase = _wide(self._pixel * frequency[these]), _wide(draws["phase"][these])
            drawn[these] = _TEXTURES[number](u[these], v[these], pixel, phase)
        return drawn

    def _distance(self, kinds: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """[m, H, W], of each image to its kind of outline."""
        distance = np.empty_like(x)
        for kind in np.unique(kinds):
            these = kinds == kind
            distance[these] = _OUTLINES[kind](x[these], y[these])
        return distance

    def _turned(
        self, x: np.ndarray, y: np.ndarray, turns: np.ndarray, size: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Coordinates of an object that is turned and of this size."""
        cos, sin = _wide(np.cos(2 * np.pi * turns) / size), _wide(np.sin(2 * np.pi * turns) / size)
        return cos * x + sin * y, cos * y - sin * x

    def _colors(
        self, which: np.ndarray, layer: int, *, hue: np.ndarray | None = None, pale: float = 0.0
    ) -> tuple[np.ndarray, np.ndarray]:
        """Two colours [m, 3, 1, 1] of each image `which`: of any hue or a given one, and of one near it or far."""
        draws = {name: values[which, layer] for name, values in self._scenes.layers.items()}
        hue = draws["hue"] if hue is None else hue
        first = _rgb(hue, (1 - pale) * (0.35 + 0.6 * draws["saturation"]), 0.5 + 0.5 * draws["value"])
        value = (0.95 - 0.7 * draws["value"]) * (0.6 + 0.4 * draws["other_value"])
        shift = 0.5 * (draws["other_hue"] - 0.5) ** 3 * 4
        second = _rgb(hue + shift, (1 - pale) * (0.2 + 0.7 * draws["other_saturation"]), value)
        return first, second


def _rgb(hue: np.ndarray, saturation: np.ndarray, value: np.ndarray) -> np.ndarray:
    """[m] each, hue in turns -> [m, 3, 1, 1] float32."""
    sixths = (np.stack([hue, hue - 1 / 3, hue - 2 / 3], axis=1) % 1) * 6
    pure = np.clip(np.abs(sixths - 3) - 1, 0, 1)
    rgb = value[:, None] * (1 - saturation[:, None] * (1 - pure))
    return rgb[:, :, None, None].astype(np.float32)


def _mix(first: np.ndarray, second: np.ndarray, share: np.ndarray) -> np.ndarray:
    """From the first (share 0) to the second (1)."""
    return first + (second - first) * share


def _wide(values: np.ndarray) -> np.ndarray:
    """[m] -> [m, 1, 1] float32."""
    return values.astype(np.float32)[:, None, None]


def _choice(draws: np.ndarray, num: int) -> np.ndarray:
    """0 to num - 1 of numbers from 0 to 1."""
    return np.minimum((draws * num).astype(np.int64), num - 1)
