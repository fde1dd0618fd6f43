# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Exported graphs compute what the network computes, and say what they are."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace

import pytest
import torch

from ggdr.stylegan2.config import GeneratorConfig
from ggdr.stylegan2.generator import Generator
from ggdr.stylegan2.weights.export_parts import discriminator_part, generator_part
from ggdr.torch_utils import export_formats
from ggdr.torch_utils.export_formats import (
    TOLERANCE,
    largest_difference,
    onnx_runner,
    save_onnx,
    save_torch_export,
    trace,
)
from ggdr.torch_utils.ops.build import ops_mode
from tests.conftest import ROOT
from tests.export_cases import PARTS, exported_parts, needs_onnx, tiny_discriminator  # noqa: F401
from tests.tiny import tiny_generator

# ONNX.


@needs_onnx
@pytest.mark.parametrize("name", PARTS)
def test_onnx_computes_what_pytorch_computes(exported, name):
    part, path = exported(name)
    assert largest_difference(part, onnx_runner(path)) < TOLERANCE


@needs_onnx
def test_onnx_takes_batches_of_any_size(exported):
    part, path = exported("generator")
    runner, rng = onnx_runner(path), torch.Generator().manual_seed(5)
    for n in (1, 2, 7, 33):
        inputs = part.example(n, rng)
        assert runner(inputs).shape == (n, 3, 8, 8)
        expected = tiny_generator()(inputs["z"], truncation_psi=0.7, noise_mode="const")
        assert torch.allclose(runner(inputs), expected, atol=1e-5)


@needs_onnx
def test_psi_as_an_input_truncates_as_psi_in_pytorch(exported):
    G, (part, path) = tiny_generator(c_dim=3), exported("any psi")
    inputs = part.example(4, torch.Generator().manual_seed(6))
    for psi in (1.0, 0.5, 0.0, -0.3):
        actual = onnx_runner(path)({**inputs, "truncation_psi": torch.tensor(psi)})
        z, c = inputs["z"], inputs["c"]
        expected = G(z, c, truncation_psi=psi, truncation_cutoff=2, noise_mode="const")
        assert torch.allclose(actual, expected, atol=1e-5), psi


@needs_onnx
def test_mapping_and_synthesis_together_are_the_generator(exported):
    part, path = exported("generator")
    inputs = part.example(3, torch.Generator().manual_seed(7))
    ws = onnx_runner(exported("mapping")[1])(inputs)
    assert ws.shape == (3, tiny_generator().num_ws, 5)
    assert torch.allclose(onnx_runner(exported("synthesis")[1])({"ws": ws}), onnx_runner(path)(inputs), atol=1e-5)


@needs_onnx
def test_numbers_that_keep_roots_and_quotients_finite_are_in_the_file(exported):
    # An optimiser takes 1e-8 for zero: a zero latent would give NaN, and a batch of one image another score.
    _, path = exported("generator")
    z = torch.zeros(2, 6)
    expected = tiny_generator()(z, truncation_psi=0.7, noise_mode="const")
    assert torch.allclose(onnx_runner(path)({"z": z}), expected, atol=1e-5)
    part, path = exported("discriminator")
    inputs = part.example(1, torch.Generator().manual_seed(8))
    assert torch.allclose(onnx_runner(path)(inputs), part.module(**inputs), atol=1e-6)


@needs_onnx
def test_discriminator_groups_images_as_pytorch_does_and_takes_other_batches(exported):
    part, path = exported("discriminator")
    runner, rng = onnx_runner(path), torch.Generator().manual_seed(9)
    for n in (2, 4, 12):
        inputs = part.example(n, rng)
        assert torch.allclose(runner(inputs), part.module(**inputs), atol=1e-5)
    inputs = part.example(6, rng)
    with pytest.raises(ValueError, match="not a multiple"):
        part.module(**inputs)
    # Six images at groups of four are one group.
    whole = tiny_discriminator(mbstd_group_size=None)
    assert torch.allclose(runner(inputs), whole(inputs["img"]), atol=1e-5)


@needs_onnx
def test_onnx_says_what_it_is_and_not_where_it_was_made(exported):
    import onnx

    part, path = exported("any psi")
    model = onnx.load(path)
    shapes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    assert shapes == {"z": ["N", 6], "c": ["N", 3], "truncation_psi": [], "img": ["N", 3, 8, 8]}
    assert {prop.key: prop.value for prop in model.metadata_props} == {"kimg": "1"}
    assert model.producer_name == "ggdr" and "images" in model.graph.output[0].doc_string
    content = path.read_bytes()
    assert not [word for word in (str(ROOT), "site-packages", ".py", "stack_trace") if word.encode() in content]
    assert {node.domain for node in model.graph.node} == {""}


@needs_onnx
def test_weights_too_large_for_one_file_go_beside_it(tmp_path):
    part = generator_part(Generator(GeneratorConfig(8, channel_base=32, z_dim=64, w_dim=64)), "mapping")
    paths = save_onnx(part, tmp_path / "net.onnx", max_bytes=10)
    assert [path.name for path in paths] == ["net.onnx", "net.onnx.data"]
    assert largest_difference(part, onnx_runner(paths[0])) < TOLERANCE
    paths[1].unlink()
    with pytest.raises(Exception, match="net.onnx.data"):
        onnx_runner(paths[0])


# torch.export.


@pytest.mark.parametrize("name", ["any psi", "odd", "conditional discriminator"])
def test_program_computes_what_pytorch_computes(tmp_path, name):
    before = ops_mode()
    part, path = PARTS[name](), tmp_path / "net.pt2"
    assert save_torch_export(part, path, metadata={"kimg": "1"}) < TOLERANCE
    assert ops_mode() == before
    extra = {"metadata.json": ""}
    program = torch.export.load(path, extra_files=extra)
    assert json.loads(extra["metadata.json"]) == {"kimg": "1"}
    targets = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert targets and not [target for target in targets if "ggdr" in target]
    with zipfile.ZipFile(path) as file:
        stored = b"".join(file.read(name) for name in file.namelist() if "weight" not in name)
    assert str(ROOT).encode() not in stored and b"generator.py" not in stored


def test_difference_counts_what_is_not_finite_and_is_relative_to_large_values():
    part = generator_part(tiny_generator(), "mapping")
    part = replace(part, module=Scaled(part.module, 1000.0))
    with torch.no_grad():
        top = [part.module(**part.example(n, rng)).abs().max() for rng in [seeded()] for n in part.cases]
        off = largest_difference(part, lambda inputs: part.module(**inputs) + 1)
    assert off == pytest.approx(float(max(1 / x for x in top)), rel=1e-3) and min(top) > 10
    assert largest_difference(part, lambda inputs: part.module(**inputs) * float("nan")) == float("inf")
    with pytest.raises(export_formats.ExportError, match="for 1 images"):
        largest_difference(part, lambda inputs: part.module(**inputs)[:, :1])


class Scaled(torch.nn.Module):
    def __init__(self, module, factor):
        super().__init__()
        self.module, self.factor = module, factor

    def forward(self, **inputs):
        return self.module(**inputs) * self.factor


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def test_program_of_a_fixed_batch_is_traced_as_before():
    # The groups' matrix is for batches of unknown size only.
    D, img = tiny_discriminator(), torch.randn(8, 3, 8, 8)
    program = torch.export.export(D, (img,), strict=False)
    assert not any("remainder" in str(node.target) for node in program.graph.nodes)
    assert any("remainder" in str(node.target) for node in trace(discriminator_part(D)).graph.nodes)
