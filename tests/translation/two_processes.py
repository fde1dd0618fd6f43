# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What two processes do in the tests: steps of each host, and of an image pool; rank 0 writes the results.

Of the hosts of label maps, gradients: class weights and coins are those of the whole batch.
"""

from __future__ import annotations

import sys

import torch

from ggdr.torch_utils.distributed import ProcessGroup, init_process_group
from ggdr.torch_utils.gan import part
from ggdr.translation.image_pool import ImagePool
from tests.translation import layout_hosts, test_combogan, test_cyclegan, test_pix2pix
from tests.translation.hosts import pairs, run_phase, run_steps, weights


def results(group: ProcessGroup) -> dict[str, torch.Tensor]:
    """Weights after three steps of each host, one in each precision, gradients of phases on label maps, and a pool of
    three after ten batches of four.
    """
    found = {}
    for name, task, batches in (
        ("pix2pix", test_pix2pix.make_task(test_pix2pix.RESNET, group=group), pairs),
        ("cyclegan", test_cyclegan.make_task(pool=2, group=group), pairs),
        ("cyclegan-bf16", test_cyclegan.make_task(pool=2, group=group, half_dtype=torch.bfloat16), pairs),
        ("cyclegan-fp16", test_cyclegan.make_task(pool=2, group=group, half_dtype=torch.float16), pairs),
        ("combogan", test_combogan.make_task(pool=2, group=group), test_combogan.batches),
    ):
        run_steps(task, 0, 3, batches)
        found |= {f"{name}.{key}": value for key, value in weights(task).items()}
    for model in layout_hosts.MODELS:
        # Batch norms would see the share of one process.
        task = layout_hosts.make_task(model, norm="instance", group=group)
        for phase in "DG":
            batch = part(layout_hosts.layouts(), slice(group.rank, None, group.world))
            grads, _ = run_phase(task, phase, batch=batch)
            found |= {f"{model}.{phase}.{i}": grad for i, grad in enumerate(grads[phase])}
    pool = ImagePool(3)
    for i in range(10):
        share = slice(group.rank, None, group.world)
        images = torch.arange(4 * i, 4 * i + 4.0)[:, None, None, None].expand(4, 1, 2, 2)
        pool.query(images[share], part(pool.draw(4), share))
        pool.step_end(group.gather_rows)
    return {**found, "pool": pool.images}


if __name__ == "__main__":
    torch.set_num_threads(1)
    group = init_process_group("cpu")
    found = results(group)
    if group.is_main:
        torch.save(found, sys.argv[1])
    group.leave()
