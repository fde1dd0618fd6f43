# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr import-weights`: snapshots from networks that others trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ggdr.scripts.errors import CliError, cli_errors, nearest
from ggdr.scripts.importing.published import LICENCE, NETWORKS, network_name, weights_file
from ggdr.scripts.options.network import ReadBy, make_folder
from ggdr.scripts.options.parameters import bad_parameter
from ggdr.scripts.options.translation import parse_names
from ggdr.scripts.terminal import say

EXAMPLES = f"""\b
Published networks, downloaded once ({LICENCE}):
  {", ".join(list(NETWORKS)[:6])},
  {", ".join(list(NETWORKS)[6:])}

\b
Examples:
  ggdr import-weights network-snapshot-025000.pkl mine.safetensors
  ggdr import-weights ffhq256 ffhq256.safetensors
  ggdr import-weights checkpoints/horse2zebra --domains horse,zebra zebra.safetensors
"""


class Destination(click.Path):
    """A path of a snapshot."""

    def convert(self, value, param, ctx):
        path = super().convert(value, param, ctx)
        if path.suffix != ".safetensors":
            self.fail(f"expected a name that ends in .safetensors, got {path.name}", param, ctx)
        return path


def net_file(text: str) -> tuple[str, Path]:
    """A network's name and its file."""
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise ValueError(f"expected NAME=FILE, such as G_A=200_net_G_A.pth; got {text!r}")
    return name, Path(path)


@click.command(no_args_is_help=True, epilog=EXAMPLES)
@click.argument("sources", metavar="[SRC]", nargs=-1)
@click.argument("dest", metavar="DEST", type=Destination(path_type=Path, dir_okay=False))
@click.option(
    "--net",
    "nets",
    metavar="NAME=FILE",
    type=ReadBy(net_file),
    multiple=True,
    help="In place of SRC, a file of one network: G and D of pix2pix; G_A, G_B, D_A, D_B of CycleGAN; G0, G1, ..., D0, "
    "... of ComboGAN. Once for each.",
)
@click.option(
    "--domains",
    metavar="NAME,NAME...",
    type=ReadBy(parse_names),
    show_default="A,B of CycleGAN; 0,1,... of ComboGAN",
    help="What the domains of CycleGAN or ComboGAN are called, in order.",
)
@click.option(
    "--dropout/--no-dropout",
    default=None,
    show_default="as published: pix2pix has it, CycleGAN has none",
    help="Whether U-Nets of image translation were trained with dropout.",
)
@click.option("--offline", is_flag=True, help="Do not ask the network for a published network that is in no cache.")
def main(
    sources: tuple[str, ...],
    dest: Path,
    nets: tuple[tuple[str, Path], ...],
    domains: list[str] | None,
    dropout: bool | None,
    offline: bool,
) -> None:
    """Read networks that others trained, without running code in them, and write them as a snapshot.

    SRC is a .pkl of StyleGAN2-ADA PyTorch, the StyleGAN3 release (its StyleGAN2 networks) or GGDR, a .pt checkpoint
    of stylegan2-pytorch (rosinality), state dicts or a snapshot of ours, or the name or address of a published network.
    Of image translation it is a generator (latest_net_G.pth), or a folder with all networks of pix2pix, CycleGAN or
    ComboGAN. DEST is a .safetensors file, which commands take as --network, and for training as --resume.
    """
    if len(sources) != (0 if nets else 1):
        got = f"got {len(sources)}: {' '.join(sources)}" if sources else "got none"
        raise bad_parameter(f"expected {'none beside --net' if nets else 'one'}, {got}", "SRC")
    how: dict[str, Any] = {"domains": domains, "dropout": dropout}
    with cli_errors():
        folder = Path(sources[0]) if sources and Path(sources[0]).is_dir() else None
        path, about = (None, {}) if nets or folder else _find(sources[0], offline=offline)
        make_folder(dest.parent, "DEST")

        from ggdr.scripts.importing.describe import list_gaps, tabulate_networks
        from ggdr.scripts.importing.read_foreign import import_file
        from ggdr.scripts.importing.translators import find_files, import_translator
        from ggdr.torch_utils.untrusted.state_dicts import ForeignNetworkError

        where = path or folder
        try:
            if path is not None:
                result, origin = import_file(path, dest, **about, **how)
            else:
                files = find_files(folder) if folder else _named(nets)
                result, origin = import_translator(files, dest, source=folder, **how)
        except ForeignNetworkError as error:
            raise CliError(f"{where or '--net'}: {error}") from error
    say(f"{path}: {result.kind}, SHA-256 {origin['sha256']}" if path else f"{folder or '--net'}: {result.kind}")
    for line in tabulate_networks(result, origin):
        say(f"  {line}")
    for note in [*result.notes, *list_gaps(result)]:
        say(f"note: {note}")
    say(f"written to {dest}")


def _named(nets: tuple[tuple[str, Path], ...]) -> dict[str, Path]:
    """The files by their networks' names."""
    for _, path in nets:
        if not path.is_file():
            raise bad_parameter(f"{path}: {'a folder' if path.is_dir() else 'no such file'}", "--net")
    twice = [name for i, (name, _) in enumerate(nets) if name in dict(nets[:i])]
    if twice:
        raise bad_parameter(f"{twice[0]} is given twice", "--net")
    return dict(nets)


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
