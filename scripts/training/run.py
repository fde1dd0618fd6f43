# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""One training run: builds the task from its options, and keeps the run folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ggdr import GGDR
from ggdr.scripts.measuring.snapshot_metrics import SnapshotMetrics
from ggdr.scripts.training.run_folder import RunFolder
from ggdr.scripts.training.settings import FREE_NETWORK_FIELDS, GGDROptions, TrainingOptions
from ggdr.stylegan2.augment.ada import AdaController
from ggdr.stylegan2.augment.pipe import PIPES, AugmentPipe
from ggdr.stylegan2.discriminator import Discriminator
from ggdr.stylegan2.generator import Generator
from ggdr.stylegan2.task import StyleGAN2Task
from ggdr.torch_utils.checkpoint import Snapshot, SnapshotError, save_snapshot, save_state
from ggdr.torch_utils.data.loader import ImageDataset, ImageLoader
from ggdr.torch_utils.distributed import ProcessGroup
from ggdr.torch_utils.loop import LoopConfig, train
from ggdr.torch_utils.pictures.images import from_u8, grid_classes, grid_size, make_grid, save_image
from ggdr.torch_utils.runlog import RunLog
from ggdr.torch_utils.timing.allocator import keep_freed_memory
from ggdr.torch_utils.untrusted.text import printable

HALF_DTYPES = {"fp32": None, "fp16": torch.float16, "bf16": torch.bfloat16}


def build_ggdr(G: Generator, D: Discriminator, options: GGDROptions, device: torch.device) -> GGDR:
    """GGDR on StyleGAN2's synthesis blocks and discriminator blocks."""

    def probe() -> None:
        c = torch.zeros([1, G.c_dim], device=device)
        D(G(torch.zeros([1, G.z_dim], device=device), c, noise_mode="none"), c)

    return GGDR(
        G,
        D,
        guide=[f"synthesis.b{res}" for res in options.guide_res],
        encoder=[f"b{res}" for res in D.resolutions],
        probe=probe,
        weight=options.weight,
    )


def build_task(options: TrainingOptions, dataset: ImageDataset, group: ProcessGroup) -> StyleGAN2Task:
    """Freshly initialised networks, losses and optimisers; the same on every process."""
    half_dtype, device = HALF_DTYPES[options.precision], group.device
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        # channels_last: what convolution kernels like best, on CPUs and GPUs alike.
        G = Generator(options.G, half_dtype=half_dtype).to(device, memory_format=torch.channels_last)
        D = Discriminator(options.D, half_dtype=half_dtype).to(device, memory_format=torch.channels_last)
        regularizer = None if options.ggdr is None else build_ggdr(G, D, options.ggdr, device)
    a = options.augment
    task = StyleGAN2Task(
        G,
        D,
        loss=options.loss,
        optim=options.optim,
        sample_labels=dataset.random_labels,
        augment=None if a.mode == "noaug" else AugmentPipe(PIPES[a.pipe], a.p),
        ada=AdaController(a.p, target=a.target, speed_kimg=a.speed_kimg) if a.mode == "ada" else None,
        regularizer=regularizer,
        group=group,
        seed=options.seed,
    )
    networks, _ = task.snapshot()
    group.broadcast_(x for state in networks.values() for x in state.values())
    return task


def tune_process(device: torch.device, precision: str) -> None:
    """Settings of PyTorch and the C library, for this process, with which a training step is fast."""
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.allow_tf32 = precision != "fp32"
    else:
        keep_freed_memory()


def load_snapshot_into(task: StyleGAN2Task, snapshot: Snapshot) -> list[str]:
    """Starts from the weights of a snapshot (transfer learning); returns what to tell about it.

    Raises:
        SnapshotError: it is of another architecture or size; says in which settings.
    """
    _, config = task.snapshot()
    for net in ("G", "D"):
        theirs, ours = snapshot.config.get(net), config[net]
        if not isinstance(theirs, Mapping):
            raise SnapshotError(f"{snapshot.path}: has no settings of {net}; is it a StyleGAN2 snapshot?")
        differing = [key for key in ours if key not in FREE_NETWORK_FIELDS and theirs.get(key) != ours[key]]
        if differing:
            table = ", ".join(f"{key} {theirs.get(key)} (this run: {ours[key]})" for key in differing)
            raise SnapshotError(f"{snapshot.path}: {net} is of another architecture: {table}")
    networks, reg = dict(snapshot.networks), task.regularizer
    notes = []
    if "G" not in networks and "G_ema" in networks:
        networks["G"] = networks["G_ema"]
        notes.append(f"{snapshot.path} has no G; it starts as G_ema")
    elif "G_ema" not in networks and "G" in networks:
        networks["G_ema"] = networks["G"]
    if reg is not None and _shapes(networks.get(reg.name, {})) != _shapes(reg.state_dict()):
        networks[reg.name] = reg.state_dict()
        notes.append(f"{snapshot.path} has no {reg.name} decoder like this run's; it starts untrained")
    try:
        task.load_networks(networks)
    except (KeyError, RuntimeError) as error:
        raise SnapshotError(f"{snapshot.path}: weights do not fit: {printable(error)}") from error
    return notes


def _shapes(state: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in state.items()}


