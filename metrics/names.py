# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What a metric's name says: fid50k_full, kid10k_full, is50k, pr50k3_full, ppl2_wend, fd_offline5k_full, miou, ..."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from difflib import get_close_matches

from ggdr.metrics.detectors import DETECTORS

MAX_REALS = {"pr": 200_000, "dc": 200_000, "mind": 200_000, "kid": 1_000_000}
DEFAULT_NEIGHBOURS = {"pr": 3, "dc": 5}
DEFAULT_NUM_PATHS = 50_000
NUM_IS_SPLITS = 10  # each needs a fake
MIN_EXTRAPOLATED = 30  # fakes: twice the points of the line
# Means over single images, which any number of them will do for: a name without one takes all that there are.
PER_IMAGE = ("mae", "psnr", "ssim", "lpips", "colourfulness")
# Sums over images, which any number of them will do for, too; the same of reals stands beside them.
OF_CLASSES = ("miou", "pixel_accuracy", "class_accuracy")
EXAMPLES = "fid50k_full, kid50k_full, is50k, pr50k3_full, dc50k5_full, ppl2_wend, fd_lite50k_full, psnr, ssim"

_NUM = r"\d{1,9}(?:\.\d{1,3})?"  # thousands of images, whole ones
_SAMPLED = re.compile(rf"([a-z0-9_]*?[a-z])({_NUM})k(\d{{1,9}})?(_full)?")
_PATH = re.compile(rf"ppl2_([zw])(end|full)(?:({_NUM})k)?")


@dataclass(frozen=True)
class MetricSpec:
    """One metric to compute.

    Attributes:
        kind:       fid, kid, fidinf, intra_fid, mind, is, pr, dc, ppl, colourfulness_gap, or one of PER_IMAGE or of
                    OF_CLASSES.
        detector:   one of the list of detectors.
        num:        fake images; of ppl, paths; 0: all, until `of_all` says how many these are.
        front:      the front part of its name.
        neighbours: k of the k-th nearest neighbour, of pr and dc.
        space:      "z" or "w", of ppl.
        sampling:   "end" or "full", of ppl.
        takes_all:  whether it takes all images that there are, and its name has no number.
    """

    kind: str
    detector: str
    num: int
    front: str
    neighbours: int = 0
    space: str = ""
    sampling: str = ""
    takes_all: bool = False

    @property
    def name(self) -> str:
        """The name that says all of this; parse_metric reads it again."""
        if self.kind == "ppl":
            count = "" if self.num == DEFAULT_NUM_PATHS else f"{thousands(self.num)}k"
            return f"ppl2_{self.space}{self.sampling}{count}"
        if self.takes_all:
            return self.front
        neighbours = str(self.neighbours) if self.neighbours else ""
        return f"{self.front}{thousands(self.num)}k{neighbours}{'_full' if self.compares_sets else ''}"

    @property
    def needs_reals(self) -> bool:
        return self.kind not in ("is", "ppl", *PER_IMAGE)

    @property
    def compares_sets(self) -> bool:
        """Whether it is between fakes and all reals, which its name says."""
        return self.needs_reals and self.kind not in OF_CLASSES

    @property
    def takes_rows(self) -> bool:
        """Whether it takes the features of each image, not their mean and covariance alone."""
        return self.kind in ("kid", "mind", "pr", "dc", "intra_fid", *PER_IMAGE, *OF_CLASSES)

    @property
    def needs_labels(self) -> bool:
        return self.kind == "intra_fid"

    @property
    def min_fakes(self) -> int:
        """Fewer fakes are refused."""
        fewest = {"pr": self.neighbours + 1, "is": NUM_IS_SPLITS, "fidinf": MIN_EXTRAPOLATED}
        return 1 if self.kind in (*PER_IMAGE, *OF_CLASSES) else fewest.get(self.kind, 2)

    @property
    def min_reals(self) -> int:
        """Fewer reals are refused."""
        if self.kind in OF_CLASSES:
            return 1
        return self.neighbours + 1 if self.kind in ("pr", "dc") else 2

    @property
    def max_reals(self) -> int | None:
        """Of how many reals the features are kept at most; None: of all."""
        return MAX_REALS.get(self.kind)

    @property
    def higher_is_better(self) -> bool:
        return self.kind in ("is", "pr", "dc", "psnr", "ssim", "colourfulness", *OF_CLASSES)

    def with_num(self, num: int) -> MetricSpec:
        """The same metric on another number of fakes; its name says so."""
        return replace(self, num=num, takes_all=False)

    def of_all(self, num: int | None) -> MetricSpec:
        """The same metric; one that takes all images then knows that there are `num` of them."""
        return replace(self, num=num) if self.takes_all and num is not None else self


