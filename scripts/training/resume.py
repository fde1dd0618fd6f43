# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What `--resume` means: an exact continuation, transfer learning, or a fresh start."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from ggdr.scripts.errors import CliError, nearest
from ggdr.scripts.importing.published import NETWORKS, network_name, snapshot_of
from ggdr.scripts.options.network import FOREIGN_SUFFIXES
from ggdr.scripts.training.run_folder import STATE_FILE, RunFolder
from ggdr.scripts.training.settings import RunSettings, differences
from ggdr.scripts.training.snapshot_files import PATTERN, SNAPSHOT_SUFFIX, snapshots_in
from ggdr.scripts.training.stored import check_state
from ggdr.torch_utils.checkpoint import Snapshot, SnapshotError, load_snapshot, load_state
from ggdr.torch_utils.untrusted.text import printable
from ggdr.translation.snapshot import model_of

# By a setting's name, its option and how many of its unit the option counts in.
_LOOP_OPTIONS = {
    "loop.total_nimg": ("kimg", 1000),
    "loop.tick_nimg": ("tick", 1000),
    "loop.snap_ticks": ("snap", 1),
    "loop.batch": ("batch", 1),
    "loop.batch_gpu": ("batch-gpu", 1),
}

Networks = TypeVar("Networks")  # what a host knows of them


@dataclass(frozen=True)
class Origin:
    """Where a run's weights come from, and which settings are those of the resumed run."""

    state_path: Path | None = None  # exact continuation
    init_snapshot: str | None = None  # transfer learning: where this run's weights came from, at its start
    stored: dict[str, Any] = field(default_factory=dict)  # training_options.json of the resumed run
    options_path: Path | None = None  # where these are from
    note: str | None = None


def host_of_run(outdir: Path, resume: str | None) -> str | None:
    """The host of the run that --resume goes on with, or whose snapshot it starts from; None if nothing says so.

    Of a snapshot of no run, as one that was imported, its networks say it.

    Raises:
        SnapshotError: the settings of the resumed run, or the snapshot, cannot be read.
    """
    if resume is None:
        return None
    path = outdir if resume == "latest" else Path(resume)
    if path.suffix == SNAPSHOT_SUFFIX and path.is_file():
        snapshot = load_snapshot(path, tensors=False)
        return host_of_snapshot(snapshot) or model_of(snapshot)
    folder = RunFolder(path.parent if path.suffix == ".pt" else path)
    return folder.read_options().get("host") if folder.has_options() else None


def host_of_snapshot(snapshot: Snapshot) -> str | None:
    """The host that trained a snapshot; None if it does not say so."""
    training = snapshot.config.get("training")
    host = training.get("host") if isinstance(training, Mapping) else None
    return host if isinstance(host, str) else None


def starting_point(
    origin: Origin, host: str, of_snapshot: Callable[[Snapshot], Networks], of_options: Callable[[], Networks]
) -> tuple[Snapshot | None, Networks | None]:
    """The snapshot that a new run starts from, and the networks of a run that starts, or once started, from one.

    Args:
        host:        of the run.
        of_snapshot: the networks of a snapshot.
        of_options:  those of the resumed run, from its stored settings; the snapshot itself may be gone by now.

    Raises:
        SnapshotError: the snapshot cannot be read, is one of another host, or lacks what it takes to train.
    """
    if origin.init_snapshot is None:
        return None, None
    if origin.state_path is not None:
        return None, of_options()
    snapshot = load_snapshot(origin.init_snapshot)
    other = host_of_snapshot(snapshot)
    if other not in (None, host):
        raise SnapshotError(f"{snapshot.path}: a snapshot of {printable(other)}, and this run is one of {host}")
    return snapshot, of_snapshot(snapshot)


def find_origin(
    outdir: Path, resume: str | None, command: str, *, has_published: bool, network_options: Sequence[str]
) -> Origin:
    """Looks at --outdir and --resume, without writing anything.

    Args:
        command:       what to type to train the host.
        has_published: whether --resume may be the name of a published network.
        network_options: as a host has them.

    Raises:
        CliError: --outdir holds a run already, or --resume names nothing to resume from.
        SnapshotError: the settings of the resumed run cannot be read.
    """
    own = RunFolder(outdir)
    if resume == "latest":
        return _latest(own, command, network_options)
    if own.has_results():
        go_on = shlex.join([*command.split(), "--outdir", str(outdir), "--resume", "latest"])
        raise CliError(f"--outdir: {outdir} already holds a run; go on with it: {go_on}; or name another folder")
    if resume is None:
        return Origin()
    path = Path(resume)
    if not path.exists():
        name = network_name(resume) if has_published else None
        if name is None:
            names = list(NETWORKS) if has_published else []
            last = f", a {PATTERN}, or one of {', '.join(names)}" if names else f" or a {PATTERN}"
            known = nearest(resume, ["latest", *names])
            raise CliError(f"--resume: {resume}: no such file; expected latest, a run folder{last}{known}")
        path = snapshot_of(name)
    if path.is_dir() or path.suffix == ".pt":
        state = path / STATE_FILE if path.is_dir() else path
        if not state.exists():
            raise CliError(f"--resume: {path} holds no {STATE_FILE} to resume from")
        if not RunFolder(state.parent).has_options() and state.name != STATE_FILE:
            hint = _import_first(path) if has_published else ""
            raise CliError(f"--resume: {path} is no {STATE_FILE} in the folder of a run{hint}")
        return _continuation(state, f"going on from {state}")
    if path.suffix in FOREIGN_SUFFIXES:
        raise CliError(f"--resume: {path} is no snapshot{_import_first(path) if has_published else ''}")
    return Origin(init_snapshot=str(path.absolute()), note=f"starting from the weights of {path}")


