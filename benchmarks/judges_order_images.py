# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Draws how judges that need no download order CIFAR-10's test images with damages, and the snapshots of a run."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from scipy.ndimage import gaussian_filter
from torch import Tensor

from ggdr.metrics.detectors import DetectorFiles
from ggdr.metrics.fid import frechet_distance
from ggdr.metrics.kid import kid
from ggdr.metrics.mind import mind
from ggdr.metrics.resize import MODES
from ggdr.metrics.stats import FeatureStats
from ggdr.scripts.training.snapshot_files import snapshots_in
from ggdr.stylegan2 import load_generator
from ggdr.torch_utils.data.dataset import ImageDataset
from ggdr.torch_utils.pictures.images import to_u8
from ggdr.torch_utils.pictures.plot_style import COLORS, plot_style

SHOWN = 5  # fake on which each corruption is shown


class Point(NamedTuple):
    """A set of images: its strength or kimg, its distances to the reals by judge, and a picture [h, w, 3] uint8."""

    at: float
    distances: dict[str, float]
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


def overlay_texture(images: np.ndarray, percent: float) -> np.ndarray:
    """Lays the same fine pattern over all images."""
    pattern = np.random.RandomState(0).randint(0, 256, images.shape[1:]).astype(np.float32)
    return images + (pattern - images) * percent / 100


CORRUPTIONS: dict[str, tuple[Callable, tuple[float, ...], str]] = {
    "Noise": (noise, (2, 4, 8, 16, 32), "grey levels"),
    "Blur": (blur, (0.5, 0.7, 1, 1.4, 2), "pixels"),
    "Colour cast": (colour_cast, (4, 8, 16, 32, 64), "grey levels"),
    "Faded colours": (fade, (10, 25, 50, 75, 100), "% of saturation"),
    "Texture": (overlay_texture, (5, 10, 20, 40), "% of the image"),
    "Shuffled tiles": (shuffle_tiles, (2, 4, 8), "tiles along a side"),
}
JUDGES = ("fd_offline", "fd_lite", "kd_lite", "mind_lite")


def spoilt(images_u8: np.ndarray, corrupt: Callable, strength: float) -> np.ndarray:
    """uint8 [N, 3, res, res], corrupted."""
    return corrupt(images_u8.astype(np.float32), strength).round().clip(0, 255).astype(np.uint8)


class Judges:
    """Features of the reals, and how far other features are from them.

    Attributes:
        seconds: spent on features of images, by detector.
    """

    def __init__(self, reals_u8: Tensor) -> None:
        files = DetectorFiles(MODES["stylegan"], torch.device("cpu"))
        self.detectors = {name: files.get(name) for name in ("offline", "lite")}
        self.seconds = dict.fromkeys(self.detectors, 0.0)
        self.reals = self.features(reals_u8)
        self.moments = {name: moments(rows) for name, rows in self.reals.items()}

    def features(self, images_u8: Tensor) -> dict[str, Tensor]:
        """[N, D] by detector."""
        found = {}
        for name, detector in self.detectors.items():
            start = time.perf_counter()
            found[name] = torch.cat([detector(part)["features"] for part in images_u8.split(100)])
            self.seconds[name] += time.perf_counter() - start
        return found

    def distances(self, features: Mapping[str, Tensor]) -> dict[str, float]:
        """Of JUDGES."""
        lite = features["lite"]
        return {
            "fd_offline": frechet_distance(*self.moments["offline"], *moments(features["offline"])),
            "fd_lite": frechet_distance(*self.moments["lite"], *moments(lite)),
            "kd_lite": kid(self.reals["lite"], lite, num_subsets=10).mean,
            "mind_lite": mind(self.reals["lite"], lite),
        }


def moments(features: Tensor) -> tuple[Tensor, Tensor]:
    stats = FeatureStats(features.shape[1])
    stats.update(features)
    return stats.gaussian()[:2]


def rows_of(features: Mapping[str, Tensor], chosen: np.ndarray) -> dict[str, Tensor]:
    """Features of some of the images: numbers, or [N] bool."""
    return {name: rows[torch.from_numpy(chosen)] for name, rows in features.items()}


def mosaic(images_u8: Tensor, side: int = 3) -> np.ndarray:
    """The first side^2 images [N, 3, res, res] uint8 as one picture."""
    n, c, res, _ = images_u8[: side**2].shape
    rows = images_u8[:n].view(side, side, c, res, res).permute(0, 3, 1, 4, 2)
    return rows.reshape(side * res, side * res, c).numpy()


def missing_classes(features: Mapping[str, Tensor], labels: np.ndarray, judges: Judges) -> Iterator[Point]:
    """The first classes are missing; at last there is one class alone."""
    for missing in (1, 2, 4, 6, 8, 9):
        yield Point(missing, judges.distances(rows_of(features, labels >= missing)))


@torch.inference_mode()
def fakes_of(network: Path, num: int) -> Tensor:
    """[num, 3, res, res] uint8."""
    G = load_generator(network)
    rng = torch.Generator().manual_seed(0)
    c = torch.eye(max(G.c_dim, 1))[torch.arange(num) % max(G.c_dim, 1), : G.c_dim]
    return torch.cat([to_u8(G(torch.randn(len(part), G.z_dim, generator=rng), part)) for part in c.split(100)])


