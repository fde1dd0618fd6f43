# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr train`: StyleGAN2-ADA with GGDR, from a dataset to snapshots."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from ggdr.scripts.errors import CliError, cli_errors, first_process_speaks, metric_errors, os_error_text
from ggdr.scripts.options.parameters import FiniteFloat, device_option, join_processes, ops_option, prepare_ops
from ggdr.stylegan2.config import PRESET_NAMES

if TYPE_CHECKING:
    from ggdr.scripts.training.resume import ResumePlan
    from ggdr.scripts.training.run_folder import RunFolder
    from ggdr.scripts.training.settings import TrainingOptions
    from ggdr.torch_utils.checkpoint import Snapshot
    from ggdr.torch_utils.data.loader import ImageDataset
    from ggdr.torch_utils.distributed import ProcessGroup

# Options that say where a run lives and how this process runs it, not what it computes.
PER_PROCESS = ("outdir", "resume", "dry_run", "device", "ops")

EXIT_STOPPED = 130  # ended by a signal before its time, all saved; what shells report for Ctrl-C


EXAMPLES = """\b
Examples:
  ggdr train --data ffhq256.zip --outdir runs/ffhq --cfg paper256 --mirror
  torchrun --nproc-per-node 8 --no-python ggdr train --data ffhq256.zip --outdir runs/ffhq --cfg paper256 --mirror
  ggdr train --outdir runs/ffhq --resume latest
"""


