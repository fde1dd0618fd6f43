# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""StyleGAN2 as `ggdr train` knows it: its settings, data, networks and optimisers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from ggdr.metrics.evaluate import Job
from ggdr.scripts.measuring.judge import GeneratorJudge
from ggdr.scripts.measuring.snapshot_images import SnapshotGenerator
from ggdr.scripts.training.host import Prepared
from ggdr.scripts.training.regularizers import (
    build_regularizers,
    describe_regularizers,
    load_networks,
    needs_label_maps,
)
from ggdr.scripts.training.resume import Origin, starting_point
from ggdr.scripts.training.settings import HALF_DTYPES, precision_note, safer_precision
from ggdr.scripts.training.settings_stylegan2 import NAME, StyleGAN2Settings, resolve_settings
from ggdr.scripts.training.start_networks import check_fits, of_options, of_snapshot
from ggdr.stylegan2.attachment import attachment
from ggdr.stylegan2.augment.ada import AdaController
from ggdr.stylegan2.augment.pipe import PIPES, AugmentPipe
from ggdr.stylegan2.config import preset
from ggdr.stylegan2.discriminator import Discriminator
from ggdr.stylegan2.generator import Generator
from ggdr.stylegan2.network_labels import labels_of_dataset
from ggdr.stylegan2.samples import sample_pictures, undrawable_classes
from ggdr.stylegan2.task import StyleGAN2Task
from ggdr.torch_utils.checkpoint import Snapshot, SnapshotError
from ggdr.torch_utils.data.container import Container
from ggdr.torch_utils.data.labels import LabelTable
from ggdr.torch_utils.data.loader import ImageDataset, ImageLoader
from ggdr.torch_utils.distributed import ProcessGroup
from ggdr.torch_utils.ema import averaged
from ggdr.torch_utils.gan import Batch
from ggdr.torch_utils.pictures.images import from_u8
from ggdr.torch_utils.untrusted.text import printable, shortened

MOST_NAMED = 20  # classes in a note

# Settings of G and D that change no name or shape of a parameter.
FREE_NETWORK_FIELDS = ("num_half_res", "conv_clamp", "mbstd_group_size")


def _open_images(snapshot: Path, device: torch.device, labels: LabelTable | None) -> SnapshotGenerator:
    """What is measured of a snapshot."""
    return SnapshotGenerator(snapshot, device, labels=labels)


