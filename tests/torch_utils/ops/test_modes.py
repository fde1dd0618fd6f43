# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Choosing between compiled and reference operations, from Python, the environment and the command line."""

from __future__ import annotations

import pytest
import torch
from click.testing import CliRunner

from ggdr.scripts import cli
from ggdr.scripts.errors import CliError
from ggdr.scripts.options.parameters import ops_option, prepare_ops
from ggdr.torch_utils.ops import build
from ggdr.torch_utils.ops.bias_act import bias_act
from ggdr.torch_utils.ops.build import MODES, set_ops, uses_native
from ggdr.torch_utils.ops.convolution import conv2d
from tests.conftest import TINY_RUN

CPU = torch.device("cpu")

pytestmark = pytest.mark.usefixtures("fresh_ops")


def test_reference_builds_nothing(monkeypatch):
    monkeypatch.setattr(build, "load_library", lambda device_type: pytest.fail("looked for a library"))
    monkeypatch.setenv("GGDR_OPS", "reference")
    assert not uses_native(CPU) and not uses_native(torch.device("meta"))


def test_set_ops_overrides_the_environment_and_gives_it_back(monkeypatch):
    monkeypatch.setattr(build, "load_library", lambda device_type: None)
    monkeypatch.setenv("GGDR_OPS", "reference")
    assert set_ops("native") is None and uses_native(CPU)
    assert set_ops(None) == "native" and not uses_native(CPU)


def test_an_unknown_mode_is_refused_by_name(monkeypatch):
    monkeypatch.setenv("GGDR_OPS", "fast")
    with pytest.raises(ValueError, match="GGDR_OPS.*'fast'.*auto, native, reference"):
        uses_native(CPU)
    with pytest.raises(CliError, match="GGDR_OPS.*'fast'"):
        prepare_ops(None, CPU)
    with pytest.raises(ValueError, match="'fast'.*auto, native, reference"):
        set_ops("fast")


def test_the_command_line_has_the_same_modes():
    (option,) = ops_option(lambda: None).__click_params__
    assert set(option.type.choices) == set(MODES)


@pytest.mark.parametrize(
    ("device", "has_gpu", "libraries"),
    [
        ("cpu", True, ["cpu"]),
        ("cuda", True, ["cuda", "cpu"]),  # the derivatives are in the CPU's
        ("cuda", False, ["cpu"]),  # shapes without data
        ("meta", True, ["cpu"]),
        ("mps", False, []),
    ],
)
def test_each_device_has_its_libraries(monkeypatch, device, has_gpu, libraries):
    loaded = []
    monkeypatch.setattr(build, "load_library", loaded.append)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    assert uses_native(torch.device(device)) == bool(libraries) and loaded == libraries


def test_shapes_without_data_are_those_of_the_reference_where_nothing_can_be_built(no_compiler, caplog):
    assert not uses_native(torch.device("meta"))
    assert "no C++ compiler" in caplog.text
    x = torch.empty(1, 2, 4, 4, device="meta", requires_grad=True)
    y = conv2d(bias_act(x, act="lrelu"), torch.empty(3, 2, 3, 3, device="meta"))
    assert y.shape == (1, 3, 2, 2) and torch.autograd.grad(y.sum(), x)[0].shape == x.shape


@pytest.mark.parametrize("native", [True, False])
def test_compilers_of_graphs_take_the_answer_as_a_constant(monkeypatch, native):
    monkeypatch.setattr(build, "load_library", lambda device_type: None)
    set_ops("native" if native else "reference")

    class Model(torch.nn.Module):
        def forward(self, x):
            return x + 1 if uses_native(x.device) else x - 1

    x, expected = torch.zeros(3), torch.full((3,), 1.0 if native else -1.0)
    assert torch.equal(torch.compile(Model(), backend="eager", fullgraph=True)(x), expected)
    for strict in (True, False):
        assert torch.equal(torch.export.export(Model(), (x,), strict=strict).module()(x), expected)


def test_train_says_which_operations_it_uses_and_does_not_keep_the_choice(dataset_zip, tmp_path, monkeypatch):
    run = tmp_path / "run"
    command = ["train", "--data", str(dataset_zip), "--outdir", str(run), *TINY_RUN, "--tick", "0.008"]
    result = CliRunner().invoke(cli.main, [*command, "--kimg", "0.008", "--ops", "reference"])
    assert result.exit_code == 0 and "with reference operations" in (run / "log.txt").read_text(), result.output
    assert build._override == "reference"
    monkeypatch.setenv("GGDR_OPS", "reference")
    result = CliRunner().invoke(cli.main, [*command, "--kimg", "0.016", "--resume", "latest"])
    assert result.exit_code == 0 and build._override is None, result.output


def test_train_with_native_operations_stops_before_it_starts_where_there_are_none(dataset_zip, tmp_path, no_compiler):
    run = tmp_path / "run"
    command = ["train", "--data", str(dataset_zip), "--outdir", str(run), *TINY_RUN, "--ops", "native"]
    result = CliRunner().invoke(cli.main, command)
    assert result.exit_code == 2 and "no C++ compiler" in result.output and not run.exists()
