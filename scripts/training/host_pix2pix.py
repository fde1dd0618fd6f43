# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""pix2pix as `ggdr translate train` knows it: its settings, data, networks and optimisers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ggdr.metrics.evaluate import Job
from ggdr.scripts.errors import OptionError
from ggdr.scripts.measuring.translation_data import open_held_out_pairs, open_pairs_judge
from ggdr.scripts.measuring.translation_judge import Translate, TranslationJudge, default_metrics
from ggdr.scripts.options.training import NO_METRICS
from ggdr.scripts.training.host import Prepared
from ggdr.scripts.training.label_maps import add_classes
from ggdr.scripts.training.regularizers import build_regularizers, describe_regularizers, load_networks
from ggdr.scripts.training.resume import Origin
from ggdr.scripts.training.settings_pix2pix import NAME, Networks, Pix2PixSettings, resolve_settings
from ggdr.torch_utils.checkpoint import Snapshot, SnapshotError, load_snapshot
from ggdr.torch_utils.distributed import ProcessGroup
from ggdr.torch_utils.gan import Batch
from ggdr.torch_utils.regularizers import Regularizers
from ggdr.torch_utils.untrusted.text import printable
from ggdr.translation.config import config_from_json
from ggdr.translation.data.datasets import PairedImages
from ggdr.translation.data.loader import TranslationLoader
from ggdr.translation.label_maps import to_input
from ggdr.translation.layers import init_weights
from ggdr.translation.networks import build_network
from ggdr.translation.pix2pix import Pix2PixTask, pix2pix_attachment
from ggdr.translation.samples import pair_pictures
from ggdr.translation.snapshot import load_translator, network_configs

# Which networks that a run takes from a snapshot have no use for.
NETWORK_OPTIONS = ("generator", "channels", "downs", "blocks", "norm", "dropout", "d_layers")


