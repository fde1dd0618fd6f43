# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What the label maps are that a run is to be trained on: as typed, as it was before, or as found in the files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ggdr.scripts.errors import OptionError
from ggdr.scripts.options.label_maps import parse_ignored
from ggdr.scripts.options.progress import progress_bars
from ggdr.scripts.training.resume import Origin
from ggdr.torch_utils.checkpoint import Snapshot, SnapshotError
from ggdr.torch_utils.data.image_files import DataError
from ggdr.torch_utils.data.label_map_files import classes_of_maps
from ggdr.torch_utils.data.label_maps import (
    LabelClasses,
    check_classes,
    classes_from_json,
)
from ggdr.torch_utils.untrusted.text import printable
from ggdr.translation.data.datasets import PairedImages
from ggdr.translation.snapshot import GENERATORS, LAYOUT_TRANSLATORS, label_classes, network_configs

OPTIONS = ("classes", "ignore_label")


def add_classes(
    data: PairedImages,
    command: Mapping[str, Any],
    origin: Origin,
    snapshot: Snapshot | None,
    *,
    is_shown: bool,
    needed_by: str | None = None,
) -> tuple[PairedImages, list[str]]:
    """The pairs with the classes of their inputs, if these are label maps, and what to tell about it.

    Args:
        command:  its --classes and --ignore-label come first, then the run or snapshot that training starts from.
        snapshot: from whose weights a new run starts.
        is_shown: whether progress is.
        needed_by: the model, if it takes label maps alone.

    Raises:
        OptionError: the options do not fit the data, or the data not the snapshot; targets are label maps, or inputs
            are none and are to be.
        DataError: a label map cannot be read, or holds what is no class.
        SnapshotError: classes that are stored are damaged.
    """
    before, where = _before(origin, snapshot)
    is_input, is_target = (side.is_numbered for side in data.sides)
    first = [printable(name) for name in data.first_pair()]
    if is_target:
        raise OptionError(
            "--direction",
            f"the target, {first[1]}, is a label map with the number of a class in each pixel. Images are made, "
            "whose distance from a target says nothing of numbers of classes: label maps are inputs here. Grey images "
            "beside colour ones belong into the folders trainA and trainB",
        )
    if needed_by is not None and not is_input:
        raise OptionError(
            "--data",
            f"{needed_by} makes images of label maps, and the input, {first[0]}, is none: expected folders labels and "
            "images with files of equal names, those of labels 8-bit with the number of a class in each pixel",
        )
    if not is_input:
        for name in OPTIONS:
            if command[name] is not None:
                text = f"is about label maps with the number of a class in each pixel; the input, {first[0]}, is none"
                raise OptionError(f"--{name.replace('_', '-')}", text)
        if before is not None:
            raise OptionError("--data", f"its inputs are images, and {where} takes label maps of {before.num} classes")
        return data, []
    if before is None and (snapshot is not None or origin.state_path is not None):
        raise OptionError("--data", f"its inputs are label maps, and {where} takes images")
    stored = origin.stored.get("command", {})
    if before is not None and all(command[name] == stored.get(name) for name in OPTIONS):
        classes = before
    else:
        classes = _of_command(data, command, is_shown)
        if snapshot is not None and (before.values, before.ignored) != (classes.values, classes.ignored):
            raise OptionError("--classes", f"got {classes.describe()}; {where} takes {before.describe()}")
    check_classes(data.container, data.input_files(), classes)
    return data.with_classes(classes), [f"inputs are label maps of {classes.describe()}"]


def _before(origin: Origin, snapshot: Snapshot | None) -> tuple[LabelClasses | None, str]:
    """Classes of the run that goes on, or of the snapshot that a new one starts from, and what has them."""
    if snapshot is not None:
        G = network_configs(snapshot, {"G": (*GENERATORS, *LAYOUT_TRANSLATORS)})["G"]
        return label_classes(snapshot, G), str(snapshot.path)
    stored = origin.stored.get("labels")
    try:
        return None if stored is None else classes_from_json(stored), "the run"
    except ValueError as error:
        text = f"{origin.options_path}: classes of label maps are damaged: {printable(error)}"
        raise SnapshotError(text) from error


def _of_command(data: PairedImages, command: Mapping[str, Any], is_shown: bool) -> LabelClasses:
    """As the options say, as it is known of a published set, or as the files are."""
    ignored = None if command["ignore_label"] is None else parse_ignored(command["ignore_label"])
    with progress_bars(is_shown) as bars:
        try:
            found = classes_of_maps(
                data.container,
                data.pairs.folder,
                data.input_files(),
                command["classes"],
                ignored,
                lambda done, total: bars("label maps", done, total),
            )
        except ValueError as error:
            if isinstance(error, DataError):
                raise
            raise OptionError("--classes", str(error)) from error
    if found.num == 1 and found.ignored:
        text = f"{found.describe()}: one class alone; --ignore-label none makes classes of all values"
        raise OptionError("--data", text)
    return found
