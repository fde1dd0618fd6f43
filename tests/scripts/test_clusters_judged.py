# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr clusters --labels`: planted segmentations, baselines, every decoder, and what it says about bad input."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ggdr.metrics.segmentation import IGNORED
from ggdr.scripts.reports.page_pictures import Pictures, clusters
from ggdr.scripts.training.regularizers import REGULARIZERS
from ggdr.scripts.viewing.cluster_sheets import ClusterError, ClusterOptions
from ggdr.scripts.viewing.segmentation_scores import (
    REPEATS,
    Judged,
    Truth,
    fit_repeats,
    judge_classes,
    judge_clusters,
    judge_probe,
    pixel_features,
)
from ggdr.scripts.viewing.segmentation_sheets import Shown, score_table, segmentation_sheet
from ggdr.scripts.viewing.snapshot_features import SnapshotNetworks
from ggdr.stylegan2.attachment import attachment
from ggdr.stylegan2.snapshot import load_discriminator, load_generator
from ggdr.torch_utils.checkpoint import load_snapshot, save_snapshot
from ggdr.torch_utils.data.label_maps import LabelClasses
from ggdr.torch_utils.pictures.sheets import TEXT_SIZE
from tests.conftest import ggdr, write_dataset
from tests.tiny import pixels, save_tiny, tiny_generator

CPU = torch.device("cpu")
OPTIONS = ClusterOptions(4, spherical=True, seed=0)
CLASSES = 9  # of shapes


def blocks(classes: int = 4, size: int = 8, num: int = 6) -> torch.Tensor:
    """Label maps [num, 2 size, 2 size] uint8 whose classes fill cells of 2x2 pixels."""
    cells = torch.randint(classes, [num, size, size], generator=torch.Generator().manual_seed(0))
    return cells.repeat_interleave(2, 1).repeat_interleave(2, 2).to(torch.uint8)


def one_hot(label_maps: torch.Tensor, classes: int = 4) -> torch.Tensor:
    """Features of half the size that say everything: [N, classes, H / 2, W / 2]."""
    return F.one_hot(label_maps[:, ::2, ::2].long(), classes).permute(0, 3, 1, 2).float()


def judged_clusters(feats: torch.Tensor, label_maps: torch.Tensor, num: int = 4):
    return judge_clusters(fit_repeats(feats, num, OPTIONS, "net"), feats, Truth(label_maps, 4))


# Planted truth.


def test_features_that_are_the_classes_score_one_and_are_shown_as_them():
    label_maps = blocks()
    values, shown = judged_clusters(one_hot(label_maps), label_maps)
    assert values == {name: [pytest.approx(1)] * REPEATS for name in ("miou", "ari", "ami")}
    assert torch.equal(shown, label_maps[:, ::2, ::2].long())


def test_features_of_other_images_score_like_chance():
    label_maps = blocks(num=16)
    values, _ = judged_clusters(one_hot(label_maps.roll(1, dims=0)), label_maps)
    assert max(map(abs, values["ari"] + values["ami"])) < 0.02
    assert all(0.1 < value < 0.2 for value in values["miou"])  # four classes at random: 1 / 7


def test_ignored_pixels_do_not_count():
    label_maps = blocks()
    feats = one_hot(label_maps)
    hidden = label_maps.clone()
    hidden[:, 8:] = IGNORED
    feats[:, :, 4:] = feats[:, :, 4:].flip(1)
    assert judged_clusters(feats, label_maps)[0]["miou"][0] < 0.8
    values, _ = judged_clusters(feats, hidden)
    assert values["miou"] == [pytest.approx(1)] * REPEATS
    assert judge_classes(label_maps.long(), Truth(hidden, 4)) == {"miou": [1]}


def test_clusters_beyond_the_classes_are_shown_without_one():
    label_maps = blocks(classes=2)
    values, shown = judged_clusters(one_hot(blocks()), label_maps, num=4)
    assert set(shown.unique().tolist()) == {0, 1, IGNORED} and values["miou"][0] < 0.7


def test_repeats_are_different_seeds_with_mean_and_sample_deviation():
    feats = torch.randn([4, 6, 8, 8], generator=torch.Generator().manual_seed(0))
    values, _ = judged_clusters(feats, blocks(num=4))
    again, _ = judged_clusters(feats, blocks(num=4))
    assert values == again and len(set(values["miou"])) > 1
    numbers = Judged("net", "discriminator", "real", 8, "k-means", 4, values).numbers()
    assert numbers["repeats"] == REPEATS == 5 and numbers["layer"] == "8x8"
    assert numbers["miou"] == pytest.approx(np.mean(values["miou"]), abs=1e-4)
    assert numbers["miou_sd"] == pytest.approx(np.std(values["miou"], ddof=1), abs=1e-4) and numbers["miou_sd"] > 0


