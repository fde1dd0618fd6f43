# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Times the clustering of feature maps, beside scikit-learn's k-means on all of their vectors."""

from __future__ import annotations

import resource
import time

import click
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from ggdr.clusters import choose_number, fit_clusters, mutual_information


def segments(num: int, size: int, clusters: int) -> Tensor:
    """[num, size, size] labels of 8x8 patches."""
    rng = torch.Generator().manual_seed(0)
    coarse = torch.randint(clusters, (num, -(-size // 8), -(-size // 8)), generator=rng)
    return coarse.repeat_interleave(8, 1).repeat_interleave(8, 2)[:, :size, :size]


def noisy_features(labels: Tensor, channels: int) -> Tensor:
    """[N, channels, H, W]: a direction for each label, and as much noise. Built in place: memory is measured."""
    rng = torch.Generator().manual_seed(1)
    directions = torch.randn([int(labels.max()) + 1, channels], generator=rng)
    feats = torch.empty([len(labels), channels, *labels.shape[1:]])
    for feat, label in zip(feats, labels, strict=True):
        feat.normal_(generator=rng).add_(directions[label].permute(2, 0, 1))
    return feats


def peak_mib() -> float:
    """The largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@click.command()
@click.option("--num", type=click.IntRange(min=1), default=64, show_default=True, metavar="NIMG")
@click.option("--size", type=click.IntRange(min=2), default=64, show_default=True, metavar="PIXELS")
@click.option("--channels", type=click.IntRange(min=1), default=512, show_default=True, metavar="C")
@click.option("--clusters", type=click.IntRange(min=2), default=8, show_default=True, metavar="K")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, metavar="N")
@click.option("--sklearn/--no-sklearn", "with_sklearn", default=True, show_default=True)
def main(num: int, size: int, channels: int, clusters: int, threads: int, with_sklearn: bool) -> None:
    """Prints seconds, memory beyond the features, and how much of the planted segments is found.

    \b
    Examples:
      python -m benchmarks.cluster_speed --threads 2
      python -m benchmarks.cluster_speed --num 8 --size 16 --channels 32 --no-sklearn
    """
    from sklearn.cluster import KMeans  # before the clock starts

    torch.set_num_threads(threads)
    threadpool_limits(threads)
    labels = segments(num, size, clusters)
    feats = noisy_features(labels, channels)
    click.echo(f"{num} x {size}x{size}x{channels} features ({feats.nbytes / 2**20:.0f} MiB), {threads} thread(s)")

    before, start = peak_mib(), time.perf_counter()
    found = fit_clusters(feats, clusters).labels(feats)
    seconds, extra = time.perf_counter() - start, peak_mib() - before
    score = mutual_information(found, labels)
    click.echo(f"{seconds:8.2f} s  {clusters} clusters, {extra:.0f} MiB more memory, mutual information {score:.3f}")
    start = time.perf_counter()
    scores = choose_number(feats)
    best = max(scores, key=scores.__getitem__)
    click.echo(f"{time.perf_counter() - start:8.2f} s  number of clusters by silhouette: {best}")

    if with_sklearn:
        start = time.perf_counter()
        vectors = torch.nn.functional.normalize(feats, dim=1).permute(0, 2, 3, 1).reshape(-1, channels).numpy()
        KMeans(clusters, n_init=4, random_state=0).fit(vectors)
        extra = peak_mib() - before
        click.echo(
            f"{time.perf_counter() - start:8.2f} s  scikit-learn's KMeans on all vectors, {extra:.0f} MiB more memory"
        )


if __name__ == "__main__":
    main()
