# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr clusters`: what generator and discriminator know, as maps of feature clusters."""

from __future__ import annotations

import os
from pathlib import Path

import click

from ggdr.scripts.errors import metric_errors
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
from ggdr.scripts.options.segmenter import SEGMENTER, segmenter_option
from ggdr.scripts.terminal import say

MOST_CLUSTERS = 32  # that pictures tell apart
MOST_JUDGED = 512
AUTO = "auto"
NUM_CLUSTERS = 6
NUM_PHOTOGRAPHS, NUM_LABELLED = 16, 256


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


def parse_judged_clusters(text: str) -> list[int]:
    """The numbers of clusters of "9,18", once each. Raises ValueError for anything else."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and 2 <= int(part) <= MOST_JUDGED for part in parts):
        raise ValueError(f"with --labels, expected numbers from 2 to {MOST_JUDGED} such as 9,18; got {text!r}")
    return list(dict.fromkeys(map(int, parts)))


EXAMPLES = """\b
Examples:
  ggdr clusters --network runs/cifar/network-snapshot-000200.safetensors --outdir clusters
  ggdr clusters --network runs/ggdr/network-best.safetensors --network runs/plain/network-best.safetensors \\
    --images photos --clusters 8 --outdir compared
  ggdr clusters --run runs/cifar
  ggdr clusters --network runs/ggdr --network runs/plain --labels shapes.zip --outdir judged
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
    "asked_clusters",
    metavar="K|auto|LIST",
    show_default=f"{NUM_CLUSTERS}; with --labels as many as classes, and twice as many",
    help="Clusters a layer; auto: 2 to 10, by the mean silhouette. With --labels one number or several, as 9,18.",
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
@click.option(
    "--labels",
    "labelled",
    metavar="DIR|ZIP",
    type=click.Path(path_type=Path, exists=True),
    help="Judge clusters as segmentations instead: of D's features, of the decoder's prediction and of baselines, on "
    "images of this dataset, against its label maps.",
)
@segmenter_option("With --labels: judge G's clusters too, on its own images, whose classes this network names")
@click.option(
    "--export-masks",
    "masks",
    metavar="DIR|ZIP",
    type=click.Path(path_type=Path),
    help="Also write G's images with its clusters as a data set with label maps, and as COCO annotations; of the "
    "largest layer, or the one that --layers names.",
)
@click.option(
    "--max-images",
    metavar="N",
    type=WholeNumber(min=1),
    show_default=f"{NUM_PHOTOGRAPHS} of --images, {NUM_LABELLED} of --labels",
    help="Of --images or --labels, evenly spread.",
)
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
    asked_clusters: str | None,
    distance: str,
    seeds: list[int],
    truncation_psi: float,
    asked_label: AskedLabel,
    photographs: Path | None,
    labelled: Path | None,
    segmenter: Path | str | None,
    masks: Path | None,
    max_images: int | None,
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
    they agree. With --labels, how well clusters agree with true label maps, five times each, as a table and a sheet.
    """
    shown_only = {"--images": photographs, "--export-masks": masks}
    if bool(networks) == (run_dir is not None):
        raise click.UsageError("expected --network FILE, once or more, or --run RUN_DIR")
    for option, value in {**shown_only, "--labels": labelled}.items():
        if run_dir is not None and value is not None:
            raise bad_parameter("goes with --network, not with --run", option)
    for option, value in shown_only.items():
        if labelled is not None and value is not None:
            raise bad_parameter("is about clusters as they are shown; --labels judges them: expected one", option)
    if labelled is None and segmenter is not None:
        raise bad_parameter("needs --labels, a dataset with label maps", SEGMENTER)
    if outdir is None and run_dir is None:
        raise bad_parameter("expected a folder for the results", "--outdir")
    if names and len(names) != len(networks):
        raise bad_parameter(f"expected {len(networks)} names, one for each --network, got {len(names)}", "--label")
    if masks is not None:
        _check_masks(masks, len(networks))
    num_clusters, counts = _read_clusters(asked_clusters, judged=labelled is not None)
    outdir = outdir or run_dir / "clusters"

    from ggdr.scripts.viewing.cluster_files import ClusterFolder, file_name
    from ggdr.scripts.viewing.cluster_request import ClusterRequest
    from ggdr.scripts.viewing.cluster_sheets import ClusterError, ClusterOptions
    from ggdr.scripts.viewing.judge_networks import judge_networks, open_segmenter
    from ggdr.scripts.viewing.labelled_images import read_labelled
    from ggdr.scripts.viewing.mask_export import export_masks
    from ggdr.scripts.viewing.over_training import show_run, snapshots_of
    from ggdr.scripts.viewing.segmentation_sheets import score_table
    from ggdr.scripts.viewing.side_by_side import in_words, network_names, read_photographs, show_networks
    from ggdr.scripts.viewing.snapshot_features import SnapshotNetworks
    from ggdr.torch_utils.untrusted.regular_files import refuse_link

    if len({file_name(name) for name in names}) < len(names):
        raise bad_parameter(f"expected a folder's name of its own for each network, got {', '.join(names)}", "--label")
    torch_device = choose_device(device)
    options = ClusterOptions(num_clusters, distance == "cosine", seed)
    with metric_errors():
        paths = list(networks) if run_dir is None else snapshots_of(run_dir, max_snapshots)
        # Of a run, the last one; the others are opened one by one.
        opened = [SnapshotNetworks(path, torch_device) for path in (networks or paths[-1:])]
        labels = {choose_label(net.path, net.G, asked_label) for net in opened}
        if len(labels) > 1:
            raise bad_parameter(f"{asked_label.text} is another label in each network: expected its number", "--class")
        request = ClusterRequest(seeds, layers, *labels, truncation_psi, batch_size, options, torch_device)
        request.layers_in(opened)
        photos = None if photographs is None else read_photographs(photographs, opened, max_images or NUM_PHOTOGRAPHS)
        reals = None if labelled is None else read_labelled(labelled, opened, max_images or NUM_LABELLED)
        segment = None if segmenter is None else open_segmenter(segmenter, reals, torch_device)
        if run_dir is not None:
            refuse_link(outdir)
        make_folder(outdir)
        prepare_ops(ops, torch_device)
    names = names or network_names(networks)
    what = "over training" if run_dir is not None else f"of {' and '.join(names)}"
    title = "Feature clusters" if reals is None else "Feature clusters as segmentations,"
    folder = ClusterFolder(outdir, f"{title} {what}")
    with writing_images(outdir, batch_size), progress_bars() as progress:
        try:
            if reals is not None:
                counts = counts or [reals.classes.num, 2 * reals.classes.num]
                judged = judge_networks(opened, names, folder, request, reals, counts, segment, progress)
            elif run_dir is None:
                views = show_networks(opened, names, folder, request, photos, progress)
            else:
                kind = None if animation_format == "none" else animation_format
                show_run(paths, folder, request, progress, animation_format=kind)
        except ClusterError as error:
            raise bad_parameter(str(error), "--clusters") from error
        folder.write_index()
    for net in opened if run_dir is None else ():
        if not net.decoders and (reals is None or net.semantic is None):
            say(f"{net.path} holds no GGDR decoder (trained with --no-ggdr?): D's own features only")
    if reals is not None:
        for line in score_table(judged):
            say(line)
        if segment is None:
            say(f"G's own clusters are left out: label maps of its images take a {SEGMENTER}")
    for numbers in folder.numbers if reals is None else ():
        if in_words(numbers):
            say(f"{numbers['network']}, {numbers['layer']}: {in_words(numbers)}")
    say(f"{len(folder.sheets)} sheets written to {outdir}")
    if masks is not None:
        with writing_images(masks, batch_size, "--export-masks"):
            say(export_masks(views[0], masks))


def _check_masks(masks: Path, num_networks: int) -> None:
    """BadParameter where masks cannot be exported."""
    if num_networks > 1:
        text = f"is about one network's images: expected one --network, got {num_networks}"
        raise bad_parameter(text, "--export-masks")
    if os.path.lexists(masks):
        raise bad_parameter(f"{masks} exists already: expected a new folder or zip", "--export-masks")


def _read_clusters(text: str | None, *, judged: bool) -> tuple[int | None, list[int] | None]:
    """The value of --clusters: the number to show, None for auto, or the numbers to judge, None for the default."""
    if text is None:
        return NUM_CLUSTERS, None
    try:
        return (NUM_CLUSTERS, parse_judged_clusters(text)) if judged else (parse_clusters(text), None)
    except ValueError as error:
        raise bad_parameter(str(error), "--clusters") from error
