# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Metrics of translators: each direction's translations against real images of their target, pairs and cycles.

A host of translation says which directions there are, and how a snapshot translates; the rest is here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ggdr.metrics import segmented
from ggdr.metrics.evaluate import Job, check
from ggdr.metrics.extract import MetricError
from ggdr.metrics.image_sets import USUAL_PIXELS, to_rgb
from ggdr.metrics.names import MetricSpec, thousands
from ggdr.metrics.segmenter import OPTION
from ggdr.scripts.measuring.snapshot_images import SEED_STRIDE
from ggdr.torch_utils.downloads import sha256_of
from ggdr.torch_utils.pictures.images import to_u8
from ggdr.torch_utils.untrusted.text import printable
from ggdr.translation.data.measured import MeasuredDomain, MeasuredImages, MeasuredPairs

# Images that the metrics of presets take, where there are so many: from a direction, and from all together; and at
# least from each where there are many.
DEFAULT_NUM, DEFAULT_TOTAL, DEFAULT_FEWEST = 200, 1200, 20
TRAINING_IMAGES = "no test or val images are there: measured on those of training"

# Images uint8 [n, C, H, W] and the seed of each one's dropout, to their translations, float in [-1, 1].
Translate = Callable[[Tensor, Sequence[int]], Tensor]


@dataclass(frozen=True)
class Direction:
    """One way that a model translates, and what it is measured on.

    Attributes:
        name:     of letters and digits with "to" between: "AtoB", "0to1"; it ends the names of values where there are
                  several directions.
        inputs:   what is translated: A of pairs, whose B it should become; or a domain.
        reals:    images of the target, which the translations are compared with as a whole.
        way_back: name of the direction that leads back, where there is one.
    """

    name: str
    inputs: MeasuredPairs | MeasuredDomain
    reals: MeasuredImages
    way_back: str = ""


class TranslationJudge:
    """Measures translators; see `scripts.measuring.judge.SnapshotJudge`.

    Args:
        directions: at least one; all are measured.
        split:      that the images are of.
        job:        how to compare; translation number i has the dropout of seed `job.seed * SEED_STRIDE + i`.
        load:       load(snapshot, device) gives how each direction is translated, by its name.
        which:      domains that go by order, and directions there are, if these are not all; for people.
    """

    def __init__(
        self,
        directions: Sequence[Direction],
        split: str,
        job: Job,
        load: Callable[[Path, torch.device], Mapping[str, Translate]],
        which: str = "",
    ) -> None:
        self.directions, self.split, self.load, self.which = list(directions), split, load, which
        self.job = job if split != "train" else replace(job, warnings=(*job.warnings, TRAINING_IMAGES))

    @property
    def about(self) -> str:
        first = self.directions[0].inputs
        nums = [direction.inputs.num for direction in self.directions]
        few = f"{min(nums)}" if min(nums) == max(nums) else f"{min(nums)} to {max(nums)}"
        what = "pairs" if isinstance(first, MeasuredPairs) else "images of a domain"
        which = {"train": "training "}.get(self.split, f"{self.split} ")
        about = f"metrics are measured on {few} {which}{what} of {printable(first.dataset.path, 1000)}"
        return ", ".join(filter(None, [about, self.which]))

    @property
    def defaults(self) -> str:
        """Metrics for whoever names none."""
        fewest = min(direction.inputs.num for direction in self.directions)
        return default_metrics(
            fewest,
            len(self.directions),
            has_pairs=all(isinstance(x.inputs, MeasuredPairs) for x in self.directions),
            has_cycle=all(x.way_back for x in self.directions),
        )

    def check(self, specs: Sequence[MetricSpec]) -> None:
        for direction in self.directions:
            check(specs, self._job(direction, specs, TranslatedImages(direction.inputs)))

    def jobs(self, snapshot: Path, specs: Sequence[MetricSpec]) -> dict[str, Job]:
        device, seed = self.job.group.device, self.job.seed
        translate, found = self.load(snapshot, device), {}
        missing = [direction.name for direction in self.directions if direction.name not in translate]
        if missing:
            where = printable(self.directions[0].inputs.dataset.path, 1000)
            asked = f"the domains of {where} ask for {', '.join(missing)}"
            raise MetricError(f"{snapshot}: translates {', '.join(translate)}, and {asked}")
        about = {"network": str(snapshot), "sha256": sha256_of(snapshot)[:16], "seed": seed}
        for direction in self.directions:
            back = translate[direction.way_back] if _has_cycle(direction, specs) else None
            images = TranslatedImages(
                direction.inputs,
                translate[direction.name],
                back,
                first_seed=seed * SEED_STRIDE,
                device=device,
                about={**about, "direction": direction.name, "split": self.split},
            )
            found[direction.name] = self._job(direction, specs, images)
        return found

    def _job(self, direction: Direction, specs: Sequence[MetricSpec], images: TranslatedImages) -> Job:
        beside = ("target",) if isinstance(direction.inputs, MeasuredPairs) else ()
        if has_label_maps(direction.inputs):
            beside += ("labels",)
            self._check_segmenter(direction, specs)
        beside += ("cycle",) if _has_cycle(direction, specs) else ()
        return replace(self.job, reals=CroppedImages(direction.reals, self.split), fakes=images, beside=beside)

    def _check_segmenter(self, direction: Direction, specs: Sequence[MetricSpec]) -> None:
        """MetricError unless a segmenter that metrics ask for can judge the reals by their label maps."""
        if not any(spec.detector == segmented.NAME for spec in specs):
            return
        segmenter = self.job.detectors.get(segmented.NAME).segmenter
        img = torch.from_numpy(direction.reals.read([0])).to(self.job.detectors.device)
        try:
            segmenter.check(img, direction.inputs.dataset.sides[0].classes)
        except ValueError as error:
            where = printable(direction.inputs.dataset.path, 1000)
            raise MetricError(f"{OPTION} {error} (of {where})") from error


