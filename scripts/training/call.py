# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr train` as a function, for notebooks and scripts."""

from __future__ import annotations

import os
from typing import Any

import click
from click.core import ParameterSource

from ggdr.scripts.options.option_words import host_name, mapping_words, training_command

COMMAND = "train"


class TrainError(RuntimeError):
    """Training cannot start or go on; the message is the one that `ggdr train` would print."""


def train(*, outdir: str | os.PathLike, **options: Any) -> bool:
    """Trains in this process, as `ggdr train` does: same options, same run folder, same numbers.

    Example:
        >>> from ggdr.scripts.training import train
        >>> train(data="cifar10.zip", outdir="runs/cifar", cfg="cpu", kimg=60, ggdr_weight=10)
        >>> train(outdir="runs/cifar", resume="latest", kimg=100)

    Args:
        outdir:  run folder; made if missing.
        options: those of `ggdr train` but --dry-run, by name, with _ for -: numbers, text and paths; True and False for
                 flags; a list for what may be given several times; metrics as text with commas. None is the default.

    Returns:
        True once the run has come to its end; False where a signal, as of a notebook's stop button, ended it before,
        with the state saved.

    Raises:
        TrainError: an option is unknown or has a value that it cannot have; the data or the run cannot be read;
                    training went astray; the process is one of several of torchrun, which the command is for.
    """
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise TrainError("train() is for one process; start several with torchrun and `ggdr train`")
    options = {name.replace("-", "_"): value for name, value in options.items() if value is not None}
    if "dry_run" in options:
        raise TrainError("train() trains; `ggdr train --dry-run` prints the settings and writes nothing")
    try:
        return _run({"outdir": outdir, **options})
    except click.ClickException as error:
        raise TrainError(error.format_message()) from error


def _run(options: dict[str, Any]) -> bool:
    """Parses the options as the command does, and runs; raises click's exceptions."""
    from ggdr.scripts.errors import cli_errors
    from ggdr.scripts.options.parameters import join_processes
    from ggdr.scripts.training.plan import resolve_run
    from ggdr.scripts.training.run import start_as

    command = training_command(COMMAND)
    words = mapping_words(COMMAND, options, "train()")
    with command.make_context(COMMAND, words) as ctx:
        given = {name for name in ctx.params if ctx.get_parameter_source(name) is not ParameterSource.DEFAULT}
        values = ctx.params
        with cli_errors():
            group = join_processes(values["device"])
            plan = resolve_run(host_name(COMMAND, options), values, given, group)
            return start_as(command, plan, group)
