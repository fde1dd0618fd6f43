# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr bench`: how fast training, loader and converter are on this machine."""

from __future__ import annotations

import click

from ggdr.scripts.benches.converter import dataset
from ggdr.scripts.benches.loader import data
from ggdr.scripts.benches.train import train

EXAMPLES = """\b
Examples:
  ggdr bench train --cfg cpu --channel-base 4096 --channel-max 128
  ggdr bench data --data cifar10.zip
  ggdr bench dataset
"""


@click.group(epilog=EXAMPLES, context_settings={"max_content_width": 110})
def main() -> None:
    """Measure the speed of training, loader and converter on this machine."""


for command in (train, data, dataset):
    main.add_command(command)
