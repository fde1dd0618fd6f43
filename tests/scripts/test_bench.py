# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr bench`: what it runs and reports. How fast that is, is not judged here."""

from __future__ import annotations

import json
import math

import click
import pytest
from click.testing import CliRunner

from ggdr.scripts.bench import main
from ggdr.scripts.benches import converter as bench_dataset
from ggdr.scripts.benches import loader as bench_data
from ggdr.scripts.benches.converter import Case
from ggdr.scripts.benches.drawn_images import draw_pictures, encode_foreign
from ggdr.scripts.benches.step_timing import resolve_settings
from ggdr.torch_utils.data.convert import encode_png
from ggdr.torch_utils.data.image_files import load_image
from ggdr.torch_utils.data.loader import ImageDataset
from ggdr.torch_utils.distributed import ProcessGroup
from ggdr.torch_utils.ops import set_ops
from ggdr.torch_utils.timing import machine_peak
from tests.conftest import TINY_RUN, python
from tests.repository.test_docs import PAGES, commands

TINY_STEP = [*TINY_RUN, "--resolution", "16", "--threads", "1", "--iterations", "4"]

MACHINE = {"processor", "cpus", "system", "python", "ggdr"}
OF_TRAIN = {
    "sec_per_kimg",
    "sec_per_kimg_by_piece",
    "sec_per_kimg_fastest",
    "img_per_sec",
    "gflop_per_iteration",
    "gflop_by_phase",
    "conv_peak_gflop_per_sec",
    "fraction_of_peak",
    "peak_memory_mib",
    "iterations",
    "cfg",
    "resolution",
    "batch",
    "batch_gpu",
    "channel_base",
    "channel_max",
    "precision",
    "ggdr_res",
    "regularizers",
    "regularizer_names",
    "aug",
    "augpipe",
    "p",
    "device",
    "threads",
    "ops",
    "torch",
    *MACHINE,
}


@pytest.fixture(autouse=True)
def _ops_as_they_were():
    yield
    set_ops(None)


@pytest.fixture
def given_peak(monkeypatch):
    """A convolution rate of 100 GFLOP/s, found without measuring."""
    monkeypatch.setattr(machine_peak, "conv_rate", lambda device, dtype: 1e11)


