# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What all models of `ggdr translate train` have in common as training commands know them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

import torch
from torch import nn

from ggdr.scripts.errors import OptionError
from ggdr.scripts.measuring.translation_data import Source
from ggdr.scripts.measuring.translation_judge import default_metrics
from ggdr.scripts.options.training import NO_METRICS
from ggdr.scripts.options.translation import COMBOGAN_BLOCKS, parse_domains, refuse_other_models
from ggdr.scripts.training.regularizers import build_regularizers, load_networks
from ggdr.scripts.training.resume import Origin, starting_point
from ggdr.scripts.training.settings import precision_note, safer_precision
from ggdr.scripts.training.settings_translation import Circumstances, TranslationSettings
from ggdr.torch_utils.checkpoint import Snapshot
from ggdr.torch_utils.data.image_files import DataError
from ggdr.torch_utils.distributed import ProcessGroup
from ggdr.torch_utils.gan import Batch
from ggdr.torch_utils.regularizers import Attachment, Regularizers
from ggdr.torch_utils.untrusted.text import printable
from ggdr.translation.config import NetworkConfig
from ggdr.translation.data.datasets import TranslationDataset, UnpairedImages
from ggdr.translation.data.loader import TranslationLoader
from ggdr.translation.data.measured import HeldOut
from ggdr.translation.host import TranslationHost
from ggdr.translation.label_maps import to_input
from ggdr.translation.layers import COMPILED_ON, init_weights
from ggdr.translation.networks import build_network
from ggdr.translation.snapshot import network_configs

# Which networks that a run takes from a snapshot have no use for.
NETWORK_OPTIONS = ("generator", "channels", "downs", "blocks", "norm", "dropout", "d_layers")
NETWORK_OPTIONS += COMBOGAN_BLOCKS
MOST_NAMED = 6  # domains in a message

Networks = dict[str, NetworkConfig]  # by the names that snapshots have


