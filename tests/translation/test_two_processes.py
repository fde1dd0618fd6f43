# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Two processes that translate images as one, over gloo."""

from __future__ import annotations

import torch

from ggdr.torch_utils.distributed import ProcessGroup
from tests.conftest import torchrun
from tests.translation import test_cyclegan
from tests.translation.hosts import weights
from tests.translation.two_processes import results


def test_two_processes_give_what_one_gives_on_the_joined_batch(tmp_path):
    code, output = torchrun("-m", "tests.translation.two_processes", tmp_path / "two.pt")
    assert code == 0, output
    one, two = results(ProcessGroup()), torch.load(tmp_path / "two.pt")
    assert one.keys() == two.keys()
    assert torch.equal(one.pop("pool"), two.pop("pool"))
    start = weights(test_cyclegan.make_task(pool=2))
    for precision, most in {"bf16": 0.4, "fp16": 0.3}.items():
        # Adam's first steps are nearly those of signs, which rounding turns round where gradients are small.
        names = {f"cyclegan-{precision}.{name}": name for name in start if start[name].ndim > 1}
        moved = [torch.cat([(x[k] - start[name]).flatten() for k, name in names.items()]) for x in (one, two)]
        assert (moved[0] - moved[1]).norm() < most * moved[0].norm(), precision
    # Adam turns rounding of a gradient that is zero but for it, of a bias before a norm, into a step of any direction.
    # So it does with what shared blocks make of their planes, which are constant.
    for name, value in one.items():
        if value.ndim > 1 and not name.startswith("cyclegan-"):
            width = len(value) if ".shared_" in name else None
            torch.testing.assert_close(two[name][:, :width], value[:, :width], rtol=1e-3, atol=1e-5, msg=name)
