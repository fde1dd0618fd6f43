# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Label maps: images with the number of a class in each pixel. Imports no torch.

What is in a file is called a value, and what a network is told a class: 0, 1, ... without gaps.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from colorsys import hls_to_rgb
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
from PIL import Image

from ggdr.torch_utils.data.container import Container
from ggdr.torch_utils.data.file_table import FileTable, evenly_spread
from ggdr.torch_utils.data.image_files import DataError, load_image
from ggdr.torch_utils.untrusted.json_text import parse_json
from ggdr.torch_utils.untrusted.text import printable

CLASS_MODES = ("L", "P")  # Pillow's names of 8-bit images with a number in each pixel
IGNORED = 255  # stands in arrays for pixels of no class; most sets write it in files, too
MAX_CLASSES = 255
MOST_FOUND = 200  # different values, beyond which images are photographs in grey and no label maps
MAX_NAME = 100  # characters
MOST_NAMED = 10  # classes in a line
_NUM_CHECKED = 32  # label maps that are looked at before they are used


@dataclass(frozen=True)
class LabelClasses:
    """What the values in label maps mean.

    Attributes:
        values:  the value of each class, rising for most.
        ignored: values of pixels that belong to no class, or to an unknown one.
        names:   of the classes; empty if unknown.
        colors:  of the classes in pictures, as "#804080"; empty for the usual ones.

    Raises:
        ValueError: these are no 1 to 255 classes of an 8-bit image, or names and colours are not as many.
    """

    values: tuple[int, ...]
    ignored: tuple[int, ...] = (IGNORED,)
    names: tuple[str, ...] = ()
    colors: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        everything = [*self.values, *self.ignored]
        if not all(type(value) is int and 0 <= value <= 255 for value in everything):
            raise ValueError("values of label maps must be whole numbers from 0 to 255")
        if len(set(everything)) != len(everything):
            raise ValueError("values of label maps must be different ones")
        if not 1 <= len(self.values) <= MAX_CLASSES:
            raise ValueError(f"label maps must have 1 to {MAX_CLASSES} classes, got {len(self.values)}")
        for what, texts, pattern in (("names", self.names, ".+"), ("colors", self.colors, "#[0-9a-f]{6}")):
            if texts and len(texts) != len(self.values):
                raise ValueError(f"label maps have {len(self.values)} classes and {len(texts)} {what}")
            if not all(isinstance(text, str) and re.fullmatch(pattern, text) for text in texts):
                raise ValueError(f"{what} of classes must be text that matches {pattern}")

    @property
    def num(self) -> int:
        """Number of classes."""
        return len(self.values)

    @property
    def shown_names(self) -> list[str]:
        """Of the classes, for messages: their own, or "class 0" and so on."""
        return [printable(name, 40) for name in self.names] or [f"class {i}" for i in range(self.num)]

    @cached_property
    def _table(self) -> np.ndarray:
        """[256] int64: the class of each value, IGNORED, or -1."""
        table = np.full(256, -1)
        table[list(self.ignored)] = IGNORED
        table[list(self.values)] = np.arange(self.num)
        return table

    def numbers(self, values: np.ndarray, where: str) -> np.ndarray:
        """Classes of the values in a file.

        Args:
            values: uint8 of any shape.
            where:  the file's name, for the error.

        Returns:
            uint8 of that shape: 0 to num - 1, or IGNORED.

        Raises:
            DataError: a value is neither a class nor ignored.
        """
        found = self._table[values]
        if found.min() < 0:
            wrong = np.unique(values[found < 0]).tolist()
            more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
            raise DataError(f"{where}: has a pixel of the value {wrong[0]}{more}; {self.expected()}")
        return found.astype(np.uint8)

    def numbers_of_colors(self, rgb: np.ndarray, where: str) -> np.ndarray:
        """Classes of the colours in a file.

        Args:
            rgb:   uint8 [H, W, 3]: `colors` of the classes, or black for pixels of no class unless one is black.
            where: the file's name, for the error.

        Returns:
            uint8 [H, W]: 0 to num - 1, or IGNORED.

        Raises:
            DataError: a colour is none of these.
        """
        codes = rgb.astype(np.int64) @ (1 << 16, 1 << 8, 1)
        known = {0: IGNORED} | {int(color[1:], 16): i for i, color in enumerate(self.colors)}
        found, places = np.unique(codes, return_inverse=True)
        wrong = [code for code in found.tolist() if code not in known]
        if wrong:
            more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
            raise DataError(
                f"{where}: has a pixel of the colour #{wrong[0]:06x}{more}; expected those of {self.num} classes"
            )
        return np.array([known[code] for code in found.tolist()], np.uint8)[places].reshape(codes.shape)

    def read(self, img: Image.Image, where: str) -> np.ndarray:
        """Classes of the pixels of an image, uint8 [H, W], as `numbers` gives them; raises DataError."""
        check_label_map(img.mode, where)
        return self.numbers(np.asarray(img), where)

    def expected(self) -> str:
        """What is said of a value that is none of these."""
        ignored = f", or {_spans(self.ignored)} to ignore" if self.ignored else ""
        return f"expected {_spans(self.values)}, a class{ignored}"

    def describe(self) -> str:
        """In a few words."""
        text = f"{self.num} classes, the values" if self.num > 1 else "1 class, the value"
        text = f"{text} {_spans(self.values)}"
        return f"{text}; {_spans(self.ignored)} ignored" if self.ignored else text

    def to_json(self) -> dict[str, Any]:
        """As `classes_from_json` takes it."""
        return {name: list(texts) for name, texts in asdict(self).items()}


