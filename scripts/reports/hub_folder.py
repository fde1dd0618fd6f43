# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""A folder for a model hub: weights, settings, pictures and a card; no pickles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ggdr.scripts.reports.card_samples import SAMPLES_FILE, copy_picture, write_samples

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
    run_dir: Path | None,
    with_discriminator: bool,
    seeds: Sequence[int],
    truncation_psi: float,
    device: torch.device,
    title: str | None,
    licence: str | None,
    repo: str,
) -> list[str]:
    """model.safetensors, config.json, samples.png and README.md in a folder that is there; returns which it wrote.

    The weights are a snapshot of this project again, without the folders of files that its settings name.
    Without `with_discriminator` it holds the averaged generator alone, or a translator's generators. The picture of a
    translator is the run's; there is none where the run has none.
    """
    from ggdr.scripts.reports.model_card import CardText, model_card
    from ggdr.torch_utils.checkpoint import load_snapshot, save_snapshot

    networks, config = dict(snapshot.networks), dict(facts.config)
    if not with_discriminator:
        networks = {name: state for name, state in networks.items() if name in _generators(facts)}
        config = {name: value for name, value in config.items() if name.partition("_")[0] != "D"}
    save_snapshot(folder / WEIGHTS_FILE, networks, config)
    written = load_snapshot(folder / WEIGHTS_FILE)
    settings = {"library_name": "ggdr", "model_type": _model_type(facts), **config}
    (folder / CONFIG_FILE).write_text(json.dumps(settings, indent=2) + "\n")
    if facts.translator is None:
        text = write_samples(written, folder / SAMPLES_FILE, seeds, truncation_psi, device)
    else:
        text = copy_picture(run_dir or snapshot.path.parent, facts.nimg, folder / SAMPLES_FILE)
    about: dict[str, Any] = {"repo": repo, "weights": WEIGHTS_FILE, "license": licence, "networks": sorted(networks)}
    about |= {} if text is None else {"samples": (SAMPLES_FILE, text)}
    (folder / CARD_FILE).write_text(model_card(facts, CardText(facts.title(title), **about)))
    return [name for name in HUB_FILES if name != SAMPLES_FILE or text is not None]


def _generators(facts: Facts) -> list[str]:
    """The networks that make images."""
    return ["G_ema"] if facts.translator is None else [name for name in facts.configs if name.startswith("G")]


def _model_type(facts: Facts) -> str:
    return "stylegan2" if facts.translator is None else facts.translator.model.lower()
