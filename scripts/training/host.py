# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What a training command needs of a host, which is a kind of model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ggdr.metrics.evaluate import Job
from ggdr.scripts.measuring.judge import SnapshotJudge
from ggdr.scripts.training.resume import Origin
from ggdr.scripts.training.settings import RunSettings
from ggdr.torch_utils.checkpoint import Snapshot
from ggdr.torch_utils.distributed import ProcessGroup
from ggdr.torch_utils.gan import Batch, GANTask


class Host(Protocol):
    """A host as commands know it; the loop knows its GANTask.

    Another one is such an object, its task, its line in HOSTS, and a command. The command, as `scripts/train.py` is
    StyleGAN2's, has the options that `prepare` reads, among them --data, --outdir and --resume, and hands them to
    `launch.run_command` with the host's name.

    Attributes:
        name:     in HOSTS, and in the files of a run.
        command:  what to type to train it.
        data:     what its data are, for whoever named none that are there.
        replaces: by option, the others that a resumed run forgets when that one is typed anew.
        compiled_on: the kinds of devices on which its networks use compiled operations; empty: there is no --ops.
        has_published: whether it starts from published networks by their names.
        network_options: parameter names of options that a run from a snapshot, whose networks it takes, refuses.
    """

    name: str
    command: str
    data: str
    replaces: Mapping[str, tuple[str, ...]]
    compiled_on: Sequence[str]
    has_published: bool
    network_options: Sequence[str]

    def prepare(self, command: Mapping[str, Any], origin: Origin, group: ProcessGroup) -> Prepared:
        """Opens the data and resolves the settings; writes nothing.

        Args:
            command: the command's options by parameter name; None where not given.
            origin:  where weights and settings come from.

        Raises:
            OptionError, DataError, SnapshotError: they cannot be used.
        """

    def build(self, settings: Any, data: Any, group: ProcessGroup) -> GANTask:
        """Freshly initialised networks, losses and optimisers; see `build_task`."""

    def batches(self, settings: Any, data: Any, group: ProcessGroup, start_nimg: int) -> Iterator[Batch]:
        """This process' shares of the data's batches, from an image count on."""

    def load_weights(self, task: Any, snapshot: Snapshot) -> list[str]:
        """Starts from the weights of a snapshot (transfer learning); returns what to tell about it.

        Raises:
            SnapshotError: it is of another architecture or size; says in which settings.
        """

    def open_judge(self, training: Mapping[str, Any], data: Any, job: Job) -> SnapshotJudge:
        """What measures snapshots of this host.

        Args:
            training: the settings of the run that they are of, as `to_json` gives them; of a snapshot of no run, or a
                      foreign one, empty or damaged.
            data:     what to compare with: a path, or `Prepared.measured`.
            job:      how to compare.

        Raises:
            DataError: the data cannot be read.
            MetricError: they do not suit the settings.
        """

    def is_fixed(self, name: str) -> bool:
        """Whether a setting, as "G.z_dim", may not change when a run is resumed."""

    def advice(self, settings: Any) -> str:
        """What to change where a loss becomes NaN or infinite."""

    def memory_trials(self, settings: Any) -> Sequence[tuple[Any, Any]]:
        """What `--batch-gpu auto` chooses from, the largest forward first.

        Each is the settings of a run, and those of a trial that takes as much memory as the run ever will. All of them
        give the same result but for rounding.
        """

    def memory_advice(self, settings: Any) -> str:
        """What to change where a GPU's memory does not suffice."""

    def summary(self, settings: Any, data: Any) -> str:
        """What is about to be trained, on what, in one line."""


def build_task(host: Host, settings: Any, data: Any, group: ProcessGroup) -> GANTask:
    """A host's task, with the first process' weights on every process."""
    task = host.build(settings, data, group)
    networks, _ = task.snapshot()
    group.broadcast_(x for state in networks.values() for x in state.values())
    return task


@dataclass
class Prepared:
    """What a host makes of the options of a command: nothing is written yet.

    Attributes:
        snapshot: whose weights a new run starts from.
        measured: what metrics are measured on, as far as it is open; None: --metrics-data or --data, which is not.
    """

    settings: RunSettings
    data: Any
    snapshot: Snapshot | None = None
    notes: list[str] = field(default_factory=list)
    measured: Any = None