def bench(*args, code=0) -> str:
    result = CliRunner().invoke(main, [str(arg) for arg in args], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.stdout if code == 0 else result.output


def json_of(*args) -> dict:
    """The last line of what `ggdr bench ... --json` prints; every number in it is finite and positive."""
    report = json.loads(bench(*args, "--json").splitlines()[-1])
    assert all(math.isfinite(number) and number > 0 for number in numbers(report)), report
    return report


def numbers(value):
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from numbers(item)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield value


# ggdr bench train.


def test_train_reports_the_pieces_of_the_step_and_their_sum():
    report = json_of("train", *TINY_STEP)
    assert report.keys() == OF_TRAIN
    assert list(report["sec_per_kimg_by_piece"]) == ["data", "G", "D", "D_r1", "step_end"]
    assert list(report["gflop_by_phase"]) == ["G", "D", "D_r1"]
    assert report["sec_per_kimg"] == pytest.approx(sum(report["sec_per_kimg_by_piece"].values()))
    assert report["sec_per_kimg_fastest"] <= report["sec_per_kimg"]
    assert report["img_per_sec"] == pytest.approx(1000 / report["sec_per_kimg"])
    assert report["gflop_per_iteration"] == pytest.approx(sum(report["gflop_by_phase"].values()))
    gflop_per_kimg = report["gflop_per_iteration"] * 1000 / report["batch"]
    rate = report["fraction_of_peak"] * report["conv_peak_gflop_per_sec"]
    assert rate == pytest.approx(gflop_per_kimg / report["sec_per_kimg"])
    assert (report["ggdr_res"], report["aug"], report["augpipe"], report["p"]) == ([8], "ada", "bgc", 0.5)


def test_train_times_the_phases_and_settings_that_it_is_told(given_peak):
    report = json_of("train", *TINY_STEP, "--cfg", "auto", "--aug", "noaug", "--no-ggdr", "--precision", "bf16")
    assert list(report["gflop_by_phase"]) == ["G", "G_pl", "D", "D_r1"]
    assert (report["ggdr_res"], report["aug"], report["augpipe"], report["p"]) == (None, "noaug", None, None)
    assert (report["precision"], report["threads"], report["device"]) == ("bf16", 1, "cpu")
    assert report["conv_peak_gflop_per_sec"] == 100
    assert json_of("train", *TINY_STEP, "--ops", "reference")["ops"] == "reference"


def test_table_compares_four_variants(given_peak):
    report = json_of("train", *TINY_STEP, "--table")
    variants = report["variants"]
    assert [(v["aug"], v["ggdr_res"]) for v in variants] == [
        ("noaug", None),
        ("noaug", [8]),
        ("ada", None),
        ("ada", [8]),
    ]
    assert all(v.keys() == OF_TRAIN - {"peak_memory_mib"} for v in variants)
    seconds = [v["sec_per_kimg"] for v in variants]
    assert report["ggdr_cost"] == {"noaug": seconds[1] / seconds[0], "ada": seconds[3] / seconds[2]}
    gflop = [v["gflop_by_phase"]["D"] for v in variants]
    assert gflop[1] > gflop[0], "GGDR's decoder costs arithmetic"


def test_train_runs_the_settings_of_ggdr_train(dataset_zip):
    from ggdr.scripts.cli import main as ggdr

    args = ["train", "--data", str(dataset_zip), "--outdir", "none", *TINY_RUN, "--dry-run"]
    expected = json.loads(CliRunner().invoke(ggdr, args, catch_exceptions=False).stdout)
    command = main.commands["train"].make_context("train", []).params
    command |= {"cfg": "demo", "channel_base": 64, "channel_max": 8, "batch": 8, "p": 0.5}
    unset = {"batch_gpu", "gamma", "ggdr_weight"}
    command = {name: None if name in unset else value for name, value in command.items()}
    found = json.loads(json.dumps(resolve_settings(command, ImageDataset(dataset_zip), ProcessGroup()).to_json()))
    assert found["augment"] == {**expected["augment"], "p": 0.5}, "ADA starts where every transform is at work"
    differing = {name for name in expected if found[name] != expected[name]}
    assert differing == {"augment", "data"}


@pytest.mark.parametrize(
    "args, expected",
    [
        (["--aug", "noaug", "--p", "0.3"], "--p"),
        (["--aug", "noaug", "--table"], "--aug"),
        (["--no-ggdr", "--table"], "--no-ggdr"),
        (["--ggdr-res", "64"], "--ggdr-res"),
        (["--precision", "fp16"], "--precision"),
        (["--resolution", "48"], "--resolution"),
    ],
)
def test_train_refuses_what_it_cannot_time(args, expected):
    assert f"'{expected}'" in bench("train", *TINY_STEP, *args, code=2)


# ggdr bench data and dataset.


def test_data_reports_every_way_of_loading(dataset_zip, monkeypatch):
    monkeypatch.setattr(bench_data, "SECONDS", 0.02)
    report = json_of("data", "--data", dataset_zip, "--batch", 4, "--workers", 1, "--device", "cpu")
    assert report.keys() == MACHINE | {
        "data",
        "num_images",
        "resolution",
        "num_channels",
        "batch",
        "workers",
        "device",
        "img_per_sec_one_process",
        "img_per_sec",
        "img_per_sec_per_worker",
        "img_per_sec_first_pass",
        "img_per_sec_in_memory",
        "wait_ms",
        "sec_per_kimg",
        "torch",
        "numpy",
        "pillow",
    }
    assert (report["num_images"], report["resolution"], report["data"]) == (24, 16, "gradients")
    assert "more than a quarter" in bench("data", "--data", dataset_zip, "--batch", 7, code=2)


def test_data_draws_images_where_none_are_given(monkeypatch):
    monkeypatch.setattr(bench_data, "SECONDS", 0.02)
    args = ["--resolution", 16, "--images", 40, "--batch", 8, "--workers", 1, "--device", "cpu"]
    report = json_of("data", *args)
    assert (report["num_images"], report["resolution"], report["num_channels"]) == (40, 16, 3)


def test_dataset_reports_every_case_beside_its_codec(monkeypatch):
    monkeypatch.setattr(bench_dataset, "CODEC_SECONDS", 0.02)
    monkeypatch.setattr(bench_dataset, "CASES", (Case("small", "jpeg", 32, 32), Case("shrunk", "png", 64, 16)))
    report = json_of("dataset", "--images", 8, "--workers", 1)
    assert report.keys() == MACHINE | {"cases", "workers", "numpy", "pillow"}
    small, shrunk = report["cases"]["small"], report["cases"]["shrunk"]
    assert (
        small.keys()
        == shrunk.keys()
        == {
            "source",
            "res",
            "num_images",
            "img_per_sec",
            "decode_ms",
            "encode_ms",
            "codec_img_per_sec",
            "fraction_of_codec",
        }
    )
    assert (small["num_images"], shrunk["num_images"]) == (8, 2)
    assert shrunk["fraction_of_codec"] == pytest.approx(shrunk["img_per_sec"] / shrunk["codec_img_per_sec"])


def test_drawn_pictures_are_as_hard_to_encode_as_photographs():
    assert 800 < sum(len(encode_foreign(pixels, "jpeg")) for pixels in draw_pictures(32)) / 64 < 1100
    pixels = draw_pictures(256)[0]
    assert 0.3 < len(encode_foreign(pixels, "png")) / pixels.size < 0.7
    assert (load_image(encode_png(pixels), "x").tobytes()) == pixels.tobytes()


# The command.


def test_help_needs_no_torch_and_ends_with_examples():
    code = (
        "import sys\nfrom click.testing import CliRunner\nfrom ggdr.scripts.bench import main\n"
        "for name in main.commands:\n"
        "    output = CliRunner().invoke(main, [name, '--help']).output\n"
        "    assert output.splitlines()[-1].split()[:3] == ['ggdr', 'bench', name], output\n"
        "print('torch' in sys.modules)"
    )
    assert python("-c", code).communicate()[0].strip() == "False"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_benchmarks_shown_in_the_docs_have_only_options_that_exist(page):
    for name, args in commands(page):
        if name == "bench" and args:
            command = main.commands[args[0]]
            command.make_parser(click.Context(command)).parse_args(args=list(args[1:]))
