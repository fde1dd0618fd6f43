# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""A folder for a model hub: weights, settings, pictures and a card; no pickles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ggdr.scripts.reports.card_samples import SAMPLES_FILE, write_samples

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from ggdr.scripts.reports.card_facts import Facts
    from ggdr.torch_utils.checkpoint import Snapshot

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
CARD_FILE = "README.md"
HUB_FILES = (WEIGHTS_FILE, CONFIG_FILE, SAMPLES_FILE, CARD_FILE)


def write_hub_files(
    folder: Path,
    snapshot: Snapshot,
    facts: Facts,
    *,
    with_discriminator: bool,
    seeds: Sequence[int],
    truncation_psi: float,
    device: torch.device,
    title: str | None,
    licence: str | None,
    repo: str,
) -> None:
    """model.safetensors, config.json, samples.png and README.md in a folder that is there.

    The weights are a snapshot of this project again, without the folders of files that its settings name.
    Without `with_discriminator` it holds the averaged generator alone.
    """
    from ggdr.scripts.reports.model_card import CardText, model_card
    from ggdr.torch_utils.checkpoint import load_snapshot, save_snapshot

    networks, config = dict(snapshot.networks), dict(facts.config)
    if not with_discriminator:
        networks = {"G_ema": networks["G_ema"]}
        config.pop("D", None)
    save_snapshot(folder / WEIGHTS_FILE, networks, config)
    written = load_snapshot(folder / WEIGHTS_FILE)
    settings = {"library_name": "ggdr", "model_type": "stylegan2", **config}
    (folder / CONFIG_FILE).write_text(json.dumps(settings, indent=2) + "\n")
    text = write_samples(written, folder / SAMPLES_FILE, seeds, truncation_psi, device)
    about: dict[str, Any] = {"repo": repo, "weights": WEIGHTS_FILE, "license": licence}
    about |= {"samples": (SAMPLES_FILE, text), "networks": sorted(networks)}
    (folder / CARD_FILE).write_text(model_card(facts, CardText(facts.title(title), **about)))
