# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr card`: what is known of a network stands in its card, and nothing else."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ggdr.scripts.card import main
from ggdr.scripts.importing.published import ADDRESS
from ggdr.scripts.reports.card_facts import file_name, public, read_facts
from ggdr.scripts.reports.card_markdown import code, md, yaml_lines
from ggdr.scripts.reports.model_card import CardText, model_card
from ggdr.torch_utils.checkpoint import load_snapshot, save_snapshot
from tests.report_runs import OPTIONS
from tests.tiny import pixels, save_tiny, tiny_generator

TRAINING = {
    "cfg": "cpu",
    "data": {
        "path": "/home/secret/data/faces_v2.zip",
        "use_labels": False,
        "mirror": True,
        "max_images": None,
        "num_images": 700,
        "fingerprint": "ab12cd34",
    },
    "loss": {"r1_gamma": 0.01, "style_mixing_prob": 0, "pl_weight": 0},
    "optim": {"lr": 0.0025, "ema_halflife_kimg": 5},
    "augment": {"mode": "ada", "pipe": "bgc", "p": 0.0},
    "regularizers": {"ggdr": {"guide_res": [8], "weight": 10.0}},
    "loop": {"total_nimg": 12000, "batch": 16},
    "precision": "fp32",
    "seed": 3,
    "init_snapshot": "runs/secret/old.safetensors",
}
CHOICES = {
    "mode": "stylegan",
    "num_fakes": 5000,
    "num_reals": 700,
    "seed": 0,
    "quantisation": "uint8",
    "fakes": {"network": "/home/secret/x.safetensors", "psi": 1.0, "noise_mode": "random", "sha256": "0" * 16},
    "reals": {"path": "/home/secret/data/faces_v2.zip", "flips": False, "sha256": "feed"},
    "detector": "inception",
    "detector_hash": "beef",
    "resize": "bilinear, TF1",
    "cov_ddof": 0,
    "versions": {"torch": "2.6"},
}


def write_metric(folder: Path, name: str, values: dict, nimg: int | None, **choices) -> None:
    record = {"metric": name, "results": values, "choices": {**CHOICES, **choices}, "warnings": ["mind *this*"]}
    record |= {} if nimg is None else {"nimg": nimg, "kimg": nimg / 1000}
    with open(folder / f"metric-{name}.jsonl", "a") as file:
        file.write(json.dumps(record) + "\n")


@pytest.fixture
def run_dir(tmp_path) -> Path:
    """A run folder with one snapshot, at 10 kimg of 12."""
    folder = tmp_path / "my_run"
    folder.mkdir()
    path = save_tiny(folder / "network-snapshot-000010.safetensors", tiny_generator(), guide_res=8)
    stored = load_snapshot(path)
    networks = {name: {key: x.clone() for key, x in state.items()} for name, state in stored.networks.items()}
    save_snapshot(path, networks, {**stored.config, "nimg": 10000, "training": TRAINING})
    stats = [
        {"nimg": n, "time/sec_per_kimg": n / 1000, "ada/p": n / 1e5, "loss/D": 1.0, "loss/G": 2.5, "score/real": 0.5}
        for n in (4000, 8000, 10000, 12000)
    ]
    (folder / "stats.jsonl").write_text("".join(json.dumps(line) + "\n" for line in stats))
    hardware = {"cpu": "Some|CPU", "cores": 2, "memory_gib": 4.0, "gpus": [{"name": "Some GPU", "memory_gib": 80.0}]}
    options = {**TRAINING, "command": {"outdir": "/home/secret"}, "versions": {"torch": "2.9"}, "hardware": hardware}
    options |= {name: OPTIONS[name] for name in ("argv", "device", "panels", "pictures")}
    (folder / "training_options.json").write_text(json.dumps(options))
    write_metric(folder, "fid5k_full", {"fid5k_full": 9.0}, 10000)
    write_metric(folder, "fid5k_full", {"fid5k_full": 12.25}, 10000)
    write_metric(folder, "fid5k_full", {"fid5k_full": 77.0}, 4000)
    write_metric(folder, "kid5k_full", {"kid5k_full_mean": 0.5, "kid5k_full_std": 0.25}, 10000, num_subsets=100)
    return folder


