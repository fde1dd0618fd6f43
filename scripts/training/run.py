# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""One training run: a host's task, the loop, and the run folder that holds what comes of it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from contextlib import closing, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import torch

from ggdr.scripts.errors import CliError, memory_error_text, metric_errors, os_error_text
from ggdr.scripts.measuring.judge import training_job
from ggdr.scripts.measuring.snapshot_metrics import SnapshotMetrics, missing_metrics
from ggdr.scripts.options.parameters import prepare_ops, typed_words
from ggdr.scripts.options.training import AUTO
from ggdr.scripts.terminal import say
from ggdr.scripts.training.determinism import deterministic_arithmetic
from ggdr.scripts.training.fit_memory import fitting_settings
from ggdr.scripts.training.host import Host, build_task
from ggdr.scripts.training.plan import RunPlan
from ggdr.scripts.training.stored import load_task
from ggdr.torch_utils.checkpoint import SnapshotError, save_snapshot, save_state
from ggdr.torch_utils.data.image_files import DataError
from ggdr.torch_utils.data.workers import WorkerDied
from ggdr.torch_utils.distributed import LostPeer, ProcessGroup
from ggdr.torch_utils.float32 import allow_tf32_convolutions
from ggdr.torch_utils.gan import GANTask
from ggdr.torch_utils.loop import LoopConfig, NonFiniteError, run_panels, train
from ggdr.torch_utils.ops import uses_native
from ggdr.torch_utils.pictures.images import save_image
from ggdr.torch_utils.runlog import RunLog
from ggdr.torch_utils.timing.allocator import keep_freed_memory


def start_as(command: click.Command, plan: RunPlan, group: ProcessGroup) -> bool:
    """`start_run` with the operations that --ops of a training command means, if any, and its words on record."""
    if group.device.type in plan.host.compiled_on:
        prepare_ops(plan.command["ops"], group.device)
    return start_run(plan, group, typed_words(command, plan.command, leave_out=("dry_run", "resume")))


def start_run(plan: RunPlan, group: ProcessGroup, argv: list[str]) -> bool:
    """Builds the task and trains; whether the run came to its end.

    Args:
        argv: the command's words that start the same run anew, for whoever reads the folder.

    Raises:
        CliError: training cannot go on; names the last good state.
    """
    with deterministic_arithmetic(group.device) if plan.settings.deterministic else nullcontext():
        return _build_and_train(plan, group, argv)


def _build_and_train(plan: RunPlan, group: ProcessGroup, argv: list[str]) -> bool:
    """See `start_run`."""
    settings, folder = plan.settings, plan.folder
    if plan.resume is not None and plan.start_nimg >= settings.loop.total_nimg and not _lacks_metrics(plan, group):
        if group.is_main:
            say(f"already finished at {plan.start_nimg / 1000:g} kimg; a larger --kimg goes on")
        return True
    metrics = None
    if settings.metrics:
        with metric_errors():
            job = training_job(group, settings.detector_files)
            judge = plan.host.open_judge(settings.to_json(), plan.measured, job)
            metrics = SnapshotMetrics(settings.metrics, judge, folder.path, group, settings.patience)
    notes = [*plan.notes, *([metrics.judge.about] if metrics is not None and metrics.judge.about else [])]
    if plan.command.get("batch_gpu") == AUTO:
        tune_process(group.device, settings.precision)
        settings = plan.settings = fitting_settings(plan.host, settings, plan.data, group)
        notes.append(f"--batch-gpu auto: {settings.loop.batch_gpu} images in a forward")
    task = build_task(plan.host, settings, plan.data, group)
    if plan.resume is not None:
        load_task(task, plan.resume["task"], plan.state_path)
    if plan.snapshot is not None:
        notes += plan.host.load_weights(task, plan.snapshot)
    with folder.locked() if group.is_main else nullcontext() as is_held:
        if group.is_main:
            if folder.version() != plan.version:
                raise CliError(f"--outdir: another process trained in {folder.path} meanwhile; start again")
            if not is_held:
                notes.append(f"{folder.path} cannot be locked on its file system: see that nothing else trains in it")
            # With the batch as it was resolved, which `auto` takes from the number of processes and the memory.
            command = {**plan.command, "batch": settings.loop.batch}
            if command.get("batch_gpu") == AUTO:
                command["batch_gpu"] = settings.loop.batch_gpu
            declared = _declared(plan.host, task, group)
            record = {**settings.to_json(), **declared, "program": plan.host.command, "argv": argv}
            folder.write_options(record, command, [*plan.history, *notes])
            if plan.resume is not None and not folder.state_path.exists():
                save_state(folder.state_path, plan.resume)  # a fork: from now on it resumes by itself
            on = declared["device"]
            where = f"{settings.precision} on {on['processes']} x {on['type']}"
            where += f" with {on['operations']} operations" if "operations" in on else ""
            notes.append(f"{plan.host.summary(settings, plan.data)}, {where}")
        try:
            finished = _train(plan, task, group=group, metrics=metrics, notes=notes)
        except NonFiniteError as error:
            advice = f"If it happens again: {plan.host.advice(settings)}"
            raise CliError(f"{error}; {_last_state(plan, group)}. {advice}") from error
        except torch.OutOfMemoryError as error:
            advice = f"What takes less: {plan.host.memory_advice(settings)}"
            raise CliError(f"{memory_error_text(error)}; {_last_state(plan, group)}. {advice}") from error
        except (DataError, LostPeer, WorkerDied) as error:
            raise CliError(f"{error}; {_last_state(plan, group)}") from error
        except OSError as error:
            raise CliError(f"{os_error_text(error)}; {_last_state(plan, group)}") from error
    return finished


