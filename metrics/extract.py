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

from ggdr.metrics.detector import Detector, Images, to_device
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

    def __init__(self) -> None:
        super().__init__("another process failed; its own message says why")


class OutOfMemory(MetricError):
    """The memory of this process' GPU does not suffice, or that of another's."""

    def __init__(self, why: str = "not enough GPU memory") -> None:
        super().__init__(why)


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
        features: [keep, D] float32 on the CPU, of those that `chosen_numbers` names; None if none were wanted.
        logits:   [.., K] float32 on the CPU, likewise.
        total:    images of the source that they are chosen from; None where it makes as many as are asked for.
    """

    num: int
    stats: FeatureStats
    features: Tensor | None = None
    logits: Tensor | None = None
    total: int | None = None

    def stats_of(self, num: int) -> FeatureStats:
        """The statistics of `num` images."""
        if num == self.num:
            return self.stats
        stats = FeatureStats(self.features.shape[1])
        stats.update(self.features_of(num))
        return stats

    def features_of(self, num: int) -> Tensor:
        """Those of `num` images, the same ones whatever else was kept."""
        return self._rows(self.features, num)

    def logits_of(self, num: int) -> Tensor:
        """Those of `num` images."""
        return self._rows(self.logits, num)

    def _rows(self, kept: Tensor | None, num: int) -> Tensor:
        assert kept is not None and len(kept) >= num
        if len(kept) == num:
            return kept
        return kept[torch.from_numpy(is_chosen(chosen_numbers(self.total, len(kept)), self.total, num))]


def extract(
    source: ImageSource,
    detectors: Mapping[str, tuple[Detector, FeatureRequest]],
    *,
    num: int,
    batch: int,
    device: torch.device,
    group: ProcessGroup,
    progress: Progress | None = None,
    what: str = "images",
    is_stopped: IsStopped | None = None,
) -> dict[str, Extracted]:
    """Features of `num` images by every detector, each image made or read once.

    Several processes share each batch; the result does not depend on their number, nor on the batch size beyond
    what the detector's own sums do.

    Args:
        batch:      images at once in one process; fewer are taken where the source says so, and half as many, again
            and again, where they do not fit a GPU's memory.
        is_stopped: asked on every process before each batch.

    Returns:
        By detector; on other ranks than 0 nothing is kept, and the dict is empty.

    Raises:
        MetricError: an image is too small, features are not finite.
        OutOfMemory: a single image does not fit a GPU's memory.
        PeerFailed, MetricsStopped: as `together`.
        WeightsError: a detector of the user's gives no features [N, D].
        DataError: an image cannot be read.
    """
    numbers = chosen_numbers(source.num, num)

    def keeps(most: int) -> Tensor:
        return torch.from_numpy(is_chosen(numbers, source.num, most))

    keeps_row = {name: keeps(want.keep) for name, (_, want) in detectors.items()}
    keeps_logits = {name: keeps(want.logits) for name, (_, want) in detectors.items()}
    kept: dict[str, Extracted] = {}
    features: dict[str, list[Tensor]] = {name: [] for name in detectors}
    logits: dict[str, list[Tensor]] = {name: [] for name in detectors}
    networks = {name: detector for name, (detector, _) in detectors.items()}
    most = min(batch, source.most_batch or batch)
    done = 0
    with closing(_outputs(source, networks, numbers, most, what, device, group, is_stopped)) as outputs:
        for size, outs in outputs:
            for name, (_, want) in detectors.items():
                rows = group.gather_rows(outs[name]["features"], size)
                if want.logits:
                    logit_rows = group.gather_rows(outs[name]["logits"], size)
                with together(group):
                    if not group.is_main:
                        continue
                    if name not in kept:
                        kept[name] = Extracted(num, FeatureStats(rows.shape[1]), total=source.num)
                    kept[name].stats.update(rows)
                    if want.keep:
                        features[name].append(rows.float().cpu()[keeps_row[name][done : done + size]])
                    if want.logits:
                        logits[name].append(logit_rows.float().cpu()[keeps_logits[name][done : done + size]])
            done += size
            if progress is not None and group.is_main:
                progress(what, done, num)
    for name, entry in kept.items():
        entry.features = torch.cat(features[name]) if detectors[name][1].keep else None
        entry.logits = torch.cat(logits[name]) if logits[name] else None
    return kept


def _outputs(
    source: ImageSource,
    detectors: Mapping[str, Detector],
    numbers: np.ndarray,
    batch: int,
    what: str,
    device: torch.device,
    group: ProcessGroup,
    is_stopped: IsStopped | None,
) -> Iterator[tuple[int, dict[str, dict[str, Tensor]]]]:
    """The numbers in parts: the size of each, and what every detector gives for this process' share of it."""
    done = 0
    while done < len(numbers):
        step = batch * group.world
        parts = [numbers[i : i + step] for i in range(done, len(numbers), step)]
        # A last part may leave a process without an image: it takes one for nothing.
        shares = [part[group.rank :: group.world] for part in parts]
        mine = [share if len(share) else part[:1] for part, share in zip(parts, shares, strict=True)]
        with closing(source.batches(mine)) as batches:
            for part, share in zip(parts, shares, strict=True):
                try:
                    with together(group, is_stopped):
                        outs = _next_outputs(batches, detectors, device)
                except OutOfMemory:
                    batch = smaller_batch(batch, what)
                    break
                yield len(part), {name: {k: x[: len(share)] for k, x in out.items()} for name, out in outs.items()}
                done += len(part)


