# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What all models that learn from pairs have in common, as `ggdr translate train` knows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ggdr.metrics.evaluate import Job
from ggdr.scripts.measuring.translation_data import Source, open_held_out_pairs, open_pairs_judge
from ggdr.scripts.measuring.translation_judge import TranslationJudge
from ggdr.scripts.training.host import Prepared
from ggdr.scripts.training.host_translation import Networks, TranslationModel, channels_differ
from ggdr.scripts.training.label_maps import add_classes
from ggdr.scripts.training.resume import Origin
from ggdr.scripts.training.settings_pix2pix import resolve_direction
from ggdr.scripts.training.settings_translation import Circumstances, TranslationSettings
from ggdr.torch_utils.distributed import ProcessGroup
from ggdr.torch_utils.untrusted.text import printable
from ggdr.translation.data.datasets import PairedImages
from ggdr.translation.data.measured import HeldOut


class PairsModel(TranslationModel):
    """See `scripts.training.host.Host`."""

    has_pairs = True
    fixed = ("data.direction", "labels")
    needs_label_maps = False

    def resolve(self, command: Mapping[str, Any], data: PairedImages, given: Circumstances) -> TranslationSettings:
        """The settings of a run; raises OptionError."""
        raise NotImplementedError

    def fits(self, networks: Networks, planes: tuple[int, int]) -> bool:
        """Whether networks are for inputs and targets of so many planes."""
        raise NotImplementedError

    def prepare(self, command: Mapping[str, Any], origin: Origin, group: ProcessGroup) -> Prepared:
        snapshot, start = self.starting_networks(command, origin)
        data = PairedImages(
            command["data"], direction=resolve_direction(command), channels=int(command["img_channels"])
        )
        first = tuple(map(printable, data.first_pair()))
        needed_by = self.name if self.needs_label_maps else None
        data, label_notes = add_classes(data, command, origin, snapshot, is_shown=group.is_main, needed_by=needed_by)
        planes = tuple(side.planes for side in data.sides)
        if start is not None and not self.fits(start, planes):
            raise channels_differ(planes, (start["G"].in_channels, start["G"].out_channels), origin)
        measured = self.measured(command, data)
        settings = self.resolve(command, data, self.circumstances(origin, group, data, measured, start))
        data.decoder(settings.crop)(data.middles([0]))  # an image that is too small is an error now
        notes = [f"of the first pair the input is {first[0]}, the target {first[1]}"]
        notes += label_notes
        return Prepared(settings, data, snapshot, notes + self.notes(settings, data, start, group), measured)

    def open_judge(self, training: Mapping[str, Any], data: Source, job: Job) -> TranslationJudge:
        return open_pairs_judge(training, data, job)

    def open_held_out(self, command: Mapping[str, Any], source: Source) -> HeldOut:
        direction, channels = resolve_direction(command), int(command["img_channels"])
        return open_held_out_pairs(source, direction=direction, channels=channels)

    def count_measured(self, measured: PairedImages, data: PairedImages) -> tuple[int, int]:
        return measured.num_images, 1
