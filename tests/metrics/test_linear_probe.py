# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The linear probe: separable features, scikit-learn's optimum, label maps larger than features."""

from __future__ import annotations

import pytest
import torch

from ggdr.metrics.linear_probe import fit_linear_probe
from ggdr.torch_utils.data.label_maps import IGNORED


def codes(labels: torch.Tensor, noise: float = 0.0) -> torch.Tensor:
    """Features [N, 6, H, W] that are a code of the label, and noise."""
    rng = torch.Generator().manual_seed(0)
    table = torch.randn([int(labels.max()) + 1, 6], generator=rng)
    feats = table[labels].permute(0, 3, 1, 2)
    return feats + noise * torch.randn(feats.shape, generator=rng)


def random_labels(classes: int, size: int = 8, num: int = 4) -> torch.Tensor:
    return torch.randint(classes, [num, size, size], generator=torch.Generator().manual_seed(1))


def test_classes_that_features_separate_are_found_in_other_images():
    labels = random_labels(5)
    feats = 100 + 1e-3 * codes(labels, noise=0.05)  # of whatever size and middle
    probe = fit_linear_probe(feats[:2], labels[:2].to(torch.uint8), 5)
    found = probe.labels(feats[2:])
    assert found.shape == (2, 8, 8) and (found == labels[2:]).float().mean() > 0.97


def test_noise_is_no_better_than_the_largest_class():
    labels = (random_labels(10) > 7).long()
    feats = torch.randn([4, 6, 8, 8], generator=torch.Generator().manual_seed(2))
    assert (fit_linear_probe(feats[:2], labels[:2], 2).labels(feats[2:]) == 0).float().mean() > 0.9


def test_the_optimum_is_that_of_scikit_learn():
    from sklearn.linear_model import LogisticRegression

    labels = random_labels(3)
    feats = codes(labels, noise=1.5)
    vectors = feats.permute(0, 2, 3, 1).reshape(-1, 6)
    theirs = LogisticRegression(tol=1e-8, max_iter=1000).fit(
        ((vectors - vectors.mean(0)) / vectors.std(0, correction=0)).numpy(), labels.flatten().numpy()
    )
    probe = fit_linear_probe(feats, labels, 3)
    assert torch.allclose(probe.weight.T, torch.from_numpy(theirs.coef_).float(), atol=2e-3)


def test_labels_of_larger_maps_count_as_if_features_were_enlarged():
    labels = random_labels(3, size=16)
    labels[:, :4] = IGNORED
    feats = torch.randn([4, 6, 8, 8], generator=torch.Generator().manual_seed(2))
    feats[:, :, :2] *= 0.01  # rows without a class, so that they would show
    large = feats.repeat_interleave(2, 2).repeat_interleave(2, 3)
    small, enlarged = fit_linear_probe(feats, labels, 3), fit_linear_probe(large, labels, 3)
    # The penalty weighs less against four times as many vectors.
    assert torch.allclose(small.weight, enlarged.weight, atol=2e-3) and small.weight.abs().max() > 0.05
    assert (small.labels(feats) == enlarged.labels(large)[:, ::2, ::2]).float().mean() > 0.98


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        pytest.param(torch.zeros(2, 12, 8), "no multiple of features", id="size"),
        pytest.param(torch.zeros(1, 8, 8), "no multiple of features", id="number"),
        pytest.param(torch.full([2, 8, 8], IGNORED), "no pixel of the label maps has a class", id="no class"),
    ],
)
def test_label_maps_that_do_not_fit_are_refused(labels, says):
    with pytest.raises(ValueError, match=says):
        fit_linear_probe(torch.zeros(2, 3, 8, 8), labels, 2)
