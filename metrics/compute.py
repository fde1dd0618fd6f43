# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Each kind of metric, from the features of reals and fakes to values, choices and warnings."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ggdr.metrics.extract import Extracted, MetricError, chosen_numbers
from ggdr.metrics.fid import fid_infinity, frechet_distance
from ggdr.metrics.inception_score import inception_score
from ggdr.metrics.kid import kid
from ggdr.metrics.manifold import density_coverage, precision_recall
from ggdr.metrics.mind import NUM_DIRECTIONS, mind
from ggdr.metrics.names import NUM_IS_SPLITS, OF_CLASSES, PER_IMAGE, MetricSpec
from ggdr.metrics.resize import Mode
from ggdr.metrics.segmentation import MEASURES
from ggdr.metrics.segmented import pixels_of
from ggdr.metrics.stats import FeatureStats, Gaussian

NUM_KID_SUBSETS, KID_SUBSET_SIZE = 100, 1000
IS_SHUFFLE_SEED = 2020  # torch-fidelity shuffles before it splits
USUAL_NUM_FAKES = 50_000
PAIR_COLUMNS = {"mae": 0, "psnr": 1}  # of the features of pairs; those of other single images have one column


@dataclass
class Values:
    """What came out.

    Attributes:
        values:   by what is put behind the metric's name; the first one ranks models.
        choices:  settings and numbers that they depend on.
        warnings: why they may mislead.
    """

    values: dict[str, float]
    choices: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Compared:
    """The features of two sets of images.

    Attributes:
        real:        of the reals, or their stored mean and covariance; None if the metric needs none.
        fake:        of the fakes, at least spec.num of them.
        real_labels: class of each real image, or None; likewise fake_labels.
        device:      where to compute.
    """

    spec: MetricSpec
    real: Extracted | Gaussian | None
    fake: Extracted
    real_labels: np.ndarray | None
    fake_labels: np.ndarray | None
    mode: Mode
    seed: int
    device: torch.device

    def real_gaussian(self) -> Gaussian:
        if not isinstance(self.real, Gaussian):
            return self.on_device(self.real.stats.gaussian(self.mode.ddof))
        # Stored ones are divided by N - 1; of an unknown N (0) they stay as they are.
        mean, cov, num = self.on_device(self.real)
        return Gaussian(mean, cov * (num - 1) / (num - self.mode.ddof) if num else cov, num)

    def fake_gaussian(self) -> Gaussian:
        return self.on_device(self.fake.stats_of(self.spec.num).gaussian(self.mode.ddof))

    def on_device(self, gaussian: Gaussian) -> Gaussian:
        """Statistics from a cache or a file lie on the CPU."""
        return Gaussian(gaussian.mean.to(self.device), gaussian.cov.to(self.device), gaussian.num)

    def fake_rows(self) -> Tensor:
        return self.fake.features_of(self.spec.num).to(self.device)

    def real_rows(self) -> Tensor:
        """Features of the reals, of as many as the metric takes."""
        return self.real.features_of(min(self.spec.max_reals or self.real.num, self.real.num)).to(self.device)

    def fake_classes(self) -> np.ndarray:
        """Of the fakes in `fake_rows`."""
        return self.fake_labels[chosen_numbers(self.fake.total, self.spec.num)]


def compute(compared: Compared) -> Values:
    """One metric's values.

    Raises:
        MetricError: too few images for it, or features that cannot be compared.
    """
    try:
        return _KINDS[compared.spec.kind](compared)
    except ValueError as error:
        raise MetricError(f"{compared.spec.name}: {error}") from error


def _fid(compared: Compared) -> Values:
    spec, real, fake = compared.spec, compared.real_gaussian(), compared.fake_gaussian()
    warnings = []
    if spec.num < USUAL_NUM_FAKES:
        warnings.append(
            f"{spec.num} fakes: a Frechet distance falls with the number of images; compare only with figures of as "
            "many, or extrapolate to infinitely many (fidinf.., fdinf_..)"
        )
    few = [f"{g.num} {which}" for which, g in (("reals", real), ("fakes", fake)) if 0 < g.num <= len(g.mean)]
    if few:
        warnings.append(f"{' and '.join(few)} are too few for {len(real.mean)} dimensions: a covariance is singular")
    distance = frechet_distance(real.mean, real.cov, fake.mean, fake.cov)
    return Values({"": distance}, _gaussian_choices(compared, real), warnings)


def _fid_infinity(compared: Compared) -> Values:
    real = compared.real_gaussian()
    result = fid_infinity(real, compared.fake_rows(), ddof=compared.mode.ddof, seed=compared.seed)
    return Values({"": result.value}, _gaussian_choices(compared, real))


def _gaussian_choices(compared: Compared, real: Gaussian) -> dict[str, Any]:
    """Stored statistics may not say of how many images they are."""
    return ({"num_reals": real.num} if real.num else {}) | {"cov_ddof": compared.mode.ddof}


def _kid(compared: Compared) -> Values:
    real, fake = compared.real_rows(), compared.fake_rows()
    size = min(len(real), len(fake), KID_SUBSET_SIZE)
    result = kid(real, fake, num_subsets=NUM_KID_SUBSETS, max_subset_size=KID_SUBSET_SIZE, seed=compared.seed)
    warnings = [] if size == KID_SUBSET_SIZE else [f"subsets of {size} images, where {KID_SUBSET_SIZE} are usual"]
    choices = {"num_reals": len(real), "num_subsets": NUM_KID_SUBSETS, "subset_size": size}
    return Values({"_mean": result.mean, "_std": result.std}, choices, warnings)


