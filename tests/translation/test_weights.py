# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Published state dicts: what they are is found out from them alone, old and wrapped ones too, and nothing is run."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
import torch
from torch import nn

from ggdr.torch_utils.untrusted.state_dicts import ForeignNetworkError
from ggdr.translation.config import (
    ComboGANDiscriminatorConfig,
    ComboGANGeneratorConfig,
    DecoderConfig,
    EncoderConfig,
    PatchDiscriminatorConfig,
    PixelDiscriminatorConfig,
    ResnetGeneratorConfig,
    SharedConfig,
    UnetGeneratorConfig,
    config_from_json,
)
from ggdr.translation.layout_config import (
    CCFPSEDiscriminatorConfig,
    CCFPSEGeneratorConfig,
    OASISDiscriminatorConfig,
    OASISGeneratorConfig,
)
from ggdr.translation.networks import NETWORKS, build_network
from ggdr.translation.weights import read_published, recognize
from tests.pickle_cases import MARK, Calls
from tests.reference_vectors import Golden, golden_files

# Each kind of file that is published, with every setting that can differ.
PUBLISHED = [
    ResnetGeneratorConfig(3, 2, 4, 9),
    ResnetGeneratorConfig(1, 3, 5, 6, "batch", True),
    ResnetGeneratorConfig(2, 3, 4, 6, "instance", True),
    ResnetGeneratorConfig(3, 3, 4, 0, "batch"),
    UnetGeneratorConfig(3, 2, 2, 8),
    UnetGeneratorConfig(5, 3, 3, 5, "instance"),
    PatchDiscriminatorConfig(6, 4, 3),
    PatchDiscriminatorConfig(3, 5, 5, "batch"),
    PatchDiscriminatorConfig(3, 5, 1, "batch"),
    PixelDiscriminatorConfig(3, 4),
    PixelDiscriminatorConfig(6, 4, "batch"),
    EncoderConfig(3, 4, 4),
    EncoderConfig(1, 4, 0),
    DecoderConfig(3, 4, 5),
    DecoderConfig(2, 5, 0),
    SharedConfig(4, 2, 3),
    ComboGANDiscriminatorConfig(4, 4),
    ComboGANDiscriminatorConfig(3, 1),
]


def random_state(config):
    """Weights with nothing at its initial value."""
    net = build_network(config)
    for value in net.state_dict().values():
        value.copy_(torch.randint(1, 9, value.shape) if value.dtype == torch.int64 else torch.rand(value.shape))
    return {name: value.clone() for name, value in net.state_dict().items()}


def assert_is(found, config, state):
    assert found.config == config
    assert {name: value.dtype for name, value in found.weights.items()} == {n: v.dtype for n, v in state.items()}
    assert all(torch.equal(value, state[name]) for name, value in found.weights.items())
    loaded = found.build()
    assert not loaded.training and all(torch.equal(v, state[n]) for n, v in loaded.state_dict().items())


def test_all_kinds_of_networks_are_published_but_the_one_of_many_files_and_those_for_label_maps():
    layout = {OASISGeneratorConfig, OASISDiscriminatorConfig, CCFPSEGeneratorConfig, CCFPSEDiscriminatorConfig}
    assert {type(config) for config in PUBLISHED} == set(NETWORKS) - {ComboGANGeneratorConfig} - layout


@pytest.mark.parametrize("config", PUBLISHED, ids=repr)
def test_a_network_is_known_by_its_state_dict_alone(config, tmp_path):
    state = random_state(config)
    for zipped in (True, False):
        torch.save(state, tmp_path / "latest_net.pth", _use_new_zipfile_serialization=zipped)
        found = read_published(tmp_path / "latest_net.pth")
        assert_is(found, config, state)
        assert not found.notes


@pytest.mark.parametrize("path", golden_files("translation_*.npz"), ids=lambda path: path.stem)
def test_the_published_networks_of_the_reference_vectors_are_known(path):
    golden = Golden(path)
    meta = {name: value for name, value in golden.meta.items() if name != "note"}
    if "network" not in meta:
        return  # of losses
    if meta["network"] != "combogan_generator":
        found = recognize(golden.below("state")).config
        expected = config_from_json(meta)
        # What a U-Net of five levels has no place for, and what dropout leaves no trace of.
        assert found == (replace(expected, dropout=True) if isinstance(expected, UnetGeneratorConfig) else expected)
        return
    parts = {}
    for name, value in golden.below("state").items():
        part, _, rest = name.partition(".")
        parts.setdefault(part, {})[rest] = value
    k, domains, shared = meta["channels"], meta["domains"], meta["shared_blocks"]
    expected = {"encoder": EncoderConfig(3, k, 2), "decoder": DecoderConfig(3, k, 2)}
    if shared:
        expected |= {f"shared_{side}": SharedConfig(k, shared, domains) for side in ("encoder", "decoder")}
    assert {part: recognize(state).config for part, state in parts.items()} == expected


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
@pytest.mark.parametrize("config", [PUBLISHED[0], PUBLISHED[4], PUBLISHED[7], PUBLISHED[16]], ids=repr)
def test_wrapped_networks_are_known(config, prefix):
    state = random_state(config)
    assert_is(recognize({prefix + name: value for name, value in state.items()}), config, state)


