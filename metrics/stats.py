# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Mean and covariance of features that arrive in batches."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ggdr.metrics.features import check_finite

# Rows enter the sums this many at a time, whatever the batches: one product of matrices a block, and the same bits.
BLOCK_ROWS = 1024


class Gaussian(NamedTuple):
    """Mean [D] and symmetric covariance [D, D], both float64, of `num` feature vectors."""

    mean: Tensor
    cov: Tensor
    num: int


class _Moments(NamedTuple):
    """Of `num` rows: their mean [D] and the sum of (x - mean)(x - mean)^T [D, D]; never changed in place."""

    mean: Tensor
    scatter: Tensor
    num: int

    def joined(self, other: _Moments) -> _Moments:
        """Moments of both sets of rows together.

        Source: Chan, Golub & LeVeque 1979, "Updating formulae and a pairwise algorithm for computing sample variances".
        """
        if not self.num or not other.num:
            return self if self.num else other
        num = self.num + other.num
        shift = other.mean - self.mean
        scatter = (self.scatter + other.scatter).addr_(shift, shift, alpha=self.num * other.num / num)
        return _Moments(self.mean + shift * (other.num / num), scatter, num)


def _no_rows(dim: int) -> _Moments:
    return _Moments(torch.zeros(dim, dtype=torch.float64), torch.zeros(dim, dim, dtype=torch.float64), 0)


class FeatureStats:
    """Running mean and centred scatter, in float64, of features [n, D] given batch by batch.

    The result is the same to the bit whatever the sizes of the batches, and takes no more memory for more images.
    It lives on the device of the first features (on the CPU where that device has no float64).

    Args:
        dim: D, numbers in a feature vector.
    """

    def __init__(self, dim: int) -> None:
        if dim < 1:
            raise ValueError(f"features need at least 1 dimension, got {dim}")
        self.dim = dim
        self._done = _no_rows(dim)  # of all full blocks
        self._block: Tensor | None = None  # [BLOCK_ROWS, D] float64; the first _num_waiting rows await the others
        self._num_waiting = 0

    @property
    def num(self) -> int:
        """Feature vectors seen so far."""
        return self._done.num + self._num_waiting

    @torch.no_grad()
    def update(self, features: Tensor) -> None:
        """Takes in features [n, D] of any floating type; n may be 0.

        Raises:
            ValueError: another shape, or numbers that are not finite.
        """
        if features.ndim != 2 or features.shape[1] != self.dim:
            raise ValueError(f"features must be [n, {self.dim}], got {list(features.shape)}")
        check_finite(features)
        if self._block is None:
            self._open(features.device)
        while len(features):
            room = BLOCK_ROWS - self._num_waiting
            rows, features = features[:room], features[room:]
            self._block[self._num_waiting : self._num_waiting + len(rows)] = rows
            self._num_waiting += len(rows)
            if self._num_waiting == BLOCK_ROWS:
                self._done = self._moments()
                self._num_waiting = 0

    def merge(self, other: FeatureStats) -> None:
        """Takes in all that `other` has seen, as if it had been given here (to rounding).

        Raises:
            ValueError: `other` has another number of dimensions.
        """
        if other.dim != self.dim:
            raise ValueError(f"statistics of {other.dim} dimensions cannot be merged into those of {self.dim}")
        mean, scatter, num = other._moments()
        if self._block is None:
            self._open(mean.device)
        self._done = self._done.joined(_Moments(mean.to(self._block.device), scatter.to(self._block.device), num))

    def gaussian(self, ddof: int = 0) -> Gaussian:
        """The normal distribution of these features; the covariance is the scatter over num - ddof.

        Raises:
            ValueError: fewer than 2 feature vectors, or no more than ddof.
        """
        moments = self._moments()
        if moments.num < max(2, ddof + 1):
            raise ValueError(f"a covariance needs at least {max(2, ddof + 1)} feature vectors, got {moments.num}")
        cov = (moments.scatter + moments.scatter.T) / (2 * (moments.num - ddof))
        return Gaussian(moments.mean, cov, moments.num)

    def state(self) -> dict[str, Tensor]:
        """mean [D] float64, scatter [D, D] float64 and num [] int64, as safetensors keeps them."""
        moments = self._moments()
        return {"mean": moments.mean, "scatter": moments.scatter, "num": torch.tensor(moments.num)}

    @classmethod
    def from_state(cls, state: dict[str, Tensor]) -> FeatureStats:
        """Statistics as they were when `state` was taken; more features may follow.

        Raises:
            ValueError: entries are missing, or not those of statistics.
        """
        missing = {"mean", "scatter", "num"} - state.keys()
        if missing:
            raise ValueError(f"state of feature statistics lacks {sorted(missing)}, has {sorted(state)}")
        mean, scatter, num = state["mean"], state["scatter"], state["num"]
        if mean.ndim != 1 or scatter.shape != (len(mean), len(mean)) or num.numel() != 1:
            shapes = {name: list(state[name].shape) for name in ("mean", "scatter", "num")}
            raise ValueError(f"feature statistics must be mean [D], scatter [D, D] and num [], got {shapes}")
        if mean.dtype != torch.float64 or scatter.dtype != torch.float64:
            raise ValueError(f"feature statistics must be float64, got {mean.dtype} and {scatter.dtype}")
        if num < 0 or not (mean.isfinite().all() and scatter.isfinite().all()):
            raise ValueError("feature statistics hold a negative count, or NaN or infinite numbers")
        stats = cls(len(mean))
        stats._done = _Moments(mean, scatter, int(num))
        return stats

    def _open(self, device: torch.device) -> None:
        """Settles on the device of the first features."""
        # Apple's GPUs have no float64.
        device = torch.device("cpu") if device.type == "mps" else device
        self._block = torch.empty(BLOCK_ROWS, self.dim, dtype=torch.float64, device=device)
        self._done = _Moments(self._done.mean.to(device), self._done.scatter.to(device), self._done.num)

    def _moments(self) -> _Moments:
        """Of all rows so far; those that wait for a full block stay where they are."""
        if not self._num_waiting:
            return self._done
        rows = self._block[: self._num_waiting]
        mean = rows.mean(dim=0)
        centred = rows - mean
        return self._done.joined(_Moments(mean, centred.T @ centred, len(rows)))
