# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""From the options of a training command to a run that can start."""

from __future__ import annotations

import json
import shlex
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from ggdr.scripts.errors import CliError
from ggdr.scripts.importing.published import network_name
from ggdr.scripts.options.parameters import typed_words
from ggdr.scripts.options.segmenter import is_code
from ggdr.scripts.training import regularizers
from ggdr.scripts.training.host import Host
from ggdr.scripts.training.hosts import HOSTS
from ggdr.scripts.training.resume import Origin, find_origin, load_resumed, new_run
from ggdr.scripts.training.run_folder import RunFolder
from ggdr.scripts.training.settings import RunSettings
from ggdr.scripts.training.stored import checked_options
from ggdr.torch_utils.checkpoint import Snapshot
from ggdr.torch_utils.distributed import ProcessGroup
from ggdr.torch_utils.untrusted.text import printable

# Options that say where a run lives and how this process runs it, not what it computes.
PER_PROCESS = ("outdir", "resume", "dry_run", "device", "ops", "dist_timeout")


@dataclass
class RunPlan:
    """A run that can start; nothing is written yet.

    Attributes:
        version:  of the run folder, when it was looked at.
        command:  the options by parameter name, with those of a resumed run where none are given.
        data:     the training set, as the host opened it; `measured` is what metrics are measured on.
        resume:   the state to go on from, or None; `state_path` is where it is from.
        snapshot: whose weights a new run starts from, or None.
        history:  what was told of earlier starts of this run.
        notes:    what to tell now.
    """

    host: Host
    folder: RunFolder
    version: tuple[Any, ...]
    command: dict[str, Any]
    settings: RunSettings
    data: Any
    measured: Any
    resume: dict[str, Any] | None
    state_path: Path | None
    snapshot: Snapshot | None
    history: list[str]
    notes: list[str]

    @property
    def start_nimg(self) -> int:
        return 0 if self.resume is None else self.resume["counters"]["nimg"]

    def settings_text(self) -> str:
        """The settings as JSON."""
        return json.dumps(self.settings.to_json(), indent=2)


def resolve_run(host_name: str, command: Mapping[str, Any], given: Collection[str], group: ProcessGroup) -> RunPlan:
    """Looks at the data, at the run folder, and at what is resumed; to be called on every process.

    Args:
        command: all options by parameter name.
        given:   names of those that were typed; they come before those of a resumed run.

    Raises:
        click.ClickException: an option's value cannot be used, or processes found different files.
        OptionError, DataError, SnapshotError: as in `scripts.errors.cli_errors`.
    """
    host = HOSTS[host_name]
    _check_data(command["data"], command["resume"], host)
    folder = RunFolder(command["outdir"])
    version = folder.version()  # before anything in it is read
    origin = find_origin(
        command["outdir"],
        command["resume"],
        host.command,
        has_published=host.has_published,
        network_options=host.network_options,
    )
    left_out = {*PER_PROCESS, *regularizers.CODE}
    stored = {k: v for k, v in origin.stored.get("command", {}).items() if k in command and k not in left_out}
    if is_code(stored.get("segmenter")):
        del stored["segmenter"]
    if origin.stored.get("host", host.name) != host.name:
        raise _other_host(host, origin, command)
    replaces = {**host.replaces, **regularizers.REPLACES}
    replaced = {name for option in given for name in replaces.get(option, ())}
    if {*regularizers.REPLACES} & {*given}:
        replaced |= regularizers.options_of_others(command)
    stored = {k: v for k, v in stored.items() if k not in {*replaced, *given}}
    stored = checked_options(stored, command, origin.options_path)
    command = {**command, **stored}
    if command["data"] is None:
        if command["resume"] == "latest" and origin.options_path is None:
            where = command["outdir"]
            raise CliError(f"--resume: there is no run in {where} to go on with; give --data to start one")
        raise _missing_data()
    command["data"] = Path(command["data"]).absolute()
    if command.get("metrics_data") is not None:
        command["metrics_data"] = Path(command["metrics_data"]).absolute()
        if not command["metrics_data"].exists():
            gone = printable(command["metrics_data"], 1000)
            raise CliError(f"--metrics-data: {gone}: no such file or folder; {host.data}")
    if isinstance(command.get("segmenter"), Path):
        command["segmenter"] = command["segmenter"].absolute()
    if "data" in stored and "data" not in given and not command["data"].exists():
        gone = printable(command["data"], 1000)
        raise CliError(f"--data: {gone}, which the resumed run was trained on, is gone; name it anew")
    prepared = host.prepare(command, origin, group)
    resume, notes = None, [*([] if origin.note is None else [origin.note]), *prepared.notes]
    if origin.state_path is not None:
        resume, resume_notes = load_resumed(
            origin.state_path,
            prepared.settings,
            group.device.type,
            lambda name: host.is_fixed(name) or regularizers.is_fixed(name),
            lambda snapshot: new_run(host.command, _typed_anew(command, host), command["outdir"], snapshot),
        )
        notes += resume_notes
    plan = RunPlan(
        host=host,
        folder=folder,
        version=version,
        command=command,
        settings=prepared.settings,
        data=prepared.data,
        measured=prepared.measured or command.get("metrics_data") or command["data"],
        resume=resume,
        state_path=origin.state_path,
        snapshot=None if resume is not None else prepared.snapshot,
        history=list(origin.stored.get("history", [])),
        notes=notes,
    )
    # Also a barrier: after it the run folder may change.
    if not group.agrees(f"{plan.settings_text()} {plan.start_nimg}"):
        raise CliError("--outdir, --data: processes found different things there; all need the same files")
    return plan


def _typed_anew(command: Mapping[str, Any], host: Host) -> list[str]:
    """The words that give a command these options, without those of where it runs and of what a snapshot says."""
    context = click.get_current_context(silent=True)
    left_out = ("outdir", "resume", "dry_run", *host.network_options)
    return [] if context is None else typed_words(context.command, command, leave_out=left_out)


def _other_host(host: Host, origin: Origin, command: Mapping[str, Any]) -> CliError:
    """Of a run to resume that another command, or another model's, trained."""
    name = origin.stored["host"]
    text = f"the run is one of {printable(name)}, and this command trains {host.name}"
    other = HOSTS.get(name) if isinstance(name, str) else None
    if other is not None:
        words = [*other.command.split(), "--outdir", str(command["outdir"]), "--resume", command["resume"]]
        text += f"; go on with it: {shlex.join(words)}"
    return CliError(f"--resume: {origin.options_path.parent}: {text}")


def _check_data(data: Path | None, resume: str | None, host: Host) -> None:
    """Refuses a dataset that is not there, before the network that --resume names is downloaded."""
    is_name = resume is not None and host.has_published and network_name(resume) and not Path(resume).exists()
    if data is None and is_name:
        raise _missing_data()
    if data is not None and not data.exists():
        raise CliError(f"--data: {data}: no such file or folder; {host.data}")


def _missing_data() -> click.UsageError:
    """Of a run whose dataset neither the command line nor a resumed run names."""
    return click.UsageError("Missing option '--data': the dataset to train on.", click.get_current_context(silent=True))
