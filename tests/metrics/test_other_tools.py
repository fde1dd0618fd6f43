# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr metrics` on two folders of images gives what other people's commands give on them, with the same weights."""

from __future__ import annotations

import json

import pytest
import torch
from click.testing import CliRunner

from ggdr.metrics.fid import frechet_distance
from ggdr.scripts.metrics import main
from tests.metric_cases import noise_images, write_images
from tests.metrics.test_inception import random_state
from tests.references import import_or_skip

NUM, SUBSET = 16, 12


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    reals = write_images(folder / "reals", noise_images(NUM, res=24))
    return reals, write_images(folder / "fakes", noise_images(NUM, seed=1, res=24, shift=60))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save(random_state(), path)
    return path


def ours(folders, weights, names: str, mode: str) -> dict[str, float]:
    reals, fakes = map(str, folders)
    args = ["--fakes", fakes, "--reals", reals, "--mode", mode, "--inception", str(weights), "--metrics", names]
    result = CliRunner().invoke(main, [*args, "--device", "cpu", "--no-cache", "--seed", "2020", "--json"])
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in result.output.splitlines() if line.startswith("{")]
    return {name: value for line in lines for name, value in line["results"].items()}


def test_torch_fidelity_gives_the_same_fid_kid_and_inception_score(folders, weights, monkeypatch):
    theirs = import_or_skip("torch_fidelity").calculate_metrics(
        input1=str(folders[1]), input2=str(folders[0]), cuda=False, isc=True, fid=True, kid=True, verbose=False,
        kid_subset_size=SUBSET, cache=False, feature_extractor_weights_path=str(weights), save_cpu_ram=True,
    )  # fmt: skip
    monkeypatch.setattr("ggdr.metrics.compute.KID_SUBSET_SIZE", SUBSET)
    names = f"fid{NUM / 1000:g}k_full,kid{NUM / 1000:g}k_full,is{NUM / 1000:g}k"
    found = ours(folders, weights, names, "torch-fidelity")
    keys = ("kernel_inception_distance", "inception_score")
    assert list(found.values())[1:] == pytest.approx(
        [theirs[f"{key}_{part}"] for key in keys for part in ("mean", "std")],
        rel=1e-4,
        abs=1e-5,
    )
    # 16 images in 2048 dimensions: other tools' roots of a singular product are right to a few digits only.
    assert next(iter(found.values())) == pytest.approx(theirs["frechet_inception_distance"], rel=1e-3)


def test_pytorch_fid_gives_the_same_fid(folders, weights, monkeypatch):
    module = import_or_skip("pytorch_fid.inception")
    score = import_or_skip("pytorch_fid.fid_score")
    monkeypatch.setattr(module, "load_state_dict_from_url", lambda url, **settings: torch.load(weights))
    # Its formula is compared in test_fid.py; its root of a singular product takes half a minute.
    monkeypatch.setattr(
        score, "calculate_frechet_distance", lambda *stats: frechet_distance(*map(torch.from_numpy, stats))
    )
    theirs = score.calculate_fid_given_paths(
        [str(folders[0]), str(folders[1])], batch_size=8, device="cpu", dims=2048, num_workers=0
    )
    (found,) = ours(folders, weights, f"fid{NUM / 1000:g}k_full", "pytorch-fid").values()
    assert found == pytest.approx(theirs, rel=1e-4)
