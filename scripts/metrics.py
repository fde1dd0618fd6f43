# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr metrics`: FID, KID and the rest, of a snapshot or of images made by anyone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ggdr.scripts.errors import CliError, first_process_speaks, metric_errors
from ggdr.scripts.options.detectors import detector_options, given_files
from ggdr.scripts.options.network import SNAPSHOT_FILE
from ggdr.scripts.options.parameters import (
    MAX_WORKERS,
    FiniteFloat,
    bad_parameter,
    device_option,
    dist_timeout_option,
    join_processes,
    ops_option,
    prepare_ops,
)
from ggdr.scripts.options.progress import progress_bars

if TYPE_CHECKING:
    from ggdr.metrics.evaluate import MetricResult
    from ggdr.metrics.names import MetricSpec
    from ggdr.torch_utils.distributed import ProcessGroup

EXAMPLES = """\b
Examples:
  ggdr metrics --network runs/cifar/network-snapshot-001000.safetensors --data cifar10.zip --metrics fid50k_full
  ggdr metrics --fakes my-samples --reals photos.zip --metrics fd_lite5k_full,mind_lite5k_full --json
"""


@click.command(no_args_is_help=True, epilog=EXAMPLES, context_settings={"show_default": True})
@click.option(
    "--network",
    metavar="FILE|RUN_DIR",
    type=SNAPSHOT_FILE,
    help="Network snapshot that makes the fakes; of a run folder the best one, else the last one.",
)
@click.option(
    "--fakes",
    metavar="DIR|ZIP|NPZ",
    type=click.Path(path_type=Path, exists=True),
    help="Images in place of a network's.",
)
@click.option(
    "--reals",
    "--data",
    "reals",
    metavar="DIR|ZIP|NPZ",
    type=click.Path(path_type=Path, exists=True),
    help="Real images, or an .npz file of their mean `mu` and covariance `sigma`.",
)
@click.option(
    "--metrics",
    "names",
    metavar="LIST",
    required=True,
    help="Names such as fid50k_full, kid50k_full, is50k, pr50k3_full, dc50k5_full, ppl2_wend, intra_fid50k_full, "
    "fidinf50k_full; without downloads fd_lite50k_full, mind_lite50k_full, pr_lite50k3_full; with --detector "
    "fd_custom50k_full and so on. Separated by commas.",
)
@click.option(
    "--num-fakes",
    metavar="N",
    type=click.IntRange(min=2),
    help="Another number of fakes than the metrics' names say; they are renamed.",
)
@click.option(
    "--mode",
    "mode_name",
    type=click.Choice(["stylegan", "torch-fidelity", "pytorch-fid", "clean"]),
    default="stylegan",
    help="The tool whose figures to reproduce: its resize, normalisation and covariance.",
)
@click.option("--mirror", is_flag=True, help="Add the x-flip of every real image.")
@click.option(
    "--trunc", "psi", metavar="PSI", type=FiniteFloat(), default=1.0, help="Truncation of the network; 1 is none."
)
@click.option(
    "--noise-mode", type=click.Choice(["random", "const", "none"]), default="random", help="The network's noise inputs."
)
@click.option(
    "--seed",
    metavar="N",
    type=click.IntRange(0, 4095),
    default=0,
    help="Fake i is seed N * 2^20 + i of `ggdr generate --noise-mode random`; also of KID's subsets.",
)
@detector_options
@click.option(
    "--batch", "batch_size", metavar="N", type=click.IntRange(min=1), default=64, help="Images at once in a process."
)
@device_option
@ops_option
@dist_timeout_option
@click.option(
    "--workers",
    metavar="N",
    type=click.IntRange(0, MAX_WORKERS),
    show_default="0 for few images, else up to 4",
    help="Processes that decode images.",
)
@click.option("--cache/--no-cache", "use_cache", default=True, help="Keep the features of reals on disk.")
@click.option(
    "--save-stats",
    metavar="FILE.npz",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Store the reals' mean and covariance, for --reals; needs no fakes.",
)
@click.option(
    "--outdir",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    show_default="the run folder of --network",
    help="Append the results to metric-NAME.jsonl here.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each metric, and nothing else.")
