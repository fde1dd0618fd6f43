# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What is known about a network: from its snapshot, and from the folder of its run. Nothing is guessed."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

from ggdr.torch_utils.untrusted.json_text import parse_json
from ggdr.torch_utils.untrusted.regular_files import read_lines

if TYPE_CHECKING:
    from ggdr.scripts.reports.read_run import Run
    from ggdr.stylegan2.config import DiscriminatorConfig, GeneratorConfig
    from ggdr.torch_utils.checkpoint import Snapshot
    from ggdr.torch_utils.gan import Panel
    from ggdr.translation.config import NetworkConfig
    from ggdr.translation.translator import Translator

FILE_KEYS = (
    "path",
    "file",
    "init_snapshot",
    "network",
)  # settings that name a file; what lies in front of the name is private


@dataclass(frozen=True)
class Facts:
    """What a model card can say.

    Attributes:
        file:       name of the snapshot.
        sha256:     of its content.
        G, D:       settings of a StyleGAN2's networks; D is None if it does not hold one, and both for a translator.
        parameters: by network: "G", "D"; what is trained of them.
        networks:   state dicts in the snapshot.
        config:     all that the snapshot says, without the folders of files.
        nimg:       images that it was trained on; None if unknown.
        run:        name of the run's folder; None if there is none.
        seconds:    of training up to it, without snapshots and metrics.
        reported:   the values that its run declares as headlines, as they were when it was written.
        machine:    ("processor", "...") and so on.
        metrics:    lines of metric-NAME.jsonl about it; their choices, and "fakes" and "reals" in these, are dicts,
                    and their warnings a list of texts.
        translator: what a snapshot of image translation holds, without weights of use; None for a StyleGAN2.
        configs:    settings of its networks by name.
    """

    file: str
    sha256: str
    G: GeneratorConfig | None
    D: DiscriminatorConfig | None
    parameters: dict[str, int]
    networks: list[str]
    config: dict[str, Any]
    nimg: int | None
    run: str | None = None
    seconds: float | None = None
    reported: list[tuple[Panel, float]] = field(default_factory=list)
    machine: list[tuple[str, str]] = field(default_factory=list)
    metrics: list[dict[str, Any]] = field(default_factory=list)
    translator: Translator | None = None
    configs: dict[str, NetworkConfig] = field(default_factory=dict)

    @property
    def has_ggdr(self) -> bool:
        """Whether the discriminator was regularised; a decoder of weight 0 only looked on."""
        from ggdr.scripts.reports.read_run import finite_number

        weight = finite_number(self.part("training", "regularizers", "ggdr").get("weight"))
        return any(name.partition("_")[0] == "ggdr" for name in self.networks) if weight is None else weight > 0

    def title(self, chosen: str | None) -> str:
        """The heading of a card: as chosen, of the run, or of the file."""
        return chosen or self.run or self.file.removesuffix(".safetensors")

    def nested(self, *names: str) -> Mapping[str, Any] | None:
        """A nested part of `config`; None if it is not there."""
        found: Any = self.config
        for name in names:
            found = found.get(name) if isinstance(found, Mapping) else None
        return found if isinstance(found, Mapping) else None

    def part(self, *names: str) -> dict[str, Any]:
        """The plain values and lists of a nested part of `config`; empty if it is not there."""
        found = self.nested(*names) or {}
        return {name: value for name, value in found.items() if value is None or is_plain(value)}


def read_facts(snapshot: Snapshot, run_dir: Path | None = None) -> Facts:
    """Everything about a snapshot.

    Args:
        snapshot: as read from its file.
        run_dir:  folder of its run; None: the one that it lies in, if that is a run's.

    Raises:
        SnapshotError: it holds no generator of StyleGAN2 and no translator.
        ValueError: `run_dir` is no run's folder, or a line of its stats or metrics cannot be read.
        OSError: a file cannot be read.
    """
    from ggdr.scripts.reports.read_run import read_run
    from ggdr.torch_utils.downloads import sha256_of
    from ggdr.torch_utils.runlog import STATS_FILE
    from ggdr.torch_utils.snapshot_kinds import holds_translator

    networks = _of_translator(snapshot) if holds_translator(snapshot.config) else _of_stylegan2(snapshot)
    sha256, nimg = sha256_of(snapshot.path), snapshot.nimg
    known = dict(networks=sorted(snapshot.networks), config=public(snapshot.config), nimg=nimg)
    facts = Facts(snapshot.path.name, sha256, **networks, **known)

    folder = run_dir or snapshot.path.parent
    if run_dir is None and not (folder / STATS_FILE).is_file():
        return facts
    run = read_run(folder, folder.resolve().name)
    of_run: dict[str, Any] = {"run": run.name, "machine": _machine(run), "metrics": _metrics(folder, nimg, sha256)}
    if nimg is not None:
        of_run["seconds"], of_run["reported"] = _at(run, nimg)
    return Facts(**{**vars(facts), **of_run})