class TranslationModel:
    """The part of `scripts.training.host.Host` that does not depend on the model; a subclass has the rest.

    Attributes:
        networks: which kinds of networks it has, by the names that settings have.
        has_pairs: whether its data are pairs.
        has_image_statistics: whether batch norms see one image at a time once it is trained.
        fixed:    what the names of settings begin with that may not change when a run is resumed, beside networks.
    """

    name: str
    networks: Mapping[str, tuple[type[NetworkConfig], ...]]
    has_pairs: bool
    has_image_statistics = True
    fixed: tuple[str, ...]

    command = "ggdr translate train"
    replaces = {"kimg": ("epochs",), "epochs": ("kimg",), "generator": ("downs", "blocks")}
    compiled_on = COMPILED_ON
    has_published = False
    network_options = NETWORK_OPTIONS

    def attachments(self, networks: Mapping[str, nn.Module], resolution: int) -> dict[str, Attachment]:
        """Where regularisers take hold, by what their weights' names end in."""
        raise NotImplementedError

    def init_network(self, name: str, net: nn.Module, settings: Any, rng: torch.Generator) -> None:
        """Draws the first weights of a network, which snapshots have by that name."""
        init_weights(net, rng)

    def make_task(
        self,
        networks: Mapping[str, nn.Module],
        regularizers: Mapping[str, Regularizers],
        settings: Any,
        data: Any,
        group: ProcessGroup,
    ) -> TranslationHost:
        """The task of these networks, with its pictures."""
        raise NotImplementedError

    def open_held_out(self, command: Mapping[str, Any], source: Source) -> HeldOut:
        """The images that metrics are measured on; raises as `open_judge` does."""
        raise NotImplementedError

    def count_measured(self, measured: Any, data: Any) -> tuple[int, int]:
        """Images, or pairs, of the smallest domain that metrics are measured on, and how many directions there are.

        Args:
            measured: the dataset that metrics are measured on.
            data:     the training set.
        """
        raise NotImplementedError

    def default_metrics(self, num_images: int, num_directions: int) -> str:
        """What is measured if the options do not say it, on so many images; see `count_measured`."""
        return default_metrics(num_images, num_directions, has_pairs=self.has_pairs, has_cycle=not self.has_pairs)

    def measured(self, command: Mapping[str, Any], data: TranslationDataset) -> Source:
        """What metrics are measured on; opened where there are any, else as far as the data are open.

        Raises:
            DataError, OptionError: it cannot be read, or is not of the kind of the training set.
        """
        source = command["metrics_data"] or data.container
        if command["metrics"] == NO_METRICS:
            return source
        held_out = self.open_held_out(command, source)
        for what, got, expected in zip(("inputs", "targets"), held_out.dataset.sides, data.sides, strict=True):
            if (got.is_numbered, got.channels) != (expected.is_numbered, expected.channels):
                raise OptionError(
                    "--data" if command["metrics_data"] is None else "--metrics-data",
                    f"{printable(held_out.dataset.path, 1000)}: the {what} that metrics are measured on are "
                    f"{got.kind}, expected {expected.kind}, as in training",
                )
        return held_out

    def circumstances(
        self,
        origin: Origin,
        group: ProcessGroup,
        data: TranslationDataset,
        measured: Source,
        start: Networks | None,
    ) -> Circumstances:
        """What settings depend on beside options and data."""
        metrics = NO_METRICS  # unless they are left open
        if isinstance(measured, HeldOut):
            metrics = self.default_metrics(*self.count_measured(measured.dataset, data))
        return Circumstances(metrics, group.world, group.device.type, origin.init_snapshot, start)

    def starting_networks(self, command: Mapping[str, Any], origin: Origin) -> tuple[Snapshot | None, Networks | None]:
        """What a run starts from, or once started from; see `starting_point`.

        Raises:
            OptionError: an option has no meaning for this model, or asks for other networks than those.
            SnapshotError: as there.
        """
        refuse_other_models(command, self.name)
        snapshot, start = starting_point(
            origin,
            self.name,
            self.snapshot_networks,
            lambda: network_configs(Snapshot(origin.options_path, origin.stored, {}), self.networks),
        )
        for name in self.network_options if start is not None else ():
            if command[name] is not None:
                text = f"the networks are those of {origin.init_snapshot}; leave it out"
                raise OptionError(f"--{name.replace('_', '-')}", text)
        return snapshot, start

    def snapshot_networks(self, snapshot: Snapshot) -> Networks:
        """The networks of a snapshot, by the names that settings have; raises SnapshotError."""
        return network_configs(snapshot, self.networks)

    def built_networks(self, settings: Any) -> Networks:
        """The networks of a run, by the names that snapshots have."""
        return settings.networks

    def notes(self, settings: TranslationSettings, data: Any, start: Networks | None, group: ProcessGroup) -> list[str]:
        """What to tell of files that are left out, and of settings that may not be meant."""
        notes = [f"{printable(data.path)}: {data.left_out}"] if data.left_out else []
        if settings.cfg == "paper" and start is None and group.device.type == "cpu":
            notes.append(
                "preset paper is for GPUs, and slow on a CPU; --cfg cpu trains a small network on 32x32 pixels"
            )
        norms = [getattr(config, "norm", None) for config in settings.networks.values()]
        if self.has_image_statistics and "batch" in norms and settings.loop.batch_gpu > 1:
            notes.append(
                f"batch norms see {settings.loop.batch_gpu} images together in training, and one afterwards; "
                "--norm instance has no such difference"
            )
        slow = precision_note(settings.precision, group.device)
        return notes if slow is None else [*notes, slow]

    def build(self, settings: TranslationSettings, data: Any, group: ProcessGroup) -> TranslationHost:
        rng = torch.Generator().manual_seed(settings.seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            networks = {name: build_network(config) for name, config in self.built_networks(settings).items()}
            for name, net in networks.items():
                self.init_network(name, net, settings, rng)
                net.to(group.device)
            regularizers = {}
            if settings.regularizers:  # without any, the size of the images need not suit them
                regularizers = {
                    end: build_regularizers(attachment, settings.regularizers)
                    for end, attachment in self.attachments(networks, settings.crop.size).items()
                }
        return self.make_task(networks, regularizers, settings, data, group)

    def batches(self, settings: Any, data: TranslationDataset, group: ProcessGroup, start_nimg: int) -> Iterator[Batch]:
        loader = TranslationLoader(
            data,
            settings.crop,
            settings.loop.batch,
            rank=group.rank,
            world=group.world,
            start_position=start_nimg,
            seed=settings.seed,
            num_workers=settings.data.workers,
            device=group.device,
        )
        classes = {name: side.classes for name, side in zip("AB", data.sides, strict=True)}
        with closing(iter(loader)) as batches:
            for batch in batches:
                # What is no image has the numbers of domains.
                yield {name: to_input(x, classes[name]) if name in classes else x for name, x in batch.items()}

    def load_weights(self, task: TranslationHost, snapshot: Snapshot) -> list[str]:
        notes = load_networks(task, snapshot.networks, task.regularizer_states(), snapshot.path)
        theirs = snapshot.config.get("domains")
        if isinstance(theirs, list) and theirs != task.domains:
            pairs = zip(map(printable, theirs), map(printable, task.domains), strict=False)
            notes.append("; ".join(f"the networks of {old} go on with {new}" for old, new in pairs if old != new))
        return notes

    def is_fixed(self, name: str) -> bool:
        return name.partition(".")[0] in self.networks or name.startswith(self.fixed)

    def advice(self, settings: TranslationSettings) -> str:
        return f"{safer_precision(settings.precision)}a smaller --lr"

    def memory_trials(self, settings: TranslationSettings) -> Sequence[tuple[Any, Any]]:
        # Batch norms see the images of a forward together: parts of a batch do not give the same result.
        return [(settings, settings)]

    def memory_advice(self, settings: TranslationSettings) -> str:
        fewer = "a smaller --batch, " if settings.loop.batch_gpu > 1 else ""
        smaller = "--precision fp16 or bf16, " if settings.precision == "fp32" else ""
        return f"{smaller}{fewer}a smaller --crop; or a new run with fewer --channels"


def open_domains(command: Mapping[str, Any]) -> UnpairedImages:
    """The domains of --data, or those of them that --domains names.

    Raises:
        DataError, OptionError: they cannot be read, or one is not there.
    """
    data = UnpairedImages(command["data"], channels=int(command["img_channels"]))
    if command["domains"] is None:
        return data
    try:
        return data.selected(parse_domains(command["domains"]))
    except DataError as error:
        raise OptionError("--domains", str(error)) from error


def some_names(names: Sequence[str]) -> str:
    """The first of the names of domains, for messages."""
    return ", ".join(printable(name, 100) for name in names[:MOST_NAMED]) + (", ..." if len(names) > MOST_NAMED else "")


def stored_domains(origin: Origin) -> list[str] | None:
    """The domains of a resumed run; None of a new one, or of damaged settings, which are refused as others."""
    data = origin.stored.get("data")
    names = data.get("domains") if isinstance(data, Mapping) else None
    is_named = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return names if is_named and len(set(names)) == len(names) > 1 else None


def channels_differ(got: Sequence[int], expected: Sequence[int], origin: Origin) -> OptionError:
    """What to raise where networks are for images of other channels than those of the dataset."""
    return OptionError(
        "--data",
        f"its images have {got[0]} and {got[1]} channels, and {origin.init_snapshot} is for "
        f"{expected[0]} and {expected[1]}; see --img-channels",
    )
