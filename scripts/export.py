# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr export`: a network for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from ggdr.scripts.errors import CliError, cli_errors
from ggdr.scripts.options.network import ReadBy, make_folder, network_option
from ggdr.scripts.options.numbers import WholeNumber
from ggdr.scripts.options.parameters import bad_parameter, choose_device, device_option, prepare_ops
from ggdr.scripts.options.pictures import cutoff_option, noise_option
from ggdr.scripts.options.progress import busy_with
from ggdr.scripts.reports.card_options import (
    card_options,
    card_parameters,
    check_place,
    check_seeds,
    read_card_facts,
)
from ggdr.scripts.terminal import say
from ggdr.scripts.translating.options import from_option, to_option

if TYPE_CHECKING:
    from ggdr.torch_utils.checkpoint import Snapshot

PARTS = ("generator", "mapping", "synthesis", "discriminator")
ENDINGS = {".onnx": "onnx", ".pt2": "torch-export", ".pt": "state-dict", ".safetensors": "state-dict", "": "hub"}
FORMATS = tuple(dict.fromkeys(ENDINGS.values()))
GRAPHS = ("onnx", "torch-export")
# Options that mean something to some formats only.
OF_FORMATS = {
    "part": ("onnx", "torch-export", "state-dict"),
    "truncation_psi": (*GRAPHS, "hub"),
    "truncation_cutoff": GRAPHS,
    "noise_mode": GRAPHS,
    "opset": ("onnx",),
    "source": ("onnx", "torch-export", "state-dict"),
    "target": ("onnx", "torch-export", "state-dict"),
    "with_discriminator": ("hub",),
    "device": ("hub",),
} | {name: ("hub",) for name in card_parameters()}
OF_STYLEGAN2 = ("truncation_psi", "truncation_cutoff", "noise_mode", "seeds")
OF_TRANSLATORS = ("source", "target")
INSTALL_ONNX = "pip install onnx onnxscript onnxruntime"


def truncation(text: str) -> float | None:
    """A number, or None for "input"."""
    try:
        psi = None if text == "input" else float(text)
    except ValueError:
        psi = float("nan")
    if psi is not None and not abs(psi) < float("inf"):
        raise ValueError(f"expected a number, or input; got {text!r}")
    return psi


EXAMPLES = """\b
Examples:
  ggdr export --network network-snapshot-000100.safetensors --trunc 0.7 --out generator.onnx
  ggdr export --network network-snapshot-000100.safetensors --license cc-by-4.0 --format hub --out my-model
"""


@click.command(no_args_is_help=True, epilog=EXAMPLES, context_settings={"show_default": True})
@network_option
@click.option(
    "--format",
    "file_format",
    type=click.Choice(FORMATS),
    show_default="by the ending of --out",
    help="onnx (.onnx); torch-export (.pt2); state-dict (.safetensors, or .pt by torch.save); hub: a folder for a "
    "model hub, with card and pictures.",
)
@click.option(
    "--out", metavar="PATH", required=True, type=click.Path(path_type=Path), help="File, or folder of a hub, to write."
)
@click.option("--part", type=click.Choice(PARTS), default="generator", help="Which network, or part of the generator.")
@from_option
@to_option
@cutoff_option
@noise_option
@click.option(
    "--opset", metavar="N", type=WholeNumber(min=18), show_default="PyTorch's", help="Version of ONNX' operations."
)
@click.option("--with-discriminator", is_flag=True, help="hub: all networks, for fine-tuning.")
@card_options
@click.option(
    "--trunc",
    "truncation_psi",
    metavar="PSI|input",
    type=ReadBy(truncation),
    default="1",
    help="Truncation, fixed in the file (of a hub: for the pictures), or an input of its own, truncation_psi.",
)
@device_option
@click.pass_context
def main(ctx: click.Context, network: Path, file_format: str | None, out: Path, **options: Any) -> None:
    """Write a network for other programs.

    Files of ONNX and torch.export take batches of any size, compute in float32, and are compared with PyTorch before
    they appear under their name. Weights are the averaged generator's. --run, --title, --license, --repo and --seeds
    are for the card and the pictures of a hub. Of image translation --from and --to say which networks are exported;
    graphs take images of any size.
    """
    from ggdr.torch_utils.checkpoint import SnapshotError, load_snapshot
    from ggdr.torch_utils.snapshot_kinds import holds_translator

    file_format = _format(out, file_format)
    _refuse_others(ctx, file_format)
    _spare(network, out, file_format)
    try:
        snapshot = load_snapshot(network)
    except SnapshotError as error:
        raise bad_parameter(str(error), "--network") from error
    _refuse_of_other_kind(ctx, file_format, is_translator=holds_translator(snapshot.config))
    if file_format == "hub":
        _export_hub(network, out, options)
    elif file_format == "state-dict":
        _export_state_dict(snapshot, out, options)
    else:
        _export_graph(snapshot, out, file_format, options)