_FIELDS = tuple(field.name for field in fields(LabelClasses))


def classes_from_json(stored: Any) -> LabelClasses:
    """What `LabelClasses.to_json` gave, from a file that anyone can have written; raises ValueError."""
    is_sound = isinstance(stored, Mapping) and stored.keys() == set(_FIELDS)
    is_sound = is_sound and all(isinstance(each, (list, tuple)) and len(each) <= 256 for each in stored.values())
    if not is_sound:
        raise ValueError(f"expected {', '.join(sorted(_FIELDS))} of classes, got {printable(repr(stored), 80)}")
    classes = LabelClasses(**{name: tuple(stored[name]) for name in _FIELDS})
    if any(len(name) > MAX_NAME for name in classes.names):
        raise ValueError(f"names of classes must have {MAX_NAME} characters at most")
    return classes


def classes_from_file(content: bytes, where: str) -> LabelClasses:
    """The classes that a classes.json describes: `LabelClasses.to_json`, or a part of it.

    Without `values` these are 0, 1, ..., as many as there are names or colours; without `ignored` it is 255.

    Raises:
        DataError: it is no JSON, or describes no classes.
    """
    expected = f'expected an object such as {{"names": ["sky", "sea"]}}, with lists of {", ".join(_FIELDS)}'
    try:
        stored = parse_json(content)
        is_sound = isinstance(stored, dict) and stored.keys() <= set(_FIELDS)
        if not (is_sound and all(isinstance(each, list) for each in stored.values())):
            raise ValueError(f"got {printable(repr(stored), 80)}")
        complete = {name: stored.get(name, []) for name in _FIELDS}
        if "values" not in stored:
            complete["values"] = [*range(len(complete["names"]) or len(complete["colors"]))]
        if "ignored" not in stored and IGNORED not in complete["values"]:
            complete["ignored"] = [IGNORED]
        return classes_from_json(complete)
    except ValueError as error:
        raise DataError(f"{where}: {printable(error)}; {expected}") from error


def numbered_classes(num: int, ignored: Sequence[int] = (IGNORED,)) -> LabelClasses:
    """Classes of the `num` smallest values that are not ignored; raises ValueError if there are not so many."""
    values = [value for value in range(256) if value not in ignored][:num]
    if len(values) < num:
        raise ValueError(f"8 bits have {len(values)} values beside those that are ignored, too few for {num} classes")
    return LabelClasses(tuple(values), tuple(ignored))