@click.command(epilog=EXAMPLES, context_settings={"show_default": True, "max_content_width": 110})
@click.option(
    "--outdir",
    metavar="DIR",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Run folder, one a run; made if missing.",
)
@click.option(
    "--data",
    metavar="PATH",
    type=click.Path(path_type=Path),
    help="Dataset, zip or folder, as `ggdr dataset` makes it. Required unless resuming.",
)
@click.option("--cfg", type=click.Choice(PRESET_NAMES), default="auto", help="Preset of settings.")
@click.option(
    "--kimg",
    type=FiniteFloat(min=0, min_open=True),
    metavar="KIMG",
    help="Length of training in thousands of real images shown to D.  [default: from --cfg]",
)
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    metavar="N",
    help="Images an iteration, of all processes together.  [default: from --cfg]",
)
@click.option(
    "--batch-gpu",
    type=click.IntRange(min=1),
    metavar="N",
    help="Images in one forward of one process; the rest is accumulated.  [default: all]",
)
@click.option("--ggdr/--no-ggdr", default=True, help="Generator-guided discriminator regularisation.")
@click.option(
    "--ggdr-res",
    type=click.IntRange(min=8),
    metavar="PIXELS",
    multiple=True,
    help="Feature map of G that D learns to predict; may be given several times."
    "  [default: min(64, resolution / 4), at least 8]",
)
@click.option(
    "--ggdr-weight",
    type=FiniteFloat(min=0),
    default=10.0,
    metavar="FLOAT",
    help="Weight of the cosine distance; 0 only measures it: the decoder learns, D is trained as without.",
)
@click.option("--mirror/--no-mirror", default=False, help="Add the x-flip of every image to the dataset.")
@click.option("--cond/--no-cond", default=False, help="Conditional model, on the dataset's labels.")
@click.option(
    "--subset",
    type=click.IntRange(min=1),
    metavar="N",
    help="Use N images, chosen by --seed.  [default: all]",
)
@click.option(
    "--gamma",
    type=FiniteFloat(min=0),
    metavar="FLOAT",
    help="Weight of R1; 0 turns it off.  [default: from --cfg]",
)
@click.option(
    "--lr",
    type=FiniteFloat(min=0, min_open=True),
    metavar="FLOAT",
    help="Adam's learning rate, of G and D.  [default: from --cfg]",
)
@click.option(
    "--channel-base",
    type=click.IntRange(min=8),
    metavar="N",
    help="Feature maps at resolution r: min(channel base / r, channel max).  [default: from --cfg]",
)
@click.option(
    "--channel-max", type=click.IntRange(min=1), metavar="N", help="See --channel-base.  [default: from --cfg]"
)
@click.option("--aug", type=click.Choice(["ada", "fixed", "noaug"]), default="ada", help="Augmentation of D's images.")
@click.option("--p", type=FiniteFloat(0, 1), metavar="FLOAT", help="Probability of augmentation, with --aug fixed.")
@click.option(
    "--target",
    type=FiniteFloat(-1, 1, min_open=True, max_open=True),
    metavar="FLOAT",
    help="Mean sign of D(real) that ADA holds.  [default: 0.6]",
)
@click.option(
    "--augpipe",
    type=click.Choice(["blit", "geom", "color", "filter", "noise", "cutout", "bg", "bgc", "bgcf", "bgcfn", "bgcfnc"]),
    default="bgc",
    help="Transforms of the augmentation.",
)
@click.option(
    "--resume",
    metavar="latest|PATH|NAME",
    help="latest: go on in --outdir, with its settings where none are given. A run folder or "
    "training-state.pt: go on from there in --outdir. A snapshot (.safetensors), or a name such as ffhq256: transfer "
    "learning, with the networks as they are there.",
)
@click.option(
    "--freezed",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Freeze the N highest-resolution layers of D (for transfer learning).",
)
@click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "bf16", "fp16"]),
    default="auto",
    help="Type of the four highest resolutions; auto: fp16 on a GPU, fp32 on a CPU.",
)
@device_option
@ops_option
@click.option(
    "--tick",
    type=FiniteFloat(min=0, min_open=True),
    metavar="KIMG",
    help="Report every so many thousand images.  [default: from --cfg]",
)
@click.option(
    "--metrics",
    metavar="LIST",
    help="Metrics of every snapshot, as fid50k_full,pr50k3_full or, without downloads, fd_offline5k_full; the "
    "snapshot best by the first one is kept as network-best.safetensors.  [default: none]",
)
@click.option(
    "--snap",
    type=click.IntRange(min=1),
    metavar="TICKS",
    help="Save samples, a snapshot and the state every so many ticks.  [default: from --cfg]",
)
@click.option("--seed", type=click.IntRange(0, 2**32 - 2), default=0, metavar="INT", help="Of everything random.")
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    metavar="N",
    help="Processes that decode images.  [default: 0 if they fit in memory, else up to 4]",
)
@click.option("--dry-run", is_flag=True, help="Print the resolved settings as JSON, write nothing, and stop.")
@click.pass_context
def main(ctx: click.Context, **command: Any) -> None:
    """Train StyleGAN2-ADA with GGDR on a dataset.

    Ctrl-C and SIGTERM save the state first (exit code 130). After any end, even kill -9, `--resume latest` goes on
    from the last saved state. Several GPUs: start with torchrun, as below.
    """
    with first_process_speaks(), cli_errors():
        from ggdr.scripts.training.resume import plan_resume

        plan = plan_resume(command["outdir"], command["resume"])
        given = {k: v for k, v in command.items() if ctx.get_parameter_source(k) is not ParameterSource.DEFAULT}
        stored = {k: v for k, v in plan.stored.get("command", {}).items() if k in command and k not in PER_PROCESS}
        if "aug" in given:
            stored = {k: v for k, v in stored.items() if k not in ("p", "target")}
        command = {**command, **stored, **given}
        if command["data"] is None:
            raise click.UsageError("Missing option '--data': the dataset to train on.", ctx)
        command["data"] = Path(command["data"]).absolute()
        if "data" in stored and "data" not in given and not command["data"].exists():
            raise CliError(f"--data: {command['data']}, which the resumed run was trained on, is gone; name it anew")
        group = join_processes(command["device"])
        prepared = prepare(command, plan, group)
        settings = json.dumps(prepared.options.to_json(), indent=2)
        # Also a barrier: after it the run folder may change.
        if not group.agrees(f"{settings} {prepared.start_nimg}"):
            raise CliError("--outdir, --data: processes found different things there; all need the same files")
    if command["dry_run"]:
        if group.is_main:
            click.echo(settings)
        group.leave()
        return
    with first_process_speaks():
        prepare_ops(command["ops"], group.device)
    with cli_errors():
        finished = train(command, plan, prepared, group)
    exit_code = 0 if finished else EXIT_STOPPED
    group.leave(exit_code)
    ctx.exit(exit_code)


@dataclass
class Prepared:
    """A run that can start: nothing is written yet."""

    options: TrainingOptions
    dataset: ImageDataset
    resume: dict[str, Any] | None
    snapshot: Snapshot | None
    notes: list[str]

    @property
    def start_nimg(self) -> int:
        return 0 if self.resume is None else self.resume["counters"]["nimg"]


