# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr generate`: images from a network snapshot."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from scripts.parameters import FiniteFloat, choose_device, device_option, ops_option, prepare_ops

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from stylegan2 import Generator

Parsed = TypeVar("Parsed")
MAX_SEEDS = 1_000_000
MAX_SEED = 2**63 - 1


def parse_seeds(text: str) -> list[int]:
    """Seeds of a comma-separated list of numbers and inclusive ranges: "0-2,100" is [0, 1, 2, 100].

    A seed named twice counts once, where it was named first.

    Raises:
        ValueError: anything else, a backward range, a seed of 2^63 or more, or over a million seeds.
    """
    seeds: dict[int, None] = {}
    for part in text.split(","):
        match = re.fullmatch(r"\s*([0-9]+)\s*(?:-\s*([0-9]+)\s*)?", part)
        if match is None:
            raise ValueError(f"expected numbers and ranges, as in 0-63,100; got {part.strip()!r} in {text!r}")
        first = int(match[1])
        last = first if match[2] is None else int(match[2])
        if last < first:
            raise ValueError(f"expected a range from low to high, got {part.strip()!r} in {text!r}")
        if last > MAX_SEED:
            raise ValueError(f"expected seeds up to {MAX_SEED}, got {last}")
        if len(seeds) + last - first >= MAX_SEEDS:
            raise ValueError(f"expected {MAX_SEEDS} seeds at most, got more in {text!r}")
        seeds.update(dict.fromkeys(range(first, last + 1)))
    return list(seeds)


def parse_grid(text: str) -> tuple[int, int]:
    """Columns and rows of "8x4". Raises ValueError for anything else, or a side below 1."""
    match = re.fullmatch(r"([0-9]+)x([0-9]+)", text.strip().lower())
    if match is None or int(match[1]) < 1 or int(match[2]) < 1:
        raise ValueError(f"expected columns x rows such as 8x8, got {text!r}")
    return int(match[1]), int(match[2])


def generate_images(
    G: Generator,
    seeds: Sequence[int],
    *,
    device: torch.device | str,
    batch_size: int,
    class_idx: int | None = None,
    truncation_psi: float = 1.0,
    truncation_cutoff: int | None = None,
    noise_mode: str = "const",
) -> Iterator[tuple[list[int], Tensor, Tensor]]:
    """Generate the images of `seeds`, batch by batch.

    A seed's z, and its noise if `noise_mode` is "random", are drawn on the CPU from a `torch.Generator` of
    their own, so that they depend neither on the device nor on the batch size nor on the other seeds.

    Args:
        G:         on `device`, in eval mode.
        class_idx: for a conditional G; None is all zeros, for an unconditional one.

    Yields:
        The batch's n seeds; images [n, C, H, W] uint8 and ws [n, num_ws, w_dim] float32, both on the CPU.
    """
    import torch

    from torch_utils.images import to_u8

    for start in range(0, len(seeds), batch_size):
        batch = list(seeds[start : start + batch_size])
        c = torch.zeros([len(batch), G.c_dim])
        if class_idx is not None:
            c[:, class_idx] = 1
        img, ws = images_of_seeds(
            G,
            batch,
            c,
            device=device,
            truncation_psi=truncation_psi,
            truncation_cutoff=truncation_cutoff,
            noise_mode=noise_mode,
        )
        yield batch, to_u8(img).cpu(), ws.cpu()


def images_of_seeds(
    G: Generator,
    seeds: Sequence[int],
    c: Tensor,
    *,
    device: torch.device | str,
    truncation_psi: float = 1.0,
    truncation_cutoff: int | None = None,
    noise_mode: str = "const",
) -> tuple[Tensor, Tensor]:
    """The image and the ws of each seed, drawn as `generate_images` says.

    Args:
        G: on `device`, in eval mode.
        c: [n, c_dim] labels.

    Returns:
        img [n, C, H, W] float32 and ws [n, num_ws, w_dim] float32, both on `device`.
    """
    import torch

    generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    z = torch.stack([torch.randn([G.z_dim], generator=generator) for generator in generators])
    noise = None
    if noise_mode == "random":
        draws = [G.synthesis.draw_noise(1, generator=generator) for generator in generators]
        noise = [torch.cat(layer).to(device) for layer in zip(*draws, strict=True)]
    with torch.inference_mode():
        ws = G.mapping(z.to(device), c.to(device), truncation_psi=truncation_psi, truncation_cutoff=truncation_cutoff)
        return G.synthesis(ws, noise=noise, noise_mode=noise_mode), ws


