# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Sheets of images, their translations, and what comes back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ggdr.scripts.options.pictures import LARGEST
from ggdr.scripts.options.progress import Progress
from ggdr.scripts.translating.image_files import Translation
from ggdr.scripts.translating.inputs import Input
from ggdr.torch_utils.data.archives import spread
from ggdr.torch_utils.data.image_files import load_image
from ggdr.torch_utils.pictures.sheets import contact_sheet, thumbnail
from ggdr.torch_utils.untrusted.text import shortened

BACK = "and back"


def shown_of(inputs: Sequence[Input], most: int) -> list[Input]:
    """As many of the inputs, evenly spread."""
    return [inputs[i] for i in spread(len(inputs), most)]


def draw_sheet(
    inputs: Sequence[Input],
    sources: Sequence[str],
    columns: Sequence[str],
    translation: Translation,
    *,
    size: int,
    left_out: int,
    bars: Progress,
) -> np.ndarray:
    """A row for each image: itself, and its translation to each domain.

    Where there is a way back, what comes back stands in a row below; beside it if there is one domain.

    Args:
        sources:  the domain of each image.
        columns:  the domains to show; one that an image is not translated to stays white.
        size:     pixels that small images are enlarged to.
        left_out: images that are not shown, for a note.

    Returns:
        [H, W, 3] uint8.

    Raises:
        DataError: an image cannot be read.
    """
    translator = translation.translator
    is_beside = translator.returns and len(columns) == 1
    cells, names = [], []

    def small(image: np.ndarray) -> np.ndarray:
        return thumbnail(image, smallest=size, largest=max(size, LARGEST))

    for done, (each, source) in enumerate(zip(inputs, sources, strict=True), 1):
        img = load_image(each.read(), each.where)
        there, back = [], []
        for target in columns:
            if target not in translator.targets(source):
                there.append(None)
                back.append(None)
                continue
            image = translation.read(img, source, target, each.where)
            made = translation([image], source, target)[0]
            there.append(small(made))
            can_return = translator.returns and target != source
            back.append(small(translation([made], target, source)[0]) if can_return else None)
        shown = small(translation.shown(translation.read(img, source, translator.targets(source)[0], each.where)))
        cells.append([shown, *there, *(back if is_beside else [])])
        names.append(shortened(each.name) + (f"\n{shortened(source)}" if translator.returns else ""))
        if not is_beside and any(cell is not None for cell in back):
            cells.append([None, *back])
            names.append(BACK)
        bars("images", done, len(inputs))
    heads = ["input", *map(shortened, columns), *([BACK] if is_beside else [])]
    note = f"{left_out} more images are not shown" if left_out else None
    return contact_sheet(cells, rows=names, columns=heads, note=note)
