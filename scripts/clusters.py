# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr clusters`: what generator and discriminator know, as maps of feature clusters."""

from __future__ import annotations

from pathlib import Path

import click

from ggdr.scripts.errors import cli_errors
from ggdr.scripts.options.labels import AskedLabel, choose_label, class_option
from ggdr.scripts.options.network import (
    SNAPSHOT_FILE,
    ReadBy,
    batch_option,
    make_folder,
    seeds_option,
    trunc_option,
    writing_images,
)
from ggdr.scripts.options.numbers import WholeNumber
from ggdr.scripts.options.parameters import bad_parameter, choose_device, device_option, ops_option, prepare_ops
from ggdr.scripts.options.progress import progress_bars
from ggdr.scripts.terminal import say

MOST_CLUSTERS = 32
AUTO = "auto"


def parse_layers(text: str) -> list[int]:
    """Resolutions of "8,16,32", ascending and once each. Raises ValueError for anything else."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) >= 4 and int(part) & (int(part) - 1) == 0 for part in parts):
        raise ValueError(f"expected resolutions of feature maps such as 8,16,32, got {text!r}")
    return sorted({int(part) for part in parts})


def parse_clusters(text: str) -> int | None:
    """The number of clusters; None for "auto". Raises ValueError for anything else."""
    if text == AUTO:
        return None
    if not text.isdecimal() or not 2 <= int(text) <= MOST_CLUSTERS:
        raise ValueError(f"expected 2 to {MOST_CLUSTERS} clusters, or {AUTO}; got {text!r}")
    return int(text)


EXAMPLES = """\b
Examples:
  ggdr clusters --network runs/cifar/network-snapshot-000200.safetensors --outdir clusters
  ggdr clusters --network runs/ggdr/network-best.safetensors --network runs/plain/network-best.safetensors \\
    --images photos --clusters 8 --outdir compared
  ggdr clusters --run runs/cifar
