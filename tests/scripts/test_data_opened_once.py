# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""A new run lists its data once, and reads each file once to know it again, whatever it opens them for."""

from __future__ import annotations

import zlib
from types import SimpleNamespace

import pytest

import ggdr.torch_utils.data.container as module
from tests.scripts.test_train import ggdr_train
from tests.scripts.test_translate import translate
from tests.scripts.test_translate_cyclegan import make_domains

SHORT = ["--cfg", "cpu", "--device", "cpu", "--kimg", 0.004, "--batch", 4, "--no-ggdr"]
NUM = {"trainA": 4, "trainB": 4, "testA": 3, "testB": 3}  # pairs, and two domains


@pytest.fixture
def seen(monkeypatch):
    """Folders that are listed, and how many files are summed up."""
    found = SimpleNamespace(folders=[], sums=0)
    walk = module._walk

    def walked(root):
        found.folders.append(root)
        return walk(root)

    def crc32(data):
        found.sums += 1
        return zlib.crc32(data)

    monkeypatch.setattr(module, "_walk", walked)
    monkeypatch.setattr(module, "zlib", SimpleNamespace(crc32=crc32, error=zlib.error))
    return found


@pytest.mark.parametrize("model", ["pix2pix", "cyclegan", "combogan"])
def test_a_run_of_translation_opens_its_data_once(seen, model, tmp_path):
    data = make_domains(tmp_path / "data", NUM)
    output = translate("--model", model, "--data", data, "--outdir", tmp_path / "run", *SHORT, "--channels", 4)
    assert "measured on 3 test " in output and "kd_offline0.003k_full" in output
    assert seen.folders == [data] and seen.sums == sum(NUM.values())


@pytest.mark.parametrize("model", ["pix2pix", "cyclegan"])
def test_metrics_that_are_named_are_measured_on_what_is_listed_already(seen, model, tmp_path):
    data, name = make_domains(tmp_path / "data", NUM), "colourfulness"
    args = ["--model", model, "--data", data, "--outdir", tmp_path / "run", *SHORT, "--channels", 4, "--metrics", name]
    assert "measured on 3 test " in translate(*args) and seen.folders == [data]


def test_a_run_of_stylegan2_lists_its_data_once(seen, tmp_path):
    data = make_domains(tmp_path / "data", {"a": 8})
    args = ["--data", data, "--outdir", tmp_path / "run", *SHORT, "--channel-base", 256, "--ops", "reference"]
    assert "fd_offline0.008k_full" in ggdr_train(*args, "--metrics", "fd_offline0.008k_full")
    assert seen.folders == [data] and seen.sums == 8