def _next_outputs(
    batches: Iterator[Images], detectors: Mapping[str, Detector], device: torch.device
) -> dict[str, Mapping[str, Tensor]]:
    """What every detector gives for the next images."""
    images_u8 = to_device(next(batches), device)
    return {name: _features(detector, images_u8, name) for name, detector in detectors.items()}


def smaller_batch(batch: int, what: str) -> int:
    """Half of a batch that did not fit a GPU's memory; raises OutOfMemory where it is a single one."""
    if batch == 1:
        raise OutOfMemory(f"not enough GPU memory for the {what}, even for one at a time")
    return batch // 2


def chosen_numbers(total: int | None, num: int) -> np.ndarray:
    """The numbers of `num` images, ascending; those of a smaller `num` are among them.

    Of `total` images they are random, always the same ones: folders are often sorted by what is on the images. A
    source that makes as many as are asked for (None) is not sorted: the first ones.
    """
    return np.arange(num) if total is None else np.sort(random_state(0).permutation(total)[:num])


def is_chosen(numbers: np.ndarray, total: int | None, num: int) -> np.ndarray:
    """[n] bool: which of these numbers are among `num` chosen ones."""
    return np.isin(numbers, chosen_numbers(total, num))


def _features(detector: Detector, images_u8: Images, name: str) -> Mapping[str, Tensor]:
    """What the detector gives, once it is known to make sense."""
    sizes = [images_u8.shape[2:]] if isinstance(images_u8, Tensor) else [image.shape[1:] for image in images_u8]
    height, width = min(sizes, key=min)
    if min(height, width) < detector.min_size:
        least = detector.min_size
        raise MetricError(f"detector {name}: images must be at least {least}x{least}, got one of {width}x{height}")
    out = detector(images_u8)
    if not torch.isfinite(out["features"]).all():
        raise MetricError(f"detector {name}: the features of some images are not finite")
    return out


@contextmanager
def together(group: ProcessGroup, is_stopped: IsStopped | None = None) -> Iterator[None]:
    """Where one process fails or is stopped inside, all of them end with an error instead of waiting for it.

    Raises:
        OutOfMemory: on all of them, where a GPU's memory did not suffice and nothing else went wrong.
        PeerFailed: another process failed or was stopped.
        MetricsStopped: `is_stopped` said so on this one.
    """
    failure = None
    try:
        if is_stopped is not None and is_stopped():
            raise MetricsStopped
        yield
    except torch.OutOfMemoryError:
        failure = OutOfMemory()  # without the error itself, which holds on to all that was computed
    except Exception as error:  # whatever it is, the others must hear of it
        failure = error
    if group.any(failure is not None):
        # Memory alone is a reason to try again, which all of them do or none.
        lacks_memory = isinstance(failure, OutOfMemory)
        if group.any(failure is not None and not lacks_memory):
            raise PeerFailed() if failure is None or lacks_memory else failure
        raise failure or OutOfMemory()
