# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Times our Inception network, beside torch-fidelity's and against what the machine can do."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import click
import pytest
import torch
from torch import Tensor

from ggdr.metrics.inception import InceptionV3, load_inception
from ggdr.metrics.resize import INPUT_SIZE, MODES, prepare
from ggdr.torch_utils.float32 import exact_float32
from ggdr.torch_utils.timing.allocator import keep_freed_memory
from ggdr.torch_utils.timing.flops import count_flops
from ggdr.torch_utils.timing.machine_peak import conv_rate
from tests.references import import_or_skip

THEIRS = "torch_fidelity.feature_extractor_inceptionv3"


def save_random_weights(path: Path) -> None:
    """Weights that keep the signal's size from layer to layer, so that no number is unusually quick or slow."""
    rng = torch.Generator().manual_seed(0)
    state = {}
    for name, shape in InceptionV3().shapes().items():
        if name.endswith((".bn.weight", ".running_var")):
            state[name] = torch.ones(shape)
        else:
            fan_in = max(torch.Size(shape[1:]).numel(), 2)
            state[name] = torch.randn(shape, generator=rng) * (2 / fan_in) ** 0.5
    torch.save(state, path)


def torch_fidelitys(path: Path, device: torch.device) -> Callable[[Tensor], object] | None:
    """torch-fidelity's network, if it is installed."""
    try:
        module = import_or_skip(THEIRS)
    except pytest.skip.Exception as skipped:
        click.echo(f"torch-fidelity is left out: {skipped}")
        return None
    net = module.FeatureExtractorInceptionV3("theirs", ["2048"], feature_extractor_weights_path=str(path))
    return net.to(device)


def without_resize(net: Callable[[Tensor], object]) -> Callable[[Tensor], object]:
    """torch-fidelity's network of images that have its size."""

    def run(images_u8: Tensor) -> object:
        with mock.patch(f"{THEIRS}.interpolate_bilinear_2d_like_tensorflow1x", lambda x, **settings: x):
            return net(images_u8)

    return run


def seconds_of(run: Callable[[], object], device: torch.device) -> float:
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


@click.command()
@click.option("--batch", type=click.IntRange(min=1), default=16, show_default=True, metavar="N")
@click.option("--resolution", type=click.IntRange(min=1), default=256, show_default=True, metavar="PIXELS")
@click.option("--device", default="cpu", show_default=True)
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, metavar="N")
@click.option("--repeats", type=click.IntRange(min=1), default=5, show_default=True, metavar="N")
def main(batch: int, resolution: int, device: str, threads: int, repeats: int) -> None:
    """Prints images per second, of the fastest of several runs; all networks take turns.

    \b
    Examples:
      python -m benchmarks.inception_speed --threads 2
      python -m benchmarks.inception_speed --batch 32 --resolution 1024
    """
    torch.set_num_threads(threads)
    keep_freed_memory()
    place, mode = torch.device(device), MODES["stylegan"]
    with torch.device("meta"):
        empty = InceptionV3()
    flops = count_flops(lambda: empty(torch.empty(1, 3, INPUT_SIZE, INPUT_SIZE, device="meta")))

    rng = torch.Generator().manual_seed(0)
    images_u8, large_u8 = (
        torch.randint(0, 256, [batch, 3, res, res], generator=rng, dtype=torch.uint8).to(place)
        for res in (resolution, INPUT_SIZE)
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "inception.pth"
        save_random_weights(path)
        net, theirs = load_inception(path, place), torch_fidelitys(path, place)
    prepared = prepare(large_u8, mode)
    runs = {
        "ours": lambda: net(prepared),
        f"ours, with the resize from {resolution}x{resolution}": lambda: net(prepare(images_u8, mode)),
    }
    if theirs is not None:
        bare = without_resize(theirs)
        runs |= {
            "torch-fidelity": lambda: bare(large_u8),
            f"torch-fidelity, with the resize from {resolution}x{resolution}": lambda: theirs(images_u8),
        }

    seconds: dict[str, list[float]] = {name: [] for name in runs}
    peak = 0.0
    with torch.inference_mode(), exact_float32(place):
        for run in runs.values():
            run()
        for _ in range(repeats):
            peak = max(peak, conv_rate(place, torch.float32))
            for name, run in runs.items():
                seconds[name].append(seconds_of(run, place))

    click.echo(f"{batch} images a batch, {device}, {threads} CPU thread(s); {flops / 1e9:.1f} GFLOP an image")
    click.echo(f"{peak / 1e9:8.0f} GFLOP/s  3x3 convolution of PyTorch, the yardstick")
    for name, times in seconds.items():
        rate = batch / min(times)
        click.echo(f"{rate:8.1f} images/s, {rate * flops / 1e9:.0f} GFLOP/s ({rate * flops / peak:.0%})  {name}")


if __name__ == "__main__":
    main()
