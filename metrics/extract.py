# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""One pass over images, through every detector that is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ggdr.metrics.detector import Detector
from ggdr.metrics.image_sets import ImageSource
from ggdr.metrics.stats import FeatureStats
from ggdr.torch_utils.data.dataset import random_state
from ggdr.torch_utils.distributed import ProcessGroup

Progress = Callable[[str, int, int], None]  # what, done, total
IsStopped = Callable[[], bool]  # whether the work is to be given up


class MetricError(RuntimeError):
    """A metric cannot be computed from these images; the message says why."""


class PeerFailed(MetricError):
    """Another process could not do its share."""


class MetricsStopped(Exception):
    """The metrics were given up, as the caller asked."""


@dataclass(frozen=True)
class FeatureRequest:
    """What is to be kept of one detector's output.

    Attributes:
        keep:   rows of features; 0 for their statistics alone.
        logits: rows of logits.
    """

    keep: int = 0
    logits: int = 0

    def __or__(self, other: FeatureRequest) -> FeatureRequest:
        return FeatureRequest(max(self.keep, other.keep), max(self.logits, other.logits))


@dataclass
class Extracted:
    """Features of a set of images.

    Attributes:
        num:      images.
        stats:    of all of them.
        features: [keep, D] float32 on the CPU, in the images' order (the first ones, or spread over all of them);
            None if none were wanted.
        logits:   [.., K] float32 on the CPU, or None.
    """

    num: int
    stats: FeatureStats
    features: Tensor | None = None
    logits: Tensor | None = None

    def stats_of(self, num: int) -> FeatureStats:
        """The statistics of the first `num` images."""
        if num == self.num:
            return self.stats
        assert self.features is not None and len(self.features) >= num
        stats = FeatureStats(self.features.shape[1])
        stats.update(self.features[:num])
        return stats


def extract(
    source: ImageSource,
    detectors: Mapping[str, tuple[Detector, FeatureRequest]],
    *,
    num: int,
    batch: int,
    device: torch.device,
    group: ProcessGroup,
    spread: bool = False,
    progress: Progress | None = None,
    what: str = "images",
    is_stopped: IsStopped | None = None,
) -> dict[str, Extracted]:
    """Features of the first `num` images by every detector, each image made or read once.

    Several processes share each batch; the result does not depend on their number, nor on the batch size beyond
    what the detector's own sums do.

    Args:
        batch:  images at once in one process.
        is_stopped: asked on every process before each batch.
        spread: keep features of random images, always the same ones, where not all are wanted: folders are often
            sorted by what is on the images. Else of the first ones.

    Returns:
        By detector; on other ranks than 0 nothing is kept, and the dict is empty.

    Raises:
        MetricError: features are not finite.
        PeerFailed, MetricsStopped: as `together`.
        WeightsError: a detector of the user's gives no features [N, D].
        DataError: an image cannot be read.
    """
    numbers = np.arange(num)
    is_kept = {
        name: torch.from_numpy(spread_mask(num, want.keep) if spread else numbers < want.keep)
        for name, (_, want) in detectors.items()
    }
    parts = [numbers[i : i + batch * group.world] for i in range(0, num, batch * group.world)]
    # A last part may leave a process without an image: it takes one for nothing.
    shares = [part[group.rank :: group.world] for part in parts]
    mine = [share if len(share) else part[:1] for part, share in zip(parts, shares, strict=True)]
    kept: dict[str, Extracted] = {}
    features: dict[str, list[Tensor]] = {name: [] for name in detectors}
    logits: dict[str, list[Tensor]] = {name: [] for name in detectors}
    done = 0
    with closing(source.batches(mine)) as batches:
        for part, share in zip(parts, shares, strict=True):
            with together(group, is_stopped):
                images_u8 = next(batches).to(device)
                outs = {name: _finite(detector(images_u8), name) for name, (detector, _) in detectors.items()}
            for name, (_, want) in detectors.items():
                rows = group.gather_rows(outs[name]["features"][: len(share)], len(part))
                if want.logits:
                    logit_rows = group.gather_rows(outs[name]["logits"][: len(share)], len(part))
                with together(group):
                    if not group.is_main:
                        continue
                    if name not in kept:
                        kept[name] = Extracted(num, FeatureStats(rows.shape[1]))
                    kept[name].stats.update(rows)
                    if want.keep:
                        features[name].append(rows.float().cpu()[is_kept[name][done : done + len(part)]])
                    if done < want.logits:
                        logits[name].append(logit_rows[: want.logits - done].float().cpu())
            done += len(part)
            if progress is not None and group.is_main:
                progress(what, done, num)
    for name, entry in kept.items():
        entry.features = torch.cat(features[name]) if detectors[name][1].keep else None
        entry.logits = torch.cat(logits[name]) if logits[name] else None
    return kept


def spread_mask(num: int, keep: int) -> np.ndarray:
    """[num] bool: `keep` random numbers, always the same ones; those of a smaller `keep` are among them."""
    mask = np.zeros(num, dtype=bool)
    mask[random_state(0).permutation(num)[:keep]] = True
    return mask


def _finite(out: Mapping[str, Tensor], name: str) -> Mapping[str, Tensor]:
    if not torch.isfinite(out["features"]).all():
        raise MetricError(f"detector {name}: the features of some images are not finite")
    return out


@contextmanager
def together(group: ProcessGroup, is_stopped: IsStopped | None = None) -> Iterator[None]:
    """Where one process fails or is stopped inside, all of them end with an error instead of waiting for it.

    Raises:
        PeerFailed: another process failed or was stopped.
        MetricsStopped: `is_stopped` said so on this one.
    """
    failure = None
    try:
        if is_stopped is not None and is_stopped():
            raise MetricsStopped
        yield
    except Exception as error:  # whatever it is, the others must hear of it
        failure = error
    if group.any(failure is not None):
        raise failure or PeerFailed("another process failed; its own message says why")
