# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""A domain that is added to a trained ComboGAN, and one that is taken away."""

from __future__ import annotations

import pytest
import torch

from ggdr.translation.combogan_domains import add_domain, remove_domain
from tests.translation.hosts import assert_equal, pairs, run_steps, weights
from tests.translation.test_combogan import batch_of, make_networks, make_task, owner


def images_of(G, numbers=(0, 1, 2)):
    """What each domain's images become in each other."""
    with torch.no_grad():
        return torch.stack([G(pairs(1)["A"], a, b) for a in numbers for b in numbers])


@pytest.mark.parametrize("shared", [(0, 0), (1, 1)])
def test_an_added_domain_leaves_the_others_as_they_were(shared):
    G, D = make_networks(shared=shared)
    before = images_of(G)
    larger, judges = add_domain(G, D, torch.Generator().manual_seed(1))
    assert larger.config.domains == 4 and judges[:3] == D and len(judges) == 4
    torch.testing.assert_close(images_of(larger), before)
    new, first = larger.decoders[3].state_dict(), larger.decoders[0].state_dict()
    assert not torch.equal(new["model.0.conv_block.1.weight"], first["model.0.conv_block.1.weight"])
    assert 0.01 < new["model.0.conv_block.1.weight"].std() < 0.03


def test_an_added_domain_is_trained_while_the_others_stay_bit_for_bit():
    networks = add_domain(*make_networks(), torch.Generator().manual_seed(1))
    task = make_task(networks=networks, frozen=range(3), pool=2)
    before = weights(task)
    for step in range(3):
        run_steps(task, step, 1, lambda seed, a=step: batch_of(a, 3, seed=seed))
    after = weights(task)
    changed = [name for name in after if not torch.equal(after[name], before[name])]
    assert {owner(name) for name in changed} == {3}
    assert {"G.encoders.3", "G.decoders.3", "D_3"} <= {name.split(".model")[0] for name in changed}


@pytest.mark.parametrize("domain", [0, 1, 2])
def test_a_domain_taken_away_leaves_the_others_as_they_were(domain):
    G, D = make_networks(shared=(1, 1))
    left = [i for i in range(3) if i != domain]
    smaller, judges = remove_domain(G, D, domain)
    assert smaller.config.domains == 2 and judges == [D[i] for i in left]
    torch.testing.assert_close(images_of(smaller, (0, 1)), images_of(G, left), rtol=1e-4, atol=1e-5)
    # Without the planes' part, biases before instance norms would not tell.
    conv, was = (net.shared_encoder.model[0].conv_block[1] for net in (smaller, G))
    code = torch.randn(1, 16, 5, 5)
    planes = torch.tensor([1.0 if i == left[0] else -1.0 for i in range(3)]).reshape(1, 3, 1, 1).expand(1, 3, 5, 5)
    expected = was(torch.cat([code, planes], dim=1))
    torch.testing.assert_close(conv(torch.cat([code, planes[:, left]], dim=1)), expected, rtol=1e-4, atol=1e-5)


def test_a_domain_added_and_taken_away_leaves_the_same_weights():
    G, D = make_networks()
    back, judges = remove_domain(*add_domain(G, D, torch.Generator()), 3)
    assert_equal(back.state_dict(), G.state_dict())
    assert judges == D


def test_domains_that_cannot_be_taken_away_are_named():
    G, D = make_networks()
    with pytest.raises(ValueError, match="domain: expected one of 0 to 2, got 3"):
        remove_domain(G, D, 3)
    with pytest.raises(ValueError, match="domains must be a whole number from 2"):
        remove_domain(*remove_domain(G, D, 0), 0)
