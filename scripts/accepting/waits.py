# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The step that looks for what makes the processor wait for the GPU in a training iteration."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from ggdr.scripts.accepting.small_runs import BATCH, TINY, digits
from ggdr.scripts.accepting.step import Finding, Place
from ggdr.scripts.benches.step_timing import WARM_UP, step_timer
from ggdr.scripts.options.option_words import training_command
from ggdr.scripts.training.hosts import HOSTS
from ggdr.scripts.training.resume import Origin
from ggdr.scripts.training.run import tune_process
from ggdr.scripts.training.settings_stylegan2 import with_every_transform
from ggdr.torch_utils.distributed import ProcessGroup
from ggdr.torch_utils.loop import Counters, always
from ggdr.torch_utils.timing.step_timer import StepTimer

ITERATIONS = 4  # ADA looks at its statistics, on the device, after as many
ALLOWED = {"step_end": 1}  # that look
SYNC_WARNING = "synchroniz"  # of torch.cuda.set_sync_debug_mode


def find_waits(place: Place) -> Finding:
    """Whole iterations of the preset `auto`, with all phases in each, watched by PyTorch's sync debug mode."""
    command = training_command("train")
    words = ["--data", digits(place), "--outdir", place.folder / "run", "--device", place.device]
    words += [] if place.on_gpu else [*TINY, "--batch", BATCH["cpu"]]
    with command.make_context("train", list(map(str, words))) as ctx:
        group = ProcessGroup(device=torch.device(place.device))
        prepared = HOSTS["stylegan2"].prepare(ctx.params, Origin(), group)
    settings = with_every_transform(prepared.settings)
    tune_process(group.device, settings.precision)
    with step_timer(settings, prepared.data, group) as timer:
        for _ in range(WARM_UP):
            timer.run(warm_up=True)
        waits = watch(timer, torch.cuda.set_sync_debug_mode)
    return judge(waits)


def watch(timer: StepTimer, set_mode: Callable[[str], None]) -> Counter[tuple[str, str]]:
    """How often the processor waits in ITERATIONS iterations, by piece of the iteration and "FILE:LINE".

    Args:
        set_mode: as torch.cuda.set_sync_debug_mode.
    """
    waits: Counter[tuple[str, str]] = Counter()
    at = Counters()
    with _noted_warnings(set_mode) as noted:

        def done(piece: str) -> None:
            for warning in noted:
                if SYNC_WARNING in str(warning.message):
                    waits[piece, f"{_short(warning.filename)}:{warning.lineno}"] += 1
            noted.clear()

        for _ in range(ITERATIONS):
            batch = next(timer.batches)
            done("data")
            timer.runner.iteration(batch, at, due=always, done=done)
            done("step_end")
    return waits


def judge(waits: Counter[tuple[str, str]]) -> Finding:
    """None may wait but ADA's look at its statistics."""
    by_piece: Counter[str] = Counter()
    for (piece, _), times in waits.items():
        by_piece[piece] += times
    places = {f"{piece} {where}": times for (piece, where), times in sorted(waits.items())}
    faults = [
        f"{piece} waits for the GPU {times} times in {ITERATIONS} iterations, expected {ALLOWED.get(piece, 0)}: "
        + ", ".join(where for (of, where) in sorted(waits) if of == piece)
        for piece, times in sorted(by_piece.items())
        if times > ALLOWED.get(piece, 0)
    ]
    figure = f"{sum(waits.values())} waits in {ITERATIONS} iterations with all phases"
    return Finding(figure, {"iterations": ITERATIONS, "waits": places}, faults)


@contextmanager
def _noted_warnings(set_mode: Callable[[str], None]) -> Iterator[list[warnings.WarningMessage]]:
    """Inside, what waits for the GPU warns, each time."""
    with warnings.catch_warnings(record=True) as noted:
        warnings.simplefilter("always")
        set_mode("warn")
        try:
            yield noted
        finally:
            set_mode("default")


def _short(filename: str) -> str:
    """The end of a path, which tells the file."""
    return "/".join(Path(filename).parts[-2:])