def _has_cycle(direction: Direction, specs: Sequence[MetricSpec]) -> bool:
    """Whether images are to be translated back."""
    return bool(direction.way_back) and any(spec.detector == "cycle" for spec in specs)


def has_label_maps(inputs: MeasuredPairs | MeasuredDomain) -> bool:
    """Whether what is translated are label maps of known classes."""
    side = inputs.dataset.sides[0]
    return isinstance(inputs, MeasuredPairs) and side.is_numbered and side.classes is not None


class CroppedImages:
    """Real images as metrics of translators take them; the label map of each is its last channel, where there are any.

    See metrics.image_sets.ImageSource, and DetectorEntry.beside.
    """

    labels = None

    def __init__(self, images: MeasuredImages, split: str) -> None:
        self.images, self.split, self.num = images, split, images.num
        self.sizes = [(images.size, images.size)]
        self.most_batch = _most_batch(images.size)

    def batches(self, numbers: Iterable[np.ndarray]) -> Iterator[Tensor]:
        for array in numbers:
            arrays = {name: torch.from_numpy(x) for name, x in self.images.of.read(array.tolist()).items()}
            img = to_rgb(arrays[self.images.side])
            yield torch.cat([img, arrays["A"]], dim=1) if self._has_labels else img

    def describe(self) -> dict[str, Any]:
        path = str(self.images.of.dataset.path)
        return {"path": path, "split": self.split, "size": [self.images.size] * 2, "flips": False}

    def fingerprint(self) -> str:
        own = self.images.fingerprint()
        if not self._has_labels:
            return own
        classes = self.images.of.dataset.sides[0].classes
        return hashlib.sha256(f"{own} {classes.to_json()}".encode()).hexdigest()

    @property
    def _has_labels(self) -> bool:
        return has_label_maps(self.images.of)


class TranslatedImages:
    """Translations; beside each, in channels, what it should be, the label map that it is of, and what comes back of
    it with what it is of.

    See metrics.image_sets.ImageSource, and DetectorEntry.beside.

    Args:
        inputs:     what is translated; of pairs B is what it should become.
        translate:  None where nobody asks for images.
        back:       None where nothing is translated back.
        first_seed: of dropout; of number i, this + i.
        about:      what a result line says of the translator.
    """

    labels = None

    def __init__(
        self,
        inputs: MeasuredPairs | MeasuredDomain,
        translate: Translate | None = None,
        back: Translate | None = None,
        *,
        first_seed: int = 0,
        device: torch.device | str = "cpu",
        about: Mapping[str, Any] | None = None,
    ) -> None:
        self.inputs, self.translate, self.back, self.first_seed, self.device = (
            inputs, translate, back, first_seed, torch.device(device)
        )  # fmt: skip
        self.num, self.about = inputs.num, dict(about or {})
        self.most_batch = _most_batch(inputs.crop.size)

    def batches(self, numbers: Iterable[np.ndarray]) -> Iterator[Tensor]:
        for array in numbers:
            yield self._draw(array.tolist())

    def describe(self) -> dict[str, Any]:
        return {**self.about, "inputs": str(self.inputs.dataset.path), "size": [self.inputs.crop.size] * 2}

    def fingerprint(self) -> None:
        return None

    def _draw(self, numbers: list[int]) -> Tensor:
        """uint8 [n, 3 to 12, size, size] on the device."""
        arrays, seeds = self.inputs.read(numbers), [self.first_seed + number for number in numbers]
        img = torch.from_numpy(arrays["A"]).to(self.device)
        translated = self._rounded(self.translate(img, seeds))
        parts = [translated]
        if isinstance(self.inputs, MeasuredPairs):
            parts.append(torch.from_numpy(arrays["B"]))
        if self.back is not None:
            parts += [self._rounded(self.back(translated, seeds)), img]
        planes = [to_rgb(part.to(self.device)) for part in parts]
        return torch.cat([*planes, img] if has_label_maps(self.inputs) else planes, dim=1)

    def _rounded(self, img: Tensor) -> Tensor:
        """8-bit images, as files would hold them."""
        if not img.isfinite().all():
            network = self.about.get("network")
            raise MetricError(f"{network}: its images hold NaN or infinite numbers: the network has diverged")
        return to_u8(img)


def default_metrics(num: int, directions: int = 1, *, has_pairs: bool, has_cycle: bool = False) -> str:
    """What presets measure: cheap, without weights, and unbiased for few images.

    Args:
        num:        images that there are.
        directions: that are measured; of many each takes fewer images.
    """
    singles = ["psnr", "ssim"] if has_pairs else ["cycle_psnr"] if has_cycle else []
    if num < 2:
        return ",".join(singles)
    most = min(DEFAULT_NUM, max(DEFAULT_TOTAL // directions, DEFAULT_FEWEST))
    count = f"{thousands(min(num, most))}k"
    return ",".join([f"kd_offline{count}_full", *(f"{name}{count}" for name in singles)])


def _most_batch(size: int) -> int:
    return max(1, USUAL_PIXELS // size**2)
