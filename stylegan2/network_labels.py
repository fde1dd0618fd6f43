# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What the labels of a conditional network mean, as its snapshots say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ggdr.torch_utils.untrusted.json_text import is_finite

if TYPE_CHECKING:
    from ggdr.torch_utils.data.dataset import ImageDataset

KEY = "labels"  # in a snapshot's settings
NUM_EXAMPLES = 8


@dataclass(frozen=True)
class NetworkLabels:
    """What a snapshot says about its labels; one that says nothing has neither names nor examples.

    Attributes:
        classes:  names of classes, index = label; empty if they have none.
        examples: some labels of the training set, c_dim numbers each, if they are vectors; empty if they are classes.
    """

    classes: tuple[str, ...] = ()
    examples: tuple[tuple[float, ...], ...] = ()


def labels_of_dataset(dataset: ImageDataset) -> NetworkLabels:
    """Of a network that is trained on this dataset with its labels."""
    if not dataset.c_dim:
        return NetworkLabels()
    if dataset.label_counts is not None:
        return NetworkLabels(classes=tuple(dataset.classes or ()))
    num = min(dataset.num_raw, NUM_EXAMPLES)
    some = dataset.labels([i * dataset.num_raw // num for i in range(num)])
    return NetworkLabels(examples=tuple(map(tuple, some.tolist())))


def labels_to_config(labels: NetworkLabels) -> dict[str, Any]:
    """What goes into a snapshot's settings."""
    return {KEY: asdict(labels)} if labels != NetworkLabels() else {}


def labels_of_config(config: Mapping[str, Any], c_dim: int) -> NetworkLabels:
    """What a snapshot's settings say, which anyone can have written; what does not fit counts as not said."""
    stored = config.get(KEY)
    if not isinstance(stored, Mapping):
        return NetworkLabels()
    classes, examples = stored.get("classes"), stored.get("examples")
    if not (isinstance(classes, list) and len(classes) <= c_dim and all(isinstance(name, str) for name in classes)):
        classes = []
    if not (isinstance(examples, list) and all(_is_label(example, c_dim) for example in examples)):
        examples = []
    return NetworkLabels(tuple(classes), tuple(map(tuple, examples)))


def _is_label(value: Any, c_dim: int) -> bool:
    return isinstance(value, list) and len(value) == c_dim and all(is_finite(x) and abs(x) < 1e38 for x in value)