# Value, name and colour of the classes of Cityscapes that are trained and tested on.
_CITYSCAPES = (
    (7, "road", "#804080"), (8, "sidewalk", "#f423e8"), (11, "building", "#464646"), (12, "wall", "#66669c"),
    (13, "fence", "#be9999"), (17, "pole", "#999999"), (19, "traffic light", "#faaa1e"),
    (20, "traffic sign", "#dcdc00"), (21, "vegetation", "#6b8e23"), (22, "terrain", "#98fb98"), (23, "sky", "#4682b4"),
    (24, "person", "#dc143c"), (25, "rider", "#ff0000"), (26, "car", "#00008e"), (27, "truck", "#000046"),
    (28, "bus", "#003c64"), (31, "train", "#005064"), (32, "motorcycle", "#0000e6"), (33, "bicycle", "#770b20"),
)  # fmt: skip


def _cityscapes() -> LabelClasses:
    """The 19 classes of Cordts et al. 2016, arXiv:1604.01685, Table 1; others of the 34 are ignored."""
    values, names, colors = zip(*_CITYSCAPES, strict=True)
    return LabelClasses(values, (*(i for i in range(34) if i not in values), IGNORED), names, colors)


_FACADES = (
    ("background", "#0000aa"), ("facade", "#0000ff"), ("window", "#0055ff"), ("door", "#00aaff"),
    ("cornice", "#00ffff"), ("sill", "#55ffaa"), ("balcony", "#aaff55"), ("blind", "#ffff00"), ("deco", "#ffaa00"),
    ("molding", "#ff5500"), ("pillar", "#ff0000"), ("shop", "#aa0000"),
)  # fmt: skip


def _facades() -> LabelClasses:
    """The 12 classes, 1 to 12, of Tyleček 2013, "The CMP Facade Database", CTU-CMP-2012-24; 0 has none."""
    names, colors = zip(*_FACADES, strict=True)
    return LabelClasses(tuple(range(1, 13)), (0, IGNORED), names, colors)


# By the folder of the label maps (pair_folders.LABEL_FOLDERS), and what the names of all files begin with.
KNOWN_SETS = {
    "gtfine": ("", _cityscapes()),
    "annotations": ("ADE_", numbered_classes(150, (0, IGNORED))),  # ADE20K
    "stuffthingmaps": ("", numbered_classes(182)),  # COCO-Stuff
    None: ("cmp_", _facades()),  # beside their images
}


def describe_difference(own: LabelClasses, other: LabelClasses) -> str:
    """How classes differ from others in number, or in names where both have such; empty if they do not."""
    if own.num != other.num:
        return f"{own.num} classes, and the label maps have {other.num}"
    for i, (name, theirs) in enumerate(zip(own.names, other.names, strict=False)):
        if name != theirs:
            return f"a class {i} called {printable(name)}, which the label maps call {printable(theirs)}"
    return ""


def known_classes(folder: str | None, files: FileTable) -> LabelClasses | None:
    """Those of a published set, by the layout of its folders; None of other sets."""
    start, classes = KNOWN_SETS.get(folder, ("", None))
    return classes if all(name.rpartition("/")[2].startswith(start) for name in files.names) else None


