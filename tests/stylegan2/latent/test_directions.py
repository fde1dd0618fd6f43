# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Directions in W: planted ones are found, and what is found is what it claims to be."""

from __future__ import annotations

from dataclasses import replace

import pytest
import safetensors.torch
import torch

from ggdr.stylegan2.config import GeneratorConfig
from ggdr.stylegan2.generator import Generator
from ggdr.stylegan2.latent.sampling import latents_of_seeds, map_latents
from ggdr.stylegan2.latent.w_directions import (
    FORMAT,
    find_directions,
    load_directions,
    max_directions,
    move,
    save_directions,
    style_affines,
    style_weights,
    top_eigenvectors,
)
from ggdr.stylegan2.layers import FullyConnectedLayer
from ggdr.torch_utils.checkpoint import SnapshotError
from tests.tiny import tiny_generator

METHODS = ["sefa", "pca"]


def unit(*numbers: float) -> torch.Tensor:
    x = torch.tensor(numbers, dtype=torch.float32)
    return x / x.norm()


PLANTED = unit(1, -3, 0.5, 2, 1)


def plant(G: Generator, direction: torch.Tensor, layers: list[int]) -> None:
    """Lets the styles of some layers follow w along one direction more than along others."""
    for layer in layers:
        for affine in style_affines(G.synthesis, layer):
            affine.weight += 10 * torch.outer(torch.randn(len(affine.weight)), direction)


# What is found.


def test_sefa_finds_the_direction_that_styles_follow_most():
    G = tiny_generator()
    plant(G, PLANTED, [0, 1, 2, 3])
    found = find_directions(G, "sefa", range(4), num=2, num_samples=100)
    # The component of largest magnitude, here the second, is positive.
    assert found.vectors[0] @ -PLANTED > 0.99
    assert found.share[0] > 0.9 > 0.1 > found.share[1] > 0


def test_sefa_looks_at_the_layers_it_is_told():
    G = tiny_generator()
    other = unit(3, 0, 1, 0, -1)
    plant(G, PLANTED, [0])
    plant(G, other, [2])
    assert find_directions(G, "sefa", [0], num=1, num_samples=100).vectors[0] @ -PLANTED > 0.99
    assert find_directions(G, "sefa", [2], num=1, num_samples=100).vectors[0] @ other > 0.99


def test_the_first_direction_of_sefa_changes_the_styles_most():
    G = tiny_generator(res=16)
    layers = [1, 3]
    found = find_directions(G, "sefa", layers, num=5, num_samples=100)
    affines = [affine for layer in layers for affine in style_affines(G.synthesis, layer)]

    def change(n: torch.Tensor) -> float:
        return float(sum((affine(n[None]) - affine(0 * n[None])).square().sum() for affine in affines))

    changes = torch.tensor([change(n) for n in found.vectors])
    assert (changes.diff() <= 0).all()
    torch.testing.assert_close(changes / changes.sum(), found.share)
    for seed in range(20):
        n = torch.randn(5, generator=torch.Generator().manual_seed(seed))
        assert change(n / n.norm()) <= changes[0]


@pytest.mark.parametrize("architecture", ["orig", "skip", "resnet"])
def test_the_affines_of_a_layer_are_those_that_read_its_w(architecture):
    torch.manual_seed(0)
    config = GeneratorConfig(32, w_dim=5, z_dim=5, architecture=architecture, channel_base=64)
    synthesis = Generator(config).eval().synthesis
    affines = {name: m for name, m in synthesis.named_modules() if isinstance(m, FullyConnectedLayer)}
    for layer in range(synthesis.num_ws):
        ws = torch.zeros(1, synthesis.num_ws, 5)
        ws[:, layer] = 1
        synthesis(ws, noise_mode="none").square().sum().backward()
        # The gradient of a matrix is an outer product with the w that it read.
        reading = {name for name, module in affines.items() if module.weight.grad.any()}
        assert {name for name, m in affines.items() if m in style_affines(synthesis, layer)} == reading
        assert reading
        synthesis.zero_grad()


def test_style_weights_are_the_slope_of_the_affine_layers():
    G = tiny_generator()
    (affine,) = style_affines(G.synthesis, 0)
    A = style_weights(G.synthesis, [0]).float()
    w = torch.randn(3, 5)
    torch.testing.assert_close(affine(w) - affine(0 * w), w @ A.t())


def test_pca_finds_the_axis_along_which_w_varies():
    G = tiny_generator()
    fc = G.mapping.fc0
    # A bias far above keeps the leaky ReLU linear.
    fc.weight.copy_((0.1 * torch.randn(5, 6) + torch.outer(PLANTED, torch.randn(6))) / fc.weight_gain)
    fc.bias.fill_(100 / fc.bias_gain)
    found = find_directions(G, "pca", [0], num=5, num_samples=2000)
    assert found.vectors[0] @ -PLANTED > 0.99
    assert found.share[0] > 0.8
    torch.testing.assert_close(found.share.sum(), torch.tensor(1.0))


