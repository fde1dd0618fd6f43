# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr train`: StyleGAN2-ADA with GGDR, from a dataset to snapshots."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from scripts.errors import CliError, cli_errors
from stylegan2.config import PRESET_NAMES

# Options that say where a run lives and how this process runs it, not what it computes.
PER_PROCESS = ("outdir", "resume", "dry_run", "device")

EXIT_STOPPED = 130  # ended by a signal before its time, all saved; what shells report for Ctrl-C


@dataclass
class ResumePlan:
    """Where weights come from: nowhere, a training state (exact resume), or a snapshot (transfer learning)."""

    state_path: Path | None = None
    snapshot_path: Path | None = None
    stored: dict[str, Any] = field(default_factory=dict)  # training_options.json of the resumed run
    note: str | None = None


@click.command(context_settings={"show_default": True, "max_content_width": 110})
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
    type=click.FloatRange(min=0, min_open=True),
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
    type=click.FloatRange(min=0),
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
    type=click.FloatRange(min=0),
    metavar="FLOAT",
    help="Weight of R1; 0 turns it off.  [default: from --cfg]",
)
@click.option(
    "--lr",
    type=click.FloatRange(min=0, min_open=True),
    metavar="FLOAT",
    help="Adam's learning rate, of G and D.  [default: from --cfg]",
)
@click.option(
    "--channel-base",
    type=click.IntRange(min=8),
    metavar="N",
    help="Feature maps at resolution r: min(channel base / r, channel max).  [default: from --cfg]",
)
@click.option("--channel-max", type=click.IntRange(min=1), metavar="N", help="See there.  [default: from --cfg]")
@click.option("--aug", type=click.Choice(["ada", "fixed", "noaug"]), default="ada", help="Augmentation of D's images.")
@click.option(
    "--p", type=click.FloatRange(0, 1), metavar="FLOAT", help="Probability of augmentation, with --aug fixed."
)
@click.option(
    "--target",
    type=click.FloatRange(-1, 1, min_open=True, max_open=True),
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
    metavar="latest|PATH",
    help="latest: go on in --outdir, with its settings where none are given. A run folder or "
    "training-state.pt: go on from there in --outdir. A snapshot (.safetensors): transfer learning.",
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
@click.option("--device", default="auto", metavar="auto|cpu|cuda", help="auto: a GPU if there is one.")
@click.option(
    "--tick",
    type=click.FloatRange(min=0, min_open=True),
    metavar="KIMG",
    help="Report every so many thousand images.  [default: from --cfg]",
)
@click.option(
    "--snap",
    type=click.IntRange(min=1),
    metavar="TICKS",
    help="Save samples, a snapshot and the state every so many ticks.  [default: from --cfg]",
)
@click.option("--seed", type=int, default=0, metavar="INT", help="Of everything random.")
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

    \b
    Examples:
      ggdr train --data ffhq256.zip --outdir runs/ffhq --cfg paper256 --mirror
      torchrun --nproc-per-node 8 -m scripts.train --data ffhq256.zip --outdir runs/ffhq --cfg paper256 --mirror
      ggdr train --outdir runs/ffhq --resume latest
    """
    with cli_errors():
        plan = plan_resume(command["outdir"], command["resume"])
        given = {k: v for k, v in command.items() if ctx.get_parameter_source(k) is not ParameterSource.DEFAULT}
        stored = {k: v for k, v in plan.stored.get("command", {}).items() if k in command and k not in PER_PROCESS}
        command = {**command, **stored, **given}
        if command["data"] is None:
            raise click.UsageError("Missing option '--data': the dataset to train on.", ctx)
        start(command, plan)


def plan_resume(outdir: Path, resume: str | None) -> ResumePlan:
    """Looks at --outdir and --resume, without writing anything.

    Raises:
        CliError: --outdir holds a run already, or --resume names nothing to resume from.
    """
    from scripts.training_run import OPTIONS_FILE, STATE_FILE, RunFolder

    has_run = (outdir / OPTIONS_FILE).exists() or (outdir / STATE_FILE).exists()
    if resume == "latest":
        if not has_run:
            return ResumePlan(note=f"no run in {outdir} to resume; starting from scratch")
        if not (outdir / STATE_FILE).exists():
            stored = RunFolder(outdir).read_options()
            return ResumePlan(stored=stored, note=f"the run in {outdir} saved no state yet; starting it again")
        return ResumePlan(outdir / STATE_FILE, stored=RunFolder(outdir).read_options())
    if has_run:
        raise CliError(f"--outdir: {outdir} already holds a run; go on with --resume latest, or name another folder")
    if resume is None:
        return ResumePlan()
    path = Path(resume)
    if path.is_dir() or path.suffix == ".pt":
        folder = path if path.is_dir() else path.parent
        state = path / STATE_FILE if path.is_dir() else path
        if not state.exists():
            raise CliError(f"--resume: {path} holds no {STATE_FILE} to resume from")
        return ResumePlan(state, stored=RunFolder(folder).read_options(), note=f"going on from {state}")
    return ResumePlan(snapshot_path=path, note=f"starting from the weights of {path}")


def start(command: Mapping[str, Any], plan: ResumePlan) -> None:
    """Resolves the settings, builds the run and trains."""
    import torch

    from scripts.training_options import OptionError, blocking, differences, resolve
    from scripts.training_run import RunFolder, build_task, load_snapshot_into, run
    from torch_utils.checkpoint import load_snapshot, load_state
    from torch_utils.data import ImageDataset
    from torch_utils.distributed import init_process_group
    from torch_utils.loop import NonFiniteError

    device = command["device"]
    device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    try:
        group = init_process_group(device)
    except (ValueError, RuntimeError) as error:
        raise CliError(f"--device: {error}") from error
    try:
        dataset = ImageDataset(
            command["data"],
            use_labels=command["cond"],
            mirror=command["mirror"],
            max_images=command["subset"],
            seed=command["seed"],
        )
        options = resolve(
            command,
            resolution=dataset.resolution,
            channels=dataset.num_channels,
            c_dim=dataset.c_dim,
            num_images=dataset.num_images,
            fingerprint=dataset.fingerprint(),
            num_processes=group.world,
            device_type=group.device.type,
            transfer=plan.snapshot_path is not None,
        )
        notes = [] if plan.note is None else [plan.note]
        resume = None
        if plan.state_path is not None:
            resume = load_state(plan.state_path)
            changes = differences(resume["options"], json.loads(json.dumps(options.to_json())))
            table = "; ".join(f"{name} {old} -> {new}" for name, (old, new) in changes.items())
            if blocking(changes):
                raise CliError(f"--resume: {plan.state_path} was trained with other settings: {table}")
            notes.append(f"resuming {plan.state_path} at {resume['counters']['nimg'] / 1000:.1f} kimg")
            notes += [f"settings that differ from the resumed run: {table}"] if changes else []
        snapshot = None if plan.snapshot_path is None else load_snapshot(plan.snapshot_path)
        if command["dry_run"]:
            if group.is_main:
                click.echo(json.dumps(options.to_json(), indent=2))
            return

        task = build_task(options, dataset, group)
        if resume is not None:
            task.load_state(resume["task"])
        if snapshot is not None:
            load_snapshot_into(task, snapshot)
        folder = RunFolder(command["outdir"], group.is_main)
        history = [*plan.stored.get("history", []), *notes]
        folder.create(options, {k: str(v) if isinstance(v, Path) else v for k, v in command.items()}, history)
        if group.is_main:
            notes.append(_summary(options, dataset, group))
        try:
            nimg = run(options, dataset, task, folder, group=group, resume=resume, notes=notes)
        except NonFiniteError as error:
            saved = folder.state_path
            last = (
                f"the last good state is {saved}; go on from it with --resume latest"
                if saved.exists()
                else ("no state was saved before")
            )
            raise CliError(
                f"{error}; {last}. If it happens again: --precision fp32 or bf16, a larger --gamma, a smaller --lr"
            ) from error
        if nimg < options.loop.total_nimg:
            raise click.exceptions.Exit(EXIT_STOPPED)
    except OptionError as error:
        raise click.BadParameter(error.message, param_hint=error.option) from error
    finally:
        if group.world > 1:
            torch.distributed.destroy_process_group()


def _summary(options: Any, dataset: Any, group: Any) -> str:
    """One line that says what is about to be trained."""
    o = options
    guide = (
        "without GGDR"
        if o.ggdr is None
        else (f"GGDR x{o.ggdr.weight:g} at {', '.join(f'{r}x{r}' for r in o.ggdr.guide_res)}")
    )
    return (
        f"{o.cfg}: {dataset.num_images} images of {dataset.resolution}x{dataset.resolution}x{dataset.num_channels}"
        f" from {dataset.path}, {o.G.c_dim} classes, batch {o.loop.batch}, {o.loop.total_nimg / 1000:g} kimg, "
        f"{guide}, augmentation {o.augment.mode}, {o.precision} on {group.world} x {group.device.type}"
    )


if __name__ == "__main__":
    main()
