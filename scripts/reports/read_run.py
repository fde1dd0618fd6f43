# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What a run folder says of its run: status, settings, machine and snapshots, as plain data. Writes nothing."""

from __future__ import annotations

import re
import shlex
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ggdr.metrics.names import parse_metric
from ggdr.scripts.curves import METRIC, metric_panels, read_metrics
from ggdr.scripts.training.run_folder import OPTIONS_FILE, RunFolder
from ggdr.torch_utils.untrusted.json_text import is_finite, parse_json

RATE_TICKS = 20  # so many last ticks say how fast a run is
LOG_LINES = 40
GROUPS = {
    "data": "Data", "G": "Generator", "D": "Discriminator", "loss": "Losses", "optim": "Optimiser",
    "augment": "Augmentation", "ggdr": "GGDR", "loop": "Training loop",
}  # fmt: skip
NO_SETTINGS = ("command", "history", "versions", "hardware")
MEMORY = ("memory/cpu", "memory/gpu")
_DECIMAL = r"(\d{1,15}(?:\.\d{1,15})?)"
_TICK = re.compile(rf"tick \d+ +kimg {_DECIMAL} .*cpumem {_DECIMAL}G +gpumem {_DECIMAL}G")
_SUMMARY = re.compile(r", (\w+) on (\d{1,9}) x (\w+) with (\w+) operations$")
_NUMBER = re.compile(r"(\d+(?:\.\d+)?)\.(?:png|safetensors)$")


@dataclass(frozen=True)
class Run:
    """One run, as far as its folder tells.

    Attributes:
        name:    what the page calls it.
        lines:   {"kimg": .., KEY: number or None, ..} of stats.jsonl, of metrics and of memory; each by kimg.
        options: training_options.json; empty if there is none.
        log:     log.txt, line by line.
        in_use:  whether a process trains in it; None if that is unknown.
        written: Unix time of its last sign of life.
        notes:   what could not be read, for the page.
    """

    name: str
    path: Path
    lines: list[dict[str, Any]]
    options: dict[str, Any]
    log: list[str]
    in_use: bool | None
    written: float
    notes: list[str] = field(default_factory=list)


def read_run(path: Path, name: str) -> Run:
    """Reads all but the pictures of a run, which may be going on.

    Raises:
        ValueError: `path` is no run folder, or a line of its stats or metrics cannot be read.
        OSError: a file cannot be read.
    """
    from ggdr.torch_utils.checkpoint import SnapshotError
    from ggdr.torch_utils.runlog import read_stats

    folder, notes, options = RunFolder(path), [], {}
    # Asked first: a run that ends while its files are read counts as going on, not as stopped short of its end.
    in_use = folder.in_use()
    stats = [{**line, "kimg": line["nimg"] / 1000} for line in read_stats(path)]
    if folder.has_options():
        try:
            options = folder.read_options()
        except SnapshotError as error:
            notes.append(str(error))
    else:
        notes.append(f"{path / OPTIONS_FILE}: not there, so the settings are unknown")
    log_path = path / "log.txt"
    # The page shows its last lines, which must not be those of a file elsewhere that a link names.
    is_own = log_path.is_file() and log_path.resolve().parent == path.resolve()
    log = log_path.read_text(errors="replace").splitlines() if is_own else []
    written = max(file.stat().st_mtime for file in (path / "stats.jsonl", log_path) if file.is_file())
    return Run(name, path, stats + read_memory(log) + read_metrics(path), options, log, in_use, written, notes)


def read_memory(log: Sequence[str]) -> list[dict[str, float]]:
    """Memory in GiB by kimg, from the status lines of log.txt: {"kimg": .., "memory/cpu": .., "memory/gpu": ..}.

    Where a run was resumed from an earlier state, what the log says beyond that state is left out. So is the memory
    of a GPU that no tensor was ever on.
    """
    found: list[dict[str, float]] = []
    for line in log:
        match = _TICK.search(line)
        if match is not None:
            kimg, *memory = map(float, match.groups())
            while found and found[-1]["kimg"] >= kimg:
                found.pop()
            found.append({"kimg": kimg, **dict(zip(MEMORY, memory, strict=True))})
    used = [key for key in MEMORY if any(line[key] for line in found)]
    return [{"kimg": line["kimg"], **{key: line[key] for key in used}} for line in found]


