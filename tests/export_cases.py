# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Networks to export, and their ONNX files."""

from __future__ import annotations

import importlib.util
from functools import cache

import pytest
import torch

from ggdr.stylegan2.config import DiscriminatorConfig, GeneratorConfig
from ggdr.stylegan2.discriminator import Discriminator
from ggdr.stylegan2.generator import Generator
from ggdr.stylegan2.weights.export_parts import discriminator_part, generator_part
from ggdr.torch_utils.export_formats import save_onnx
from tests.tiny import tiny_generator

needs_onnx = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime")),
    reason="needs the packages onnx, onnxscript and onnxruntime",
)


def tiny_discriminator(**settings) -> Discriminator:
    torch.manual_seed(1)
    config = DiscriminatorConfig(**{"img_resolution": 8, "channel_base": 32, **settings})
    return Discriminator(config).eval().requires_grad_(False)


def odd_generator() -> Generator:
    """Four channels, residual, with the clamps of one trained in float16, and classes."""
    torch.manual_seed(2)
    config = GeneratorConfig(8, 4, 3, "resnet", channel_base=32, conv_clamp=256, z_dim=6, w_dim=5, mapping_num_layers=1)
    return Generator(config).eval().requires_grad_(False)


PARTS = {
    "generator": lambda: generator_part(tiny_generator(), truncation_psi=0.7),
    "any psi": lambda: generator_part(tiny_generator(c_dim=3), truncation_psi=None, truncation_cutoff=2),
    "odd": lambda: generator_part(odd_generator(), noise_mode="none"),
    "mapping": lambda: generator_part(tiny_generator(), "mapping", truncation_psi=0.7),
    "synthesis": lambda: generator_part(tiny_generator(), "synthesis"),
    "discriminator": lambda: discriminator_part(tiny_discriminator()),
    "conditional discriminator": lambda: discriminator_part(
        tiny_discriminator(c_dim=3, img_channels=1, architecture="skip", mbstd_group_size=None, mbstd_num_channels=2)
    ),
}


@pytest.fixture(scope="module", name="exported")
def exported_parts(tmp_path_factory):
    """A part of PARTS and its ONNX file, written once."""

    @cache
    def export(name: str):
        part = PARTS[name]()
        path = tmp_path_factory.mktemp("onnx") / "net.onnx"
        assert save_onnx(part, path, metadata={"kimg": "1"}) == [path]
        return part, path

    return export
