# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The work of `ggdr clusters --run`: the same latents at each snapshot of a run."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ggdr.scripts.options.progress import Progress
from ggdr.scripts.training.snapshot_files import PATTERN, snapshots_in
from ggdr.scripts.viewing.cluster_files import ClusterFolder
from ggdr.scripts.viewing.cluster_request import ClusterRequest, describe_clusters
from ggdr.scripts.viewing.cluster_sheets import NetworkView, label_pictures, view_network
from ggdr.scripts.viewing.snapshot_features import SnapshotNetworks
from ggdr.torch_utils.atomic_write import atomic_write
from ggdr.torch_utils.checkpoint import SnapshotError
from ggdr.torch_utils.pictures.animation import save_animation
from ggdr.torch_utils.pictures.plot_style import COLORS, plot_style
from ggdr.torch_utils.pictures.sheets import contact_sheet

MOST_COLUMNS = 10  # snapshots beside each other
MOST_ROWS = 6  # latents below each other
IN_ANIMATION = 8  # latents beside each other
SECONDS_A_SNAPSHOT = 0.5
AGREEMENT_FILE = "over-training-agreement.png"
Shown = list[tuple[int, NetworkView]]  # nimg of each snapshot, ascending


def snapshots_of(run_dir: Path, most: int) -> list[Path]:
    """At most `most` snapshots of a run, in the order of training, the last one among them.

    Raises:
        SnapshotError: there is none.
    """
    paths = snapshots_in(run_dir)
    if not paths:
        raise SnapshotError(f"--run: {run_dir} holds no {PATTERN} yet")
    return paths[::-1][:: -(-len(paths) // most)][::-1]


def show_run(
    paths: Sequence[Path],
    folder: ClusterFolder,
    request: ClusterRequest,
    progress: Progress,
    *,
    animation_format: str | None,
) -> None:
    """The same latents at each snapshot of a run: a sheet of each resolution, an animation, and numbers.

    Colours are those of the last snapshot, handed down from each snapshot to the one before it.

    Raises what `show_networks` raises.
    """
    shown: Shown = []
    for done, path in enumerate(reversed(paths)):
        progress("snapshots", done, len(paths))
        net = SnapshotNetworks(path, request.device)
        seen = request.features_of(net, request.layers_in([net]))
        later = shown[0][1] if shown else None
        view = view_network(path.stem, seen, request.captions, request.options, like=later, same_latents=True)
        # Its pictures are enough: of a long run, all large images would fill the memory.
        view.images = view.images[:0]
        shown.insert(0, (net.nimg or 0, view))
    progress("snapshots", len(paths), len(paths))

    numbers = [{"kimg": nimg / 1000, **found} for nimg, view in shown for found in view.numbers()]
    folder.add_numbers(numbers, shown=[found for found in numbers if found["kimg"] == numbers[-1]["kimg"]])
    for res in shown[-1][1].generator:
        title = f"Over training, {res}x{res}"
        sheet = _training_sheet(shown, res, f"{title}: {describe_clusters([shown[-1][1]], res)}")
        folder.add_sheet(f"over-training-{res}x{res}.png", sheet, title)
    if any(found["encoder_nmi"] is not None for found in numbers):
        title = "What the discriminator knows"
        plot_agreement(numbers, folder.path / AGREEMENT_FILE)
        folder.sheets.append({"file": AGREEMENT_FILE, "title": title, "note": None})
    if animation_format is not None:
        file = f"over-training.{animation_format}"
        save_animation(_frames(shown), folder.path / file, fps=1 / SECONDS_A_SNAPSHOT)
        folder.animations.append({"file": file, "title": "The same latents over training"})


def _training_sheet(shown: Shown, res: int, title: str) -> np.ndarray:
    """Columns: snapshots; rows: each latent's image above its clusters."""
    columns = np.linspace(0, len(shown) - 1, min(MOST_COLUMNS, len(shown))).round().astype(int)
    picked = [shown[i] for i in columns]
    rows: list[list[np.ndarray]] = [[] for _ in range(2 * min(MOST_ROWS, len(picked[0][1].pictures)))]
    for _, view in picked:
        pairs = zip(view.pictures, label_pictures(view, view.generator[res]), strict=True)
        for row, pair in zip(range(0, len(rows), 2), pairs, strict=False):
            rows[row].append(pair[0])
            rows[row + 1].append(pair[1])
    captions = picked[0][1].captions
    names = [captions[i // 2] if i % 2 == 0 else "" for i in range(len(rows))]
    return contact_sheet(rows, rows=names, columns=[f"{nimg / 1000:g} kimg" for nimg, _ in picked], title=title)


def _frames(shown: Shown) -> Iterator[np.ndarray]:
    """One picture a snapshot: images, and their clusters at each resolution."""
    for nimg, view in shown:
        rows = {"image": view.pictures}
        rows |= {f"{res}x{res}": label_pictures(view, labels) for res, labels in view.generator.items()}
        title = f"{nimg / 1000:g} kimg".rjust(len(f"{shown[-1][0] / 1000:g} kimg"))
        yield contact_sheet([row[:IN_ANIMATION] for row in rows.values()], rows=list(rows), title=title)


def plot_agreement(numbers: Sequence[dict[str, Any]], path: Path) -> None:
    """Draws cosine similarity and mutual information of each resolution over kimg; `numbers` as in numbers.csv."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = {
        "cosine": ("Decoder's prediction", "cosine similarity with G's features"),
        "nmi": ("Clusters of the prediction", "mutual information with G's clusters"),
        "encoder_nmi": ("Clusters of D's own features", "mutual information with G's clusters"),
    }
    panels = {key: names for key, names in panels.items() if any(found[key] is not None for found in numbers)}
    layers = list(dict.fromkeys(found["layer"] for found in numbers))
    with plot_style():
        figure = Figure(figsize=(4.2 * len(panels), 2.9), dpi=160, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for ax, (key, (title, ylabel)) in zip(axes, panels.items(), strict=True):
            for layer, color in zip(layers, itertools.cycle(COLORS), strict=False):
                found = [line for line in numbers if line["layer"] == layer and line[key] is not None]
                if found:
                    kimg, values = ([line[name] for line in found] for name in ("kimg", key))
                    ax.plot(kimg, values, color=color, label=layer, marker="o", markersize=2.5)
            ax.set(title=title, xlabel="kimg", ylabel=ylabel, ylim=(0, 1))
            ax.legend()
        with atomic_write(path) as file:
            figure.savefig(file, format="png")
