# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What translators are measured on: pairs, or domains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import permutations
from pathlib import Path
from string import ascii_uppercase
from typing import Any

import torch
from torch import Tensor

from ggdr.metrics.evaluate import Job
from ggdr.metrics.extract import MetricError
from ggdr.scripts.measuring.translation_judge import Direction, Translate, TranslationJudge
from ggdr.torch_utils.data.container import Container
from ggdr.torch_utils.data.image_files import DataError
from ggdr.torch_utils.data.label_maps import LabelClasses, classes_from_json
from ggdr.torch_utils.untrusted.text import printable
from ggdr.translation.data.crops import CropConfig
from ggdr.translation.data.datasets import PairedImages, UnpairedImages
from ggdr.translation.data.decode import Side
from ggdr.translation.data.measured import HeldOut, MeasuredDomain, MeasuredPairs, open_held_out
from ggdr.translation.label_maps import to_input
from ggdr.translation.snapshot import MAX_NAME, load_translator

Source = Path | Container | HeldOut  # what metrics are measured on, as far as it is open


def open_pairs_judge(
    training: Mapping[str, Any],
    data: Source,
    job: Job,
) -> TranslationJudge:
    """Measures translators on the pairs that are held out.

    Args:
        training: the settings of the run that they are of, as they are stored: "crop", "data", "labels".
        data:     pairs, with folders of splits or without; or those that are held out, if they are open.

    Raises:
        DataError: there are no pairs, or they cannot be read.
        MetricError: the settings are damaged.
    """
    direction, channels = _of_data(training, "direction", "AtoB"), _of_data(training, "channels", 3)
    pairs, split = open_held_out_pairs(data, direction=direction, channels=channels)
    classes = _classes(training)
    measured = MeasuredPairs(pairs if classes is None else pairs.with_classes(classes), _crop(training))
    try:
        measured.read([0])
    except DataError as error:
        raise _naming(error, split) from error
    load = partial(load_directions, names={"A": "A", "B": "B"}, dataset=measured.dataset)
    return TranslationJudge([Direction("AtoB", measured, measured.side("B"))], split, job, load)


def open_domains_judge(
    training: Mapping[str, Any],
    data: Source,
    job: Job,
    names: Sequence[str] | None = None,
) -> TranslationJudge:
    """Measures translators between each two domains, on their images that are held out; see `open_pairs_judge`.

    Two domains that both stay as they are, "frozen" in the settings, are left out: nothing changes between them.

    Args:
        names: of the domains in the names of directions: with "AB" there are "AtoB" and "BtoA"; None: their numbers.
               Domains are those of the settings, in their order, if these name them: by their names, and others of the
               data are left out; by order where either has no real names, see `_go_by_order`.

    Raises:
        DataError: there are not two domains, or as many as names, or those of the settings, or they cannot be read.
        MetricError: the settings are damaged.
    """
    dataset, split = open_held_out_domains(data, channels=_of_data(training, "channels", 3))
    trained = _of_data(training, "domains", None)
    own = dataset.names if trained is None else _names(trained, "domains")
    told = ""
    if _go_by_order(dataset.names, own):
        told = ", ".join(f"{printable(x)} as {printable(y)}" for x, y in zip(dataset.names, own, strict=True))
    elif trained is not None:
        try:
            dataset = dataset.selected(own)
        except DataError as error:
            raise _naming(error, split) from error
    num = len(dataset.domains)
    if names is not None and len(names) != num:
        raise DataError(
            f"{printable(dataset.path)}: expected {len(names)} domains, found {num}: {', '.join(dataset.names)}"
        )
    names = names or [str(i) for i in range(num)]
    domains = [MeasuredDomain(dataset, _crop(training), i) for i in range(num)]
    ways, which = _learnt_ways(own, _names(training.get("frozen", ()), "frozen"))
    directions = [
        Direction(f"{names[i]}to{names[j]}", domains[i], domains[j].images, way_back=f"{names[j]}to{names[i]}")
        for i, j in ways
    ]
    named = dict(zip((printable(name, MAX_NAME) for name in dataset.names), names, strict=True))  # as snapshots do
    load = partial(load_directions, names=named, dataset=dataset)
    return TranslationJudge(directions, split, job, load, ", ".join(filter(None, [told, which])))


