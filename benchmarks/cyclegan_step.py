# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""An iteration of CycleGAN beside the plain PyTorch loop that the paper describes, in one run, turn by turn."""

from __future__ import annotations

import itertools
import os
import random
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from multiprocessing import get_context

import click
import torch
from torch import Tensor, nn

from ggdr.scripts.benches.report import peak_resident_mib
from ggdr.scripts.training.regularizer_ggdr import GGDRSettings
from ggdr.scripts.training.regularizers import build_regularizers
from ggdr.scripts.training.settings import HALF_DTYPES
from ggdr.torch_utils.distributed import ProcessGroup
from ggdr.torch_utils.loop import Counters, LoopConfig, PhaseRunner, StatsSum
from ggdr.torch_utils.ops import set_ops
from ggdr.translation import cyclegan, host
from ggdr.translation.config import CycleGANConfig, PatchDiscriminatorConfig, ResnetGeneratorConfig
from ggdr.translation.layers import init_weights
from ggdr.translation.networks import build_network

Batch = dict[str, Tensor]
LENGTH = 10**9  # images of a run with a constant rate
HEADER = "| | processor seconds an iteration | ratio to the plain loop | peak memory (GiB) |\n| --- | --- | --- | --- |"


# The plain loop: networks, losses and order of the paper and its reference, with nothing of this project.


