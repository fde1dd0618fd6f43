# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Features of images in batches that fit the memory, on several processes."""

from __future__ import annotations

import pytest
import torch

from ggdr.metrics.detector import Detector
from ggdr.metrics.extract import FeatureRequest, OutOfMemory, PeerFailed, extract, together
from ggdr.metrics.image_sets import GeneratedImages
from ggdr.torch_utils.distributed import ProcessGroup
from tests.metric_cases import limited, noise_images, thumbnails

CPU = torch.device("cpu")


def test_a_detector_gets_fewer_images_where_the_memory_does_not_suffice():
    images, sizes = torch.from_numpy(noise_images(20)).permute(0, 3, 1, 2), []
    detector = Detector("limited", "0" * 16, "", limited(lambda x: {"features": thumbnails(CPU)(x)}, 5, sizes))
    found = extract(
        GeneratedImages(lambda numbers: images[numbers]), {"limited": (detector, FeatureRequest(20))},
        num=20, batch=16, device=CPU, group=ProcessGroup(),
    )["limited"]  # fmt: skip
    assert sizes == [16, 8, 4, 4, 4, 4, 4]
    assert torch.equal(found.features, thumbnails(CPU)(images))


class Peers(ProcessGroup):
    """Two processes, as the first one sees them: what the other one says to each question in turn."""

    def __init__(self, *answers: bool) -> None:
        super().__init__(world=2)
        self.__dict__["answers"] = list(answers)

    def any(self, flag: bool) -> bool:
        return self.answers.pop(0) or flag


@pytest.mark.parametrize(
    ("mine", "others", "raised"),
    [
        (None, (True, False), OutOfMemory),  # only the other one's memory is full
        (torch.OutOfMemoryError(), (False, False), OutOfMemory),
        (torch.OutOfMemoryError(), (True, True), PeerFailed),  # the other one will not try again
        (ValueError(), (True, False), ValueError),
        (None, (True, True), PeerFailed),
    ],
)
def test_processes_try_again_together_or_not_at_all(mine, others, raised):
    with pytest.raises(raised), together(Peers(*others)):
        if mine is not None:
            raise mine
