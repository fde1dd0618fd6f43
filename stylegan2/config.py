# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Settings of StyleGAN2-ADA: networks, losses and optimisers, and the presets that fill them in."""

from __future__ import annotations

from dataclasses import dataclass

from ggdr.torch_utils.untrusted.text import printable

ARCHITECTURES = ("orig", "skip", "resnet")
# Far beyond any network that was trained; what a file claims beyond them is a mistake, or an attack on memory.
MAX_RESOLUTION = 8192
MAX_WIDTH = 2**16
MAX_CHANNEL_BASE = 2**20
MAX_LAYERS = 64
MAX_FLOAT = 1e30


def _shown(value: object) -> str:
    """A setting of any type, for messages."""
    return printable(repr(value), 80)


@dataclass(frozen=True)
class NetworkConfig:
    """What both networks are built from; raises ValueError for settings that no network can have."""

    img_resolution: int
    img_channels: int = 3
    c_dim: int = 0
    architecture: str = "skip"
    channel_base: int = 32768
    channel_max: int = 512
    num_half_res: int = 4
    conv_clamp: float | None = None  # bound on activations; 256 with float16

    def __post_init__(self) -> None:
        self._check_int("img_resolution", 8, MAX_RESOLUTION)
        self._check_int("c_dim", 0, MAX_WIDTH)
        self._check_int("channel_base", 0, MAX_CHANNEL_BASE)
        self._check_int("channel_max", 0, MAX_WIDTH)
        self._check_int("num_half_res", 0, MAX_LAYERS)
        res = self.img_resolution
        if res & (res - 1):
            raise ValueError(f"img_resolution must be a power of two from 8 up, got {res}")
        if self.channel_base < res or self.channel_max < 1:
            raise ValueError(
                f"channel_base {self.channel_base} and channel_max {self.channel_max} leave no feature maps at "
                f"{res}x{res}; expected at least {res} and 1"
            )
        if type(self.img_channels) is not int or self.img_channels not in (1, 3, 4):
            raise ValueError(f"img_channels must be 1, 3 or 4, got {_shown(self.img_channels)}")
        if self.architecture not in ARCHITECTURES:
            raise ValueError(f"architecture must be one of {', '.join(ARCHITECTURES)}, got {_shown(self.architecture)}")
        if self.conv_clamp is not None:
            self._check_positive("conv_clamp")

    def _check_int(self, name: str, low: int, high: int) -> None:
        value = getattr(self, name)
        if type(value) is not int or not low <= value <= high:
            raise ValueError(f"{name} must be a whole number from {low} to {high}, got {_shown(value)}")

    def _check_positive(self, name: str) -> None:
        value = getattr(self, name)
        if type(value) not in (int, float) or not 0 < value < MAX_FLOAT:
            raise ValueError(f"{name} must be a number above 0, got {_shown(value)}")

    def channels(self, res: int) -> int:
        """Feature maps at one resolution."""
        return min(self.channel_base // res, self.channel_max)


@dataclass(frozen=True)
class GeneratorConfig(NetworkConfig):
    """What a Generator is built from; stored in every snapshot."""

    z_dim: int = 512
    w_dim: int = 512
    mapping_num_layers: int = 8
    mapping_lr_multiplier: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_int("z_dim", 1, MAX_WIDTH)
        self._check_int("w_dim", 1, MAX_WIDTH)
        self._check_int("mapping_num_layers", 0, MAX_LAYERS)
        self._check_positive("mapping_lr_multiplier")


@dataclass(frozen=True)
class DiscriminatorConfig(NetworkConfig):
    """What a Discriminator is built from; stored in every snapshot."""

    architecture: str = "resnet"
    mbstd_group_size: int | None = 4
    mbstd_num_channels: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mbstd_group_size is not None:
            self._check_int("mbstd_group_size", 1, MAX_WIDTH)
        self._check_int("mbstd_num_channels", 0, self.channels(4))
        width, num = self.channels(4), self.mbstd_num_channels
        if num and width % num:
            raise ValueError(f"mbstd_num_channels must divide the {width} feature maps at 4x4, got {num}")


@dataclass(frozen=True)
class LossConfig:
    """Weights and probabilities of the training losses."""

    r1_gamma: float
    style_mixing_prob: float = 0.9
    pl_weight: float = 2.0
    pl_decay: float = 0.01
    pl_batch_shrink: int = 2


@dataclass(frozen=True)
class OptimConfig:
    """Adam, lazy regularisation and the moving average of G."""

    lr: float
    beta1: float = 0.0
    beta2: float = 0.99
    eps: float = 1e-8
    G_reg_interval: int = 4
    D_reg_interval: int = 16
    ema_halflife_kimg: float = 10.0
    ema_rampup: float | None = None
    freeze_d: int = 0


@dataclass(frozen=True)
class Preset:
    """One row of the table of training settings; see `preset` for its source."""

    kimg: int
    batch: int
    mbstd: int
    channel_base: int
    lr: float
    gamma: float
    ema_kimg: float
    ema_rampup: float | None
    mapping_layers: int
    channel_max: int = 512
    latent_dim: int = 512
    pl_weight: float = 2.0
    style_mixing_prob: float = 0.9
    d_architecture: str = "resnet"
    ada_speed_kimg: float = 500.0
    tick_kimg: float = 4.0
    snap_ticks: int = 50
    img_resolution: int | None = None  # that gamma is for; None for any


FIXED_PRESETS: dict[str, Preset] = {
    "stylegan2": Preset(25000, 32, 4, 32768, 0.002, 10, 10, None, 8),
    "paper256": Preset(25000, 64, 8, 16384, 0.0025, 1, 20, None, 8, img_resolution=256),
    "paper512": Preset(25000, 64, 8, 32768, 0.0025, 0.5, 20, None, 8, img_resolution=512),
    "paper1024": Preset(25000, 32, 4, 32768, 0.002, 2, 10, None, 8, img_resolution=1024),
    "cifar": Preset(
        100000,
        64,
        32,
        32768,
        0.0025,
        0.01,
        500,
        0.05,
        2,
        pl_weight=0,
        style_mixing_prob=0,
        d_architecture="orig",
        img_resolution=32,
    ),
    # Sized for a few CPU cores: 32x32 photographs in hours, digits in minutes.
    "cpu": Preset(
        kimg=1000,
        batch=16,
        mbstd=4,
        channel_base=2048,
        channel_max=64,
        lr=0.0025,
        gamma=0.01,
        ema_kimg=5,
        ema_rampup=0.05,
        mapping_layers=2,
        latent_dim=128,
        pl_weight=0,
        style_mixing_prob=0,
        tick_kimg=2,
        snap_ticks=10,
        img_resolution=32,
    ),
    "demo": Preset(
        kimg=28,
        batch=16,
        mbstd=4,
        channel_base=1024,
        channel_max=64,
        lr=0.0025,
        gamma=0.02,
        ema_kimg=1,
        ema_rampup=0.05,
        mapping_layers=2,
        latent_dim=64,
        pl_weight=0,
        style_mixing_prob=0,
        tick_kimg=0.5,
        snap_ticks=8,
        img_resolution=32,
    ),
}
PRESET_NAMES = ("auto", *FIXED_PRESETS)


def preset(name: str, *, img_resolution: int, num_gpus: int = 1, batch: int | None = None) -> Preset:
    """The settings of one preset; `auto` scales them to resolution, batch and number of GPUs.

    Args:
        name:           one of PRESET_NAMES.
        img_resolution: pixels.
        num_gpus:       processes that share the batch.
        batch:          total batch size to use in place of the automatic one (auto only).

    Raises:
        ValueError: unknown name.

    Source: Karras et al. 2020, arXiv:2006.06676, Appendix C; `cpu` and `demo` are this project's own.
    """
    if name in FIXED_PRESETS:
        return FIXED_PRESETS[name]
    if name != "auto":
        raise ValueError(f"unknown preset {name!r}; expected one of {', '.join(PRESET_NAMES)}")
    res = img_resolution
    if batch is None:
        batch = max(min(num_gpus * min(4096 // res, 32), 64), num_gpus)
    return Preset(
        kimg=25000,
        batch=batch,
        mbstd=min(batch // num_gpus, 4),
        channel_base=32768 if res >= 512 else 16384,
        lr=0.002 if res >= 1024 else 0.0025,
        gamma=0.0002 * res**2 / batch,
        ema_kimg=batch * 10 / 32,
        ema_rampup=0.05,
        mapping_layers=2,
    )
