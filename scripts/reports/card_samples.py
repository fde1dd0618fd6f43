# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The pictures of a model card."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ggdr.scripts.options.progress import progress_bars
from ggdr.scripts.training.run_folder import OPTIONS_FILE

if TYPE_CHECKING:
    import torch

    from ggdr.torch_utils.checkpoint import Snapshot

SAMPLES_FILE = "samples.png"
COLUMNS = 8
BATCH = 8


def copy_picture(run_dir: Path, nimg: int | None, path: Path) -> str | None:
    """Copies the picture that a run drew of translations for a snapshot; returns what it is, None without one."""
    from ggdr.scripts.reports.read_run import read_run

    if nimg is None or not (run_dir / OPTIONS_FILE).is_file():
        return None
    for kind in read_run(run_dir, run_dir.resolve().name).pictures:
        picture = kind.files(run_dir).get(nimg / 1000)
        if picture is not None:
            shutil.copyfile(picture, path)
            return f"{kind.title}, of the training set, when this snapshot was written."
    return None


def write_samples(
    snapshot: Snapshot, path: Path, seeds: Sequence[int], truncation_psi: float, device: torch.device
) -> str:
    """Pictures of seeds in rows of eight, each of the next class or label if there are some; returns what they are."""
    import torch

    from ggdr.stylegan2.latent.sampling import images_of_seeds
    from ggdr.stylegan2.network_labels import labels_of_config
    from ggdr.stylegan2.snapshot import generator_of
    from ggdr.torch_utils.pictures.images import save_image, to_u8
    from ggdr.torch_utils.pictures.sheets import contact_sheet, thumbnail

    G = generator_of(snapshot, device)
    examples = labels_of_config(snapshot.config, G.c_dim).examples
    labels = torch.tensor(examples) if examples else torch.eye(G.c_dim)
    num, pictures = len(seeds), []
    with progress_bars() as progress:
        for start in range(0, num, BATCH):
            batch = list(seeds[start : start + BATCH])
            c = (
                labels[(start + torch.arange(len(batch))) % max(len(labels), 1)]
                if G.c_dim
                else torch.zeros(len(batch), 0)
            )
            img, _ = images_of_seeds(G, batch, c, device=device, truncation_psi=truncation_psi)
            pictures += [thumbnail(x) for x in to_u8(img).permute(0, 2, 3, 1).cpu().numpy()]
            progress("images", min(start + BATCH, num), num)
    rows = [pictures[i : i + COLUMNS] for i in range(0, num, COLUMNS)]
    save_image(contact_sheet(rows, gap=2), path)
    in_range = num > 1 and list(seeds) == list(range(seeds[0], seeds[0] + num))
    shown = f"{seeds[0]} to {seeds[-1]}" if in_range else ", ".join(map(str, seeds))
    truncated = "not truncated" if truncation_psi == 1 else f"truncated with psi {truncation_psi:g}"
    of_classes = f"; of classes 0 to {G.c_dim - 1} in turn" if G.c_dim else ""
    classes = f"; of {len(examples)} labels of the training set in turn" if examples else of_classes
    return f"Samples of seeds {shown}, {truncated}{classes}."