def facts_of(path: Path, run_dir: Path | None = None):
    return read_facts(load_snapshot(path), run_dir)


def card_of(path: Path, **about) -> str:
    return model_card(facts_of(path), CardText("A title", **about))


def snapshot_of(run_dir: Path) -> Path:
    return run_dir / "network-snapshot-000010.safetensors"


def rows(card: str) -> dict[str, str]:
    """The tables of a card, by their first column."""
    cells = [line.strip("| ").split(" | ", 1) for line in card.splitlines() if line.startswith("| ")]
    return {cell[0]: cell[1] for cell in cells if len(cell) == 2}


def run(path: Path, *options: object) -> Result:
    return CliRunner().invoke(main, ["--network", str(path), "--device", "cpu", *map(str, options)])


# The front matter.


def test_the_hub_reads_the_front_matter(run_dir):
    huggingface_hub = pytest.importorskip("huggingface_hub", reason="reads cards as the hub does")
    card = huggingface_hub.ModelCard(card_of(snapshot_of(run_dir), license="cc-by-4.0"))
    data = card.data
    assert data.license == "cc-by-4.0" and data.library_name == "ggdr" and data.model_name == "A title"
    assert data.pipeline_tag == "unconditional-image-generation" and {"gan", "stylegan2", "ggdr"} <= set(data.tags)
    results = {result.metric_type: result for result in data.eval_results}
    assert {name: result.metric_value for name, result in results.items()} == {
        "fid5k_full": 12.25,
        "kid5k_full_mean": 0.5,
        "kid5k_full_std": 0.25,
    }
    assert results["fid5k_full"].dataset_name == "faces_v2.zip"


def test_yaml_is_read_back_as_what_was_written():
    yaml = pytest.importorskip("yaml", reason="reads YAML")
    value = {
        "a": ['x: "y" # z', "no", "1e3", "ä\n\U0001f600\x85\u2028\x7f", -1.5e-9, 3, True, None],
        "b": [{"c": [{"d": "e", "f": [1, 2]}], "g": {"h": "i"}}, {"j": "k"}],
    }
    assert yaml.safe_load("\n".join(yaml_lines(value))) == value


def test_without_a_licence_the_card_says_so(run_dir):
    card = card_of(snapshot_of(run_dir))
    assert "\nlicense:" not in card and "No licence has been chosen yet" in card
    assert "and of the weights that training started from" in card
    card = card_of(snapshot_of(run_dir), license="mit")
    assert '\nlicense: "mit"' in card and "No licence" not in card


# Facts.


def test_a_card_tells_how_the_network_came_about(run_dir):
    path = snapshot_of(run_dir)
    card = rows(card_of(path))
    G = tiny_generator()
    num = sum(x.numel() for x in G.parameters())
    assert card["Parameters"] == f"{num:,} of the generator"
    assert card["In the file"] == "discriminator, averaged generator, GGDR decoder"
    assert card["File"] == "`faces_v2.zip`" and card["Images"] == "700" and card["Mirrored"].startswith("yes")
    assert card["Fingerprint"] == "`ab12cd34`" and card["Started from"] == "`old.safetensors`"
    assert card["Images shown"] == "10,000 (10 kimg of the 12 planned)"
    assert card["GGDR"] == "weight 10, guided by the features at 8x8"
    assert card["Augmentation"] == "adaptive (ADA)" and card["Augmentation pipeline"] == "`bgc`"
    assert card["ADA probability at the end"] == "0.1" and card["Losses at the end"] == "D 1; G 2.5"
    assert not [name for name in card if "scores" in name]  # which is no headline
    # 4 kimg at 4 s, 4 at 8 s, 2 at 10 s.
    assert card["Duration"].startswith("1m 08s")
    assert card["Processor"] == "Some\\|CPU" and card["GPU 0"] == "Some GPU, 80.0 GiB" and card["Torch"] == "2.9"
    assert card["Trained on"] == "CPU" and card["Processes"] == "2" and card["Operations"] == "compiled"
    assert card["Run"] == "`my_run`"
    assert card["Its SHA-256"] == f"`{hashlib.sha256(path.read_bytes()).hexdigest()}`"


