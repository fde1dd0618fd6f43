# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr bench train`: how long an iteration of `ggdr train` takes, and how much of the machine it uses."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from ggdr.scripts.benches.drawn_images import draw_pictures, write_images
from ggdr.scripts.benches.report import (
    describe_machine,
    json_option,
    peak_resident_mib,
    progress,
    resolution_option,
    show,
)
from ggdr.scripts.errors import CliError, cli_errors
from ggdr.scripts.options.parameters import FiniteFloat, join_processes, prepare_ops
from ggdr.scripts.train import main as train_command
from ggdr.torch_utils.data.convert import encode_png

if TYPE_CHECKING:
    from ggdr.scripts.training.host_stylegan2 import StyleGAN2Settings
    from ggdr.torch_utils.data.loader import ImageDataset
    from ggdr.torch_utils.distributed import ProcessGroup
    from ggdr.torch_utils.timing.step_timer import StepTimer

WARM_UP = 2

SHARED = ("cfg", "batch", "batch_gpu", "ggdr", "ggdr_res", "ggdr_weight", "gamma", "channel_base", "channel_max")
SHARED += ("aug", "augpipe", "precision", "device", "ops", "seed")
OPTIONS_OF_TRAIN = {option.name: option for option in train_command.params}

EXAMPLES = """\b
Examples:
  ggdr bench train --cfg cpu --channel-base 4096 --channel-max 128
  ggdr bench train --cfg paper256 --resolution 256 --precision bf16 --table --json
"""


@click.command(
    "train",
    params=[OPTIONS_OF_TRAIN[name] for name in SHARED],
    epilog=EXAMPLES,
    context_settings={"show_default": True, "max_content_width": 110},
)
@resolution_option
@click.option(
    "--p",
    type=FiniteFloat(0, 1),
    default=0.5,
    metavar="FLOAT",
    help="Probability of augmentation; with --aug ada where it starts, so that every transform is at work.",
)
@click.option("--threads", type=click.IntRange(min=1), metavar="N", help="Of a CPU.  [default: one a core]")
@click.option("--iterations", type=click.IntRange(min=4), default=16, metavar="N", help="Iterations that are timed.")
@click.option("--table", is_flag=True, help="With and without GGDR, with and without augmentation, turn by turn.")
@json_option
@click.pass_context
def train(ctx: click.Context, **command: Any) -> None:
    """Time the training step, on drawn images.

    Runs what `ggdr train` runs: loader, phases, moving average, ADA and the look for NaN; not reports and snapshots.
    Times are medians over iterations. A phase that --cfg runs less often than every 4 iterations runs every 4 here,
    and counts for its share. FLOPs are those of convolutions and matrix products, and the fraction of the peak is
    their rate over the whole step against that of a 3x3 convolution of the same type, measured in the same run.
    """
    import torch

    commands = [command]
    if command["table"]:
        commands = _four_commands(command)
    elif command["aug"] == "noaug" and ctx.get_parameter_source("p") is not ParameterSource.DEFAULT:
        raise click.BadParameter("needs --aug ada or fixed, got --aug noaug", param_hint="--p")
    if command["threads"] is not None:
        torch.set_num_threads(command["threads"])
    with cli_errors():
        group = join_processes(command["device"])
        prepare_ops(command["ops"], group.device)
        results = measure(commands, group)
    if group.is_main and command["table"]:
        show(_report_table(results), _table_json(results), command["as_json"])
    elif group.is_main:
        show(_report(results[0]), results[0], command["as_json"])
    group.leave()