def draw(axes: Sequence[Axes], title: str, xlabel: str, points: list[Point], floor: Point, *, even: bool) -> None:
    """A column: distances by each judge, pictures above; `even`: in even steps, whatever the numbers."""
    at = list(range(len(points))) if even else [point.at for point in points]
    low, high = (-0.6, len(points) - 0.4) if even else (at[0] - at[-1] / 10, at[-1] * 1.1)
    for ax, judge in zip(axes, JUDGES, strict=True):
        values = [point.distances[judge] for point in points]
        ax.plot(at, values, color=COLORS[not even], marker="o", markersize=3)
        ax.axhline(floor.distances[judge], color="#666666", linestyle=(0, (4, 2)), linewidth=1)
        ax.set(xlim=(low, high), yscale="symlog" if judge == "kd_lite" else "log")
        if judge == "kd_lite":
            ax.set_yscale("symlog", linthresh=0.01)
        ax.yaxis.set_major_formatter("{x:g}")
        ax.set_xticks(at, [f"{point.at:g}" for point in points]) if even else None
    axes[0].set_title(title, pad=34)
    axes[-1].set_xlabel(xlabel)
    pictured = [i for i, point in enumerate(points) if point.picture is not None]
    for i in pictured[:: max(1, -(-len(pictured) // 5))]:
        picture = OffsetImage(points[i].picture, zoom=24 / len(points[i].picture))
        axes[0].add_artist(
            AnnotationBbox(picture, (at[i], 1), (0, 16), ("data", "axes fraction"), "offset points", frameon=False)
        )


@click.command()
@click.option("--train", metavar="ZIP", required=True, help="CIFAR-10's training images, as `ggdr dataset` makes it.")
@click.option("--test", metavar="ZIP", required=True, help="Its test images.")
@click.option("--run", metavar="DIR", type=click.Path(path_type=Path), help="Run on CIFAR-10 whose snapshots to score.")
@click.option("--num", metavar="N", type=click.IntRange(100), default=5000, show_default=True, help="Images of a set.")
@click.option("--num-reals", metavar="N", type=click.IntRange(100), default=10000, show_default=True)
@click.option("--out", metavar="PNG", type=click.Path(path_type=Path), required=True)
def main(train: str, test: str, run: Path | None, num: int, num_reals: int, out: Path) -> None:
    """Compares test images, whole and spoilt, and as many fakes of a run, with training images.

    \b
    Example:
      python -m benchmarks.judges_order_images --train cifar10.zip --test cifar10-test.zip \\
          --run runs/cifar --out docs/metrics-order.png
    """
    real, held_out = ImageDataset(train, max_images=num_reals), ImageDataset(test, use_labels=True, max_images=num)
    judges = Judges(torch.from_numpy(real.images_u8(range(len(real)))))
    images_u8 = held_out.images_u8(range(len(held_out)))
    labels = held_out.labels(range(len(held_out))).argmax(1)
    features = judges.features(torch.from_numpy(images_u8))
    floor = Point(0, judges.distances(features))
    report("test images", [floor])
    for name, seconds in judges.seconds.items():
        click.echo(f"{name}: {seconds / (len(real) + len(held_out)) * 5000:.1f} s for the features of 5,000 images")

    columns: dict[str, tuple[list[Point], str]] = {}
    for title, (corrupt, strengths, unit) in CORRUPTIONS.items():
        points = []
        for strength in strengths:
            images = spoilt(images_u8, corrupt, strength)
            distances = judges.distances(judges.features(torch.from_numpy(images)))
            points.append(Point(strength, distances, images[SHOWN].transpose(1, 2, 0)))
        columns[title] = (points, unit)
        report(title, points)
    columns["Missing classes"] = (list(missing_classes(features, labels, judges)), "of ten")
    report("Missing classes", columns["Missing classes"][0])
    if run is not None:
        training = []
        for network in snapshots_in(run):
            fakes = fakes_of(network, len(held_out))
            kimg = float(re.findall(r"[\d.]+(?=\.safetensors)", network.name)[0])
            training.append(Point(kimg, judges.distances(judges.features(fakes)), mosaic(fakes)))
        columns["Training"] = (training, "kimg")
        report("Training", training)

    with plot_style():
        figure = Figure(figsize=(2.1 * len(columns), 8), dpi=130, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(len(JUDGES), len(columns), sharey="row", sharex="col")
        for column, (title, (points, xlabel)) in zip(axes.T, columns.items(), strict=True):
            draw(column, title, xlabel, points, floor, even=title != "Training")
        for ax, judge in zip(axes[:, 0], JUDGES, strict=True):
            ax.set_ylabel(judge)
        figure.savefig(out)
    click.echo(f"Wrote {out}")


def report(title: str, points: list[Point]) -> None:
    """A line for each judge."""
    for judge in JUDGES:
        values = "  ".join(f"{point.at:g}: {point.distances[judge]:.4g}" for point in points)
        click.echo(f"{title:<18}{judge:<12}{values}")


if __name__ == "__main__":
    main()