def test_metrics_are_those_of_the_snapshot_measured_last_with_all_choices(run_dir):
    card = card_of(snapshot_of(run_dir))
    table = rows(card)
    value, how = table["`fid5k_full`"].split(" | ")
    assert value == "12.25" and "77" not in card.split("## Evaluation")[1].split("##")[0]
    for choice in ("5000 fakes", "not truncated", "random noise", "700 reals of faces", "feed", "mode stylegan"):
        assert choice in how
    assert "bilinear, TF1" in how and "covariance / N" in how and "inception beef" in how and "without flips" in how
    value, how = table["`kid5k_full`"].split(" | ")
    assert value == "mean 0.5; std 0.25" and "num subsets 100" in how
    assert "- mind \\*this\\*\n" in card and "fewer than 50,000" in card


def test_results_of_another_mode_stand_beside_and_truncation_is_told(run_dir):
    truncated = CHOICES["fakes"] | {"psi": 0.7}
    write_metric(run_dir, "fid5k_full", {"fid5k_full": 3.0}, 10000, mode="clean", fakes=truncated)
    lines = [line for line in card_of(snapshot_of(run_dir)).splitlines() if line.startswith("| `fid5k_full`")]
    assert len(lines) == 2 and "mode clean" in lines[1] and "truncated, psi 0.7" in lines[1]


def test_a_result_is_found_by_the_content_of_the_file_too(run_dir):
    sha256 = hashlib.sha256(snapshot_of(run_dir).read_bytes()).hexdigest()[:16]
    write_metric(run_dir, "is5k", {"is5k_mean": 4.0}, None, fakes={"sha256": sha256})
    write_metric(run_dir, "is6k", {"is6k_mean": 5.0}, None, fakes={"sha256": "other"})
    card = card_of(snapshot_of(run_dir))
    assert "`is5k`" in card and "`is6k`" not in card


def test_what_is_not_known_is_left_out(tmp_path):
    path = save_tiny(tmp_path / "net.safetensors", tiny_generator(c_dim=2, img_channels=1))
    card = card_of(path)
    assert "Not evaluated" in card and "how good and how varied" in card and "model-index" not in card
    for heading in (
        "## Training data",
        "Duration",
        "Batch",
        "Augmentation",
        "Mirrored",
        "Run",
        "discriminator",
        "None",
    ):
        assert heading not in card, heading
    assert "ggdr" not in card.split("---")[1].split("tags:")[1] and "lee2022ggdr" not in card
    assert "2 classes" in card and "grey" in card and "karras2020ada" in card
    assert "c = torch.eye(G.c_dim)" in card and "--class 0" in card


def test_few_training_images_and_a_decoder_that_only_looked_on_are_told(run_dir):
    card = card_of(snapshot_of(run_dir))
    assert "trained on 700 images only" in card and "got to 10 of 12 kimg" in card
    path = snapshot_of(run_dir)
    stored = load_snapshot(path)
    networks = {name: {key: x.clone() for key, x in state.items()} for name, state in stored.networks.items()}
    training = {**TRAINING, "regularizers": {"ggdr": {"guide_res": [8], "weight": 0.0}}}
    source = {"file": "/home/secret/ffhq.pkl", "sha256": "cafe", "format": "StyleGAN2-ADA pickle"}
    save_snapshot(path, networks, {**stored.config, "training": training, "source": source})
    card = card_of(path)
    assert "trained with generator-guided" not in card and "weight 0" in card
    assert rows(card)["Imported from"] == "`ffhq.pkl`" and rows(card)["SHA-256 of that file"] == "`cafe`"
    assert "weights that were imported" in card and "secret" not in card


