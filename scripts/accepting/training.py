# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Steps that train: stopped, killed and resumed; twice alike; on all GPUs."""

from __future__ import annotations

import math
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch

from ggdr.scripts.accepting.commands import checked, ggdr_command, last_json, run, start
from ggdr.scripts.accepting.small_runs import BATCH, TINY, digits, largest_difference, train_words
from ggdr.scripts.accepting.step import Finding, Place, StepFailed, StepSkipped
from ggdr.scripts.errors import EXIT_STOPPED
from ggdr.torch_utils import child_python
from ggdr.torch_utils.runlog import read_stats

ITERATIONS = {"cuda": 128, "cpu": 32}  # of a run that is disturbed
SNAPSHOTS = 4
TWICE_ITERATIONS = {"cuda": 32, "cpu": 8}
POLL_SECONDS = 0.02
# At p = 0, where ADA starts, nothing would be augmented. With --deterministic we know of nothing that a GPU computes in
# no fixed order (docs/training.md); on a CPU it changes nothing.
REPEATABLE = ("--aug", "fixed", "--p", 0.5, "--deterministic")
MBSTD = 4  # images of a group of minibatch-std in the preset that is trained
PROCESSES_ITERATIONS = 4
LOGGED = ("loss", "score", "ggdr", "grad_norm")
RELATIVE, ABSOLUTE = 2e-3, 2e-4  # of logged values, between numbers of processes


def resume_disturbed(place: Place, *, precision: str) -> Finding:
    """A run that is stopped by a signal, resumed, killed and resumed, against one that is left alone."""
    alone, disturbed = place.folder / "alone", place.folder / "disturbed"
    length = {"iterations": ITERATIONS[place.device], "snapshots": SNAPSHOTS}
    words = {x: [*train_words(place, x, **length, precision=precision), *REPEATABLE] for x in (alone, disturbed)}
    undisturbed = start(ggdr_command(*words[alone]))
    resumed = ["train", "--outdir", disturbed, "--resume", "latest", "--device", place.device]
    _disturb(ggdr_command(*words[disturbed]), disturbed, signal.SIGTERM, EXIT_STOPPED)
    _disturb(ggdr_command(*resumed), disturbed, signal.SIGKILL, -signal.SIGKILL)
    checked("the run that was resumed", *run(ggdr_command(*resumed)))
    checked("the run that was left alone", *undisturbed.finish())
    difference = largest_difference(alone, disturbed)
    lines = [len(read_stats(x)) for x in (alone, disturbed)]
    seconds = read_stats(alone)[-1]["time/sec_per_kimg"]
    details = {
        "difference": difference,
        "log_lines": lines,
        "sec_per_kimg": seconds,
        "options": list(REPEATABLE),
    }
    faults = []
    if difference:
        faults.append(f"its weights differ from those of the run left alone, by {difference:.1e} of the largest")
    if lines[0] != lines[1]:
        faults.append(f"its log has {lines[1]} lines, that of the run left alone {lines[0]}")
    same = "the same weights to the bit" if not difference else f"weights {difference:.1e} apart"
    return Finding(f"stopped, killed and resumed: {same}", details, faults)


def _disturb(command: list[str], outdir: Path, number: signal.Signals, expected: int) -> None:
    """Starts a run, sends it a signal as soon as it has saved a state, and waits for its end.

    Raises:
        StepFailed: it ended before, or in another way.
    """
    state = outdir / "training-state.pt"
    before = state.stat().st_mtime_ns if state.exists() else None
    program = start(command)
    while program.process.poll() is None and not (state.exists() and state.stat().st_mtime_ns != before):
        time.sleep(POLL_SECONDS)
    if program.process.poll() is None:
        program.process.send_signal(number)
    code, _ = program.finish()
    if code != expected:
        raise StepFailed(f"a run that got {number.name} ended with exit code {code}, expected {expected}")


def train_twice(place: Place) -> Finding:
    """The same command twice, with `--deterministic`: with an augmentation that moves no pixels, and with the usual.

    The gradient of the second one has a fixed order in this project's own code alone.
    """
    found = {}
    for augpipe in ("color", "bgc"):
        folders = [place.folder / f"{augpipe}{i}" for i in range(2)]
        programs = []
        for x in folders:
            iterations = TWICE_ITERATIONS[place.device]
            words = train_words(place, x, iterations=iterations, snapshots=1, precision="auto")
            programs.append(start(ggdr_command(*words, *REPEATABLE, "--augpipe", augpipe)))
        for program in programs:
            checked(f"training with --augpipe {augpipe}", *program.finish())
        found[augpipe] = largest_difference(*folders)
    faults = [f"--deterministic --augpipe {name}: two runs are {x:.1e} apart" for name, x in found.items() if x]
    texts = [f"{name} {'equal' if not x else f'{x:.1e} apart'}" for name, x in found.items()]
    return Finding(", ".join(texts), {"difference": found}, faults)


def train_on_all(place: Place) -> Finding:
    """torchrun on all GPUs (two processes on a CPU), against one process with the same batch; and its speed."""
    num = torch.cuda.device_count() if place.on_gpu else 2
    if num < 2:
        raise StepSkipped("one GPU: there is nothing to reduce")
    batch = MBSTD * num
    logs = {}
    for count in (1, num):
        outdir = place.folder / f"processes{count}"
        words = ["train", "--data", digits(place), "--outdir", outdir, "--cfg", "demo", "--batch", batch]
        words += [] if place.on_gpu else TINY
        words += ["--device", place.device, "--precision", "fp32", "--aug", "fixed", "--p", 0.5]
        words += ["--kimg", PROCESSES_ITERATIONS * batch / 1000, "--tick", batch / 1000]
        checked(f"training on {count}", *run(_torchrun(count, words)))
        logs[count] = read_stats(outdir)
    worst = _worst_value(logs[1], logs[num])
    bench = ["bench", "train", "--device", place.device, "--json", "--iterations", 8 if place.on_gpu else 4]
    if place.on_gpu:
        bench += ["--cfg", "paper256", "--resolution", 256]
    else:
        bench += ["--cfg", "demo", "--batch", 2 * BATCH["cpu"], *TINY]
    speed = {}
    for count in (1, num):
        result = last_json(checked(f"ggdr bench train on {count}", *run(_torchrun(count, bench))))
        speed[count] = result["sec_per_kimg"]
    faults = [] if worst <= 1 else [f"{num} processes differ from one by {worst:.1f} times what is allowed"]
    figure = f"{num} processes follow one ({worst:.2g} of what is allowed), {speed[1] / speed[num]:.2f} times as fast"
    return Finding(figure, {"processes": num, "worst": worst, "sec_per_kimg": speed}, faults)


def _torchrun(count: int, words: list[object]) -> list[str]:
    """`ggdr WORDS` in so many processes."""
    starter = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    return [*starter, child_python.__file__, "ggdr", *map(str, words)]


def _worst_value(one: list[dict[str, Any]], several: list[dict[str, Any]]) -> float:
    """The largest difference of logged values, as a multiple of what is allowed.

    Raises:
        StepFailed: there are not as many lines of them.
    """
    if len(one) != len(several) or not one:
        raise StepFailed(f"logs of {len(one)} and {len(several)} lines, expected {PROCESSES_ITERATIONS} of both")
    worst = 0.0
    for a, b in zip(one, several, strict=True):
        for name, value in a.items():
            if name.startswith(LOGGED):
                error = abs(b[name] - value) / (RELATIVE * abs(value) + ABSOLUTE)
                worst = max(worst, math.inf if math.isnan(error) else error)
    return worst
