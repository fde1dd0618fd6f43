# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The decoder on feature maps of every size and shape."""

from __future__ import annotations

import pytest
import torch

from ggdr import FeatureDecoder


def maps(shapes: dict, n: int = 2) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {name: torch.randn(n, *shape) for name, shape in shapes.items()}


@pytest.mark.parametrize(
    ("encoder", "guide", "layers"),
    [
        ([(4, 4), (8, 8)], (16, 16), ["b8_dec", "b16_dec"]),
        ([(4, 4)], (16, 16), ["b8_dec", "b16_dec"]),
        ([(3, 3), (7, 7), (14, 14)], (28, 28), ["b7_dec", "b14_dec", "b28_dec"]),
        ([(5, 7), (10, 14)], (20, 28), ["b10x14_dec", "b20x28_dec"]),
        ([(4, 4)], (6, 6), ["b6_dec"]),
        ([(4, 4)], (5, 16), ["b5x8_dec", "b5x16_dec"]),
        ([(1, 1), (2, 2)], (3, 5), ["b2_dec", "b3x5_dec"]),
        ([(8, 8), (12, 12), (16, 16), (24, 24), (32, 32)], (24, 24), ["b12_dec", "b16_dec", "b24_dec"]),
    ],
)
def test_every_size_is_reached_level_by_level(encoder, guide, layers):
    shapes = {f"e{h}x{w}": (3 + h, h, w) for h, w in encoder}
    decoder = FeatureDecoder(shapes, {"g": (4, *guide)})
    assert list(decoder._modules) == layers
    assert all(h * w < guide[0] * guide[1] for _, h, w in (shapes[name] for name in decoder.encoder_names))
    feats = maps(shapes)
    for feat in feats.values():
        feat.requires_grad_()
    pred = decoder({name: feats[name] for name in decoder.encoder_names})["g"]
    assert pred.shape == (2, 4, *guide)
    pred.square().sum().backward()
    for name in decoder.encoder_names:
        assert feats[name].grad.abs().sum() > 0, f"{name} is not used"


def test_a_constant_map_stays_constant_away_from_the_edges():
    decoder = FeatureDecoder({"e": (1, 5, 5)}, {"g": (1, 7, 7)})
    with torch.no_grad():
        decoder.b7_dec.weight.fill_(1)
    pred = decoder({"e": torch.ones(1, 1, 5, 5)})["g"]
    torch.testing.assert_close(pred[:, :, 2:-2, 2:-2], torch.ones(1, 1, 3, 3))


def test_resizing_keeps_places():
    # A bright spot at a relative place of the encoder map is at that place of the prediction.
    decoder = FeatureDecoder({"e": (1, 6, 9)}, {"g": (1, 10, 15)})
    with torch.no_grad():
        decoder.b10x15_dec.weight.fill_(1)
    x = torch.zeros(1, 1, 6, 9)
    x[0, 0, 1, 7] = 1  # centre at (1.5, 7.5) of 6 x 9
    peak = decoder({"e": x})["g"][0, 0].flatten().argmax().item()
    assert abs(peak // 15 + 0.5 - 1.5 * 10 / 6) <= 0.5 and abs(peak % 15 + 0.5 - 7.5 * 15 / 9) <= 0.5


def test_crops_give_guides_of_proportional_size():
    shapes = {"e4": (3, 4, 4), "e8": (5, 8, 8)}
    decoder = FeatureDecoder(shapes, {"g": (2, 16, 16)})
    small = maps({"e4": (3, 3, 2), "e8": (5, 6, 4)})
    assert decoder(small)["g"].shape == (2, 2, 12, 8)


def test_several_guides_are_predicted_on_the_way_up():
    shapes = {"e4": (3, 4, 4), "e8": (5, 8, 8)}
    decoder = FeatureDecoder(shapes, {"low": (6, 8, 8), "high": (2, 12, 12)})
    assert decoder.encoder_names == ["e4", "e8"]
    pred = decoder(maps(shapes))
    assert pred["low"].shape == (2, 6, 8, 8) and pred["high"].shape == (2, 2, 12, 12)


@pytest.mark.parametrize(("small", "large", "levels"), [(31, 64, 1), (7, 16, 1), (6, 16, 2), (15, 60, 2), (15, 58, 2)])
def test_no_level_is_spent_on_what_is_left_of_a_doubling(small, large, levels):
    decoder = FeatureDecoder({"e": (3, small, small)}, {"g": (2, large, large)})
    assert len(decoder.levels) == levels and decoder.levels[0].size[0] in (2 * small, large)
    assert decoder(maps({"e": (3, small, small)}))["g"].shape == (2, 2, large, large)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_it_computes_in_float32_whatever_its_parameters_were_turned_into(dtype):
    decoder = FeatureDecoder({"e": (3, 4, 4)}, {"g": (2, 7, 7)})
    feats = maps({"e": (3, 4, 4)})
    decoder.b7_dec.weight.data = decoder.b7_dec.weight.data.bfloat16().float()
    expected = decoder(feats)["g"]
    pred = decoder.to(dtype)(feats)["g"]
    assert pred.dtype == torch.float32
    torch.testing.assert_close(pred, expected)


def test_what_upsampling_keeps_follows_the_filter_and_serves_training():
    decoder, feats = FeatureDecoder({"b4": (3, 4, 4)}, {"b8": (3, 8, 8)}), {"b4": torch.randn(1, 3, 4, 4)}
    with torch.inference_mode():
        before = decoder(feats)["b8"].clone()
    pred = decoder(feats)["b8"]
    pred.sum().backward()  # what was made in inference mode could not be kept for this
    assert torch.equal(pred, before)
    state = decoder.state_dict()
    decoder.load_state_dict(state | {"b8_dec.resample_filter": 2 * state["b8_dec.resample_filter"]})
    torch.testing.assert_close(decoder(feats)["b8"], 4 * pred)


def test_what_cannot_be_joined_is_said():
    with pytest.raises(ValueError, match="guide 'g' of 64x64 is out of reach: .* 'e8', is 8x8, .* up to 4 times"):
        FeatureDecoder({"e4": (3, 4, 4), "e8": (3, 8, 8), "e64": (3, 64, 64)}, {"g": (2, 64, 64)})
    with pytest.raises(ValueError, match="guide 'g' is 4x4, and the smallest map of the discriminator, 'e8', is 8x8"):
        FeatureDecoder({"e8": (3, 8, 8)}, {"g": (2, 4, 4)})
    with pytest.raises(ValueError, match="'a' of 8x4 and 'b' of 6x12 do not see the same picture"):
        FeatureDecoder({"a": (3, 8, 4), "b": (3, 6, 12)}, {"g": (2, 16, 16)})
    with pytest.raises(ValueError, match="need at least one encoder map and one guide"):
        FeatureDecoder({}, {"g": (2, 16, 16)})
    with pytest.raises(ValueError, match="guides 'g' and 'h' are both 8x8"):
        FeatureDecoder({"e4": (3, 4, 4)}, {"g": (2, 8, 8), "h": (3, 8, 8)})
