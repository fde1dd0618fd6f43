# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What a run folder says of its run: status, settings, machine and snapshots, as plain data. Writes nothing."""

from __future__ import annotations

import re
import shlex
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ggdr.metrics.names import parse_metric
from ggdr.scripts.reports.panels import MAX_PANELS, METRIC, metric_panels, read_metrics, read_panels
from ggdr.scripts.reports.picture_kinds import PictureKind, read_picture_kinds
from ggdr.scripts.training.run_folder import OPTIONS_FILE, RunFolder
from ggdr.torch_utils.checkpoint import SnapshotError, load_snapshot
from ggdr.torch_utils.gan import Panel
from ggdr.torch_utils.runlog import SPEED_KEY, STATS_FILE, read_stats
from ggdr.torch_utils.untrusted.json_text import is_finite
from ggdr.torch_utils.untrusted.regular_files import read_tail

RATE_TICKS = 20  # so many last ticks say how fast a run is
LOG_LINES = 40
# What training_options.json holds beside settings.
NO_SETTINGS = ("program", "argv", "command", "history", "versions", "hardware", "device", "panels", "pictures")
_NUMBER = re.compile(r"(\d+(?:\.\d+)?)\.safetensors$")

Leaves = dict[tuple[str, ...], Any]  # settings by the path to them


@dataclass(frozen=True)
class Run:
    """One run, as far as its folder tells.

    Attributes:
        name:     what readers call it.
        lines:    {"kimg": .., KEY: number or None, ..} of stats.jsonl and of metrics; each by kimg.
        options:  training_options.json; empty if there is none.
        panels:   its values, as it declares them.
        metrics:  those of its metrics.
        pictures: its kinds of pictures.
        log:      the last lines of log.txt.
        in_use:   whether a process trains in it; None if that is unknown.
        written:  Unix time of its last sign of life.
        notes:    what could not be read.
    """

    name: str
    path: Path
    lines: list[dict[str, Any]]
    options: dict[str, Any]
    panels: list[Panel]
    metrics: list[Panel]
    pictures: list[PictureKind]
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
        notes.append(f"{path / OPTIONS_FILE}: not there; settings are unknown, and every value has a curve")
    panels, panel_notes = read_panels(options, stats)
    pictures, picture_notes = read_picture_kinds(options, path)
    notes += [f"{path}: {note}" for note in panel_notes + picture_notes]
    log_path = path / "log.txt"
    # The page shows its last lines, which must not be those of a file elsewhere that a link names.
    is_own = log_path.is_file() and log_path.resolve().parent == path.resolve()
    log = read_tail(log_path).splitlines()[-LOG_LINES:] if is_own else []
    written = max(file.stat().st_mtime for file in (path / STATS_FILE, log_path) if file.is_file())
    metrics = read_metrics(path)
    measured = metric_panels(metrics, _domains(options))
    if len(measured) > MAX_PANELS:
        notes.append(f"{path}: of {len(measured)} values of metrics the first {MAX_PANELS} are shown")
    known = (panels, measured[:MAX_PANELS], pictures)
    return Run(name, path, stats + metrics, options, *known, log, in_use, written, notes)


def _domains(options: Mapping[str, Any]) -> list[str]:
    """Names of a translator's domains, in order; none if it has no such."""
    data = options.get("data")
    names = data.get("domains") if isinstance(data, Mapping) else None
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else []


def status(run: Run) -> dict[str, Any]:
    """How far a run is, and how fast.

    Returns:
        state:        "finished", "running", "stopped", or "unfinished" where nobody can tell which of the last two.
        kimg, total:  done and to be done; total is None if unknown.
        sec_per_kimg: median of the last ticks; None before the first one is over.
        left, spent:  seconds of training to come (of a run that goes on, else None) and done, without snapshots
                      and metrics.
    """
    ticks = [line for line in run.lines if finite_number(line.get(SPEED_KEY)) is not None]
    kimg = max((line["kimg"] for line in run.lines if "nimg" in line), default=0)
    total = finite_number(_part(run, "loop").get("total_nimg"))
    total = None if total is None else total / 1000
    state = {True: "running", False: "stopped", None: "unfinished"}[run.in_use]
    if total is not None and kimg >= total:
        state = "finished"
    rates = [line[SPEED_KEY] for line in ticks]
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
    flat = [_leaves({name: value for name, value in run.options.items() if name not in NO_SETTINGS}) for run in runs]
    return _groups(flat, lambda part: _title(part) if part else "Run")


