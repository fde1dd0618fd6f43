# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Times the Frechet distance beside scipy's square root of a matrix, and the other distances of features."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import click
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from ggdr.metrics.fid import frechet_distance
from ggdr.metrics.kid import kid
from ggdr.metrics.manifold import precision_recall
from ggdr.metrics.stats import FeatureStats, Gaussian

T = TypeVar("T")


def timed(run: Callable[[], T], device: torch.device) -> tuple[T, float]:
    """What a call returns, and its seconds."""
    start = time.perf_counter()
    result = run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return result, time.perf_counter() - start


def features_of(num: int, dims: int, seed: int, device: torch.device) -> Tensor:
    """[num, dims] float32, correlated, with the variances of Inception's features: from 5 down to 1e-6."""
    rng = torch.Generator().manual_seed(seed)
    axes = torch.linalg.qr(torch.randn(dims, dims, generator=torch.Generator().manual_seed(0)))[0]
    deviations = torch.logspace(0.35, -3, dims)
    return ((torch.randn(num, dims, generator=rng) * deviations) @ axes * (1 + 0.05 * seed)).to(device)


def stats_of(features: Tensor) -> FeatureStats:
    stats = FeatureStats(features.shape[1])
    stats.update(features)
    return stats


def by_sqrtm(a: Gaussian, b: Gaussian) -> float:
    """As most tools compute it."""
    from scipy.linalg import sqrtm

    mean_a, cov_a, mean_b, cov_b = (tensor.cpu().numpy() for tensor in (a.mean, a.cov, b.mean, b.cov))
    root = sqrtm(cov_a @ cov_b)
    return float(((mean_a - mean_b) ** 2).sum() + cov_a.trace() + cov_b.trace() - 2 * root.trace().real)


@click.command()
@click.option("--dims", type=click.IntRange(min=1), default=2048, show_default=True, metavar="D")
@click.option("--num", type=click.IntRange(min=2), default=5000, show_default=True, metavar="NIMG")
@click.option("--device", default="cpu", show_default=True)
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, metavar="N")
@click.option("--repeats", type=click.IntRange(min=1), default=3, show_default=True, metavar="N")
def main(dims: int, num: int, device: str, threads: int, repeats: int) -> None:
    """Prints seconds, the fastest of several runs; scipy and ours take turns.

    \b
    Examples:
      python -m benchmarks.frechet_distance --threads 2
      python -m benchmarks.frechet_distance --dims 256 --num 1000
    """
    torch.set_num_threads(threads)
    threadpool_limits(threads)  # scipy's library of linear algebra
    place = torch.device(device)
    real, fake = (features_of(num, dims, seed, place) for seed in (1, 2))
    click.echo(f"{num} images, {dims} dimensions, {device}, {threads} CPU thread(s)")

    stats, seconds = timed(lambda: [stats_of(features) for features in (real, fake)], place)
    a, b = (entry.gaussian() for entry in stats)
    click.echo(f"{seconds / 2:8.2f} s  mean and covariance, in float64")

    ours, scipys = [], []
    for _ in range(repeats):
        value, seconds = timed(lambda: frechet_distance(a.mean, a.cov, b.mean, b.cov), place)
        ours.append(seconds)
        expected, seconds = timed(lambda: by_sqrtm(a, b), place)
        scipys.append(seconds)
    click.echo(f"{min(ours):8.2f} s  Frechet distance, {value:.9g}")
    click.echo(
        f"{min(scipys):8.2f} s  by scipy.linalg.sqrtm, {expected:.9g}; {min(scipys) / min(ours):.1f} times as long"
    )

    distance, seconds = timed(lambda: kid(real, fake), place)
    click.echo(f"{seconds:8.2f} s  KID of 100 subsets of {min(num, 1000)}, {distance.mean:.6f}")
    result, seconds = timed(lambda: precision_recall(real, fake), place)
    click.echo(f"{seconds:8.2f} s  precision {result.precision:.3f} and recall {result.recall:.3f}")


if __name__ == "__main__":
    main()