def test_a_run_elsewhere_is_named_and_must_be_one(run_dir, tmp_path):
    (tmp_path / "moved").mkdir()
    moved = snapshot_of(run_dir).rename(tmp_path / "moved" / "net.safetensors")
    assert facts_of(moved).run is None and facts_of(moved).metrics == []
    assert facts_of(moved, run_dir).run == "my_run" and len(facts_of(moved, run_dir).metrics) == 2
    with pytest.raises(ValueError, match="stats.jsonl"):
        facts_of(moved, tmp_path)


# Text.


def test_no_folder_of_a_file_is_told():
    settings = {"data": {"path": "a/b.zip", "n": 1}, "command": ["/x/y z.pt", "~/q.zip", "C:\\u\\v.zip", "1/2"]}
    settings |= {"file": "c:/d/e.pkl", "text": "and/or", "address": "https://host/a.pkl"}
    assert public(settings) == {
        "data": {"path": "b.zip", "n": 1},
        "command": ["y z.pt", "q.zip", "v.zip", "1/2"],
        "file": "e.pkl",
        "text": "and/or",
        "address": "https://host/a.pkl",
    }
    assert file_name("\\\\server\\share\\x.zip") == "x.zip" and file_name("x.zip") == "x.zip"


def test_text_of_others_is_shown_and_not_obeyed(run_dir):
    assert md("a|b\n# <img src=x> [l](https://h) `c` *d*\x1b[2J") == (
        "a\\|b \\# \\<img src=x\\> \\[l\\](https:\\//h) \\`c\\` \\*d\\* \\[2J"
    )
    assert code("a`b|c\nd") == "`` a`b\\|c d ``" and code("x") == "`x`"
    card = model_card(facts_of(snapshot_of(run_dir)), CardText('x"\n---\n# <script>'))
    assert card.count("\n---\n") == 1 and "<script>" not in card.split("\n---\n")[1]
    card = model_card(facts_of(snapshot_of(run_dir)), CardText("A title", weights="x; reboot `a`.safetensors"))
    assert "ggdr generate --network 'x; reboot `a`.safetensors' --seeds" in card
    assert "`` x; reboot `a`.safetensors ``" in card


def test_settings_of_any_type_make_a_card_and_are_shown_as_text(tmp_path):
    odd = ["<script>", 7, ["<b>"], {"a": 1}, None, True, [[1]], 10**400, "\ud800\x1b[2J"]
    for value in odd:
        training = {name: value for name in ("cfg", "precision", "seed", "init_snapshot", "data", "loop")}
        for part, keys in TRAINING.items():
            if isinstance(keys, dict):
                training[part] = dict.fromkeys(keys, value)
        path = save_tiny(tmp_path / "net.safetensors", tiny_generator())
        stored = load_snapshot(path)
        networks = {name: {key: x.clone() for key, x in state.items()} for name, state in stored.networks.items()}
        source = dict.fromkeys(("file", "sha256", "format", "augment_p"), value)
        config = {**stored.config, "nimg": value, "best": value, "source": source, "training": training}
        save_snapshot(path, networks, config)
        assert not re.search(r"(?<!\\)<(script|b)>", re.sub(r"`[^`\n]*`", "", card_of(path)))


def test_a_weight_that_an_imported_network_does_not_tell_is_not_told(run_dir):
    path = snapshot_of(run_dir)
    stored = load_snapshot(path)
    networks = {name: {key: x.clone() for key, x in state.items()} for name, state in stored.networks.items()}
    training = {"regularizers": {"ggdr": {"guide_res": [8], "weight": 10.0}}}
    save_snapshot(path, networks, {"G": stored.config["G"], "D": stored.config["D"], "training": training})
    assert rows(card_of(path))["GGDR"] == "guided by the features at 8x8"