class Samples:
    """The pictures of a run: reals.png once, fakesKKKKKK.png of fixed latents at each snapshot."""

    def __init__(self, task: StyleGAN2Task, dataset: ImageDataset, seed: int) -> None:
        self.task, self.dataset, self.seed = task, dataset, seed
        self.grid = grid_size(dataset.resolution, dataset.num_raw, num_classes=dataset.c_dim)
        n = self.grid.num_images
        rng = torch.Generator().manual_seed(seed)
        self.z = torch.randn([n, task.G.z_dim], generator=rng)
        self.c = torch.zeros([n, dataset.c_dim])
        self.row_labels = None
        if dataset.label_counts is not None and dataset.c_dim > 0:
            rows = grid_classes(self.grid, dataset.c_dim)
            self.c[torch.arange(n), torch.tensor(rows).repeat_interleave(self.grid.columns)] = 1
            self.row_labels = [dataset.classes[i] if dataset.classes else str(i) for i in rows]
        elif dataset.c_dim > 0:
            self.c = dataset.random_labels(n, rng)

    def reals(self) -> np.ndarray:
        """Real images on the same grid as the fakes, rows by class if there are labels."""
        n, rng = self.grid.num_images, np.random.default_rng(self.seed)
        order = rng.permutation(self.dataset.num_raw)
        if self.row_labels is not None:
            labels = self.dataset.labels(order).argmax(axis=1)
            rows = self.c.argmax(dim=1)[:: self.grid.columns].tolist()
            picks = [np.resize(order[labels == k], self.grid.columns) for k in rows if (labels == k).any()]
            order = np.concatenate(picks)
        images = torch.from_numpy(self.dataset.images_u8(order[:n]))
        labels = self.row_labels if len(images) == n else None
        return make_grid(images, self.grid.columns, scale=self.grid.scale, row_labels=labels)

    def fakes(self) -> np.ndarray:
        """The averaged generator's images of the fixed latents."""
        img = self.task.sample(self.z, self.c)
        return make_grid(img, self.grid.columns, scale=self.grid.scale, row_labels=self.row_labels)


def run(
    options: TrainingOptions,
    dataset: ImageDataset,
    task: StyleGAN2Task,
    folder: RunFolder,
    *,
    group: ProcessGroup,
    metrics: SnapshotMetrics | None,
    resume: Mapping[str, Any] | None,
    notes: list[str],
) -> int:
    """Trains, writing into the run folder; returns the images trained on in all.

    Raises what `ggdr.torch_utils.loop.train` raises, DataError for a damaged image, and OSError where a file cannot be
    written; the last saved state stays as it was.
    """
    start_nimg = 0 if resume is None else resume["counters"]["nimg"]
    tune_process(group.device, options.precision)
    samples = Samples(task, dataset, options.seed)
    with RunLog(folder.path, total_nimg=options.loop.total_nimg, start_nimg=start_nimg, is_main=group.is_main) as log:
        # What an earlier process reported after the state that it saved, or without saving any, is void.
        try:
            log.truncate_after(start_nimg)
        except ValueError as error:
            raise SnapshotError(f"{error}; mend or remove that file") from error
        if metrics is not None:
            metrics.forget_after(start_nimg)
        for note in notes:
            log.info(note)

        if group.is_main and not (folder.path / "reals.png").exists():
            save_image(samples.reals(), folder.path / "reals.png")

        def on_snapshot(nimg: int) -> None:
            name = kimg_name(nimg, options.loop)
            snapshot = folder.path / f"network-snapshot-{name}.safetensors"
            if group.is_main:
                fakes = samples.fakes()
                save_image(fakes, folder.path / f"fakes{name}.png")
                log.image("fakes", fakes, nimg)
                if nimg > 0:
                    networks, config = task.snapshot()
                    config |= {"nimg": nimg, "training": options.to_json()}
                    save_snapshot(snapshot, networks, config)
            if metrics is not None and nimg > 0:
                metrics(snapshot, nimg, log)

        def save(state: dict[str, Any]) -> None:
            if group.is_main:
                save_state(folder.state_path, {**state, "options": options.to_json()})
            group.barrier()

        loader = ImageLoader(
            dataset,
            options.loop.batch,
            rank=group.rank,
            world=group.world,
            start_position=start_nimg,
            seed=options.seed,
            num_workers=options.data.workers,
            device=group.device,
        )
        nimg = train(
            task,
            float_batches(iter(loader)),
            options.loop,
            log=log,
            save_state=save,
            on_snapshot=on_snapshot,
            group=group,
            resume=resume,
        )
        if nimg >= options.loop.total_nimg:
            log.info(f"done: {nimg / 1000:.1f} kimg; results in {folder.path}")
        else:
            log.info(f"saved; go on with: ggdr train --outdir {folder.path} --resume latest")
        return nimg


def kimg_name(nimg: int, loop: LoopConfig) -> str:
    """KKKKKK of file names; with three decimals in runs whose snapshots are less than 1 kimg apart."""
    if min(loop.tick_nimg * loop.snap_ticks, loop.total_nimg) >= 1000:
        return f"{nimg // 1000:06d}"
    return f"{nimg / 1000:010.3f}"


def float_batches(batches: Iterator[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
    """uint8 batches of the loader as float32 in [-1, 1]."""
    for images_u8, c in batches:
        yield from_u8(images_u8).contiguous(memory_format=torch.channels_last), c
