# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr segmenter`: networks that find classes in images, which judge what is made of label maps."""

from __future__ import annotations

import click

from ggdr.scripts.segmenting.test import test
from ggdr.scripts.segmenting.train import train

EXAMPLES = """\b
Examples:
  ggdr segmenter train --data shapes.zip --outdir segmenters/shapes
  ggdr segmenter test --data shapes-test.zip --segmenter segmenters/shapes/segmenter.safetensors
"""


@click.group(epilog=EXAMPLES, context_settings={"max_content_width": 110})
def main() -> None:
    """Train networks that say of each pixel which class it is of, and test them."""


for command in (train, test):
    main.add_command(command)