def _mind(compared: Compared) -> Values:
    real, fake = compared.real_rows(), compared.fake_rows()
    choices = {"num_reals": len(real), "compared": min(len(real), len(fake)), "num_directions": NUM_DIRECTIONS}
    return Values({"": mind(real, fake)}, choices)


def _inception_score(compared: Compared) -> Values:
    logits = compared.fake.logits_of(compared.spec.num).to(compared.device)
    shuffled = compared.mode.name == "torch-fidelity"
    if shuffled:
        logits = logits[torch.from_numpy(np.random.RandomState(IS_SHUFFLE_SEED).permutation(len(logits)))]
    result = inception_score(logits, num_splits=NUM_IS_SPLITS)
    warnings = []
    if not shuffled and compared.fake.total is not None:
        warnings.append(
            "splits are in the order of the files: of images sorted by class each has few classes, and a low score; "
            "--mode torch-fidelity shuffles them"
        )
    choices = {"num_splits": NUM_IS_SPLITS, "shuffled": shuffled}
    return Values({"_mean": result.mean, "_std": result.std}, choices, warnings)


def _precision_recall(compared: Compared) -> Values:
    real = compared.real_rows()
    result = precision_recall(real, compared.fake_rows(), k=compared.spec.neighbours)
    return Values({"_precision": result.precision, "_recall": result.recall}, _neighbours(compared, real))


def _density_coverage(compared: Compared) -> Values:
    real = compared.real_rows()
    result = density_coverage(real, compared.fake_rows(), k=compared.spec.neighbours)
    return Values({"_density": result.density, "_coverage": result.coverage}, _neighbours(compared, real))


def _neighbours(compared: Compared, real: Tensor) -> dict[str, Any]:
    return {"num_reals": len(real), "neighbours": compared.spec.neighbours}


def _mean_of_images(compared: Compared) -> Values:
    """The mean over images of one number of each."""
    rows, kind = compared.fake_rows().double(), compared.spec.kind
    values = rows[:, PAIR_COLUMNS.get(kind, 0)]
    spread = values.std().item() if len(values) > 1 else 0.0
    warnings = []
    num_equal = int((rows[:, PAIR_COLUMNS["mae"]] == 0).sum()) if kind == "psnr" else 0
    if num_equal:
        warnings.append(
            f"{num_equal} images are equal to what they should be: of these counts the PSNR of images of which one "
            "value differs, by one level"
        )
    return Values({"": values.mean().item()}, {"std_of_images": spread}, warnings)


def _of_classes(compared: Compared) -> Values:
    """How well what is found in fakes agrees with the label maps; and likewise in reals of the same ones."""
    num, kind, found = compared.spec.num, compared.spec.kind, {}
    for suffix, rows in (("", compared.fake_rows()), ("_reals", compared.real.features_of(num))):
        pixels = pixels_of(rows)
        if not pixels.labelled.any():
            raise ValueError(f"no pixel of {num} label maps has a class")
        iou = [None if math.isnan(value) else round(value, 6) for value in pixels.iou().tolist()]
        found[suffix] = (MEASURES[kind](pixels), iou)
    choices = {"num_reals": num, "iou_of_classes": found[""][1], "iou_of_classes_reals": found["_reals"][1]}
    return Values({suffix: value for suffix, (value, _) in found.items()}, choices)


def _mean_gap(compared: Compared) -> Values:
    """How far the means over reals and over fakes lie apart."""
    both = (compared.real.stats, compared.fake.stats_of(compared.spec.num))
    real, fake = (stats.gaussian().mean.item() for stats in both)
    return Values({"": abs(real - fake)}, {"num_reals": compared.real.num, "mean_reals": real, "mean_fakes": fake})


def _intra_fid(compared: Compared) -> Values:
    """The mean over classes of the distance between a class' reals and its fakes."""
    classes = np.unique(compared.real_labels).tolist()
    distances, smallest = {}, compared.spec.num
    sets = (
        ("reals", compared.real.features, compared.real_labels),
        ("fakes", compared.fake_rows(), compared.fake_classes()),
    )
    for k in classes:
        pair = []
        for which, rows, labels in sets:
            chosen = rows[torch.from_numpy(np.flatnonzero(labels == k))]
            smallest = min(smallest, len(chosen))
            if len(chosen) < 2:
                raise MetricError(f"{compared.spec.name}: class {k} has {len(chosen)} {which}, expected at least 2")
            stats = FeatureStats(rows.shape[1])
            stats.update(chosen.to(compared.device))
            gaussian = compared.on_device(stats.gaussian(compared.mode.ddof))
            pair += [gaussian.mean, gaussian.cov]
        distances[str(k)] = frechet_distance(*pair)
    warnings = []
    if smallest <= compared.real.features.shape[1]:
        warnings.append(f"a class has only {smallest} images: its covariance is singular")
    choices = {"num_reals": len(compared.real_labels), "num_classes": len(classes), "classes": distances}
    return Values({"": float(np.mean(list(distances.values())))}, choices, warnings)


_KINDS: dict[str, Callable[[Compared], Values]] = {
    "fid": _fid,
    "fidinf": _fid_infinity,
    "kid": _kid,
    "mind": _mind,
    "is": _inception_score,
    "pr": _precision_recall,
    "dc": _density_coverage,
    "intra_fid": _intra_fid,
    "colourfulness_gap": _mean_gap,
    **dict.fromkeys(PER_IMAGE, _mean_of_images),
    **dict.fromkeys(OF_CLASSES, _of_classes),
}
