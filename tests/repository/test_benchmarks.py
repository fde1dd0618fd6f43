# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The scripts behind quoted figures run; what they measure is not judged here."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import layouts_sheet
from ggdr.torch_utils.data.dataset import ImageDataset
from ggdr.torch_utils.data.label_maps import class_colors, numbered_classes
from ggdr.torch_utils.pictures.images import to_u8
from ggdr.torch_utils.pictures.sheets import thumbnail
from ggdr.translation.label_maps import to_input
from ggdr.translation.layout_config import OASISGeneratorConfig
from ggdr.translation.snapshot import load_translator
from tests.conftest import ROOT, python
from tests.translator_files import save_translator

STUDIES = ROOT / "benchmarks" / "studies"


def output_of(*args) -> str:
    process = python(*args)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 0, output
    return output


def test_machine_peak_prints_rates_of_both_products_in_both_types():
    rates = json.loads(output_of("-m", "benchmarks.machine_peak", "--threads", 1))
    assert (rates.pop("device"), rates.pop("threads")) == ("cpu", 1)
    assert rates.keys() == {f"{name}_{dtype}" for name in ("matmul", "conv3x3") for dtype in ("float32", "bfloat16")}
    assert all(rate > 0 for rate in rates.values())


def test_augmentation_benchmark_runs():
    assert "warp" in output_of("-m", "benchmarks.augment", "--repeats", 1)


def test_frechet_distance_benchmark_compares_with_scipy():
    assert "sqrtm" in output_of("-m", "benchmarks.frechet_distance", "--dims", 64, "--num", 200, "--repeats", 1)


def test_inception_benchmark_knows_the_networks_arithmetic():
    assert "11.4 GFLOP" in output_of(
        "-m", "benchmarks.inception_speed", "--batch", 1, "--resolution", 32, "--repeats", 1
    )


def test_cluster_benchmark_finds_its_segments():
    small = ("--num", 8, "--size", 16, "--channels", 128, "--clusters", 4)
    output = output_of("-m", "benchmarks.cluster_speed", *small)
    assert "mutual information 1.000" in output and "silhouette: 4" in output and "KMeans" in output


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes in /proc")
def test_large_dataset_benchmark_tabulates_time_and_memory():
    line = output_of("-m", "benchmarks.large_dataset", "--images", 200).splitlines()[-1]
    cells = [cell.strip() for cell in line.split("|")[1:-1]]
    assert cells[0] == "200" and all(float(cell) >= 0 for cell in cells[1:]) and len(cells) == 5


def test_attach_benchmark_tabulates_layers_distances_and_costs(dataset_zip, tmp_path):
    picture = tmp_path / "attach.png"
    drawn, others = ("--plot", picture), ("--data", dataset_zip)
    for options, guides in ((drawn, {"DCGAN": "`2`", "SNGAN": "`blocks.0`"}), (others, {"DCGAN": "`2`"})):
        gans = [word for name in guides for word in ("--gan", name)]
        lines = output_of("-m", "benchmarks.attach", "--steps", 6, "--batch", 4, *gans, *options).splitlines()
        table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("|")]
        assert {len(cells) for cells in table} == {10}
        assert [cells[1] for cells in table[2:]] == list(guides.values())
        for cells in table[2:]:
            assert all(0 < float(cell.strip("*")) < 2 for cell in cells[4:7])
            assert all(float(cell.removeprefix("x ")) > 0 for cell in cells[7:])
    assert Image.open(picture).size[0] > 400


def test_cyclegan_benchmark_compares_with_a_plain_loop():
    small = ("--resolution", 32, "--channels", 4, "--blocks", 1, "--iterations", 1)
    all_rows = ["reference operations", "separate passes", "channels_last", "bf16", "GGDR"]
    for options, rows in (((), all_rows), (("--no-rows", "--ggdr"), [])):
        lines = output_of("-m", "benchmarks.cyclegan_step", *small, *options).splitlines()
        table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("|")]
        assert [cells[0] for cells in table[2:]] == ["plain loop", "this project", *rows]
        assert table[2][2] == "1.00"
        assert all(float(cells[2]) > 0 and float(cells[3]) > 0 for cells in table[2:])


@pytest.mark.parametrize("name", ["cifar10-cpu-60kimg", "digits-demo-28kimg", "cifar10-2000-cpu-40kimg"])
def test_tables_of_the_study_are_those_of_the_values_that_are_kept(name):
    page = (ROOT / "docs" / "study.md").read_text()
    output = output_of("-m", "benchmarks.study_values", STUDIES / f"{name}.jsonl")
    rows = [line for line in output.splitlines() if line.startswith("| `")]
    assert len(rows) == 8 and all(row in page for row in rows)


