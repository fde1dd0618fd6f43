# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr project`: the latents whose images are closest to given ones."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ggdr.scripts.errors import CliError, metric_errors
from ggdr.scripts.options.network import (
    batch_option,
    check_class,
    class_option,
    make_folder,
    network_option,
    outdir_option,
    writing_images,
)
from ggdr.scripts.options.parameters import (
    FiniteFloat,
    bad_parameter,
    choose_device,
    device_option,
    ops_option,
    prepare_ops,
)
from ggdr.scripts.options.progress import progress_bars

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ggdr.scripts.viewing.photographs import Target
    from ggdr.scripts.viewing.projection_files import Result
    from ggdr.stylegan2 import Discriminator, Generator
    from ggdr.stylegan2.latent.projection import ProjectionConfig, WStatistics

    DistanceTo = Callable[[Tensor], Callable[[Tensor], Tensor]]  # targets to the distances of images from them

NUM_FRAMES = 120  # of a video, before its last image is held
LPIPS_SIZES = (16, 256)  # pixels: for LPIPS smaller images are enlarged, larger ones shrunk, as in the paper

EXAMPLES = """\b
Examples:
  ggdr project photo.jpg --network network-snapshot-000100.safetensors --outdir projected
  ggdr project faces/ --network net.safetensors --space w+ --steps 1000 --video gif --outdir projected
"""


@click.command(no_args_is_help=True, epilog=EXAMPLES, context_settings={"show_default": True})
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@network_option
@outdir_option
@click.option(
    "--space",
    type=click.Choice(["w", "w+"]),
    default="w",
    help="w: one latent for all layers, which the network knows how to vary; w+: one for each layer, closer to the "
    "image.",
)
@click.option("--steps", metavar="N", type=click.IntRange(min=1), default=500, help="Steps of the optimisation.")
@click.option(
    "--lr",
    metavar="RATE",
    type=FiniteFloat(min=0, max=1000, min_open=True),
    default=0.05,
    help="Highest learning rate, in standard deviations of W.",
)
@click.option(
    "--noise-mode",
    type=click.Choice(["const", "none", "optimise"]),
    default="const",
    help="Noise inputs: the network's own, none, or looked for too.",
)
@class_option
@click.option("--seed", metavar="N", type=click.IntRange(0, 2**63 - 1), default=0, help="Of all that is random.")
@click.option("--vgg", metavar="FILE", type=click.Path(path_type=Path), help="vgg16-397923af.pth: compare by LPIPS.")
@click.option("--lpips", metavar="FILE", type=click.Path(path_type=Path), help="LPIPS v0.1 vgg.pth, beside --vgg.")
@click.option(
    "--video", type=click.Choice(["mp4", "gif", "webp"]), default="mp4", help="Kind of the optimisation's videos."
)
@click.option("--no-video", is_flag=True, help="Make no videos.")
@batch_option(8)
@device_option
@ops_option
def main(images: tuple[Path, ...], network: Path, outdir: Path, class_idx: int | None, **command: Any) -> None:
    """Find the latents of images: of files, folders and zips, of any size and kind.

    Their central square is resized to the network's resolution. Writes for photo.jpg photo-target.png,
    photo-projected.png, photo-loss.png, photo.mp4 and the latent, photo.npz; and sheet.png of all images. Without
    LPIPS images are compared by their pixels at all scales and by the features of the snapshot's discriminator.
    """
    if (command["vgg"] is None) != (command["lpips"] is None):
        missing = "--lpips" if command["lpips"] is None else "--vgg"
        raise bad_parameter("LPIPS needs both --vgg FILE and --lpips FILE, got the other one only", missing)
    device = choose_device(command["device"])
    G, D = _open_networks(network, device)
    check_class(network, G, class_idx)

    from ggdr.scripts.viewing.photographs import read_targets
    from ggdr.scripts.viewing.projection_files import save_result, save_sheet
    from ggdr.stylegan2.latent.projection import ProjectionConfig, ProjectionError, w_statistics
    from ggdr.torch_utils.timing.allocator import keep_freed_memory

    with metric_errors():
        distance_to, distance = _choose_distance(D, command["vgg"], command["lpips"], device)
        targets = read_targets(images, G.img_resolution, G.img_channels)
    make_folder(outdir)
    prepare_ops(command["ops"], device)
    if device.type == "cpu":
        keep_freed_memory()
    for target in targets:
        click.echo(target.describe())
    click.echo(f"compared by {distance}")

    config = ProjectionConfig(command["steps"], command["space"], lr=command["lr"])
    about = {name: command[name] for name in ("space", "steps", "lr", "noise_mode", "seed")}
    about |= {"network": str(network), "class": class_idx, "distance": distance}
    video = None if command["no_video"] else command["video"]
    batch_size, results, started_at = command["batch_size"], [], time.monotonic()
    with writing_images(outdir, batch_size), progress_bars() as progress:
        start = w_statistics(G.mapping, class_idx, seed=command["seed"])
        _check_images_of(network, G, start)
        projector = Projector(G, distance_to, config, start, command["noise_mode"], command["seed"])
        for batch in (targets[i : i + batch_size] for i in range(0, len(targets), batch_size)):
            num_before = len(results)

            def on_step(step: int, num_before: int = num_before, num: int = len(batch)) -> None:
                progress("steps", num_before * config.steps + num * step, len(targets) * config.steps)

            try:
                found = projector(batch, 0 if video is None else NUM_FRAMES, on_step)
            except ProjectionError as error:
                raise CliError(f"--lr {config.lr:g}: {error}; expected a lower learning rate") from error
            for result in found:
                save_result(result, outdir, about, video=video)
                results.append(replace(result, frames={}))
        save_sheet(results, outdir / "sheet.png", title=f"{network.stem}, projected to {config.space.upper()}")
    for result in results:
        click.echo(f"{result.target.name}: {result.closeness()}")
    seconds = time.monotonic() - started_at
    click.echo(f"projected in {seconds:.0f} s, written to {outdir}")