def plain_generator(channels: int, blocks: int) -> nn.Sequential:
    """c7s1-k, d2k, d4k, R4k x blocks, u2k, uk, c7s1-3."""

    def normed(layer: nn.Module, width: int) -> list[nn.Module]:
        return [layer, nn.InstanceNorm2d(width), nn.ReLU(True)]

    k = channels
    layers = [nn.ReflectionPad2d(3), *normed(nn.Conv2d(3, k, 7), k)]
    for width in (2 * k, 4 * k):
        layers += normed(nn.Conv2d(width // 2, width, 3, 2, 1), width)
    layers += [PlainBlock(4 * k) for _ in range(blocks)]
    for width in (2 * k, k):
        layers += normed(nn.ConvTranspose2d(2 * width, width, 3, 2, 1, 1), width)
    return nn.Sequential(*layers, nn.ReflectionPad2d(3), nn.Conv2d(k, 3, 7), nn.Tanh())


class PlainBlock(nn.Module):
    """A residual block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half = [nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3), nn.InstanceNorm2d(width)]
        rest = [nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3), nn.InstanceNorm2d(width)]
        self.layers = nn.Sequential(*half, nn.ReLU(True), *rest)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


def plain_discriminator(channels: int) -> nn.Sequential:
    """C64-C128-C256-C512 and a map of logits."""
    k = channels
    layers: list[nn.Module] = [nn.Conv2d(3, k, 4, 2, 1), nn.LeakyReLU(0.2, True)]
    for cin, cout, stride in ((k, 2 * k, 2), (2 * k, 4 * k, 2), (4 * k, 8 * k, 1)):
        layers += [nn.Conv2d(cin, cout, 4, stride, 1), nn.InstanceNorm2d(cout), nn.LeakyReLU(0.2, True)]
    return nn.Sequential(*layers, nn.Conv2d(8 * k, 1, 4, 1, 1))


class PlainLoop:
    """Both generators' step on their losses, and then a step of each discriminator on those very fakes."""

    def __init__(self, channels: int, blocks: int, pool_size: int = 50) -> None:
        self.G_A, self.G_B = (plain_generator(channels, blocks) for _ in "AB")
        self.D_A, self.D_B = (plain_discriminator(channels) for _ in "AB")
        for layer in itertools.chain(*(net.modules() for net in (self.G_A, self.G_B, self.D_A, self.D_B))):
            if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
                nn.init.normal_(layer.weight, 0, 0.02)
                nn.init.zeros_(layer.bias)
        self.D_params = [*self.D_A.parameters(), *self.D_B.parameters()]
        self.G_optimizer = torch.optim.Adam([*self.G_A.parameters(), *self.G_B.parameters()], 2e-4, (0.5, 0.999))
        self.D_optimizer = torch.optim.Adam(self.D_params, 2e-4, (0.5, 0.999))
        self.pools: dict[str, list[Tensor]] = {"A": [], "B": []}
        self.pool_size, self.rng = pool_size, random.Random(0)

    def __call__(self, batch: Batch) -> None:
        a, b, l1, mse = batch["A"], batch["B"], nn.functional.l1_loss, nn.functional.mse_loss
        for p in self.D_params:
            p.requires_grad_(False)
        fake_b, fake_a = self.G_A(a), self.G_B(b)
        says_b, says_a = self.D_A(fake_b), self.D_B(fake_a)
        loss = mse(says_b, torch.ones_like(says_b)) + mse(says_a, torch.ones_like(says_a))
        loss = loss + 10 * (l1(self.G_B(fake_b), a) + l1(self.G_A(fake_a), b))
        loss = loss + 5 * (l1(self.G_A(b), b) + l1(self.G_B(a), a))
        self.G_optimizer.zero_grad()
        loss.backward()
        self.G_optimizer.step()
        for p in self.D_params:
            p.requires_grad_(True)
        self.D_optimizer.zero_grad()
        for side, D, fake, real in (("A", self.D_A, fake_b, b), ("B", self.D_B, fake_a, a)):
            on_fake, on_real = D(self.shown(side, fake.detach())), D(real)
            loss = (mse(on_fake, torch.zeros_like(on_fake)) + mse(on_real, torch.ones_like(on_real))) / 2
            loss.backward()
        self.D_optimizer.step()

    def shown(self, side: str, images: Tensor) -> Tensor:
        """The images, or for every other one an older one, once the pool is full."""
        pool, out = self.pools[side], []
        for img in images:
            if len(pool) < self.pool_size:
                pool.append(img)
                out.append(img)
            elif self.rng.random() < 0.5:
                i = self.rng.randrange(len(pool))
                out.append(pool[i])
                pool[i] = img
            else:
                out.append(img)
        return torch.stack(out)


# What this project does.


@dataclass(frozen=True)
class Shape:
    """Of images and networks."""

    resolution: int
    channels: int
    blocks: int
    batch: int

    def __str__(self) -> str:
        size = f"{self.resolution}x{self.resolution}"
        return f"{size}, {self.channels} channels, {self.blocks} blocks, batch {self.batch}"


@dataclass(frozen=True)
class Variant:
    """A row of the table that is this project's."""

    precision: str = "fp32"
    ggdr: bool = False
    channels_last: bool = False
    separate: bool = False  # passes of D over fakes and reals, and of G over both domains
    ops: str | None = None  # mode of the compiled operations; None: that of the environment


class OurLoop:
    """An iteration of CycleGANTask on the training loop."""

    def __init__(self, variant: Variant, shape: Shape) -> None:
        self.variant = variant
        G, D = ResnetGeneratorConfig(3, 3, shape.channels, shape.blocks), PatchDiscriminatorConfig(3, shape.channels)
        configs = [G, G, D, D]
        nets, rng = [build_network(config) for config in configs], torch.Generator().manual_seed(0)
        for net in nets:
            init_weights(net, rng)
            if variant.channels_last:
                net.to(memory_format=torch.channels_last)
        settings = {"ggdr": GGDRSettings((shape.resolution // 4,), 10.0)} if variant.ggdr else {}
        sides = cyclegan.cyclegan_attachments(*nets, shape.resolution) if variant.ggdr else {}
        task = cyclegan.CycleGANTask(
            *nets,
            CycleGANConfig(LENGTH, 0),
            regularizers={side: build_regularizers(place, settings) for side, place in sides.items()},
            half_dtype=HALF_DTYPES[variant.precision],
        )
        config = LoopConfig(LENGTH, shape.batch, shape.batch, LENGTH, 1)
        self.runner = PhaseRunner(task, config, ProcessGroup(), StatsSum(torch.device("cpu")))
        self.at = Counters()

    def __call__(self, batch: Batch) -> None:
        if self.variant.channels_last:
            batch = {side: img.contiguous(memory_format=torch.channels_last) for side, img in batch.items()}
        with separate_passes() if self.variant.separate else nullcontext(), operations(self.variant.ops):
            self.runner.iteration(batch, self.at)


@contextmanager
def operations(mode: str | None) -> Iterator[None]:
    """Compiled operations or their reference inside."""
    before = set_ops(mode)
    try:
        yield
    finally:
        set_ops(before)


@contextmanager
def separate_passes() -> Iterator[None]:
    """Networks see no images together inside, as if they had batch norms."""
    before = host.has_batch_norms
    host.has_batch_norms = cyclegan.has_batch_norms = lambda net: True
    try:
        yield
    finally:
        host.has_batch_norms = cyclegan.has_batch_norms = before


def make_loop(variant: Variant | None, shape: Shape) -> Callable[[Batch], None]:
    """Our loop, or of no variant the plain one."""
    return PlainLoop(shape.channels, shape.blocks) if variant is None else OurLoop(variant, shape)


def peak_gib(variant: Variant | None, shape: Shape, threads: int) -> float:
    """The largest resident size of this process after an iteration, less that before it; to be run in a new process."""
    torch.set_num_threads(threads)
    before = peak_resident_mib()
    make_loop(variant, shape)(next(batches(shape)))
    return (peak_resident_mib() - before) / 1024


def batches(shape: Shape) -> Iterator[Batch]:
    """Drawn images of two domains in [-1, 1]."""
    rng = torch.Generator().manual_seed(0)
    while True:
        yield {
            side: torch.rand([shape.batch, 3, shape.resolution, shape.resolution], generator=rng) * 2 - 1
            for side in "AB"
        }


@click.command(context_settings={"show_default": True})
@click.option("--resolution", type=click.IntRange(min=32), default=128, metavar="PIXELS")
@click.option("--channels", type=click.IntRange(min=1), default=64, metavar="N")
@click.option("--blocks", type=click.IntRange(min=1), default=9, metavar="N")
@click.option("--batch", type=click.IntRange(min=1), default=1, metavar="NIMG")
@click.option("--precision", type=click.Choice(["fp32", "bf16"]), default="fp32", help="Of this project.")
@click.option("--ggdr/--no-ggdr", default=False, help="Of this project.")
@click.option("--rows/--no-rows", default=True, help="Also what single settings give, each by itself.")
@click.option("--iterations", type=click.IntRange(min=1), default=3, metavar="N", help="Timed, after one that is not.")
@click.option("--threads", type=click.IntRange(min=1), default=1, metavar="N")
def main(
    resolution: int,
    channels: int,
    blocks: int,
    batch: int,
    precision: str,
    ggdr: bool,
    rows: bool,
    iterations: int,
    threads: int,
) -> None:
    """Prints a table in Markdown.

    Times are of the processor, all threads together, which other programs lengthen less than those of the clock. They
    are medians; ratios are medians of those within an iteration.

    Memory is how far one iteration lets the largest resident size of a process grow, with weights and moments.

    \b
    Examples:
      python -m benchmarks.cyclegan_step --threads 2
      python -m benchmarks.cyclegan_step --resolution 256 --iterations 1 --no-rows --ggdr --precision bf16
    """
    if resolution % 4:
        raise click.BadParameter(f"expected a multiple of 4, got {resolution}", param_hint="--resolution")
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    shape = Shape(resolution, channels, blocks, batch)
    variants: dict[str, Variant | None] = {"plain loop": None, "this project": Variant(precision, ggdr)}
    if rows:
        variants["reference operations"] = Variant(precision, ggdr, ops="reference")
        variants["separate passes"] = Variant(precision, ggdr, separate=True)
        variants["channels_last"] = Variant(precision, ggdr, channels_last=True)
        if precision == "fp32":
            variants["bf16"] = Variant("bf16", ggdr)
        if not ggdr:
            variants["GGDR"] = Variant(precision, ggdr=True)
    peaks = {}
    for name, variant in variants.items():
        with get_context("spawn").Pool(1) as pool:
            peaks[name] = pool.apply(peak_gib, (variant, shape, threads))
    loops = {name: make_loop(variant, shape) for name, variant in variants.items()}
    images, seconds = batches(shape), {name: [] for name in loops}
    for i in range(iterations + 1):
        names, img = list(loops), next(images)
        # Each in turn goes first: the caches are the coldest for it.
        for name in names[i % len(names) :] + names[: i % len(names)]:
            start = time.process_time()
            loops[name](img)
            if i:
                seconds[name].append(time.process_time() - start)
    own = f"{precision}{' with GGDR' if ggdr else ''}"
    click.echo(f"{shape}, {own}, {iterations} iterations, {threads} thread(s), load {os.getloadavg()[0]:.1f}\n")
    click.echo(HEADER)
    for name, values in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(values, seconds["plain loop"], strict=True))
        click.echo(f"| {name} | {statistics.median(values):.2f} | {ratio:.2f} | {peaks[name]:.2f} |")


if __name__ == "__main__":
    main()