def load_directions(
    snapshot: Path, device: torch.device, names: Mapping[str, str], dataset: PairedImages | UnpairedImages
) -> dict[str, Translate]:
    """How a snapshot translates each way, by the names of directions.

    Args:
        names:   of the domains in these, by what the data call them: so its domains are found, whose order may be
                 another; by their order for pairs, or where either has no real names, see `_go_by_order`.
        dataset: what is translated.

    Raises:
        SnapshotError: it is no translator.
        MetricError: it has other domains, or takes images of other channels, or label maps in place of images.
    """
    translator = load_translator(snapshot, device)
    if len(translator.domains) != len(names):
        raise MetricError(f"{snapshot}: translates between {len(translator.domains)} domains, expected {len(names)}")
    own, where = translator.domains, printable(dataset.path, 1000)
    by_name = set(names) == set(own)
    if not by_name and isinstance(dataset, UnpairedImages) and not _go_by_order(list(names), own):
        theirs, found = (", ".join(printable(name, 100) for name in x) for x in (own, names))
        raise MetricError(f"{snapshot}: translates between {theirs}; the domains of {where} are {found}")
    named = names if by_name else dict(zip(own, names.values(), strict=True))
    side = dataset.sides[0]
    directions = [(a, b) for a in translator.sources for b in translator.targets(a) if a != b]
    for source, target in directions:
        expected = translator.channels(source, target)[0]
        if expected != side.planes or (translator.labels is not None) != side.is_numbered:
            taken = Side(expected) if translator.labels is None else Side(1, is_labels=True, classes=translator.labels)
            raise MetricError(f"{snapshot}: takes {taken.kind} as {printable(source)}, and {where} holds {side.kind}")

    def translate(source: str, target: str, images_u8: Tensor, seeds: Sequence[int]) -> Tensor:
        return translator(to_input(images_u8, translator.labels), source, target, seed=seeds)

    return {f"{named[source]}to{named[target]}": partial(translate, source, target) for source, target in directions}


def open_held_out_pairs(data: Source, *, direction: str, channels: int) -> HeldOut:
    """The pairs that metrics are measured on, and their split.

    Raises:
        DataError: there are none, or they are not what they should be; says which were looked for.
        MetricError: direction or channels are none.
    """
    return _open(data, PairedImages, direction=direction, channels=channels)


def open_held_out_domains(data: Source, *, channels: int) -> HeldOut:
    """The domains that metrics are measured on, and their split; raises as `open_held_out_pairs` does."""
    return _open(data, UnpairedImages, channels=channels)


def _open(data: Source, kind: type, **settings: Any) -> HeldOut:
    """See `open_held_out`; what is open is taken as it is."""
    if isinstance(data, HeldOut):
        return data
    try:
        return open_held_out(data, kind, **settings)
    except DataError as error:
        raise _naming(error, "held-out") from error
    except ValueError as error:
        raise MetricError(f"settings of the snapshot's training are damaged: {printable(error)}") from error


def _crop(training: Mapping[str, Any]) -> CropConfig:
    """The crop of stored settings; that of published ones where there is none. Raises MetricError if it is damaged."""
    crop = training.get("crop", {})
    try:
        return CropConfig(**crop)
    except (TypeError, ValueError) as error:
        raise MetricError(f"settings of the snapshot's training are damaged: crop: {printable(error)}") from error


def _classes(training: Mapping[str, Any]) -> LabelClasses | None:
    """Those of label maps in stored settings, if there are any. Raises MetricError if they are damaged."""
    stored = training.get("labels")
    try:
        return None if stored is None else classes_from_json(stored)
    except ValueError as error:
        raise MetricError(f"settings of the snapshot's training are damaged: labels: {printable(error)}") from error


def _of_data(training: Mapping[str, Any], name: str, default: Any) -> Any:
    """A setting of the training set."""
    data = training.get("data")
    return data.get(name, default) if isinstance(data, Mapping) else default


def _names(stored: Any, setting: str) -> list[str]:
    """Names of domains in stored settings; raises MetricError if they are none."""
    if not isinstance(stored, (list, tuple)) or not all(isinstance(name, str) for name in stored):
        shown = printable(repr(stored), 80)
        raise MetricError(f"settings of the snapshot's training are damaged: {setting}: {shown}")
    return list(stored)


def _go_by_order(names: Sequence[str], own: Sequence[str]) -> bool:
    """Whether domains of the data are those of networks by order: as many, not called alike, one of them without names.

    Without names are the domains of folders trainA and trainB, or train0, train1, ..., and classes with numbers alone.
    """
    schemes = (list(ascii_uppercase[: len(own)]), [str(i) for i in range(len(own))])
    is_unnamed = list(names) in schemes or list(own) in schemes
    return len(names) == len(own) and set(names) != set(own) and is_unnamed


def _learnt_ways(names: Sequence[str], frozen: Sequence[str]) -> tuple[list[tuple[int, int]], str]:
    """The two domains, by number, of each direction in which anything is learnt; and which these are, if not all."""
    ways = list(permutations(range(len(names)), 2))
    learning = [name for name in names if name not in frozen]
    learnt = [way for way in ways if any(names[i] in learning for i in way)]
    if not learning or len(learnt) == len(ways):
        return ways, ""
    of = ", ".join(printable(name, 100) for name in learning)
    return learnt, f"in {len(learnt)} of {len(ways)} directions, from and to {of}: the others stay as they are"


def _naming(error: DataError, which: str) -> DataError:
    """The error, with what the images are for."""
    return DataError(f"{error} (of the {which} images, which metrics are measured on)")