def _four_commands(command: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The cells of --table, row by row: augmentation off and on, and in each row GGDR off and on."""
    if command["aug"] == "noaug":
        raise click.BadParameter("--table needs an augmentation to compare with, got noaug", param_hint="--aug")
    if not command["ggdr"]:
        raise click.BadParameter("--table times both with and without GGDR", param_hint="--no-ggdr")
    without = {"ggdr": False, "ggdr_res": ()}
    rows = [{**command, "aug": aug} for aug in ("noaug", command["aug"])]
    return [cell for row in rows for cell in ({**row, **without}, row)]


def measure(commands: Sequence[Mapping[str, Any]], group: ProcessGroup) -> list[dict[str, Any]]:
    """The results of some settings that differ in GGDR and augmentation only, timed turn by turn.

    Raises:
        click.BadParameter: a setting cannot be used.
        CliError:           training failed.
    """
    from ggdr.torch_utils.data.loader import ImageDataset
    from ggdr.torch_utils.loop import NonFiniteError

    command = commands[0]
    with tempfile.TemporaryDirectory() as folder:
        files = [encode_png(pixels) for pixels in draw_pictures(int(command["resolution"]))]
        dataset = ImageDataset(write_images(Path(folder) / "drawn.zip", files, num_images=len(files)))
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
    from ggdr.scripts.training import host_stylegan2

    # The probability is an option of fixed augmentation there; here ADA starts from it too.
    p = command["p"] if command["aug"] == "fixed" else None
    given = {**command, "p": p, "data": dataset.path, "mirror": False, "freezed": 0}
    options = host_stylegan2.resolve_settings(
        given,
        resolution=dataset.resolution,
        channels=dataset.num_channels,
        c_dim=dataset.c_dim,
        num_images=dataset.num_images,
        fingerprint="",
        num_processes=group.world,
        device_type=group.device.type,
        init_snapshot=None,
    )
    if command["aug"] == "ada":
        options = replace(options, augment=replace(options.augment, p=command["p"]))
    return options


def _measure(
    settings: list[StyleGAN2Settings], dataset: ImageDataset, group: ProcessGroup, iterations: int
) -> list[dict[str, Any]]:
    """Builds one run for each of `settings` and times their iterations turn by turn."""
    import torch

    from ggdr.scripts.training.run import tune_process
    from ggdr.scripts.training.settings import HALF_DTYPES
    from ggdr.torch_utils.ops import uses_native
    from ggdr.torch_utils.timing.machine_peak import conv_rate

    on_gpu = group.device.type == "cuda"
    tune_process(group.device, settings[0].precision)
    # Before and after, as other users of the machine may be there at one time and not at the other.
    dtype = HALF_DTYPES[settings[0].precision] or torch.float32
    peak = conv_rate(group.device, dtype)
    with ExitStack() as stack:
        timers = [stack.enter_context(_timer(options, dataset, group)) for options in settings]
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
    peak = max(peak, conv_rate(group.device, dtype))
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
        "cfg": options.cfg,
        "resolution": options.G.img_resolution,
        "batch": batch,
        "batch_gpu": options.loop.batch_gpu,
        "channel_base": options.G.channel_base,
        "channel_max": options.G.channel_max,
        "precision": options.precision,
        "ggdr_res": list(options.regularizers["ggdr"].guide_res) if "ggdr" in options.regularizers else None,
        "aug": options.augment.mode,
        "augpipe": None if options.augment.mode == "noaug" else options.augment.pipe,
        "p": None if options.augment.mode == "noaug" else options.augment.p,
    }


@contextmanager
def _timer(options: StyleGAN2Settings, dataset: ImageDataset, group: ProcessGroup) -> Iterator[StepTimer]:
    """A run of `ggdr train` whose iterations can be timed one by one."""
    from ggdr.scripts.training.hosts import HOSTS
    from ggdr.torch_utils.timing.step_timer import StepTimer

    host = HOSTS[options.host]
    task = host.build(options, dataset, group)
    with closing(host.batches(options, dataset, group, 0)) as batches:
        yield StepTimer(task, batches, options.loop, group)


# What the user sees.


def _settings_line(r: Mapping[str, Any]) -> str:
    where = r["gpu"] if "gpu" in r else f"{r['threads']} thread(s) of {r['processor']}"
    return (
        f"{r['cfg']}, {r['resolution']}x{r['resolution']}, batch {r['batch']}, channels "
        f"{r['channel_base']}/{r['channel_max']}, {r['precision']}, {r['ops']} operations, {where}, torch {r['torch']}"
    )


def _augmentation(r: Mapping[str, Any]) -> str:
    return "none" if r["aug"] == "noaug" else f"{r['aug']} {r['augpipe']}, p = {r['p']:g}"


def _report(r: Mapping[str, Any]) -> str:
    """Pieces of the step and their sum."""
    guide = "no GGDR" if r["ggdr_res"] is None else f"GGDR at {', '.join(f'{res}x{res}' for res in r['ggdr_res'])}"
    memory = "" if r["peak_memory_mib"] is None else f", {r['peak_memory_mib']:.0f} MiB"
    pieces = [(name, s, r["gflop_by_phase"].get(name)) for name, s in r["sec_per_kimg_by_piece"].items()]
    pieces.append(("total", r["sec_per_kimg"], r["gflop_per_iteration"]))
    lines = [_settings_line(r), f"{guide}, augmentation {_augmentation(r)}", ""]
    lines.append(f"{'':<14}{'sec/kimg':>10}{'GFLOP':>10}")
    lines += [f"{name:<14}{s:>10.2f}" + ("" if gflop is None else f"{gflop:>10.1f}") for name, s, gflop in pieces]
    lines += [
        "",
        f"{r['img_per_sec']:.1f} images/s (from the fastest of each piece: {1000 / r['sec_per_kimg_fastest']:.1f})"
        f"{memory}",
        f"{r['fraction_of_peak']:.0%} of the convolution peak of {r['conv_peak_gflop_per_sec']:.0f} GFLOP/s",
    ]
    return "\n".join(lines)


def _report_table(results: list[dict[str, Any]]) -> str:
    """Rows by augmentation, columns by GGDR."""
    lines = [_settings_line(results[0]), "seconds per 1000 images", ""]
    lines.append(f"{'augmentation':<20}{'no GGDR':>10}{'GGDR':>10}{'ratio':>8}{'of peak':>10}")
    for without, with_ggdr in zip(results[::2], results[1::2], strict=True):
        times = without["sec_per_kimg"], with_ggdr["sec_per_kimg"]
        lines.append(
            f"{_augmentation(with_ggdr):<20}{times[0]:>10.2f}{times[1]:>10.2f}{times[1] / times[0]:>8.3f}"
            f"{with_ggdr['fraction_of_peak']:>10.0%}"
        )
    return "\n".join(lines)


def _table_json(results: list[dict[str, Any]]) -> dict[str, Any]:
    """The four results, and what GGDR costs: its time over that without, by augmentation."""
    cost = {
        with_ggdr["aug"]: with_ggdr["sec_per_kimg"] / without["sec_per_kimg"]
        for without, with_ggdr in zip(results[::2], results[1::2], strict=True)
    }
    memory = results[0]["peak_memory_mib"]  # of all four together
    return {"ggdr_cost": cost, "peak_memory_mib": memory, "variants": [_without_memory(r) for r in results]}


def _without_memory(result: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in result.items() if name != "peak_memory_mib"}