def test_regularisers_are_those_of_the_settings(run_dir):
    path = snapshot_of(run_dir)
    stored = load_snapshot(path)
    networks = {name: {key: x.clone() for key, x in state.items()} for name, state in stored.networks.items()}

    def card_with(regularizers: object) -> str:
        save_snapshot(path, networks, {**stored.config, "training": {**TRAINING, "regularizers": regularizers}})
        return card_of(path)

    card = rows(card_with({"other_one": {"gain": 2.0, "layers": [1, 2], "weight": 3.0}}))
    assert card["Regulariser other\\_one"] == "weight 3, gain 2; layers 1, 2" and card["GGDR"] == "not used"
    assert rows(card_with({}))["GGDR"] == "not used"
    for odd in (None, 5, "<b>", [1], {"<b>": "<b>"}, {"ggdr": ["<b>"]}, {"ggdr": {"guide_res": {"a": 1}}}):
        assert "<b>" not in re.sub(r"`[^`\n]*`", "", card_with(odd)).replace("\\<b", "")


def test_copies_of_imported_weights_tell_where_those_came_from(run_dir):
    path = snapshot_of(run_dir)
    stored = load_snapshot(path)
    networks = {name: {key: x.clone() for key, x in state.items()} for name, state in stored.networks.items()}
    source = {"file": "ffhq.pkl", "format": "pickle of StyleGAN2-ADA", "url": f"{ADDRESS}/ffhq.pkl", "augment_p": 0.25}
    for name in ("imported.safetensors", "copy.safetensors"):
        source = {"file": name, "format": "snapshot", "source": source}
    save_snapshot(path, networks, {**stored.config, "source": source})
    card = rows(card_of(path))
    assert card["Imported from"] == "`ffhq.pkl`" and card["Its format"] == "`pickle of StyleGAN2-ADA`"
    assert "non-commercial" in card["Its licence"]


def test_runs_that_began_with_imported_weights_tell_where_those_came_from(run_dir):
    path = snapshot_of(run_dir)
    stored = load_snapshot(path)
    networks = {name: {key: x.clone() for key, x in state.items()} for name, state in stored.networks.items()}
    source = {"file": "ffhq.pkl", "url": f"{ADDRESS}/ffhq.pkl", "sha256": 5}
    save_snapshot(path, networks, {**stored.config, "training": stored.config["training"] | {"init_source": source}})
    card = rows(card_of(path))
    assert card["Training began with"] == "`ffhq.pkl`" and "Imported from" not in card
    assert "non-commercial" in card["Its licence"] and "SHA-256 of that file" not in card


# The command.


def test_command_writes_the_card_and_its_pictures(run_dir, tmp_path):
    out = tmp_path / "card" / "README.md"
    result = run(snapshot_of(run_dir), "--out", out, "--seeds", "0-9", "--trunc", "0.5", "--repo", "me/faces")
    assert result.exit_code == 0, result.output
    assert "names no licence" in result.output
    assert sorted(path.name for path in out.parent.iterdir()) == ["README.md", "samples.png"]
    card = out.read_text()
    assert "# my\\_run" in card and '"me/faces", "network-snapshot-000010.safetensors"' in card
    assert "![Samples](samples.png)" in card and "seeds 0 to 9, truncated with psi 0.5" in card
    assert "secret" not in card and str(tmp_path) not in card
    height, width, _ = pixels(out.with_name("samples.png")).shape
    assert width > 8 * 128 and 2 * 128 < height < 3 * 128


def test_command_can_do_without_pictures(run_dir, tmp_path):
    options = ["--no-samples", "--title", "Faces", "--license", "mit"]
    result = run(snapshot_of(run_dir), "--out", tmp_path / "x.md", *options)
    assert result.exit_code == 0 and "licence" not in result.output
    assert "# Faces\n" in (tmp_path / "x.md").read_text() and "Samples" not in (tmp_path / "x.md").read_text()
    assert not (tmp_path / "samples.png").exists()


