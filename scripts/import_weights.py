# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr import-weights`: snapshots from networks that others trained."""

from __future__ import annotations

from pathlib import Path

import click

from ggdr.scripts.errors import CliError, cli_errors, nearest
from ggdr.scripts.importing.published import LICENCE, NETWORKS, network_name, weights_file
from ggdr.scripts.options.network import make_folder
from ggdr.scripts.options.parameters import bad_parameter
from ggdr.scripts.terminal import say

EXAMPLES = f"""\b
Published networks, downloaded once ({LICENCE}):
  {", ".join(list(NETWORKS)[:6])},
  {", ".join(list(NETWORKS)[6:])}

\b
Examples:
  ggdr import-weights network-snapshot-025000.pkl mine.safetensors
  ggdr import-weights ffhq256 ffhq256.safetensors
"""


class Destination(click.Path):
    """A path of a snapshot."""

    def convert(self, value, param, ctx):
        path = super().convert(value, param, ctx)
        if path.suffix != ".safetensors":
            self.fail(f"expected a name that ends in .safetensors, got {path.name}", param, ctx)
        return path


@click.command(no_args_is_help=True, epilog=EXAMPLES)
@click.argument("source", metavar="SRC")
@click.argument("dest", metavar="DEST", type=Destination(path_type=Path, dir_okay=False))
@click.option("--offline", is_flag=True, help="Do not ask the network for a published network that is in no cache.")
def main(source: str, dest: Path, offline: bool) -> None:
    """Read networks that others trained, without running code in them, and write them as a snapshot.

    SRC is a .pkl of StyleGAN2-ADA PyTorch, the StyleGAN3 release (its StyleGAN2 networks) or GGDR, a .pt checkpoint
    of stylegan2-pytorch (rosinality), state dicts or a snapshot of ours, or the name or address of a published network.
    DEST is a .safetensors file, which all commands take as --network, and `ggdr train` as --resume.
    """
    with cli_errors():
        path, about = _find(source, offline=offline)
        make_folder(dest.parent, "DEST")

        from ggdr.scripts.importing.describe import list_gaps, tabulate_networks
        from ggdr.scripts.importing.read_foreign import import_file
        from ggdr.stylegan2.weights.common import ForeignNetworkError

        try:
            result, origin = import_file(path, dest, **about)
        except ForeignNetworkError as error:
            raise CliError(f"{path}: {error}") from error
    say(f"{path}: {result.kind}, SHA-256 {origin['sha256']}")
    for line in tabulate_networks(result):
        say(f"  {line}")
    for note in [*result.notes, *list_gaps(result)]:
        say(f"note: {note}")
    say(f"written to {dest}")


def _find(source: str, *, offline: bool) -> tuple[Path, dict[str, str]]:
    """The file that SRC means, and address and SHA-256 of a published one; a file of such a name comes before that."""
    path = Path(source)
    if path.exists() and not path.is_dir():
        return path, {}
    name = network_name(source)
    if name is None:
        what = "a folder" if path.is_dir() else "no such file"
        what = "not the address of a published network; download it first" if "://" in source else what
        expected = f"a file, or one of {', '.join(NETWORKS)}{nearest(source, NETWORKS)}"
        raise bad_parameter(f"{source}: {what}; expected {expected}", "SRC")
    from ggdr.torch_utils.downloads import WeightsError, find_hashed

    file = weights_file(name)
    try:
        path, sha256 = find_hashed(file, download=not offline)
        return path, {"url": file.urls[0], "sha256": sha256}
    except WeightsError as error:
        raise CliError(str(error)) from error
