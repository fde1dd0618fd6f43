#!/usr/bin/env python3
# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What GGDR costs: time of a training iteration with and without it, with and without augmentation.

The four variants take turns iteration by iteration, so that their ratios hold on a machine whose speed drifts.
Settings: batch 16, 32x32, guide 8, R1 every 16 iterations, no path length regularisation, float32.

    python benchmarks/ggdr_cost.py --channel-base 4096 --channel-max 128 --threads 2
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict

import torch

from scripts.training_options import resolve
from scripts.training_run import build_task
from stylegan2.task import StyleGAN2Task
from torch_utils.distributed import ProcessGroup
from torch_utils.loop import LoopConfig, PhaseRunner, StatsSum

BATCH, RES = 16, 32


class Labels:
    """Stands in for the dataset: no labels."""

    def random_labels(self, n: int, generator: torch.Generator) -> torch.Tensor:
        return torch.zeros([n, 0])


def build(ggdr: bool, aug: bool, args: argparse.Namespace) -> StyleGAN2Task:
    """A task of the `cpu` preset with the given widths."""
    command = dict(
        cfg="cpu",
        data="none",
        mirror=False,
        ggdr=ggdr,
        ggdr_res=(8,) if ggdr else (),
        ggdr_weight=10.0,
        aug="fixed" if aug else "noaug",
        p=0.5 if aug else None,
        augpipe="bgc",
        freezed=0,
        seed=0,
        precision=args.precision,
        channel_base=args.channel_base,
        channel_max=args.channel_max,
        batch=BATCH,
    )
    found = dict(resolution=RES, channels=3, c_dim=0, num_images=1, fingerprint="")
    options = resolve(command, **found, num_processes=1, device_type="cpu", init_snapshot=None)
    return build_task(options, Labels(), ProcessGroup())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--channel-base", type=int, default=4096)
    parser.add_argument("--channel-max", type=int, default=128)
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--iterations", type=int, default=8)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    group = ProcessGroup()
    variants = {(ggdr, aug): build(ggdr, aug, args) for aug in (False, True) for ggdr in (False, True)}
    config = LoopConfig(total_nimg=1, batch=BATCH, batch_gpu=BATCH, tick_nimg=1, snap_ticks=1)
    runners = {key: PhaseRunner(task, config, group, StatsSum(group.device)) for key, task in variants.items()}
    real_img = torch.rand([BATCH, 3, RES, RES]).mul(2).sub(1).contiguous(memory_format=torch.channels_last)
    real_c = torch.zeros([BATCH, 0])
    times: dict[tuple, dict[str, list[float]]] = {key: defaultdict(list) for key in variants}
    for i in range(args.iterations + 2):
        for key, task in variants.items():
            for phase in task.phases:
                start = time.perf_counter()
                runners[key].run(phase, real_img, real_c, 0)
                if i >= 2:  # the first two warm up
                    times[key][phase.name].append(time.perf_counter() - start)
            task.step_end(BATCH, BATCH)

    print(
        f"channels {args.channel_base}/{args.channel_max}, {args.precision}, {args.threads} threads, torch "
        f"{torch.__version__}; seconds per 1000 images, medians of {args.iterations} iterations"
    )
    print(f"{'augmentation':<14}{'no GGDR':>10}{'GGDR':>10}{'ratio':>8}")
    for aug in (False, True):
        seconds = []
        for ggdr in (False, True):
            medians = {name: statistics.median(values) for name, values in times[ggdr, aug].items()}
            seconds.append((medians["G"] + medians["D"] + medians["D_r1"] / 16) * 1000 / BATCH)
        name = "bgc, p = 0.5" if aug else "none"
        print(f"{name:<14}{seconds[0]:>10.1f}{seconds[1]:>10.1f}{seconds[1] / seconds[0]:>8.3f}")


if __name__ == "__main__":
    main()
