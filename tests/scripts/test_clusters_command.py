# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr clusters`: its files, colours that stay put, and what it says about bad input."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from matplotlib.figure import Figure
from PIL import Image, ImageSequence

from ggdr.label_images import palette
from ggdr.scripts.clusters import main, parse_clusters, parse_layers
from ggdr.scripts.viewing.cluster_sheets import ClusterError, ClusterOptions, view_network, view_photographs
from ggdr.scripts.viewing.over_training import plot_agreement, snapshots_of
from ggdr.scripts.viewing.snapshot_features import SnapshotFeatures, SnapshotNetworks
from ggdr.stylegan2.latent.sampling import generate_images
from tests.conftest import write_dataset
from tests.plugin.test_clusters import planted
from tests.tiny import pixels, save_tiny, tiny_generator

CPU = torch.device("cpu")
OPTIONS = ClusterOptions(5, spherical=True, seed=0)


@pytest.fixture
def run(tmp_path):
    """Runs the command, by default on a snapshot of tiny networks with a decoder."""

    def run_clusters(*options: object, network: str | None = "net.safetensors", guide_res: int | None = 8) -> Result:
        args = ["--seeds", "0-2", "--clusters", "3", "--device", "cpu", "--outdir", str(tmp_path / "out")]
        if network is not None:
            save_tiny(tmp_path / network, tiny_generator(res=16), guide_res=guide_res)
            args += ["--network", str(tmp_path / network)]
        return CliRunner().invoke(main, [*args, *map(str, options)])

    return run_clusters


def message(result: Result) -> str:
    assert result.exit_code == 2 and isinstance(result.exception, SystemExit), result.output
    return " ".join(result.output.split())


def names(folder) -> set[str]:
    return {path.name for path in folder.iterdir()}


def view_of(feats: torch.Tensor, img: torch.Tensor | None = None, name: str = "net", **options):
    """A view of one layer's features."""
    img = torch.zeros(len(feats), 3, 16, 16) if img is None else img
    seen = SnapshotFeatures(
        img, {feats.shape[-1]: feats}, {feats.shape[-1]: feats.clone()}, {feats.shape[-1]: feats.clone()}
    )
    return view_network(name, seen, [f"seed {i}" for i in range(len(feats))], OPTIONS, **options)


# What is seen.


def test_features_are_those_of_the_images_of_generate(tmp_path):
    G = tiny_generator(res=16)
    net = SnapshotNetworks(save_tiny(tmp_path / "net.safetensors", G, guide_res=8), CPU)
    assert net.guides("ggdr") == [8] and net.layers == [4, 8, 16] and net.nimg == 1000
    seen = net.of_seeds([3, 5, 8], [4, 8], label=None, psi=0.7, batch_size=2)
    expected = [u8 for _, u8, _ in generate_images(G, [3, 5, 8], device="cpu", batch_size=3, truncation_psi=0.7)]
    assert (seen.img.mul(127.5).add(128).clamp(0, 255).to(torch.uint8).int() - expected[0].int()).abs().max() <= 1
    assert [(res, x.shape) for res, x in seen.generator.items()] == [(4, (3, 8, 4, 4)), (8, (3, 4, 8, 8))]
    assert [(res, x.shape[1:]) for res, x in seen.predicted.items()] == [(8, (4, 8, 8))]
    assert [(res, x.shape[2:]) for res, x in seen.encoder.items()] == [(4, (4, 4)), (8, (8, 8))]


def test_photographs_are_seen_as_the_same_pixels_made_by_the_generator_are(tmp_path):
    G = tiny_generator(res=16)
    for block in G.synthesis.blocks:  # images within [-1, 1]
        block.torgb.weight.mul_(0.02)
    net = SnapshotNetworks(save_tiny(tmp_path / "net.safetensors", G, guide_res=8), CPU)
    made = net.of_seeds([0, 1], [8], label=None, psi=1, batch_size=2)
    assert 0.1 < made.img.abs().max() < 1
    seen = net.of_images(made.img.mul(127.5).add(127.5).round().to(torch.uint8), [8], batch_size=1)
    assert not seen.generator
    for ours, theirs in ((seen.predicted[8], made.predicted[8]), (seen.encoder[8], made.encoder[8])):
        assert (ours - theirs).abs().max() < 0.05 * theirs.abs().max()


@pytest.mark.parametrize("num", [1, 5, 6])
def test_any_number_of_images_is_seen_whatever_the_minibatch_of_training(tmp_path, num):
    net = SnapshotNetworks(save_tiny(tmp_path / "n.safetensors", tiny_generator(res=16), guide_res=8), CPU)
    seen = net.of_seeds(range(num), [8], label=None, psi=1, batch_size=16)
    one_by_one = net.of_seeds(range(num), [8], label=None, psi=1, batch_size=1)
    for ours, theirs in ((seen.predicted[8], one_by_one.predicted[8]), (seen.encoder[8], one_by_one.encoder[8])):
        assert len(ours) == num and torch.allclose(ours, theirs, atol=1e-4 * theirs.abs().max())