def parse_metric(text: str) -> MetricSpec:
    """What a metric's name asks for.

    Raises:
        ValueError: no known metric.
    """
    path, sampled, fronts = _PATH.fullmatch(text), _SAMPLED.fullmatch(text), _fronts()
    if text in fronts and fronts[text][0] in (*PER_IMAGE, *OF_CLASSES):
        return MetricSpec(*fronts[text], 0, text, takes_all=True)
    if path is not None:
        num = DEFAULT_NUM_PATHS if path[3] is None else _count(path[3])
        spec = MetricSpec("ppl", "lpips", num, "ppl2", space=path[1], sampling=path[2])
    elif sampled is not None and sampled[1] in fronts:
        kind, detector = fronts[sampled[1]]
        neighbours = int(sampled[3] or DEFAULT_NEIGHBOURS[kind]) if kind in DEFAULT_NEIGHBOURS else 0
        spec = MetricSpec(kind, detector, _count(sampled[2]), sampled[1], neighbours)
        if bool(sampled[4]) != spec.compares_sets or (sampled[3] and kind not in DEFAULT_NEIGHBOURS):
            raise ValueError(f"{text!r} is no metric; did you mean {spec.name!r}?")
        if kind in DEFAULT_NEIGHBOURS and neighbours < 1:
            raise ValueError(f"{text!r}: expected at least 1 neighbour")
    else:
        lower = re.sub(r"(?<![a-z])l1(?![a-z])", "mae", text.lower())
        found = get_close_matches(lower, _names_like(text), n=1, cutoff=0.75)
        remedy = f"did you mean {found[0]!r}?" if found else f"expected names such as {EXAMPLES}"
        raise ValueError(f"{text!r} is no metric; {remedy}")
    if spec.num < 2:
        raise ValueError(f"{text!r}: expected at least 2 images, got {spec.num}")
    return spec


def parse_metrics(text: str) -> list[MetricSpec]:
    """The metrics of a comma-separated list, each once; raises ValueError for an unknown one, or none."""
    specs = list(dict.fromkeys(parse_metric(part.strip()) for part in text.split(",") if part.strip()))
    if not specs:
        raise ValueError(f"no metric in {text!r}; expected names such as {EXAMPLES}")
    return specs


def thousands(num: int) -> str:
    """50000 as "50", 12800 as "12.8"."""
    return f"{num / 1000:.3f}".rstrip("0").rstrip(".")


def _names_like(text: str) -> list[str]:
    """Names of all kinds of metrics, with the number of images that the text names, if it does; "500" is 0.5k."""
    number = re.search(rf"(?<![\d.])({_NUM})k", text)
    bare = re.search(r"(?<!\d)(\d{3,9})(_\w*)?$", text)
    num = _count(number[1]) if number is not None else int(bare[1]) if bare is not None else 50_000
    specs = [
        MetricSpec(kind, detector, num, front, DEFAULT_NEIGHBOURS.get(kind, 0))
        for front, (kind, detector) in _fronts().items()
    ]
    paths = [
        MetricSpec("ppl", "lpips", DEFAULT_NUM_PATHS, "ppl2", space=space, sampling=sampling)
        for space in "zw"
        for sampling in ("end", "full")
    ]
    whole = [replace(spec, takes_all=True) for spec in specs if spec.kind in (*PER_IMAGE, *OF_CLASSES)]
    return [spec.name for spec in [*specs, *paths, *whole]]


def _fronts() -> dict[str, tuple[str, str]]:
    """Kind and detector, by what names of metrics begin with."""
    return {front: (kind, name) for name, entry in DETECTORS.items() for front, kind in entry.fronts.items()}


def _count(text: str) -> int:
    return round(float(text) * 1000)
