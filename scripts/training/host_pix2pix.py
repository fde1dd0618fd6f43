# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""pix2pix as `ggdr translate train` knows it: its settings, data, networks and optimisers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from ggdr.scripts.training.host_pairs import PairsModel
from ggdr.scripts.training.host_translation import Networks
from ggdr.scripts.training.regularizers import describe_regularizers
from ggdr.scripts.training.settings import HALF_DTYPES
from ggdr.scripts.training.settings_pix2pix import NAME, Pix2PixSettings, resolve_settings
from ggdr.scripts.training.settings_translation import Circumstances
from ggdr.torch_utils.distributed import ProcessGroup
from ggdr.torch_utils.regularizers import Attachment, Regularizers
from ggdr.torch_utils.untrusted.text import printable
from ggdr.translation.data.datasets import PairedImages
from ggdr.translation.pix2pix import Pix2PixTask, pix2pix_attachment
from ggdr.translation.samples import pair_pictures
from ggdr.translation.snapshot import DISCRIMINATORS, GENERATORS


class Pix2PixHost(PairsModel):
    """See `scripts.training.host.Host`."""

    name = NAME
    data = "expected a folder or zip with pairs of images"
    networks = {"G": GENERATORS, "D": DISCRIMINATORS}

    def resolve(self, command: Mapping[str, Any], data: PairedImages, given: Circumstances) -> Pix2PixSettings:
        return resolve_settings(command, data, given)

    def fits(self, networks: Networks, planes: tuple[int, int]) -> bool:
        G, D = networks["G"], networks["D"]
        return planes == (G.in_channels, G.out_channels) and sum(planes) == D.in_channels

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

    def summary(self, settings: Pix2PixSettings, data: PairedImages) -> str:
        s, kind = settings, settings.G.network.partition("_")[0]
        return (
            f"{s.cfg}: {data.num_images} pairs from {printable(data.path, 1000)}, {s.data.direction}, {s.crop.size}x"
            f"{s.crop.size} pixels, {kind} of {s.G.channels} channels, batch {s.loop.batch}, "
            f"{s.loop.total_nimg / 1000:g} kimg, {describe_regularizers(s.regularizers)}"
        )
