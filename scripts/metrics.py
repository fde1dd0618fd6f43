# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr metrics`: FID, KID and the rest, of a snapshot or of images made by anyone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ggdr.scripts.errors import first_process_speaks, metric_errors, os_error_text
from ggdr.scripts.options.detectors import detector_options, given_files
from ggdr.scripts.options.network import SNAPSHOT_FILE
from ggdr.scripts.options.numbers import FiniteFloat, WholeNumber
from ggdr.scripts.options.parameters import (
    MAX_WORKERS,
    bad_parameter,
    device_option,
    dist_timeout_option,
    join_processes,
    ops_option,
    prepare_ops,
)
from ggdr.scripts.options.progress import progress_bars
from ggdr.scripts.terminal import say
from ggdr.scripts.translating.options import prepare_translator_ops

if TYPE_CHECKING:
    from ggdr.metrics.evaluate import Job, MetricResult
    from ggdr.metrics.image_sets import ImageSource
    from ggdr.metrics.names import MetricSpec
    from ggdr.scripts.measuring.judge import SnapshotJudge
    from ggdr.torch_utils.distributed import ProcessGroup

EXAMPLES = """\b
Examples:
  ggdr metrics --network runs/cifar/network-snapshot-001000.safetensors --data cifar10.zip --metrics fid50k_full
  ggdr metrics --fakes my-samples --data photos.zip --metrics fd_lite5k_full,mind_lite5k_full --json
  ggdr metrics --network runs/facades --data facades --metrics psnr,ssim,fd_lite0.1k_full
"""


