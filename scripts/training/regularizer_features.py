# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""A frozen network's features of real images as what D is taught, as `ggdr train` knows it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from ggdr.scripts.errors import OptionError
from ggdr.scripts.training.regularizer_ggdr import COSINE, DEFAULT_WEIGHT
from ggdr.scripts.training.regularizer_options import (
    Site,
    describe_res,
    res_option,
    resolve_res,
    resolve_weight,
    weight_option,
)
from ggdr.torch_utils.untrusted.text import printable

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ggdr import RealFeatures
    from ggdr.torch_utils.gan import Panel
    from ggdr.torch_utils.regularizers import Attachment

NETWORK = "--features-network"


@dataclass(frozen=True)
class FeaturesSettings:
    """Whose features are predicted, at what size, and how much it counts.

    Attributes:
        network:  "module:function", or a TorchScript file.
        digest:   16 hex digits of its weights, or of its source.
        channels: of its features.
        size:     height and width of its features of one image.
    """

    res: int
    weight: float
    network: str
    digest: str
    channels: int
    size: tuple[int, int]


class FeaturesKind:
    """See RegularizerKind."""

    name = "features"
    fixed = ("res", "digest", "channels")
    options = (
        click.option(
            NETWORK,
            metavar="MODULE:FUNCTION|FILE",
            help="Frozen network whose features D learns to predict: a function of the device that returns a callable "
            "from images float32 [N,C,H,W] in [-1,1] to features [N,D,h,w], or a TorchScript file of one.",
        ),
        res_option("features", "Size at which D learns to predict its features of real images", multiple=False),
        weight_option("features", DEFAULT_WEIGHT, "the cosine distance"),
    )

    def resolve(self, command: Mapping[str, Any], site: Site) -> FeaturesSettings:
        """Raises OptionError where the host shows no reals, or the network cannot be used."""
        import torch

        from ggdr.real_features import check_features

        site.check_reals(self.name)
        network = command.get("features_network")
        if network is None:
            text = (
                f"features needs {NETWORK} module:function, or a TorchScript file; to resume, give it again: it is code"
            )
            raise OptionError("--regularizer", text)
        function, digest = _load(network, torch.device("cpu"))
        img = torch.zeros([1, site.channels, site.resolution, site.resolution])
        try:
            with torch.no_grad():
                features = function(img)
            check_features(features, img)
        except (RuntimeError, ValueError, TypeError, AttributeError) as error:
            text = f"{printable(network)} cannot see images of {site.resolution}x{site.resolution}x{site.channels}"
            raise OptionError(NETWORK, f"{text}: {printable(error)}") from error
        (res,) = resolve_res(command, self.name, site)
        weight = resolve_weight(command, self.name, DEFAULT_WEIGHT)
        return FeaturesSettings(res, weight, network, digest, features.shape[1], tuple(features.shape[2:]))

    def read(self, stored: Mapping[str, Any]) -> FeaturesSettings:
        """Settings as a run or snapshot stores them; KeyError, TypeError or ValueError if they are damaged."""
        return FeaturesSettings(**{**stored, "size": tuple(stored["size"])})

    def build(self, attachment: Attachment, settings: FeaturesSettings) -> RealFeatures:
        """It on a host that shows reals."""
        from ggdr import RealFeatures

        device = next(attachment.D.parameters()).device
        return RealFeatures(
            attachment.D,
            network=_network_on(settings, device),
            channels=settings.channels,
            size=settings.res,
            encoder=attachment.encoder,
            probe=attachment.probe,
            weight=settings.weight,
        )

    def panel(self, name: str) -> Panel:
        """The distance of prediction and features."""
        from ggdr.torch_utils.gan import Panel

        return Panel(name, "features", "Cosine distance from a frozen network", COSINE, headline=True)

    def summary(self, settings: FeaturesSettings) -> str:
        return f"features of {printable(settings.network)} x{settings.weight:g} at {describe_res([settings.res])}"


def _load(network: str, device: torch.device) -> tuple[Callable[[Tensor], Tensor], str]:
    """The network on a device and its digest; raises OptionError."""
    import torch

    from ggdr.metrics.custom import custom_features
    from ggdr.torch_utils.downloads import WeightsError

    try:
        function, digest = custom_features(network, device, option=NETWORK)
    except WeightsError as error:
        raise OptionError(NETWORK, str(error).removeprefix(f"{NETWORK} ")) from error
    for p in function.parameters() if isinstance(function, torch.nn.Module) else ():
        p.requires_grad_(False)
    return function, digest


def _network_on(settings: FeaturesSettings, device: torch.device) -> Callable[[Tensor], Tensor]:
    """The network where D is; on the meta device, which counts memory, what is not an nn.Module only has its output."""
    import torch

    function, _ = _load(settings.network, torch.device("cpu") if device.type == "meta" else device)
    if device.type != "meta":
        return function
    if isinstance(function, torch.nn.Module) and not isinstance(function, torch.jit.ScriptModule):
        return function.to(device)
    return partial(_features_of_no_values, settings)


def _features_of_no_values(settings: FeaturesSettings, img: Tensor) -> Tensor:
    return img.new_empty([len(img), settings.channels, *settings.size])
