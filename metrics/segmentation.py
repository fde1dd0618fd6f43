# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""How well maps of classes agree with label maps: intersection over union and accuracies, from a confusion matrix.

A confusion matrix is int64 [C, K]: how many pixels of class c are called k. Matrices of parts of a set are added.
"""

from __future__ import annotations

import torch
from torch import Tensor

IGNORED = 255  # in a label map: no class


def confusion(labels: Tensor, found: Tensor, classes: int, called: int | None = None) -> Tensor:
    """Counts the pixels of each class by what they are called.

    Args:
        labels:  [N, H, W] integers below `classes`, or IGNORED; these pixels do not count.
        found:   [N, H, W] integers below `called`.
        classes: how many there are.
        called:  how many names there are; None: as many as classes.

    Returns:
        [classes, called] int64, on the CPU.

    Raises:
        ValueError: shapes differ, or a number is out of range.
    """
    if labels.shape != found.shape:
        raise ValueError(f"label maps {tuple(labels.shape)} and what was found {tuple(found.shape)} differ in shape")
    called = classes if called is None else called
    has_class = labels != IGNORED
    labels, found = labels[has_class].long(), found[has_class].long()
    for what, numbers, most in (("label maps", labels, classes), ("maps", found, called)):
        if numbers.numel() and not 0 <= int(numbers.min()) <= int(numbers.max()) < most:
            raise ValueError(f"{what} hold {int(numbers.min())} to {int(numbers.max())}, expected 0 to {most - 1}")
    return (labels * called + found).bincount(minlength=classes * called).reshape(classes, called).cpu()


def iou_table(counts: Tensor) -> Tensor:
    """Intersection over union of every class with every name: [C, K] float64; NaN where neither occurs."""
    counts = counts.double()
    return counts / (counts.sum(dim=1, keepdim=True) + counts.sum(dim=0, keepdim=True) - counts)


def mean_iou(counts: Tensor) -> float:
    """Mean over the classes that occur, in labels or among the names, of [C, C]; NaN if none does.

    Source: Everingham et al. 2015, "The PASCAL Visual Object Classes Challenge", Section 3.1.
    """
    return float(iou_table(counts).diagonal().nanmean())


def pixel_accuracy(counts: Tensor) -> float:
    """Share of the pixels of [C, C] that are called by their class; NaN without pixels."""
    counts = counts.double()
    return float(counts.diagonal().sum() / counts.sum())


def class_accuracy(counts: Tensor) -> float:
    """Mean over the classes that label maps hold of the share of their pixels that is found; [C, C]."""
    counts = counts.double()
    return float((counts.diagonal() / counts.sum(dim=1)).nanmean())


def assigned_iou(counts: Tensor) -> float:
    """Mean intersection over union of clusters, each taken for one class, so that this mean is the highest.

    A class without a cluster has 0; classes that no label map holds do not count. Clusters without a class count
    through the pixels that the classes lack.

    Args:
        counts: [C, K], pixels of each class in each cluster.

    Source: Kuhn 1955, "The Hungarian method for the assignment problem".
    """
    from scipy.optimize import linear_sum_assignment

    occurring = counts.sum(dim=1) > 0
    table = iou_table(counts)[occurring].nan_to_num()
    if not len(table):
        return float("nan")
    rows, columns = linear_sum_assignment(table.numpy(), maximize=True)
    return float(table[torch.from_numpy(rows), torch.from_numpy(columns)].sum() / len(table))
