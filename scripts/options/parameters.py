# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Command-line options that several commands share: their types, and what they stand for."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import click
from click.core import ParameterSource

from ggdr.scripts.errors import CliError
from ggdr.scripts.options.numbers import FiniteFloat

if TYPE_CHECKING:
    import torch

    from ggdr.torch_utils.distributed import ProcessGroup


DIST_TIMEOUT_MIN = 15.0


class CheckedText(click.ParamType):
    """Text that a function reads, whose ValueError is the message; it stays text."""

    parse: ClassVar[Callable[[str], Any]]

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            type(self).parse(value)
        except (AttributeError, TypeError, ValueError) as error:
            self.fail(str(error), param, ctx)
        return value


class Device(click.ParamType):
    """auto, cpu, cuda or cuda:N."""

    name = "device"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", value):
            self.fail(f"{value!r} is none of auto, cpu, cuda, cuda:N", param, ctx)
        return value


device_option = click.option(
    "--device", type=Device(), default="auto", metavar="auto|cpu|cuda", help="auto: a GPU if there is one."
)
ops_option = click.option(
    "--ops",
    type=click.Choice(["auto", "native", "reference"]),
    help="Compiled operations, or their reference in plain PyTorch; auto: compiled where they can be built."
    "  [default: $GGDR_OPS, or auto]",
)


dist_timeout_option = click.option(
    "--dist-timeout",
    type=FiniteFloat(min=0.01, max=60 * 24),
    default=DIST_TIMEOUT_MIN,
    metavar="MINUTES",
    help="With torchrun: how long a process waits for another one. What the first does alone must fit: writing a "
    "snapshot, a metric's last step.",
)
KIMG = FiniteFloat(min=0.001, max=1e12)  # from one image on; larger numbers of images are not exact in all formats
MAX_WORKERS = 1024


def bad_parameter(message: str, option: str) -> click.BadParameter:
    """An option's value cannot be used; to be raised."""
    return click.BadParameter(message, param_hint=f"'{option}'")


def refuse_given(ctx: click.Context, names: Collection[str], kind: str) -> None:
    """BadParameter for an option among parameters of these names that was given, and means nothing to a snapshot."""
    for param in ctx.command.params:
        if param.name in names and ctx.get_parameter_source(param.name) is not ParameterSource.DEFAULT:
            raise bad_parameter(f"means nothing to {kind}, which {ctx.params['network']} holds", param.opts[0])


def typed_words(
    command: click.Command, values: Mapping[str, Any], *, leave_out: Collection[str] = (), with_defaults: bool = False
) -> list[str]:
    """The words that give a command these options; those to leave out are not among them.

    Args:
        values:        by parameter name.
        with_defaults: also of options that are at their defaults.
    """
    words: list[str] = []
    for param in command.params:
        value = values.get(param.name)
        if param.name in leave_out or value in (None, (), []) or (value == param.default and not with_defaults):
            continue
        if getattr(param, "is_flag", False):
            words += (param.opts if value else param.secondary_opts)[:1]
            continue
        for item in value if isinstance(value, (list, tuple)) else [value]:
            words += [param.opts[0], f"{item:.15g}" if isinstance(item, float) else str(item)]
    return words


def choose_device(name: str) -> torch.device:
    """The device that a value of `device_option` stands for; BadParameter if there is none."""
    import torch

    num_gpus = torch.cuda.device_count()
    device = torch.device(name if name != "auto" else "cuda" if num_gpus else "cpu")
    if device.type == "cuda" and (device.index or 0) >= num_gpus:
        found = f"{num_gpus} CUDA devices" if num_gpus else "no CUDA device"
        raise bad_parameter(f"torch sees {found} here, got {name}", "--device")
    return device


def join_processes(device: str, timeout_min: float = DIST_TIMEOUT_MIN) -> ProcessGroup:
    """The processes that torchrun started, or this one alone; on GPUs with memory that grows in place.

    Args:
        timeout_min: how long to wait for the others, in minutes.

    Raises:
        ClickException: the device is not there, or the others are not.
    """
    from ggdr.torch_utils.distributed import LostPeer, init_process_group
    from ggdr.torch_utils.timing.allocator import grow_gpu_segments

    chosen = choose_device(device)
    if chosen.type == "cuda":
        grow_gpu_segments()
    try:
        return init_process_group(str(chosen), timeout_min)
    except LostPeer as error:
        raise CliError(str(error)) from error
    except (ValueError, RuntimeError) as error:
        raise CliError(f"--device: {error}") from error


def prepare_ops(mode: str | None, device: torch.device) -> bool:
    """Sets the mode that `ops_option` stands for; whether it means compiled operations, which are built if need be.

    Raises:
        CliError: the mode is "native" and they cannot be built, or GGDR_OPS is no mode.
    """
    from ggdr.torch_utils.ops.build import BuildError, set_ops, uses_native

    set_ops(mode)
    try:
        return uses_native(device)
    except (BuildError, ValueError) as error:
        raise CliError(str(error)) from error