def test_a_probe_learns_from_one_half_and_is_judged_on_the_other():
    label_maps = blocks(num=8)
    assert judge_probe(one_hot(label_maps), Truth(label_maps, 4), 0, "net") == {"miou": [1.0] * REPEATS}
    # A code that tells each image apart could only be learnt by heart.
    rng = torch.Generator().manual_seed(1)
    by_heart = judge_probe(torch.randn([8, 40, 8, 8], generator=rng), Truth(label_maps, 4), 0, "net")["miou"]
    assert max(by_heart) < 0.25 and len(set(by_heart)) > 1


def test_a_probe_without_labels_is_named():
    nothing = torch.full([4, 16, 16], IGNORED, dtype=torch.uint8)
    with pytest.raises(ClusterError, match="net, discriminator, 8x8: no pixel of the label maps has a class"):
        judge_probe(torch.zeros(4, 3, 8, 8), Truth(nothing, 4), 0, "net, discriminator, 8x8")


def test_pixels_have_their_colour_column_and_row():
    images_u8 = torch.zeros([2, 3, 8, 8], dtype=torch.uint8)
    images_u8[1, 0, :, 4:] = 255
    feats = pixel_features(images_u8, 4)
    assert feats.shape == (2, 5, 4, 4) and feats.abs().max() == 1
    assert feats[1, 0, 0].tolist() == [-1, -1, 1, 1]
    assert torch.allclose(feats[0, 3, 1], torch.tensor([-1, -1 / 3, 1 / 3, 1])) and torch.equal(
        feats[0, 4], feats[0, 3].T
    )


# Networks.


