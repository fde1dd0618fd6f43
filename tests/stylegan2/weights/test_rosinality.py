# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Imported checkpoints of rosinality's layout, against networks written out from the papers' equations."""

from __future__ import annotations

import argparse

import pytest
import torch

from ggdr.scripts.importing.read_foreign import read_foreign
from ggdr.stylegan2 import Discriminator, Generator
from ggdr.stylegan2.weights.common import ForeignNetworkError, ImportedNetworks
from tests import rosinality_networks as theirs
from tests.fuzzing import run_bounded
from tests.reference_vectors import assert_agrees

CHANNELS = {4: 8, 8: 8, 16: 6}  # min(96 // res, 8)


def checkpoint(**changes) -> dict:
    """What such a training writes; without entries that are None."""
    torch.manual_seed(0)
    G = theirs.Generator(CHANNELS).eval()
    D = theirs.Discriminator(CHANNELS).eval()
    content = {
        "g": G.state_dict(),
        "d": D.state_dict(),
        "g_ema": G.state_dict(),
        "latent_avg": torch.randn(6),
        "args": argparse.Namespace(size=16, lr_mlp=0.01),
        "ada_aug_p": 0.25,
    }
    return {key: value for key, value in {**content, **changes}.items() if value is not None}


@pytest.fixture
def read(tmp_path):
    """Reads a checkpoint from a file in either format of torch."""

    def read_checkpoint(content: dict, *, zipped: bool = True) -> ImportedNetworks:
        torch.save(content, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
        return read_foreign(tmp_path / "x.pt")

    return read_checkpoint


def ours(result: ImportedNetworks) -> tuple[Generator, Discriminator]:
    G, D = Generator(result.G).eval(), Discriminator(result.D).eval()
    G.load_state_dict(result.networks["G_ema"])
    D.load_state_dict(result.networks["D"])
    return G, D


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("psi", [1.0, 0.6])
@torch.no_grad()
def test_imported_weights_give_the_same_images_and_logits(read, psi, zipped):
    content = checkpoint()
    their_G, their_D = theirs.Generator(CHANNELS), theirs.Discriminator(CHANNELS)
    their_G.load_state_dict(content["g_ema"])
    their_D.load_state_dict(content["d"])
    G, D = ours(read(content, zipped=zipped))
    z = torch.randn(4, 6)
    expected = their_G(z, psi=psi, latent_avg=content["latent_avg"])
    assert_agrees(G(z, truncation_psi=psi, noise_mode="const"), expected, "images")
    img = torch.randn(4, 3, 16, 16)
    assert_agrees(D(img), their_D(img), "logits")


def test_settings_are_those_of_the_weights(read):
    result = read(checkpoint())
    G, D = result.G, result.D
    assert (G.img_resolution, G.z_dim, G.w_dim, G.mapping_num_layers) == (16, 6, 6, 3)
    assert [G.channels(res) for res in CHANNELS] == [D.channels(res) for res in CHANNELS] == [8, 8, 6]
    assert (G.architecture, D.architecture, D.mbstd_group_size, D.mbstd_num_channels) == ("skip", "resnet", 4, 1)
    assert set(result.networks) == {"G", "D", "G_ema"} and result.facts == {"augment_p": 0.25}


@torch.no_grad()
def test_learning_rate_of_the_mapping_is_taken_from_the_options(read):
    content = checkpoint(args=argparse.Namespace(lr_mlp=0.5))
    their_G = theirs.Generator(CHANNELS, lr=0.5)
    their_G.load_state_dict(content["g_ema"])
    G, _ = ours(read(content))
    assert G.config.mapping_lr_multiplier == 0.5
    z = torch.randn(2, 6)
    assert_agrees(G(z, noise_mode="const"), their_G(z), "images")


@torch.no_grad()
def test_without_latent_avg_the_mean_w_is_computed(read):
    content = checkpoint(latent_avg=None)
    result = read(content)
    their_G = theirs.Generator(CHANNELS)
    their_G.load_state_dict(content["g_ema"])
    expected = their_G.style(torch.randn(20_000, 6)).mean(dim=0)
    torch.testing.assert_close(result.networks["G_ema"]["mapping.w_avg"], expected, atol=0.05, rtol=0)
    assert expected.abs().max() > 0.2  # so that zeros would not do
    assert any("latent_avg" in note for note in result.notes)


def test_the_averaged_generator_alone_is_enough(read):
    result = read(checkpoint(g=None, d=None, args=None, ada_aug_p=None))
    assert set(result.networks) == {"G_ema"} and result.D is None


def test_names_of_data_parallel_and_old_shapes_of_biases_are_understood(read):
    content = checkpoint()
    old = {f"module.{k}": v.reshape(1, -1, 1, 1) if "activate.bias" in k else v for k, v in content["g_ema"].items()}
    new, result = read(content), read(checkpoint(g_ema=old))
    for name, value in new.networks["G_ema"].items():
        torch.testing.assert_close(result.networks["G_ema"][name], value)


def test_files_without_constant_noise_get_some(read):
    content = checkpoint()
    state = {k: v for k, v in content["g_ema"].items() if not k.startswith("noises.")}
    noise = read(checkpoint(g_ema=state)).networks["G_ema"]["synthesis.b16.conv1.noise_const"]
    assert noise.shape == (16, 16) and 0.5 < noise.std() < 1.5


def test_a_small_file_of_a_huge_network_takes_no_memory(tmp_path):
    layers = ["conv1", *(f"convs.{i}" for i in range(22))]
    rgbs = ["to_rgb1", *(f"to_rgbs.{i}" for i in range(11))]
    state = {f"{name}.conv.weight": torch.ones(1, 1, 1, 3, 3) for name in layers}
    state |= {f"{name}.conv.weight": torch.ones(1, 3, 1, 1, 1) for name in rgbs}
    torch.save({"g_ema": {**state, "style.1.weight": torch.ones(2, 2)}}, tmp_path / "x.pt")
    assert (tmp_path / "x.pt").stat().st_size < 40_000
    found = run_bounded(READ, tmp_path / "x.pt", megabytes=100)  # its noise is 700 MB
    assert "missing: synthesis.b4.const" in found


READ = """
    import sys
    from pathlib import Path
    from ggdr.scripts.importing.read_foreign import ForeignNetworkError, read_foreign
    # bounded
    try:
        read_foreign(Path(sys.argv[1]))
    except ForeignNetworkError as error:
        print(error)
"""


@pytest.mark.parametrize(
    ("key", "change", "message"),
    [
        ("g_ema", {"convs.0.conv.blur.kernel": torch.ones(4, 4) / 4}, "another filter"),
        ("g_ema", {"convs.0.conv.weight": torch.ones(1, 8, 7, 3, 3)}, r"\[8, 7, 3, 3\] instead of \[8, 8, 3, 3\]"),
        ("g_ema", {"noises.noise_0": torch.ones(0, 0, 4, 4)}, r"noise_const \[0, 0, 4, 4\] instead of \[4, 4\]"),
        ("d", {"convs.0.0.weight": torch.ones(6, 1, 1, 1)}, "G and D differ in img_channels: 3 and 1"),
        ("g_ema", {"convs.0.attention.weight": torch.ones(3)}, "convs.0.attention.weight"),
        ("g_ema", {"convs.99.conv.weight": torch.ones(1, 8, 8, 3, 3)}, "no StyleGAN2 network"),
        ("d", {"convs.1.conv2.1.weight": None}, "missing: b16.conv1.weight"),
        ("d", {"convs.99.conv1.1.bias": torch.ones(8)}, "d has no b8.conv0.weight"),
        ("d", {"final_linear.1.weight": torch.ones(2, 8)}, r"b4.out.weight \[2, 8\] instead of \[1, 8\]"),
    ],
)
def test_what_ours_cannot_represent_is_refused_by_name(read, key, change, message):
    content = checkpoint()
    state = {**content[key], **change}
    with pytest.raises(ForeignNetworkError, match=message):
        read({**content, key: {name: value for name, value in state.items() if value is not None}})


def test_channels_of_no_table_are_refused(read):
    G = theirs.Generator({4: 8, 8: 4, 16: 6})
    with pytest.raises(ForeignNetworkError, match="8 at 4x4, 4 at 8x8, 6 at 16x16"):
        read({"g_ema": G.state_dict()})


@pytest.mark.parametrize(
    "content", [{"state": {}}, {"g_ema": {}}, {"g_ema": {"a": 1}}, [1], {"d": {"a": torch.ones(1)}}]
)
def test_other_files_of_torch_are_refused(read, content):
    with pytest.raises(ForeignNetworkError):
        read(content)
