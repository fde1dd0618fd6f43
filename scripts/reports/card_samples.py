# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The pictures of a model card."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ggdr.scripts.options.progress import progress_bars

if TYPE_CHECKING:
    import torch

    from ggdr.torch_utils.checkpoint import Snapshot

SAMPLES_FILE = "samples.png"
COLUMNS = 8
BATCH = 8


def write_samples(
    snapshot: Snapshot, path: Path, seeds: Sequence[int], truncation_psi: float, device: torch.device
) -> str:
    """Pictures of seeds in rows of eight, each of the next class if there are classes; returns what they are."""
    import torch

    from ggdr.stylegan2.latent.sampling import images_of_seeds
    from ggdr.stylegan2.snapshot import generator_of
    from ggdr.torch_utils.pictures.images import save_image, to_u8
    from ggdr.torch_utils.pictures.sheets import contact_sheet, thumbnail

    G = generator_of(snapshot, device)
    num, pictures = len(seeds), []
    with progress_bars() as progress:
        for start in range(0, num, BATCH):
            batch = list(seeds[start : start + BATCH])
            c = torch.zeros([len(batch), G.c_dim])
            if G.c_dim:
                rows = torch.arange(len(batch))
                c[rows, (start + rows) % G.c_dim] = 1
            img, _ = images_of_seeds(G, batch, c, device=device, truncation_psi=truncation_psi)
            pictures += [thumbnail(x) for x in to_u8(img).permute(0, 2, 3, 1).cpu().numpy()]
            progress("images", min(start + BATCH, num), num)
    rows = [pictures[i : i + COLUMNS] for i in range(0, num, COLUMNS)]
    save_image(contact_sheet(rows, gap=2), path)
    in_range = num > 1 and list(seeds) == list(range(seeds[0], seeds[0] + num))
    shown = f"{seeds[0]} to {seeds[-1]}" if in_range else ", ".join(map(str, seeds))
    truncated = "not truncated" if truncation_psi == 1 else f"truncated with psi {truncation_psi:g}"
    classes = f"; of classes 0 to {G.c_dim - 1} in turn" if G.c_dim else ""
    return f"Samples of seeds {shown}, {truncated}{classes}."
