# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""How well maps of classes agree with label maps: intersection over union and accuracies, from a confusion matrix.

A confusion matrix is int64 [C, K]: how many pixels of class c are called k. Matrices of parts of a set are added.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ggdr.torch_utils.data.label_maps import IGNORED


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
    called = classes if called is None else called
    has_class = _checked(labels, found, classes, called)
    labels, found = labels[has_class].long(), found[has_class].long()
    return (labels * called + found).bincount(minlength=classes * called).reshape(classes, called).cpu()


@dataclass(frozen=True)
class ClassPixels:
    """What mean IoU and accuracies take of a confusion matrix: pixels of each class, all of one shape [..., C].

    Attributes:
        right:    that are called by their class.
        labelled: that label maps say are of it.
        called:   that are called by its name, whatever they are.
    """

    right: Tensor
    labelled: Tensor
    called: Tensor

    @classmethod
    def of(cls, counts: Tensor) -> ClassPixels:
        """Those of a confusion matrix [C, C]."""
        return cls(counts.diagonal(), counts.sum(dim=1), counts.sum(dim=0))

    @classmethod
    def of_images(cls, labels: Tensor, found: Tensor, classes: int) -> ClassPixels:
        """Those of each image, [N, C] int64 on the device; arguments and errors are those of `confusion`."""
        has_class = _checked(labels, found, classes, classes)
        images = torch.arange(len(labels), device=labels.device).view(-1, 1, 1).expand_as(labels)
        labels, found, images = labels[has_class].long(), found[has_class].long(), images[has_class]

        def count(names: Tensor, at: Tensor) -> Tensor:
            return (at * classes + names).bincount(minlength=len(has_class) * classes).view(-1, classes)

        is_right = labels == found
        return cls(count(labels[is_right], images[is_right]), count(labels, images), count(found, images))

    def iou(self) -> Tensor:
        """Intersection over union of each class: float64; NaN of one that neither label maps nor names hold."""
        right = self.right.double()
        return right / (self.labelled + self.called - right)

    def mean_iou(self) -> float:
        """See `mean_iou`."""
        return float(self.iou().nanmean())

    def pixel_accuracy(self) -> float:
        """See `pixel_accuracy`."""
        return float(self.right.double().sum() / self.labelled.sum())

    def class_accuracy(self) -> float:
        """See `class_accuracy`."""
        return float((self.right.double() / self.labelled).nanmean())


# By the names of metrics.
MEASURES = {
    "miou": ClassPixels.mean_iou,
    "pixel_accuracy": ClassPixels.pixel_accuracy,
    "class_accuracy": ClassPixels.class_accuracy,
}


def iou_table(counts: Tensor) -> Tensor:
    """Intersection over union of every class with every name: [C, K] float64; NaN where neither occurs."""
    counts = counts.double()
    return counts / (counts.sum(dim=1, keepdim=True) + counts.sum(dim=0, keepdim=True) - counts)


def mean_iou(counts: Tensor) -> float:
    """Mean over the classes that occur, in labels or among the names, of [C, C]; NaN if none does.

    Source: Everingham et al. 2015, "The PASCAL Visual Object Classes Challenge", Section 3.1.
    """
    return ClassPixels.of(counts).mean_iou()


def pixel_accuracy(counts: Tensor) -> float:
    """Share of the pixels of [C, C] that are called by their class; NaN without pixels."""
    return ClassPixels.of(counts).pixel_accuracy()


def class_accuracy(counts: Tensor) -> float:
    """Mean over the classes that label maps hold of the share of their pixels that is found; [C, C]."""
    return ClassPixels.of(counts).class_accuracy()