def status(run: Run) -> dict[str, Any]:
    """How far a run is, and how fast.

    Returns:
        state:        "finished", "running", "stopped", or "unfinished" where nobody can tell which of the last two.
        kimg, total:  done and to be done; total is None if unknown.
        sec_per_kimg: median of the last ticks; None before the first one is over.
        left, spent:  seconds of training to come (of a run that goes on, else None) and done, without snapshots
                      and metrics.
    """
    ticks = [line for line in run.lines if finite_number(line.get("time/sec_per_kimg")) is not None]
    kimg = max((line["kimg"] for line in run.lines if "nimg" in line), default=0)
    total = finite_number(_part(run, "loop").get("total_nimg"))
    total = None if total is None else total / 1000
    state = {True: "running", False: "stopped", None: "unfinished"}[run.in_use]
    if total is not None and kimg >= total:
        state = "finished"
    rates = [line["time/sec_per_kimg"] for line in ticks]
    rate = statistics.median(rates[-RATE_TICKS:]) if rates else None
    starts = [0, *(line["kimg"] for line in ticks)]
    return {
        "state": state,
        "kimg": kimg,
        "total": total,
        "sec_per_kimg": rate,
        "left": (total - kimg) * rate if state == "running" and total is not None and rate is not None else None,
        "spent": sum(r * (end - start) for r, start, end in zip(rates, starts, starts[1:], strict=False)),
    }


