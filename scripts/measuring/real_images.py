# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The real images that a snapshot's are compared with, and what makes the comparison misleading."""

from __future__ import annotations

from pathlib import Path

from ggdr.metrics.evaluate import StoredReals
from ggdr.metrics.image_sets import FileImages, ImageSource, is_statistics, load_statistics, open_images
from ggdr.metrics.stats import Gaussian
from ggdr.torch_utils.data.image_files import JPEG_SUFFIXES, DataError
from ggdr.torch_utils.data.labels import LabelTable
from ggdr.torch_utils.untrusted.json_text import parse_json
from ggdr.torch_utils.untrusted.text import printable


def open_reals(path: Path, *, mirror: bool, workers: int | None) -> ImageSource | StoredReals:
    """Real images, or their stored statistics; raises DataError if they cannot be read."""
    if not is_statistics(path):
        return open_images(path, mirror=mirror, workers=workers)
    mean, cov, num, about = load_statistics(path)
    try:
        told = parse_json(about) if about else {}
    except ValueError as error:
        raise DataError(f"{path}: what it says of itself (about) is no JSON: {printable(error)}") from error
    if not isinstance(told, dict):
        raise DataError(f"{path}: what it says of itself (about) is no JSON object")
    return StoredReals(Gaussian(mean, cov, num or 0), {"path": str(path), **told})


def find_labels(images: ImageSource | StoredReals | None) -> LabelTable | None:
    """The labels of images in a folder or zip; None of others."""
    return images.label_table if isinstance(images, FileImages) else None


def comparison_warnings(reals: ImageSource | StoredReals | None, fakes: ImageSource | None) -> tuple[str, ...]:
    """What makes a comparison of these reals and fakes misleading."""
    warnings = [
        f"{images.container.where()}: {images.left_out}"
        for images in (reals, fakes)
        if isinstance(images, FileImages) and images.left_out
    ]
    if isinstance(reals, StoredReals):
        if "detector_hash" not in reals.about:
            warnings.append(f"{reals.about['path']} does not say with which detector and resize it was made")
        return tuple(warnings)
    if reals is None or fakes is None:
        return tuple(warnings)
    sizes = [tuple(images.describe()["size"]) for images in (reals, fakes)]
    if sizes[0] != sizes[1]:
        shown = " and ".join(f"{width}x{height}" for width, height in sizes)
        warnings.append(f"reals and fakes differ in size ({shown}): the distance measures the resize as well")
    jpeg = [any(n.lower().endswith(JPEG_SUFFIXES) for n in getattr(images, "names", ())) for images in (reals, fakes)]
    if jpeg[0] != jpeg[1]:
        which = "reals" if jpeg[0] else "fakes"
        warnings.append(f"only the {which} are JPEG: the distance measures the compression as well")
    return tuple(warnings)
