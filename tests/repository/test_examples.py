# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The examples train with GGDR as they stand, alone and in two processes, and go on where they ended."""

from __future__ import annotations

import csv
import re
import runpy

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import ROOT, python, torchrun
from tests.references import import_or_skip

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
PLAIN, ACCELERATE, LIGHTNING = (
    ROOT / "examples" / f"{name}.py" for name in ("plain_pytorch", "with_accelerate", "with_lightning")
)

# Runs the `main` of an example and saves what this process ended with.
DRIVER = """
import os, runpy, sys
import torch
from tests.references import torchvision_or_skip

example, folder, *args = sys.argv[1:]
if "lightning" in example:
    torchvision_or_skip()  # which Lightning imports
G, D, ggdr = runpy.run_path(example)["main"](args)
nets = {"G": G, "D": D, "decoder": ggdr.decoder}
state = {f"{name}.{i}": p.detach() for name, net in nets.items() for i, p in enumerate(net.parameters())}
torch.save({**state, "noise": torch.rand(4)}, f"{folder}/rank{os.environ.get('RANK', 0)}.pt")
sys.stdout.flush()
os._exit(0)  # gloo's threads and the interpreter's teardown can abort a process whose work is done
"""


def run(path, *args):
    """An example in this process."""
    return runpy.run_path(str(path))["main"]([str(arg) for arg in args])


def run_on_two(path, tmp_path, *args):
    """An example in two processes; what each ended with, and the output."""
    (tmp_path / "driver.py").write_text(DRIVER)
    code, output = torchrun(tmp_path / "driver.py", path, tmp_path, "--out", tmp_path / "out", *args)
    assert code == 0, output
    return [torch.load(tmp_path / f"rank{rank}.pt") for rank in (0, 1)], output


def printed_distances(output):
    return [float(x) for x in re.findall(r"cosine distance ([\d.]+)", output)]


