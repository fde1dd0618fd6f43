# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The list of detectors: what each is called, what metrics are named after it, and what files it takes.

A new one is a module with `load_detector(files)`, and an entry here: its metrics' names, the options of `ggdr metrics`
for its files and the cache of its features follow. Nothing here imports torch, for names are read before that.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from ggdr.metrics.detector import Detector, PairDistance
    from ggdr.metrics.resize import Mode


@dataclass(frozen=True)
class FileOption:
    """An option of `ggdr metrics` that names a file of a detector's.

    Attributes:
        name:    without its dashes.
        help:    what the file is.
        metavar: what is to be typed.
    """

    name: str
    help: str
    metavar: str = "FILE"


@dataclass(frozen=True)
class DetectorEntry:
    """A detector that metrics may ask for.

    Attributes:
        module: its `load_detector(files: DetectorFiles)` makes it, a Detector or a PairDistance.
        fronts: what names of its metrics begin with, and their kinds (see MetricSpec).
        option: for its own file, if it has one.
        load:   the function of the module, if it is another.
        beside: what must lie beside the images in channels: "target", what each should be; "labels", its label map,
                the last channel, also of reals; "cycle", the image that it is a translation of, translated back, and
                the image itself; empty: nothing.
    """

    module: str
    fronts: Mapping[str, str]
    option: FileOption | None = None
    load: str = "load_detector"
    beside: str = ""


def named_after(detector: str) -> dict[str, str]:
    """The metrics that any features will do for. Distances on other features than Inception's have names of their own
    (fd, not fid), so that nobody takes them for FID."""
    kinds = {"fd": "fid", "kd": "kid", "fdinf": "fidinf", "intra_fd": "intra_fid"}
    return {
        f"{front}_{detector}": kind for front, kind in (kinds | {kind: kind for kind in ("mind", "pr", "dc")}).items()
    }


# What a segmenter may be, in the help of options.
SEGMENTERS = (
    "a file of `ggdr segmenter train`, or a function of the device that returns a callable from images float32 "
    "[N,3,H,W] in [-1,1] to logits [N,classes,h,w]"
)

DETECTORS: dict[str, DetectorEntry] = {
    "custom": DetectorEntry(
        "ggdr.metrics.custom",
        named_after("custom"),
        FileOption(
            "detector",
            "Your own features, for metrics named _custom: a function of the device that returns a callable from "
            "images uint8 [N,3,H,W] to features [N,D], or a TorchScript file of one.",
            metavar="MODULE:FUNCTION|FILE.pt",
        ),
    ),
    "inception": DetectorEntry(
        "ggdr.metrics.inception",
        {kind: kind for kind in ("fid", "kid", "fidinf", "intra_fid", "mind", "is")}
        | {f"{kind}_inception": kind for kind in ("pr", "dc")},
        FileOption("inception", "pt_inception-2015-12-05-6726825d.pth."),
    ),
    "vgg16": DetectorEntry(
        "ggdr.metrics.vgg",
        {kind: kind for kind in ("pr", "dc")},
        FileOption("vgg", "vgg16-397923af.pth, of pr, dc, ppl2 and lpips."),
    ),
    "lpips": DetectorEntry("ggdr.metrics.lpips", {}, FileOption("lpips", "LPIPS v0.1 vgg.pth, of ppl2 and lpips.")),
    "lite": DetectorEntry(
        "ggdr.metrics.lite",
        named_after("lite"),
        FileOption("lite", "efficientnet-lite0-57934424.pth, where its package is not installed."),
    ),
    "offline": DetectorEntry("ggdr.metrics.offline", named_after("offline")),
    "pairs": DetectorEntry(
        "ggdr.metrics.paired", {kind: kind for kind in ("mae", "psnr")}, load="load_pairs_detector", beside="target"
    ),
    "ssim": DetectorEntry("ggdr.metrics.paired", {"ssim": "ssim"}, load="load_ssim_detector", beside="target"),
    "lpips_pairs": DetectorEntry(
        "ggdr.metrics.paired", {"lpips": "lpips"}, load="load_lpips_detector", beside="target"
    ),
    "cycle": DetectorEntry(
        "ggdr.metrics.paired",
        {f"cycle_{kind}": kind for kind in ("mae", "psnr")},
        load="load_cycle_detector",
        beside="cycle",
    ),
    "segmenter": DetectorEntry(
        "ggdr.metrics.segmented",
        {kind: kind for kind in ("miou", "pixel_accuracy", "class_accuracy")},
        FileOption(
            "segmenter",
            f"Judges translations of label maps, for miou, pixel_accuracy and class_accuracy: {SEGMENTERS}.",
            metavar="FILE|MODULE:FUNCTION",
        ),
        load="load_segmenter_detector",
        beside="labels",
    ),
    "colour": DetectorEntry(
        "ggdr.metrics.paired",
        {kind: kind for kind in ("colourfulness", "colourfulness_gap")},
        load="load_colour_detector",
    ),
}


@dataclass
class DetectorFiles:
    """Where detectors come from, and those that were loaded.

    Attributes:
        mode:   how images come to Inception.
        device: where detectors run.
        given:  what options name, by the option; files that are not given are in the cache, or are downloaded.
    """

    mode: Mode
    device: torch.device
    given: Mapping[str, str] = field(default_factory=dict)
    _loaded: dict[str, Detector | PairDistance] = field(default_factory=dict)

    def path(self, option: str) -> Path | None:
        """The file that an option names."""
        return Path(self.given[option]) if option in self.given else None

    def get(self, name: str) -> Detector | PairDistance:
        """The detector of this name, loaded once.

        Raises:
            WeightsError: its weights are not there, or are others.
        """
        if name not in self._loaded:
            entry = DETECTORS[name]
            self._loaded[name] = getattr(importlib.import_module(entry.module), entry.load)(self)
        return self._loaded[name]
