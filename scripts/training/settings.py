# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""All settings of a run: resolved from preset and command line, printed by --dry-run, stored as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from ggdr.metrics.names import parse_metrics
from ggdr.stylegan2.config import (
    DiscriminatorConfig,
    GeneratorConfig,
    LossConfig,
    NetworkConfig,
    OptimConfig,
    Preset,
    preset,
)
from ggdr.torch_utils.loop import LoopConfig

if TYPE_CHECKING:
    from ggdr.scripts.training.start_networks import StartNetworks

GGDR_MAX_RES = 64
HALF_CLAMP = 256.0  # bound on activations in half precision
FP16_MAX_SKIPS = 8  # gradients in float16 overflow now and then; eight times in a row is no accident


class OptionError(ValueError):
    """An option's value cannot be used; `option` is its name on the command line, as "--batch"."""

    def __init__(self, option: str, message: str) -> None:
        super().__init__(f"{option}: {message}")
        self.option, self.message = option, message


@dataclass(frozen=True)
class DataOptions:
    """The training set, and what was found in it."""

    path: str
    use_labels: bool
    mirror: bool
    max_images: int | None
    num_images: int
    fingerprint: str
    workers: int | None


@dataclass(frozen=True)
class AugmentOptions:
    """What the discriminator's images go through."""

    mode: str  # "ada", "fixed" or "noaug"
    pipe: str
    p: float  # fixed probability, or where ADA starts
    target: float
    speed_kimg: float


@dataclass(frozen=True)
class GGDROptions:
    """The regulariser."""

    guide_res: tuple[int, ...]
    weight: float


@dataclass(frozen=True)
class TrainingOptions:
    """Everything that decides what a run computes."""

    cfg: str
    data: DataOptions
    G: GeneratorConfig
    D: DiscriminatorConfig
    loss: LossConfig
    optim: OptimConfig
    augment: AugmentOptions
    ggdr: GGDROptions | None
    loop: LoopConfig
    precision: str  # "fp32", "fp16" or "bf16"
    num_processes: int
    seed: int
    init_snapshot: str | None  # transfer learning
    init_source: dict[str, Any] | None  # the file that its weights were imported from
    metrics: tuple[str, ...]  # of each snapshot; the first one chooses the best

    def to_json(self) -> dict[str, Any]:
        """Plain dicts, lists, numbers and strings."""
        return asdict(self)