def find_classes(
    container: Container,
    files: FileTable,
    ignored: Sequence[int] = (IGNORED,),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> LabelClasses:
    """The values that occur in label maps, as classes, with the colours of the first one's palette.

    Args:
        progress: called with the number of files looked through, and of all.

    Raises:
        DataError: one cannot be read, or is no label map; there is no class, or more than label maps have.
    """
    counts, colors = np.zeros(256, np.int64), None
    for done, file in enumerate(files, 1):
        where = container.where(file.name)
        img = load_image(container.read(file), where)
        check_label_map(img.mode, where)
        colors = palette_of(img) if done == 1 else colors
        counts += np.bincount(np.asarray(img).flatten(), minlength=256)
        progress(done, len(files))
    values = [value for value in np.flatnonzero(counts).tolist() if value not in ignored]
    if len(values) > MOST_FOUND:
        raise DataError(
            f"{container.where()}: {len(values)} different values in {container.where(files[0].name)} and the others "
            "are grey photographs rather than label maps; these belong into trainA and trainB"
        )
    if not values:
        raise DataError(f"{container.where()}: its label maps hold {_spans(ignored)} alone, which is ignored")
    return LabelClasses(tuple(values), tuple(ignored), colors=_distinct([colors[v] for v in values] if colors else []))


def check_classes(container: Container, files: FileTable, classes: LabelClasses) -> None:
    """Looks at some label maps; others are looked at when they are met.

    Raises:
        DataError: one cannot be read, or has a value that is no class.
    """
    for i in evenly_spread(len(files), _NUM_CHECKED):
        where = container.where(files[i].name)
        classes.read(load_image(container.read(files[i]), where), where)


def check_label_map(mode: str, where: str) -> None:
    """Raises DataError for an image of a Pillow mode without the number of a class in each pixel."""
    if where.lower().endswith((".jpg", ".jpeg", ".jpe", ".jfif")):
        raise DataError(f"{where}: is a JPEG, which does not keep values; expected label maps as PNG")
    if mode not in CLASS_MODES:
        raise DataError(
            f"{where}: has pixel type {mode!r}, expected 8-bit L or P with the number of a class in each pixel, as "
            "in the other label maps; ggdr dataset makes such of maps in colours, where a classes.json beside the "
            "folders lists the colours of the classes"
        )


def describe_shares(classes: LabelClasses, counts: np.ndarray) -> str:
    """How many classes there are and which share of the pixels the largest have, in a line.

    Args:
        counts: [256] int64, pixels of each class and of IGNORED.

    >>> describe_shares(LabelClasses((0, 1), (255,), ("sky", "field")), np.bincount([0, 0, 0, 1], minlength=256))
    'label maps of 2 classes: sky 75%, field 25%'
    """
    of_classes = counts[: classes.num]
    order = np.argsort(-of_classes, kind="stable")[:MOST_NAMED].tolist()
    names = classes.shown_names
    total = max(int(of_classes.sum()), 1)
    parts = [f"{names[i]} {100 * of_classes[i] / total:.3g}%" for i in order]
    if classes.num > MOST_NAMED:
        parts.append(f"{classes.num - MOST_NAMED} more")
    text = f"label maps of {classes.num} {'class' if classes.num == 1 else 'classes'}: {', '.join(parts)}"
    empty = [names[i] for i in np.flatnonzero(of_classes == 0).tolist()]
    if empty:
        shown = ", ".join(empty[:3]) + (", ..." if len(empty) > 3 else "")
        text += f"; {len(empty)} of them nowhere ({shown})"
    ignored = counts[IGNORED] / max(int(counts.sum()), 1)
    return f"{text}; {100 * ignored:.3g}% of pixels ignored" if ignored else text


def class_colors(classes: LabelClasses) -> np.ndarray:
    """Colours of classes and, in the last row, of what is ignored (black): uint8 [num + 1, 3]."""
    if classes.colors:
        colors = np.array([[int(color[i : i + 2], 16) for i in (1, 3, 5)] for color in classes.colors])
    else:
        # Hues a golden section apart never meet; three brightnesses keep neighbours apart.
        parts = [hls_to_rgb(0.6 + 0.61803398875 * i, (0.45, 0.65, 0.8)[i % 3], 0.8) for i in range(classes.num)]
        colors = np.round(255 * np.array(parts))
    return np.concatenate([colors, [[0, 0, 0]]]).astype(np.uint8)


def palette_of(img: Image.Image) -> list[str] | None:
    """Colours of the 256 values of an image with a palette, black where that ends; None of others."""
    if img.mode != "P":
        return None
    parts = (img.getpalette("RGB") or [])[:768]
    parts += [0] * (768 - len(parts))
    return hex_colors(np.reshape(parts, (256, 3)))


def hex_colors(colors: np.ndarray) -> list[str]:
    """Integers [n, 3] from 0 to 255 as `LabelClasses` has colours: "#804080"."""
    return ["#{:02x}{:02x}{:02x}".format(*color) for color in colors.tolist()]


def _distinct(colors: Sequence[str]) -> tuple[str, ...]:
    """The colours, if they tell classes apart: not equal ones, nor the greys of a palette that nobody chose."""
    is_grey = all(color[1:3] == color[3:5] == color[5:7] for color in colors)
    return () if is_grey or len(set(colors)) < len(colors) else tuple(colors)


def _spans(values: Sequence[int]) -> str:
    """Numbers in short: 0 to 6, 9, 255."""
    spans: list[list[int]] = []
    for value in sorted(values):
        if spans and spans[-1][-1] == value - 1:
            spans[-1][1:] = [value]
        else:
            spans.append([value])
    return ", ".join(" to ".join(map(str, span)) for span in spans)
