# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Weights of metrics: their description, and how they are read."""

from __future__ import annotations

import importlib.util
import os
import pickle
from pathlib import Path

import pytest
import torch

from ggdr.metrics.inception import INCEPTION_FILE
from ggdr.metrics.lpips import LPIPS_FILE
from ggdr.metrics.vgg import VGG16_FILE
from ggdr.metrics.weights import load_weights
from ggdr.torch_utils.downloads import WeightsError, sha256_of

SHAPES = {"a.weight": (2, 3), "a.bias": (2,), "b.weight": (4,)}


def save(path: Path, **changes) -> Path:
    state = {name: torch.ones(shape) for name, shape in SHAPES.items()} | changes
    torch.save({name: tensor for name, tensor in state.items() if tensor is not None}, path)
    return path


def test_tensors_come_in_float32_and_in_the_order_asked_for(tmp_path):
    path = save(tmp_path / "x.pth", **{"a.weight": torch.ones(2, 3, dtype=torch.float16), "c.extra": torch.ones(1)})
    tensors = load_weights(path, dict(reversed(SHAPES.items())), what="a net", ignored=r"^c\.")
    assert list(tensors) == ["b.weight", "a.bias", "a.weight"]
    assert all(tensor.dtype == torch.float32 for tensor in tensors.values())


def test_a_file_with_other_tensors_is_refused_by_name(tmp_path):
    changes = {"a.bias": None, "b.weight": torch.ones(5), "c.extra": torch.ones(1)}
    with pytest.raises(WeightsError) as caught:
        load_weights(save(tmp_path / "x.pth", **changes), SHAPES, what="a net")
    assert str(caught.value).endswith(
        "x.pth: not a net; tensors missing: a.bias; unexpected: c.extra; of another shape: b.weight [5] instead of [4]"
    )


def test_of_many_wrong_tensors_a_few_are_named(tmp_path):
    path = save(tmp_path / "x.pth", **{f"extra{i}": torch.ones(1) for i in range(5)})
    with pytest.raises(WeightsError, match=r"unexpected: extra0, extra1, extra2, \.\.\. \(5 in all\)$"):
        load_weights(path, SHAPES, what="a net")


class Payload:
    def __reduce__(self):
        return os.mkdir, ("the-payload-ran",)


@pytest.mark.parametrize("kind", ["text", "empty", "pickle", "tensor", "nested", "absent"])
def test_a_file_that_is_no_state_dict_is_refused_and_not_run(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "x.pth"
    if kind == "text":
        path.write_text("<html>Sign in</html>")
    elif kind == "empty":
        path.touch()
    elif kind == "pickle":
        path.write_bytes(pickle.dumps(Payload(), protocol=2))
    elif kind != "absent":
        torch.save(torch.ones(3) if kind == "tensor" else {"state": {"a": torch.ones(3)}}, path)
    with pytest.raises(WeightsError, match=r"x\.pth: not (a|readable) .*expected a net"):
        load_weights(path, SHAPES, what="a net")
    assert not Path("the-payload-ran").exists()


def test_a_file_of_weights_is_described_in_full():
    for file in (INCEPTION_FILE, VGG16_FILE, LPIPS_FILE):
        assert len(file.sha256) == 64 and file.size > 0 and "--" in file.by_hand
        assert file.sha256[:8] in file.name and all(url.startswith("https://") for url in file.urls)


def test_the_layers_of_lpips_are_those_of_its_package():
    spec = importlib.util.find_spec("lpips")
    if spec is None:
        pytest.skip("lpips is not installed")
    path = Path(spec.origin).parent / "weights" / "v0.1" / "vgg.pth"
    assert (sha256_of(path), path.stat().st_size) == (LPIPS_FILE.sha256, LPIPS_FILE.size)