# Colours and numbers.


def test_colours_stay_put_when_clusters_change_size_and_features_turn():
    feats, labels = planted(5, seed=0)
    first = view_of(feats)
    # The next snapshot: other channels, and a segment that outgrows the others.
    moved = labels.clone()
    moved[:, :4] = int(labels.flatten().bincount().argmin())
    turned = torch.linalg.qr(torch.randn(24, 24, generator=torch.Generator().manual_seed(1)))[0]
    codes = torch.stack([feats.permute(0, 2, 3, 1)[labels == i].mean(dim=0) for i in range(5)])
    later_feats = (codes @ turned)[moved].permute(0, 3, 1, 2)
    unmatched = view_of(later_feats).generator[16]
    matched = view_of(later_feats, like=first, same_latents=True).generator[16]
    same = moved == labels
    assert (unmatched == first.generator[16])[same].float().mean() < 1
    assert torch.equal(matched[same], first.generator[16][same])


def test_colours_of_another_run_go_by_what_clusters_look_like():
    shades = torch.tensor([-0.9, -0.4, 0.0, 0.5, 0.9])
    views, truth = [], []
    for seed in (0, 1):
        feats, labels = planted(5, seed=seed)
        img = shades[labels][:, None].expand(-1, 3, -1, -1)
        views.append(view_of(feats, img, name=str(seed), like=views[0] if views else None))
        truth.append(labels)
    for shade in range(5):
        numbers = [
            view.generator[16][labels == shade].unique().tolist() for view, labels in zip(views, truth, strict=True)
        ]
        assert numbers[0] == numbers[1] and len(numbers[0]) == 1


def test_layers_of_one_network_share_their_colours():
    coarse, labels = planted(5, size=8, seed=0)
    codes = torch.randn([5, 7], generator=torch.Generator().manual_seed(2))
    fine_labels = labels.repeat_interleave(2, 1).repeat_interleave(2, 2)
    fine = codes[fine_labels].permute(0, 3, 1, 2)
    view = view_network(
        "net", SnapshotFeatures(torch.zeros(6, 3, 16, 16), {8: coarse, 16: fine}), list("abcdef"), OPTIONS
    )
    assert torch.equal(view.generator[16][:, ::2, ::2], view.generator[8])


def test_a_perfect_discriminator_scores_one_and_a_blind_one_nothing():
    feats, _ = planted(5)
    assert view_of(feats).numbers() == [
        {"network": "net", "layer": "16x16", "clusters": 5, "nmi": 1, "cosine": 1, "encoder_nmi": 1}
    ]
    blind = torch.randn(feats.shape, generator=torch.Generator().manual_seed(1))
    seen = SnapshotFeatures(torch.zeros(6, 3, 16, 16), {16: feats}, {16: blind}, {16: blind})
    numbers = view_network("net", seen, list("abcdef"), OPTIONS).numbers()[0]
    assert numbers["nmi"] < 0.1 and abs(numbers["cosine"]) < 0.1 and numbers["encoder_nmi"] < 0.1


def test_photographs_are_shown_in_the_clusters_of_the_generator():
    feats, labels = planted(5)
    network = view_of(feats[:4])
    seen = SnapshotFeatures(torch.zeros(2, 3, 16, 16), {}, {16: feats[4:]}, {16: feats[4:]})
    photographs = view_photographs(network, seen, ["a", "b"])
    colors = {i: network.generator[16][labels[:4] == i].unique().item() for i in range(5)}
    expected = torch.tensor([colors[i] for i in range(5)])[labels[4:]]
    assert torch.equal(photographs.predicted[16], expected) and torch.equal(photographs.encoder[16], expected)


def test_features_that_cannot_be_clustered_are_named():
    with pytest.raises(ClusterError, match="net, generator, 8x8: .* 5 clusters"):
        view_of(torch.ones(2, 3, 8, 8))


# Files.


