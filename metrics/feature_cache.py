# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Features of real images, kept on disk under a hash of the images' content and of what the detector does."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch

from ggdr.metrics.detector import Detector
from ggdr.metrics.extract import Extracted, FeatureRequest
from ggdr.metrics.image_sets import ImageSource
from ggdr.metrics.stats import FeatureStats
from ggdr.torch_utils.atomic_write import atomic_write
from ggdr.torch_utils.process_lock import process_lock
from ggdr.torch_utils.untrusted.regular_files import check_regular

FORMAT = "ggdr-features-1"
POLL_SECONDS = 0.2

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FeatureCache:
    """A folder of what `extract` gave; None keeps nothing."""

    folder: Path | None

    def load(self, source: ImageSource, detector: Detector, want: FeatureRequest) -> Extracted | None:
        """What is stored for these images and this detector, if it suffices."""
        path = self._path(source, detector)
        if path is None or want.logits:
            return None
        try:
            check_regular(path)
            with safetensors.safe_open(path, framework="pt") as file:
                if (file.metadata() or {}).get("format") != FORMAT:
                    return None
                keys = set(file.keys())
                stats = FeatureStats.from_state({key: file.get_tensor(key) for key in ("mean", "scatter", "num")})
                shape = file.get_slice("features").get_shape() if "features" in keys else [0, stats.dim]
                if len(shape) != 2 or shape[1] != stats.dim:
                    return None
                kept = shape[0]
                if kept < min(want.keep, stats.num):
                    return None
                features = file.get_tensor("features") if want.keep else None
                return Extracted(stats.num, stats, features, total=stats.num)
        except (OSError, LookupError, ValueError, OverflowError, RuntimeError, safetensors.SafetensorError):
            return None  # missing, or damaged: made again

    def save(self, source: ImageSource, detector: Detector, extracted: Extracted) -> None:
        """Keeps it, whole or not at all; a folder that cannot be written to costs no result, only the next one time."""
        path = self._path(source, detector)
        if path is None:
            return
        tensors = {key: value.cpu().contiguous() for key, value in extracted.stats.state().items()}
        if extracted.features is not None:
            tensors["features"] = extracted.features
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(path) as file:
                file.write(safetensors.torch.save(tensors, metadata={"format": FORMAT}))
        except OSError as error:
            logger.warning("features of real images are not kept: %s: %s", path.parent, error.strerror or error)

    @contextmanager
    def alone(self, source: ImageSource, is_stopped: Callable[[], bool] | None = None) -> Iterator[None]:
        """Inside, this process alone makes features of these images; others that want to wait, and then find them.

        Nobody is kept out where the folder cannot be written to, and once `is_stopped` says so nobody waits.
        """
        fingerprint = source.fingerprint()
        if self.folder is None or fingerprint is None:
            yield
            return
        with ExitStack() as stack:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                lock = self.folder / f"{hashlib.sha256(fingerprint.encode()).hexdigest()[:24]}.lock"
                while not _locked(stack, lock) and not (is_stopped is not None and is_stopped()):
                    time.sleep(POLL_SECONDS)
            except OSError:
                pass
            yield

    def _path(self, source: ImageSource, detector: Detector) -> Path | None:
        fingerprint = source.fingerprint()
        if self.folder is None or fingerprint is None:
            return None
        key = json.dumps([fingerprint, detector.name, detector.hash, detector.resize])
        return self.folder / f"{detector.name}-{hashlib.sha256(key.encode()).hexdigest()[:24]}.safetensors"


def _locked(stack: ExitStack, path: Path) -> bool:
    """Holds a lock as long as the stack is open; whether nobody else does."""
    try:
        stack.enter_context(process_lock(path, _refuse))
    except _Busy:
        return False
    return True


class _Busy(Exception):
    """Another process holds a lock."""


def _refuse(holder: str) -> None:
    raise _Busy