class StyleGAN2Host:
    """See `scripts.training.host.Host`."""

    name = NAME
    command = "ggdr train"
    data = "`ggdr dataset SOURCE DEST` makes datasets"
    replaces = {"aug": ("p", "target")}
    compiled_on = ("cpu", "cuda")
    has_published = True
    network_options = ()

    def prepare(self, command: Mapping[str, Any], origin: Origin, group: ProcessGroup) -> Prepared:
        snapshot, start = starting_point(
            origin, NAME, of_snapshot, lambda: of_options(origin.stored, str(origin.state_path.parent))
        )
        data = ImageDataset(
            command["data"],
            use_labels=command["cond"],
            mirror=command["mirror"],
            max_images=command["subset"],
            seed=command["seed"],
            use_label_maps=needs_label_maps(command),
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
            label_classes=data.label_classes,
        )
        notes = [f"{printable(data.path)}: {data.left_out}"] if data.left_out else []
        if command["cond"] and data.label_note:
            notes.append(f"{printable(data.path)}: {data.label_note}")
        if data.label_classes is not None:
            notes.append(f"{printable(data.path)}: {data.describe_label_maps()}")
        by_number = undrawable_classes(data)
        if by_number:
            shown = ", ".join(f"{i} is {shortened(name)}" for i, name in islice(by_number.items(), MOST_NAMED))
            more = ", ..." if len(by_number) > MOST_NAMED else ""
            notes.append(f"no font here has the letters of some classes, which pictures call by number: {shown}{more}")
        if settings.cfg == "auto" and start is None and group.device.type == "cpu":
            notes.append("preset auto is for GPUs, and slow on a CPU; --cfg cpu trains a small network")
        if command["subset"] is not None and command["subset"] > data.num_raw:
            notes.append(f"--subset {command['subset']}: there are {data.num_raw:,} images, and all are used")
        tuned_for = preset(settings.cfg, img_resolution=data.resolution).img_resolution
        if command["gamma"] is None and start is None and tuned_for not in (None, data.resolution):
            notes.append(
                f"preset {settings.cfg} is for images of {tuned_for}x{tuned_for}, these have "
                f"{data.resolution}x{data.resolution}: --gamma {settings.loss.r1_gamma:g} may not fit them"
            )
        slow = precision_note(settings.precision, group.device)
        if slow is not None:
            notes.append(slow)
        return Prepared(settings, data, snapshot, notes, data.decoder.container)

    def build(self, settings: StyleGAN2Settings, data: ImageDataset, group: ProcessGroup) -> StyleGAN2Task:
        half_dtype, device = HALF_DTYPES[settings.precision], group.device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            # channels_last: what convolution kernels like best, on CPUs and GPUs alike.
            G = Generator(settings.G, half_dtype=half_dtype).to(device, memory_format=torch.channels_last)
            D = Discriminator(settings.D, half_dtype=half_dtype).to(device, memory_format=torch.channels_last)
            G_ema = averaged(G)
            regularizers = build_regularizers(attachment(G, D, G_ema), settings.regularizers)
        a = settings.augment
        task = StyleGAN2Task(
            G,
            D,
            loss=settings.loss,
            optim=settings.optim,
            sample_labels=data.random_labels,
            G_ema=G_ema,
            augment=None if a.mode == "noaug" else AugmentPipe(PIPES[a.pipe], a.p),
            ada=AdaController(a.p, target=a.target, speed_kimg=a.speed_kimg) if a.mode == "ada" else None,
            regularizers=regularizers,
            labels=labels_of_dataset(data),
            group=group,
            seed=settings.seed,
        )
        task.pictures = sample_pictures(task, data, settings.seed)
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
            for images_u8, c, *label_maps in batches:
                img = from_u8(images_u8).contiguous(memory_format=torch.channels_last)
                yield {"img": img, "c": c, **({"label_map": label_maps[0]} if label_maps else {})}

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
        return notes + load_networks(task, networks, task.regularizers.state_dicts(), snapshot.path)

    def open_judge(self, training: Mapping[str, Any], data: Path | Container, job: Job) -> GeneratorJudge:
        return GeneratorJudge(data, job, _open_images)

    def is_fixed(self, name: str) -> bool:
        part, _, field = name.partition(".")
        return name == "optim.freeze_d" or (part in ("G", "D") and field not in FREE_NETWORK_FIELDS)

    def advice(self, settings: StyleGAN2Settings) -> str:
        return f"{safer_precision(settings.precision)}a larger --gamma, a smaller --lr"

    def memory_trials(self, settings: StyleGAN2Settings) -> list[tuple[StyleGAN2Settings, StyleGAN2Settings]]:
        group, batch_gpu, trials = settings.D.mbstd_group_size, settings.loop.batch_gpu, []
        while True:
            choice = replace(settings, loop=replace(settings.loop, batch_gpu=batch_gpu))
            # With every transform on every image, as ADA may come to it.
            mode = "noaug" if settings.augment.mode == "noaug" else "fixed"
            augment, data = replace(settings.augment, mode=mode, p=1.0), replace(settings.data, workers=0)
            trials.append((choice, replace(choice, augment=augment, data=data)))
            if batch_gpu % 2 or batch_gpu // 2 % group:
                return trials
            batch_gpu //= 2

    def memory_advice(self, settings: StyleGAN2Settings) -> str:
        batch_gpu, group = settings.loop.batch_gpu, settings.D.mbstd_group_size
        parts = [n for n in range(1, batch_gpu) if batch_gpu % n == 0 and (n < group or n % group == 0)]
        ways = []
        if parts:
            effect = "same result but for rounding" if parts[-1] >= group else "smaller groups of minibatch-std"
            ways.append(f"--batch-gpu {parts[-1]} in place of {batch_gpu} ({effect})")
        if settings.precision == "fp32":
            ways.append("--precision fp16 or bf16")
        return "; ".join([*ways, "a new run with a smaller --channel-base, or of images of a lower resolution"])

    def summary(self, settings: StyleGAN2Settings, data: ImageDataset) -> str:
        s = settings
        return (
            f"{s.cfg}: {data.num_images} images of {data.resolution}x{data.resolution}x{data.num_channels} from "
            f"{printable(data.path, 1000)}, {data.describe_labels()}, batch {s.loop.batch}, "
            f"{s.loop.total_nimg / 1000:g} kimg, {describe_regularizers(s.regularizers)}, augmentation {s.augment.mode}"
        )
