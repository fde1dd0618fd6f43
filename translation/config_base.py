# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What the settings of all networks, and of all hosts, of image translation have in common. Imports no torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

from ggdr.torch_utils.untrusted.text import printable

NORMS = ("batch", "instance")
NOISE_KINDS = ("image", "class", "pixel")  # what has a noise vector of its own, where images are made of label maps
GAN_LOSSES = ("cross_entropy", "least_squares")
# Far beyond any network that was trained; what a file claims beyond them is a mistake, or an attack on memory.
MAX_WIDTH = 2**16
MAX_LAYERS = 64
MAX_IMG_CHANNELS = 2**10  # label maps have one for each class
MAX_DOMAINS = 2**10


def shown(value: object) -> str:
    """A setting of any type, for messages."""
    return printable(repr(value), 80)


@dataclass(frozen=True)
class NetworkConfig:
    """What a network is built from; raises ValueError for settings that no network can have.

    Attributes:
        network: what the kind is called in files.
    """

    network: ClassVar[str]
    # Smallest and largest value of each whole number.
    limits: ClassVar[dict[str, tuple[int, int]]] = {
        "in_channels": (1, MAX_IMG_CHANNELS),
        "out_channels": (1, MAX_IMG_CHANNELS),
        "channels": (1, MAX_WIDTH),
        "blocks": (0, MAX_LAYERS),
        "downs": (5, 12),
        "layers": (1, 12),
        "encoder_blocks": (0, MAX_LAYERS),
        "decoder_blocks": (0, MAX_LAYERS),
        "shared_encoder_blocks": (0, MAX_LAYERS),
        "shared_decoder_blocks": (0, MAX_LAYERS),
        "domains": (1, MAX_DOMAINS),
        "classes": (1, MAX_IMG_CHANNELS),
        "noise_channels": (1, MAX_WIDTH),
        "ups": (1, 12),
    }

    def __post_init__(self) -> None:
        for field in fields(self):
            name, value = field.name, getattr(self, field.name)
            if name == "norm":
                if value not in NORMS:
                    raise ValueError(f"norm must be one of {', '.join(NORMS)}, got {shown(value)}")
            elif name == "dropout":
                if type(value) is not bool:
                    raise ValueError(f"dropout must be true or false, got {shown(value)}")
            else:
                low, high = self.limits[name]
                if type(value) is not int or not low <= value <= high:
                    raise ValueError(f"{name} must be a whole number from {low} to {high}, got {shown(value)}")

    def to_json(self) -> dict[str, Any]:
        """The settings and the kind of network, as `config_from_json` takes them."""
        return {"network": self.network, **asdict(self)}


@dataclass(frozen=True)
class HostConfig:
    """Losses and optimisers that all hosts have; raises ValueError for settings that cannot be.

    Attributes:
        constant_nimg: samples until the rate begins to fall,
        falling_nimg:  and samples in which it falls to 0, linearly; 0: it never falls.
        gan_loss:      one of `gan_losses`.
        lr, beta1, beta2: Adam's, of all networks.
    """

    whole: ClassVar[tuple[str, ...]] = ("constant_nimg", "falling_nimg", "pool_size")
    gan_losses: ClassVar[tuple[str, ...]] = GAN_LOSSES
    constant_nimg: int
    falling_nimg: int
    gan_loss: str = "least_squares"
    lr: float = 2e-4
    beta1: float = 0.5
    beta2: float = 0.999

    def __post_init__(self) -> None:
        for field in fields(self):
            name, value = field.name, getattr(self, field.name)
            if name == "gan_loss":
                if value not in self.gan_losses:
                    raise ValueError(f"gan_loss must be one of {', '.join(self.gan_losses)}, got {shown(value)}")
            elif name in self.whole:
                if type(value) is not int or value < 0:
                    raise ValueError(f"{name} must be a whole number from 0 up, got {shown(value)}")
            else:
                high = 1 if name.startswith("beta") else 1e30
                if type(value) not in (int, float) or not 0 <= value < high:
                    raise ValueError(f"{name} must be a number from 0 to below {high:g}, got {shown(value)}")

    @property
    def total_nimg(self) -> int:
        """Samples of the whole schedule."""
        return self.constant_nimg + self.falling_nimg

    def rate(self, nimg: int) -> float:
        """The learning rate after so many samples."""
        if not self.falling_nimg:
            return self.lr
        return self.lr * min(max(1 - (nimg - self.constant_nimg) / self.falling_nimg, 0), 1)
