# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr translate`: train networks that turn one kind of image into another."""

from __future__ import annotations

import click

from ggdr.scripts.translating.apply import apply
from ggdr.scripts.translating.pairs import pairs
from ggdr.scripts.translating.remove_domain import remove_domain
from ggdr.scripts.translating.sheet import sheet
from ggdr.scripts.translating.train import train

EXAMPLES = """\b
Examples:
  ggdr translate pairs --task colorize photos grey_to_colour
  ggdr translate train --data facades --outdir runs/facades --direction BtoA
  ggdr translate train --data grey_to_colour --outdir runs/colour --cfg cpu
  ggdr translate apply --network runs/colour grey_photos --outdir colour
  ggdr translate sheet --network runs/colour grey_photos --out colour.png
"""


@click.group(epilog=EXAMPLES, context_settings={"max_content_width": 110})
def main() -> None:
    """Train networks that turn one kind of image into another, and translate images."""


for command in (pairs, train, apply, sheet, remove_domain):
    main.add_command(command)
