# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Draws how fd_offline grows with what is done to CIFAR-10's test images, and falls over a training run."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from scipy.ndimage import gaussian_filter
from torch import Tensor

from ggdr.metrics.fid import frechet_distance
from ggdr.metrics.offline import OfflineFeatures
from ggdr.metrics.stats import FeatureStats
from ggdr.stylegan2 import load_generator
from ggdr.torch_utils.data.dataset import ImageDataset
from ggdr.torch_utils.pictures.images import to_u8
from ggdr.torch_utils.pictures.plot_style import COLORS, STYLE

SHOWN = 5  # fake on which each corruption is shown


class Point(NamedTuple):
    """A set of images: its strength or kimg, its distance to the reals, and what it looks like [h, w, 3] uint8."""

    at: float
    distance: float
    picture: np.ndarray | None = None


def noise(images: np.ndarray, sigma: float) -> np.ndarray:
    return images + sigma * np.random.RandomState(0).randn(*images.shape).astype(np.float32)


def blur(images: np.ndarray, sigma: float) -> np.ndarray:
    return gaussian_filter(images, (0, 0, sigma, sigma), mode="nearest")


def colour_cast(images: np.ndarray, levels: float) -> np.ndarray:
    return images + levels * np.array([1, 0, -1], np.float32).reshape(3, 1, 1)


def fade(images: np.ndarray, percent: float) -> np.ndarray:
    return images + (images.mean(1, keepdims=True) - images) * percent / 100


def shuffle_tiles(images: np.ndarray, per_side: int) -> np.ndarray:
    """Cuts each image into per_side^2 tiles, and puts them together in a random order of its own."""
    n, _, res, _ = images.shape
    size = res // per_side
    tiles = images.reshape(n, 3, per_side, size, per_side, size).transpose(0, 2, 4, 1, 3, 5)
    tiles = tiles.reshape(n, per_side**2, 3, size, size)
    order = np.random.RandomState(0).rand(n, per_side**2).argsort(1)
    tiles = tiles[np.arange(n)[:, None], order].reshape(n, per_side, per_side, 3, size, size)
    return tiles.transpose(0, 3, 1, 4, 2, 5).reshape(images.shape)


CORRUPTIONS: dict[str, tuple[Callable, tuple[float, ...], str]] = {
    "Noise": (noise, (2, 4, 8, 16, 32, 64), "standard deviation, grey levels"),
    "Blur": (blur, (0.5, 0.7, 1, 1.4, 2, 4), "standard deviation, pixels"),
    "Colour cast": (colour_cast, (4, 8, 16, 32, 64), "grey levels from blue to red"),
    "Faded colours": (fade, (10, 25, 50, 75, 100), "% of the saturation"),
    "Shuffled tiles": (shuffle_tiles, (2, 4, 8, 16), "tiles along a side"),
}


def spoilt(images_u8: np.ndarray, corrupt: Callable, strength: float) -> np.ndarray:
    """uint8 [N, 3, res, res], corrupted."""
    return corrupt(images_u8.astype(np.float32), strength).round().clip(0, 255).astype(np.uint8)


def moments(features: Tensor) -> tuple[Tensor, Tensor]:
    stats = FeatureStats(features.shape[1])
    stats.update(features)
    return stats.gaussian()[:2]


def mosaic(images_u8: Tensor, side: int = 3) -> np.ndarray:
    """The first side^2 images [N, 3, res, res] uint8 as one picture."""
    n, c, res, _ = images_u8[: side**2].shape
    rows = images_u8[:n].view(side, side, c, res, res).permute(0, 3, 1, 4, 2)
    return rows.reshape(side * res, side * res, c).numpy()


def missing_classes(features: Tensor, labels: np.ndarray, far: Callable) -> Iterator[Point]:
    """Averages over which classes are missing."""
    num_classes = labels.max() + 1
    for missing in (1, 2, 4, 6, 8, 9):
        kept = [(labels - first) % num_classes >= missing for first in range(num_classes)]
        yield Point(missing, np.mean([far(features[torch.from_numpy(keep)]) for keep in kept]))


@torch.inference_mode()
def fakes_of(network: Path, num: int) -> Tensor:
    """[num, 3, res, res] uint8."""
    G = load_generator(network)
    rng = torch.Generator().manual_seed(0)
    c = torch.eye(max(G.c_dim, 1))[torch.arange(num) % max(G.c_dim, 1), : G.c_dim]
    return torch.cat([to_u8(G(torch.randn(len(part), G.z_dim, generator=rng), part)) for part in c.split(100)])


