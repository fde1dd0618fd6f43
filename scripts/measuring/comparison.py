# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What `ggdr metrics` compares: reals with the images of a snapshot, or with images that anyone made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ggdr.metrics.detectors import DetectorFiles
from ggdr.metrics.evaluate import Job
from ggdr.metrics.feature_cache import FeatureCache
from ggdr.metrics.image_sets import ImageSource
from ggdr.metrics.names import MetricSpec
from ggdr.scripts.measuring.real_images import comparison_warnings, find_labels, open_reals
from ggdr.scripts.measuring.snapshot_images import SnapshotGenerator
from ggdr.torch_utils.cache import cache_folder
from ggdr.torch_utils.distributed import ProcessGroup


def open_comparison(
    specs: Sequence[MetricSpec],
    detectors: DetectorFiles,
    group: ProcessGroup,
    *,
    network: Path | None,
    fakes: ImageSource | None,
    reals: Path | None,
    mirror: bool,
    psi: float,
    noise_mode: str,
    seed: int,
    batch_size: int,
    workers: int | None,
    use_cache: bool,
) -> Job:
    """Opens the images of both sides, for `evaluate`.

    Args:
        specs:           the metrics; the largest one says how many images a network makes.
        network:         snapshot that makes the fakes, or None.
        fakes:           images in place of those, or None.
        reals:           images, or their stored statistics; None if no metric needs them.
        mirror:          add the x-flip of every real image.
        psi, noise_mode: of the network.
        seed:            of the network's images and of the metrics' subsets.
        workers:         processes that decode images; None: as suits their number.
        use_cache:       keep the features of reals on disk.

    Raises:
        DataError, SnapshotError: a file cannot be read.
        MetricError: labels of reals and network differ in kind.
    """
    real_images, fake_images, measure_paths = None, fakes, None
    reading = {"as_stored": detectors.mode.as_stored}
    if reals is not None:
        real_images = open_reals(reals, mirror=mirror, workers=workers, **reading)
    if network is not None:
        how = {"seed": seed, "psi": psi, "noise_mode": noise_mode, **reading}
        generator = SnapshotGenerator(network, group.device, labels=find_labels(real_images), **how)
        fake_images, measure_paths = generator.images(max(spec.num for spec in specs)), generator.measure_paths
    warnings = comparison_warnings(real_images, fake_images, detectors.mode)
    if psi != 1:
        warnings.append(f"fakes are truncated (psi {psi:g}); published figures are not")
    return Job(
        detectors,
        reals=real_images,
        fakes=fake_images,
        measure_paths=measure_paths,
        cache=FeatureCache(cache_folder("metrics") if use_cache else None),
        group=group,
        batch=batch_size,
        seed=seed,
        warnings=tuple(warnings),
    )