def prepare(command: Mapping[str, Any], plan: ResumePlan, group: ProcessGroup) -> Prepared:
    """Opens the data, resolves the settings, and reads what is resumed."""
    from ggdr.scripts.training.resume import load_resumed
    from ggdr.scripts.training.settings import OptionError, resolve
    from ggdr.scripts.training.start_networks import check_fits, starting_point
    from ggdr.torch_utils.data.loader import ImageDataset

    snapshot, start = starting_point(plan)
    dataset = ImageDataset(
        command["data"],
        use_labels=command["cond"],
        mirror=command["mirror"],
        max_images=command["subset"],
        seed=command["seed"],
    )
    size = {"resolution": dataset.resolution, "channels": dataset.num_channels, "c_dim": dataset.c_dim}
    try:
        if start is not None:
            check_fits(start, command, **size)
        options = resolve(
            command,
            **size,
            num_images=dataset.num_images,
            fingerprint=dataset.fingerprint(),
            num_processes=group.world,
            device_type=group.device.type,
            init_snapshot=plan.init_snapshot,
            start=start,
        )
    except OptionError as error:
        raise click.BadParameter(error.message, param_hint=error.option) from error
    notes = [] if plan.note is None else [plan.note]
    if options.cfg == "auto" and start is None and group.device.type == "cpu":
        notes.append("preset auto is for GPUs, and slow on a CPU; --cfg cpu trains a small network")
    if plan.state_path is not None:
        resume, resume_notes = load_resumed(plan.state_path, options, group.device.type)
        return Prepared(options, dataset, resume, None, notes + resume_notes)
    return Prepared(options, dataset, None, snapshot, notes)


def train(command: Mapping[str, Any], plan: ResumePlan, prepared: Prepared, group: ProcessGroup) -> bool:
    """Builds the run and trains; whether it came to its end.

    Raises:
        CliError: training cannot go on; names the last good state.
    """
    from ggdr.scripts.measuring.snapshot_metrics import SnapshotMetrics
    from ggdr.scripts.training.run import build_task, load_snapshot_into, run
    from ggdr.scripts.training.run_folder import RunFolder
    from ggdr.torch_utils.checkpoint import save_state
    from ggdr.torch_utils.data.image_files import DataError
    from ggdr.torch_utils.data.workers import WorkerDied
    from ggdr.torch_utils.loop import NonFiniteError

    options, notes = prepared.options, prepared.notes
    task = build_task(options, prepared.dataset, group)
    if prepared.resume is not None:
        task.load_state(prepared.resume["task"])
    if prepared.snapshot is not None:
        notes += load_snapshot_into(task, prepared.snapshot)
    folder = RunFolder(command["outdir"])
    with folder.locked() if group.is_main else nullcontext():
        if group.is_main:
            # With the batch as it was resolved, which `auto` takes from the number of processes.
            stored = {**command, "batch": options.loop.batch}
            folder.write_options(options.to_json(), stored, [*plan.stored.get("history", []), *notes])
            if prepared.resume is not None and not folder.state_path.exists():
                save_state(folder.state_path, prepared.resume)  # a fork: from now on it resumes by itself
            notes.append(_summary(options, prepared.dataset, group))
        metrics = None
        if options.metrics:
            with metric_errors():
                metrics = SnapshotMetrics(options.metrics, options.data.path, folder.path, group)
        try:
            nimg = run(
                options,
                prepared.dataset,
                task,
                folder,
                group=group,
                metrics=metrics,
                resume=prepared.resume,
                notes=notes,
            )
        except NonFiniteError as error:
            advice = "If it happens again: --precision fp32 or bf16, a larger --gamma, a smaller --lr"
            raise CliError(f"{error}; {_last_state(folder)}. {advice}") from error
        except (DataError, WorkerDied) as error:
            raise CliError(f"{error}; {_last_state(folder)}") from error
        except OSError as error:
            raise CliError(f"{os_error_text(error)}; {_last_state(folder)}") from error
    return nimg >= options.loop.total_nimg


def _last_state(folder: RunFolder) -> str:
    """Where to go on from after an error."""
    if folder.state_path.exists():
        return f"the last good state is {folder.state_path}; go on from it with --resume latest"
    return "no state was saved before"


def _summary(options: TrainingOptions, dataset: ImageDataset, group: ProcessGroup) -> str:
    """One line that says what is about to be trained."""
    from ggdr.torch_utils.ops.build import uses_native

    o = options
    guide = (
        "without GGDR"
        if o.ggdr is None
        else (f"GGDR x{o.ggdr.weight:g} at {', '.join(f'{r}x{r}' for r in o.ggdr.guide_res)}")
    )
    return (
        f"{o.cfg}: {dataset.num_images} images of {dataset.resolution}x{dataset.resolution}x{dataset.num_channels}"
        f" from {dataset.path}, {o.G.c_dim} classes, batch {o.loop.batch}, {o.loop.total_nimg / 1000:g} kimg, "
        f"{guide}, augmentation {o.augment.mode}, {o.precision} on {group.world} x {group.device.type} "
        f"with {'compiled' if uses_native(group.device) else 'reference'} operations"
    )