@pytest.mark.parametrize(
    ("name", "variants", "shown", "num"),
    [
        ("colouring-cpu-12kimg", "none,ggdr", "", 5),
        ("colouring-cpu-12kimg", "l1,none", "", 5),
        ("cyclegan-cars-3kimg", "none,ggdr", "", 9),
        ("combogan-2kimg", "none,ggdr", "cycle_mae` fd_lite0.5k_full`", 2),
    ],
    ids=["colours-ggdr", "colours-l1", "cars", "combogan"],
)
def test_tables_of_translators_are_those_of_the_values_that_are_kept(name, variants, shown, num):
    page = (ROOT / "docs" / "translation-study.md").read_text()
    output = output_of("-m", "benchmarks.study_values", STUDIES / f"{name}.jsonl", "--variants", variants)
    rows = [line for line in output.partition("Mean over")[0].splitlines() if line.startswith("| `")]
    rows = [row for row in rows if not shown or row.split(" ")[1].lstrip("`") in shown.split()]
    assert len(rows) == num and all(row in page for row in rows)


def test_the_tables_of_layouts_are_those_of_the_values_that_are_kept():
    page, values = (ROOT / "docs" / "translation.md").read_text(), STUDIES / "layouts-cpu-6kimg.jsonl"
    rows = [json.loads(line) for line in values.read_text().splitlines()]
    for host, name in (("oasis", "OASIS"), ("cc-fpse", "CC-FPSE")):
        output = output_of("-m", "benchmarks.study_values", values, "--variants", f"{host}-none,{host}-ggdr")
        (row,) = (x for x in output.partition("Mean over")[0].splitlines() if x.startswith("| `miou` "))
        assert row.replace("`miou`", f"`miou` of {name}") in page
        for variant, text in ((f"{host}-none", name), (f"{host}-ggdr", f"{name}, GGDR")):
            at = {kimg: [x["miou"] for x in rows if (x["variant"], x["kimg"]) == (variant, kimg)] for kimg in (2, 4, 6)}
            means = " | ".join(f"{np.mean(found):.3f}" for found in at.values())
            assert f"| {text} | {means} | {', '.join(f'{x:.3f}' for x in at[6])} |" in page


def test_the_table_of_regularisers_is_that_of_the_values_that_are_kept():
    page = (ROOT / "docs" / "dense-supervision.md").read_text()
    for variant in ("ggdr", "semantic", "ema-guide"):
        options = (STUDIES / "shapes-cpu-32kimg.jsonl", "--variants", f"none,{variant}")
        output = output_of("-m", "benchmarks.study_values", *options).partition("Mean over")[0]
        rows = [line.removeprefix("| ") for line in output.splitlines() if line.startswith("| `")]
        assert len(rows) == 2 and all(f"| {variant} | {row}" in page for row in rows)


def test_the_tables_of_generators_and_of_combogan_are_those_of_the_values_that_are_kept():
    page = (ROOT / "docs" / "translation-study.md").read_text()
    rows = [json.loads(line) for line in (STUDIES / "cyclegan-cars-3kimg.jsonl").read_text().splitlines()]
    of_seed_0 = {row["variant"]: row for row in rows if row["seed"] == 0}
    ways = [f"fd_lite1k_full_{way}" for way in ("AtoB", "BtoA")]
    for name, text in (("resnet", "instance"), ("resnet-batch", "batch"), ("none", "batch")):
        row = of_seed_0[name]
        assert f"| {text} | {row['cycle_mae']:.3f} | {' | '.join(f'{row[way]:.0f}' for way in ways)} |" in page
    rows = [json.loads(line) for line in (STUDIES / "combogan-2kimg.jsonl").read_text().splitlines()]
    (six,) = (row for row in rows if row["variant"] == "six")
    for metric, form in (("cycle_mae", ".3f"), ("fd_lite0.5k_full", ".0f")):
        values = [row[metric] for row in rows if row["variant"] == "none"]
        low, high, mean = (f"{f(values):{form}}" for f in (min, max, np.mean))
        assert len(values) == 3 and f" | {mean} ({low} to {high}) | {six[metric]:{form}} |" in page


def test_the_table_of_cycles_is_that_of_the_values_that_are_kept():
    page = (ROOT / "docs" / "translation-study.md").read_text()
    rows = [json.loads(line) for line in (STUDIES / "cyclegan-losses-3kimg.jsonl").read_text().splitlines()]
    ways = ("AtoB", "BtoA")
    for row in rows:
        cells = [f"{row[f'cycle_mae_{way}']:.3f}" for way in ways] + [
            f"{row[f'fd_lite1k_full_{way}']:.0f}" for way in ways
        ]
        assert f"| `{row['variant']}` | {' | '.join(cells)} |" in page
    assert len(rows) == 5


