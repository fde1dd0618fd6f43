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

from ggdr.scripts.report import main
from ggdr.scripts.reports.page_data import report_data
from ggdr.scripts.reports.read_run import read_run
from ggdr.scripts.training.run_folder import RunFolder
from ggdr.torch_utils.pictures.images import save_image

METRIC = "fd_offline1k_full"
EVIL = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>"


def panel(name: str, label: str, group: str, unit: str = "", **more: object) -> dict:
    """An entry of "panels" in training_options.json."""
    return {
        "name": name, "label": label, "group": group, "unit": unit,
        "headline": False, "detail": False, "axis": "linear", **more,
    }  # fmt: skip


# What `ggdr train` declares of StyleGAN2 with GGDR, ADA and R1, without path length regularisation.
PANELS = [
    panel("loss/D", "D", "Losses", "loss", headline=True),
    panel("loss/G", "G", "Losses", "loss", headline=True),
    panel("score/real", "real", "Discriminator scores", "mean logit"),
    panel("score/fake", "fake", "Discriminator scores", "mean logit"),
    panel("sign/real", "real", "Discriminator signs", "mean sign of the logit", detail=True),
    panel("sign/fake", "fake", "Discriminator signs", "mean sign of the logit", detail=True),
    panel("ggdr/distance", "GGDR", "GGDR cosine distance", "1 - cosine similarity", headline=True),
    panel("ada/p", "p", "ADA probability", "augmentation p", headline=True, axis="zero"),
    panel("loss/D_r1", "D_r1", "Regularisation losses", "loss", detail=True, axis="log"),
    panel("grad_norm/D", "D", "Gradient norms", "L2 norm", detail=True, axis="log"),
    panel("grad_norm/D_r1", "D_r1", "Gradient norms", "L2 norm", detail=True, axis="log"),
    panel("grad_norm/G", "G", "Gradient norms", "L2 norm", detail=True, axis="log"),
    panel("time/sec_per_kimg", "time", "Training time", "seconds per kimg", axis="zero"),
    panel("memory/cpu_gib", "process", "Memory", "GiB", detail=True, axis="zero"),
    panel("memory/gpu_gib", "GPU, peak", "Memory", "GiB", detail=True, axis="zero"),
]
PICTURES = [
    {"name": "reals", "title": "Real images", "once": True},
    {"name": "fakes", "title": "Samples", "once": False},
]
# What is in training_options.json beside `command`, `history`, `versions` and `hardware`.
OPTIONS = {
    "host": "stylegan2",
    "cfg": "demo",
    "loop": {"total_nimg": 12_000, "batch": 16},
    "regularizers": {"ggdr": {"guide_res": [8], "weight": 10.0}},
    "argv": ["--data", "my data.zip", "--outdir", "runs/x", "--cfg", "demo", "--kimg", "12"],
    "device": {"type": "cpu", "processes": 2, "operations": "compiled"},
    "panels": PANELS,
    "pictures": PICTURES,
}


def grid(level: int, scale: int = 4) -> np.ndarray:
    """A sample grid of 8x8 grey pixels, each shown as scale x scale; another one for each level."""
    pixels = np.random.RandomState(level).randint(256, size=(8, 8, 1)).astype(np.uint8).repeat(3, axis=2)
    return pixels.repeat(scale, axis=0).repeat(scale, axis=1)


def stats_line(kimg: int, offset: float = 0.0) -> dict:
    """A line of stats.jsonl as a run on a CPU writes it that never augmented."""
    values = {"loss/D": offset + 1 / kimg, "loss/G": offset + kimg, "score/real": 0.5, "score/fake": -0.5}
    values |= {"sign/real": 0.25, "sign/fake": -0.25, "ggdr/distance": 0.9 - kimg / 100, "loss/D_r1": 0.001}
    values |= {"grad_norm/D": 3.0, "grad_norm/D_r1": 0.01, "loss_term/D_fake": 0.5, "ada/p": None}
    values |= {"time/sec_per_kimg": 10.0 + (kimg == 2) * 90, "memory/cpu_gib": 0.5}
    return {"nimg": kimg * 1000, "kimg": float(kimg), "time": 1e9 + kimg, **values}


def make_run(
    path: Path, *, ticks: int = 12, offset: float = 0.0, options: dict | None = None, snaps=(0, 4, 8, 12)
) -> Path:
    """A run folder as `ggdr train` leaves it, with `options` in place of some of OPTIONS; a tick is 1 kimg."""
    path.mkdir(parents=True)
    lines = [stats_line(kimg, offset) for kimg in range(1, ticks + 1)]
    (path / "stats.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (path / "log.txt").write_text("".join(f"2026-01-01 00:00:00  tick {i}\n" for i in range(1, ticks + 1)))
    command = {"data": "my data.zip", "outdir": Path("runs/x"), "cfg": "demo", "kimg": 12.0, "ggdr": True}
    RunFolder(path).write_options({**OPTIONS, **(options or {})}, command, ["resuming at 3.0 kimg"])
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
