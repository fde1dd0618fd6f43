# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What the commands of `ggdr segmenter` share."""

from __future__ import annotations

from pathlib import Path

import click

data_option = click.option(
    "--data",
    metavar="DIR|ZIP",
    required=True,
    type=click.Path(path_type=Path, exists=True),
    help="Dataset with label maps, as `ggdr dataset` writes it.",
)
