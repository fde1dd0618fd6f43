# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""CycleGAN as `ggdr translate train` knows it: its settings, data, networks and optimisers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from ggdr.metrics.evaluate import Job
from ggdr.scripts.errors import OptionError
from ggdr.scripts.measuring.translation_data import Source, open_domains_judge, open_held_out_domains
from ggdr.scripts.measuring.translation_judge import TranslationJudge
from ggdr.scripts.training.host import Prepared
from ggdr.scripts.training.host_translation import (
    Networks,
    TranslationModel,
    channels_differ,
    open_domains,
    some_names,
    stored_domains,
)
from ggdr.scripts.training.regularizers import describe_regularizers
from ggdr.scripts.training.resume import Origin
from ggdr.scripts.training.settings import HALF_DTYPES
from ggdr.scripts.training.settings_cyclegan import NAME, CycleGANSettings, resolve_settings
from ggdr.torch_utils.checkpoint import SnapshotError
from ggdr.torch_utils.distributed import ProcessGroup
from ggdr.torch_utils.regularizers import Attachment, Regularizers
from ggdr.torch_utils.untrusted.text import printable
from ggdr.translation.cyclegan import SIDES, CycleGANTask, cyclegan_attachments
from ggdr.translation.data.datasets import UnpairedImages
from ggdr.translation.data.measured import HeldOut
from ggdr.translation.domain_samples import cycle_pictures
from ggdr.translation.snapshot import DISCRIMINATORS, GENERATORS, domain_names


class CycleGANHost(TranslationModel):
    """See `scripts.training.host.Host`."""

    name = NAME
    data = "expected a folder or zip with the images of two domains"
    networks = {**{f"G_{side}": GENERATORS for side in SIDES}, **{f"D_{side}": DISCRIMINATORS for side in SIDES}}
    has_pairs = False
    fixed = ("data.domains",)

    def prepare(self, command: Mapping[str, Any], origin: Origin, group: ProcessGroup) -> Prepared:
        snapshot, start = self.starting_networks(command, origin)
        data = open_domains(command)
        if len(data.names) != 2:
            raise OptionError(
                "--data",
                f"{printable(data.path)}: holds {len(data.names)} domains, {some_names(data.names)}; {NAME} translates "
                "between two, which --domains chooses",
            )
        names = stored_domains(origin) if snapshot is None else domain_names(snapshot, SIDES)
        if names is not None and set(names) == set(data.names):
            data = data.selected(names)  # in the order of the networks
        if start is not None:
            _check_fits(start, data, origin)
        measured = self.measured(command, data)
        settings = resolve_settings(command, data, self.circumstances(origin, group, data, measured, start))
        data.decoder(settings.crop)(data.middles((0, 1), [0]))  # an image that is too small is an error now
        notes = [", ".join(f"{side} is {printable(x, 100)}" for side, x in zip(SIDES, data.names, strict=True))]
        return Prepared(settings, data, snapshot, notes + self.notes(settings, data, start, group), measured)

    def attachments(self, networks: Mapping[str, nn.Module], resolution: int) -> dict[str, Attachment]:
        return cyclegan_attachments(*(networks[name] for name in self.networks), resolution)

    def make_task(
        self,
        networks: Mapping[str, nn.Module],
        regularizers: Mapping[str, Regularizers],
        settings: CycleGANSettings,
        data: UnpairedImages,
        group: ProcessGroup,
    ) -> CycleGANTask:
        task = CycleGANTask(
            *(networks[name] for name in self.networks),
            settings.optim,
            regularizers=regularizers,
            domains=data.names,
            group=group,
            seed=settings.seed,
            half_dtype=HALF_DTYPES[settings.precision],
        )
        task.pictures = cycle_pictures(task, data, settings.crop, seed=settings.seed)
        return task

    def open_judge(self, training: Mapping[str, Any], data: Source, job: Job) -> TranslationJudge:
        return open_domains_judge(training, data, job, names=SIDES)

    def open_held_out(self, command: Mapping[str, Any], source: Source) -> HeldOut:
        return open_held_out_domains(source, channels=int(command["img_channels"]))

    def count_measured(self, measured: UnpairedImages, data: UnpairedImages) -> tuple[int, int]:
        return measured.fewest(data.names), len(SIDES)

    def summary(self, settings: CycleGANSettings, data: UnpairedImages) -> str:
        s, kind = settings, settings.G_A.network.partition("_")[0]
        sizes = " and ".join(
            f"{num} of {printable(x, 100)}" for x, num in zip(data.names, s.data.num_images, strict=True)
        )
        return (
            f"{s.cfg}: {sizes} from {printable(data.path, 1000)}, {s.crop.size}x{s.crop.size} pixels, {kind}s of "
            f"{s.G_A.channels} channels, batch {s.loop.batch}, {s.loop.total_nimg / 1000:g} kimg, "
            f"{describe_regularizers(s.regularizers)}"
        )


def _check_fits(start: Networks, data: UnpairedImages, origin: Origin) -> None:
    """Raises OptionError where networks are for images of other channels than those of the dataset.

    Raises:
        SnapshotError: the networks do not belong together.
    """
    G_A, G_B = start["G_A"], start["G_B"]
    expected = (G_A.in_channels, G_A.out_channels)
    of_D = (start["D_B"].in_channels, start["D_A"].in_channels)  # D_A judges images of B
    if expected != (G_B.out_channels, G_B.in_channels) or expected != of_D:
        raise SnapshotError(f"{origin.init_snapshot}: its generators and discriminators do not fit each other")
    of_data = tuple(side.channels for side in data.sides)
    if of_data != expected:
        raise channels_differ(of_data, expected, origin)