def draw(ax: Axes, title: str, xlabel: str, points: list[Point], floor: float, *, even: bool) -> None:
    """Distances, and pictures above six of them at most; `even`: in even steps, whatever the numbers."""
    at = list(range(len(points))) if even else [point.at for point in points]
    ax.plot(at, [point.distance for point in points], color=COLORS[not even], marker="o", markersize=4 if even else 2.5)
    ax.axhline(floor, color="#666666", linestyle=(0, (4, 2)), linewidth=1)
    low, high = (-0.6, len(points) - 0.4) if even else (at[0] - at[-1] / 10, at[-1] * 1.1)
    ax.set(xlim=(low, high), ylim=(floor / 1.6, 1500), yscale="log", xlabel=xlabel)
    ax.set_title(title, pad=43)
    ax.yaxis.set_major_formatter("{x:g}")
    if even:
        ax.set_xticks(at, [f"{point.at:g}" for point in points])
    pictured = [i for i, point in enumerate(points) if point.picture is not None]
    for i in pictured[:: max(1, -(-len(pictured) // 6))]:
        picture = OffsetImage(points[i].picture, zoom=33 / len(points[i].picture))
        ax.add_artist(
            AnnotationBbox(picture, (at[i], 1), (0, 20), ("data", "axes fraction"), "offset points", frameon=False)
        )


@click.command()
@click.option("--train", metavar="ZIP", required=True, help="CIFAR-10's training images, as `ggdr dataset` makes it.")
@click.option("--test", metavar="ZIP", required=True, help="Its test images.")
@click.option("--run", metavar="DIR", type=click.Path(path_type=Path), help="Run on CIFAR-10 whose snapshots to score.")
@click.option("--out", metavar="PNG", type=click.Path(path_type=Path), required=True)
def main(train: str, test: str, run: Path | None, out: Path) -> None:
    """Compares test images, whole and spoilt, and as many fakes of a run, with the training images by fd_offline.

    \b
    Example:
      python -m benchmarks.distance_orders_images --train cifar10.zip --test cifar10-test.zip \\
          --run runs/cifar --out docs/metrics-order.png
    """
    net = OfflineFeatures()
    real, held_out = ImageDataset(train), ImageDataset(test, use_labels=True)
    of_real = moments(net(torch.from_numpy(real.images_u8(range(len(real))))))
    images_u8 = held_out.images_u8(range(len(held_out)))
    labels = held_out.labels(range(len(held_out))).argmax(1)

    def far(features: Tensor) -> float:
        return frechet_distance(*of_real, *moments(features))

    features = net(torch.from_numpy(images_u8))
    floor = far(features)
    click.echo(f"train against test  {floor:.3f}")
    networks = [] if run is None else sorted(run.glob("network-snapshot-*.safetensors"), key=lambda path: path.stem)
    training = []
    for network in networks:
        fakes = fakes_of(network, len(features))
        kimg = float(re.findall(r"[\d.]+(?=\.safetensors)", network.name)[0])
        training.append(Point(kimg, far(net(fakes)), mosaic(fakes)))
        click.echo(f"{network.name}  {training[-1].distance:.2f}")

    panels: dict[str, tuple[list[Point], str]] = {}
    for title, (corrupt, strengths, unit) in CORRUPTIONS.items():
        points = []
        for strength in strengths:
            distance = far(net(torch.from_numpy(spoilt(images_u8, corrupt, strength))))
            shown = spoilt(fakes[SHOWN : SHOWN + 1].numpy(), corrupt, strength)[0] if networks else None
            points.append(Point(strength, distance, None if shown is None else shown.transpose(1, 2, 0)))
        panels[title] = (points, unit)
    panels["Missing classes"] = (list(missing_classes(features, labels, far)), "classes missing, of ten")
    rng = np.random.RandomState(0)
    few = [Point(num, far(features[rng.permutation(len(features))[:num]])) for num in (3000, 1000, 300, 100, 30, 10)]
    panels["Few images, repeated"] = (few, "different images")
    for title, (points, _) in panels.items():
        click.echo(f"{title:<22}" + "  ".join(f"{point.at:g}: {point.distance:.2f}" for point in points))
    if training:
        panels["Training"] = (training, "kimg")

    with rc_context(STYLE):
        figure = Figure(figsize=(14, 7), dpi=150, layout="constrained")
        figure.get_layout_engine().set(hspace=0.06, wspace=0.03)
        FigureCanvasAgg(figure)
        axes = figure.subplots(2, 4, sharey=True)
        for ax, (title, (points, xlabel)) in zip(axes.flat, panels.items(), strict=False):
            draw(ax, title, xlabel, points, floor, even=title != "Training")
        for ax in axes[:, 0]:
            ax.set_ylabel("fd_offline to training images")
        axes[0, 0].annotate("test images", (-0.5, floor), (0, 3), textcoords="offset points", fontsize=8)
        figure.savefig(out)
    click.echo(f"Wrote {out}")


if __name__ == "__main__":
    main()