def _lacks_metrics(plan: RunPlan, group: ProcessGroup) -> bool:
    """Whether the snapshot that the resumed run ended at has not all its metrics, as if killed meanwhile."""
    names = plan.settings.metrics if group.is_main else ()
    return group.any(bool(missing_metrics(names, _snapshot_path(plan, plan.start_nimg), plan.start_nimg)))


def _snapshot_path(plan: RunPlan, nimg: int) -> Path:
    return plan.folder.path / f"network-snapshot-{kimg_name(nimg, plan.settings.loop)}.safetensors"


def _declared(host: Host, task: GANTask, group: ProcessGroup) -> dict[str, Any]:
    """What curves, report and cards have to know of a run, as data."""
    device: dict[str, Any] = {"type": group.device.type, "processes": group.world}
    if group.device.type in host.compiled_on:
        device["operations"] = "compiled" if uses_native(group.device) else "reference"
    return {
        "panels": [asdict(panel) for panel in run_panels(task)],
        "pictures": [{"name": x.name, "title": x.title, "once": x.once} for x in task.pictures],
        "device": device,
    }


def _last_state(plan: RunPlan, group: ProcessGroup) -> str:
    """Where to go on from after an error, and how."""
    folder = plan.folder
    if folder.state_path.exists():
        return f"the last good state is {folder.state_path}; go on from it with: {_resume_command(plan, group)}"
    return f"no state was saved before; start it again with: {_resume_command(plan, group)}"


def _resume_command(plan: RunPlan, group: ProcessGroup) -> str:
    """What to type to go on with a run, on as many processes; on several machines, on each one."""
    words = [*plan.host.command.split(), "--outdir", str(plan.folder.path), "--resume", "latest"]
    if group.world == 1:
        return shlex.join(words)
    local = int(os.environ.get("LOCAL_WORLD_SIZE", group.world))
    if local == group.world:
        return shlex.join(["torchrun", "--nproc-per-node", str(local), "--no-python", *words])
    return f"{shlex.join(words)} (under torchrun as before, on each machine)"


def _train(
    plan: RunPlan, task: GANTask, *, group: ProcessGroup, metrics: SnapshotMetrics | None, notes: list[str]
) -> bool:
    """Trains, writing into the run folder; whether the run came to its end.

    Raises what `torch_utils.loop.train` raises, DataError for a damaged image, and OSError where a file cannot be
    written; the last saved state stays as it was.
    """
    settings, folder, loop = plan.settings, plan.folder, plan.settings.loop
    tune_process(group.device, settings.precision)
    length = {"total_nimg": loop.total_nimg, "tick_nimg": loop.tick_nimg, "start_nimg": plan.start_nimg}
    with RunLog(folder.path, **length, is_main=group.is_main) as log:
        # What an earlier process reported after the state that it saved, or without saving any, is void.
        try:
            log.truncate_after(plan.start_nimg)
        except ValueError as error:
            raise SnapshotError(f"{error}; mend or remove that file") from error
        if metrics is not None:
            metrics.forget_after(plan.start_nimg)
        for note in notes:
            log.info(note)
        if group.is_main:
            for picture in task.pictures:
                path = folder.path / f"{picture.name}.png"
                if picture.once and not path.exists():
                    save_image(picture.draw(), path)

        def on_snapshot(nimg: int) -> None:
            name = kimg_name(nimg, loop)
            if group.is_main:
                for picture in task.pictures:
                    if not picture.once:
                        pixels = picture.draw()
                        save_image(pixels, folder.path / f"{picture.name}{name}.png")
                        log.image(picture.name, pixels, nimg)
                if nimg > 0:
                    networks, config = task.snapshot()
                    about = {"nimg": nimg, "training": settings.to_json()}
                    save_snapshot(_snapshot_path(plan, nimg), networks, config | about)

        def on_saved(nimg: int, is_stopped: Callable[[], bool]) -> bool:
            return metrics is None or metrics(_snapshot_path(plan, nimg), nimg, log, is_stopped)

        ended_early = False

        def is_over() -> bool:
            nonlocal ended_early
            ended_early = metrics is not None and metrics.is_over(log)
            return ended_early

        def save(state: dict[str, Any]) -> None:
            if group.is_main:
                about = {"options": settings.to_json(), "device_type": group.device.type}
                save_state(folder.state_path, {**state, **about})
            group.barrier()

        with closing(plan.host.batches(settings, plan.data, group, plan.start_nimg)) as batches:
            finished = train(
                task,
                batches,
                loop,
                log=log,
                save_state=save,
                on_snapshot=on_snapshot,
                on_saved=on_saved,
                is_over=is_over,
                group=group,
                resume=plan.resume,
            )
        if finished:
            length = "" if ended_early else f"{loop.total_nimg / 1000:g} kimg; "
            log.info(f"done: {length}results in {folder.path}")
        else:
            log.info(f"saved; go on with: {_resume_command(plan, group)}")
        return finished


def kimg_name(nimg: int, loop: LoopConfig) -> str:
    """KKKKKK of file names; with three decimals in runs whose snapshots are less than 1 kimg apart.

    In other runs they tell a snapshot whose batch passed no whole kimg, as the last one may be, from the one that has
    the name without. The length of the run, which may change when it is resumed, does not matter.
    """
    passes_kimg = nimg // 1000 > (nimg - loop.batch) // 1000
    if passes_kimg and loop.tick_nimg * loop.snap_ticks >= 1000:
        return f"{nimg // 1000:06d}"
    return f"{nimg / 1000:010.3f}"


def tune_process(device: torch.device, precision: str) -> None:
    """Settings of PyTorch and the C library, for this process, with which a training step is fast."""
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = not torch.are_deterministic_algorithms_enabled()
        allow_tf32_convolutions(precision != "fp32")
    else:
        keep_freed_memory()
