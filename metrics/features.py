# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What features must be like for distances to mean anything."""

from __future__ import annotations

from torch import Tensor

# Tens of megabytes in float64 at a time, of features that may take gigabytes.
CHUNK_ROWS = 1024


def check_finite(vectors: Tensor, name: str = "feature vectors") -> None:
    """Raises ValueError where vectors [n, D] hold NaN or infinite numbers, and says how many do."""
    num_bad = sum(len(rows) - int(rows.isfinite().all(dim=1).sum()) for rows in vectors.split(CHUNK_ROWS))
    if num_bad:
        raise ValueError(f"{num_bad} of {len(vectors)} {name} hold NaN or infinite numbers")


def check_sets(real: Tensor, fake: Tensor, *, least_real: int, least_fake: int) -> None:
    """Raises ValueError unless these are features [R, D] and [F, D], finite, and at least so many."""
    if real.ndim != 2 or fake.ndim != 2 or real.shape[1] != fake.shape[1] or not real.shape[1]:
        raise ValueError(f"features must be [R, D] and [F, D], got {list(real.shape)} and {list(fake.shape)}")
    for name, features, least in (("real", real, least_real), ("fake", fake, least_fake)):
        if len(features) < least:
            raise ValueError(f"at least {least} {name} images are needed, got {len(features)}")
        check_finite(features, f"{name} feature vectors")
