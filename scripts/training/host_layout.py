# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The models that make images of label maps as `ggdr translate train` knows them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from ggdr.scripts.measuring.translation_judge import default_metrics
from ggdr.scripts.training.host_pairs import PairsModel
from ggdr.scripts.training.host_translation import Networks
from ggdr.scripts.training.regularizers import describe_regularizers
from ggdr.scripts.training.settings import HALF_DTYPES
from ggdr.scripts.training.settings_layout import LayoutSettings, resolve_settings
from ggdr.scripts.training.settings_translation import Circumstances
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


class LayoutHost(PairsModel):
    """See `scripts.training.host.Host`.

    Args:
        name:       of the model.
        networks:   kinds of its G and D.
        task:       what trains them.
        attachment: where regularisers take hold of G and D, for images of so many pixels.
    """

    data = "expected a folder or zip with label maps and images of equal names, as in labels and images"
    has_image_statistics = False
    needs_label_maps = True

    def __init__(
        self,
        name: str,
        networks: Mapping[str, tuple[type[NetworkConfig], ...]],
        task: type[LayoutTask],
        attachment: Callable[[nn.Module, nn.Module, int], Attachment],
    ) -> None:
        self.name, self.networks, self.task, self.attachment = name, networks, task, attachment

    def resolve(self, command: Mapping[str, Any], data: PairedImages, given: Circumstances) -> LayoutSettings:
        return resolve_settings(command, data, given, host=self.name)

    def fits(self, networks: Networks, planes: tuple[int, int]) -> bool:
        return planes == (networks["G"].in_channels, networks["G"].out_channels)

    def init_network(self, name: str, net: nn.Module, settings: LayoutSettings, rng: torch.Generator) -> None:
        init_xavier(net, rng, {"G": settings.optim.G_gain, "D": settings.optim.D_gain}[name])

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

    def default_metrics(self, num_images: int, num_directions: int) -> str:
        """A distance between sets: a label map has many images, of which the target is one."""
        return default_metrics(num_images, num_directions, has_pairs=False)

    def summary(self, settings: LayoutSettings, data: PairedImages) -> str:
        s = settings
        return (
            f"{s.cfg}: {data.num_images} pairs from {printable(data.path, 1000)}, {s.labels.num} classes, "
            f"{s.crop.size}x{s.crop.size} pixels, {s.G.channels} channels, batch {s.loop.batch}, "
            f"{s.loop.total_nimg / 1000:g} kimg, {describe_regularizers(s.regularizers)}"
        )


OASIS = LayoutHost(
    "oasis", {"G": (OASISGeneratorConfig,), "D": (OASISDiscriminatorConfig,)}, OASISTask, oasis_attachment
)
CC_FPSE = LayoutHost(
    "cc-fpse", {"G": (CCFPSEGeneratorConfig,), "D": (CCFPSEDiscriminatorConfig,)}, CCFPSETask, cc_fpse_attachment
)