def main(**command: Any) -> None:
    """Compute FID, KID and other metrics, and say what was computed.

    Several GPUs: torchrun --nproc-per-node N --no-python ggdr metrics ... Weights of Inception and VGG16 are downloaded
    once, or named with --inception and --vgg; metrics named _lite and _offline need none.
    """
    from ggdr.metrics.names import parse_metrics

    try:
        specs = parse_metrics(command["names"])
    except ValueError as error:
        raise bad_parameter(str(error), "--metrics") from error
    if command["num_fakes"] is not None:
        specs = list(dict.fromkeys(spec.with_num(command["num_fakes"]) for spec in specs))
    _check_sources(command, specs)
    group = join_processes(command["device"], command["dist_timeout"])
    with first_process_speaks(), metric_errors():
        prepare_ops(command["ops"], group.device)
        results = _measure(command, specs, group)
        _store_and_print(results, command, is_main=group.is_main)
    group.leave()


def _check_sources(command: dict[str, Any], specs: list[MetricSpec]) -> None:
    """UsageError unless there is one source of fakes, and reals where they are needed."""
    if command["network"] and command["fakes"]:
        raise click.UsageError("--network and --fakes: expected one of them, got both")
    if command["fakes"] is None and command["network"] is None and command["save_stats"] is None:
        raise click.UsageError("Missing option '--network' or '--fakes': the images to judge.")
    if command["reals"] is None and (command["save_stats"] or any(spec.needs_reals for spec in specs)):
        raise click.UsageError("Missing option '--reals' (or '--data'): the real images to compare with.")


def _measure(command: dict[str, Any], specs: list[MetricSpec], group: ProcessGroup) -> list[MetricResult]:
    """Opens the images, and computes; says what --save-stats stored."""
    import torch

    from ggdr.metrics.detectors import DetectorFiles
    from ggdr.metrics.evaluate import evaluate
    from ggdr.metrics.resize import MODES
    from ggdr.scripts.measuring.comparison import open_comparison
    from ggdr.scripts.measuring.results import save_real_statistics
    from ggdr.torch_utils.timing.allocator import keep_freed_memory

    if group.device.type == "cpu":
        keep_freed_memory()
    detectors = DetectorFiles(MODES[command["mode_name"]], group.device, given_files(command))
    images = {name: command[name] for name in ("network", "fakes", "reals", "mirror", "psi", "noise_mode", "seed")}
    how = {name: command[name] for name in ("batch_size", "workers", "use_cache")}
    job = open_comparison(specs, detectors, group, **images, **how)
    with progress_bars(group.is_main) as progress:
        job = replace(job, progress=progress)
        if command["save_stats"] is not None:
            num = save_real_statistics(command["save_stats"], specs, job)
            if num is not None:
                click.echo(f"statistics of {num} images written to {command['save_stats']}", err=True)
        try:
            return [] if job.fakes is None else evaluate(specs, job)
        except torch.OutOfMemoryError as error:
            raise CliError(f"--batch: {command['batch_size']} images at once do not fit the GPU's memory") from error


def _store_and_print(results: list[MetricResult], command: dict[str, Any], *, is_main: bool) -> None:
    """Lines of metric-NAME.jsonl first: a pipe that ends early must not cost them."""
    from ggdr.scripts.measuring.results import describe_result, results_folder, store_results

    folder, network = results_folder(command["outdir"], command["network"]), command["network"]
    if folder is not None and results:
        store_results(folder, results, network)
    for result in results:
        click.echo(json.dumps(result.to_json()) if command["as_json"] else describe_result(result))
    if folder is not None and is_main and not command["as_json"]:
        click.echo(f"appended to {folder}/metric-*.jsonl")
