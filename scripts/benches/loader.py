# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr bench data`: how many images a second the training loader gives."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ggdr.scripts.benches.drawn_images import draw_pictures, write_images
from ggdr.scripts.benches.report import describe_machine, json_option, progress, resolution_option, show
from ggdr.scripts.errors import cli_errors
from ggdr.scripts.options.numbers import WholeNumber
from ggdr.scripts.options.parameters import MAX_WORKERS, bad_parameter, choose_device, device_option
from ggdr.torch_utils.data.convert import encode_png
from ggdr.torch_utils.data.workers import cpu_count

if TYPE_CHECKING:
    from ggdr.torch_utils.data.loader import ImageLoader

SECONDS = 2.0  # that each rate is measured for
WAITS = 20  # batches whose hand-over is timed
DRAWN_PIXELS = 20_000_000  # in all images of a drawn set

EXAMPLES = """\b
Examples:
  ggdr bench data
  ggdr bench data --data ffhq256.zip --batch 64 --workers 4 --json
"""


@click.command("data", epilog=EXAMPLES, context_settings={"show_default": True, "max_content_width": 110})
@click.option(
    "--data",
    metavar="PATH",
    type=click.Path(path_type=Path),
    help="Dataset, zip or folder.  [default: a zip of drawn images, as `ggdr dataset` makes it]",
)
@resolution_option
@click.option(
    "--images", type=WholeNumber(min=1), metavar="N", help="Drawn images.  [default: 20 million pixels' worth]"
)
@click.option("--batch", type=WholeNumber(min=1), default=64, metavar="N", help="Images a batch.")
@click.option(
    "--workers",
    type=WholeNumber(1, MAX_WORKERS),
    metavar="N",
    help="Processes that decode.  [default: one a CPU, up to 4]",
)
@device_option
@json_option
def data(
    data: Path | None,
    resolution: str,
    images: int | None,
    batch: int,
    workers: int | None,
    device: str,
    as_json: bool,
) -> None:
    """Measure the speed of the training loader.

    Decoding in one process, in worker processes, and, for a set that fits in memory, in the first and in later
    passes; and how long training waits for a batch when it takes longer over one than the loader does.
    """
    with cli_errors(), tempfile.TemporaryDirectory() as folder:
        if data is None:
            res = int(resolution)
            data = Path(folder) / "drawn.zip"
            files = [encode_png(pixels) for pixels in draw_pictures(res)]
            write_images(data, files, num_images=images or max(DRAWN_PIXELS // res**2, 4 * batch))
        result = measure(data, batch, workers or min(cpu_count(), 4), str(choose_device(device)))
    show(_report(result), result, as_json)


def measure(path: Path, batch: int, workers: int, device: str) -> dict[str, Any]:
    """Rates of one dataset; None for those of memory where its images do not fit.

    Raises:
        DataError: no dataset, or a damaged one.
        click.BadParameter: it has fewer than four batches.
    """
    from ggdr.torch_utils.data.loader import ImageDataset, ImageLoader

    decoded = ImageDataset(path, cache_mb=0)
    kept = ImageDataset(path)
    if decoded.num_images < 4 * batch:
        raise bad_parameter(f"{batch} is more than a quarter of {decoded.num_images} images", "--batch")
    result = {
        "data": decoded.name,
        "num_images": decoded.num_images,
        "resolution": decoded.resolution,
        "num_channels": decoded.num_channels,
        "batch": batch,
        "workers": workers,
        "device": device,
    }
    with progress("measuring", 4) as advance:

        def step(name: str, rate: Callable[[], float | None]) -> None:
            result[name] = rate()
            advance()

        step("img_per_sec_one_process", lambda: _rate(ImageLoader(decoded, batch, num_workers=0, device=device)))
        step("img_per_sec", lambda: _rate(ImageLoader(decoded, batch, num_workers=workers, device=device)))
        result["img_per_sec_per_worker"] = result["img_per_sec"] / workers
        result["img_per_sec_first_pass"] = result["img_per_sec_in_memory"] = None
        as_trained = ImageLoader(kept, batch, num_workers=0 if kept.cached else workers, device=device)
        if kept.cached:
            first_pass = kept.num_images // batch - 2
            step("img_per_sec_first_pass", lambda: _rate(as_trained, num_batches=first_pass))
            for start in range(0, kept.num_images, batch):
                kept.images_u8(range(start, min(start + batch, kept.num_images)))
            step("img_per_sec_in_memory", lambda: _rate(as_trained))
        rate = result["img_per_sec_in_memory"] or result["img_per_sec"]
        result["wait_ms"] = _wait(as_trained, pause=2 * batch / rate) * 1000
        result["sec_per_kimg"] = 1000 / rate
    return result | describe_machine("torch", "numpy", "pillow")


def _rate(loader: ImageLoader, num_batches: int | None = None) -> float:
    """Images a second, over SECONDS or some batches, after the first batch."""
    with closing(iter(loader)) as batches:
        next(batches)
        count, start = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - start) < SECONDS and count != num_batches:
            next(batches)
            count += 1
    return count * loader.batch_size_global / elapsed


def _wait(loader: ImageLoader, *, pause: float) -> float:
    """Median seconds that a consumer waits for a batch if it is busy elsewhere for `pause` seconds in between."""
    waits = []
    with closing(iter(loader)) as batches:
        next(batches)
        for _ in range(WAITS):
            time.sleep(pause)
            start = time.perf_counter()
            next(batches)
            waits.append(time.perf_counter() - start)
    return statistics.median(waits)


def _report(r: dict[str, Any]) -> str:
    res = r["resolution"]
    rows = [
        ("decoding, one process", r["img_per_sec_one_process"]),
        (f"decoding, {r['workers']} worker(s)", r["img_per_sec"]),
        ("  of which a worker", r["img_per_sec_per_worker"]),
        ("kept in memory, first pass", r["img_per_sec_first_pass"]),
        ("kept in memory, later", r["img_per_sec_in_memory"]),
    ]
    lines = [
        f"{r['data']}: {r['num_images']} images of {res}x{res}x{r['num_channels']}, batch {r['batch']}, "
        f"to {r['device']}; {r['cpus']} CPU(s) {r['processor']}",
        "",
        f"{'':<28}{'images/s':>10}{'sec/kimg':>10}",
    ]
    lines += [f"{name:<28}{rate:>10.0f}{1000 / rate:>10.3f}" for name, rate in rows if rate is not None]
    if r["img_per_sec_in_memory"] is None:
        lines.append("too large to be kept in memory")
    return "\n".join([*lines, "", f"training that takes longer waits {r['wait_ms']:.2f} ms for a batch"])
