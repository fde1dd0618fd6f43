# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Metric names: what they ask for, and that nothing else is taken for one."""

from __future__ import annotations

import pytest

from ggdr.metrics.names import parse_metric, parse_metrics


@pytest.mark.parametrize(
    ("name", "kind", "detector", "num"),
    [
        ("fid50k_full", "fid", "inception", 50_000),
        ("fid12.8k_full", "fid", "inception", 12_800),
        ("kid10k_full", "kid", "inception", 10_000),
        ("fidinf50k_full", "fidinf", "inception", 50_000),
        ("intra_fid50k_full", "intra_fid", "inception", 50_000),
        ("is50k", "is", "inception", 50_000),
        ("pr50k3_full", "pr", "vgg16", 50_000),
        ("dc50k5_full", "dc", "vgg16", 50_000),
        ("pr_inception50k3_full", "pr", "inception", 50_000),
        ("fd_offline5k_full", "fid", "offline", 5000),
        ("kd_custom5k_full", "kid", "custom", 5000),
        ("intra_fd_offline5k_full", "intra_fid", "offline", 5000),
        ("pr_offline0.1k3_full", "pr", "offline", 100),
        ("ppl2_wend", "ppl", "lpips", 50_000),
        ("ppl2_zfull1k", "ppl", "lpips", 1000),
    ],
)
def test_a_name_says_kind_detector_and_number_and_is_said_again(name, kind, detector, num):
    spec = parse_metric(name)
    assert (spec.kind, spec.detector, spec.num, spec.name) == (kind, detector, num, name)


def test_numbers_of_neighbours_are_the_usual_ones_unless_named():
    assert parse_metric("pr50k_full").neighbours == 3
    assert parse_metric("dc50k_full").neighbours == 5
    assert parse_metric("pr50k7_full").name == "pr50k7_full"
    assert parse_metric("fid50k_full").neighbours == 0


def test_paths_are_named_by_space_and_sampling():
    spec = parse_metric("ppl2_zfull")
    assert (spec.space, spec.sampling, spec.needs_reals) == ("z", "full", False)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fid50k", "did you mean 'fid50k_full'"),
        ("is50k_full", "did you mean 'is50k'"),
        ("fid50k3_full", "did you mean 'fid50k_full'"),
        ("fd50k_full", "is no metric; did you mean 'fid50k_full'"),
        ("fid_offline50k_full", "is no metric; did you mean 'fd_offline50k_full'"),
        ("fd_offline50k_ful", "is no metric; did you mean 'fd_offline50k_full'"),
        ("fd_ofline12.8k_full", "is no metric; did you mean 'fd_offline12.8k_full'"),
        ("fd_offline500_full", "is no metric; did you mean 'fd_offline0.5k_full'"),
        ("fid10000_full", "is no metric; did you mean 'fid10k_full'"),
        ("FID50k_full", "is no metric; did you mean 'fid50k_full'"),
        ("precision", "is no metric; expected names such as fid50k_full"),
        ("is_offline50k", "is no metric"),
        ("ppl2_wed", "is no metric; did you mean 'ppl2_wend'"),
        ("fd_offline1..2k_ful", "is no metric"),
        ("fid0k_full", "at least 2 images, got 0"),
        ("pr50k0_full", "at least 1 neighbour"),
        ("", "is no metric"),
        (f"fid{'9' * 400}k_full", "is no metric"),
        (f"pr50k{'9' * 5000}_full", "is no metric"),
        ("fid1.2345k_full", "is no metric"),
    ],
)
def test_what_is_no_metric_is_refused_with_what_may_be_meant(name, message):
    with pytest.raises(ValueError, match=message):
        parse_metric(name)


@pytest.mark.parametrize(
    ("name", "kind", "detector", "num"),
    [
        ("psnr", "psnr", "pairs", 0),
        ("psnr0.5k", "psnr", "pairs", 500),
        ("ssim", "ssim", "ssim", 0),
        ("mae2k", "mae", "pairs", 2000),
        ("lpips", "lpips", "lpips_pairs", 0),
        ("cycle_mae", "mae", "cycle", 0),
        ("cycle_psnr1k", "psnr", "cycle", 1000),
        ("colourfulness", "colourfulness", "colour", 0),
        ("colourfulness_gap1k_full", "colourfulness_gap", "colour", 1000),
    ],
)
def test_means_over_images_need_no_number(name, kind, detector, num):
    spec = parse_metric(name)
    assert (spec.kind, spec.detector, spec.num, spec.name) == (kind, detector, num, name)
    assert spec.of_all(70).num == (num or 70) and spec.of_all(70).name == name
    assert spec.with_num(70).name == f"{spec.front}0.07k{'_full' if spec.needs_reals else ''}"
    assert spec.needs_reals == (kind == "colourfulness_gap")
    assert spec.higher_is_better == (kind in ("psnr", "ssim", "colourfulness"))


@pytest.mark.parametrize(
    ("name", "meant"),
    [("psnrr", "psnr"), ("PSNR", "psnr"), ("sim", "ssim"), ("psnr1k_full", "psnr1k"), ("l1", "mae"),
     ("cycle_l1", "cycle_mae"), ("cycle_psn", "cycle_psnr"), ("colorfulness", "colourfulness")],
)  # fmt: skip
def test_a_metric_of_single_images_that_is_misspelt_is_met_with_the_nearest(name, meant):
    with pytest.raises(ValueError, match=f"is no metric; did you mean '{meant}'"):
        parse_metric(name)


def test_another_number_of_fakes_shows_in_the_name():
    # 12,800 fakes must not be called FID50k.
    assert parse_metric("fid50k_full").with_num(12_800).name == "fid12.8k_full"
    assert parse_metric("ppl2_wend").with_num(100).name == "ppl2_wend0.1k"


def test_lists_name_each_metric_once_in_order():
    assert [s.name for s in parse_metrics("is50k, fid50k_full,is50k")] == ["is50k", "fid50k_full"]
    with pytest.raises(ValueError, match="no metric in ' , '"):
        parse_metrics(" , ")


def test_direction_of_better():
    better = {name: parse_metric(name).higher_is_better for name in ("fid50k_full", "kid50k_full", "ppl2_wend")}
    assert not any(better.values())
    assert all(parse_metric(name).higher_is_better for name in ("is50k", "pr50k3_full", "dc50k5_full"))