def assert_equal_but_for_noise(one, two):
    assert not torch.equal(one.pop("noise"), two.pop("noise")), "both processes drew the same latents"
    assert len(one) > 20 and one.keys() == two.keys()
    for name in one:
        assert torch.equal(one[name], two[name]), name


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_are_one_short_file_that_marks_what_ggdr_needs(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 150
    assert 8 <= text.count("[GGDR]") <= 15
    ours = [
        line for line in text.splitlines() if re.match(r"\s*(from|import) (ggdr|stylegan2|torch_utils|scripts)", line)
    ]
    assert ours == ["from ggdr import GGDR  # [GGDR]"]


def test_plain_example_logs_a_falling_distance_and_draws_samples(tmp_path, capsys):
    run(PLAIN, "--ggdr", "--steps", 150, "--batch", 8, "--out", tmp_path)
    distances = printed_distances(capsys.readouterr().out)
    assert len(distances) == 3 and distances[0] > distances[1] > distances[2]
    pixels = np.asarray(Image.open(tmp_path / "samples.png"))
    assert pixels.shape == (256, 256, 3) and pixels.std() > 20


def test_plain_example_goes_on_as_if_it_had_not_ended(tmp_path):
    small = ("--ggdr", "--batch", 4)
    run(PLAIN, *small, "--steps", 6, "--out", tmp_path / "whole")
    run(PLAIN, *small, "--steps", 3, "--out", tmp_path / "part")
    run(PLAIN, *small, "--steps", 3, "--out", tmp_path / "rest", "--resume", tmp_path / "part" / "checkpoint.pt")
    whole, rest = (torch.load(tmp_path / name / "checkpoint.pt", weights_only=True) for name in ("whole", "rest"))
    assert whole["step"] == rest["step"] == 6
    for part in ("G", "D", "ggdr"):
        assert all(torch.equal(value, rest[part][key]) for key, value in whole[part].items()), part


def test_plain_example_trains_folders_without_ggdr(tmp_path, capsys):
    (tmp_path / "images").mkdir()
    for i, size in enumerate([(40, 50), (32, 32), (64, 20)]):
        Image.new("RGB", size, (80 * i, 10, 200)).save(tmp_path / "images" / f"{i}.png")
    run(PLAIN, "--data", tmp_path / "images", "--steps", 2, "--batch", 4, "--out", tmp_path / "out")
    output = capsys.readouterr().out
    assert "step     2" in output and not printed_distances(output)
    with pytest.raises(SystemExit, match="trained without --ggdr"):
        run(PLAIN, "--ggdr", "--steps", 1, "--out", tmp_path / "out", "--resume", tmp_path / "out" / "checkpoint.pt")
    with pytest.raises(SystemExit, match="holds no .png or .jpg"):
        run(PLAIN, "--data", tmp_path / "out" / "nothing")


def test_accelerate_example_keeps_both_processes_equal(tmp_path):
    pytest.importorskip("accelerate")
    options = ("--cpu", "--bf16", "--accumulate", 2, "--batch", 8)
    states, output = run_on_two(ACCELERATE, tmp_path, *options, "--steps", 100)
    assert_equal_but_for_noise(*states)
    distances = printed_distances(output)
    # Printed once, not by both.
    assert len(distances) == 2 and distances[1] < distances[0]


def test_accelerate_example_goes_on_with_the_decoder_that_it_saved(tmp_path):
    pytest.importorskip("accelerate")
    options = ("--cpu", "--batch", 4)
    *_, first = run(ACCELERATE, *options, "--steps", 2, "--out", tmp_path / "one")
    *_, second = run(ACCELERATE, *options, "--steps", 0, "--out", tmp_path / "two", "--resume", tmp_path / "one")
    fresh = run(ACCELERATE, *options, "--steps", 0, "--out", tmp_path / "three")[2]
    for name, value in first.state_dict().items():
        assert torch.equal(second.state_dict()[name], value), name
    assert any(not torch.equal(fresh.state_dict()[name], value) for name, value in first.state_dict().items())


def test_lightning_example_keeps_both_processes_equal(tmp_path):
    import_or_skip("lightning")
    options = ("--accelerator", "cpu", "--devices", 2, "--batch", 8)
    states, _ = run_on_two(LIGHTNING, tmp_path, *options, "--steps", 60)
    assert_equal_but_for_noise(*states)
    with open(tmp_path / "out" / "metrics.csv") as file:
        distances = [float(row["cosine_distance"]) for row in csv.DictReader(file)]
    # Before the first step it is about 1.
    assert len(distances) == 6 and distances[-1] < 0.95 * distances[0] < 0.6


def test_lightning_checkpoint_holds_the_decoder_and_each_network_once(tmp_path):
    import_or_skip("lightning")
    options = ("--accelerator", "cpu", "--batch", 4)
    G, D, ggdr = run(LIGHTNING, *options, "--steps", 2, "--out", tmp_path / "one")
    path = tmp_path / "one" / "checkpoint.ckpt"
    state = torch.load(path, weights_only=True)["state_dict"]
    parts = {"G": G.state_dict(), "D": D.state_dict(), "decoder": ggdr.state_dict()}
    expected = {f"{part}.{name}": value for part, values in parts.items() for name, value in values.items()}
    assert state.keys() == expected.keys()
    _, _, resumed = run(LIGHTNING, *options, "--steps", 2, "--out", tmp_path / "two", "--resume", path)
    assert all(torch.equal(resumed.state_dict()[name], value) for name, value in ggdr.state_dict().items())


@pytest.mark.parametrize("path", [LIGHTNING, ACCELERATE], ids=lambda path: path.stem)
def test_a_missing_framework_gets_one_line_of_advice(path):
    package = path.stem.removeprefix("with_")
    code = f"import sys, runpy; sys.modules[{package!r}] = None; runpy.run_path({str(path)!r}, run_name='__main__')"
    process = python("-c", code)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 1
    assert output == f"this example needs {package.capitalize()}: pip install {package}\n"