EXAMPLES = """\b
Examples:
  ggdr generate --network network-snapshot-000100.safetensors --seeds 0-63 --outdir out --grid 8x8
  ggdr generate --network cifar.safetensors --seeds 0-999 --class 3 --trunc 0.7 --outdir cats
"""


@click.command(no_args_is_help=True, epilog=EXAMPLES, context_settings={"show_default": True})
@click.option(
    "--network",
    metavar="FILE",
    required=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Network snapshot, network-snapshot-KKKKKK.safetensors.",
)
@click.option("--seeds", metavar="LIST", required=True, help="Numbers and inclusive ranges, e.g. 0-63,100.")
@click.option(
    "--outdir",
    metavar="DIR",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the pictures, made if missing; pictures of the same name are replaced.",
)
@click.option(
    "--trunc",
    "truncation_psi",
    metavar="PSI",
    type=FiniteFloat(),
    default=1.0,
    help="Truncation: w is pulled towards its mean; 1 leaves it, 0 is the mean.",
)
@click.option(
    "--trunc-cutoff",
    "truncation_cutoff",
    metavar="N",
    type=click.IntRange(min=0),
    show_default="all",
    help="Truncate the first N layers' w only.",
)
@click.option(
    "--class",
    "class_idx",
    metavar="IDX",
    type=click.IntRange(min=0),
    help="Class to generate, from 0 up; a conditional network needs it.",
)
@click.option(
    "--noise-mode",
    type=click.Choice(["const", "random", "none"]),
    default="const",
    help="Noise inputs: the network's own, drawn from each seed, or none.",
)
@click.option(
    "--grid",
    metavar="COLSxROWS",
    help="Write one picture, grid.FORMAT, instead of one for each seed; e.g. 8x8.",
)
@click.option(
    "--batch",
    "batch_size",
    metavar="N",
    type=click.IntRange(min=1),
    default=16,
    help="Images at once.",
)
@device_option
@ops_option
@click.option(
    "--format",
    "file_format",
    type=click.Choice(["png", "jpg", "webp", "npz"]),
    default="png",
    help="npz: one file, images.npz, of images uint8 [N,H,W,C] and seeds. WebP is lossless.",
)
@click.option("--save-w", is_flag=True, help="With --format npz: also w float32 [N,num_ws,w_dim].")
def main(
    network: Path,
    seeds: str,
    outdir: Path,
    truncation_psi: float,
    truncation_cutoff: int | None,
    class_idx: int | None,
    noise_mode: str,
    grid: str | None,
    batch_size: int,
    device: str,
    ops: str | None,
    file_format: str,
    save_w: bool,
) -> None:
    """Generate images from a network snapshot.

    Writes seed0000.png and so on, one for each seed. A seed's latent is the same on every device and in every
    batch.
    """
    seed_list = _parsed(parse_seeds, seeds, "--seeds")
    columns_rows = None if grid is None else _parsed(parse_grid, grid, "--grid")
    if columns_rows is not None:
        cells = columns_rows[0] * columns_rows[1]
        if file_format == "npz":
            raise _bad("a grid is a picture: expected --format png, jpg or webp, got npz", "--grid")
        if len(seed_list) > cells:
            raise _bad(f"{grid} holds {cells} images, got {len(seed_list)} seeds", "--grid")
    if save_w and file_format != "npz":
        raise _bad(f"w is stored in npz files: expected --format npz, got {file_format}", "--save-w")

    import torch

    torch_device = choose_device(device)
    G = _load(network, torch_device)
    _check_class(network, G, class_idx)
    if truncation_cutoff is not None and truncation_cutoff > G.num_ws:
        raise _bad(
            f"{network} has {G.num_ws} ws: expected 0 to {G.num_ws}, got {truncation_cutoff}",
            "--trunc-cutoff",
        )
    if file_format == "jpg" and G.img_channels == 4:
        raise _bad("a JPEG has no alpha and the network makes 4 channels: expected png, webp or npz", "--format")
    _make_folder(outdir)
    prepare_ops(ops, torch_device)

    batches = generate_images(
        G,
        seed_list,
        device=torch_device,
        batch_size=batch_size,
        class_idx=class_idx,
        truncation_psi=truncation_psi,
        truncation_cutoff=truncation_cutoff,
        noise_mode=noise_mode,
    )
    try:
        written = _write(batches, outdir, len(seed_list), columns_rows, file_format, save_w)
    except torch.cuda.OutOfMemoryError as err:
        raise _bad(f"{batch_size} images at once do not fit the GPU's memory: expected fewer", "--batch") from err
    except OSError as err:
        raise _bad(f"cannot write to {outdir}: {err.strerror or err}", "--outdir") from err
    click.echo(f"{len(seed_list)} images written to {written}")


