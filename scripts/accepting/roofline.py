# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The published peaks that a GPU is compared with."""

from __future__ import annotations

import torch

from ggdr.torch_utils.timing.gpus import recognise_gpu

STAND_IN = "h100"  # for a GPU whose peaks are not known here


def this_gpu() -> tuple[str, bool]:
    """The key of the first GPU's peaks, and True; STAND_IN and False where its own are not known."""
    found = recognise_gpu(torch.cuda.get_device_name(0))
    return (STAND_IN, False) if found is None else (found, True)