def test_sheets_maps_labels_and_numbers_are_written(run, tmp_path):
    result = run()
    assert result.exit_code == 0, result.output
    out = tmp_path / "out"
    sheets = {"generator-8x8.png", "generator-16x16.png", "discriminator-8x8.png"}
    assert names(out) == sheets | {"clusters.json", "numbers.csv", "labels.npz", "maps"}
    with np.load(out / "labels.npz") as arrays:
        labels = arrays["generator_8x8"]
        assert labels.shape == (3, 8, 8) and labels.dtype == np.uint8 and set(np.unique(labels)) == {0, 1, 2}
        assert arrays["predicted_8x8"].shape == (3, 8, 8) and arrays["centers_16x16"].shape == (3, 2)
        assert arrays["captions"].tolist() == ["seed 0", "seed 1", "seed 2"]
    with Image.open(out / "maps" / "generator-8x8" / "seed_1.png") as image:
        assert image.mode == "P" and (np.asarray(image)[::2, ::2] == labels[1]).all()
        assert image.getpalette()[:9] == palette(3).flatten().tolist()
    index = json.loads((out / "clusters.json").read_text())
    first = index["numbers"][0]
    assert f"net, 8x8: mutual information with the generator's clusters: prediction {first['nmi']:.3f}" in result.output
    assert f"mean cosine similarity of the prediction: {first['cosine']:.3f}" in result.output
    assert {sheet["file"] for sheet in index["sheets"]} == sheets
    with open(out / "numbers.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["layer"] for row in rows] == ["8x8", "16x16"]
    assert float(rows[0]["nmi"]) == index["numbers"][0]["nmi"] and rows[1]["nmi"] == ""


def test_two_networks_and_photographs_stand_side_by_side(run, tmp_path):
    plain = save_tiny(tmp_path / "plain.safetensors", tiny_generator(res=16), guide_res=8)
    photographs = write_dataset(tmp_path / "photos.zip", num=5, res=24)
    result = run(
        "--network", plain, "--label", "with", "--label", "without", "--images", photographs, "--max-images", 4
    )
    assert result.exit_code == 0, result.output
    out = tmp_path / "out"
    assert {"with", "without", "photographs-8x8.png"} <= names(out)
    with np.load(out / "with" / "labels.npz") as arrays:
        assert arrays["photographs_predicted_8x8"].shape == (4, 8, 8) and len(arrays["photographs"]) == 4
    one = run().exit_code == 0 and pixels(out / "generator-8x8.png").shape[0]
    run("--network", plain)
    assert pixels(out / "generator-8x8.png").shape[0] > 1.7 * one


def test_a_run_is_shown_over_training(run, tmp_path):
    for i in range(3):
        path = tmp_path / f"network-snapshot-{i + 1:06d}.safetensors"
        save_tiny(path, tiny_generator(res=16), guide_res=8, nimg=1000 * (i + 1))
    result = run("--run", tmp_path, "--animation", "gif", network=None)
    assert result.exit_code == 0, result.output
    out = tmp_path / "out"
    sheets = {"over-training-8x8.png", "over-training-16x16.png", "over-training-agreement.png"}
    assert names(out) == sheets | {"over-training.gif", "numbers.csv", "clusters.json"}
    with Image.open(out / "over-training.gif") as animation:
        # Three snapshots of one network: a GIF keeps equal frames as one that lasts longer.
        assert sum(frame.info["duration"] for frame in ImageSequence.Iterator(animation)) == 1500
    index = json.loads((out / "clusters.json").read_text())
    assert index["animations"] == [{"file": "over-training.gif", "title": "The same latents over training"}]
    assert len((out / "numbers.csv").read_text().splitlines()) == 1 + 3 * 2 and len(index["numbers"]) == 2


def test_plots_of_the_agreement_have_titles_of_their_own(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *args, **kwargs: figures.append(self))
    plot_agreement([{"kimg": 1, "layer": "8x8", "cosine": 0.5, "nmi": 0.4, "encoder_nmi": 0.3}], tmp_path / "x.png")
    assert len({ax.get_title(loc="left") for ax in figures[0].axes}) == 3


def test_results_of_a_run_lie_in_its_folder_by_default(tmp_path):
    save_tiny(tmp_path / "network-snapshot-000001.safetensors", tiny_generator(res=16))
    args = ["--run", str(tmp_path), "--seeds", "0-1", "--clusters", "auto", "--animation", "none", "--device", "cpu"]
    result = CliRunner().invoke(main, args)
    assert result.exit_code == 0, result.output
    assert names(tmp_path / "clusters") == {
        "over-training-8x8.png",
        "over-training-16x16.png",
        "clusters.json",
        "numbers.csv",
    }


def test_a_snapshot_without_decoder_shows_what_there_is_and_says_so(run, tmp_path):
    result = run(guide_res=None)
    assert result.exit_code == 0 and "holds no GGDR decoder" in result.output
    assert not any(name.startswith("discriminator") for name in names(tmp_path / "out"))


@pytest.mark.parametrize("channels", [1, 4])
def test_grey_and_transparent_networks_work(tmp_path, channels):
    network = save_tiny(tmp_path / "net.safetensors", tiny_generator(res=16, img_channels=channels), guide_res=8)
    photographs = write_dataset(tmp_path / "photos.zip", num=2, res=16)
    args = [
        "--network",
        network,
        "--seeds",
        "0",
        "--images",
        photographs,
        "--outdir",
        tmp_path / "out",
        "--device",
        "cpu",
    ]
    result = CliRunner().invoke(main, [str(arg) for arg in args])
    assert result.exit_code == 0, result.output


def test_a_conditional_network_shows_one_class(tmp_path):
    network = save_tiny(tmp_path / "net.safetensors", tiny_generator(res=16, c_dim=3), guide_res=8)
    args = ["--network", str(network), "--seeds", "0-1", "--outdir", str(tmp_path / "out"), "--device", "cpu"]
    assert "3 classes" in message(CliRunner().invoke(main, args))
    result = CliRunner().invoke(main, [*args, "--class", "1"])
    assert result.exit_code == 0, result.output


# What it says.


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--layers", "64"], "net.safetensors has feature maps of 4, 8, 16 pixels, got 64"),
        (["--layers", "8,7"], "resolutions of feature maps such as 8,16,32, got '8,7'"),
        (["--clusters", "100"], "2 to 32 clusters"),
        (["--clusters", "many"], "got 'many'"),
        (["--layers", "4", "--seeds", "0", "--clusters", "20"], "1 to 16 clusters, one a pixel, got 20"),
        (["--images", "{empty}"], "no images in this folder"),
        (["--label", "a", "--label", "b"], "expected 1 names, one for each --network, got 2"),
        (["--run", "{empty}"], "--network FILE, once or more, or --run RUN_DIR"),
        (["--class", "1"], "unconditional"),
        (["--outdir", "{file}"], "--outdir"),
    ],
)
def test_bad_options_are_named(run, tmp_path, options, expected):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("mine")
    places = {"empty": tmp_path / "empty", "file": tmp_path / "file"}
    assert expected in message(run(*[option.format(**places) for option in options]))


