# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Cards are known by the driver's names of them, and no other one is taken for one of them."""

from __future__ import annotations

import pytest

from ggdr.torch_utils.timing.gpus import DRIVER_NAMES, GPUS, recognise_gpu


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("Tesla V100-SXM2-16GB", "v100"),
        ("NVIDIA GeForce RTX 4090", "rtx4090"),
        ("NVIDIA L4", "l4"),
    ],
)
def test_known_cards(name, key):
    assert recognise_gpu(name) == key


@pytest.mark.parametrize(
    "name",
    [
        "NVIDIA H100 PCIe",
        "NVIDIA H200 NVL",
        "NVIDIA A100-SXM4-40GB",
        "NVIDIA H100 80GB HBM3 MIG 1g.10gb",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA L40",
        "",
    ],
)
def test_cards_that_only_sound_alike_are_unknown(name):
    assert recognise_gpu(name) is None


def test_every_card_with_peaks_has_a_name():
    assert set(DRIVER_NAMES.values()) == set(GPUS)


def test_products_in_a_type_that_a_card_lacks_are_in_float32():
    assert [GPUS["v100"].math(x) for x in ("fp16", "bf16", "tf32", "fp32")] == ["fp16", "fp32", "fp32", "fp32"]
    assert GPUS["h100"].math("tf32") == "tf32"