class Pix2PixHost:
    """See `scripts.training.host.Host`."""

    name = NAME
    command = "ggdr translate train"
    data = "expected a folder or zip with pairs of images"
    replaces = {"kimg": ("epochs",), "epochs": ("kimg",), "generator": ("downs", "blocks")}
    has_ops = False
    has_published = False

    def prepare(self, command: Mapping[str, Any], origin: Origin, group: ProcessGroup) -> Prepared:
        snapshot, start = _starting_point(origin)
        if start is not None:
            for name in NETWORK_OPTIONS:
                if command[name] is not None:
                    text = f"the networks are those of {origin.init_snapshot}; leave it out"
                    raise OptionError(f"--{name.replace('_', '-')}", text)
        data = PairedImages(command["data"], direction=command["direction"], channels=int(command["img_channels"]))
        first = tuple(map(printable, data.first_pair()))
        data, label_notes = add_classes(data, command, origin, snapshot, is_shown=group.is_main)
        if start is not None:
            _check_fits(start, data, origin)
        settings = resolve_settings(
            command,
            data,
            default_metrics=_default_metrics(command),
            num_processes=group.world,
            init_snapshot=origin.init_snapshot,
            start=start,
        )
        data.decoder(settings.crop)(data.middles([0]))  # an image that is too small is an error now
        notes = [f"of the first pair the input is {first[0]}, the target {first[1]}"]
        notes += label_notes
        notes += [f"{printable(data.path)}: {data.left_out}"] if data.left_out else []
        if settings.cfg == "paper" and start is None and group.device.type == "cpu":
            notes.append(
                "preset paper is for GPUs, and slow on a CPU; --cfg cpu trains a small network on 32x32 pixels"
            )
        if settings.G.norm == "batch" and settings.loop.batch_gpu > 1:
            notes.append(
                f"batch norms see {settings.loop.batch_gpu} images together in training, and one afterwards; "
                "--norm instance has no such difference"
            )
        return Prepared(settings, data, snapshot, notes)

    def build(self, settings: Pix2PixSettings, data: PairedImages, group: ProcessGroup) -> Pix2PixTask:
        rng = torch.Generator().manual_seed(settings.seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            G, D = build_network(settings.G), build_network(settings.D)
            for net in (G, D):
                init_weights(net, rng)
                net.to(group.device)
            regularizers = Regularizers()
            if settings.regularizers:  # without any, the size of the images need not suit them
                attachment = pix2pix_attachment(G, D, settings.crop.size)
                regularizers = build_regularizers(attachment, settings.regularizers)
        task = Pix2PixTask(
            G,
            D,
            settings.optim,
            regularizers=regularizers,
            labels=settings.labels,
            group=group,
            seed=settings.seed,
        )
        task.pictures = pair_pictures(task, data, settings.crop, seed=settings.seed)
        return task

    def batches(
        self, settings: Pix2PixSettings, data: PairedImages, group: ProcessGroup, start_nimg: int
    ) -> Iterator[Batch]:
        loader = TranslationLoader(
            data,
            settings.crop,
            settings.loop.batch,
            rank=group.rank,
            world=group.world,
            start_position=start_nimg,
            seed=settings.seed,
            num_workers=settings.data.workers,
            device=group.device,
        )
        with closing(iter(loader)) as batches:
            for batch in batches:
                sides = zip(batch.items(), data.sides, strict=True)
                yield {name: to_input(images_u8, side.classes) for (name, images_u8), side in sides}

    def load_weights(self, task: Pix2PixTask, snapshot: Snapshot) -> list[str]:
        return load_networks(task, snapshot.networks, task.regularizers[""], snapshot.path)

    def open_judge(self, training: Mapping[str, Any], data: Path, job: Job) -> TranslationJudge:
        return open_pairs_judge(training, data, job, _load_translators)

    def is_fixed(self, name: str) -> bool:
        return name.partition(".")[0] in ("G", "D", "labels") or name == "data.direction"

    def advice(self, settings: Pix2PixSettings) -> str:
        return "a smaller --lr"

    def memory_trials(self, settings: Pix2PixSettings) -> list[tuple[Pix2PixSettings, Pix2PixSettings]]:
        # Batch norms see the images of a forward together: parts of a batch do not give the same result.
        return [(settings, settings)]

    def memory_advice(self, settings: Pix2PixSettings) -> str:
        fewer = "a smaller --batch, " if settings.loop.batch_gpu > 1 else ""
        return f"{fewer}a smaller --crop; or a new run with fewer --channels"

    def summary(self, settings: Pix2PixSettings, data: PairedImages) -> str:
        s, kind = settings, settings.G.network.partition("_")[0]
        return (
            f"{s.cfg}: {data.num_images} pairs from {printable(data.path, 1000)}, {s.data.direction}, {s.crop.size}x"
            f"{s.crop.size} pixels, {kind} of {s.G.channels} channels, batch {s.loop.batch}, "
            f"{s.loop.total_nimg / 1000:g} kimg, {describe_regularizers(s.regularizers)}"
        )


def _load_translators(snapshot: Path, device: torch.device) -> dict[str, Translate]:
    """How a snapshot translates, as it is measured."""
    translator = load_translator(snapshot, device)

    def translate(images_u8: Tensor, seeds: Sequence[int]) -> Tensor:
        inputs = to_input(images_u8, translator.labels).split(1)
        return torch.cat([translator(x, seed=seed) for x, seed in zip(inputs, seeds, strict=True)])

    return {"AtoB": translate}


def _default_metrics(command: Mapping[str, Any]) -> str:
    """What is measured where --metrics does not say it; nothing is opened where it does."""
    if command["metrics"] is not None:
        return NO_METRICS
    where = {"direction": command["direction"], "channels": int(command["img_channels"])}
    pairs, _ = open_held_out_pairs(command["metrics_data"] or command["data"], **where)
    return default_metrics(pairs.num_images, has_pairs=True)


def _starting_point(origin: Origin) -> tuple[Snapshot | None, Networks | None]:
    """The snapshot that a new run starts from, and the networks of a run that starts, or once started, from one."""
    if origin.init_snapshot is None:
        return None, None
    if origin.state_path is None:
        snapshot = load_snapshot(origin.init_snapshot)
        return snapshot, network_configs(snapshot)
    try:  # the snapshot itself may be gone by now
        return None, (config_from_json(origin.stored["G"]), config_from_json(origin.stored["D"]))
    except (KeyError, ValueError) as error:
        text = f"{origin.options_path}: settings of G and D are missing or damaged: {printable(error)}"
        raise SnapshotError(text) from error


def _check_fits(start: Networks, data: PairedImages, origin: Origin) -> None:
    """Raises OptionError where networks are for images of other channels than those of the dataset."""
    G, D = start
    of_data = tuple(side.planes for side in data.sides)
    if of_data != (G.in_channels, G.out_channels) or sum(of_data) != D.in_channels:
        raise OptionError(
            "--data",
            f"its images have {of_data[0]} and {of_data[1]} channels, and {origin.init_snapshot} is for "
            f"{G.in_channels} and {G.out_channels}; see --img-channels",
        )
