# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The real images that a snapshot's are compared with, and what makes the comparison misleading."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ggdr.metrics.evaluate import StoredReals
from ggdr.metrics.image_sets import FileImages, ImageSource, is_statistics, load_statistics, open_images
from ggdr.metrics.resize import Mode
from ggdr.metrics.stats import Gaussian
from ggdr.torch_utils.data.image_files import JPEG_SUFFIXES, DataError
from ggdr.torch_utils.data.labels import LabelTable
from ggdr.torch_utils.untrusted.json_text import parse_json
from ggdr.torch_utils.untrusted.text import printable


def open_reals(path: Path, *, mirror: bool, workers: int | None, as_stored: bool) -> ImageSource | StoredReals:
    """Real images, or their stored statistics; raises DataError if they cannot be read."""
    if not is_statistics(path):
        return open_images(path, mirror=mirror, workers=workers, as_stored=as_stored)
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


def comparison_warnings(reals: ImageSource | StoredReals | None, fakes: ImageSource | None, mode: Mode) -> list[str]:
    """What makes a comparison of these reals and fakes misleading."""
    sets = (reals, "reals"), (fakes, "fakes")
    warnings = [warning(images, which) for images, which in sets for warning in (_left_out, _mixed_sizes)]
    if isinstance(reals, StoredReals):
        warnings += _stored_warnings(reals, mode)
    elif reals is not None and fakes is not None:
        warnings += [_other_size(reals, fakes), _other_compression(reals, fakes)]
    return [warning for warning in warnings if warning]


def _stored_warnings(reals: StoredReals, mode: Mode) -> Iterator[str]:
    path, about = reals.about["path"], reals.about
    if "detector_hash" not in about:
        yield f"{path} does not say with which detector and resize it was made"
    if not reals.gaussian.num and mode.ddof != 1:
        yield f"{path} does not say of how many images N: its covariance, which tools divide by N - 1, stays as it is"
    if about.get("reading", mode.reading) != mode.reading:
        yield (
            f"{path} is of files read {printable(about['reading'])}, mode {mode.name} reads them {mode.reading}: "
            "the same unless images are turned by EXIF or transparent"
        )


def _left_out(images: ImageSource | StoredReals | None, which: str) -> str | None:
    if not isinstance(images, FileImages) or not images.left_out:
        return None
    return f"{images.container.where()}: {images.left_out}"


def _mixed_sizes(images: ImageSource | StoredReals | None, which: str) -> str | None:
    if not isinstance(images, FileImages) or len(images.sizes) == 1:
        return None
    return f"the {which} differ in size among themselves ({images.describe()['size']}); each is resized by itself"


def _other_size(reals: ImageSource, fakes: ImageSource) -> str | None:
    sizes = [images.describe()["size"] for images in (reals, fakes)]
    if sizes[0] == sizes[1]:
        return None
    shown = " and ".join(size if isinstance(size, str) else f"{size[0]}x{size[1]}" for size in sizes)
    return f"reals and fakes differ in size ({shown}): the distance measures the resize as well"


def _other_compression(reals: ImageSource, fakes: ImageSource) -> str | None:
    jpeg = [any(n.lower().endswith(JPEG_SUFFIXES) for n in getattr(images, "names", ())) for images in (reals, fakes)]
    if jpeg[0] == jpeg[1]:
        return None
    return f"only the {'reals' if jpeg[0] else 'fakes'} are JPEG: the distance measures the compression as well"
