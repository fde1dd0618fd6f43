# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Agreement of maps of classes: known counts, ignored pixels, permuted clusters."""

from __future__ import annotations

import math

import pytest
import torch

from ggdr.metrics.segmentation import (
    adjusted_mutual_information,
    adjusted_rand_index,
    assign_clusters,
    assigned_iou,
    class_accuracy,
    confusion,
    iou_table,
    mean_iou,
    pixel_accuracy,
)
from ggdr.torch_utils.data.label_maps import IGNORED

LABELS = torch.tensor([[[0, 0, 0, 0], [0, 0, 1, 255]]], dtype=torch.uint8)
FOUND = torch.tensor([[[0, 0, 0, 1], [1, 1, 1, 0]]])


def test_rows_are_classes_columns_are_names_and_ignored_pixels_do_not_count():
    assert confusion(LABELS, FOUND, 2).tolist() == [[3, 3], [0, 1]]
    assert confusion(LABELS, FOUND, 3, 4).shape == (3, 4)


def test_values_of_a_small_matrix_are_those_by_hand():
    counts = confusion(LABELS, FOUND, 2)
    assert mean_iou(counts) == pytest.approx((3 / 6 + 1 / 4) / 2)
    assert pixel_accuracy(counts) == pytest.approx(4 / 7)
    assert class_accuracy(counts) == pytest.approx((3 / 6 + 1 / 1) / 2)


def test_agrees_with_scikit_learn():
    from sklearn.metrics import accuracy_score, balanced_accuracy_score, jaccard_score

    rng = torch.Generator().manual_seed(0)
    labels, found = (torch.randint(0, 5, [3, 8, 8], generator=rng) for _ in range(2))
    counts, flat = confusion(labels, found, 5), (labels.flatten().numpy(), found.flatten().numpy())
    assert mean_iou(counts) == pytest.approx(jaccard_score(*flat, average="macro"))
    assert pixel_accuracy(counts) == pytest.approx(accuracy_score(*flat))
    assert class_accuracy(counts) == pytest.approx(balanced_accuracy_score(*flat))


def test_a_class_that_occurs_nowhere_is_no_part_of_the_means():
    counts = torch.tensor([[4, 0, 0], [0, 0, 0], [1, 0, 3]])
    assert mean_iou(counts) == pytest.approx((4 / 5 + 3 / 4) / 2)
    assert class_accuracy(counts) == pytest.approx((1 + 3 / 4) / 2)


def test_a_name_that_is_given_to_a_class_that_labels_lack_costs():
    assert mean_iou(torch.tensor([[4, 0], [0, 0]])) == 1
    assert mean_iou(torch.tensor([[3, 1], [0, 0]])) == pytest.approx(3 / 8)


def test_names_of_clusters_do_not_matter_to_the_assigned_mean():
    rng = torch.Generator().manual_seed(1)
    labels = torch.randint(0, 4, [2, 8, 8], generator=rng)
    found = torch.where(torch.rand(labels.shape, generator=rng) < 0.8, labels, 3 - labels)
    straight = confusion(labels, found, 4)
    shuffled = confusion(labels, torch.tensor([2, 0, 3, 1])[found], 4)
    assert assigned_iou(straight) == pytest.approx(mean_iou(straight))
    assert assigned_iou(shuffled) == pytest.approx(mean_iou(straight))


def test_too_few_clusters_leave_classes_at_zero_and_too_many_cost_their_pixels():
    assert assigned_iou(torch.tensor([[4], [4]])) == pytest.approx(0.5 / 2)
    assert assigned_iou(torch.tensor([[2, 2, 0], [0, 0, 4]])) == pytest.approx((0.5 + 1) / 2)


def test_one_cluster_counts_for_one_class_alone():
    # Cluster 0 would be the best of both classes.
    assert assigned_iou(torch.tensor([[8, 0], [4, 1]])) == pytest.approx((8 / 12 + 1 / 5) / 2)


def test_clusters_get_classes_that_occur_and_none_where_these_are_taken():
    counts = torch.tensor([[1, 8, 0, 0], [0, 0, 0, 0], [6, 1, 2, 0]])
    assert assign_clusters(counts).tolist() == [2, 0, IGNORED, IGNORED]
    assert assigned_iou(counts) == pytest.approx((8 / 10 + 6 / 10) / 2)


@pytest.mark.parametrize(
    "num_clusters", [pytest.param(3, id="fewer"), pytest.param(5, id="as many"), pytest.param(9, id="more")]
)
def test_adjusted_scores_agree_with_scikit_learn(num_clusters):
    from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score

    rng = torch.Generator().manual_seed(num_clusters)
    labels = torch.randint(0, 5, [2, 12, 12], generator=rng)
    noise = torch.randint(0, num_clusters, labels.shape, generator=rng)
    found = torch.where(torch.rand(labels.shape, generator=rng) < 0.6, labels % num_clusters, noise)
    counts, flat = confusion(labels, found, 5, num_clusters), (labels.flatten().numpy(), found.flatten().numpy())
    assert adjusted_rand_index(counts) == pytest.approx(adjusted_rand_score(*flat), abs=1e-12)
    assert adjusted_mutual_information(counts) == pytest.approx(adjusted_mutual_info_score(*flat), abs=1e-9)


def test_adjusted_scores_are_one_for_other_names_and_about_nothing_for_chance():
    labels, found = (torch.randint(0, 4, [4, 64, 64], generator=torch.Generator().manual_seed(i)) for i in range(2))
    same, chance = confusion(labels, 3 - labels, 4), confusion(labels, found, 4)
    assert adjusted_rand_index(same) == pytest.approx(1) and adjusted_mutual_information(same) == pytest.approx(1)
    assert abs(adjusted_rand_index(chance)) < 1e-3 and abs(adjusted_mutual_information(chance)) < 1e-3


def test_one_cluster_of_everything_says_nothing_and_is_right_about_one_class():
    for score in (adjusted_rand_index, adjusted_mutual_information):
        assert score(torch.tensor([[5], [7]])) == pytest.approx(0)
        assert score(torch.tensor([[5, 7]])) == pytest.approx(0)
        assert score(torch.tensor([[12, 0], [0, 0]])) == 1


def test_nothing_to_judge_gives_nan():
    nothing = torch.zeros([2, 2], dtype=torch.int64)
    assert all(math.isnan(value) for value in (mean_iou(nothing), pixel_accuracy(nothing), assigned_iou(nothing)))
    assert math.isnan(adjusted_rand_index(nothing)) and math.isnan(adjusted_mutual_information(nothing))
    assert assign_clusters(nothing).tolist() == [IGNORED, IGNORED]
    assert iou_table(nothing).isnan().all()


@pytest.mark.parametrize(
    ("labels", "found", "says"),
    [
        pytest.param([[[0, 1]]], [[[0]]], "differ in shape", id="shapes"),
        pytest.param([[[0, 2]]], [[[0, 1]]], "label maps hold 0 to 2, expected 0 to 1", id="label"),
        pytest.param([[[0, 1]]], [[[0, -1]]], "maps hold -1 to 0, expected 0 to 1", id="name"),
    ],
)
def test_maps_that_do_not_fit_are_refused(labels, found, says):
    with pytest.raises(ValueError, match=says):
        confusion(torch.tensor(labels), torch.tensor(found), 2)
