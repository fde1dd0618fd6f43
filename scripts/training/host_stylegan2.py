# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""StyleGAN2 as `ggdr train` knows it: its settings, data, networks and optimisers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ggdr.scripts.errors import OptionError
from ggdr.scripts.training.host import Prepared
from ggdr.scripts.training.regularizers import build_regularizers, describe_regularizers, resolve_regularizers
from ggdr.scripts.training.resume import Origin
from ggdr.scripts.training.settings import (
    FP16_MAX_SKIPS,
    HALF_DTYPES,
    DataSettings,
    RunSettings,
    resolve_batch_gpu,
    resolve_metrics,
    resolve_precision,
)
from ggdr.scripts.training.start_networks import StartNetworks, check_fits, starting_point
from ggdr.stylegan2.attachment import attachment
from ggdr.stylegan2.augment.ada import AdaController
from ggdr.stylegan2.augment.pipe import PIPES, AugmentPipe
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
from ggdr.stylegan2.generator import Generator
from ggdr.stylegan2.samples import sample_pictures
from ggdr.stylegan2.task import StyleGAN2Task, freezable_layers
from ggdr.torch_utils.checkpoint import Snapshot, SnapshotError
from ggdr.torch_utils.data.loader import ImageDataset, ImageLoader
from ggdr.torch_utils.distributed import ProcessGroup
from ggdr.torch_utils.gan import Batch
from ggdr.torch_utils.loop import LoopConfig
from ggdr.torch_utils.pictures.images import from_u8
from ggdr.torch_utils.untrusted.text import printable

HALF_CLAMP = 256.0  # bound on activations in half precision
# Settings of G and D that change no name or shape of a parameter.
FREE_NETWORK_FIELDS = ("num_half_res", "conv_clamp", "mbstd_group_size")


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

    G: GeneratorConfig
    D: DiscriminatorConfig
    loss: LossConfig
    optim: OptimConfig
    augment: AugmentSettings