@dataclass(frozen=True)
class Projector:
    """Projects batches of targets with one network.

    Attributes:
        start:      the mean of W, where latents start, and its spread.
        noise_mode: const, none or optimise.
    """

    G: Generator
    distance_to: DistanceTo
    config: ProjectionConfig
    start: WStatistics
    noise_mode: str
    seed: int

    def __call__(self, targets: Sequence[Target], num_frames: int, on_step: Callable[[int], None]) -> list[Result]:
        """The results of targets, each with about `num_frames` frames of the optimisation.

        Raises:
            ProjectionError: a distance became NaN or infinite.
        """
        import numpy as np
        import torch

        from ggdr.metrics.float32 import exact_float32
        from ggdr.scripts.viewing.projection_files import Result
        from ggdr.stylegan2.latent.projection import project
        from ggdr.torch_utils.pictures.images import from_u8, to_u8

        device = self.start.mean.device
        target = from_u8(torch.from_numpy(np.stack([t.image for t in targets]))).permute(0, 3, 1, 2).contiguous()
        shown = set(np.linspace(0, self.config.steps, num_frames).round().astype(int).tolist())
        frames: dict[int, np.ndarray] = {}

        def images_of(ws: Tensor, noise: Sequence[Tensor] | None) -> np.ndarray:
            with torch.no_grad():
                return to_u8(self.synthesis(ws, noise)).permute(0, 2, 3, 1).cpu().numpy()

        def watch(step: int, ws: Tensor, noise: Sequence[Tensor] | None) -> None:
            if step in shown:
                frames[step] = images_of(ws, noise)
            on_step(step)

        with exact_float32(device):
            found = project(
                self.distance_to(target.to(device)),
                self.synthesis,
                self.start.mean.expand(len(targets), -1),
                self.G.num_ws,
                self.start.std,
                self.config,
                noise_shapes=self.G.synthesis.noise_shapes() if self.noise_mode == "optimise" else None,
                seed=self.seed,
                on_step=watch,
            )
            images = images_of(found.ws, found.noise)
        ws, losses = found.ws.cpu().numpy(), found.losses.numpy()
        noise = [x.cpu().numpy() for x in found.noise or ()]
        return [
            Result(
                targets[i],
                images[i],
                ws[i : i + 1],
                [x[i : i + 1] for x in noise],
                losses[i],
                {step: frame[i] for step, frame in frames.items()},
            )
            for i in range(len(targets))
        ]

    def synthesis(self, ws: Tensor, noise: Sequence[Tensor] | None) -> Tensor:
        """ws [N, num_ws, w_dim] to images; noise None is that of `noise_mode`."""
        return self.G.synthesis(ws, noise=noise, noise_mode="none" if self.noise_mode == "none" else "const")


