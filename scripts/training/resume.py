# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What `--resume` means: an exact continuation, transfer learning, or a fresh start."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ggdr.scripts.errors import CliError
from ggdr.scripts.importing.published import NETWORKS, network_name, snapshot_of
from ggdr.scripts.options.network import FOREIGN_SUFFIXES
from ggdr.scripts.training.run_folder import STATE_FILE, RunFolder
from ggdr.scripts.training.settings import RunSettings, differences
from ggdr.torch_utils.checkpoint import load_state
from ggdr.torch_utils.untrusted.text import printable

_IMPORT = "Networks of others are read first: ggdr import-weights {path} NEW.safetensors, then --resume NEW.safetensors"

# By a setting's name, its option and how many of its unit the option counts in.
_LOOP_OPTIONS = {
    "loop.total_nimg": ("kimg", 1000),
    "loop.tick_nimg": ("tick", 1000),
    "loop.snap_ticks": ("snap", 1),
    "loop.batch": ("batch", 1),
    "loop.batch_gpu": ("batch-gpu", 1),
}


@dataclass(frozen=True)
class Origin:
    """Where a run's weights come from, and which settings are those of the resumed run."""

    state_path: Path | None = None  # exact continuation
    init_snapshot: str | None = None  # transfer learning: where this run's weights came from, at its start
    stored: dict[str, Any] = field(default_factory=dict)  # training_options.json of the resumed run
    note: str | None = None


def find_origin(outdir: Path, resume: str | None) -> Origin:
    """Looks at --outdir and --resume, without writing anything.

    Raises:
        CliError: --outdir holds a run already, or --resume names nothing to resume from.
        SnapshotError: the settings of the resumed run cannot be read.
    """
    own = RunFolder(outdir)
    if resume == "latest":
        if own.state_path.exists():
            return _continuation(own.state_path, None)
        if own.has_results():
            raise CliError(f"--resume: {outdir} holds snapshots, but no {STATE_FILE} to resume from")
        if not own.has_options():
            return Origin(note=f"no run in {outdir} to resume; starting from scratch")
        stored = own.read_options()
        note = f"the run in {outdir} saved no state yet; starting it again"
        return Origin(init_snapshot=stored.get("init_snapshot"), stored=stored, note=note)
    if own.has_results():
        raise CliError(f"--outdir: {outdir} already holds a run; go on with --resume latest, or name another folder")
    if resume is None:
        return Origin()
    path = Path(resume)
    if not path.exists():
        name = network_name(resume)
        if name is None:
            expected = f"latest, a run folder, a network-snapshot-*.safetensors, or one of {', '.join(NETWORKS)}"
            raise CliError(f"--resume: {resume}: no such file; expected {expected}")
        path = snapshot_of(name)
    if path.is_dir() or path.suffix == ".pt":
        state = path / STATE_FILE if path.is_dir() else path
        if not state.exists():
            raise CliError(f"--resume: {path} holds no {STATE_FILE} to resume from")
        if not RunFolder(state.parent).has_options():
            raise CliError(f"--resume: {path} is no {STATE_FILE} in the folder of a run. {_IMPORT.format(path=path)}")
        return _continuation(state, f"going on from {state}")
    if path.suffix in FOREIGN_SUFFIXES:
        raise CliError(f"--resume: {path} is no snapshot. {_IMPORT.format(path=path)}")
    return Origin(init_snapshot=str(path.absolute()), note=f"starting from the weights of {path}")


def _continuation(state_path: Path, note: str | None) -> Origin:
    stored = RunFolder(state_path.parent).read_options()
    return Origin(state_path, stored.get("init_snapshot"), stored, note)


def load_resumed(
    state_path: Path, settings: RunSettings, device_type: str, is_fixed: Callable[[str], bool]
) -> tuple[dict[str, Any], list[str]]:
    """The training state, and what to tell about it.

    Args:
        is_fixed: whether a setting, as "G.z_dim", may not change, since the state would not fit.

    Raises:
        CliError: these settings cannot go on from it; says which.
        SnapshotError: the state cannot be read.
    """
    state = load_state(state_path)
    changes = differences(state["options"], settings.to_json())
    fixed = {name: change for name, change in changes.items() if is_fixed(name)}
    if fixed:
        raise CliError(
            f"--resume: a run cannot go on with another {_table(fixed)}; to start from its weights give a snapshot "
            "(--resume network-snapshot-*.safetensors) and another --outdir"
        )
    notes = [f"resuming {state_path} at {state['counters']['nimg'] / 1000:.1f} kimg"]
    if changes:
        notes.append(f"settings that differ from the resumed run: {_table(changes)}")
    if state["device_type"] != device_type:
        notes.append("random numbers go on differently: the state was saved on another type of device")
    return state, notes


def _table(changes: Mapping[str, tuple[Any, Any]]) -> str:
    return "; ".join(_change(name, old, new) for name, (old, new) in changes.items())


def _change(name: str, old: Any, new: Any) -> str:
    """One changed setting: kimg 0.1 -> 0.2; ggdr: weight 10 -> 5; ggdr: guide_res 8, weight 10 -> off."""
    if name in _LOOP_OPTIONS:
        name, unit = _LOOP_OPTIONS[name]
        old, new = (value / unit if isinstance(value, (int, float)) else value for value in (old, new))
    part, _, rest = name.partition(".")
    if part != "regularizers":
        return f"{printable(name)} {_as_text(old)} -> {_as_text(new)}"
    regularizer, _, setting = printable(rest).partition(".")
    old, new = ("off" if value is None else _as_text(value) for value in (old, new))
    return f"{regularizer}: {setting} {old} -> {new}" if setting else f"{regularizer}: {old} -> {new}"


def _as_text(value: Any) -> str:
    """A setting without Python's brackets and quotes."""
    if isinstance(value, Mapping):
        return ", ".join(f"{printable(name)} {_as_text(item)}" for name, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_as_text, value)) or "none"
    if isinstance(value, float):
        return f"{value:.10g}"
    return "none" if value is None else printable(value)