def assign_clusters(counts: Tensor) -> Tensor:
    """The class that each cluster is taken for, so that the mean intersection over union is the highest.

    Args:
        counts: [C, K], pixels of each class in each cluster.

    Returns:
        [K] int64: a class, each at most once and only if it occurs; IGNORED for clusters that are left over.

    Source: Kuhn 1955, "The Hungarian method for the assignment problem".
    """
    from scipy.optimize import linear_sum_assignment

    occurring = (counts.sum(dim=1) > 0).nonzero()[:, 0]
    rows, columns = linear_sum_assignment(iou_table(counts)[occurring].nan_to_num().numpy(), maximize=True)
    classes = torch.full([counts.shape[1]], IGNORED)
    classes[torch.from_numpy(columns)] = occurring[torch.from_numpy(rows)]
    return classes


def assigned_iou(counts: Tensor) -> float:
    """Mean intersection over union of clusters, each taken for one class as `assign_clusters` says.

    A class without a cluster has 0; classes that no label map holds do not count. Clusters without a class count
    through the pixels that the classes lack. NaN without pixels.

    Args:
        counts: [C, K], pixels of each class in each cluster.
    """
    num_classes = int((counts.sum(dim=1) > 0).sum())
    if not num_classes:
        return float("nan")
    classes = assign_clusters(counts)
    clusters = (classes != IGNORED).nonzero()[:, 0]
    return float(iou_table(counts)[classes[clusters], clusters].sum() / num_classes)


def adjusted_rand_index(counts: Tensor) -> float:
    """How alike two partitions of pixels are, by pairs of pixels: 1 for the same one, about 0 for chance, or below.

    Args:
        counts: [C, K], pixels of each class in each cluster; NaN without pixels.

    Source: Hubert & Arabie 1985, "Comparing partitions", Equation 5.
    """
    if not counts.sum():
        return float("nan")
    together, of_classes, of_clusters, all_pairs = (
        float((each.double() * (each.double() - 1) / 2).sum())
        for each in (counts, counts.sum(dim=1), counts.sum(dim=0), counts.sum())
    )
    expected = of_classes * of_clusters / max(all_pairs, 1)
    most = (of_classes + of_clusters) / 2
    # Both have all pixels in one part, or each in its own.
    return 1.0 if most == expected else (together - expected) / (most - expected)


def adjusted_mutual_information(counts: Tensor) -> float:
    """Mutual information of two partitions of pixels, less that of chance: 1 for the same one, about 0 for chance.

    Args:
        counts: [C, K], pixels of each class in each cluster; NaN without pixels.

    Source: Vinh, Epps & Bailey 2010, "Information Theoretic Measures for Clusterings Comparison", with the arithmetic
    mean of both entropies as norm.
    """
    from sklearn.metrics.cluster import expected_mutual_information

    total = int(counts.sum())
    if not total:
        return float("nan")
    counts = counts[counts.sum(dim=1) > 0][:, counts.sum(dim=0) > 0]
    if 1 in counts.shape:
        return 1.0 if counts.shape == (1, 1) else 0.0
    joint, of_classes, of_clusters = (
        _entropy(each / total) for each in (counts.double(), counts.double().sum(dim=1), counts.double().sum(dim=0))
    )
    expected = float(expected_mutual_information(counts.numpy(), total))
    return (of_classes + of_clusters - joint - expected) / ((of_classes + of_clusters) / 2 - expected)


def _entropy(shares: Tensor) -> float:
    """In nats."""
    return float(-torch.xlogy(shares, shares).sum())


def _checked(labels: Tensor, found: Tensor, classes: int, called: int) -> Tensor:
    """Which pixels have a class, bool of the shape of both; ValueError as `confusion` says."""
    if labels.shape != found.shape:
        raise ValueError(f"label maps {tuple(labels.shape)} and what was found {tuple(found.shape)} differ in shape")
    has_class = labels != IGNORED
    for what, numbers, most in (("label maps", labels[has_class], classes), ("maps", found[has_class], called)):
        if numbers.numel() and not 0 <= int(numbers.min()) <= int(numbers.max()) < most:
            raise ValueError(f"{what} hold {int(numbers.min())} to {int(numbers.max())}, expected 0 to {most - 1}")
    return has_class
