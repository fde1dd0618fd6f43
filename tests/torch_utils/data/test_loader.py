# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The sampler without state, and the loader."""

from __future__ import annotations

import itertools
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from ggdr.torch_utils.data.loader import DataError, ImageDataset, ImageLoader, batch_indices
from tests.conftest import python
from tests.torch_utils.data.conftest import IMAGES, name_of, our_files, png, write

# Sampler.


def test_each_epoch_is_a_fresh_permutation():
    epochs = [batch_indices(e * 50, 50, 50, seed=3) for e in range(4)]
    assert all(sorted(epoch) == list(range(50)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert tuple(epochs[0]) != tuple(batch_indices(0, 50, 50, seed=4))


def test_indices_depend_on_position_only_and_not_on_batch_size():
    whole = batch_indices(0, 200, 30, seed=1)  # epoch boundaries fall inside
    for n in (1, 7, 30, 64):
        parts = [batch_indices(position, min(n, 200 - position), 30, seed=1) for position in range(0, 200, n)]
        assert (np.concatenate(parts) == whole).all()


def test_order_is_the_same_in_every_release():
    assert batch_indices(5, 10, 8, seed=0).tolist() == [3, 1, 6, 3, 4, 2, 1, 0, 6, 7]
    assert batch_indices(0, 0, 8, seed=0).tolist() == []


def test_seeds_beyond_32_bits_differ():
    orders = {tuple(batch_indices(0, 20, 20, seed)) for seed in (0, 1, -1, 2**32, 2**32 + 1)}
    assert len(orders) == 5


# Loader.


def take(n: int, *args, **kwargs) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return list(itertools.islice(ImageLoader(*args, **kwargs), n))


def same(a, b) -> bool:
    return all(torch.equal(x, y) for left, right in zip(a, b, strict=True) for x, y in zip(left, right, strict=True))


def test_loader_gives_the_sampler_s_images(path):
    dataset = ImageDataset(path, use_labels=True, mirror=True)
    for k, (img, label) in enumerate(take(7, dataset, 6, seed=2)):
        indices = batch_indices(6 * k, 6, 20, seed=2)
        assert img.dtype == torch.uint8 and (img.numpy() == dataset.images_u8(indices)).all()
        assert label.dtype == torch.float32 and (label.numpy() == dataset.labels(indices)).all()


def test_ranks_interleave_to_the_global_batch(path):
    dataset = ImageDataset(path, use_labels=True)
    whole = take(4, dataset, 6)
    ranks = [take(4, dataset, 6, rank=rank, world=3) for rank in range(3)]
    for k, (img, label) in enumerate(whole):
        for rank in range(3):
            assert torch.equal(ranks[rank][k][0], img[rank::3]) and torch.equal(ranks[rank][k][1], label[rank::3])


def test_loader_resumes_at_its_position(path):
    dataset = ImageDataset(path, use_labels=True)
    whole = take(6, dataset, 4)
    loader = ImageLoader(dataset, 4)
    assert same(itertools.islice(loader, 2), whole[:2]) and loader.position == 8
    assert same(take(4, dataset, 4, start_position=loader.position), whole[2:])
    assert same(itertools.islice(loader, 4), whole[2:])  # a second iterator goes on as well


def test_number_of_workers_does_not_matter(path):
    dataset = ImageDataset(path, use_labels=True, mirror=True)
    whole = take(5, dataset, 4, num_workers=0)
    assert same(take(5, dataset, 4, num_workers=2), whole)
    assert same(take(5, ImageDataset(path, use_labels=True, mirror=True, cache_mb=0), 4, num_workers=0), whole)


def test_workers_are_used_only_where_images_are_not_kept(path):
    assert ImageLoader(ImageDataset(path), 4).num_workers == 0
    assert 1 <= ImageLoader(ImageDataset(path, cache_mb=0), 4).num_workers <= 4


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="this system blocks no signals")
def test_a_lost_connection_reaches_the_main_process_and_ends_no_helper():
    process = python(
        "-c",
        "import signal, time\n"
        "from ggdr.torch_utils.data.workers import map_in_order\n"
        "if __name__ == '__main__':\n"
        "    lost = []\n"
        "    signal.signal(signal.SIGHUP, lambda *args: lost.append(args))\n"
        "    results = map_in_order(abs, range(-9, 0), 2)\n"
        "    print(next(results), flush=True)\n"
        "    while not lost: time.sleep(0.01)\n"
        "    print(*results)\n",
    )
    assert process.stdout.readline() == "9\n"
    os.killpg(process.pid, signal.SIGHUP)  # as the system does for all that began in a terminal that is gone
    assert process.communicate()[0] == "8 7 6 5 4 3 2 1\n" and process.returncode == 0


@pytest.mark.parametrize("num_workers", [0, 1])
def test_bad_image_met_in_training_is_named_without_a_traceback(tmp_path, num_workers):
    path = write(tmp_path / "set", our_files())
    dataset = ImageDataset(path)
    (path / name_of(7)).write_bytes(png(IMAGES[7])[:-300])
    with pytest.raises(DataError, match=r"^\S+img00000007.png: cannot be decoded") as caught:
        take(10, dataset, 4, num_workers=num_workers)
    assert "Traceback" not in str(caught.value)


def test_batch_must_be_a_multiple_of_the_processes(path):
    with pytest.raises(ValueError, match="batch size 10 is not a multiple of 4"):
        ImageLoader(ImageDataset(path), 10, world=4)


TRAINING = """
import sys, time
from multiprocessing import active_children
from ggdr.torch_utils.data.loader import ImageDataset, ImageLoader

if __name__ == "__main__":
    loader = ImageLoader(ImageDataset(sys.argv[1], cache_mb=0), 256, num_workers=2)
    try:
        for batch in loader:
            if loader.position == 512:
                print(*(worker.pid for worker in active_children()), flush=True)
            time.sleep(0.01)
    except KeyboardInterrupt:
        print("saved", flush=True)
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes in /proc")
@pytest.mark.parametrize("stop", ["SIGINT", "SIGKILL"])
def test_workers_end_with_the_main_process_and_leave_ctrl_c_to_it(tmp_path, stop):
    path = write(tmp_path / "set.zip", our_files())
    script = tmp_path / "train.py"
    script.write_text(TRAINING)
    process = python(script, path)
    workers = process.stdout.readline().split()
    assert len(workers) == 2 and all(map(is_running, workers))
    os.killpg(process.pid, getattr(signal, stop))
    deadline = time.monotonic() + 30
    while any(map(is_running, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_running, workers))
    assert process.communicate(timeout=30)[0] == ("saved\n" if stop == "SIGINT" else "")


def is_running(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