@pytest.mark.parametrize("method", METHODS)
def test_directions_are_orthonormal_with_fixed_signs(method):
    found = find_directions(tiny_generator(), method, range(4), num=5, num_samples=300)
    torch.testing.assert_close(found.vectors @ found.vectors.t(), torch.eye(5), atol=1e-5, rtol=0)
    assert (found.vectors.gather(1, found.vectors.abs().argmax(1, keepdim=True)) > 0).all()
    assert (found.share.diff() <= 0).all()


@pytest.mark.parametrize("method", METHODS)
def test_std_is_that_of_w_along_the_direction(method):
    G = tiny_generator()
    found = find_directions(G, method, range(4), num=5, num_samples=20000)
    w = map_latents(G, latents_of_seeds(range(5000), G.z_dim))[:, 0]
    torch.testing.assert_close((w @ found.vectors.t()).std(0), found.std, rtol=0.05, atol=0)


@pytest.mark.parametrize("method", METHODS)
def test_fewer_directions_are_the_first_of_many_and_runs_agree(method):
    G = tiny_generator()
    many, few = (find_directions(G, method, [0, 1], num=num, num_samples=300) for num in (5, 2))
    assert torch.equal(many.vectors[:2], few.vectors) and torch.equal(many.std[:2], few.std)


def test_signs_do_not_depend_on_those_of_the_solver(monkeypatch):
    matrix = torch.randn(4, 4, dtype=torch.float64)
    matrix = matrix @ matrix.t()
    vectors, values = top_eigenvectors(matrix, 4)
    torch.testing.assert_close(vectors @ matrix, values[:, None] * vectors)
    eigh = torch.linalg.eigh
    monkeypatch.setattr(torch.linalg, "eigh", lambda m: (eigh(m)[0], -eigh(m)[1]))
    torch.testing.assert_close(top_eigenvectors(matrix, 4)[0], vectors)


def test_no_more_directions_than_the_weights_or_samples_span():
    G = tiny_generator()
    rows = len(style_weights(G.synthesis, [3]))
    assert rows == 4 < G.w_dim == 5
    assert max_directions(G, "sefa", [3], num_samples=100) == 4
    assert max_directions(G, "sefa", [2, 3], num_samples=100) == 5
    assert max_directions(G, "pca", [3], num_samples=100) == 5
    assert max_directions(G, "pca", [3], num_samples=3) == 2
    with pytest.raises(ValueError, match="expected 1 to 4 directions, got 5"):
        find_directions(G, "sefa", [3], num=5)
    with pytest.raises(ValueError, match="got 'ica'"):
        find_directions(G, "ica", [3], num=1)


# What is done with it.


def test_moving_adds_multiples_to_the_layers_named_and_no_others():
    ws = torch.randn(2, 4, 5)
    before = ws.clone()
    moved = move(ws, PLANTED, torch.tensor([-2.0, 0.0, 1.0]), (1, 3))
    assert moved.shape == (2, 3, 4, 5)
    assert torch.equal(moved[:, 1], ws) and torch.equal(moved[:, :, [0, 2]], ws[:, None, [0, 2]].expand(-1, 3, -1, -1))
    torch.testing.assert_close(moved[:, 0, [1, 3]], ws[:, [1, 3]] - 2 * PLANTED)
    torch.testing.assert_close(moved[:, 2, [1, 3]], ws[:, [1, 3]] + PLANTED)
    assert torch.equal(ws, before)


def test_a_file_gives_back_what_it_was_given(tmp_path):
    found = find_directions(tiny_generator(), "pca", [0, 2], num=3, num_samples=100)
    path = tmp_path / "directions.safetensors"
    save_directions(path, found)
    again = load_directions(path)
    assert (again.method, again.layers) == ("pca", (0, 2))
    for name in ("vectors", "std", "share"):
        assert torch.equal(getattr(again, name), getattr(found, name))
    # Anyone can read it.
    tensors = safetensors.torch.load_file(path)
    assert torch.equal(tensors["directions"], found.vectors) and tensors["layers"].tolist() == [0, 2]
    save_directions(path, replace(found, vectors=found.vectors[:1]))
    assert len(load_directions(path).vectors) == 1


SOUND = {"directions": torch.zeros(1, 2)} | {name: torch.zeros(1) for name in ("std", "share", "layers")}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        safetensors.torch.save({"directions": torch.zeros(2, 2)}),
        safetensors.torch.save(SOUND | {"layers": torch.tensor(0)}, {"format": FORMAT, "method": "pca"}),
        safetensors.torch.save(SOUND | {"std": torch.zeros(0)}, {"format": FORMAT, "method": "pca"}),
        safetensors.torch.save(SOUND, {"format": FORMAT}),
    ],
    ids=["empty", "text", "other tensors", "no list", "other shapes", "no method"],
)
def test_files_that_hold_something_else_are_named(tmp_path, data):
    path = tmp_path / "other.safetensors"
    path.write_bytes(data)
    with pytest.raises(SnapshotError, match="other.safetensors"):
        load_directions(path)