def add_decoder(path, name: str, settings: object) -> None:
    """Gives a snapshot another regulariser's decoder, with random weights."""
    snapshot, kind = load_snapshot(path), REGULARIZERS[name]
    at = attachment(load_generator(path), load_discriminator(path), load_generator(path))
    torch.manual_seed(2)
    snapshot.config["training"]["regularizers"][name] = asdict(settings)
    states = {**snapshot.networks, name: kind.build(at, settings).state_dict()}
    # Copies, as the stored tensors are views of the file.
    networks = {key: {layer: weights.clone() for layer, weights in state.items()} for key, state in states.items()}
    save_snapshot(path, networks, snapshot.config)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Snapshots, a dataset with label maps, and a module with a segmenter."""
    folder = tmp_path_factory.mktemp("judged")
    ggdr("dataset", "shapes", folder / "shapes.zip", "--resolution", 16, "--images", 12)
    ggdr("dataset", "shapes", folder / "large.zip", "--resolution", 32, "--images", 3)
    path = save_tiny(folder / "all.safetensors", tiny_generator(res=16), guide_res=8)
    guide = REGULARIZERS["ggdr"].read({"guide_res": [8], "weight": 10.0})
    add_decoder(path, "ema-guide", guide)
    add_decoder(path, "semantic", REGULARIZERS["semantic"].read({"res": 8, "weight": 1.0, "classes": CLASSES}))
    other = save_tiny(folder / "other.safetensors", tiny_generator(res=16), guide_res=8)
    add_decoder(other, "semantic", REGULARIZERS["semantic"].read({"res": 8, "weight": 1.0, "classes": 3}))
    save_tiny(folder / "plain.safetensors", tiny_generator(res=16))
    write_dataset(folder / "unlabelled.zip", num=3, res=16)
    return folder


def judge(files, out, *options: object, network: str = "all", code: int = 0) -> str:
    args = ["--network", files / f"{network}.safetensors", "--seeds", "0-3", "--outdir", out, "--device", "cpu"]
    return ggdr("clusters", *args, *options, code=code)


def rows_of(out) -> list[dict[str, str]]:
    with open(out / "segmentation.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_decoders_features_and_baselines_are_judged_on_real_images(files, tmp_path):
    out = tmp_path / "judged"
    printed = judge(files, out, "--labels", files / "shapes.zip", "--clusters", "3,4")
    rows = rows_of(out)
    found = {(row["features"], row["layer"], row["method"], row["clusters"]) for row in rows}
    clustered = {
        ("ggdr decoder", "8x8"),
        ("ema-guide decoder", "8x8"),
        ("discriminator", "8x8"),
        ("untrained discriminator", "8x8"),
        ("pixels", "8x8"),
        ("pixels", "16x16"),
    }
    assert found == {(*each, "k-means", num) for each in clustered for num in ("3", "4")} | {
        ("discriminator", "8x8", "linear probe", ""),
        ("untrained discriminator", "8x8", "linear probe", ""),
        ("semantic decoder", "8x8", "prediction", ""),
    }
    assert all(row["images"] == "real" and 0 < float(row["miou"]) < 1 for row in rows)
    for row in rows:
        assert (row["ari"] != "") == (row["ari_sd"] != "") == (row["method"] == "k-means")
        assert (row["repeats"], row["miou_sd"] == "") == (
            ("1", True) if row["method"] == "prediction" else ("5", False)
        )
    first = rows[0]
    assert f"{first['layer']} {first['features']} all real 3 clusters {float(first['miou']):.3f} (" in printed
    assert "G's own clusters are left out: label maps of its images take a --segmenter" in printed
    index = json.loads((out / "clusters.json").read_text())
    assert [sheet["file"] for sheet in index["sheets"]] == ["segmentation-8x8.png", "segmentation-16x16.png"]
    assert pixels(out / "segmentation-8x8.png").shape[0] > pixels(out / "segmentation-16x16.png").shape[0]
    # On a page about a run.
    (found,), notes = clusters(tmp_path, "run", Pictures(), 9, link=str)
    assert not notes and [sheet["title"] for sheet in found["sheets"]] == ["Segmentation, 8x8", "Segmentation, 16x16"]
    assert len(found["numbers"]) == len(rows) and found["numbers"][0]["mIoU"] == float(first["miou"])


def test_clusters_are_as_many_as_classes_and_twice_by_default(files, tmp_path):
    judge(files, tmp_path, "--labels", files / "shapes.zip", "--layers", "16")
    assert [row["clusters"] for row in rows_of(tmp_path)] == [str(CLASSES), str(2 * CLASSES)]


def test_with_a_segmenter_the_generators_clusters_are_judged_in_its_own_images(files, tmp_path, monkeypatch):
    (tmp_path / "toy_segmenter.py").write_text(
        "import torch\n\n\ndef bright(device):\n"
        f"    others = torch.full([1, {CLASSES - 2}, 16, 16], -9.0)\n"
        "    return lambda img: torch.cat([img[:, :1], -img[:, :1], others.expand(len(img), -1, -1, -1)], 1)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    options = ["--labels", files / "shapes.zip", "--layers", "8", "--clusters", "2", "--segmenter"]
    judge(files, tmp_path / "out", *options, "toy_segmenter:bright")
    rows = rows_of(tmp_path / "out")
    assert (rows[0]["features"], rows[0]["method"], rows[0]["images"]) == ("segmenter", "prediction", "real")
    own = [(row["method"], row["images"]) for row in rows if row["features"] == "generator"]
    assert own == [("k-means", "generated"), ("linear probe", "generated")]
    assert (tmp_path / "out" / "segmentation-generated-8x8.png").exists()
    (tmp_path / "toy_segmenter_2.py").write_text("def two(device):\n    return lambda img: img[:, :2]\n")
    printed = judge(files, tmp_path / "out", *options, "toy_segmenter_2:two", code=2)
    assert f"'--segmenter': toy_segmenter_2:two: finds 2 classes, and the label maps have {CLASSES}" in printed


def test_networks_of_one_shape_share_the_untrained_one(files, tmp_path):
    options = ["--network", files / "other.safetensors", "--labels", files / "shapes.zip", "--clusters", "2"]
    assert "predicts label maps of 3 classes, got 9 classes" in judge(files, tmp_path, *options, code=2)
    path = save_tiny(tmp_path / "ggdr.safetensors", tiny_generator(res=16), guide_res=8)
    options[1] = path
    judge(files, tmp_path / "out", *options, "--layers", "8", "--label", "a", "--label", "b")
    rows = [(row["features"], row["network"]) for row in rows_of(tmp_path / "out") if row["method"] == "k-means"]
    assert [name for features, name in rows if features == "untrained discriminator"] == [""]
    assert ("discriminator", "a") in rows and ("discriminator", "b") in rows and ("pixels", "") in rows


def test_an_untrained_discriminator_goes_by_its_seed_and_leaves_random_numbers_alone(files):
    net = SnapshotNetworks(files / "all.safetensors", CPU)
    state = torch.random.get_rng_state()
    first, again, other = (net.untrained(seed).D.state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), state)
    name = "b16.conv0.weight"
    assert torch.equal(first[name], again[name]) and not torch.equal(first[name], other[name])
    assert set(net.decoders) == {"ggdr", "ema-guide"} and not torch.equal(first[name], net.D.state_dict()[name])


def test_a_semantic_decoder_names_classes(files):
    net = SnapshotNetworks(files / "all.safetensors", CPU)
    images_u8 = torch.randint(256, [5, 3, 16, 16], dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = net.label_maps_of(images_u8, batch_size=2)
    assert found.shape == (5, 8, 8) and 0 <= found.min() <= found.max() < CLASSES
    assert torch.equal(found, net.label_maps_of(images_u8, batch_size=5))


# What it shows and says.


def test_a_sheet_shows_classes_in_their_colours_and_others_in_black():
    classes = LabelClasses((0, 1), colors=("#ff0000", "#00ff00"))
    image = torch.full([1, 3, 16, 16], 255, dtype=torch.uint8)
    maps = torch.tensor([[[0, 1], [IGNORED, 1]]])
    sheet = segmentation_sheet([Shown("image", picture=image), Shown("classes", maps)], classes, "Title")
    counts = {color: int((sheet == color).all(axis=2).sum()) for color in ((255, 0, 0), (0, 255, 0), (0, 0, 0))}
    swatch = (TEXT_SIZE - 1) ** 2  # of the legend, within its border
    assert list(counts.values()) == [64 * 64 + swatch, 2 * 64 * 64 + swatch, 64 * 64]


def test_the_table_is_aligned_and_has_a_dash_for_what_there_is_not():
    rows = [
        Judged("net", "discriminator", "real", 8, "k-means", 12, {name: [0.5, 0.7] for name in ("miou", "ari", "ami")}),
        Judged("", "segmenter", "real", 16, "prediction", values={"miou": [0.25]}),
    ]
    head, first, second = score_table(rows)
    assert first.split() == "8x8 discriminator net real 12 clusters 0.600 (0.141) 0.600 (0.141) 0.600 (0.141)".split()
    assert second.split() == "16x16 segmenter - real prediction 0.250 - -".split()
    assert head.index("mIoU") == first.index("0.600") == second.index("0.250")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param(["--labels", "{unlabelled}"], "'--labels': {unlabelled}: has no label maps", id="no-label-maps"),
        pytest.param(
            ["--labels", "{large}"],
            "is of images of 16x16 pixels and 3 channels, got images of 32x32 pixels and 3 channels",
            id="resolution",
        ),
        pytest.param(["--labels", "{shapes}", "--max-images", 1], "expected 2 or more images", id="one-image"),
        pytest.param(
            ["--labels", "{shapes}", "--clusters", "auto"], "from 2 to 512 such as 9,18; got 'auto'", id="auto"
        ),
        pytest.param(["--labels", "{shapes}", "--clusters", "3,1"], "got '3,1'", id="one-cluster"),
        pytest.param(["--labels", "{shapes}", "--images", "{shapes}"], "'--images': is about clusters as", id="images"),
        pytest.param(["--labels", "{shapes}", "--export-masks", "x"], "'--export-masks': is about", id="masks"),
        pytest.param(["--segmenter", "a:b"], "'--segmenter': needs --labels", id="segmenter-alone"),
        pytest.param(
            ["--labels", "{shapes}", "--segmenter", "nowhere:b"], "--segmenter nowhere:b: expected", id="segmenter"
        ),
        pytest.param(
            ["--labels", "{shapes}", "--layers", "4", "--clusters", "500", "--seeds", "0"],
            "all, discriminator, 4x4: expected 1 to 192 clusters, one a pixel, got 500",
            id="too-many",
        ),
    ],
)
def test_bad_options_are_named(files, tmp_path, options, expected):
    places = {path.stem: path for path in files.glob("*.zip")}
    options = [str(option).format(**places) for option in options]
    assert expected.format(**places) in judge(files, tmp_path / "out", *options, code=2)


def test_networks_without_discriminator_and_runs_are_refused(files, tmp_path):
    options = ["--labels", files / "shapes.zip"]
    printed = judge(files, tmp_path / "out", *options, network="plain", code=2)
    assert "plain.safetensors holds no discriminator, which looks at the images of --labels" in printed
    assert "goes with --network, not with --run" in ggdr("clusters", "--run", tmp_path, *options, code=2)
