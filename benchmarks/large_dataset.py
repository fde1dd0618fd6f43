# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What opening a large dataset takes: CPU seconds and memory of the training process and of a worker.

Each set is a zip of tiny PNGs in a temporary folder, opened in a process of its own that decodes in one worker.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np

from ggdr.torch_utils.data.convert import encode_png
from ggdr.torch_utils.data.writer import new_dataset

NUM_SMALL = 100  # images of a set whose opening takes next to nothing, to compare with
NUM_KINDS = 256  # different images; the others repeat them


def write_set(path: Path, num: int) -> None:
    """`num` grey 8x8 images without labels, as `ggdr dataset` writes them."""
    rng = np.random.default_rng(0)
    files = [encode_png(pixels) for pixels in rng.integers(0, 256, (NUM_KINDS, 8, 8), dtype=np.uint8)]
    with new_dataset(path) as add:
        for i in range(num):
            add(f"{i // 1000:05d}/img{i:08d}.png", files[i % NUM_KINDS])
        add("dataset.json", b'{"labels": null}')


def measure(path: Path) -> list[float]:
    """Of one set, in the process that trains and in its worker: CPU seconds to the first batch, MiB after it."""
    from ggdr.torch_utils.data.loader import ImageDataset, ImageLoader

    start = time.process_time()
    dataset = ImageDataset(path, cache_mb=0)
    dataset.fingerprint()
    with closing(iter(ImageLoader(dataset, 64, num_workers=1))) as batches:
        next(batches)
        seconds = time.process_time() - start
        (worker,) = multiprocessing.active_children()
        return [seconds, cpu_seconds(worker.pid), resident(os.getpid()), resident(worker.pid)]


def cpu_seconds(pid: int) -> float:
    """What a process has used of CPUs."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(pid: int) -> float:
    """MiB that a process holds in memory now."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def measure_apart(num: int) -> list[float]:
    """The same of a set of `num` images, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "set.zip"
        write_set(path, num)
        command = [sys.executable, "-m", "benchmarks.large_dataset", "--measure", str(path)]
        return [float(word) for word in subprocess.run(command, check=True, capture_output=True).stdout.split()]


def table(counts: list[int]) -> Iterator[str]:
    """Lines of a Markdown table; all figures are beyond those of a set of NUM_SMALL images."""
    base = measure_apart(NUM_SMALL)
    yield "| images | training process (CPU s) | each worker (CPU s) | training process (MiB) | each worker (MiB) |"
    yield "| --- | --- | --- | --- | --- |"
    for num in counts:
        found = [max(value - before, 0) for value, before in zip(measure_apart(num), base, strict=True)]
        yield "| {:,} | {:.2f} | {:.2f} | {:.0f} | {:.0f} |".format(num, *found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[10_000, 100_000, 500_000], help="sizes of the sets")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure is not None:
        print(*measure(args.measure))
        return
    for line in table(args.images):
        print(line, flush=True)


if __name__ == "__main__":
    main()
