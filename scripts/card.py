# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr card`: a model card about a network."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any

import click

from ggdr.scripts.errors import cli_errors
from ggdr.scripts.options.network import make_folder, network_option, trunc_option, writing_images
from ggdr.scripts.options.parameters import bad_parameter, choose_device, device_option, prepare_ops, refuse_given
from ggdr.scripts.reports.card_options import card_options, check_place, check_seeds, read_card_facts
from ggdr.scripts.terminal import say

EXAMPLES = """\b
Examples:
  ggdr card --network runs/cifar
  ggdr card --network net.safetensors --run runs/cifar --license cc-by-4.0 --title "CIFAR-10" --out card/README.md
"""


@click.command(no_args_is_help=True, epilog=EXAMPLES, context_settings={"show_default": True})
@network_option
@click.option(
    "--out",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    show_default="card/README.md in the snapshot's folder, where no card is replaced",
    help="Card to write, README.md on a model hub; samples.png goes beside it.",
)
@card_options
@trunc_option
@click.option("--samples/--no-samples", "with_samples", default=True, help="Make the pictures, and show them.")
@device_option
@click.pass_context
def main(
    ctx: click.Context,
    network: Path,
    out: Path | None,
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

    All of it comes from the snapshot and from its run's folder; what they do not say is left out. Of image translation
    the pictures are those that the run drew.
    """
    from ggdr.scripts.reports.card_samples import BATCH, SAMPLES_FILE, copy_picture, write_samples
    from ggdr.scripts.reports.model_card import CardText, model_card
    from ggdr.torch_utils.atomic_write import atomic_write
    from ggdr.torch_utils.untrusted.regular_files import refuse_link

    check_seeds(seeds)
    if out is None:
        out = network.parent / "card" / "README.md"
        with cli_errors():
            refuse_link(out.parent)
        if os.path.lexists(out):
            raise bad_parameter(
                f"{out} is there: give --out {shlex.quote(str(out))} to replace it, or another file", "--out"
            )
    if out.suffix.lower() != ".md":
        raise bad_parameter(f"expected a name ending in .md, got {out}", "--out")
    check_place(out)
    torch_device = choose_device(device)
    snapshot, facts = read_card_facts(network, run_dir)
    if facts.translator is not None:
        refuse_given(ctx, ("seeds", "truncation_psi"), "a translator")
    make_folder(out.parent, "--out")
    samples = None
    with writing_images(out.parent, BATCH, "--out"):
        path = out.with_name(SAMPLES_FILE)
        if with_samples and facts.translator is not None:
            about_picture = copy_picture(run_dir or network.parent, facts.nimg, path)
            samples = None if about_picture is None else (SAMPLES_FILE, about_picture)
        elif with_samples:
            prepare_ops(None, torch_device)
            samples = SAMPLES_FILE, write_samples(snapshot, path, seeds, truncation_psi, torch_device)
        about: dict[str, Any] = {"repo": repo, "weights": facts.file, "license": licence, "samples": samples}
        text = model_card(facts, CardText(facts.title(title), **about))
        with atomic_write(out) as file:
            file.write(text.encode())
    say(f"card written to {out}")
    if with_samples and samples is None:
        say("note: the card shows no picture: the run's folder has none of this snapshot", err=True)
    if licence is None:
        say("the card names no licence: choose one with --license", err=True)
