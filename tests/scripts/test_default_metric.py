# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What `ggdr metrics` measures where no metric is named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from ggdr.metrics.extract import MetricError
from ggdr.scripts.measuring.default_metric import default_metric
from ggdr.scripts.metrics import main
from ggdr.torch_utils.data import container
from tests.metric_cases import noise_images, write_images


@pytest.fixture
def reals(tmp_path) -> Path:
    return write_images(tmp_path / "reals.zip", noise_images(40, res=8))


def judge(monkeypatch, *, inception: bool = False, lite: bool = False) -> None:
    monkeypatch.setattr("ggdr.metrics.defaults.has_inception", lambda: inception)
    monkeypatch.setattr("ggdr.metrics.defaults.find_lite", lambda: "lite.pth" if lite else None)


@pytest.mark.parametrize(
    "at_hand, given, expected",
    [
        ({"inception": True, "lite": True}, {}, "fid0.04k_full"),
        ({"lite": True}, {}, "fd_lite0.04k_full"),
        ({}, {}, "fd_offline0.04k_full"),
        ({"lite": True}, {"inception": "x"}, "fid0.04k_full"),
        ({"inception": True}, {"lite": "x"}, "fd_lite0.04k_full"),
        ({"inception": True}, {"detector": "x"}, "fd_custom0.04k_full"),
    ],
)
def test_the_default_is_the_best_judge_at_hand_on_all_fakes(reals, monkeypatch, at_hand, given, expected):
    judge(monkeypatch, **at_hand)
    assert default_metric(given, reals, 40)[0].name == expected
    of_a_network = default_metric(given, reals, None)[0]
    assert of_a_network.num == (5000 if "lite" in expected or "offline" in expected else 50_000)


def test_without_metrics_one_line_says_which_and_why(reals, monkeypatch):
    judge(monkeypatch)
    result = CliRunner().invoke(main, ["--fakes", str(reals), "--reals", str(reals), "--json", "--device", "cpu"])
    assert list(json.loads(result.stdout)["results"]) == ["fd_offline0.04k_full"]
    assert result.stderr.startswith(
        "no --metrics given: fd_offline0.04k_full, since no network's weights are at hand; "
    )
    assert "--metrics fid50k_full downloads Inception's (96 MB)" in result.stderr


def test_without_metrics_the_fakes_are_listed_once(reals, tmp_path, monkeypatch):
    judge(monkeypatch)
    fakes = write_images(tmp_path / "fakes", noise_images(20, res=8))
    listed, walk = [], container._walk
    monkeypatch.setattr(container, "_walk", lambda root: listed.append(root) or walk(root))
    result = CliRunner().invoke(main, ["--fakes", str(fakes), "--reals", str(reals), "--json", "--device", "cpu"])
    assert list(json.loads(result.stdout)["results"]) == ["fd_offline0.02k_full"] and listed == [fakes]


def test_stored_statistics_name_the_default_judge(reals, tmp_path, monkeypatch):
    judge(monkeypatch, lite=True)
    told = {"detector": "offline", "detector_hash": "0"}
    np.savez(tmp_path / "ours.npz", mu=np.zeros(312), sigma=np.eye(312), num=np.int64(9), about=json.dumps(told))
    spec, reason = default_metric({}, tmp_path / "ours.npz", 40)
    assert spec.name == "fd_offline0.04k_full" and "is on offline features" in reason
    np.savez(tmp_path / "foreign.npz", mu=np.zeros(2048), sigma=np.eye(2048))
    monkeypatch.setattr("ggdr.scripts.measuring.default_metric.has_inception", lambda: False)
    with pytest.raises(MetricError, match="Inception's features, whose weights are not at hand; --metrics fid50k_full"):
        default_metric({}, tmp_path / "foreign.npz", 40)
    assert default_metric({"inception": "x"}, tmp_path / "foreign.npz", 40)[0].name == "fid0.04k_full"
    np.savez(tmp_path / "unknown.npz", mu=np.zeros(7), sigma=np.eye(7))
    with pytest.raises(MetricError, match="unknown.npz does not say on which features it is"):
        default_metric({}, tmp_path / "unknown.npz", 40)