@click.command(no_args_is_help=True, epilog=EXAMPLES, context_settings={"show_default": True})
@click.option(
    "--network",
    metavar="FILE|RUN_DIR",
    type=SNAPSHOT_FILE,
    help="Network snapshot that makes the fakes, or translates images; of a run folder the best one, else the last.",
)
@click.option(
    "--fakes",
    metavar="DIR|ZIP|NPZ",
    type=click.Path(path_type=Path, exists=True),
    help="Images in place of a network's.",
)
@click.option(
    "--data",
    "--reals",
    "reals",
    metavar="DIR|ZIP|NPZ",
    type=click.Path(path_type=Path, exists=True),
    help="Real images, or an .npz file of their mean `mu` and covariance `sigma`; of a translator what it was trained "
    "on, or its like: the test split if there is one, else val, else all.",
)
@click.option(
    "--metrics",
    "names",
    metavar="LIST",
    show_default="fid50k_full where Inception's weights are at hand, else fd_lite5k_full, else fd_offline5k_full; of "
    "a translator what training measures",
    help="Names such as fid50k_full, kid50k_full, is50k, pr50k3_full, dc50k5_full, ppl2_wend, intra_fid50k_full, "
    "fidinf50k_full; without downloads fd_lite50k_full, mind_lite50k_full, pr_lite50k3_full; with --detector "
    "fd_custom50k_full and so on; of translators also psnr, ssim, mae, lpips, colourfulness, cycle_psnr. Separated by "
    "commas.",
)
@click.option(
    "--num-fakes",
    metavar="N",
    type=WholeNumber(min=2),
    help="Another number of fakes than the metrics' names say; they are renamed.",
)
@click.option(
    "--mode",
    "mode_name",
    type=click.Choice(["stylegan", "torch-fidelity", "pytorch-fid", "clean"]),
    default="stylegan",
    help="The tool whose figures to reproduce: how it reads, resizes and scales images, and its covariance.",
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
    type=WholeNumber(0, 4095),
    default=0,
    help="Fake i is seed N * 2^20 + i of `ggdr generate --noise-mode random`; also of KID's subsets.",
)
@detector_options
@click.option(
    "--batch",
    "batch_size",
    metavar="N",
    type=WholeNumber(min=1),
    default=64,
    help="Images at once in a process; fewer where a GPU's memory does not suffice.",
)
@device_option
@ops_option
@dist_timeout_option
@click.option(
    "--workers",
    metavar="N",
    type=WholeNumber(0, MAX_WORKERS),
    show_default="0 for few images, else up to 4",
    help="Processes that decode images.",
)
@click.option("--cache/--no-cache", "use_cache", default=True, help="Keep the features of reals on disk.")
@click.option(
    "--save-stats",
    metavar="FILE.npz",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Store the reals' mean and covariance, for --data; needs no fakes.",
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
        named = None if command["names"] is None else parse_metrics(command["names"])
    except ValueError as error:
        raise bad_parameter(str(error), "--metrics") from error
    _check_sources(command, named)
    group = join_processes(command["device"], command["dist_timeout"])
    with first_process_speaks(), metric_errors():
        fakes, judge = _open_fakes(command), _open_translator(command, group)
        specs = _default_specs(command, fakes, judge, group) if named is None else named
        if command["num_fakes"] is not None:
            specs = list(dict.fromkeys(spec.with_num(command["num_fakes"]) for spec in specs))
        folder = _check_folders(command, specs, group)
        prepare = prepare_ops if judge is None else prepare_translator_ops
        prepare(command["ops"], group.device)
        results = _measure(command, specs, fakes, judge, group)
        _store_and_print(results, command, folder)
    group.leave()


def _open_fakes(command: dict[str, Any]) -> ImageSource | None:
    """The images of --fakes; None where a network makes them."""
    from ggdr.metrics.image_sets import open_images
    from ggdr.metrics.resize import MODES

    if command["fakes"] is None:
        return None
    as_stored = MODES[command["mode_name"]].as_stored
    return open_images(command["fakes"], workers=command["workers"], as_stored=as_stored)


def _open_translator(command: dict[str, Any], group: ProcessGroup) -> SnapshotJudge | None:
    """What measures the snapshot if it translates images; None if not, or if there is none."""
    if command["network"] is None:
        return None
    from collections.abc import Mapping

    from ggdr.scripts.training.hosts import translator_host
    from ggdr.torch_utils.checkpoint import load_snapshot

    snapshot = load_snapshot(command["network"], tensors=False)
    host, training = translator_host(snapshot), snapshot.config.get("training")
    if host is None:
        return None
    for name, default in {"mirror": False, "psi": 1.0, "noise_mode": "random", "save_stats": None}.items():
        if command[name] != default:
            option = "--trunc" if name == "psi" else f"--{name.replace('_', '-')}"
            raise bad_parameter(f"{command['network']} translates images: it has no meaning for it", option)
    if command["reals"] is None:
        raise click.UsageError("Missing option '--data': images to translate, and what they are compared with.")
    judge = host.open_judge(training if isinstance(training, Mapping) else {}, command["reals"], _job(command, group))
    if group.is_main:
        say(judge.about, err=True)
    return judge


def _job(command: dict[str, Any], group: ProcessGroup) -> Job:
    """How a translator's images are compared."""
    from ggdr.metrics.detectors import DetectorFiles
    from ggdr.metrics.evaluate import Job
    from ggdr.metrics.feature_cache import FeatureCache
    from ggdr.metrics.resize import MODES
    from ggdr.torch_utils.cache import cache_folder

    files = DetectorFiles(MODES[command["mode_name"]], group.device, given_files(command))
    cache = FeatureCache(cache_folder("metrics") if command["use_cache"] else None)
    return Job(files, cache=cache, group=group, batch=command["batch_size"], seed=command["seed"])


def _default_specs(
    command: dict[str, Any], fakes: ImageSource | None, judge: SnapshotJudge | None, group: ProcessGroup
) -> list[MetricSpec]:
    """The metric of this machine, or what training measures of a translator; says which and why."""
    from ggdr.metrics.names import parse_metrics
    from ggdr.scripts.measuring.default_metric import default_metric

    if judge is not None:
        if group.is_main:
            say(f"no --metrics given: {judge.defaults}, as in training", err=True)
        return parse_metrics(judge.defaults)
    num_fakes = None if fakes is None else fakes.num
    spec, reason = default_metric(given_files(command), command["reals"], num_fakes)
    if group.is_main:
        say(f"no --metrics given: {spec.name}, since {reason}", err=True)
    return [spec]


def _check_sources(command: dict[str, Any], specs: list[MetricSpec] | None) -> None:
    """UsageError unless there is one source of fakes, and reals where they are needed."""
    if command["network"] and command["fakes"]:
        raise click.UsageError("--network and --fakes: expected one of them, got both")
    if command["fakes"] is None and command["network"] is None and command["save_stats"] is None:
        raise click.UsageError("Missing option '--network' or '--fakes': the images to judge.")
    needs_reals = specs is None or command["save_stats"] or any(spec.needs_reals for spec in specs)
    if command["reals"] is None and needs_reals:
        raise click.UsageError("Missing option '--data': the real images to compare with.")


def _measure(
    command: dict[str, Any],
    specs: list[MetricSpec],
    fakes: ImageSource | None,
    judge: SnapshotJudge | None,
    group: ProcessGroup,
) -> list[MetricResult]:
    """Opens the other images, and computes; says what --save-stats stored."""
    from ggdr.metrics.detectors import DetectorFiles
    from ggdr.metrics.evaluate import evaluate
    from ggdr.metrics.resize import MODES
    from ggdr.scripts.measuring.comparison import open_comparison
    from ggdr.scripts.measuring.judge import measure
    from ggdr.scripts.measuring.results import save_real_statistics
    from ggdr.torch_utils.timing.allocator import keep_freed_memory

    if group.device.type == "cpu":
        keep_freed_memory()
    if judge is not None:
        with progress_bars(group.is_main) as progress:
            return measure(judge, specs, command["network"], group, progress=progress)
    detectors = DetectorFiles(MODES[command["mode_name"]], group.device, given_files(command))
    images = {name: command[name] for name in ("network", "reals", "mirror", "psi", "noise_mode", "seed")}
    how = {name: command[name] for name in ("batch_size", "workers", "use_cache")}
    job = open_comparison(specs, detectors, group, fakes=fakes, **images, **how)
    with progress_bars(group.is_main) as progress:
        job = replace(job, progress=progress)
        if command["save_stats"] is not None:
            num = save_real_statistics(command["save_stats"], specs, job)
            if num is not None:
                say(f"statistics of {num} images written to {command['save_stats']}", err=True)
        return [] if job.fakes is None else evaluate(specs, job)


def _check_folders(command: dict[str, Any], specs: list[MetricSpec], group: ProcessGroup) -> Path | None:
    """Where results go; None: they are printed only.

    Raises:
        OSError: --outdir or the folder of --save-stats cannot be written to, which would be a pity afterwards.
    """
    from ggdr.metrics.extract import together
    from ggdr.scripts.measuring.results import check_appendable, results_folder
    from ggdr.torch_utils.atomic_write import check_writable

    folder = results_folder(command["outdir"], command["network"])
    with together(group):
        if group.is_main and command["save_stats"] is not None:
            check_writable(command["save_stats"].parent)
        if group.is_main and folder is not None:
            try:
                check_appendable(folder, specs)
            except OSError as error:
                if command["outdir"] is not None:
                    raise
                say(f"{os_error_text(error)}: results are printed only; --outdir DIR keeps them", err=True)
                folder = None
    return folder


def _store_and_print(results: list[MetricResult], command: dict[str, Any], folder: Path | None) -> None:
    """Neither a pipe that ends early nor a full disk may cost results."""
    from ggdr.scripts.measuring.results import describe_result, store_results
    from ggdr.torch_utils.checkpoint import SnapshotError

    failure = None
    if folder is not None and results:
        try:
            store_results(folder, results, command["network"])
        except (OSError, SnapshotError) as error:
            failure = error
    for result in results:
        say(json.dumps(result.to_json()) if command["as_json"] else describe_result(result))
    if failure is not None:
        raise failure
    if folder is not None and results and not command["as_json"]:
        say(f"appended to {folder}/metric-*.jsonl")
