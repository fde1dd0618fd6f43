# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The settings of a run of StyleGAN2, and how the options of `ggdr train` become them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from ggdr.scripts.errors import OptionError
from ggdr.scripts.options.training import AUTO
from ggdr.scripts.training.regularizers import resolve_regularizers
from ggdr.scripts.training.settings import (
    RunSettings,
    allowed_skips,
    resolve_batch_gpu,
    resolve_metrics,
    resolve_patience,
    resolve_precision,
)
from ggdr.scripts.training.start_networks import StartNetworks
from ggdr.stylegan2.config import (
    DiscriminatorConfig,
    GeneratorConfig,
    LossConfig,
    NetworkConfig,
    OptimConfig,
    Preset,
    preset,
)
from ggdr.stylegan2.discriminator import Discriminator
from ggdr.stylegan2.task import freezable_layers
from ggdr.torch_utils.data.label_maps import LabelClasses
from ggdr.torch_utils.loop import LoopConfig

NAME = "stylegan2"
HALF_CLAMP = 256.0  # bound on activations in half precision


@dataclass(frozen=True)
class DataSettings:
    """The training set, and what was found in it."""

    path: str
    use_labels: bool
    mirror: bool
    max_images: int | None
    num_images: int
    fingerprint: str
    workers: int | None


@dataclass(frozen=True)
class AugmentSettings:
    """What the discriminator's images go through."""

    mode: str  # "ada", "fixed" or "noaug"
    pipe: str
    p: float  # fixed probability, or where ADA starts
    target: float
    speed_kimg: float


@dataclass(frozen=True)
class StyleGAN2Settings(RunSettings):
    """Everything that decides what a run of StyleGAN2 computes."""

    data: DataSettings
    G: GeneratorConfig
    D: DiscriminatorConfig
    loss: LossConfig
    optim: OptimConfig
    augment: AugmentSettings


ADA_P = 0.5  # where every transform is at work


def with_every_transform(settings: StyleGAN2Settings) -> StyleGAN2Settings:
    """The same, but with ADA where every transform is at work: what an iteration may come to, as it starts at p = 0."""
    if settings.augment.mode != "ada":
        return settings
    return replace(settings, augment=replace(settings.augment, p=ADA_P))