def test_baselines_of_colouring(tmp_path):
    for split, low in (("train", 0), ("test", 100)):
        for side in "AB":
            folder = tmp_path / f"{split}{side}"
            folder.mkdir()
            rng = np.random.RandomState(low)
            for i in range(4):
                grey = rng.randint(low, low + 100, (16, 16, 1)).astype(np.uint8)
                colours = grey + np.array([20, 0, 10], np.uint8) * (side == "B")
                Image.fromarray(np.broadcast_to(colours, (16, 16, 3)).astype(np.uint8)).save(folder / f"{i}.png")
    lines = output_of("-m", "benchmarks.colour_baselines", tmp_path, "--size", 16).splitlines()
    grey, mean, real = ([cell.strip() for cell in line.split("|")[2:-1]] for line in lines[2:])
    assert grey[2] == "0" and float(mean[0]) > float(grey[0]) > 20
    assert float(mean[1]) == 1 and mean[2] == real[2] != "0"


def test_the_table_of_small_networks_is_that_of_the_values_that_are_kept():
    page = (ROOT / "docs" / "study.md").read_text()
    output = output_of("-m", "benchmarks.small_networks", STUDIES / "small-networks-24kimg.json")
    rows = [line for line in output.split("\n\n")[1].splitlines() if line.startswith("| ")]
    assert len(rows) == 15 and all(row in page for row in rows)


def test_the_sheet_of_shapes_is_drawn_from_a_dataset(tmp_path):
    data, sheet = tmp_path / "shapes.zip", tmp_path / "sheet.png"
    output_of("-m", "ggdr", "dataset", "shapes", data, "--images", 60, "--workers", 1)
    assert "sheet.png" in output_of("-m", "benchmarks.label_map_sheet", "--data", data, "--out", sheet)
    drawn, shown = (np.asarray(Image.open(path), int) for path in (sheet, ROOT / "docs" / "shapes.webp"))
    assert drawn.shape == shown.shape and np.abs(drawn - shown).mean() < 3  # compressed with losses


def test_the_sheet_of_layouts_has_map_image_and_a_result_of_each_network_and_refuses_other_classes(
    tmp_path, monkeypatch
):
    data, sheet = tmp_path / "shapes.zip", tmp_path / "sheet.png"
    output_of("-m", "ggdr", "dataset", "shapes", data, "--resolution", 32, "--images", 9, "--workers", 1)
    dataset = ImageDataset(data, use_label_maps=True)
    classes, files = dataset.label_classes, {}
    configs = dict.fromkeys(("G", "G_ema"), OASISGeneratorConfig(classes.num, channels=4, noise_channels=4, ups=3))
    for name, labels in (("known", classes), ("other", numbered_classes(classes.num))):
        files[name] = save_translator(tmp_path / f"{name}.safetensors", configs, labels=labels.to_json())
    command = ("-m", "benchmarks.layouts_sheet", "--data", data, "--rows", 2, "--out", sheet)
    assert "sheet.png" in output_of(*command, "--network", "one", files["known"]) and sheet.is_file()

    monkeypatch.setattr(layouts_sheet, "contact_sheet", lambda cells, columns, gap: (cells, columns))
    translators = {name: load_translator(path) for name, path in files.items()}
    cells, names = layouts_sheet.layouts_sheet(dataset, {"one": translators["known"]}, 2)
    assert names == ["label map", "image", "one"] and len(cells) == 2
    layout = to_input(torch.from_numpy(dataset.label_maps([8])), classes)
    made = to_u8(translators["known"](layout, seed=1)).numpy()
    expected = [
        class_colors(classes)[dataset.label_maps([8])[0, 0]],
        *(x[0].transpose(1, 2, 0) for x in (dataset.images_u8([8]), made)),
    ]
    assert all((cell == thumbnail(image)).all() for cell, image in zip(cells[1], expected, strict=True))
    with pytest.raises(ValueError, match="three: expected a network that takes the classes of the dataset"):
        layouts_sheet.layouts_sheet(dataset, {"three": translators["other"]}, 2)


def test_the_sheet_of_pairs_shows_every_task_and_the_target(tmp_path):
    assert "sheet.png" in output_of("-m", "benchmarks.pair_tasks_sheet", "--out", tmp_path / "sheet.png")
    drawn, shown = (np.asarray(Image.open(path), int) for path in (tmp_path / "sheet.png", ROOT / "docs" / "pairs.png"))
    assert drawn.shape == shown.shape and np.abs(drawn - shown).mean() < 2  # fonts and versions of Pillow differ


def test_benchmark_of_regularisers_tabulates_each_of_them():
    small = ["--cfg", "demo", "--channel-base", 64, "--channel-max", 8, "--batch", 8, "--resolution", 16]
    output = output_of("-m", "benchmarks.regularizer_costs", "--no-counted", *small, "--iterations", 4)
    rows = [line.split("|")[1].strip() for line in output.splitlines() if line.startswith("| `")]
    assert rows == ["`none`", "`ggdr`", "`semantic`", "`ema-guide`", "`contrastive`", "`features`"]