def test_a_folder_without_snapshots_is_named(run, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "empty holds no network-snapshot-*.safetensors yet" in message(
        run("--run", tmp_path / "empty", network=None)
    )


def test_photographs_need_a_discriminator(run, tmp_path):
    photographs = write_dataset(tmp_path / "photos.zip", num=2, res=16)
    assert "holds no discriminator" in message(run("--images", photographs, guide_res=None))


def test_a_network_that_has_diverged_is_named(tmp_path):
    G = tiny_generator(res=16)
    G.synthesis.b8.conv0.weight.fill_(torch.nan)
    network = save_tiny(tmp_path / "net.safetensors", G)
    args = ["--network", str(network), "--outdir", str(tmp_path / "out"), "--device", "cpu"]
    assert "net, generator, 8x8: the features hold NaN" in message(CliRunner().invoke(main, args))


def test_photographs_of_one_name_in_two_folders_are_kept_apart(run, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / "photos" / folder).mkdir(parents=True)
        Image.new("RGB", (20, 30), "red" if folder == "a" else "blue").save(tmp_path / "photos" / folder / "1.png")
    assert run("--images", tmp_path / "photos").exit_code == 0
    assert names(tmp_path / "out" / "maps" / "photographs_predicted-8x8") == {"1.png", "1-2.png"}


def test_labels_name_folders_inside_the_output_folder(run, tmp_path):
    other = save_tiny(tmp_path / "other.safetensors", tiny_generator(res=16))
    assert run("--network", other, "--label", "../a/b", "--label", "..").exit_code == 0
    assert {"_a_b", "_"} <= names(tmp_path / "out")
    expected = "a folder's name of its own for each network, got a/b, a b"
    assert expected in message(run("--network", other, "--label", "a/b", "--label", "a b"))


def test_of_a_long_run_snapshots_are_evenly_spread_up_to_the_last(tmp_path):
    for i in range(1, 11):
        (tmp_path / f"network-snapshot-{i:06d}.safetensors").touch()
    assert [int(path.stem[-6:]) for path in snapshots_of(tmp_path, 4)] == [1, 4, 7, 10]
    assert [int(path.stem[-6:]) for path in snapshots_of(tmp_path, 1)] == [10]
    assert len(snapshots_of(tmp_path, 10)) == 10
    (tmp_path / "network-snapshot-000010.500.safetensors").touch()
    assert [path.name for path in snapshots_of(tmp_path, 1)] == ["network-snapshot-000010.500.safetensors"]


def test_layers_and_clusters_are_read():
    assert parse_layers("32, 8,8") == [8, 32]
    assert parse_clusters("auto") is None and parse_clusters("7") == 7


def test_all_images_are_clustered_and_the_first_sixteen_shown(run, tmp_path):
    heights = {}
    for num in (8, 16, 20):
        assert run("--seeds", f"0-{num - 1}", "--layers", "8").exit_code == 0
        heights[num] = pixels(tmp_path / "out" / "generator-8x8.png").shape[0]
        with np.load(tmp_path / "out" / "labels.npz") as arrays:
            assert len(arrays["generator_8x8"]) == num
    assert heights[8] < heights[16] == heights[20]
