# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr import-weights`: snapshots from networks that others trained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ggdr.scripts.errors import CliError, cli_errors
from ggdr.scripts.importing.published import LICENCE, NETWORKS, network_name, weights_file
from ggdr.scripts.options.network import make_folder
from ggdr.scripts.options.parameters import bad_parameter

if TYPE_CHECKING:
    from ggdr.stylegan2.weights.common import ImportedNetworks

BUFFERS = ("resample_filter", "noise_const", "w_avg")  # values that are not trained

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

        from ggdr.scripts.importing.read_foreign import import_file
        from ggdr.stylegan2.weights.common import ForeignNetworkError

        try:
            result, origin = import_file(path, dest, **about)
        except ForeignNetworkError as error:
            raise CliError(f"{path}: {error}") from error
    click.echo(f"{path}: {result.kind}, SHA-256 {origin['sha256']}")
    for line in _table(result):
        click.echo(f"  {line}")
    for note in [*result.notes, *_missing(result)]:
        click.echo(f"note: {note}")
    click.echo(f"written to {dest}")


def _find(source: str, *, offline: bool) -> tuple[Path, dict[str, str]]:
    """The file that SRC means, and address and SHA-256 of a published one; a file of such a name comes before that."""
    path = Path(source)
    if path.is_file():
        return path, {}
    name = network_name(source)
    if name is None:
        what = "a folder" if path.is_dir() else "no such file"
        what = "not the address of a published network; download it first" if "://" in source else what
        raise bad_parameter(f"{source}: {what}; expected a file, or one of {', '.join(NETWORKS)}", "SRC")
    from ggdr.torch_utils.downloads import WeightsError, find_hashed

    file = weights_file(name)
    try:
        path, sha256 = find_hashed(file, download=not offline)
        return path, {"url": file.urls[0], "sha256": sha256}
    except WeightsError as error:
        raise CliError(str(error)) from error


def _table(result: ImportedNetworks) -> list[str]:
    """Name, size, parameters and classes of each network."""
    rows = [("network", "resolution", "parameters", "classes")]
    order = ("G_ema", "G", "D", "ggdr")
    for name, state in sorted(result.networks.items(), key=lambda item: (*order, item[0]).index(item[0])):
        config = result.D if name == "D" else result.G if name.startswith("G") else None
        size = f"{config.img_resolution}x{config.img_resolution}x{config.img_channels}" if config else ""
        if name == "ggdr":
            size = ", ".join(f"{res}x{res}" for res in _guides(result))
        classes = (str(config.c_dim) if config.c_dim else "none") if config else ""
        num = sum(value.numel() for key, value in state.items() if not key.endswith(BUFFERS))
        rows.append((name, size, f"{num:,}", classes))
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    return [
        f"{name:<{widths[0]}}  {size:<{widths[1]}}  {num:>{widths[2]}}  {classes}".rstrip()
        for name, size, num, classes in rows
    ]


def _guides(result: ImportedNetworks) -> list[int]:
    """Resolutions that the GGDR decoder predicts, as far as the settings tell."""
    try:
        guides = result.config()["training"]["regularizers"]["ggdr"]["guide_res"]
    except (KeyError, TypeError):
        return []
    return [res for res in guides if isinstance(res, int)] if isinstance(guides, list) else []


def _missing(result: ImportedNetworks) -> list[str]:
    """What cannot be done with networks that a file lacks."""
    notes = []
    if "G_ema" not in result.networks and "G" not in result.networks:
        notes.append("there is no generator, so that nothing can be generated")
    elif "G" not in result.networks:
        notes.append("there is no G; training would start from G_ema")
    if "D" not in result.networks:
        notes.append("there is no D, so that it cannot be trained further")
    return notes
