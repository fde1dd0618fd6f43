# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""ComboGAN as `ggdr translate train` knows it: its settings, data, networks and optimisers, and domains to add."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ggdr.metrics.evaluate import Job
from ggdr.scripts.errors import OptionError
from ggdr.scripts.measuring.translation_data import Source, open_domains_judge, open_held_out_domains
from ggdr.scripts.measuring.translation_judge import TranslationJudge
from ggdr.scripts.training.host import Prepared
from ggdr.scripts.training.host_translation import Networks, TranslationModel, open_domains, some_names, stored_domains
from ggdr.scripts.training.regularizers import describe_regularizers
from ggdr.scripts.training.resume import Origin
from ggdr.scripts.training.settings import HALF_DTYPES
from ggdr.scripts.training.settings_combogan import NAME, ComboGANSettings, resolve_settings
from ggdr.torch_utils.checkpoint import Snapshot, SnapshotError
from ggdr.torch_utils.distributed import ProcessGroup
from ggdr.torch_utils.regularizers import Attachment, Regularizers
from ggdr.torch_utils.untrusted.text import printable
from ggdr.translation.combogan import ComboGANTask, combogan_attachments
from ggdr.translation.config import ComboGANDiscriminatorConfig, ComboGANGeneratorConfig
from ggdr.translation.data.datasets import UnpairedImages
from ggdr.translation.data.measured import HeldOut
from ggdr.translation.domain_samples import combination_picture
from ggdr.translation.snapshot_domains import combogan_configs, combogan_names, with_domain


class ComboGANHost(TranslationModel):
    """See `scripts.training.host.Host`."""

    name = NAME
    data = "expected a folder or zip with the images of two domains or more"
    networks = {"G": (ComboGANGeneratorConfig,), "D": (ComboGANDiscriminatorConfig,)}
    has_pairs = False
    fixed = ("data.domains", "frozen")

    def prepare(self, command: Mapping[str, Any], origin: Origin, group: ProcessGroup) -> Prepared:
        snapshot, start = self.starting_networks(command, origin)
        if int(command["img_channels"]) != 3:
            raise OptionError("--img-channels", f"{NAME} judges luminance and colours: expected 3")
        added = command["add_domain"]
        if added is not None and origin.init_snapshot is None:
            raise OptionError("--add-domain", f"needs --resume with a snapshot or run of {NAME} to add it to")
        if added is not None and snapshot is not None and not _adds(snapshot, added):
            rng = torch.Generator().manual_seed(command["seed"])
            try:
                snapshot = with_domain(snapshot, added, rng)
            except SnapshotError:
                raise
            except ValueError as error:
                raise OptionError("--add-domain", str(error)) from error
            start = self.snapshot_networks(snapshot)
        names = stored_domains(origin) if snapshot is None else combogan_names(snapshot)
        data, notes = _arranged(open_domains(command), names, added)
        if start is not None and start["G"].domains != len(data.domains):
            raise OptionError(
                "--data",
                f"{printable(data.path)}: holds {len(data.domains)} domains, {some_names(data.names)}; "
                f"{origin.init_snapshot} is for {start['G'].domains}; --add-domain adds one to it",
            )
        if start is not None and start["G"].img_channels != 3:
            raise OptionError("--resume", f"{origin.init_snapshot} is for {start['G'].img_channels} channels, not 3")
        measured = self.measured(command, data)
        settings = resolve_settings(command, data, self.circumstances(origin, group, data, measured, start))
        decoder = data.decoder(settings.crop)
        for i in range(len(data.domains)):
            decoder(data.middles((i, i), [0]))  # an image that is too small is an error now
        return Prepared(settings, data, snapshot, notes + self.notes(settings, data, start, group), measured)

    def snapshot_networks(self, snapshot: Snapshot) -> Networks:
        G, D = combogan_configs(snapshot)
        return {"G": G, "D": D}

    def built_networks(self, settings: ComboGANSettings) -> Networks:
        return {"G": settings.G, **{f"D_{i}": settings.D for i in range(settings.G.domains)}}

    def attachments(self, networks: Mapping[str, nn.Module], resolution: int) -> dict[str, Attachment]:
        G, *D = networks.values()
        return {str(i): attachment for i, attachment in combogan_attachments(G, D, resolution).items()}

    def make_task(
        self,
        networks: Mapping[str, nn.Module],
        regularizers: Mapping[str, Regularizers],
        settings: ComboGANSettings,
        data: UnpairedImages,
        group: ProcessGroup,
    ) -> ComboGANTask:
        G, *D = networks.values()
        task = ComboGANTask(
            G,
            D,
            settings.optim,
            regularizers={int(end): items for end, items in regularizers.items()},
            domains=data.names,
            frozen=[data.names.index(name) for name in settings.frozen],
            half_dtype=HALF_DTYPES[settings.precision],
            group=group,
            seed=settings.seed,
        )
        task.pictures = [combination_picture(task, data, settings.crop)]
        return task

    def open_judge(self, training: Mapping[str, Any], data: Source, job: Job) -> TranslationJudge:
        return open_domains_judge(training, data, job)

    def open_held_out(self, command: Mapping[str, Any], source: Source) -> HeldOut:
        return open_held_out_domains(source, channels=3)

    def count_measured(self, measured: UnpairedImages, data: UnpairedImages) -> tuple[int, int]:
        others = len(data.domains) - 1
        # Two with each of the others, of one domain or of all.
        directions = (len(data.domains) if data.always is None else 2) * others
        return measured.fewest(data.names), directions

    def summary(self, settings: ComboGANSettings, data: UnpairedImages) -> str:
        s = settings
        sizes = [f"{num} of {name}" for name, num in zip(data.names, s.data.num_images, strict=True)]
        return (
            f"{s.cfg}: {len(sizes)} domains, {some_names(sizes)}, from {printable(data.path, 1000)}, {s.crop.size}x"
            f"{s.crop.size} pixels, {s.G.channels} channels, batch {s.loop.batch}, {s.loop.total_nimg / 1000:g} kimg, "
            f"{describe_regularizers(s.regularizers)}"
        )