def _write(
    batches: Iterator[tuple[list[int], Tensor, Tensor]],
    outdir: Path,
    num_seeds: int,
    columns_rows: tuple[int, int] | None,
    file_format: str,
    save_w: bool,
) -> Path:
    """Write the pictures as they come, or one file at the end; returns the file, or the folder of many."""
    import torch
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from torch_utils.images import make_grid, save_image

    keep_images = columns_rows is not None or file_format == "npz"
    all_seeds: list[int] = []
    all_images: list[Tensor] = []
    all_ws: list[Tensor] = []
    console = Console(stderr=True)
    look = (TextColumn("generating"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*look, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("generating", total=num_seeds)
        for seeds, images_u8, ws in batches:
            if keep_images:
                all_seeds += seeds
                all_images.append(images_u8)
                all_ws += [ws] if save_w else []
            else:
                for seed, image_u8 in zip(seeds, images_u8, strict=True):
                    save_image(image_u8, outdir / f"seed{seed:04d}.{file_format}")
            progress.advance(task, len(seeds))

    if columns_rows is not None:
        columns, rows = columns_rows
        images_u8 = torch.cat(all_images)
        # Cells without a seed stay empty.
        blank = images_u8.new_zeros([columns * rows - len(images_u8), *images_u8.shape[1:]])
        path = outdir / f"grid.{file_format}"
        save_image(make_grid(torch.cat([images_u8, blank]), columns), path)
        return path
    if file_format == "npz":
        path = outdir / "images.npz"
        _save_npz(path, torch.cat(all_images), all_seeds, torch.cat(all_ws) if save_w else None)
        return path
    return outdir


def _save_npz(path: Path, images_u8: Tensor, seeds: list[int], ws: Tensor | None) -> None:
    """images uint8 [N, H, W, C], seeds int64 [N] and perhaps w float32 [N, num_ws, w_dim]; uncompressed."""
    import numpy as np

    from torch_utils.checkpoint import atomic_write

    images = images_u8.permute(0, 2, 3, 1).contiguous().numpy()
    arrays = {"images": images, "seeds": np.array(seeds, np.int64)}
    if ws is not None:
        arrays["w"] = ws.numpy()
    with atomic_write(path) as file:
        np.savez(file, **arrays)


def _load(network: Path, device: torch.device) -> Generator:
    """The generator on its device; BadParameter if the snapshot cannot be read."""
    import stylegan2
    from torch_utils.checkpoint import SnapshotError

    try:
        return stylegan2.load_generator(network, device=device)
    except (SnapshotError, OSError) as err:
        raise _bad(str(err), "--network") from err


def _check_class(network: Path, G: Generator, class_idx: int | None) -> None:
    """BadParameter unless a class is given exactly for a conditional network, and is one of its classes."""
    if G.c_dim == 0 and class_idx is not None:
        raise _bad(f"{network} is unconditional: expected no class, got {class_idx}", "--class")
    if G.c_dim > 0 and (class_idx is None or class_idx >= G.c_dim):
        got = "none" if class_idx is None else class_idx
        raise _bad(f"{network} has {G.c_dim} classes: expected one of 0 to {G.c_dim - 1}, got {got}", "--class")


def _make_folder(outdir: Path) -> None:
    """Make the output folder and see that files can be made in it, before any work is done."""
    import tempfile

    try:
        outdir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=outdir):
            pass
    except OSError as err:
        raise _bad(f"cannot write to {outdir}: {err.strerror or err}", "--outdir") from err


def _parsed(parse: Callable[[str], Parsed], text: str, option: str) -> Parsed:
    """`parse(text)`, its ValueError turned into a message about the option."""
    try:
        return parse(text)
    except ValueError as err:
        raise _bad(str(err), option) from err


def _bad(message: str, option: str) -> click.BadParameter:
    return click.BadParameter(message, param_hint=f"'{option}'")


if __name__ == "__main__":
    main()
