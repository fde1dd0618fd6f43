# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The models that make images of label maps as `ggdr translate train` knows them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ggdr.metrics.evaluate import Job
from ggdr.scripts.measuring.translation_data import open_held_out_pairs, open_pairs_judge
from ggdr.scripts.measuring.translation_judge import TranslationJudge, default_metrics
from ggdr.scripts.options.training import NO_METRICS
from ggdr.scripts.training.host import Prepared
from ggdr.scripts.training.host_translation import Networks, TranslationModel, channels_differ
from ggdr.scripts.training.label_maps import add_classes
from ggdr.scripts.training.regularizers import describe_regularizers
from ggdr.scripts.training.resume import Origin
from ggdr.scripts.training.settings import HALF_DTYPES
from ggdr.scripts.training.settings_layout import LayoutSettings, resolve_settings
from ggdr.scripts.training.settings_pix2pix import resolve_direction
from ggdr.torch_utils.distributed import ProcessGroup
from ggdr.torch_utils.regularizers import Attachment, Regularizers
from ggdr.torch_utils.untrusted.text import printable
from ggdr.translation.cc_fpse import CCFPSETask, cc_fpse_attachment
from ggdr.translation.config_base import NetworkConfig
from ggdr.translation.data.datasets import PairedImages
from ggdr.translation.layout import LayoutTask
from ggdr.translation.layout_config import (
    CCFPSEDiscriminatorConfig,
    CCFPSEGeneratorConfig,
    OASISDiscriminatorConfig,
    OASISGeneratorConfig,
)
from ggdr.translation.layout_samples import layout_pictures
from ggdr.translation.oasis import OASISTask, oasis_attachment
from ggdr.translation.spectral_norm import init_xavier


class LayoutHost(TranslationModel):
    """See `scripts.training.host.Host`.

    Args:
        name:       of the model.
        networks:   kinds of its G and D.
        task:       what trains them.
        attachment: where regularisers take hold of G and D, for images of so many pixels.
    """

    data = "expected a folder or zip with label maps and images of equal names, as in labels and images"
    has_pairs = True
    has_image_statistics = False
    fixed = ("data.direction", "labels")

    def __init__(
        self,
        name: str,
        networks: Mapping[str, tuple[type[NetworkConfig], ...]],
        task: type[LayoutTask],
        attachment: Callable[[nn.Module, nn.Module, int], Attachment],
    ) -> None:
        self.name, self.networks, self.task, self.attachment = name, networks, task, attachment

    def prepare(self, command: Mapping[str, Any], origin: Origin, group: ProcessGroup) -> Prepared:
        snapshot, start = self.starting_networks(command, origin)
        data = PairedImages(
            command["data"], direction=resolve_direction(command), channels=int(command["img_channels"])
        )
        first = tuple(map(printable, data.first_pair()))
        data, label_notes = add_classes(data, command, origin, snapshot, is_shown=group.is_main, needed_by=self.name)
        if start is not None:
            _check_fits(start, data, origin)
        settings = resolve_settings(
            command,
            data,
            host=self.name,
            default_metrics=self.default_metrics(command),
            num_processes=group.world,
            device_type=group.device.type,
            init_snapshot=origin.init_snapshot,
            start=start,
        )
        data.decoder(settings.crop)(data.middles([0]))  # an image that is too small is an error now
        notes = [f"of the first pair the input is {first[0]}, the target {first[1]}"]
        notes += label_notes
        return Prepared(settings, data, snapshot, notes + self.notes(settings, data, start, group))

    def init_network(self, net: nn.Module, rng: torch.Generator) -> None:
        init_xavier(net, rng)

    def attachments(self, networks: Mapping[str, nn.Module], resolution: int) -> dict[str, Attachment]:
        return {"": self.attachment(networks["G"], networks["D"], resolution)}

    def make_task(
        self,
        networks: Mapping[str, nn.Module],
        regularizers: Mapping[str, Regularizers],
        settings: LayoutSettings,
        data: PairedImages,
        group: ProcessGroup,
    ) -> LayoutTask:
        task = self.task(
            networks["G"],
            networks["D"],
            settings.optim,
            settings.labels,
            regularizers=regularizers.get(""),
            group=group,
            seed=settings.seed,
            half_dtype=HALF_DTYPES[settings.precision],
        )
        task.pictures = layout_pictures(task, data, settings.crop, seed=settings.seed)
        return task

    def open_judge(self, training: Mapping[str, Any], data: Path, job: Job) -> TranslationJudge:
        return open_pairs_judge(training, data, job)

    def default_metrics(self, command: Mapping[str, Any]) -> str:
        """A distance between sets: a label map has many images, of which the target is one."""
        if command["metrics"] is not None:
            return NO_METRICS
        where = {"direction": resolve_direction(command), "channels": int(command["img_channels"])}
        pairs, _ = open_held_out_pairs(command["metrics_data"] or command["data"], **where)
        return default_metrics(pairs.num_images, has_pairs=False)

    def summary(self, settings: LayoutSettings, data: PairedImages) -> str:
        s = settings
        return (
            f"{s.cfg}: {data.num_images} pairs from {printable(data.path, 1000)}, {s.labels.num} classes, "
            f"{s.crop.size}x{s.crop.size} pixels, {s.G.channels} channels, batch {s.loop.batch}, "
            f"{s.loop.total_nimg / 1000:g} kimg, {describe_regularizers(s.regularizers)}"
        )


def _check_fits(start: Networks, data: PairedImages, origin: Origin) -> None:
    """Raises OptionError where networks are for images of other channels than those of the dataset."""
    G, of_data = start["G"], tuple(side.planes for side in data.sides)
    if of_data != (G.in_channels, G.out_channels):
        raise channels_differ(of_data, (G.in_channels, G.out_channels), origin)


OASIS = LayoutHost(
    "oasis", {"G": (OASISGeneratorConfig,), "D": (OASISDiscriminatorConfig,)}, OASISTask, oasis_attachment
)
CC_FPSE = LayoutHost(
    "cc-fpse", {"G": (CCFPSEGeneratorConfig,), "D": (CCFPSEDiscriminatorConfig,)}, CCFPSETask, cc_fpse_attachment
)
