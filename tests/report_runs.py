# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Run folders for the tests of reports, and what a report shows of them."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import numpy as np
from click.testing import CliRunner, Result
from PIL import Image

from ggdr.scripts.report import main, report_data
from ggdr.scripts.reports.read_run import read_run
from ggdr.scripts.training.run_folder import RunFolder
from ggdr.torch_utils.pictures.images import save_image
from ggdr.torch_utils.runlog import status_line

METRIC = "fd_offline1k_full"
EVIL = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>"


def grid(level: int, scale: int = 4) -> np.ndarray:
    """A sample grid of 8x8 grey pixels, each shown as scale x scale; another one for each level."""
    pixels = np.random.RandomState(level).randint(256, size=(8, 8, 1)).astype(np.uint8).repeat(3, axis=2)
    return pixels.repeat(scale, axis=0).repeat(scale, axis=1)


def make_run(
    path: Path, *, ticks: int = 12, offset: float = 0.0, options: dict | None = None, snaps=(0, 4, 8, 12)
) -> Path:
    """A run folder as `ggdr train` leaves it: a tick is 1 kimg, the total 12 kimg."""
    path.mkdir(parents=True)
    lines = []
    for kimg in range(1, ticks + 1):
        values = {"loss/D": offset + 1 / kimg, "loss/G": offset + kimg, "score/real": 0.5, "score/fake": -0.5}
        values |= {"ggdr/distance": 0.9 - kimg / 100, "grad_norm/D": 3.0, "grad_norm/D_r1": 0.01}
        values["time/sec_per_kimg"] = 10.0 + (kimg == 2) * 90
        lines.append({"nimg": kimg * 1000, "kimg": float(kimg), "time": 1e9 + kimg, **values})
    (path / "stats.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    log = [status_line(i, i * 1000, 9.0, 9.0, 9.0, {}) for i in range(1, ticks + 1)]
    summary = "demo: 9 images of 8x8x3 from d.zip, 0 classes, batch 16, fp32 on 1 x cpu with compiled operations"
    (path / "log.txt").write_text("\n".join(f"2026-01-01 00:00:00  {line}" for line in [summary, *log]) + "\n")
    resolved = {"cfg": "demo", "loop": {"total_nimg": 12_000, "batch": 16}, "ggdr": {"guide_res": [8], "weight": 10.0}}
    command = {"data": "my data.zip", "outdir": Path("runs/x"), "cfg": "demo", "kimg": 12.0, "ggdr": True}
    RunFolder(path).write_options({**resolved, **(options or {})}, command, ["resuming at 3.0 kimg"])
    for kimg in snaps:
        save_image(grid(kimg), path / f"fakes{kimg:06d}.png")
        if kimg > 0:
            (path / f"network-snapshot-{kimg:06d}.safetensors").write_bytes(b"x" * 2000)
    if snaps:
        save_image(grid(99), path / "reals.png")
    return path


def add_metric(path: Path, values: dict[float, float], metric: str = METRIC) -> None:
    lines = [{"metric": metric, "results": {metric: value}, "kimg": kimg} for kimg, value in values.items()]
    (path / f"metric-{metric}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def add_clusters(path: Path, **changes) -> Path:
    """A folder of cluster sheets as `ggdr clusters` leaves it."""
    folder = path / "clusters"
    folder.mkdir()
    save_image(grid(1, 16), folder / "b8.png")
    save_image(grid(2, 16), folder / "b16.png")
    Image.fromarray(grid(3)).save(folder / "over.webp", save_all=True, append_images=[Image.fromarray(grid(4))])
    about = {
        "title": "What G knows",
        "command": "ggdr clusters --run runs/x",
        "note": "four clusters",
        "sheets": [{"file": "b8.png", "title": "8x8", "note": "coarse"}, {"file": "b16.png", "title": "16x16"}],
        "animations": [{"file": "over.webp", "title": "Over training"}],
        "numbers": [{"network": "net", "clusters": 8, "nmi": 0.5, "cosine": None}],
    }
    (folder / "clusters.json").write_text(json.dumps({**about, **changes}))
    return folder


def data_of(*paths: Path, out: Path | None = None, max_images: int = 60) -> dict:
    """What the page of these runs shows."""
    runs = [read_run(path, path.name) for path in paths]
    return report_data(runs, out or paths[0] / "report.html", max_images)[0]


def picture(data: dict, number: int) -> np.ndarray:
    """The pixels of a picture on the page."""
    encoded = data["pictures"][number].partition(",")[2]
    with Image.open(io.BytesIO(base64.b64decode(encoded))) as img:
        return np.asarray(img.convert("RGB")).astype(int)


def invoke(*args: object) -> Result:
    return CliRunner().invoke(main, list(map(str, args)))