class StyleGAN2Host:
    """See `scripts.training.host.Host`."""

    name = "stylegan2"
    command = "ggdr train"
    replaces = {"aug": ("p", "target")}

    def prepare(self, command: Mapping[str, Any], origin: Origin, group: ProcessGroup) -> Prepared:
        snapshot, start = starting_point(origin)
        data = ImageDataset(
            command["data"],
            use_labels=command["cond"],
            mirror=command["mirror"],
            max_images=command["subset"],
            seed=command["seed"],
        )
        size = {"resolution": data.resolution, "channels": data.num_channels, "c_dim": data.c_dim}
        if start is not None:
            check_fits(start, command, **size)
        settings = resolve_settings(
            command,
            **size,
            num_images=data.num_images,
            fingerprint=data.fingerprint(),
            num_processes=group.world,
            device_type=group.device.type,
            init_snapshot=origin.init_snapshot,
            start=start,
        )
        notes = []
        if settings.cfg == "auto" and start is None and group.device.type == "cpu":
            notes.append("preset auto is for GPUs, and slow on a CPU; --cfg cpu trains a small network")
        return Prepared(settings, data, snapshot, notes)

    def build(self, settings: StyleGAN2Settings, data: ImageDataset, group: ProcessGroup) -> StyleGAN2Task:
        half_dtype, device = HALF_DTYPES[settings.precision], group.device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            # channels_last: what convolution kernels like best, on CPUs and GPUs alike.
            G = Generator(settings.G, half_dtype=half_dtype).to(device, memory_format=torch.channels_last)
            D = Discriminator(settings.D, half_dtype=half_dtype).to(device, memory_format=torch.channels_last)
            regularizers = build_regularizers(attachment(G, D), settings.regularizers)
        a = settings.augment
        task = StyleGAN2Task(
            G,
            D,
            loss=settings.loss,
            optim=settings.optim,
            sample_labels=data.random_labels,
            augment=None if a.mode == "noaug" else AugmentPipe(PIPES[a.pipe], a.p),
            ada=AdaController(a.p, target=a.target, speed_kimg=a.speed_kimg) if a.mode == "ada" else None,
            regularizers=regularizers,
            group=group,
            seed=settings.seed,
        )
        task.pictures = sample_pictures(task, data, settings.seed)
        networks, _ = task.snapshot()
        group.broadcast_(x for state in networks.values() for x in state.values())
        return task

    def batches(
        self, settings: StyleGAN2Settings, data: ImageDataset, group: ProcessGroup, start_nimg: int
    ) -> Iterator[Batch]:
        loader = ImageLoader(
            data,
            settings.loop.batch,
            rank=group.rank,
            world=group.world,
            start_position=start_nimg,
            seed=settings.seed,
            num_workers=settings.data.workers,
            device=group.device,
        )
        with closing(iter(loader)) as batches:
            for images_u8, c in batches:
                yield {"img": from_u8(images_u8).contiguous(memory_format=torch.channels_last), "c": c}

    def load_weights(self, task: StyleGAN2Task, snapshot: Snapshot) -> list[str]:
        _, config = task.snapshot()
        for net in ("G", "D"):
            theirs, ours = snapshot.config.get(net), config[net]
            if not isinstance(theirs, Mapping):
                raise SnapshotError(f"{snapshot.path}: has no settings of {net}; is it a StyleGAN2 snapshot?")
            differing = [key for key in ours if key not in FREE_NETWORK_FIELDS and theirs.get(key) != ours[key]]
            if differing:
                table = ", ".join(f"{key} {theirs.get(key)} (this run: {ours[key]})" for key in differing)
                raise SnapshotError(f"{snapshot.path}: {net} is of another architecture: {table}")
        networks = dict(snapshot.networks)
        notes = []
        if "G" not in networks and "G_ema" in networks:
            networks["G"] = networks["G_ema"]
            notes.append(f"{snapshot.path} has no G; it starts as G_ema")
        elif "G_ema" not in networks and "G" in networks:
            networks["G_ema"] = networks["G"]
        for name, state in task.regularizers.state_dicts().items():
            if state and _shapes(networks.get(name, {})) != _shapes(state):
                networks[name] = state
                notes.append(f"{snapshot.path} has no weights of {name} like this run's; it starts untrained")
        try:
            task.load_networks(networks)
        except (KeyError, RuntimeError) as error:
            raise SnapshotError(f"{snapshot.path}: weights do not fit: {printable(error)}") from error
        return notes

    def is_fixed(self, name: str) -> bool:
        part, _, field = name.partition(".")
        return name == "optim.freeze_d" or (part in ("G", "D") and field not in FREE_NETWORK_FIELDS)

    def advice(self, settings: StyleGAN2Settings) -> str:
        safer = {"fp16": "--precision fp32 or bf16, ", "bf16": "--precision fp32, "}.get(settings.precision, "")
        return f"{safer}a larger --gamma, a smaller --lr"

    def summary(self, settings: StyleGAN2Settings, data: ImageDataset) -> str:
        s = settings
        return (
            f"{s.cfg}: {data.num_images} images of {data.resolution}x{data.resolution}x{data.num_channels} from "
            f"{data.path}, {s.G.c_dim} classes, batch {s.loop.batch}, {s.loop.total_nimg / 1000:g} kimg, "
            f"{describe_regularizers(s.regularizers)}, augmentation {s.augment.mode}"
        )


def _shapes(state: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in state.items()}


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
) -> StyleGAN2Settings:
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
        option = "--batch" if get("batch_gpu") is None else "--batch-gpu"
        raise OptionError(
            option, f"{batch_gpu} images in a forward are not a multiple of minibatch-std's group, {mbstd}"
        )
    G, D = _networks(p, start, size)
    _check_freezed(get("freezed"), D)
    return StyleGAN2Settings(
        host=StyleGAN2Host.name,
        cfg=get("cfg"),
        data=DataSettings(
            str(get("data")), c_dim > 0, get("mirror"), get("subset"), num_images, fingerprint[:16], get("workers")
        ),
        G=G,
        D=replace(D, mbstd_group_size=mbstd),
        loss=LossConfig(p.gamma, style_mixing_prob=p.style_mixing_prob, pl_weight=p.pl_weight),
        optim=OptimConfig(p.lr, ema_halflife_kimg=p.ema_kimg, ema_rampup=p.ema_rampup, freeze_d=get("freezed")),
        augment=_augment(command, p.ada_speed_kimg),
        regularizers=resolve_regularizers(command, resolution),
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
        metrics=resolve_metrics(get("metrics")),
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
