# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Names of the machine's GPUs, without a process that touches them."""

from __future__ import annotations

import re

from ggdr.torch_utils.ops.toolchain import cpu_name, output_of


def list_cards(device: str) -> list[str]:
    """What the driver calls the GPUs, ["unknown"] where nvidia-smi does not tell; for "cpu" the processor."""
    if device == "cpu":
        return [cpu_name()]
    found = re.findall(r"GPU \d+: (.*?) \(UUID", output_of(["nvidia-smi", "-L"]))
    return found or ["unknown"]
