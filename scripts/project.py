# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr project`: the latents whose images are closest to given ones."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from ggdr.scripts.errors import CliError, metric_errors
from ggdr.scripts.options.labels import AskedLabel, choose_label, label_option
from ggdr.scripts.options.network import (
    batch_option,
    make_folder,
    network_option,
    open_networks,
    outdir_option,
    writing_images,
)
from ggdr.scripts.options.numbers import FiniteFloat, WholeNumber
from ggdr.scripts.options.parameters import (
    bad_parameter,
    choose_device,
    device_option,
    ops_option,
    prepare_ops,
)
from ggdr.scripts.options.progress import progress_bars
from ggdr.scripts.terminal import say

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
@click.option("--steps", metavar="N", type=WholeNumber(min=1), default=500, help="Steps of the optimisation.")
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
@label_option
@click.option("--seed", metavar="N", type=WholeNumber(0, 2**63 - 1), default=0, help="Of all that is random.")
@click.option("--vgg", metavar="FILE", type=click.Path(path_type=Path), help="vgg16-397923af.pth: compare by LPIPS.")
@click.option("--lpips", metavar="FILE", type=click.Path(path_type=Path), help="LPIPS v0.1 vgg.pth, beside --vgg.")
@click.option(
    "--video", type=click.Choice(["mp4", "gif", "webp"]), default="mp4", help="Kind of the optimisation's videos."
)
@click.option("--no-video", is_flag=True, help="Make no videos.")
@batch_option(8)
@device_option
@ops_option
def main(images: tuple[Path, ...], network: Path, outdir: Path, asked_label: AskedLabel, **command: Any) -> None:
    """Find the latents of images: of files, folders and zips, of any size and kind.

    Their central square is resized to the network's resolution. Writes for photo.jpg photo-target.png,
    photo-projected.png, photo-loss.png, photo.mp4 and the latent, photo.npz; and sheet.png of all images. Without
    LPIPS images are compared by their pixels at all scales and by the features of the snapshot's discriminator.
    """
    if (command["vgg"] is None) != (command["lpips"] is None):
        missing = "--lpips" if command["lpips"] is None else "--vgg"
        raise bad_parameter("LPIPS needs both --vgg FILE and --lpips FILE, got the other one only", missing)
    device = choose_device(command["device"])
    G, D = open_networks(network, device)
    label = choose_label(network, G, asked_label)

    from ggdr.scripts.viewing.photographs import read_targets, unread_files
    from ggdr.scripts.viewing.projection_distance import choose_distance
    from ggdr.scripts.viewing.projection_files import save_sheet
    from ggdr.scripts.viewing.projector import Projector, check_images_of, project_targets
    from ggdr.stylegan2.latent.projection import ProjectionConfig, ProjectionError, w_statistics
    from ggdr.torch_utils.timing.allocator import keep_freed_memory

    with metric_errors():
        distance_to, distance = choose_distance(D, command["vgg"], command["lpips"], device)
        targets = read_targets(images, G.img_resolution, G.img_channels)
    make_folder(outdir)
    prepare_ops(command["ops"], device)
    if device.type == "cpu":
        keep_freed_memory()
    for line in [*(target.describe() for target in targets), *unread_files(images)]:
        say(line)
    say(f"compared by {distance}")

    config = ProjectionConfig(command["steps"], command["space"], lr=command["lr"])
    about = {name: command[name] for name in ("space", "steps", "lr", "noise_mode", "seed")}
    about |= {"network": str(network), "class": label, "distance": distance}
    video = None if command["no_video"] else command["video"]
    batch_size, started_at = command["batch_size"], time.monotonic()
    with writing_images(outdir, batch_size), progress_bars() as progress:
        start = w_statistics(G.mapping, label, seed=command["seed"])
        check_images_of(network, G, start)
        projector = Projector(G, distance_to, config, start, command["noise_mode"], command["seed"])
        how = {"video": video, "batch_size": batch_size, "progress": progress}
        try:
            results = project_targets(projector, targets, outdir, about, **how)
        except ProjectionError as error:
            raise CliError(f"--lr {config.lr:g}: {error}; expected a lower learning rate") from error
        save_sheet(results, outdir / "sheet.png", title=f"{network.stem}, projected to {config.space.upper()}")
    for result in results:
        say(f"{result.target.short_name}: {result.closeness()}")
    seconds = time.monotonic() - started_at
    say(f"projected in {seconds:.0f} s, written to {outdir}")
