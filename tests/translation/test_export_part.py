# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Exported translators compute what the networks compute, for images of any size and several at once."""

from __future__ import annotations

import pytest
import torch

from ggdr.torch_utils.export_formats import TOLERANCE, largest_difference, onnx_runner, save_onnx, save_torch_export
from ggdr.translation.config import ComboGANGeneratorConfig, ResnetGeneratorConfig, UnetGeneratorConfig
from ggdr.translation.export_part import translator_part
from ggdr.translation.layers import image_statistics
from ggdr.translation.networks import build_network
from ggdr.translation.translator import ComboGANTranslator, CycleGANTranslator, Pix2PixTranslator
from tests.export_cases import needs_onnx

# Smaller than, of, and larger than what can be halved; odd; of a pixel or two; and not square.
SIZES = [(1, 64, 64), (2, 2, 1), (1, 33, 95), (3, 7, 130), (2, 128, 31), (1, 100, 3)]


def network(config):
    """Random weights, of norms too."""
    torch.manual_seed(3)
    net = build_network(config).eval().requires_grad_(False)
    for name, value in net.named_parameters():
        if value.ndim == 1 and name.endswith("weight"):
            value.uniform_(0.5, 1.5)
    return net


def pix2pix(config):
    return Pix2PixTranslator(network(config)), "input", "output"


TRANSLATORS = {
    "resnet": lambda: pix2pix(ResnetGeneratorConfig(3, 1, 3, 1)),
    "resnet with batch norms": lambda: pix2pix(ResnetGeneratorConfig(1, 3, 3, 1, "batch", True)),
    "unet": lambda: pix2pix(UnetGeneratorConfig(3, 3, 2, 5)),
    "unet with instance norms": lambda: pix2pix(UnetGeneratorConfig(3, 2, 2, 6, "instance", False)),
    "cyclegan": lambda: (
        CycleGANTranslator(*(network(ResnetGeneratorConfig(*c, 3, 0)) for c in ((3, 1), (1, 3)))),
        "B",
        "A",
    ),
    "combogan": lambda: (ComboGANTranslator(network(ComboGANGeneratorConfig(3, 2, 1, 1, 1, 1, 3))), "2", "0"),
}


@pytest.fixture(scope="module", params=TRANSLATORS)
def case(request):
    """A translator, source and target, and their part."""
    translator, source, target = TRANSLATORS[request.param]()
    return translator, source, target, translator_part(translator, source, target)


def expected_of(case, img):
    """The translator's images without dropout."""
    translator, source, target, _ = case
    G = translator.generator(source)
    if isinstance(translator, ComboGANTranslator):
        return G(img, translator.domains.index(source), translator.domains.index(target))
    with image_statistics(G):
        return G(img)


def images(case, size):
    n, height, width = size
    channels = case[0].channels(case[1], case[2])[0]
    return torch.rand([n, channels, height, width], generator=torch.Generator().manual_seed(4)) * 2 - 1


# A norm of a single pixel is rounding alone: equal here, but not from one implementation to another.
@pytest.mark.parametrize("size", [*SIZES, (2, 1, 1)])
def test_a_part_is_the_network_without_dropout(case, size):
    img = images(case, size)
    expected = expected_of(case, img)
    assert torch.equal(case[3].module(img), expected)
    assert expected.shape == (size[0], case[0].channels(case[1], case[2])[1], *size[1:])


@needs_onnx
def test_onnx_takes_all_sizes(case, tmp_path):
    import onnx

    part = case[3]
    save_onnx(part, tmp_path / "net.onnx", metadata={"from": "a"})
    run = onnx_runner(tmp_path / "net.onnx")
    assert largest_difference(part, run) < TOLERANCE
    for size in SIZES:
        img = images(case, size)
        assert torch.allclose(run({"img": img}), expected_of(case, img), atol=TOLERANCE), size
    graph = onnx.load(tmp_path / "net.onnx").graph
    for value in (graph.input[0], graph.output[0]):
        sizes = [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        assert sizes[0] == "N" and sizes[2:] == ["H", "W"]
    held = sum(torch.Size(tensor.dims).numel() for tensor in graph.initializer)
    used = sum(p.numel() for p in part.module.parameters())
    assert used <= held < 1.5 * used  # and what norms without parameters have there


def test_a_program_takes_all_sizes(case, tmp_path):
    part = case[3]
    assert save_torch_export(part, tmp_path / "net.pt2") < TOLERANCE
    module = torch.export.load(tmp_path / "net.pt2").module()
    for size in SIZES:
        img = images(case, size)
        assert torch.allclose(module(img), expected_of(case, img), atol=1e-5), size


def test_only_the_networks_of_the_direction_are_in_it():
    translator, *_ = TRANSLATORS["combogan"]()
    part = translator_part(translator, "2", "0")
    G = translator.G
    taken = [G.encoders[2], G.decoders[0], G.shared_encoder, G.shared_decoder]
    assert sum(p.numel() for p in part.module.parameters()) == sum(p.numel() for net in taken for p in net.parameters())


def test_the_translator_stays_as_it_was():
    translator, source, target = TRANSLATORS["resnet with batch norms"]()
    translator_part(translator, source, target)
    assert not any(getattr(layer, "alone", False) for layer in translator.G.modules())


def test_directions_that_are_not_there_are_refused():
    translator, *_ = TRANSLATORS["cyclegan"]()
    for direction in (("A", "A"), ("C", "A"), ("A", "C")):
        with pytest.raises(ValueError, match="expected domains that the networks translate between"):
            translator_part(translator, *direction)
