# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""How long the metrics of a snapshot take, from a few images that are made, read and looked at; writes nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from ggdr.metrics.detector import Detector, to_device
from ggdr.metrics.detectors import DETECTORS
from ggdr.metrics.evaluate import Job
from ggdr.metrics.extract import FeatureRequest
from ggdr.metrics.image_sets import FileImages
from ggdr.metrics.inception import INCEPTION_FILE
from ggdr.metrics.lpips import LPIPS_FILE
from ggdr.metrics.names import MetricSpec
from ggdr.metrics.vgg import VGG16_FILE
from ggdr.scripts.measuring.judge import BATCH
from ggdr.torch_utils.downloads import WeightsError, find_hashed

NUM_TIMED = BATCH  # images
NUM_PATHS = 4
NUM_WARM_UP = 8  # images before those
# Files that a detector downloads where no cache has them, which an estimate does not wait for.
DOWNLOADED = {
    "inception": (INCEPTION_FILE,),
    "vgg16": (VGG16_FILE,),
    "lpips": (VGG16_FILE, LPIPS_FILE),
    "lpips_pairs": (VGG16_FILE, LPIPS_FILE),
}


@dataclass(frozen=True)
class DetectorTimes:
    """What the detectors of a study's metrics take.

    Attributes:
        an_image: seconds, by detector.
        reals:    seconds for the features of all real images that no cache has.
        missing:  by detector, why it cannot be timed.
    """

    an_image: Mapping[str, float] = field(default_factory=dict)
    reals: float = 0.0
    missing: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ImageTimes:
    """What a variant's generator or translator takes.

    Attributes:
        an_image:   seconds an image.
        a_path:     seconds a path of each metric of paths.
        directions: of translation, each of which is measured.
        num:        images that there are to translate; None: as many as are asked for.
    """

    an_image: float = 0.0
    a_path: Mapping[str, float] = field(default_factory=dict)
    directions: int = 1
    num: int | None = None


def evaluation_seconds(specs: Sequence[MetricSpec], detectors: DetectorTimes, images: ImageTimes) -> float:
    """For these metrics of one snapshot; those whose detectors are missing count as nothing."""
    specs = [spec.of_all(images.num) for spec in specs]
    sampled = [spec for spec in specs if spec.detector in detectors.an_image]
    num = max((spec.num for spec in sampled), default=0)
    looked_at = sum(detectors.an_image[name] for name in {spec.detector for spec in sampled})
    paths = sum(images.a_path.get(spec.name, 0) * spec.num for spec in specs)
    return images.directions * num * (images.an_image + looked_at) + paths


def time_detectors(specs: Sequence[MetricSpec], job: Job) -> DetectorTimes:
    """Reads some of a job's reals and takes their features by each detector that is at hand.

    They are decoded without processes, whose start would be timed.

    Raises:
        DataError: an image cannot be read.
    """
    reals, files, cache = job.reals, job.detectors, job.cache
    if isinstance(reals, FileImages):
        reals.workers = 0
    numbers = np.arange(NUM_TIMED) % reals.num
    read: list = []
    reading = _seconds(lambda: read.extend(reals.batches([numbers])), files.device) / NUM_TIMED
    images_u8 = to_device(read[0], files.device)
    an_image, missing, not_cached = {}, {}, []
    for name in sorted({spec.detector for spec in specs}):
        try:
            for file in DOWNLOADED.get(name, ()):
                find_hashed(file, download=False)
            detector = files.get(name)
        except WeightsError:
            missing[name] = "its weights are not at hand"
            continue
        if not isinstance(detector, Detector):
            continue  # of pairs: timed with the paths
        if min(reals.sizes[0]) < detector.min_size:
            missing[name] = f"it needs images of at least {detector.min_size}x{detector.min_size}"
            continue
        # In place of the images that it compares, one image as often as the most that lie beside each other.
        seen = torch.cat([images_u8] * 4, dim=1) if DETECTORS[name].beside else images_u8
        detector(seen[:NUM_WARM_UP])
        an_image[name] = _seconds(lambda detector=detector, seen=seen: detector(seen), files.device) / NUM_TIMED
        with_reals = [spec for spec in specs if spec.detector == name and spec.needs_reals]
        keep = max((min(spec.max_reals or reals.num, reals.num) for spec in with_reals if spec.takes_rows), default=0)
        if with_reals and cache.load(reals, detector, FeatureRequest(keep)) is None:
            not_cached.append(name)
    once = reals.num * (reading + sum(an_image[name] for name in not_cached)) if not_cached else 0.0
    return DetectorTimes(an_image, once, missing)


def time_images(specs: Sequence[MetricSpec], jobs: Mapping[str, Job], times: DetectorTimes) -> ImageTimes:
    """Makes some images of a network, and some paths.

    Args:
        jobs: of a snapshot, by directions, which all count as much as the first.
    """
    job = next(iter(jobs.values()))
    images, files = job.fakes, job.detectors
    timed = np.arange(NUM_TIMED) % (images.num or max(spec.num for spec in specs))
    list(images.batches([timed[:NUM_WARM_UP]]))
    an_image = _seconds(lambda: list(images.batches([timed])), files.device) / NUM_TIMED
    a_path = {}
    for spec in specs:
        if spec.kind == "ppl" and spec.detector not in times.missing:
            distance, numbers = files.get(spec.detector), range(min(NUM_PATHS, spec.num))
            job.measure_paths(spec, numbers[:1], distance)
            seconds = _seconds(lambda spec=spec: job.measure_paths(spec, numbers, distance), files.device)  # noqa: B023
            a_path[spec.name] = seconds / len(numbers)
    return ImageTimes(an_image, a_path, len(jobs), images.num)


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start
