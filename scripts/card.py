# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr card`: a model card about a network."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ggdr.scripts.options.network import (
    ReadBy,
    make_folder,
    network_option,
    seeds_option,
    trunc_option,
    writing_images,
)
from ggdr.scripts.options.parameters import bad_parameter, choose_device, device_option, prepare_ops
from ggdr.scripts.options.progress import progress_bars

if TYPE_CHECKING:
    import torch

    from ggdr.scripts.reports.card_facts import Facts
    from ggdr.torch_utils.checkpoint import Snapshot

SAMPLES_FILE = "samples.png"
COLUMNS = 8
BATCH = 8
MAX_SAMPLES = 256


def repo_name(text: str) -> str:
    """USER/NAME of a model on the hub."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", text, flags=re.ASCII):
        raise ValueError(f"expected USER/NAME, got {text!r}")
    return text


def licence_name(text: str) -> str:
    """A licence's identifier."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", text):
        raise ValueError(f"expected an identifier in small letters, such as cc-by-4.0 or mit, got {text!r}")
    return text


_OPTIONS = (
    click.option(
        "--run",
        "run_dir",
        metavar="DIR",
        type=click.Path(path_type=Path, exists=True, file_okay=False),
        show_default="the snapshot's folder, if it is a run's",
        help="Folder of the run, for metrics, machine and duration.",
    ),
    click.option("--title", metavar="TEXT", show_default="of the run's folder", help="Heading of the card."),
    click.option(
        "--license",
        "licence",
        metavar="ID",
        type=ReadBy(licence_name),
        show_default="none: the card says so",
        help="Licence of the weights, as model hubs name it: cc-by-4.0, mit, other, ...",
    ),
    click.option(
        "--repo",
        metavar="USER/NAME",
        type=ReadBy(repo_name),
        default="USER/NAME",
        help="Where the model will be, for the code in the card.",
    ),
    seeds_option("0-31"),
)


def card_options(command: Callable) -> Callable:
    """What a card says beyond the facts, and its samples."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def card_parameters() -> set[str]:
    """The names of the parameters of `card_options`."""

    @click.command()
    @card_options
    def command() -> None: ...

    return {param.name for param in command.params}


def read_card_facts(network: Path, run_dir: Path | None) -> tuple[Snapshot, Facts]:
    """The snapshot and all that is known of it; BadParameter if a file cannot be read."""
    from ggdr.scripts.reports.card_facts import read_facts
    from ggdr.torch_utils.checkpoint import SnapshotError, load_snapshot

    try:
        snapshot = load_snapshot(network)
        return snapshot, read_facts(snapshot, run_dir)
    except SnapshotError as error:
        raise bad_parameter(str(error), "--network") from error
    except (ValueError, OSError) as error:
        raise bad_parameter(str(error), "--run") from error


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


def card_title(facts: Facts, title: str | None) -> str:
    """The heading: as asked for, of the run, or of the file."""
    return title or facts.run or facts.file.removesuffix(".safetensors")


def check_seeds(seeds: Sequence[int]) -> None:
    """BadParameter for more samples than a picture should have."""
    if len(seeds) > MAX_SAMPLES:
        raise bad_parameter(f"expected {MAX_SAMPLES} samples at most, got {len(seeds)}", "--seeds")


def check_place(card: Path) -> None:
    """BadParameter where a text that is no model card would be replaced: the README of a project, say."""
    if not card.is_file():
        return
    with open(card, "rb") as file:
        is_card = file.read(3) == b"---"
    if not is_card:
        raise bad_parameter(f"{card} is there and is no model card; move it away, or choose another place", "--out")


EXAMPLES = """\b
Examples:
  ggdr card --network runs/cifar/network-snapshot-000200.safetensors --out card/README.md
  ggdr card --network net.safetensors --run runs/cifar --license cc-by-4.0 --title "CIFAR-10" --out card/README.md
"""


@click.command(no_args_is_help=True, epilog=EXAMPLES, context_settings={"show_default": True})
@network_option
@click.option(
    "--out",
    metavar="FILE",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="Card to write, README.md on a model hub; samples.png goes beside it.",
)
@card_options
@trunc_option
@click.option("--samples/--no-samples", "with_samples", default=True, help="Make the pictures, and show them.")
@device_option
def main(
    network: Path,
    out: Path,
    run_dir: Path | None,
    title: str | None,
    licence: str | None,
    repo: str,
    seeds: list[int],
    truncation_psi: float,
    with_samples: bool,
    device: str,
) -> None:
    """Write a model card about a network: how to use it, its data, training, metrics and limits.

    All of it comes from the snapshot and from its run's folder; what they do not say is left out.
    """
    from ggdr.scripts.reports.model_card import CardText, model_card
    from ggdr.torch_utils.checkpoint import atomic_write

    check_seeds(seeds)
    if out.suffix.lower() != ".md":
        raise bad_parameter(f"expected a name ending in .md, got {out}", "--out")
    check_place(out)
    torch_device = choose_device(device)
    snapshot, facts = read_card_facts(network, run_dir)
    make_folder(out.parent, "--out")
    samples = None
    with writing_images(out.parent, BATCH, "--out"):
        if with_samples:
            prepare_ops(None, torch_device)
            path = out.with_name(SAMPLES_FILE)
            samples = SAMPLES_FILE, write_samples(snapshot, path, seeds, truncation_psi, torch_device)
        about: dict[str, Any] = {"repo": repo, "weights": facts.file, "license": licence, "samples": samples}
        text = model_card(facts, CardText(card_title(facts, title), **about))
        with atomic_write(out) as file:
            file.write(text.encode())
    click.echo(f"card written to {out}")
    if licence is None:
        click.echo("it names no licence: choose one with --license", err=True)
