# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Clusters of feature vectors, on maps whose segments are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score

import ggdr.clusters
from ggdr.clusters import (
    choose_number,
    continue_clusters,
    fit_clusters,
    match_appearance,
    match_overlap,
    mutual_information,
    overlap,
)
from ggdr.label_images import MOST_LABELS, label_colors, label_image, overlay, palette


def planted(
    num: int, n: int = 6, size: int = 16, channels: int = 24, *, noise: float = 0.05, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Feature maps [n, channels, size, size] made of `num` segments, and the segments [n, size, size]."""
    rng = torch.Generator().manual_seed(seed)
    directions = torch.randn([num, channels], generator=rng)
    # Rectangles of random place: segments of unequal size.
    labels = torch.zeros([n, size, size], dtype=torch.int64)
    for image in labels:
        for label in range(1, num):
            y, x = torch.randint(size - size // 4, [2], generator=rng).tolist()
            image[y : y + size // 4, x : x + size // 4] = label
    feats = directions[labels] + noise * torch.randn([n, size, size, channels], generator=rng)
    return feats.permute(0, 3, 1, 2).contiguous(), labels


def agreement(a: torch.Tensor, b: torch.Tensor) -> float:
    return adjusted_rand_score(a.flatten(), b.flatten())


@pytest.mark.parametrize("spherical", [True, False])
@pytest.mark.parametrize("size", [8, 16, 48])
def test_planted_segments_are_found_exactly(spherical, size):
    feats, labels = planted(5, size=size)
    if size == 48:
        assert labels.numel() > ggdr.clusters.MINI_BATCH_FROM
    assert agreement(fit_clusters(feats, 5, spherical=spherical).labels(feats), labels) == 1


def test_segments_are_found_on_more_vectors_than_are_sampled(monkeypatch):
    monkeypatch.setattr(ggdr.clusters, "SAMPLE", 500)
    feats, labels = planted(5, size=32)
    assert agreement(fit_clusters(feats, 5).labels(feats), labels) == 1


def test_cosine_ignores_the_length_of_vectors_and_euclidean_does_not():
    feats, labels = planted(3)
    lengths = 10 ** torch.empty([6, 1, 16, 16]).uniform_(-2, 2, generator=torch.Generator().manual_seed(1))
    assert agreement(fit_clusters(feats * lengths, 3).labels(feats), labels) == 1
    # One direction, three lengths.
    feats = (labels + 1.0)[:, None] * torch.ones([1, 4, 1, 1])
    assert agreement(fit_clusters(feats, 3, spherical=False).labels(feats), labels) == 1


def test_clusters_are_numbered_by_size():
    feats, labels = planted(4)
    sizes = fit_clusters(feats, 4).labels(feats).flatten().bincount()
    assert sizes.tolist() == sorted(labels.flatten().bincount().tolist(), reverse=True)


@pytest.mark.parametrize("spherical", [True, False])
def test_centres_are_the_means_of_their_members(spherical):
    feats = torch.randn([3, 6, 12, 12], generator=torch.Generator().manual_seed(0))
    clusters = fit_clusters(feats, 4, spherical=spherical)
    vectors = feats.permute(0, 2, 3, 1).reshape(-1, 6)
    if spherical:
        vectors = torch.nn.functional.normalize(vectors, dim=1)
    labels = clusters.labels(feats).flatten()
    for number, center in enumerate(clusters.centers):
        mean = vectors[labels == number].mean(dim=0)
        mean = torch.nn.functional.normalize(mean, dim=0) if spherical else mean
        assert torch.allclose(center, mean, atol=0.02)


def test_chunks_half_precision_and_seed_leave_the_labels_as_they_are(monkeypatch):
    feats, _ = planted(4, noise=0.3)
    expected = fit_clusters(feats, 4, seed=3).labels(feats)
    state = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    assert torch.equal(fit_clusters(feats, 4, seed=3).labels(feats), expected)
    assert torch.equal(torch.random.get_rng_state(), state[0]) and (np.random.get_state()[1] == state[1]).all()
    assert agreement(fit_clusters(feats.half(), 4, seed=3).labels(feats.half()), expected) > 0.99
    monkeypatch.setattr(ggdr.clusters, "CHUNK_NUMBERS", feats[0].numel())
    assert torch.equal(fit_clusters(feats, 4, seed=3).labels(feats), expected)


@pytest.mark.parametrize("spherical", [True, False])
def test_clusters_go_on_from_the_labels_that_they_are_given_under_their_numbers(spherical):
    feats, labels = planted(5)
    numbers = torch.tensor([7, 0, 3, 9, 4])[labels]
    # A third of the labels wrong.
    wrong = torch.rand(labels.shape, generator=torch.Generator().manual_seed(1)) < 0.33
    start = torch.where(wrong, numbers.flip(0), numbers)
    clusters = continue_clusters(feats, start, spherical=spherical)
    assert torch.equal(clusters.labels(feats), numbers)


def test_a_cluster_that_dies_out_is_an_error():
    feats = torch.ones(1, 3, 4, 4)
    with pytest.raises(ValueError, match="1 groups of different vectors, got 2"):
        continue_clusters(feats, torch.arange(16).view(1, 4, 4) % 2)


def test_labels_of_other_maps_come_from_the_same_centres():
    feats, labels = planted(4)
    clusters = fit_clusters(feats[:3], 4)
    assert agreement(clusters.labels(feats[3:]), labels[3:]) == 1
    assert agreement(clusters.labels(feats), labels) == 1


@pytest.mark.parametrize("num", [2, 4, 7])
def test_silhouette_finds_the_planted_number(num):
    scores = choose_number(planted(num)[0])
    assert max(scores, key=scores.get) == num
    assert set(scores) == set(range(2, 11)) and all(-1 <= score <= 1 for score in scores.values())


@pytest.mark.parametrize(
    ("feats", "num", "message"),
    [
        (torch.ones(2, 3, 4), 2, r"\[N, C, H, W\]"),
        (torch.ones(2, 3, 4, 4, dtype=torch.int64), 2, "floats"),
        (torch.full((2, 3, 4, 4), torch.nan), 2, "NaN"),
        (torch.randn(1, 3, 2, 2), 5, "1 to 4 clusters.*got 5"),
        (torch.randn(1, 3, 2, 2), 0, "got 0"),
        (torch.ones(2, 3, 4, 4), 2, "1 groups of different vectors, got 2 clusters"),
    ],
)
def test_what_cannot_be_clustered_is_refused(feats, num, message):
    with pytest.raises(ValueError, match=message):
        fit_clusters(feats, num)


def test_constant_features_have_no_best_number():
    with pytest.raises(ValueError, match="different vectors"):
        choose_number(torch.ones(2, 3, 8, 8))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_finds_the_same_segments():
    feats, labels = planted(5)
    clusters = fit_clusters(feats.cuda(), 5)
    assert agreement(clusters.labels(feats.cuda()).cpu(), labels) == 1
    assert torch.equal(clusters.labels(feats.cuda()).cpu(), clusters.labels(feats))


# Colours that mean the same.


def test_matching_undoes_a_permutation():
    labels = planted(6)[1]
    mapping = torch.tensor([3, 5, 0, 1, 4, 2])
    assert torch.equal(match_overlap(mapping[labels], labels)[mapping[labels]], labels)


def test_matching_maximises_the_overlap_of_all_not_of_each():
    # Label 0 overlaps most with 0, and so does label 1, more so: 0 has to step back.
    others = torch.tensor([[[0] * 10 + [1] * 3 + [0] * 20]])
    labels = torch.tensor([[[0] * 13 + [1] * 20]])
    assert match_overlap(labels, others).tolist() == [1, 0]
    assert overlap(labels, others).tolist() == [[10, 3], [20, 0]]


def test_labels_without_partner_get_free_numbers():
    labels, others = torch.tensor([[[0, 1, 2, 3]]]), torch.tensor([[[0, 0, 2, 2]]])
    mapping = match_overlap(labels, others)
    assert len(set(mapping.tolist())) == 4
    assert {mapping[0].item(), mapping[1].item()} & {0} and {mapping[2].item(), mapping[3].item()} & {2}
    assert max(mapping.tolist()) == 3


def test_a_label_that_no_pixel_has_is_matched_too():
    labels = torch.tensor([[[0, 0, 1, 1]]])
    assert sorted(match_overlap(labels, labels, num=4).tolist()) == [0, 1, 2, 3]
    img = torch.zeros(1, 3, 1, 4)
    assert sorted(match_appearance(labels, img, labels, img, num=4).tolist()) == [0, 1, 2, 3]


def test_maps_of_two_sizes_are_matched_at_the_larger():
    coarse = planted(4, size=8)[1]
    fine = coarse.repeat_interleave(2, 1).repeat_interleave(2, 2)
    mapping = torch.tensor([2, 0, 3, 1])
    assert torch.equal(match_overlap(mapping[fine], coarse)[mapping[fine]], fine)
    assert mutual_information(mapping[fine], coarse) == pytest.approx(1)


def test_clusters_of_other_images_are_matched_by_colour_and_place():
    rng = torch.Generator().manual_seed(0)
    colors = torch.tensor([[-0.9, -0.9, -0.9], [0.9, 0.9, 0.9], [0.9, -0.9, 0.0], [0.9, -0.9, 0.0]])

    def scene(height: int) -> torch.Tensor:
        """Bright above, dark below, and two red squares: one at the top, one at the bottom."""
        labels = torch.zeros([1, 16, 16], dtype=torch.int64)
        labels[:, :height] = 1
        labels[:, 1:4, 7:10], labels[:, 12:15, 7:10] = 2, 3
        return labels

    first, second = scene(6), scene(9)
    images = [
        colors[labels].permute(0, 3, 1, 2) + 0.1 * torch.randn(1, 3, 16, 16, generator=rng)
        for labels in (first, second)
    ]
    mapping = torch.tensor([3, 2, 1, 0])
    found = match_appearance(mapping[second], images[1], first, images[0])
    assert torch.equal(found[mapping[second]], second)


def test_mutual_information_is_one_for_other_names_and_nothing_for_noise():
    labels = planted(5)[1]
    assert mutual_information(labels, 4 - labels) == pytest.approx(1)
    noise = torch.randint(5, labels.shape, generator=torch.Generator().manual_seed(0))
    assert mutual_information(labels, noise) < 0.02
    with pytest.raises(ValueError, match="same images"):
        mutual_information(labels, labels[:2])


# Pictures.


def test_colours_do_not_depend_on_how_many_there_are_and_all_differ():
    colors = palette(MOST_LABELS)
    assert len(np.unique(colors, axis=0)) == MOST_LABELS
    assert (palette(5) == colors[:5]).all()
    with pytest.raises(ValueError, match=f"0 to {MOST_LABELS}"):
        palette(MOST_LABELS + 1)


def test_an_indexed_image_holds_the_labels_and_shows_their_colours():
    labels = planted(5)[1][0]
    image = label_image(labels, size=(64, 32))
    assert image.mode == "P" and image.size == (64, 32)
    assert (np.asarray(image)[::2, ::4] == labels.numpy()).all()
    assert (np.asarray(image.convert("RGB"))[::2, ::4] == label_colors(labels)).all()


def test_an_overlay_shows_colours_over_the_grey_image():
    image = np.full((4, 4, 3), 100, np.uint8)
    labels = torch.tensor([[0, 1], [0, 1]])
    found = overlay(image, labels, opacity=0.5)
    assert (found[0, 0] == ((palette(1)[0].astype(int) + 100) / 2).round()).all()
    assert (found[0, 3] != found[0, 0]).any() and (found[3, :2] == found[0, 0]).all()
    assert (overlay(image[..., :1], labels, opacity=0) == 100).all()
