# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr segmenter test`: how well a segmenter finds what label maps say."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import click
import numpy as np
import torch

from ggdr.metrics.segmenter import Segmenter, load_segmenter
from ggdr.metrics.segmenter_training import judge
from ggdr.scripts.errors import OptionError, metric_errors
from ggdr.scripts.options.network import batch_option
from ggdr.scripts.options.parameters import choose_device, device_option
from ggdr.scripts.options.progress import progress_bars
from ggdr.scripts.options.segmenter import SEGMENTER, segmenter_option
from ggdr.scripts.segmenting.data import batches_in_order, data_option, split_numbers
from ggdr.scripts.segmenting.results import describe_values, values_of
from ggdr.scripts.terminal import say
from ggdr.torch_utils.data.dataset import ImageDataset
from ggdr.torch_utils.untrusted.text import printable

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
    with metric_errors():
        dataset, network = ImageDataset(data, use_label_maps=True), load_segmenter(segmenter, chosen)
        try:
            network.check(torch.from_numpy(dataset.images_u8([0])).to(chosen), dataset.label_classes)
        except ValueError as error:
            raise OptionError(SEGMENTER, f"{error} (of {printable(dataset.path, 1000)})") from error
        numbers, which = _numbers(dataset, network)
        with progress_bars() as progress:
            batches = batches_in_order(dataset, numbers, batch_size, chosen, partial(progress, "images"))
            counts = judge(network, batches, dataset.num_label_classes)
    values = values_of(counts)
    if as_json:
        about = {"data": str(data), "segmenter": str(segmenter), "digest": network.digest}
        say(json.dumps({**about, "num_images": len(numbers), "results": values}))
    else:
        say(f"{printable(dataset.path, 1000)}: {len(numbers)} {which} under {network.name} ({network.digest})")
        say(describe_values(values, dataset.label_classes))


def _numbers(dataset: ImageDataset, segmenter: Segmenter) -> tuple[np.ndarray, str]:
    """Numbers of the images that it has not been trained on, and what these are, for people."""
    if segmenter.about.get("fingerprint") != dataset.fingerprint():
        return np.arange(dataset.num_raw), "images"
    return split_numbers(dataset)[1], "images that training held out"