def _adds(snapshot: Snapshot, name: str) -> bool:
    """Whether it is of a run that adds this domain, so that the snapshot has it, and may go on learning it alone."""
    training = snapshot.config.get("training")
    frozen = training.get("frozen") if isinstance(training, Mapping) else None
    return combogan_names(snapshot) == [*frozen, name] if isinstance(frozen, list) and frozen else False


def _arranged(data: UnpairedImages, names: Sequence[str] | None, added: str | None) -> tuple[UnpairedImages, list[str]]:
    """The domains in the order of the networks, and what to tell about it.

    Args:
        names: of the networks' domains; None of new ones, which take all domains as they come.
        added: the last of these, which alone is trained; None: all are.

    Raises:
        OptionError: one is to be added, and it or another one is not there.
    """
    missing = [name for name in names or () if name not in data.names]
    if added is not None:
        if names is None or names[-1] != added:
            expected = "none" if names is None else repr(names[-1])
            raise OptionError("--add-domain", f"the resumed run was begun with {expected}, got {added!r}")
        if missing:
            raise OptionError(
                "--data",
                f"{printable(data.path)}: lacks {some_names(missing)} of the domains {some_names(names)}, of which "
                f"the last is added to the others; it has {some_names(data.names)}",
            )
    if names is None or missing:
        return data, []
    others = [name for name in data.names if name not in names]
    notes = (
        [f"left out are the images of {some_names(others)}, domains that the networks do not have"] if others else []
    )
    notes += (
        []
        if added is None
        else [f"{printable(added, 100)} alone is trained; {some_names(names[:-1])} stay as they are"]
    )
    return data.selected(names, always=None if added is None else len(names) - 1), notes