def _latest(own: RunFolder, command: str, network_options: Sequence[str]) -> Origin:
    """What --resume latest means in a folder."""
    if own.state_path.exists():
        return _continuation(own.state_path, None)
    snapshots = snapshots_in(own.path)
    if not own.has_options() and not snapshots:
        return Origin(note=f"no run in {own.path} to resume; starting from scratch")
    # The first state follows the first snapshot at once: where there are more, the state was removed.
    if len(snapshots) > 1 or not own.has_options():
        stored = own.read_options() if own.has_options() else {}
        anew = new_run(command, _words(stored, network_options), own.path, snapshots[-1])
        text = f"{own.path} holds snapshots, but no {STATE_FILE} to resume from"
        raise CliError(f"--resume: {text}; start another run from their weights: {anew}")
    stored = own.read_options()
    note = f"the run in {own.path} saved no state yet; starting it again"
    return Origin(init_snapshot=stored.get("init_snapshot"), stored=stored, options_path=own.options_path, note=note)


def _continuation(state_path: Path, note: str | None) -> Origin:
    folder = RunFolder(state_path.parent)
    stored = folder.read_options()
    return Origin(state_path, stored.get("init_snapshot"), stored, folder.options_path, note)


def new_run(command: str, words: Sequence[str], outdir: Path, snapshot: Path) -> str:
    """What to type to start another run with these options from a snapshot of the one in `outdir`, beside it."""
    names = (Path(f"{outdir}-{number}") for number in itertools.count(2))
    free = next(name for name in names if not name.exists())
    return shlex.join([*command.split(), *words, "--outdir", str(free), "--resume", str(snapshot)])


def _words(stored: Mapping[str, Any], network_options: Sequence[str]) -> list[str]:
    """The words of the stored command line, but where it writes to and what its networks are.

    A dataset to name, if they are damaged.
    """
    argv = stored.get("argv")
    if not isinstance(argv, list) or not all(isinstance(word, str) for word in argv):
        return ["--data", "DATASET"]
    names = [name.replace("_", "-") for name in ("outdir", *network_options)]
    left_out = {f"{dashes}{name}" for name in names for dashes in ("--", "--no-")}
    words: list[str] = []
    is_kept = True
    for word in argv:
        if word.startswith("--"):
            is_kept = word not in left_out
        if is_kept:
            words.append(word)
    return words


def _import_first(path: Path) -> str:
    command = shlex.join(["ggdr", "import-weights", str(path), "NEW.safetensors"])
    return f". Networks of others are read first: {command}, then --resume NEW.safetensors"


def load_resumed(
    state_path: Path,
    settings: RunSettings,
    device_type: str,
    is_fixed: Callable[[str], bool],
    start_from: Callable[[Path], str],
) -> tuple[dict[str, Any], list[str]]:
    """The training state, and what to tell about it.

    Args:
        is_fixed:   whether a setting, as "G.z_dim", may not change, since the state would not fit.
        start_from: what to type to start another run with these settings from a snapshot.

    Raises:
        CliError: these settings cannot go on from it; says which, and what can.
        SnapshotError: the state cannot be read.
    """
    state = load_state(state_path)
    check_state(state, state_path)
    # Settings that came later than the run are at their defaults in it.
    defaults = {each.name: each.default for each in fields(settings) if each.default is not MISSING}
    changes = differences({**defaults, **state["options"]}, settings.to_json())
    fixed = {name: change for name, change in changes.items() if is_fixed(name)}
    if fixed:
        snapshots = snapshots_in(state_path.parent)
        remedy = "leave out what asks for it"
        # A run that starts from a snapshot takes its networks as they are.
        # Several networks of the same settings, D_0 and so on, have them in one place, D.
        own = {part for name in state["task"].get("networks", ()) for part in (name, name.partition("_")[0])}
        if snapshots and not own & {name.partition(".")[0] for name in fixed}:
            remedy += f", or start another run from its weights: {start_from(snapshots[-1])}"
        raise CliError(f"--resume: a run cannot go on with another {_table(fixed)}; {remedy}")
    notes = [f"resuming {state_path} at {state['counters']['nimg'] / 1000:g} kimg"]
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
