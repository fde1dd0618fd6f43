# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The `ggdr` command. Sub-commands are imported when they run, so that help is instant."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from typing import Any

import click

from ggdr.scripts.errors import CliError, nearest, os_error_text
from ggdr.scripts.terminal import say
from ggdr.torch_utils.untrusted.text import visible

COMMANDS = {
    "dataset": "Convert images to the dataset format.",
    "train": "Train StyleGAN2-ADA with GGDR.",
    "translate": "Train networks that turn one kind of image into another, and use them.",
    "compare": "Compare variants of training over several seeds, on the same data.",
    "generate": "Make images with a trained generator.",
    "interpolate": "Walk between latents, as a video.",
    "stylemix": "Mix the styles of images, as a table.",
    "truncation": "Show images at several strengths of truncation.",
    "directions": "Find directions in W that change images in one way.",
    "project": "Find the latent of a given image.",
    "clusters": "See what generator and discriminator know, as cluster maps.",
    "import-weights": "Read published networks, without running code in them.",
    "export": "Write a network as ONNX, torch.export, state dict, or a folder for a model hub.",
    "card": "Write a model card about a network.",
    "metrics": "Compute FID, KID and other metrics.",
    "segmenter": "Train networks that find classes in images, to judge translations of label maps.",
    "curves": "Plot losses and scores of one or several runs.",
    "report": "Write one HTML page about one or several runs.",
    "bench": "Measure the speed of training, loader and converter.",
    "doctor": "Examine this installation and its compiled operations.",
    "accept": "Find out what works on this machine, and how fast, in one file.",
}


class LazyGroup(click.Group):
    """Finds the command NAME as `main` in the module ggdr.scripts.NAME, with _ for -.

    What the system refuses ends in a message everywhere, also while options are read and help is printed.
    """

    def main(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().main(*args, **kwargs)
        except OSError as error:
            say(f"Error: {os_error_text(error)}", err=True)
            _drop_output()
            sys.exit(CliError.exit_code)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        return importlib.import_module(f"ggdr.scripts.{cmd_name.replace('-', '_')}").main

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0] if args else ""
        if name and not name.startswith("-") and self.get_command(ctx, name) is None:
            raise click.UsageError(f"no command {name!r}{nearest(name, COMMANDS)}", ctx)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command; its errors name files and texts of strangers, and a terminal obeys control characters."""
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            error.message = visible(error.message)
            raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _drop_output() -> None:
    """Lets go of what standard output could not take, so that Python does not fail with it again at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


EXAMPLES = """\b
Examples:
  ggdr dataset digits digits.zip
  ggdr train --data digits.zip --outdir runs/digits --cfg demo
"""


@click.command(
    cls=LazyGroup, epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(package_name="ggdr", prog_name="ggdr")
def main() -> None:
    """StyleGAN2-ADA with generator-guided discriminator regularisation (GGDR)."""
