# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""How long the iterations of `ggdr train` take with some settings, on drawn images."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ggdr.scripts.benches.drawn_images import draw_pictures, write_pictures
from ggdr.scripts.benches.report import describe_machine, peak_resident_mib, progress
from ggdr.scripts.errors import CliError
from ggdr.scripts.training import settings_stylegan2
from ggdr.scripts.training.host import build_task
from ggdr.scripts.training.hosts import HOSTS
from ggdr.scripts.training.regularizers import describe_regularizers, needs_label_maps
from ggdr.scripts.training.run import tune_process
from ggdr.scripts.training.settings import HALF_DTYPES, RunSettings
from ggdr.scripts.training.settings_stylegan2 import StyleGAN2Settings
from ggdr.torch_utils.data.loader import ImageDataset
from ggdr.torch_utils.distributed import ProcessGroup
from ggdr.torch_utils.loop import NonFiniteError
from ggdr.torch_utils.ops import uses_native
from ggdr.torch_utils.timing import machine_peak
from ggdr.torch_utils.timing.step_timer import StepTimer

WARM_UP = 2


def measure_steps(commands: Sequence[Mapping[str, Any]], group: ProcessGroup) -> list[dict[str, Any]]:
    """The results of some settings that differ in regularisers and augmentation only, timed turn by turn.

    Raises:
        click.BadParameter: a setting cannot be used.
        CliError:           training failed.
    """
    command = commands[0]
    with tempfile.TemporaryDirectory() as folder:
        pictures, with_label_maps = draw_pictures(int(command["resolution"])), any(map(needs_label_maps, commands))
        dataset = write_pictures(Path(folder) / "drawn.zip", pictures, with_label_maps=with_label_maps)
        settings = [resolve_settings(variant, dataset, group) for variant in commands]
        try:
            return _measure(settings, dataset, group, command["iterations"])
        except NonFiniteError as error:
            raise CliError(str(error)) from error


def resolve_settings(command: Mapping[str, Any], dataset: ImageDataset, group: ProcessGroup) -> StyleGAN2Settings:
    """The settings of `ggdr train` with these options.

    Raises:
        OptionError: one cannot be used.
    """
    # The probability is an option of fixed augmentation there; here ADA starts from it too.
    p = command["p"] if command["aug"] == "fixed" else None
    given = {**command, "p": p, "data": dataset.path, "mirror": False, "freezed": 0}
    options = settings_stylegan2.resolve_settings(
        given,
        resolution=dataset.resolution,
        channels=dataset.num_channels,
        c_dim=dataset.c_dim,
        num_images=dataset.num_images,
        fingerprint="",
        num_processes=group.world,
        device_type=group.device.type,
        init_snapshot=None,
        label_classes=dataset.label_classes,
    )
    if command["aug"] == "ada":
        options = replace(options, augment=replace(options.augment, p=command["p"]))
    return options


def describe_settings(options: StyleGAN2Settings) -> dict[str, Any]:
    """What of the settings is reported."""
    augments = options.augment.mode != "noaug"
    return {
        "cfg": options.cfg,
        "resolution": options.G.img_resolution,
        "batch": options.loop.batch,
        "batch_gpu": options.loop.batch_gpu,
        "channel_base": options.G.channel_base,
        "channel_max": options.G.channel_max,
        "precision": options.precision,
        "regularizers": describe_regularizers(options.regularizers),
        "regularizer_names": list(options.regularizers),
        "ggdr_res": list(options.regularizers["ggdr"].guide_res) if "ggdr" in options.regularizers else None,
        "aug": options.augment.mode,
        "augpipe": options.augment.pipe if augments else None,
        "p": options.augment.p if augments else None,
    }


def _measure(
    settings: list[StyleGAN2Settings], dataset: ImageDataset, group: ProcessGroup, iterations: int
) -> list[dict[str, Any]]:
    """Builds one run for each of `settings` and times their iterations turn by turn."""
    on_gpu = group.device.type == "cuda"
    tune_process(group.device, settings[0].precision)
    # Before and after, as other users of the machine may be there at one time and not at the other.
    dtype = HALF_DTYPES[settings[0].precision] or torch.float32
    peak = machine_peak.conv_rate(group.device, dtype)
    with ExitStack() as stack:
        timers = [stack.enter_context(step_timer(options, dataset, group)) for options in settings]
        with progress("iterations", WARM_UP + iterations) as advance:
            for i in range(WARM_UP + iterations):
                for timer in timers:
                    timer.run(warm_up=i < WARM_UP)
                if on_gpu and i + 1 == WARM_UP:
                    torch.cuda.reset_peak_memory_stats(group.device)
                advance()
        # Before anything else takes memory.
        memory = torch.cuda.max_memory_allocated(group.device) / 2**20 if on_gpu else peak_resident_mib()
        flops = [timer.flops() for timer in timers]
    peak = max(peak, machine_peak.conv_rate(group.device, dtype))
    machine = describe_machine("torch") | {"device": str(group.device), "threads": torch.get_num_threads()}
    machine["ops"] = "native" if uses_native(group.device) else "reference"
    if on_gpu:
        machine["gpu"] = torch.cuda.get_device_name(group.device)
    return [
        _result(*values, peak=peak) | {"peak_memory_mib": memory, "iterations": iterations, **machine}
        for values in zip(settings, timers, flops, strict=True)
    ]


def _result(options: StyleGAN2Settings, timer: StepTimer, flops: Mapping[str, float], *, peak: float) -> dict[str, Any]:
    """What is reported of one run; `peak` in FLOP/s."""
    batch = options.loop.batch
    pieces = {name: seconds * 1000 / batch for name, seconds in timer.seconds().items()}
    fastest = {name: seconds * 1000 / batch for name, seconds in timer.fastest_seconds().items()}
    total = sum(pieces.values())
    gflop = {name: count / 1e9 for name, count in flops.items()}
    per_iteration = sum(gflop.values())
    return {
        "sec_per_kimg": total,
        "sec_per_kimg_by_piece": pieces,
        "sec_per_kimg_fastest": sum(fastest.values()),
        "img_per_sec": 1000 / total,
        "gflop_per_iteration": per_iteration,
        "gflop_by_phase": gflop,
        "conv_peak_gflop_per_sec": peak / 1e9,
        "fraction_of_peak": per_iteration * 1000 / batch / total / (peak / 1e9),
        **describe_settings(options),
    }


@contextmanager
def step_timer(settings: RunSettings, data: Any, group: ProcessGroup) -> Iterator[StepTimer]:
    """A run of any host, with settings and data as it prepared them, whose iterations can be timed one by one."""
    host = HOSTS[settings.host]
    task = build_task(host, settings, data, group)
    with closing(host.batches(settings, data, group, 0)) as batches:
        yield StepTimer(task, batches, settings.loop, group)
