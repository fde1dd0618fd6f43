# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr segmenter test`: how well a segmenter finds what label maps say."""

from __future__ import annotations

import json
from pathlib import Path

import click

from ggdr.scripts.errors import metric_errors
from ggdr.scripts.options.network import batch_option
from ggdr.scripts.options.parameters import choose_device, device_option
from ggdr.scripts.options.progress import progress_bars
from ggdr.scripts.options.segmenter import segmenter_option
from ggdr.scripts.segmenting.options import data_option
from ggdr.scripts.terminal import say

EXAMPLES = """\b
Examples:
  ggdr segmenter test --data shapes-test.zip --segmenter segmenters/shapes/segmenter.safetensors
  ggdr segmenter test --data cityscapes.zip --segmenter my_segmenter:build --json
"""


@click.command("test", epilog=EXAMPLES, context_settings={"show_default": True})
@data_option
@segmenter_option("What is tested", required=True)
@batch_option(16)
@device_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, and nothing else.")
def test(data: Path, segmenter: Path | str, batch_size: int, device: str, as_json: bool) -> None:
    """Compare what a segmenter finds in the images of a dataset with their label maps.

    Of the dataset that it was trained on, only images that were held out are taken. Code sees images of three channels.
    """
    chosen = choose_device(device)

    from ggdr.scripts.segmenting.examine import examine
    from ggdr.scripts.segmenting.results import describe_values

    with metric_errors(), progress_bars() as progress:
        found = examine(data, segmenter, batch_size, chosen, progress)
    if as_json:
        about = {"data": str(data), "segmenter": str(segmenter), "digest": found.digest}
        say(json.dumps({**about, "num_images": found.num_images, "results": found.values}))
        return
    say(f"{data}: {found.num_images} {found.which} under {segmenter} ({found.digest})")
    say(describe_values(found.values, found.classes))
