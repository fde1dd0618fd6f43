# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr translate apply`: translated images from a network snapshot."""

from __future__ import annotations

from pathlib import Path

import click

from ggdr.scripts.errors import cli_errors, write_error_text
from ggdr.scripts.options.network import make_folder, network_option, outdir_option
from ggdr.scripts.options.parameters import bad_parameter, choose_device, device_option
from ggdr.scripts.options.progress import progress_bars
from ggdr.scripts.options.training import seed_option
from ggdr.scripts.terminal import say

EXAMPLES = """\b
Examples:
  ggdr translate apply --network runs/facades plan.png --outdir out
  ggdr translate apply --network runs/colour grey_photos --outdir colour --format jpg
"""


@click.command("apply", no_args_is_help=True, epilog=EXAMPLES, context_settings={"show_default": True})
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@network_option
@outdir_option
@click.option(
    "--format",
    "file_format",
    type=click.Choice(["png", "jpg", "webp"]),
    default="png",
    help="WebP is lossless; a JPEG has no transparency.",
)
@seed_option
@device_option
def apply(images: tuple[Path, ...], network: Path, outdir: Path, file_format: str, seed: int, device: str) -> None:
    """Translate images with a trained network.

    IMAGE is a file, or a folder or zip of images with all below it. Each translation has the size and the name of its
    image. Transparency is kept; grey images serve as colour ones.
    """
    from ggdr.scripts.translating.image_files import plan_jobs, run_job
    from ggdr.torch_utils.checkpoint import SnapshotError
    from ggdr.torch_utils.pictures.images import save_image
    from ggdr.translation.snapshot import load_translator

    try:
        translator = load_translator(network, choose_device(device))
    except (SnapshotError, OSError) as error:
        raise bad_parameter(str(error), "--network") from error
    taken, made = translator.channels(*translator.domains[:2])
    if taken not in (1, 3) or made not in (1, 3):
        raise bad_parameter(
            f"{network} makes {made} channels of {taken}: expected 1 or 3, as images have",
            "--network",
        )
    with cli_errors():
        jobs = plan_jobs(images, outdir, file_format)
    make_folder(outdir)
    with cli_errors(), progress_bars() as bars:
        for done, job in enumerate(jobs, 1):
            pixels = run_job(job, translator, seed=seed)
            try:
                job.out.parent.mkdir(parents=True, exist_ok=True)
                save_image(pixels, job.out)
            except OSError as error:
                raise bad_parameter(write_error_text(outdir, error), "--outdir") from error
            bars("images", done, len(jobs))
    say(f"{len(jobs)} images written to {outdir}")
