# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Steps that use a trained network: metrics, and cluster maps."""

from __future__ import annotations

import json
import math
import time

from ggdr.metrics.defaults import has_inception
from ggdr.metrics.lite import find_lite
from ggdr.scripts.accepting.commands import output_of_ggdr
from ggdr.scripts.accepting.small_runs import digits, trained_run
from ggdr.scripts.accepting.step import Finding, Place


def measure_metrics(place: Place) -> Finding:
    """A Frechet distance for each detector whose weights are here, with its time."""
    thousands = "5" if place.on_gpu else "0.1"
    fronts = ["fd_offline"]
    fronts += ["fd_lite"] if find_lite() is not None else []
    fronts += ["fid"] if has_inception() else []
    names = [f"{front}{thousands}k_full" for front in fronts]
    words = ["--network", trained_run(place), "--data", digits(place), "--metrics", ",".join(names)]
    output = output_of_ggdr(
        "metrics", *words, "--device", place.device, "--outdir", place.folder, "--no-cache", "--json"
    )
    lines = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    found = {x["metric"]: {"value": x["results"][x["metric"]], "seconds": x["seconds"]} for x in lines}
    faults = [f"{name} was not measured" for name in names if name not in found]
    faults += [f"{name} is {x['value']}" for name, x in found.items() if not math.isfinite(x["value"])]
    figure = ", ".join(f"{name} {x['value']:.4g} in {x['seconds']:.1f} s" for name, x in found.items())
    return Finding(figure, {"metrics": found}, faults)


def make_clusters(place: Place) -> Finding:
    """`ggdr generate` and `ggdr clusters` on a snapshot."""
    run = trained_run(place)
    last = 63 if place.on_gpu else 15
    where = ["--network", run, "--device", place.device, "--seeds", f"0-{last}"]
    seconds, files = {}, {}
    for name, more in (("generate", ["--grid", "4x4"] if last == 15 else ["--grid", "8x8"]), ("clusters", [])):
        outdir, begin = place.folder / name, time.monotonic()
        output_of_ggdr(name, *where, *more, "--outdir", outdir)
        seconds[name] = round(time.monotonic() - begin, 1)
        files[name] = len(list(outdir.glob("*.png")))
    faults = [f"ggdr {name} wrote no picture" for name, num in files.items() if not num]
    figure = ", ".join(f"{name}: {files[name]} pictures in {seconds[name]:.1f} s" for name in files)
    return Finding(figure, {"seconds": seconds, "pictures": files}, faults)
