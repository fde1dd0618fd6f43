# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr bench dataset`: how many images a second `ggdr dataset` converts, beside what the codecs alone could."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from ggdr.scripts.benches.drawn_images import draw_pictures, encode_foreign, write_images
from ggdr.scripts.benches.report import describe_machine, json_option, progress, show
from ggdr.scripts.errors import cli_errors
from ggdr.scripts.options.numbers import WholeNumber
from ggdr.scripts.options.parameters import MAX_WORKERS
from ggdr.torch_utils.data.convert import Conversion, encode_png
from ggdr.torch_utils.data.convert_dataset import convert_dataset
from ggdr.torch_utils.data.image_files import load_image
from ggdr.torch_utils.data.workers import cpu_count

LARGE_SHARE = 125  # 32x32 images that take about as long as one of 1024x1024
CODEC_SECONDS = 0.5  # that each codec is measured for

EXAMPLES = """\b
Examples:
  ggdr bench dataset
  ggdr bench dataset --workers 8 --images 200000 --json
"""


@dataclass(frozen=True)
class Case:
    """One kind of conversion: from images of `source_res` pixels in JPEG or PNG to `res` pixels."""

    name: str
    kind: str
    source_res: int
    res: int


CASES = (
    Case("cifar_jpeg", "jpeg", 32, 32),
    Case("cifar_png", "png", 32, 32),
    Case("ffhq_256", "png", 1024, 256),
    Case("ffhq_1024", "png", 1024, 1024),
)


@click.command("dataset", epilog=EXAMPLES, context_settings={"show_default": True, "max_content_width": 110})
@click.option(
    "--images",
    type=WholeNumber(min=1),
    default=50_000,
    metavar="N",
    help=f"Images of 32x32; of 1024x1024 one for {LARGE_SHARE} of them.",
)
@click.option(
    "--workers", type=WholeNumber(1, MAX_WORKERS), metavar="N", help="Processes that convert.  [default: one a CPU]"
)
@json_option
def dataset(images: int, workers: int | None, as_json: bool) -> None:
    """Measure the speed of `ggdr dataset`, on drawn images.

    CIFAR-sized: 32x32 JPEGs and PNGs; FFHQ-sized: 1024x1024 PNGs, to 256x256 and kept. Times are of the whole command,
    from a zip to a zip. The codec's rate is what decoding and encoding these images allow, measured in one process
    and multiplied by the processes that run at once.
    """
    num_workers = workers or cpu_count()
    with cli_errors(), tempfile.TemporaryDirectory() as folder, progress("converting", len(CASES)) as advance:
        results = {}
        for case in CASES:
            num_images = images if case.source_res == 32 else max(images // LARGE_SHARE, 2)
            results[case.name] = measure(case, Path(folder), num_images=num_images, num_workers=num_workers)
            advance()
    result = {"cases": results, "workers": num_workers, **describe_machine("numpy", "pillow")}
    show(_report(result), result, as_json)


def measure(case: Case, folder: Path, *, num_images: int, num_workers: int) -> dict[str, Any]:
    """Converts a zip of drawn images in `folder`; its rate, and that of the codecs."""
    pictures = draw_pictures(case.source_res)
    files = [encode_foreign(pixels, case.kind) for pixels in pictures]
    source = write_images(folder / f"{case.name}.zip", files, num_images=num_images, suffix=case.kind)
    start = time.perf_counter()
    convert_dataset(str(source), folder / "converted.zip", resolution=case.res, num_workers=num_workers, overwrite=True)
    rate = num_images / (time.perf_counter() - start)
    source.unlink()

    convert = Conversion(resolution=case.res)
    results = [convert(pixels, case.name) for pixels in pictures]
    decoding = _seconds(lambda i: np.asarray(load_image(files[i], case.name)), len(files))
    encoding = _seconds(lambda i: encode_png(results[i]), len(files))
    codec_rate = min(num_workers, cpu_count()) / (decoding + encoding)
    return {
        "source": f"{case.source_res}x{case.source_res} {case.kind}",
        "res": case.res,
        "num_images": num_images,
        "img_per_sec": rate,
        "decode_ms": decoding * 1000,
        "encode_ms": encoding * 1000,
        "codec_img_per_sec": codec_rate,
        "fraction_of_codec": rate / codec_rate,
    }


def _seconds(run: Callable[[int], object], count: int) -> float:
    """The mean time of run(0) ... run(count - 1), the best of a few rounds."""
    best, started = float("inf"), time.perf_counter()
    while time.perf_counter() - started < CODEC_SECONDS:
        start = time.perf_counter()
        for i in range(count):
            run(i)
        best = min(best, time.perf_counter() - start)
    return best / count


def _report(result: dict[str, Any]) -> str:
    lines = [
        f"{result['workers']} process(es) on {result['cpus']} CPU(s) {result['processor']}, Pillow {result['pillow']}",
        "",
        f"{'from':<16}{'to':<16}{'images/s':>10}{'codec':>10}{'of codec':>10}{'decode':>12}{'encode':>12}",
    ]
    for r in result["cases"].values():
        target = f"{r['res']}x{r['res']} png"
        lines.append(
            f"{r['source']:<16}{target:<16}{r['img_per_sec']:>10.1f}{r['codec_img_per_sec']:>10.1f}"
            f"{r['fraction_of_codec']:>10.0%}{r['decode_ms']:>9.3f} ms{r['encode_ms']:>9.3f} ms"
        )
    return "\n".join(lines)