def _format(out: Path, file_format: str | None) -> str:
    """The format; BadParameter if the name of the file is another's."""
    found = ENDINGS.get(out.suffix.lower())
    if file_format == "hub" and out.suffix.lower() in (".onnx", ".pt2", ".pt", ".safetensors"):
        raise bad_parameter(f"hub is a folder: expected a name without {out.suffix}, got {out}", "--out")
    if file_format not in (None, "hub", found) or (file_format is None and found is None):
        endings = [ending for ending, name in ENDINGS.items() if ending and file_format in (None, name)]
        raise bad_parameter(f"expected a name ending in {' or '.join(endings)}, got {out}", "--out")
    is_folder = (file_format or found) == "hub"
    if out.exists() and out.is_dir() != is_folder:
        raise bad_parameter(f"{out} is a {'file' if is_folder else 'folder'}", "--out")
    return file_format or found


def _spare(network: Path, out: Path, file_format: str) -> None:
    """BadParameter if the network itself would be overwritten, by something that holds less."""
    from ggdr.scripts.reports.hub_folder import WEIGHTS_FILE

    written = out / WEIGHTS_FILE if file_format == "hub" else out
    if written.exists() and written.samefile(network):
        raise bad_parameter(f"{written} is the network itself: choose another name", "--out")


def _refuse_others(ctx: click.Context, file_format: str) -> None:
    """BadParameter for an option that was given and means nothing here."""
    for param in ctx.command.params:
        formats = OF_FORMATS.get(param.name, FORMATS)
        if file_format not in formats and ctx.get_parameter_source(param.name) is not ParameterSource.DEFAULT:
            raise bad_parameter(f"is for --format {' or '.join(formats)}, got {file_format}", param.opts[0])
    part = ctx.params["part"]
    for name in ("truncation_psi", "truncation_cutoff", "noise_mode"):
        given = ctx.get_parameter_source(name) is not ParameterSource.DEFAULT
        option = next(param.opts[0] for param in ctx.command.params if param.name == name)
        meaningless = {"discriminator"} | {"mapping" if name == "noise_mode" else "synthesis"}
        if file_format in GRAPHS and given and part in meaningless:
            raise bad_parameter(f"means nothing to --part {part}", option)


def _refuse_of_other_kind(ctx: click.Context, file_format: str, *, is_translator: bool) -> None:
    """BadParameter for an option that was given and means nothing to a translator, or to any but one."""
    kind, meaningless = ("a translator", OF_STYLEGAN2) if is_translator else ("a StyleGAN2", OF_TRANSLATORS)
    for param in ctx.command.params:
        if param.name in meaningless and ctx.get_parameter_source(param.name) is not ParameterSource.DEFAULT:
            raise bad_parameter(f"means nothing to {kind}, which {ctx.params['network']} holds", param.opts[0])
    part = ctx.params["part"]
    expected = ("generator",) if file_format in GRAPHS else ("generator", "discriminator")
    if is_translator and part not in expected:
        raise bad_parameter(
            f"of a translator, as {file_format}: expected {' or '.join(expected)}, got {part}", "--part"
        )


