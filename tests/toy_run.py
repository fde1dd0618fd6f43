# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""A run in milliseconds, for the tests of `ggdr compare`: python -m tests.toy_run PARENT train OPTIONS.

It writes what `ggdr train` writes into its folder, as far as studies read it. Its metrics fall, and are higher by the
seed and lower by one with GGDR. --gamma is the seconds that it takes; until then SIGINT and SIGTERM stop it with exit
code 130, with --batch 4 only once there is a file `may-end` beside the study. --batch 3 fails. With --snap it leaves
snapshots, which `metrics` or `clusters` as the first word looks at: not where a file `no-metrics` or `no-clusters` is
beside the study, and for a minute where one called `slow` is.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

METRIC = "fd_offline0.05k_full"


def option(name: str, default: str = "") -> str:
    return sys.argv[sys.argv.index(name) + 1] if name in sys.argv else default


def look_at() -> None:
    """Leaves a sheet, as `ggdr clusters` does."""
    folder, snapshot = Path(option("--outdir")), Path(option("--network"))
    check(folder.parents[3], "clusters")
    if not snapshot.exists():
        sys.exit(2)
    folder.mkdir()
    sheet = {"title": "Feature maps of 8x8", "note": "", "file": "sheet.png"}
    (folder / "clusters.json").write_text(json.dumps({"sheets": [sheet], "animations": [], "of": snapshot.name}))


def measure() -> None:
    """Appends results of a snapshot, as `ggdr metrics` does, and notes it in measured.jsonl."""
    folder, snapshot = Path(option("--outdir")), Path(option("--network"))
    names, nimg = option("--metrics").split(","), int(snapshot.stem[-6:])
    with open(folder.parents[1] / "measured.jsonl", "a") as file:
        run = f"{folder.parent.name}/{folder.name}"
        file.write(json.dumps({"run": run, "nimg": nimg, "metrics": names, "argv": sys.argv[2:]}) + "\n")
    check(folder.parents[2], "metrics")
    for name in names:
        add_result(folder, name, nimg, 1.0)


def check(beside: Path, what: str) -> None:
    """Fails, or takes its time, where the files beside the study say so."""
    if (beside / f"no-{what}").exists():
        print(f"Error: no {what}", flush=True)
        sys.exit(2)
    if (beside / "slow").exists():
        time.sleep(60)


def add_result(folder: Path, name: str, nimg: int, value: float) -> None:
    with open(folder / f"metric-{name}.jsonl", "a") as file:
        line = {"metric": name, "results": {name: value}, "nimg": nimg, "kimg": nimg / 1000}
        file.write(json.dumps(line) + "\n")


def write_snapshot(path: Path, nimg: int) -> None:
    """A network of one weight, written without PyTorch, which takes long to import."""
    about = {"format": "ggdr-network-snapshot-1", "config": json.dumps({"nimg": nimg})}
    weight = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    header = json.dumps({"__metadata__": about, "G.weight": weight}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))


def stop(number: int, frame: object) -> None:
    """Says which signal it was, saves, and ends."""
    print(f"stopped by {signal.Signals(number).name}", flush=True)
    while option("--batch") == "4" and not (Path(option("--outdir")).parents[2] / "may-end").exists():
        time.sleep(0.01)
    sys.exit(130)


def main() -> None:
    if sys.argv[2] in ("clusters", "metrics"):
        {"clusters": look_at, "metrics": measure}[sys.argv[2]]()
        return
    folder, seed = Path(option("--outdir")), int(option("--seed"))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    with open(folder.parents[1] / "starts.jsonl", "a") as file:
        start = {
            "run": f"{folder.parent.name}/{folder.name}",
            "time": time.time(),
            "pid": os.getpid(),
            "argv": sys.argv[2:],
        }
        names = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
        file.write(json.dumps(start | {name: os.environ.get(name) for name in names}) + "\n")
    if option("--batch") == "3":
        print("Error: --batch: 3 images are odd", flush=True)
        sys.exit(2)
    deadline = time.monotonic() + float(option("--gamma", "0"))
    while time.monotonic() < deadline:
        time.sleep(0.01)
    folder.mkdir(parents=True, exist_ok=True)
    stats = [
        {"nimg": nimg, "kimg": nimg / 1000, "time": 0, "loss/D": 1.0, "time/sec_per_kimg": 2.0} for nimg in (32, 64)
    ]
    (folder / "stats.jsonl").write_text("".join(json.dumps(line) + "\n" for line in stats))
    (folder / "training_options.json").write_text(json.dumps({"command": {}, "loop": {"total_nimg": 64}}))
    for nimg in (32, 64):
        for name in option("--metrics").split(","):
            add_result(folder, name, nimg, 20 - nimg / 10 + seed - ("--no-ggdr" not in sys.argv))
        if option("--snap"):
            write_snapshot(folder / f"network-snapshot-{nimg:06d}.safetensors", nimg)
    with open(folder.parents[1] / "ends.jsonl", "a") as file:
        file.write(json.dumps({"run": f"{folder.parent.name}/{folder.name}", "time": time.time()}) + "\n")


if __name__ == "__main__":
    main()
