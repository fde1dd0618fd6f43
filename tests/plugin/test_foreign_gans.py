# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""GGDR attaches to GANs of other people: they learn what it asks for, and nothing else of them changes."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from torch import nn

from ggdr import GGDR, suggest
from tests.foreign_gans import GANS, SNGAN, ProjectedGAN, Trainer, digits

parametrized = partial(SNGAN, nn.utils.parametrizations.spectral_norm)
every_gan = pytest.mark.parametrize("make", [*GANS.values(), parametrized], ids=[*GANS, "SNGAN with parametrizations"])


def distances(make, weight, steps=40):
    """The cosine distance at the first step, and its mean over the last eight, of a training from seed 0."""
    torch.manual_seed(0)
    gan = make()
    ggdr = GGDR(gan.G, gan.D, probe=gan.probe, weight=weight)
    trainer = Trainer(gan, digits(gan.shape), ggdr)
    history = [trainer.step() for _ in range(steps)]
    return history[0], sum(history[-8:]) / 8


def hooks(gan):
    return [len(module._forward_hooks) for net in (gan.G, gan.D) for module in net.modules()]


@every_gan
def test_distance_falls_as_the_decoder_learns_and_falls_further_as_d_learns(make):
    first, guided = distances(make, weight=10)
    same_first, probed = distances(make, weight=0)
    assert abs(first - same_first) < 1e-3
    # The probe leaves D alone: without a gradient to the decoder it stays at 0.9 to 1 of the first.
    assert probed < 0.87 * first
    # Without a gradient to D, GGDR would come no further than the probe.
    assert guided < 0.7 * first and guided < 0.88 * probed


@every_gan
def test_generator_gets_no_gradient_and_the_trained_part_of_d_does(make):
    gan = make()
    ggdr = GGDR(gan.G, gan.D, probe=gan.probe)
    real, label = (x[:4] for x in digits(gan.shape))
    _, penalty = gan.d_loss(real, label, ggdr)
    assert penalty.shape == (4,)
    penalty.mean().backward()
    assert all(p.grad is None for p in gan.G.parameters())
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in ggdr.parameters())
    reached = [name for name, p in gan.D.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0]
    assert len(reached) >= 2
    assert all(p.grad is None for p in gan.D.parameters() if not p.requires_grad)


@every_gan
def test_without_watch_the_networks_are_what_they_were(make):
    torch.manual_seed(0)
    attached, alone = (gan := make()), copy.deepcopy(gan)
    before = hooks(attached)
    ggdr = GGDR(attached.G, attached.D, probe=attached.probe)
    assert attached.D.state_dict().keys() == alone.D.state_dict().keys()
    assert hooks(attached) == before
    with ggdr.watch():
        assert sum(hooks(attached)) == sum(before) + len(ggdr.guides) + len(ggdr.encoder)
    assert hooks(attached) == before
    real, label = (x[:4] for x in digits(attached.shape))
    losses = []
    for one in (attached, alone):
        torch.manual_seed(1)
        loss, _ = one.d_loss(real, label, None)
        loss.backward()
        losses.append(loss)
    assert torch.equal(*losses)
    for (name, p), q in zip(attached.D.named_parameters(), alone.D.parameters(), strict=True):
        assert (p.grad is None and q.grad is None) or torch.equal(p.grad, q.grad), name


@every_gan
def test_suggested_layers_are_feature_maps_that_the_decoder_can_join(make):
    gan = make()
    choice = suggest(gan.G, gan.D, gan.probe)
    side = {c.name: c for c in choice.discriminator}
    guide = next(c for c in choice.generator if c.name == choice.guide)
    # A quarter of the image's side, or 8 pixels.
    aim = max(gan.shape[1] / 4, 8)
    assert 0.7 <= guide.height / aim <= 1.5 and guide.channels >= 8
    for name in choice.encoder:
        assert side[name].area < guide.area
        assert side[name].channels > 1 and "parametrizations" not in name
    assert f'guide="{choice.guide}"' in str(choice) and all(name in str(choice) for name in choice.encoder)
    GGDR(gan.G, gan.D, guide=choice.guide, encoder=choice.encoder, probe=gan.probe)


def test_suggestion_for_a_projected_discriminator_lies_in_what_is_trained():
    gan = ProjectedGAN()
    choice = suggest(gan.G, gan.D, gan.probe)
    assert choice.encoder and all(name.startswith("heads.") for name in choice.encoder)
