# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""A run in milliseconds, for the tests of `ggdr compare`: python -m tests.toy_run PARENT train OPTIONS.

It writes what `ggdr train` writes into its folder, as far as studies read it. Its metric falls, and is higher by the
seed and lower by one with GGDR. --gamma is the seconds that it takes; until then SIGTERM stops it with exit code 130.
--batch 3 fails. With --snap it leaves a snapshot, an empty file, which `clusters` as the first word then looks at.
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
    """Leaves a sheet, as `ggdr clusters` does; fails where there is a file `no-clusters`."""
    folder, snapshot = Path(option("--outdir")), Path(option("--network"))
    if not snapshot.exists() or (folder.parents[3] / "no-clusters").exists():
        print("Error: no clusters", flush=True)
        sys.exit(2)
    folder.mkdir()
    sheet = {"title": "Feature maps of 8x8", "note": "", "file": "sheet.png"}
    (folder / "clusters.json").write_text(json.dumps({"sheets": [sheet], "animations": [], "of": snapshot.name}))


def main() -> None:
    if sys.argv[2] == "clusters":
        look_at()
        return
    folder, seed = Path(option("--outdir")), int(option("--seed"))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))
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
    values = [(kimg, 20 - 100 * kimg + seed - ("--no-ggdr" not in sys.argv)) for kimg in (0.032, 0.064)]
    lines = [{"metric": METRIC, "results": {METRIC: value}, "kimg": kimg} for kimg, value in values]
    (folder / f"metric-{METRIC}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if option("--snap"):
        (folder / "network-snapshot-000064.safetensors").touch()
    with open(folder.parents[1] / "ends.jsonl", "a") as file:
        file.write(json.dumps({"run": f"{folder.parent.name}/{folder.name}", "time": time.time()}) + "\n")


if __name__ == "__main__":
    main()
