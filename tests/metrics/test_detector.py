# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""A detector on images of different sizes."""

from __future__ import annotations

import torch
from torch import Tensor

from ggdr.metrics.detector import Detector


def images() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = [(8, 8), (6, 9), (8, 8), (5, 5), (6, 9)]
    return [torch.randint(256, (3, *size), generator=generator, dtype=torch.uint8) for size in sizes]


def test_images_of_different_sizes_are_prepared_by_themselves_and_judged_together():
    batches = []

    def extract(x: Tensor) -> dict[str, Tensor]:
        batches.append(x.shape)
        return {"features": x.flatten(1)}

    shrink = torch.nn.AdaptiveAvgPool2d(2)
    detector = Detector("toy", "0", "2x2", extract, lambda images_u8: shrink(images_u8.float()))
    mixed = images()
    found = detector(mixed)["features"]
    assert batches == [(5, 3, 2, 2)]
    assert torch.equal(found, torch.cat([detector(image[None])["features"] for image in mixed]))


def test_a_detector_that_prepares_nothing_sees_each_size_by_itself_and_the_order_stays():
    detector = Detector("toy", "0", "none", lambda x: {"features": x.float().mean((2, 3)), "logits": x[:, 0, 0, :2]})
    mixed = images()
    found = detector(mixed)
    for i, image in enumerate(mixed):
        assert torch.equal(found["features"][i], image.float().mean((1, 2)))
        assert torch.equal(found["logits"][i], image[0, 0, :2])