OLD = [c for c in PUBLISHED if getattr(c, "norm", "instance") == "instance" and type(c) is not SharedConfig]


@pytest.mark.parametrize("config", OLD, ids=repr)
def test_running_statistics_of_old_instance_norms_are_left_out(config):
    state, old = random_state(config), {}
    for name, layer in build_network(config).named_modules():
        if isinstance(layer, nn.InstanceNorm2d):
            old |= {f"{name}.running_mean": torch.rand(layer.num_features), f"{name}.running_var": torch.rand(3)}
            old |= {f"{name}.num_batches_tracked": torch.tensor(3)}
    assert old
    found = recognize({f"module.{name}": value for name, value in (state | old).items()})
    assert_is(found, config, state)
    assert found.notes[0].startswith(f"{len(old)} running statistics of instance norms")


@pytest.mark.parametrize("config", [c for c in PUBLISHED if getattr(c, "norm", None) == "batch"], ids=repr)
def test_batch_norms_of_old_files_have_no_counts_and_get_zeros(config):
    state = random_state(config)
    counts = [name for name in state if name.endswith("num_batches_tracked")]
    assert counts
    found = recognize({name: value for name, value in state.items() if name not in counts})
    assert_is(found, config, state | {name: torch.zeros([], dtype=torch.int64) for name in counts})


def test_weights_of_half_precision_become_float32():
    config = PUBLISHED[6]
    state = {name: value.half() for name, value in random_state(config).items()}
    assert_is(recognize(state), config, {name: value.float() for name, value in state.items()})


# What is no such file.


def without(state, name):
    return {key: value for key, value in state.items() if key != name}


RESNET = random_state(ResnetGeneratorConfig(3, 3, 4, 1))
BATCH = random_state(PatchDiscriminatorConfig(3, 4, 1, "batch"))
HOSTILE = {
    "no dict": ([1, 2], "no state dict of tensors by name"),
    "other things": ({"model.1.weight": "x"}, "no state dict of tensors by name"),
    "a number for a name": ({1: torch.zeros(1)}, "names that are no text"),
    "StyleGAN2": ({"synthesis.b4.const": torch.zeros(1)}, "no network of image translation .* expected a ResNet or"),
    "a layer is missing": (without(RESNET, "model.4.weight"), "resnet_generator, but .* missing: model.4.weight"),
    "a layer too many": ({**RESNET, "attention.q": torch.zeros(1)}, "unexpected: attention.q"),
    "another shape": (
        {**RESNET, "model.4.bias": torch.zeros(5)},
        r"of another shape: model.4.bias \[5\] instead of \[8\]",
    ),
    "no numbers": ({**RESNET, "model.4.bias": torch.zeros(8, dtype=torch.int64)}, "of another type: model.4.bias"),
    "no convolution": ({**RESNET, "model.1.weight": torch.zeros(9)}, r"model.1.weight \[out, in, height, width\], got"),
    "zero padding": (
        {name.replace("model.1.", "model.0."): value for name, value in RESNET.items()},
        "patch_discriminator, but|layers must be",
    ),
    "a count of other type": (
        {**BATCH, "model.3.num_batches_tracked": torch.zeros([])},
        "instead of one of torch.int64",
    ),
    "one memory": (
        {name: torch.zeros(1).expand(value.shape) for name, value in RESNET.items()},
        "layers that share one memory",
    ),
    "no channels": ({**RESNET, "model.1.weight": torch.zeros(0, 3, 7, 7)}, "no network of ours: channels must be"),
    "a thousand levels": (
        {"model.model.0.weight": torch.zeros(4, 3, 4, 4), "model.model.3.weight": torch.zeros(8, 3, 4, 4)}
        | {"model." * 1000 + "1.weight": torch.zeros(1)},
        "no network of ours: downs must be a whole number from 5 to 12, got 999",
    ),
    "fewer classes than maps": (
        {"model.0.conv_block.1.weight": torch.zeros(8, 5, 3, 3)},
        "expected a convolution model.8.weight .*, got none",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_is_no_network_of_ours_is_refused_with_a_reason(case):
    content, message = HOSTILE[case]
    with pytest.raises(ForeignNetworkError, match=message):
        recognize(content)


def test_code_in_a_file_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({**RESNET, "x": Calls(os.mkdir, MARK)}, tmp_path / "latest_net_G.pth")
    with pytest.raises(ForeignNetworkError, match="not a readable file of tensors: .*mkdir"):
        read_published(tmp_path / "latest_net_G.pth")
    assert not (tmp_path / MARK).exists()


def test_a_damaged_file_is_refused(tmp_path):
    path = tmp_path / "latest_net_G.pth"
    torch.save(RESNET, path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ForeignNetworkError, match="^not a readable file of tensors"):
        read_published(path)
    with pytest.raises(OSError):
        read_published(tmp_path / "absent.pth")
