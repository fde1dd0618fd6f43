# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What is drawn for a batch of augmentations, how often each transform applies, and the settings."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from ggdr.stylegan2.augment.pipe import PIPES, AugmentConfig, AugmentPipe, Draws
from tests.augment_cases import COLOR, GEOMETRY, SINGLE, make_pipe, make_rng

# Draws.


def test_slices_of_a_draw_are_the_draws_of_the_slice():
    pipe = make_pipe("bgcfnc", p=0.7)
    img = torch.randn(8, 3, 16, 16, dtype=torch.float64, generator=make_rng())
    draws = pipe.draw(8, generator=make_rng(1))
    whole = pipe.augmentation(draws, img.shape[1:])(img)
    for rank in range(2):
        for part in range(2):
            sliced = draws[rank::2][part::2]
            assert len(sliced) == 2
            out = pipe.augmentation(sliced, img.shape[1:])(img[rank::2][part::2])
            torch.testing.assert_close(out, whole[rank::2][part::2], atol=1e-10, rtol=0)
    with pytest.raises(TypeError, match="by slice"):
        draws[0]


def test_draws_in_turn_give_each_part_what_its_own_draws_do():
    pipe, img = make_pipe("bgcfnc", p=0.7), torch.randn(6, 3, 16, 16, dtype=torch.float64, generator=make_rng())
    parts = [pipe.draw(3, generator=make_rng(seed)) for seed in (1, 2)]
    joint = pipe.augmentation(Draws.in_turn(*parts), img.shape[1:])
    whole, feat = joint(img), img[:, :2, ::2, ::2]
    for i, draws in enumerate(parts):
        own, share = pipe.augmentation(draws, img.shape[1:]), slice(i, None, 2)
        for aug in (own, joint[share]):
            torch.testing.assert_close(aug(img[share]), whole[share], atol=1e-10, rtol=0)
            torch.testing.assert_close(aug.warp(feat[share]), joint.warp(feat)[share], atol=1e-10, rtol=0)


def test_draws_depend_on_the_generator_alone():
    def flat(draws: Draws) -> Tensor:
        return torch.from_numpy(np.concatenate([draws.values, draws.accept, draws.noise_seed[None]]))

    torch.manual_seed(0)
    untouched = torch.get_rng_state()
    reference = flat(make_pipe("bgc", p=0.1).draw(4, generator=make_rng(5)))
    assert torch.equal(flat(make_pipe("cutout", p=0.9).draw(4, generator=make_rng(5))), reference)
    assert not torch.equal(flat(make_pipe("bgc").draw(4, generator=make_rng(6))), reference)
    assert torch.equal(torch.get_rng_state(), untouched)
    img = torch.randn(4, 3, 16, 16, generator=make_rng())
    first, second = (make_pipe("bgcfnc").sample(img, make_rng(7))(img) for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("name", SINGLE)
def test_transform_applies_to_the_share_p_of_images(name):
    n, p = 400, 0.5
    changing = {
        "xflip": p / 2,  # half of the flips and a quarter of the turns are none
        "lumaflip": p / 2,
        "rotate90": p * 3 / 4,
        "xint": p * 3 / 4,  # translations of up to one pixel, rounded: half of them to none, along each axis
        "imgfilter": 1 - (1 - p) ** 4,  # four bands
    }
    img = torch.rand(n, 3, 8, 8, generator=make_rng())
    changed = (make_pipe(name, p).sample(img, make_rng(1))(img) - img).abs().amax(dim=(1, 2, 3)) > 1e-4
    expected = changing.get(name, p)
    assert abs(changed.float().mean().item() - expected) < 4 * math.sqrt(expected * (1 - expected) / n)


def test_strength_multiplies_p_up_to_certainty():
    img = torch.rand(400, 3, 8, 8, generator=make_rng())
    for strength, share in ((0.5, 0.25), (4.0, 1.0)):
        aug = AugmentPipe(AugmentConfig(brightness=strength, rotate=strength), p=0.5).sample(img, make_rng(1))
        moved = (aug.warp(img) - img).abs().amax(dim=(1, 2, 3)) > 1e-4
        assert abs(moved.float().mean().item() - share) < 0.08


# Settings.


@pytest.mark.parametrize("name", PIPES)
def test_config_survives_json(name):
    config = PIPES[name]
    assert AugmentConfig(**json.loads(json.dumps(dataclasses.asdict(config)))) == config


def test_pipes_are_the_published_combinations():
    active = {
        name: {transform for transform in SINGLE if getattr(config, transform) > 0} for name, config in PIPES.items()
    }
    assert active["blit"] == {"xflip", "rotate90", "xint"}
    assert active["geom"] == {"scale", "rotate", "aniso", "xfrac"}
    assert active["bg"] == set(GEOMETRY)
    assert active["bgc"] == {*GEOMETRY, *COLOR}
    assert active["bgcf"] == active["bgc"] | {"imgfilter"}
    assert active["bgcfn"] == active["bgcf"] | {"noise"}
    assert active["bgcfnc"] == set(SINGLE)


def test_wrong_settings_are_named():
    with pytest.raises(ValueError, match=r"p must be in \[0, 1\], got 21.8"):
        AugmentPipe(PIPES["bgc"], p=21.8)
    pipe = make_pipe("bgc", p=0.5)
    with pytest.raises(ValueError, match=r"p must be in \[0, 1\], got nan"):
        pipe.p = math.nan
    assert pipe.p == 0.5
    with pytest.raises(ValueError, match="hue must not be negative, got -1"):
        AugmentConfig(hue=-1)
    with pytest.raises(ValueError, match="imgfilter_bands must have 4 entries"):
        AugmentConfig(imgfilter_bands=(1.0, 1.0))
    with pytest.raises(ValueError, match=r"percentile must be in \(0, 1\), got 1.0"):
        pipe.draw(1, percentile=1.0)


def test_wrong_shapes_are_named():
    aug = make_pipe("bgc").sample(torch.zeros(2, 3, 16, 16), make_rng())
    with pytest.raises(ValueError, match=r"expected images \(2, 3, 16, 16\), got \(2, 3, 8, 8\)"):
        aug(torch.zeros(2, 3, 8, 8))
    with pytest.raises(ValueError, match=r"expected features \[2, C, h, w\], got \(4, 3, 8, 8\)"):
        aug.warp(torch.zeros(4, 3, 8, 8))