# What a resumed run may not change: the state would not fit.
FIXED_PARTS = ("G", "D")
FIXED_FIELDS = ("ggdr", "ggdr.guide_res", "optim.freeze_d")
# Settings of G and D that change no name or shape of a parameter.
FREE_NETWORK_FIELDS = ("num_half_res", "conv_clamp", "mbstd_group_size")


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Leaves in which two nests of settings differ, as {"loop.batch": (old, new)}."""
    found: dict[str, tuple[Any, Any]] = {}
    for key in sorted({*old, *new}):
        a, b = old.get(key), new.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found |= differences(a, b, f"{prefix}{key}.")
        elif _plain(a) != _plain(b):
            found[prefix + key] = (_plain(a), _plain(b))
    return found


def blocking(changes: Mapping[str, tuple[Any, Any]]) -> dict[str, tuple[Any, Any]]:
    """Those of `differences` that an exact resume cannot bridge."""
    found = {}
    for name, change in changes.items():
        part, _, field = name.partition(".")
        if name in FIXED_FIELDS or (part in FIXED_PARTS and field not in FREE_NETWORK_FIELDS):
            found[name] = change
    return found


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def resolve(
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
) -> TrainingOptions:
    """Fills in what the command line leaves open.

    Args:
        command:       the options of `ggdr train` by parameter name; None where not given.
        init_snapshot: the snapshot that the weights come from (faster ADA, no EMA ramp-up), or None.
        start:         networks that fit the data, whose settings come before those of preset and command line.

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

    precision = _precision(get("precision"), device_type)
    batch_gpu = _batch_gpu(p.batch, get("batch_gpu"), num_processes)
    size = {
        "img_resolution": resolution,
        "img_channels": channels,
        "c_dim": c_dim,
        "num_half_res": NetworkConfig.num_half_res,
        "conv_clamp": None if precision == "fp32" else HALF_CLAMP,
    }
    mbstd = min(p.mbstd, batch_gpu)
    if batch_gpu % mbstd:
        option = "--batch" if get("batch_gpu") is None else "--batch-gpu"
        raise OptionError(
            option, f"{batch_gpu} images in a forward are not a multiple of minibatch-std's group, {mbstd}"
        )
    G, D = _networks(p, start, size)
    return TrainingOptions(
        cfg=get("cfg"),
        data=DataOptions(
            str(get("data")), c_dim > 0, get("mirror"), get("subset"), num_images, fingerprint[:16], get("workers")
        ),
        G=G,
        D=replace(D, mbstd_group_size=mbstd),
        loss=LossConfig(p.gamma, style_mixing_prob=p.style_mixing_prob, pl_weight=p.pl_weight),
        optim=OptimConfig(p.lr, ema_halflife_kimg=p.ema_kimg, ema_rampup=p.ema_rampup, freeze_d=get("freezed")),
        augment=_augment(command, p.ada_speed_kimg),
        ggdr=_ggdr(command, resolution),
        loop=LoopConfig(
            total_nimg=round(p.kimg * 1000),
            batch=p.batch,
            batch_gpu=batch_gpu,
            tick_nimg=round(p.tick_kimg * 1000),
            snap_ticks=p.snap_ticks,
            max_skips=FP16_MAX_SKIPS if precision == "fp16" else 0,
        ),
        precision=precision,
        num_processes=num_processes,
        seed=get("seed"),
        init_snapshot=init_snapshot,
        init_source=start and start.source,
        metrics=_metrics(get("metrics")),
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


def _metrics(text: str | None) -> tuple[str, ...]:
    try:
        return () if text is None else tuple(spec.name for spec in parse_metrics(text))
    except ValueError as error:
        raise OptionError("--metrics", str(error)) from error


def _batch_gpu(batch: int, batch_gpu: int | None, num_processes: int) -> int:
    """Images in one forward of one process."""
    if batch % num_processes:
        raise OptionError("--batch", f"{batch} is not a multiple of the {num_processes} processes")
    share = batch // num_processes
    if batch_gpu is None:
        return share
    if share % batch_gpu:
        raise OptionError("--batch-gpu", f"{batch_gpu} does not divide the {share} images of a process")
    return batch_gpu


def _augment(command: Mapping[str, Any], speed_kimg: float) -> AugmentOptions:
    mode, p, target = command["aug"], command.get("p"), command.get("target")
    if p is not None and mode != "fixed":
        raise OptionError("--p", f"needs --aug fixed, got --aug {mode}")
    if p is None and mode == "fixed":
        raise OptionError("--aug", "fixed needs --p, the probability of augmentation")
    if target is not None and mode != "ada":
        raise OptionError("--target", f"needs --aug ada, got --aug {mode}")
    return AugmentOptions(mode, command["augpipe"], p or 0.0, 0.6 if target is None else target, speed_kimg)


def _ggdr(command: Mapping[str, Any], resolution: int) -> GGDROptions | None:
    """Guides from 8 up to the image's own resolution."""
    if not command["ggdr"]:
        if command.get("ggdr_res"):
            raise OptionError("--ggdr-res", "needs --ggdr, got --no-ggdr")
        return None
    guide_res = tuple(command.get("ggdr_res") or ()) or (max(min(GGDR_MAX_RES, resolution // 4), 8),)
    allowed = [2**i for i in range(3, resolution.bit_length())]
    for res in guide_res:
        if res not in allowed:
            raise OptionError("--ggdr-res", f"{res} is not among the feature maps {', '.join(map(str, allowed))}")
    return GGDROptions(tuple(sorted(set(guide_res))), command["ggdr_weight"])


def _precision(name: str, device_type: str) -> str:
    if name == "auto":
        return "fp16" if device_type == "cuda" else "fp32"
    if name == "fp16" and device_type == "cpu":
        raise OptionError("--precision", "fp16 needs a GPU; on a CPU use fp32 or bf16")
    return name
