# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What GGDR attaches to in four GANs that are not ours, how far the cosine distance falls, and what a step costs."""

from __future__ import annotations

import copy
import os
import statistics
import time
from pathlib import Path

import click
import torch
import torch.nn.functional as F
from torch import Tensor

from ggdr import GGDR
from ggdr.scripts.options.parameters import bad_parameter
from ggdr.torch_utils.data.dataset import ImageDataset
from ggdr.torch_utils.data.image_files import DataError
from tests.foreign_gans import GANS, Trainer, digits

WARM_UP = 3  # steps that are not timed
LAST = 10  # steps that the final distance is averaged over
HEADER = (
    "| GAN, images | guide in G | encoder in D | decoder | distance at first | probe | GGDR "
    "| ms a step without | with GGDR | attached, no watch |"
)


def images_of(path: Path, shape: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    """At most 2000 images of a folder or zip, [num, *shape] in [-1, 1], and zeros as labels."""
    dataset = ImageDataset(path)
    img = torch.from_numpy(dataset.images_u8(range(min(len(dataset), 2000)))).float() / 127.5 - 1
    img = img[:, :3] if shape[0] == 3 else img[:, :3].mean(dim=1, keepdim=True)
    img = F.interpolate(img, shape[1:], mode="bilinear", align_corners=False, antialias=True)
    return img.expand(-1, shape[0], -1, -1), torch.zeros(len(img), dtype=torch.long)


def measure(make, data: tuple[Tensor, Tensor], steps: int, batch: int) -> tuple[GGDR, dict, dict]:
    """Trains four copies of a GAN turn by turn: without GGDR, with it, as a probe, and attached but not watched.

    Returns:
        The GGDR with weight; seconds of each step, and cosine distances after it, by copy.
    """
    torch.manual_seed(0)
    gan = make()
    gans = {name: copy.deepcopy(gan) for name in ("without", "GGDR", "probe", "unwatched")}
    attached = {}
    for name, weight in (("GGDR", 10.0), ("probe", 0.0), ("unwatched", 10.0)):
        torch.manual_seed(1)
        attached[name] = GGDR(gans[name].G, gans[name].D, probe=gans[name].probe, weight=weight)
    watched = {"GGDR": attached["GGDR"], "probe": attached["probe"]}
    trainers = {name: Trainer(gans[name], data, watched.get(name), batch) for name in gans}
    seconds, distances = {name: [] for name in gans}, {name: [] for name in watched}
    names = list(gans)
    for step in range(steps):
        # Each in turn goes first: the caches are the coldest for it.
        for name in names[step % 4 :] + names[: step % 4]:
            torch.manual_seed(step)
            start = time.perf_counter()
            distance = trainers[name].step()
            seconds[name].append(time.perf_counter() - start)
            if distance is not None:
                distances[name].append(distance)
    return attached["GGDR"], seconds, distances


def row(name: str, make, ggdr: GGDR, seconds: dict, distances: dict) -> str:
    """A line of the table."""
    timed = {key: values[WARM_UP:] or values for key, values in seconds.items()}

    def ratio(key: str) -> str:
        pairs = zip(timed[key], timed["without"], strict=True)
        return f"{statistics.median(one / other for one, other in pairs):.2f}"

    def last(key: str) -> str:
        return f"{statistics.mean(distances[key][-LAST:]):.2f}"

    cells = [
        f"{name}, {'x'.join(map(str, make().shape))}",
        ", ".join(f"`{guide}`" for guide in ggdr.guides),
        ", ".join(f"`{layer}`" for layer in ggdr.encoder),
        f"{sum(p.numel() for p in ggdr.parameters())}",
        f"{distances['GGDR'][0]:.2f}",
        last("probe"),
        f"**{last('GGDR')}**",
        f"{1000 * statistics.median(timed['without']):.0f}",
        f"x {ratio('GGDR')}",
        f"x {ratio('unwatched')}",
    ]
    return f"| {' | '.join(cells)} |"


def plot(curves: dict[str, dict[str, list[float]]], path: Path) -> None:
    """Draws the cosine distance over the steps, a panel a GAN."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, len(curves), figsize=(2.6 * len(curves), 2.6), sharey=True, squeeze=False)
    for panel, (name, distances) in zip(panels[0], curves.items(), strict=True):
        for key, label, color in (("probe", "weight 0 (probe)", "#888888"), ("GGDR", "weight 10", "#d62728")):
            panel.plot(range(1, len(distances[key]) + 1), distances[key], color=color, label=label, linewidth=1.2)
        panel.set(title=name, xlabel="step", ylim=(0, 1.05))
        panel.grid(alpha=0.3)
    panels[0, 0].set_ylabel("cosine distance")
    panels[0, -1].legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


@click.command(context_settings={"show_default": True})
@click.option("--steps", type=click.IntRange(min=1), default=300, metavar="STEPS", help="Of each of D and G.")
@click.option("--batch", type=click.IntRange(min=2), default=16, metavar="NIMG")
@click.option("--threads", type=click.IntRange(min=1), default=1, metavar="N")
@click.option(
    "--data",
    type=click.Path(exists=True, path_type=Path),
    metavar="FOLDER|ZIP",
    help="Images to train on; without it, scikit-learn's digits.",
)
@click.option("--plot", "picture", type=click.Path(path_type=Path), metavar="PNG", help="Curves of the distances.")
@click.option("--gan", "names", type=click.Choice(list(GANS)), multiple=True, help="Only these; several times.")
def main(steps: int, batch: int, threads: int, data: Path | None, picture: Path | None, names: tuple[str, ...]) -> None:
    """Prints a table in Markdown. Decoder: its parameters. Ratios: medians over the steps, to the same step without.

    \b
    Examples:
      python -m benchmarks.attach --threads 2 --plot attach.png
      python -m benchmarks.attach --steps 50 --gan DCGAN --data images.zip
    """
    torch.set_num_threads(threads)
    click.echo(f"{steps} steps of batch {batch}, {threads} thread(s), load {os.getloadavg()[0]:.1f} at the start\n")
    click.echo(HEADER)
    click.echo("|" + " --- |" * (HEADER.count("|") - 1))
    curves = {}
    for name in names or GANS:
        make = GANS[name]
        try:
            images = digits(make.shape) if data is None else images_of(data, make.shape)
        except DataError as error:
            raise bad_parameter(str(error), "--data") from error
        ggdr, seconds, curves[name] = measure(make, images, steps, batch)
        click.echo(row(name, make, ggdr, seconds, curves[name]))
    if picture is not None:
        plot(curves, picture)


if __name__ == "__main__":
    main()
