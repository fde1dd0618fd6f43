# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Which values a run has, and how to plot them: what it declares in training_options.json, and its metrics."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ggdr.metrics.names import parse_metric
from ggdr.scripts.reports.declared import MAX_TEXT, read_declared
from ggdr.torch_utils.gan import Panel
from ggdr.torch_utils.runlog import RESERVED_KEYS
from ggdr.torch_utils.untrusted.json_text import is_finite, parse_json
from ggdr.torch_utils.untrusted.regular_files import read_lines
from ggdr.torch_utils.untrusted.text import printable, shortened

METRIC = "result/"  # what the keys of metrics begin with
AXES = ("linear", "log", "zero")
MAX_PANELS = 100  # of a run; as many of its metrics
# Metric, which value of it, and of which direction of translation.
_VALUE = re.compile(r"(.*?)(?:_(mean|std|precision|recall|density|coverage|reals))?(?:_([A-Za-z0-9]+to[A-Za-z0-9]+))?")

Lines = Sequence[Mapping[str, Any]]  # {"kimg": .., KEY: number or None, ..}, of one key by kimg


class Plot(NamedTuple):
    """The panels of one group; of unit and axis those of the first one count."""

    title: str
    panels: tuple[Panel, ...]

    @property
    def unit(self) -> str:
        return self.panels[0].unit

    @property
    def axis(self) -> str:
        return self.panels[0].axis

    @property
    def is_detail(self) -> bool:
        return all(panel.detail for panel in self.panels)

    @property
    def is_metric(self) -> bool:
        return self.panels[0].name.startswith(METRIC)


def read_panels(options: Mapping[str, Any], stats: Lines) -> tuple[list[Panel], list[str]]:
    """The panels of a run, and notes on what is wrong with them.

    A run that declares none, such as one of another tool, has a panel for each key with a number: "a/b" is "b" in the
    plot "a".

    Args:
        options: training_options.json, which anyone may have written; "panels" in it declares them.
        stats:   lines of stats.jsonl.
    """
    return read_declared(options, "panels", _panel, lambda: map(_panel_of_key, _keys_with_numbers(stats)), MAX_PANELS)


def _panel(entry: Mapping[str, Any]) -> Panel | None:
    """A panel from an entry of training_options.json; None if it is malformed."""
    name, group = entry.get("name"), entry.get("group")
    label, unit, axis = entry.get("label", name), entry.get("unit", ""), entry.get("axis", "linear")
    headline, detail = entry.get("headline", False), entry.get("detail", False)
    is_right = all(isinstance(text, str) for text in (name, group, label, unit)) and axis in AXES
    if not is_right or name.startswith(METRIC) or not (isinstance(headline, bool) and isinstance(detail, bool)):
        return None
    label, group, unit = (printable(text, MAX_TEXT) for text in (label, group, unit))
    return Panel(name, label, group, unit, headline, detail, axis)


def _panel_of_key(key: str) -> Panel:
    group, _, label = key.partition("/")
    return Panel(key, printable(label or key, MAX_TEXT), printable(group or key, MAX_TEXT))


def _keys_with_numbers(stats: Lines) -> Iterator[str]:
    """Keys of values, not of metrics, in the order in which they come up."""
    seen = set(RESERVED_KEYS)
    for line in stats:
        for key, value in line.items():
            if key not in seen and not key.startswith(METRIC) and is_finite(value):
                seen.add(key)
                yield key


def metric_panels(lines: Lines, domains: Sequence[str] = ()) -> list[Panel]:
    """A panel for each value of each metric, but standard deviations; a metric is a group, called by its name.

    Args:
        domains: names, in order, by which directions such as "AtoB" and "0to1" are called.
    """
    panels = []
    for key in dict.fromkeys(key for line in lines for key in line if key.startswith(METRIC)):
        match = _VALUE.fullmatch(key.removeprefix(METRIC))
        if match is not None and match[2] != "std" and _is_metric(match[1]):
            better = "higher" if parse_metric(match[1]).higher_is_better else "lower"
            way = match[3] and _direction(match[3], domains)
            label = " ".join(part for part in (match[2], way) if part) or match[1]
            panels.append(Panel(key, label, match[1], f"{better} is better"))
    return panels


def _direction(name: str, domains: Sequence[str]) -> str:
    """A direction in the names of its domains; as it is, where these are not known."""
    ends = name.split("to")
    numbers = [int(end) if end.isdecimal() else ord(end) - ord("A") if len(end) == 1 else -1 for end in ends]
    if len(ends) != 2 or not all(0 <= i < len(domains) for i in numbers):
        return name
    return " to ".join(shortened(domains[i]) for i in numbers)


def _is_metric(name: str) -> bool:
    try:
        parse_metric(name)
    except (ValueError, OverflowError):
        return False
    return True


def group_panels(panels: Iterable[Panel], runs: Iterable[Lines]) -> list[Plot]:
    """The plots of several runs.

    Args:
        panels: those of all runs; of a name declared twice the first one counts.
        runs:   lines of each run; what none of them has a number for is left out.
    """
    with_numbers = {key for lines in runs for line in lines for key, value in line.items() if is_finite(value)}
    known: dict[str, Panel] = {}
    for panel in panels:
        known.setdefault(panel.name, panel)
    groups: dict[str, list[Panel]] = {}
    for panel in known.values():
        if panel.name in with_numbers:
            groups.setdefault(panel.group, []).append(panel)
    return [Plot(title, tuple(members)) for title, members in groups.items()]


def read_metrics(run_dir: str | Path) -> list[dict]:
    """The lines of a run's metric-NAME.jsonl, by kimg: {"kimg": .., "result/fid50k_full": ..}.

    Of a snapshot measured twice the last line counts. Lines without kimg, of images of no run, are left out, and so
    is a last line that is only half written.

    Raises:
        ValueError: a line is no result of a metric.
        OSError:    a file cannot be read, or is larger than 64 MiB.
    """
    lines = []
    for path in sorted(path for path in Path(run_dir).glob("metric-*.jsonl") if path.is_file()):
        found = {}
        for number, text in enumerate(read_lines(path), start=1):
            try:
                record = parse_json(text)
                name, results = parse_metric(record["metric"]).name, dict(record["results"])
                kimg = record.get("kimg")
                if not (kimg is None or is_finite(kimg)):
                    raise ValueError(f"kimg {kimg!r}")
            except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
                where = f"{path.parent / printable(path.name, 255)}, line {number}"
                shown = printable(text.decode(errors="replace").rstrip(), 60)
                raise ValueError(f"{where}: expected a metric's result, got {shown!r}") from error
            if kimg is not None:
                found[kimg] = {f"{METRIC}{name}{key.removeprefix(name)}": v for key, v in results.items()}
        lines += [{"kimg": kimg, **found[kimg]} for kimg in sorted(found)]
    return lines