def _of_stylegan2(snapshot: Snapshot) -> dict[str, Any]:
    """Settings and parameters of G and D."""
    from ggdr.stylegan2.config import DiscriminatorConfig, GeneratorConfig
    from ggdr.stylegan2.discriminator import Discriminator
    from ggdr.stylegan2.generator import Generator
    from ggdr.stylegan2.snapshot import config_from_snapshot
    from ggdr.torch_utils.restore import ShapesOnly

    configs: dict[str, Any] = {"G": config_from_snapshot(snapshot, "G", GeneratorConfig)}
    if "D" in snapshot.networks:
        configs["D"] = config_from_snapshot(snapshot, "D", DiscriminatorConfig)
    with ShapesOnly():
        nets = {name: {"G": Generator, "D": Discriminator}[name](config) for name, config in configs.items()}
    parameters = {name: sum(x.numel() for x in net.parameters()) for name, net in nets.items()}
    return {"G": configs["G"], "D": configs.get("D"), "parameters": parameters}


def _of_translator(snapshot: Snapshot) -> dict[str, Any]:
    """A translator, and settings and parameters of its networks."""
    from ggdr.torch_utils.checkpoint import SnapshotError
    from ggdr.torch_utils.restore import ShapesOnly
    from ggdr.translation.config import config_from_json
    from ggdr.translation.networks import build_network
    from ggdr.translation.snapshot import translator_of

    translator = translator_of(snapshot)
    try:
        stored = {name: snapshot.config[name] for name in snapshot.networks if name in snapshot.config}
        configs = {name: config_from_json(settings) for name, settings in stored.items()}
    except ValueError as error:
        raise SnapshotError(f"{snapshot.path}: {error}") from error
    with ShapesOnly():
        nets = {name: build_network(config) for name, config in configs.items()}
    parameters = {name: sum(x.numel() for x in net.parameters()) for name, net in nets.items()}
    return {"G": None, "D": None, "parameters": parameters, "translator": translator, "configs": configs}


def public(settings: Any, key: str = "") -> Any:
    """Settings without the folders of files, which say who made them and where: only the names are left."""
    if isinstance(settings, Mapping):
        return {name: public(value, str(name)) for name, value in settings.items()}
    if isinstance(settings, (list, tuple)):
        return [public(value, key) for value in settings]
    if not isinstance(settings, str) or "://" in settings:
        return settings
    is_path = key in FILE_KEYS or re.match(r"(/|\\|~|\.{1,2}[/\\]|[A-Za-z]:[/\\])", settings)
    return file_name(settings) if is_path else settings


def is_plain(value: Any) -> bool:
    """Whether a value of JSON is a text, a number or a truth value, or a list of these."""
    if isinstance(value, list):
        return all(isinstance(item, (str, int, float)) for item in value)
    return isinstance(value, (str, int, float))


def file_name(path: str) -> str:
    """The last part of a path of any system."""
    return PurePosixPath(PureWindowsPath(path).as_posix()).name


def _at(run: Run, nimg: int) -> tuple[float | None, list[tuple[Panel, float]]]:
    """Seconds of training up to a snapshot, and the values that headline the run then; none if that is unknown."""
    from ggdr.scripts.reports.read_run import finite_number
    from ggdr.torch_utils.runlog import SPEED_KEY

    seconds, last = 0.0, None
    for line in run.lines:
        rate = finite_number(line.get(SPEED_KEY))
        if rate is not None and line["kimg"] * 1000 <= nimg + 0.5:
            seconds += rate * (line["kimg"] - (last["kimg"] if last else 0))
            last = line
    # A snapshot in the middle of a tick has no line of its own.
    if last is None or last["kimg"] * 1000 < 0.9 * nimg or last["kimg"] <= 0:
        return None, []
    reported = [
        (panel, last[panel.name])
        for panel in run.panels
        if panel.headline and finite_number(last.get(panel.name)) is not None
    ]
    return seconds * nimg / 1000 / last["kimg"], reported


def _machine(run: Run) -> list[tuple[str, str]]:
    """What the run wrote about its machine and its software."""
    from ggdr.scripts.reports.read_run import machines

    rows = [row for group in machines([run]) for row in group["rows"]]
    return [(row["name"], row["values"][0]) for row in rows if row["values"][0] not in (None, "none")]


def _metrics(folder: Path, nimg: int | None, sha256: str) -> list[dict[str, Any]]:
    """The results of one snapshot in metric-*.jsonl; of one measured twice in the same way, the last."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(path for path in folder.glob("metric-*.jsonl") if path.is_file()):
        for line in read_lines(path):
            record = _measured(public(parse_json(line)))
            choices, fakes = record["choices"], record["choices"]["fakes"]
            if fakes.get("sha256") == sha256[:16] or (nimg is not None and record.get("nimg") == nimg):
                how = [choices.get(key) for key in ("mode", "seed", "detector", "reals")]
                how += [fakes.get(key) for key in ("psi", "noise_mode", "seed")]
                found[json.dumps([record["metric"], *how], sort_keys=True)] = record
    return list(found.values())


def _measured(record: dict[str, Any]) -> dict[str, Any]:
    """A line of metric-NAME.jsonl, of whose metric and results `read_run` is sure; what else is odd is left out."""
    choices, warnings = _mapping(record.get("choices")), record.get("warnings")
    parts = {name: _mapping(choices.get(name)) for name in ("fakes", "reals")}
    texts = [text for text in warnings if isinstance(text, str)] if isinstance(warnings, list) else []
    return {**record, "choices": {**choices, **parts}, "warnings": texts}


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
