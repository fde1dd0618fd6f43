# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""All steps of `ggdr accept`, in the order in which they are worth knowing."""

from __future__ import annotations

from collections.abc import Sequence

from ggdr.scripts.accepting.step import Step
from ggdr.scripts.errors import OptionError, nearest

ROOM = "ggdr.scripts.accepting"
GPU = ("cuda",)
PRESETS = {"auto256": ("auto", 256), "paper256": ("paper256", 256), "cifar": ("cifar", 32), "auto1024": ("auto", 1024)}


def _resume(precision: str, devices: tuple[str, ...] = ("cuda", "cpu")) -> Step:
    return Step(
        f"resume-{precision}",
        f"a run in {precision} that is stopped, killed and resumed gives what an undisturbed one gives",
        f"{ROOM}.training:resume_disturbed",
        expected=60,
        bound=180,
        arguments={"precision": precision},
        devices=devices,
        needs=f"{precision} needs a GPU",
    )


def _speed(name: str) -> Step:
    cfg, resolution = PRESETS[name]
    return Step(
        f"speed-{name}",
        f"time of {cfg} at {resolution}x{resolution} with and without GGDR and ADA, against the roofline",
        f"{ROOM}.speed:time_preset",
        expected=55,
        bound=180,
        arguments={"cfg": cfg, "resolution": resolution},
    )


def _sanitizer(tool: str, proves: str) -> Step:
    return Step(
        tool,
        proves,
        f"{ROOM}.tested:sanitize",
        expected=90,
        bound=240,
        arguments={"tool": tool, "seconds": 180},
        devices=GPU,
        needs="compute-sanitizer looks at GPUs",
    )


STEPS = (
    Step("machine", "what is here, and that it multiplies", f"{ROOM}.installation:look_at_machine", 15, 60),
    Step(
        "doctor",
        "the kernels build, agree with their reference and are faster",
        f"{ROOM}.installation:run_doctor",
        120,
        420,
    ),
    Step("kernels", "the kernels agree with float64, in three types", f"{ROOM}.installation:compare_kernels", 20, 90),
    Step(
        "tests",
        "the tests for GPUs pass",
        f"{ROOM}.tested:run_tests",
        expected=120,
        bound=300,
        arguments={"seconds": 260},
        devices=GPU,
        needs="these tests are for GPUs; `make test` runs the others",
    ),
    Step(
        "golden",
        "networks, losses and steps agree with the reference vectors",
        f"{ROOM}.tested:compare_golden",
        25,
        120,
    ),
    _resume("fp32"),
    _resume("fp16", GPU),
    _resume("bf16"),
    Step(
        "waits",
        "no training iteration waits for the GPU",
        f"{ROOM}.waits:find_waits",
        expected=30,
        bound=120,
        devices=GPU,
        needs="a CPU waits for nothing",
    ),
    Step(
        "counted",
        "what an iteration of each preset asks of this card",
        f"{ROOM}.speed:count_presets",
        expected=50,
        bound=210,
        arguments={"presets": list(PRESETS.values())},
        devices=GPU,
        needs="the roofline is that of a GPU",
    ),
    *map(_speed, PRESETS),
    Step(
        "memory",
        "what tensors take on the GPU, against the count",
        f"{ROOM}.speed:measure_memory",
        expected=60,
        bound=150,
        arguments={"presets": [PRESETS[name] for name in ("auto256", "paper256", "auto1024")]},
        devices=GPU,
        needs="the count is of a GPU's memory",
    ),
    Step("peaks", "rates of products, convolutions and memory", f"{ROOM}.installation:measure_peaks", 20, 90),
    Step("processes", "torchrun on all GPUs follows one process", f"{ROOM}.training:train_on_all", 100, 300),
    Step("metrics", "metrics run, and how long they take", f"{ROOM}.use:measure_metrics", 45, 180),
    Step("clusters", "images and cluster maps of a snapshot", f"{ROOM}.use:make_clusters", 35, 150),
    Step("twice", "--deterministic gives the same twice", f"{ROOM}.training:train_twice", 50, 150),
    _sanitizer("memcheck", "the kernels read and write their own memory alone"),
    _sanitizer("racecheck", "the kernels have no races in shared memory"),
)


def choose_steps(text: str | None, known: Sequence[Step]) -> list[Step]:
    """Those of `known` in a list of names with commas, in the order of `known`; all of them for None.

    Raises:
        OptionError: there is no step of a name.
    """
    if text is None:
        return list(known)
    names = [step.name for step in known]
    wanted = [name.strip() for name in text.split(",") if name.strip()]
    for name in wanted:
        if name not in names:
            raise OptionError("--steps", f"{name!r} is none of {', '.join(names)}{nearest(name, names)}")
    if not wanted:
        raise OptionError("--steps", f"expected names of steps, got {text!r}")
    return [step for step in known if step.name in wanted]
