#!/usr/bin/env python3
# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Where the time of a training iteration goes: torch.profiler's times of all operations, sorted into kinds.

Compiled and reference operations run the same settings; the line below the table is the time that the step's
convolutions and matrix products would take at the machine's measured convolution peak.

    python benchmarks/where_time_goes.py --channel-base 4096 --channel-max 128 --threads 2 --out chart.png
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch.profiler import ProfilerActivity, profile

from ggdr.scripts.benches.drawn_images import draw_pictures, write_images
from ggdr.scripts.benches.step_timing import resolve_settings
from ggdr.scripts.training.hosts import HOSTS
from ggdr.scripts.training.run import tune_process
from ggdr.scripts.training.settings import HALF_DTYPES
from ggdr.torch_utils.data.convert import encode_png
from ggdr.torch_utils.data.loader import ImageDataset
from ggdr.torch_utils.distributed import ProcessGroup
from ggdr.torch_utils.loop import LoopConfig, PhaseRunner, StatsSum
from ggdr.torch_utils.ops import set_ops
from ggdr.torch_utils.timing.flops import count_flops
from ggdr.torch_utils.timing.machine_peak import conv_rate

RES, BATCH, WARM_UP = 32, 16, 6
COMMAND = dict(cfg="cpu", batch=BATCH, ggdr=True, ggdr_res=(8,), ggdr_weight=10.0, aug="ada", p=0.5)
COMMAND |= dict(augpipe="bgc", seed=0)

# Kinds of operations, by beginnings of their names; an operation is of the first that fits.
KINDS = {
    "convolutions": ("ggdr::conv3x3", "aten::convolution_backward", "aten::mkldnn_convolution", "aten::_convolution"),
    "FIR filters": ("ggdr::upfirdn2d",),
    "bias, activation, styles, noise": ("ggdr::", "aten::leaky_relu", "aten::clamp"),
    "matrix products": ("aten::mm", "aten::bmm", "aten::addmm", "aten::baddbmm"),
    "optimiser and moving average": ("aten::_fused_adam_", "aten::_foreach"),
    "sampling in the augmentation": ("aten::grid_sampler",),
    "sums and element-wise": ("aten::",),
}


def kind_of(name: str, shapes: Sequence[Sequence[int]]) -> str:
    """The kind of an operation; a convolution with one input channel a group is a FIR filter of the reference."""
    name = name.removeprefix("GeneratedBackwardFor_").replace("ggdr_", "ggdr::", 1)
    kind = next((kind for kind, names in KINDS.items() if name.startswith(names)), "PyTorch and Python between them")
    weights = [shape for shape in shapes if len(shape) == 4 and shape[1] == 1 and max(shape[2:]) > 1]
    return "FIR filters" if kind == "convolutions" and weights else kind


class Run:
    """Iterations of `ggdr train` on drawn images."""

    def __init__(self, args: argparse.Namespace, folder: Path) -> None:
        group = ProcessGroup()
        files = [encode_png(pixels) for pixels in draw_pictures(RES)]
        dataset = ImageDataset(write_images(folder / "drawn.zip", files, num_images=len(files)))
        sizes = {name: getattr(args, name) for name in ("channel_base", "channel_max", "precision")}
        options = resolve_settings({**COMMAND, **sizes}, dataset, group)
        with torch.random.fork_rng():
            img = torch.rand([BATCH, 3, RES, RES]).mul(2).sub(1).contiguous(memory_format=torch.channels_last)
        self.batch = {"img": img, "c": torch.zeros([BATCH, 0])}
        self.task = HOSTS[options.host].build(options, dataset, group)
        config = LoopConfig(total_nimg=1, batch=BATCH, batch_gpu=BATCH, tick_nimg=1, snap_ticks=1)
        self.runner = PhaseRunner(self.task, config, group, StatsSum(group.device))

    def iteration(self) -> None:
        """The phases of most iterations: all but the lazy ones."""
        for phase in self.task.phases:
            if phase.interval == 1:
                self.runner.run(phase, self.batch, 0)
        self.task.step_end(BATCH, BATCH)

    def milliseconds(self, iterations: int) -> dict[str, float]:
        """Time of each kind of operation in an iteration; of all threads, where operations run on several."""
        for _ in range(WARM_UP):
            self.iteration()
        times: Counter[str] = Counter()
        wall = 0.0
        for _ in range(iterations):
            # One by one: the profiler's own memory, kept for long, would leave the iteration's in pieces.
            with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiler:
                start = time.perf_counter()
                self.iteration()
                wall += time.perf_counter() - start
            for event in profiler.key_averages(group_by_input_shape=True):
                times[kind_of(event.key, event.input_shapes)] += event.self_cpu_time_total / 1000
        other = "PyTorch and Python between them"
        times[other] += wall * 1000 - sum(times.values())
        return {kind: times[kind] / iterations for kind in (*KINDS, other)}


def draw_chart(columns: dict[str, dict[str, float]], floor: float, title: str, path: Path) -> None:
    """Stacked bars, one a column, and the floor as a line."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 2.8), layout="constrained")
    left = dict.fromkeys(columns, 0.0)
    colors = plt.colormaps["tab10"].colors
    for kind, color in zip(next(iter(columns.values())), colors, strict=False):
        values = [times[kind] for times in columns.values()]
        axes.barh(list(columns), values, left=list(left.values()), color=color, label=kind)
        left = {name: left[name] + value for name, value in zip(left, values, strict=True)}
    axes.axvline(floor, color="black", linestyle="--", label="all products, at the peak of PyTorch's convolution")
    axes.set_xlabel("milliseconds an iteration of 16 images")
    axes.set_title(title, fontsize=10)
    axes.invert_yaxis()
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--channel-base", type=int, default=4096)
    parser.add_argument("--channel-max", type=int, default=128)
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--iterations", type=int, default=8)
    parser.add_argument("--out", type=Path, help="where to draw the chart")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tune_process(torch.device("cpu"), args.precision)

    columns = {}
    with TemporaryDirectory() as folder:
        run = Run(args, Path(folder))
        for mode in ("reference", "native"):
            set_ops(mode)
            columns[mode] = run.milliseconds(args.iterations)
        flops = count_flops(run.iteration)
    peak = conv_rate(torch.device("cpu"), HALF_DTYPES[args.precision] or torch.float32)
    floor = flops / peak * 1000
    title = (
        f"{RES}x{RES}, batch {BATCH}, channels {args.channel_base}/{args.channel_max}, {args.precision}, GGDR, "
        f"ADA bgc at p = {COMMAND['p']}; {args.threads} threads"
    )
    print(f"{title}; milliseconds an iteration")
    print(f"{'':<34}" + "".join(f"{name:>12}" for name in columns))
    for kind in columns["native"]:
        print(f"{kind:<34}" + "".join(f"{times[kind]:>12.1f}" for times in columns.values()))
    print(f"{'all':<34}" + "".join(f"{sum(times.values()):>12.1f}" for times in columns.values()))
    print(f"{flops / 1e9:.1f} GFLOP at the convolution peak of {peak / 1e9:.0f} GFLOP/s: {floor:.1f}")
    if args.out is not None:
        draw_chart(columns, floor, title, args.out)


if __name__ == "__main__":
    main()
