# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr translate remove-domain`: a snapshot of ComboGAN without one of its domains."""

from __future__ import annotations

from pathlib import Path

import click

from ggdr.scripts.errors import cli_errors, write_error_text
from ggdr.scripts.options.network import network_option
from ggdr.scripts.options.parameters import bad_parameter
from ggdr.scripts.terminal import say
from ggdr.scripts.training.snapshot_files import SNAPSHOT_SUFFIX

EXAMPLES = """\b
Examples:
  ggdr translate remove-domain --network runs/seasons autumn --out three-seasons.safetensors
  ggdr translate remove-domain --network network-snapshot-000200.safetensors 3 --out smaller.safetensors
"""


@click.command("remove-domain", no_args_is_help=True, epilog=EXAMPLES)
@click.argument("name", metavar="NAME")
@network_option
@click.option(
    "--out", metavar="FILE", required=True, type=click.Path(path_type=Path), help="The new snapshot, a .safetensors."
)
def remove_domain(name: str, network: Path, out: Path) -> None:
    """Take a domain out of a ComboGAN network.

    NAME is the domain's. Encoders, decoders and discriminators of the others stay bit for bit, and shared blocks do
    what they did but for rounding.
    """
    if out.suffix != SNAPSHOT_SUFFIX:
        raise bad_parameter(f"expected a name ending in {SNAPSHOT_SUFFIX}, got {out.name!r}", "--out")
    if out.exists():
        raise bad_parameter(f"{out} exists; name another file, or remove it first", "--out")
    from ggdr.torch_utils.checkpoint import SnapshotError, load_snapshot, save_snapshot
    from ggdr.translation.snapshot_domains import without_domain

    with cli_errors():
        snapshot = load_snapshot(network)
        try:
            smaller = without_domain(snapshot, name)
        except SnapshotError:
            raise
        except ValueError as error:
            raise bad_parameter(str(error), "NAME") from error
    try:
        save_snapshot(out, smaller.networks, smaller.config)
    except OSError as error:
        raise bad_parameter(write_error_text(out, error), "--out") from error
    say(f"{out}: {len(smaller.config['domains'])} domains, {', '.join(smaller.config['domains'])}")
