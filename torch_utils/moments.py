# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The moments of Adam in a training state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.optim import Optimizer


def load_moments(optimizer: Optimizer, saved: Mapping[str, Any]) -> None:
    """Takes back the moments of `optimizer.state_dict()`; rates and betas are this run's settings, and stay.

    Raises:
        ValueError: they are of other parameters.
    """
    groups = [
        {**new, "params": old["params"]} for old, new in zip(saved["param_groups"], optimizer.param_groups, strict=True)
    ]
    optimizer.load_state_dict({"state": saved["state"], "param_groups": groups})
    # Loading does not look at shapes.
    for p, state in optimizer.state.items():
        for name in ("exp_avg", "exp_avg_sq"):
            if not isinstance(state[name], Tensor) or state[name].shape != p.shape:
                raise ValueError(f"{name} of an optimiser is not of the shape {list(p.shape)}")