@pytest.mark.parametrize(
    ("options", "messages"),
    [
        (["--out", "README"], ["--out", ".md"]),
        (["--out", "x.md", "--license", "My Licence"], ["--license", "small letters"]),
        (["--out", "x.md", "--repo", "a/b/c"], ["--repo", "USER/NAME"]),
        (["--out", "x.md", "--seeds", "0-999"], ["--seeds", "256 samples"]),
        (["--out", "x.md", "--run", "."], ["--run", "stats.jsonl"]),
    ],
)
def test_bad_options_are_named_and_nothing_is_made(tmp_path, monkeypatch, options, messages):
    path = save_tiny(tmp_path / "net.safetensors", tiny_generator())
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    result = run(path, *options)
    assert result.exit_code == 2 and isinstance(result.exception, SystemExit)
    for message in messages:
        assert message in " ".join(result.output.split())
    assert not list((tmp_path / "here").iterdir())


def test_the_readme_of_a_project_is_not_replaced_but_a_card_is(run_dir, tmp_path):
    out = tmp_path / "README.md"
    out.write_text("# My project")
    result = run(snapshot_of(run_dir), "--out", out, "--seeds", "0")
    assert result.exit_code == 2 and "is there and is no model card" in " ".join(result.output.split())
    assert out.read_text() == "# My project" and not out.with_name("samples.png").exists()
    out.write_text("---\nlicense: mit\n---\n")
    assert run(snapshot_of(run_dir), "--out", out, "--seeds", "0").exit_code == 0 and "my\\_run" in out.read_text()


def test_without_a_place_the_card_goes_into_a_folder_beside_the_snapshot_once(run_dir, tmp_path):
    written = run_dir / "card" / "README.md"
    assert run(run_dir, "--seeds", "0").exit_code == 0
    assert written.read_text().startswith("---") and written.with_name("samples.png").exists()
    written.write_text("---\nlicense: mit\n---\nMy own words.\n")
    result = run(run_dir, "--seeds", "0")
    assert result.exit_code == 2 and f"{written} is there: give --out" in " ".join(result.output.split())
    assert "My own words." in written.read_text()


def test_without_a_place_no_card_is_written_through_a_link(run_dir, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (run_dir / "card").symlink_to(tmp_path / "elsewhere")
    result = run(run_dir, "--seeds", "0")
    assert result.exit_code == 2 and "is a link" in result.output
    assert not list((tmp_path / "elsewhere").iterdir())


ODD_LINES = [
    {"choices": [1]},
    {"choices": {"fakes": "x", "reals": "y"}},
    {"choices": {"reals": {"flips": [1], "path": ["a"]}, "num_fakes": 10**400, "detector": {"a": 1}}},
    {"warnings": 5},
    {"warnings": [{"a": 1}, "\x1b[2J"], "nimg": {}},
]


@pytest.mark.parametrize("odd", ODD_LINES, ids=range(len(ODD_LINES)))
def test_metrics_with_odd_choices_make_a_card(run_dir, odd):
    record = {"metric": "fid5k_full", "results": {"fid5k_full": 3.5}, "nimg": 10000, "kimg": 10, "choices": CHOICES}
    (run_dir / "metric-fid5k_full.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in (record, record | odd))
    )
    card = card_of(snapshot_of(run_dir))
    assert "| 3.5 |" in card and "\x1b" not in card


def test_damaged_metrics_are_named(run_dir):
    (run_dir / "metric-fid5k_full.jsonl").write_text("not json\n")
    result = run(snapshot_of(run_dir), "--out", run_dir / "x.md")
    assert result.exit_code == 2 and "metric-fid5k_full.jsonl" in " ".join(result.output.split())
    assert not (run_dir / "x.md").exists()