def _open_networks(network: Path, device: torch.device) -> tuple[Generator, Discriminator | None]:
    """The averaged generator of a snapshot, and its discriminator if it holds one; BadParameter if unreadable."""
    from ggdr.stylegan2.snapshot import discriminator_of, generator_of
    from ggdr.torch_utils.checkpoint import SnapshotError, load_snapshot

    try:
        snapshot = load_snapshot(network)
        G = generator_of(snapshot, device)
        return G, discriminator_of(snapshot, device) if "D" in snapshot.networks else None
    except (SnapshotError, OSError) as error:
        raise bad_parameter(str(error), "--network") from error


def _check_images_of(network: Path, G: Generator, start: WStatistics) -> None:
    """CliError if the network makes no images."""
    import torch

    with torch.no_grad():
        img = G.synthesis(start.mean.expand(1, G.num_ws, -1), noise_mode="const")
    if not img.isfinite().all():
        raise CliError(f"{network}: its images hold NaN or infinite numbers: the network has diverged")


def _choose_distance(
    D: Discriminator | None, vgg: Path | None, lpips: Path | None, device: torch.device
) -> tuple[DistanceTo, str]:
    """LPIPS if its weights are given, else the distance that needs none; and what to call it.

    Raises:
        WeightsError: weights of LPIPS cannot be read.
    """
    from ggdr.metrics.lpips import LPIPS_FILE, load_lpips
    from ggdr.metrics.vgg import VGG16_FILE
    from ggdr.stylegan2.latent.image_distance import distance_to, within_range
    from ggdr.torch_utils.downloads import find_weights

    if vgg is not None and lpips is not None:
        net = load_lpips(find_weights(VGG16_FILE, vgg), find_weights(LPIPS_FILE, lpips), device)
        return lambda target: lambda img: lpips_distance(net, within_range(img, target), target), "LPIPS"
    about = "pixels" if D is None else "pixels and the features of the snapshot's discriminator"
    return lambda target: distance_to(target, D), about


def lpips_distance(net: Callable[[Tensor, Tensor], Tensor], img0: Tensor, img1: Tensor) -> Tensor:
    """LPIPS of images [N, C, res, res] with 1, 3 or 4 channels: [N]; alpha counts as a grey image of its own."""
    import torch
    import torch.nn.functional as F

    def colours(x: Tensor) -> Tensor:
        """[N, C, ...] to [N, 3, ...], or of four channels [2N, 3, ...]."""
        if x.shape[1] == 4:
            return torch.cat([x[:, :3], x[:, 3:].expand(-1, 3, -1, -1)])
        return x.expand(-1, 3, -1, -1)

    res = min(max(img0.shape[-1], LPIPS_SIZES[0]), LPIPS_SIZES[1])
    resized = [F.interpolate(colours(x), (res, res), mode="area") for x in (img0, img1)]
    return net(*resized).view(-1, len(img0)).sum(0)
