# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The option that names a GPU to count for."""

from __future__ import annotations

from typing import Any

import click

from ggdr.scripts.errors import nearest
from ggdr.torch_utils.timing.gpus import GPUS, Gpu, plain_name


class KnownGpu(click.ParamType):
    """A GPU whose peaks are known."""

    name = "gpu"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Gpu:
        name = plain_name(value)
        if name not in GPUS:
            self.fail(f"{value!r} is none of {', '.join(GPUS)}{nearest(name, GPUS)}", param, ctx)
        return GPUS[name]


trace_option = click.option(
    "--trace",
    type=KnownGpu(),
    metavar="GPU",
    help="Time nothing: count what an iteration asks of a GPU, which need not be there, and set it against the "
    f"published peaks of one of {', '.join(GPUS)}.",
)