def settings(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The resolved settings of all runs in groups: {"title", "rows": [{"name", "values": [text, ..], "differs"}]}.

    A setting that a run does not have is None there.
    """
    flat = []
    for run in runs:
        known = {name: value for name, value in run.options.items() if name not in NO_SETTINGS}
        if "ggdr" in known:
            known["ggdr"] = {"used": known["ggdr"] is not None, **_part(run, "ggdr")}
        flat.append(dict(_leaves(known)))
    return _groups(flat, lambda part: GROUPS.get(part, part) if part else "Run")


def machines(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Hardware and versions of all runs, in groups as those of `settings`."""
    return _groups([_machine(run) for run in runs], lambda part: part)


def _part(run: Run, name: str) -> Mapping[str, Any]:
    """A part of training_options.json; empty if there is none."""
    part = run.options.get(name)
    return part if isinstance(part, Mapping) else {}


def _machine(run: Run) -> dict[str, Any]:
    """By "GROUP.name"; what the run's last process wrote, as far as it did."""
    found: dict[str, Any] = {}
    summary = next((match for line in reversed(run.log) if (match := _SUMMARY.search(line))), None)
    if summary is not None:
        device, operations = ("GPU" if summary[3] == "cuda" else summary[3].upper()), summary[4]
        found |= {"Hardware.trained on": device, "Hardware.processes": int(summary[2])}
    hardware = _part(run, "hardware")
    if hardware:
        gib = finite_number(hardware.get("memory_gib"))
        found |= {"Hardware.processor": hardware.get("cpu"), "Hardware.cores": hardware.get("cores")}
        found["Hardware.memory"] = None if gib is None else f"{gib:g} GiB"
        gpus = hardware.get("gpus", [])
        for i, gpu in enumerate(gpus if isinstance(gpus, list) else []):
            if isinstance(gpu, Mapping):
                found[f"Hardware.GPU {i}"] = f"{gpu.get('name')}, {gpu.get('memory_gib')} GiB"
    found |= {f"Software.{name}": version for name, version in _part(run, "versions").items()}
    if summary is not None:
        found["Software.operations"] = operations
    return found


def command_line(run: Run) -> str | None:
    """The `ggdr train` that starts the run anew, ready for a shell; None if it is unknown."""
    from ggdr.scripts.train import main

    command = run.options.get("command")
    if command is None:
        return None
    words = ["ggdr", "train"]
    for param in main.params:
        value = command.get(param.name)
        if param.name in ("dry_run", "resume") and value in (True, "latest"):
            continue
        if value is None or value == param.default or value == []:
            continue
        if getattr(param, "is_flag", False):
            words += (param.opts if value else param.secondary_opts)[:1]
            continue
        for item in value if isinstance(value, list) else [value]:
            words += [param.opts[0], f"{item:.15g}" if isinstance(item, float) else str(item)]
    return shlex.join(words)


def snapshots(run: Run) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The snapshots of a run, and the metrics that were computed of them.

    Returns:
        [{"file", "bytes", "kimg", "values": {metric's key: number}}], by kimg; kimg is None if unknown.
        [{"key", "name", "best": the kimg of its best value}], for each value of a metric but standard deviations.
    """
    measured: dict[str, dict[str, float]] = {}
    for line in run.lines:
        values = {
            key: value for key, value in line.items() if key.startswith(METRIC) and finite_number(value) is not None
        }
        if values:
            for digits in (_kimg_digits(line["kimg"], whole) for whole in (True, False)):
                measured.setdefault(digits, {}).update(values)
    found = []
    for path in sorted(path for path in run.path.glob("network-*.safetensors") if path.is_file()):
        match = _NUMBER.search(path.name)
        kimg = float(match[1]) if match else _best_kimg(path)
        digits = match[1] if match else "" if kimg is None else _kimg_digits(kimg, whole=False)
        found.append(
            {"file": path.name, "bytes": path.stat().st_size, "kimg": kimg, "values": measured.get(digits, {})}
        )
    found.sort(key=lambda snapshot: (snapshot["kimg"] is None, snapshot["kimg"], snapshot["file"]))
    metrics = []
    for panel in metric_panels({run.name: run.lines}):
        choose = max if parse_metric(panel.title).higher_is_better else min
        for key, _ in panel.curves:
            values = {snapshot["kimg"]: snapshot["values"][key] for snapshot in found if key in snapshot["values"]}
            if values:
                best = choose(values, key=values.__getitem__)
                metrics.append({"key": key, "name": key.removeprefix(METRIC), "best": best})
    return found, metrics


def log_tail(run: Run) -> list[str]:
    """The last lines of log.txt."""
    return run.log[-LOG_LINES:]


def pictures_by_kimg(folder: Path) -> dict[float, Path]:
    """fakesKKKKKK.png of a run, in order."""
    found = {
        float(match[1]): path
        for path in folder.glob("fakes*.png")
        if (match := _NUMBER.search(path.name)) and path.is_file()
    }
    return dict(sorted(found.items()))


def _kimg_digits(kimg: float, whole: bool) -> str:
    """kimg as snapshots' names have it, with three decimals or without."""
    return f"{int(kimg):06d}" if whole else f"{kimg:010.3f}"


def _best_kimg(path: Path) -> float | None:
    """kimg of network-best.safetensors, from its header alone."""
    import safetensors

    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            return finite_number(parse_json(file.metadata()["config"])["best"]["nimg"] / 1000)
    except (safetensors.SafetensorError, OSError, LookupError, TypeError, ValueError, OverflowError):
        return None


def _leaves(nest: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """("loop.batch", 16) and so on."""
    found: list[tuple[str, Any]] = []
    for key, value in nest.items():
        found += _leaves(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [(prefix + key, value)]
    return found


def _groups(flat: Sequence[Mapping[str, Any]], title: Any) -> list[dict[str, Any]]:
    """Rows of all runs under the titles of their first parts."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for key in dict.fromkeys(key for leaves in flat for key in leaves):
        part, _, name = key.partition(".") if "." in key else ("", "", key)
        values = [as_text(leaves[key]) if key in leaves else None for leaves in flat]
        groups.setdefault(part, []).append({"name": name, "values": values, "differs": len(set(values)) > 1})
    return [{"title": title(part), "rows": rows} for part, rows in groups.items()]


def as_text(value: Any) -> str:
    """A setting for people: 120,000; 8, 16; yes; none."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(as_text, value)) or "none"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def finite_number(value: Any) -> float | None:
    """The value if it is a finite number."""
    return value if is_finite(value) else None