def machines(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Hardware and versions of all runs, in groups as those of `settings`."""
    return _groups([_machine(run) for run in runs], " ".join)


def _part(run: Run, name: str) -> Mapping[str, Any]:
    """A part of training_options.json; empty if there is none."""
    part = run.options.get(name)
    return part if isinstance(part, Mapping) else {}


def _machine(run: Run) -> Leaves:
    """What the run's last process wrote, as far as it did."""
    device, hardware, found = _part(run, "device"), _part(run, "hardware"), {}
    if "type" in device:
        found["Hardware", "trained on"] = "GPU" if device["type"] == "cuda" else as_text(device["type"]).upper()
    if "processes" in device:
        found["Hardware", "processes"] = device["processes"]
    if hardware:
        gib = finite_number(hardware.get("memory_gib"))
        found |= {("Hardware", "processor"): hardware.get("cpu"), ("Hardware", "cores"): hardware.get("cores")}
        found["Hardware", "memory"] = None if gib is None else f"{gib:g} GiB"
        gpus = hardware.get("gpus", [])
        for i, gpu in enumerate(gpus if isinstance(gpus, list) else []):
            if isinstance(gpu, Mapping):
                found["Hardware", f"GPU {i}"] = f"{gpu.get('name')}, {gpu.get('memory_gib')} GiB"
    found |= {("Software", name): version for name, version in _part(run, "versions").items()}
    if "operations" in device:
        found["Software", "operations"] = device["operations"]
    return found


def command_line(run: Run) -> str | None:
    """The `ggdr train` or other command that was typed, ready for a shell; None if it is unknown."""
    argv, program = run.options.get("argv"), run.options.get("program", "ggdr train")
    if not isinstance(argv, list) or not all(isinstance(word, str) for word in (program, *argv)):
        return None
    return shlex.join([*program.split(), *argv])


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
            measured.setdefault(_kimg_digits(line["kimg"]), {}).update(values)
    for digits in sorted(measured):  # where two have one whole number, it is the name of the first
        measured.setdefault(digits.partition(".")[0], measured[digits])
    found = []
    for path in sorted(path for path in run.path.glob("network-*.safetensors") if path.is_file()):
        match = _NUMBER.search(path.name)
        kimg = float(match[1]) if match else _best_kimg(path)
        digits = match[1] if match else "" if kimg is None else _kimg_digits(kimg)
        found.append(
            {"file": path.name, "bytes": path.stat().st_size, "kimg": kimg, "values": measured.get(digits, {})}
        )
    found.sort(key=lambda snapshot: (snapshot["kimg"] is None, snapshot["kimg"], snapshot["file"]))
    metrics = []
    for panel in run.metrics:
        key, choose = panel.name, max if parse_metric(panel.group).higher_is_better else min
        values = {snapshot["kimg"]: snapshot["values"][key] for snapshot in found if key in snapshot["values"]}
        if values:
            best = choose(values, key=values.__getitem__)
            metrics.append({"key": key, "name": key.removeprefix(METRIC), "best": best})
    return found, metrics


def _kimg_digits(kimg: float) -> str:
    """kimg as snapshots' names have it that have three decimals."""
    return f"{kimg:010.3f}"


def _best_kimg(path: Path) -> float | None:
    """kimg of network-best.safetensors."""
    try:
        return finite_number(load_snapshot(path, tensors=False).config["best"]["nimg"] / 1000)
    except (SnapshotError, LookupError, TypeError, OverflowError):
        return None


def _leaves(nest: Mapping[str, Any], path: tuple[str, ...] = ()) -> Leaves:
    """By its path, everything in nested dicts that is no dict, or an empty one."""
    found: Leaves = {}
    for key, value in nest.items():
        found |= _leaves(value, (*path, key)) if isinstance(value, Mapping) and value else {(*path, key): value}
    return found


def _groups(flat: Sequence[Leaves], title: Callable[[tuple[str, ...]], str]) -> list[dict[str, Any]]:
    """Rows of all runs, those of one dict under one title."""
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for path in dict.fromkeys(path for leaves in flat for path in leaves):
        values = [as_text(leaves[path]) if path in leaves else None for leaves in flat]
        groups.setdefault(path[:-1], []).append({"name": path[-1], "values": values, "differs": len(set(values)) > 1})
    return [{"title": title(part), "rows": rows} for part, rows in groups.items()]


def _title(part: tuple[str, ...]) -> str:
    """("regularizers", "ggdr") as "Regularizers: ggdr"."""
    text = ": ".join(part).replace("_", " ")
    return text[:1].upper() + text[1:]


def as_text(value: Any) -> str:
    """A setting for people: 120,000; 8, 16; yes; none."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(as_text, value)) or "none"
    if isinstance(value, Mapping):
        return "; ".join(f"{name} {as_text(item)}" for name, item in value.items()) or "none"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def finite_number(value: Any) -> float | None:
    """The value if it is a finite number."""
    return value if is_finite(value) else None