def _export_graph(snapshot: Snapshot, out: Path, file_format: str, options: dict[str, Any]) -> None:
    """ONNX or torch.export."""
    from ggdr.scripts.exporting.parts import describe_part, open_part
    from ggdr.scripts.exporting.translators import open_translator_part
    from ggdr.scripts.exporting.write import export_graph, missing_for_onnx
    from ggdr.torch_utils.export_formats import ExportError
    from ggdr.torch_utils.snapshot_kinds import holds_translator

    missing = missing_for_onnx() if file_format == "onnx" else []
    if missing:
        raise CliError(f"--format: onnx needs {' and '.join(missing)}, not installed here; get them by {INSTALL_ONNX}")
    how = {name: options[name] for name in ("truncation_psi", "truncation_cutoff", "noise_mode")}
    notes: list[str] = []
    with cli_errors():
        if holds_translator(snapshot.config):
            part, metadata, notes = open_translator_part(snapshot, options["source"], options["target"])
        else:
            part = open_part(snapshot, options["part"], **how)
            metadata = describe_part(snapshot, part, **how)
        make_folder(out.parent, "--out")
        with busy_with(f"writing {out.name}, and comparing it with PyTorch"):
            try:
                comparison = export_graph(part, out, file_format, metadata=metadata, opset=options["opset"])
            except ExportError as error:
                raise CliError(f"--out: not written, as {error}") from error
    say(f"{part.name} written to {out}")
    for name, meaning in part.inputs.items():
        say(f"  in   {name}: {meaning}")
    say(f"  out  {part.output}: {part.meaning}")
    for note in notes:
        say(f"note: {note}")
    if comparison is None:
        say(f"not compared with PyTorch: that needs onnxruntime ({INSTALL_ONNX})", err=True)
    else:
        found = f"largest difference {comparison.difference:.2g}"
        say(f"compared with PyTorch for {part.compared}, by {comparison.judge}: {found}")


def _export_state_dict(snapshot: Snapshot, out: Path, options: dict[str, Any]) -> None:
    """One state dict, and its settings as JSON beside it."""
    from ggdr.scripts.exporting.parts import open_network
    from ggdr.scripts.exporting.translators import open_translator_network
    from ggdr.scripts.exporting.write import export_state_dict
    from ggdr.torch_utils.snapshot_kinds import holds_translator

    part = options["part"]
    with cli_errors():
        if holds_translator(snapshot.config):
            name, net = open_translator_network(snapshot, part, options["source"], options["target"])
        else:
            name, net = part, open_network(snapshot, part)
        make_folder(out.parent, "--out")
        num, settings = export_state_dict(net, name, snapshot, out)
    say(f"{num} tensors of the {part} written to {out}, read again and found equal; settings in {settings}")


def _export_hub(network: Path, out: Path, options: dict[str, Any]) -> None:
    """A folder of files, which replace those of their names."""
    from ggdr.scripts.exporting.parts import check_discriminator
    from ggdr.scripts.exporting.staging import staged_files
    from ggdr.scripts.reports.hub_folder import CARD_FILE, HUB_FILES, WEIGHTS_FILE, write_hub_files
    from ggdr.torch_utils.untrusted.text import printable

    check_seeds(options["seeds"])
    check_place(out / CARD_FILE)
    if options["truncation_psi"] is None:
        raise bad_parameter("pictures need a number, got input", "--trunc")
    device = choose_device(options["device"])
    snapshot, facts = read_card_facts(network, options["run_dir"])
    if options["with_discriminator"]:
        check_discriminator(snapshot, "--with-discriminator")
    make_folder(out, "--out")
    prepare_ops(None, device)
    names = ("with_discriminator", "seeds", "truncation_psi", "title", "licence", "repo")
    with cli_errors(), staged_files(out / WEIGHTS_FILE) as path:
        write_hub_files(path.parent, snapshot, facts, device=device, **{name: options[name] for name in names})
    say(f"{', '.join(HUB_FILES[:-1])} and {HUB_FILES[-1]} written to {out}")
    others = sorted(path.name for path in out.iterdir() if path.name not in (*HUB_FILES, ".git", ".gitattributes"))
    if others:
        named = ", ".join(printable(name) for name in others[:3]) + (", ..." if len(others) > 3 else "")
        say(f"note: {out} holds other files, which would be uploaded too: {named}", err=True)
    if options["licence"] is None:
        say("the card names no licence: choose one with --license", err=True)
    say(f"to upload: hf upload {options['repo']} {out}")