def resolve_settings(
    command: Mapping[str, Any],
    *,
    resolution: int,
    channels: int,
    c_dim: int,
    num_images: int,
    fingerprint: str,
    num_processes: int,
    device_type: str,
    init_snapshot: str | None,
    start: StartNetworks | None = None,
    label_classes: LabelClasses | None = None,
) -> StyleGAN2Settings:
    """Fills in what the command line leaves open.

    Args:
        command:       the options of `ggdr train` by parameter name; None where not given.
        init_snapshot: the snapshot that the weights come from (faster ADA, no EMA ramp-up), or None.
        start:         networks that fit the data, whose settings come before those of preset and command line.
        label_classes: of the label maps of the data, if there are any.

    Raises:
        OptionError: a value that cannot be used, with the option's name.
    """
    get = command.get
    p = preset(get("cfg"), img_resolution=resolution, num_gpus=num_processes, batch=get("batch"))
    overrides = {
        "gamma": get("gamma"),
        "batch": get("batch"),
        "kimg": get("kimg"),
        "lr": get("lr"),
        "channel_base": get("channel_base"),
        "channel_max": get("channel_max"),
        "tick_kimg": get("tick"),
        "snap_ticks": get("snap"),
    }
    p = replace(p, **{name: value for name, value in overrides.items() if value is not None})
    if init_snapshot is not None:
        p = replace(p, ema_rampup=None, ada_speed_kimg=100.0)

    precision = resolve_precision(get("precision"), device_type)
    batch_gpu = resolve_batch_gpu(p.batch, get("batch_gpu"), num_processes)
    size = {
        "img_resolution": resolution,
        "img_channels": channels,
        "c_dim": c_dim,
        "num_half_res": NetworkConfig.num_half_res,
        "conv_clamp": None if precision == "fp32" else HALF_CLAMP,
    }
    mbstd = min(p.mbstd, batch_gpu)
    if batch_gpu % mbstd:
        option = "--batch" if get("batch_gpu") in (None, AUTO) else "--batch-gpu"
        raise OptionError(
            option, f"{batch_gpu} images in a forward are not a multiple of minibatch-std's group, {mbstd}"
        )
    G, D = _networks(p, start, size)
    metrics = resolve_metrics(get("metrics"))
    _check_freezed(get("freezed"), D)
    return StyleGAN2Settings(
        host=NAME,
        cfg=get("cfg"),
        data=DataSettings(
            str(get("data")), c_dim > 0, get("mirror"), get("subset"), num_images, fingerprint[:16], get("workers")
        ),
        G=G,
        D=replace(D, mbstd_group_size=mbstd),
        loss=LossConfig(p.gamma, style_mixing_prob=p.style_mixing_prob, pl_weight=p.pl_weight),
        optim=OptimConfig(p.lr, ema_halflife_kimg=p.ema_kimg, ema_rampup=p.ema_rampup, freeze_d=get("freezed")),
        augment=_augment(command, p.ada_speed_kimg),
        regularizers=resolve_regularizers(
            command,
            resolution,
            [2**i for i in range(3, resolution.bit_length())],
            has_average=True,
            shows_reals=True,
            channels=channels,
            data=str(get("data")),
            labels=label_classes,
        ),
        loop=LoopConfig(
            total_nimg=round(p.kimg * 1000),
            batch=p.batch,
            batch_gpu=batch_gpu,
            tick_nimg=round(p.tick_kimg * 1000),
            snap_ticks=p.snap_ticks,
            max_skips=allowed_skips(precision),
        ),
        precision=precision,
        num_processes=num_processes,
        seed=get("seed"),
        init_snapshot=init_snapshot,
        init_source=start and start.source,
        metrics=metrics,
        patience=resolve_patience(get("patience"), metrics),
        deterministic=bool(get("deterministic")),
    )


def _networks(
    p: Preset, start: StartNetworks | None, size: dict[str, Any]
) -> tuple[GeneratorConfig, DiscriminatorConfig]:
    """Those of the preset, or those that the run starts from; `size` is the dataset's."""
    if start is not None:
        return replace(start.G, **size), replace(start.D, **size)
    res = size["img_resolution"]
    if p.channel_base < res:
        raise OptionError("--channel-base", f"{p.channel_base} leaves no feature maps at {res}x{res}")
    size = {**size, "channel_base": p.channel_base, "channel_max": p.channel_max}
    dims = {"z_dim": p.latent_dim, "w_dim": p.latent_dim, "mapping_num_layers": p.mapping_layers}
    return GeneratorConfig(**size, **dims), DiscriminatorConfig(**size, architecture=p.d_architecture)


def _check_freezed(num: int, config: DiscriminatorConfig) -> None:
    """Refuses to freeze more layers than D has."""
    if num == 0:
        return
    with torch.device("meta"):
        most = len(freezable_layers(Discriminator(config)))
    if num > most:
        raise OptionError("--freezed", f"{num} is more than the {most} layers of D that can be frozen")


def _augment(command: Mapping[str, Any], speed_kimg: float) -> AugmentSettings:
    mode, p, target = command["aug"], command.get("p"), command.get("target")
    if p is not None and mode != "fixed":
        raise OptionError("--p", f"needs --aug fixed, got --aug {mode}")
    if p is None and mode == "fixed":
        raise OptionError("--aug", "fixed needs --p, the probability of augmentation")
    if target is not None and mode != "ada":
        raise OptionError("--target", f"needs --aug ada, got --aug {mode}")
    return AugmentSettings(mode, command["augpipe"], p or 0.0, 0.6 if target is None else target, speed_kimg)