"""


@click.command(no_args_is_help=True, epilog=EXAMPLES, context_settings={"show_default": True})
@click.option(
    "--network",
    "networks",
    metavar="FILE|RUN_DIR",
    multiple=True,
    type=SNAPSHOT_FILE,
    help="Network snapshot, or a run folder: its best one, else the last; several are shown below each other.",
)
@click.option(
    "--run",
    "run_dir",
    metavar="RUN_DIR",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Show the same latents at each snapshot of a run instead, as sheets and as an animation.",
)
@click.option(
    "--outdir",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    show_default="RUN_DIR/clusters",
    help="Folder for the results, made if missing; files of the same name are replaced.",
)
@click.option("--label", "names", metavar="NAME", multiple=True, help="What to call each network, in order.")
@click.option(
    "--layers",
    metavar="LIST",
    type=ReadBy(parse_layers),
    show_default="those of 8,16,32,64 that exist",
    help="Resolutions of the generator's feature maps.",
)
@click.option(
    "--clusters",
    "num_clusters",
    metavar="K|auto",
    type=ReadBy(parse_clusters),
    default="6",
    help="Clusters a layer; auto: 2 to 10, by the mean silhouette.",
)
@click.option(
    "--distance",
    type=click.Choice(["cosine", "euclidean"]),
    default="cosine",
    help="Between feature vectors; GGDR trains with cosine.",
)
@seeds_option("0-63")
@trunc_option
@class_option
@click.option(
    "--images",
    "photographs",
    metavar="DIR|ZIP",
    type=click.Path(path_type=Path, exists=True),
    help="Show what the discriminators see in these images; cropped and resized to the network's size.",
)
@click.option("--max-images", metavar="N", type=WholeNumber(min=1), default=16, help="Of --images, evenly spread.")
@click.option(
    "--animation",
    "animation_format",
    type=click.Choice(["webp", "gif", "mp4", "none"]),
    default="webp",
    help="With --run: its format.",
)
@click.option(
    "--max-snapshots",
    metavar="N",
    type=WholeNumber(min=1),
    default=60,
    help="With --run: snapshots to show, evenly spread, the last one among them.",
)
@click.option("--seed", metavar="N", type=WholeNumber(0, 2**32 - 1), default=0, help="Of k-means.")
@batch_option(16)
@device_option
@ops_option
def main(
    networks: tuple[Path, ...],
    run_dir: Path | None,
    outdir: Path | None,
    names: tuple[str, ...],
    layers: list[int] | None,
    num_clusters: int | None,
    distance: str,
    seeds: list[int],
    truncation_psi: float,
    asked_label: AskedLabel,
    photographs: Path | None,
    max_images: int,
    animation_format: str,
    max_snapshots: int,
    seed: int,
    batch_size: int,
    device: str,
    ops: str | None,
) -> None:
    """Cluster the feature maps of a generator into something like a segmentation, and see how much of it the
    discriminator knows.

    Writes contact sheets of each resolution: images, clusters of G's features, what the decoder on D predicts, and
    clusters of D's own features, of the first 16 images; all maps as indexed PNG, their labels as npz, and how well
    they agree.
    """
    if bool(networks) == (run_dir is not None):
        raise click.UsageError("expected --network FILE, once or more, or --run RUN_DIR")
    if run_dir is not None and photographs is not None:
        raise bad_parameter("goes with --network, not with --run", "--images")
    if outdir is None and run_dir is None:
        raise bad_parameter("expected a folder for the results", "--outdir")
    if names and len(names) != len(networks):
        raise bad_parameter(f"expected {len(networks)} names, one for each --network, got {len(names)}", "--label")
    outdir = outdir or run_dir / "clusters"

    from ggdr.scripts.viewing.cluster_files import ClusterFolder, file_name
    from ggdr.scripts.viewing.cluster_request import ClusterRequest
    from ggdr.scripts.viewing.cluster_sheets import ClusterError, ClusterOptions
    from ggdr.scripts.viewing.over_training import show_run, snapshots_of
    from ggdr.scripts.viewing.side_by_side import in_words, network_names, read_photographs, show_networks
    from ggdr.scripts.viewing.snapshot_features import SnapshotNetworks
    from ggdr.torch_utils.untrusted.regular_files import refuse_link

    if len({file_name(name) for name in names}) < len(names):
        raise bad_parameter(f"expected a folder's name of its own for each network, got {', '.join(names)}", "--label")
    torch_device = choose_device(device)
    options = ClusterOptions(num_clusters, distance == "cosine", seed)
    with cli_errors():
        paths = list(networks) if run_dir is None else snapshots_of(run_dir, max_snapshots)
        # Of a run, the last one; the others are opened one by one.
        opened = [SnapshotNetworks(path, torch_device) for path in (networks or paths[-1:])]
        labels = {choose_label(net.path, net.G, asked_label) for net in opened}
        if len(labels) > 1:
            raise bad_parameter(f"{asked_label.text} is another label in each network: expected its number", "--class")
        request = ClusterRequest(seeds, layers, *labels, truncation_psi, batch_size, options, torch_device)
        request.layers_in(opened)
        photos = None if photographs is None else read_photographs(photographs, opened, max_images)
        if run_dir is not None:
            refuse_link(outdir)
        make_folder(outdir)
        prepare_ops(ops, torch_device)
    names = names or network_names(networks)
    what = "over training" if run_dir is not None else f"of {' and '.join(names)}"
    folder = ClusterFolder(outdir, f"Feature clusters {what}")
    with writing_images(outdir, batch_size), progress_bars() as progress:
        try:
            if run_dir is None:
                show_networks(opened, names, folder, request, photos, progress)
            else:
                kind = None if animation_format == "none" else animation_format
                show_run(paths, folder, request, progress, animation_format=kind)
        except ClusterError as error:
            raise bad_parameter(str(error), "--clusters") from error
        folder.write_index()
    for net in opened if run_dir is None else ():
        if not net.decoders:
            say(f"{net.path} holds no GGDR decoder (trained with --no-ggdr?): D's own features only")
    for numbers in folder.numbers:
        if in_words(numbers):
            say(f"{numbers['network']}, {numbers['layer']}: {in_words(numbers)}")
    say(f"{len(folder.sheets)} sheets written to {outdir}")
