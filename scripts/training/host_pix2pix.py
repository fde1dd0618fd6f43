# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""pix2pix as `ggdr translate train` knows it: its settings, data, networks and optimisers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from ggdr.metrics.evaluate import Job
from ggdr.scripts.measuring.translation_data import Source, open_held_out_pairs, open_pairs_judge
from ggdr.scripts.measuring.translation_judge import TranslationJudge
from ggdr.scripts.training.host import Prepared
from ggdr.scripts.training.host_translation import Networks, TranslationModel, channels_differ
from ggdr.scripts.training.label_maps import add_classes
from ggdr.scripts.training.regularizers import describe_regularizers
from ggdr.scripts.training.resume import Origin
from ggdr.scripts.training.settings import HALF_DTYPES
from ggdr.scripts.training.settings_pix2pix import NAME, Pix2PixSettings, resolve_direction, resolve_settings
from ggdr.torch_utils.distributed import ProcessGroup
from ggdr.torch_utils.regularizers import Attachment, Regularizers
from ggdr.torch_utils.untrusted.text import printable
from ggdr.translation.data.datasets import PairedImages
from ggdr.translation.data.measured import HeldOut
from ggdr.translation.pix2pix import Pix2PixTask, pix2pix_attachment
from ggdr.translation.samples import pair_pictures
from ggdr.translation.snapshot import DISCRIMINATORS, GENERATORS


class Pix2PixHost(TranslationModel):
    """See `scripts.training.host.Host`."""

    name = NAME
    data = "expected a folder or zip with pairs of images"
    networks = {"G": GENERATORS, "D": DISCRIMINATORS}
    has_pairs = True
    fixed = ("data.direction", "labels")

    def prepare(self, command: Mapping[str, Any], origin: Origin, group: ProcessGroup) -> Prepared:
        snapshot, start = self.starting_networks(command, origin)
        data = PairedImages(
            command["data"], direction=resolve_direction(command), channels=int(command["img_channels"])
        )
        first = tuple(map(printable, data.first_pair()))
        data, label_notes = add_classes(data, command, origin, snapshot, is_shown=group.is_main)
        if start is not None:
            _check_fits(start, data, origin)
        measured = self.measured(command, data)
        settings = resolve_settings(command, data, self.circumstances(origin, group, data, measured, start))
        data.decoder(settings.crop)(data.middles([0]))  # an image that is too small is an error now
        notes = [f"of the first pair the input is {first[0]}, the target {first[1]}"]
        notes += label_notes
        return Prepared(settings, data, snapshot, notes + self.notes(settings, data, start, group), measured)

    def attachments(self, networks: Mapping[str, nn.Module], resolution: int) -> dict[str, Attachment]:
        return {"": pix2pix_attachment(networks["G"], networks["D"], resolution)}

    def make_task(
        self,
        networks: Mapping[str, nn.Module],
        regularizers: Mapping[str, Regularizers],
        settings: Pix2PixSettings,
        data: PairedImages,
        group: ProcessGroup,
    ) -> Pix2PixTask:
        task = Pix2PixTask(
            networks["G"],
            networks["D"],
            settings.optim,
            regularizers=regularizers.get(""),
            labels=settings.labels,
            group=group,
            seed=settings.seed,
            half_dtype=HALF_DTYPES[settings.precision],
        )
        task.pictures = pair_pictures(task, data, settings.crop, seed=settings.seed)
        return task

    def open_judge(self, training: Mapping[str, Any], data: Source, job: Job) -> TranslationJudge:
        return open_pairs_judge(training, data, job)

    def open_held_out(self, command: Mapping[str, Any], source: Source) -> HeldOut:
        direction, channels = resolve_direction(command), int(command["img_channels"])
        return open_held_out_pairs(source, direction=direction, channels=channels)

    def count_measured(self, measured: PairedImages, data: PairedImages) -> tuple[int, int]:
        return measured.num_images, 1

    def summary(self, settings: Pix2PixSettings, data: PairedImages) -> str:
        s, kind = settings, settings.G.network.partition("_")[0]
        return (
            f"{s.cfg}: {data.num_images} pairs from {printable(data.path, 1000)}, {s.data.direction}, {s.crop.size}x"
            f"{s.crop.size} pixels, {kind} of {s.G.channels} channels, batch {s.loop.batch}, "
            f"{s.loop.total_nimg / 1000:g} kimg, {describe_regularizers(s.regularizers)}"
        )


def _check_fits(start: Networks, data: PairedImages, origin: Origin) -> None:
    """Raises OptionError where networks are for images of other channels than those of the dataset."""
    G, D = start["G"], start["D"]
    of_data = tuple(side.planes for side in data.sides)
    if of_data != (G.in_channels, G.out_channels) or sum(of_data) != D.in_channels:
        raise channels_differ(of_data, (G.in_channels, G.out_channels), origin)
