# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The seam between a host and its regularisers."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch

from ggdr.torch_utils.regularizers import Reals, Regularizers


class Random:
    """A regulariser on fakes that draws a number for each of them."""

    quantity, gain = "number", 2.0

    def __init__(self, name: str = "random") -> None:
        self.name = name

    def watch(self):
        return nullcontext()

    def draw(self, n, *, generator):
        return {"at": torch.rand(n, generator=generator)}

    def penalty(self, feats, warp=None, *, fakes=None, draws):
        return self.gain * draws["at"]


class Brightness:
    """A regulariser on reals."""

    name, quantity, gain, of_reals = "bright", "mean", 1.0, "img"

    def watch(self):
        return nullcontext()

    def penalty(self, feats, known, warp=None, *, reals=None):
        return warp(known).mean(dim=[1, 2, 3])


def test_what_regularisers_draw_leaves_the_host_generator_where_it_is():
    regularizers, rng = Regularizers([Random("a"), Random("b"), Brightness()]), torch.Generator().manual_seed(3)
    before = rng.get_state()
    first, again = regularizers.draw(4, rng), regularizers.draw(4, rng)
    assert torch.equal(rng.get_state(), before) and first.keys() == {"a", "b"}
    assert torch.equal(first["a"]["at"], again["a"]["at"]) and not torch.equal(first["a"]["at"], first["b"]["at"])
    following = torch.rand(4, generator=rng)
    assert not torch.equal(first["a"]["at"], following)
    assert not torch.equal(regularizers.draw(4, rng)["a"]["at"], first["a"]["at"])  # another step of the host


def test_each_gets_what_it_asks_for():
    regularizers = Regularizers([Random(), Brightness()])
    img = torch.arange(2.0).reshape(2, 1, 1, 1)
    with regularizers.watch() as feats:
        pass
    out = regularizers.penalties(
        feats, reals=Reals({"img": img}, warp=lambda x: x + 1), draws={"random": {"at": torch.tensor([3.0, 4])}}
    )
    assert out.losses["random"].tolist() == [6, 8] and out.losses["bright"].tolist() == [1, 2]
    assert out.observed["random/number"].tolist() == [3, 4]


def test_a_host_without_reals_is_named():
    with pytest.raises(ValueError, match="'bright' looks at real images, and this host shows it none"):
        Regularizers([Brightness()]).penalties({"bright": None})
