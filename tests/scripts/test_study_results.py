# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What is read from the folders of a study's runs, and the table that shows it."""

from __future__ import annotations

import json
import math

import pytest
import scipy.stats

from ggdr.scripts.studies.definition import Study, Variant
from ggdr.scripts.studies.results import read_results
from ggdr.scripts.studies.study_folder import StudyFolder, runs_in_order
from ggdr.scripts.studies.table import markdown
from tests.report_runs import EVIL, METRIC, add_metric, make_run

# Values at 4, 8 and 12 kimg by variant and seed.
VALUES = {
    "none": {0: (90.0, 70.0, 60.0), 1: (94.0, 74.0, 62.0), 2: (92.0, 72.0, 64.0)},
    "ggdr": {0: (80.0, 58.0, 50.0), 1: (84.0, 60.0, 51.0), 2: (82.0, 62.0, 55.0)},
}
KIMG = (4.0, 8.0, 12.0)


def make_study(path, values, *, metric=METRIC, kimg=KIMG, unfinished=()):
    """A study of run folders with a metric at some kimg; all runs are finished but some, by their names."""
    options = {"data": "/data.zip", "kimg": 12.0}
    variants = (Variant("none", {"ggdr": False}), *(Variant(name, {}) for name in values if name != "none"))
    seeds = tuple(dict.fromkeys(seed for mine in values.values() for seed in mine))
    study, folder = Study("train", options, variants, seeds, (metric,)), StudyFolder(path, versions={"ggdr": "1"})
    for run in runs_in_order(study):
        if run.seed in values[run.variant.name]:
            make_run(folder.run_folder(run), snaps=(), offset=run.seed)
            add_metric(
                folder.run_folder(run), dict(zip(kimg, values[run.variant.name][run.seed], strict=False)), metric
            )
            if run.name not in unfinished:
                folder.ended[run.name] = 0
    return study, folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return read_results(*make_study(tmp_path_factory.mktemp("results") / "study", VALUES))


def test_means_and_spread_are_of_the_last_snapshot(data):
    assert data["metrics"] == [{"name": METRIC, "better": "lower"}]
    none, ggdr = (variant["summary"][METRIC] for variant in data["variants"])
    assert none == {"mean": 62.0, "sd": 2.0, "values": {"0": 60.0, "1": 62.0, "2": 64.0}}
    assert ggdr["mean"] == 52.0 and ggdr["sd"] == pytest.approx(math.sqrt(7))


def test_a_variant_says_what_its_runs_train(tmp_path):
    study, folder = make_study(tmp_path, {"none": {0: VALUES["none"][0]}, "ggdr": {0: VALUES["ggdr"][0]}})
    options = folder.path / "none/seed0/training_options.json"
    options.write_text(json.dumps({**json.loads(options.read_text()), "regularizers": {}}))
    later = Study(study.command, study.options, (*study.variants, Variant("later", {})), study.seeds, study.metrics)
    none, ggdr, later = read_results(later, folder)["variants"]
    assert [none["regularizers"], ggdr["regularizers"], later["regularizers"]] == [[], ["ggdr"], None]
    assert [ggdr["model"], later["model"]] == ["stylegan2", None]


def test_pairs_are_the_baseline_and_each_other_variant(data):
    (pair,) = data["pairs"]
    found = pair["metrics"][METRIC]
    assert (pair["a"], pair["b"], found["seeds"], found["differences"]) == ("none", "ggdr", [0, 1, 2], [-10, -11, -9])
    assert found["wins"] == 3 and found["mean"] == -10
    interval = scipy.stats.ttest_1samp(found["differences"], 0).confidence_interval(0.95)
    assert (found["low"], found["high"]) == pytest.approx((interval.low, interval.high))


def test_reach_is_where_the_mean_curve_is_as_good_as_the_others_last_value(data):
    reach = data["pairs"][0]["metrics"][METRIC]["reach"]
    # ggdr: 82 at 4, 60 at 8; none's last mean is 62.
    assert reach["a_last"] == 62 and reach["b_kimg"] == pytest.approx(4 + 4 * 20 / 22)
    assert reach["b_last"] == 52 and reach["a_kimg"] is None and reach["a_hours"] is None
    rate = data["variants"][1]["seconds_per_kimg"]
    assert reach["b_hours"] == pytest.approx(reach["b_kimg"] * rate / 3600)


def test_costs_are_means_over_runs(data):
    none = data["variants"][0]
    seconds = 11 * 10.0 + 100.0  # one tick of make_run is slow
    assert none["hours"] == pytest.approx(seconds / 3600) and none["gib"] == 0.5
    assert none["seconds_per_kimg"] == pytest.approx(seconds / 12)


def test_runs_tell_their_state_curves_and_command(data):
    run = data["variants"][0]["runs"][1]
    assert (run["seed"], run["folder"], run["state"], run["kimg"]) == (1, "none/seed1", "finished", 12)
    assert run["metrics"][METRIC] == [[4.0, 94.0], [8.0, 74.0], [12.0, 62.0]]
    assert run["curves"]["loss/D"][0] == [1.0, 2.0] and "sign/real" not in run["curves"]
    assert run["command"].endswith(f"--kimg 12 --no-ggdr --seed 1 --metrics {METRIC}")
    assert {"key": "loss/D", "title": "D", "unit": "loss", "group": "Losses"} in data["panels"]
    assert data["variants"][0]["options"] == "--no-ggdr" and data["budget_kimg"] == 12


def test_everything_can_be_json(data):
    assert json.loads(json.dumps(data, allow_nan=False)) == data


def test_higher_can_be_better(tmp_path):
    values = {"none": {0: (0.1, 0.2, 0.3), 1: (0.1, 0.2, 0.3)}, "ggdr": {0: (0.2, 0.4, 0.5), 1: (0.2, 0.4, 0.2)}}
    data = read_results(*make_study(tmp_path / "s", values, metric="is1k"))
    assert data["metrics"] == [{"name": "is1k", "better": "higher"}]
    found = data["pairs"][0]["metrics"]["is1k"]
    assert found["wins"] == 1 and found["reach"]["b_kimg"] == pytest.approx(6)
    assert found["reach"]["a_kimg"] is None


def test_unfinished_runs_are_in_no_mean_and_no_pair(tmp_path):
    data = read_results(*make_study(tmp_path / "s", VALUES, unfinished=("none/seed1", "ggdr/seed2")))
    none, ggdr = data["variants"]
    assert none["summary"][METRIC]["values"] == {"0": 60.0, "2": 64.0}
    assert none["runs"][1]["state"] == "stopped" and none["runs"][1]["metrics"][METRIC]
    found = data["pairs"][0]["metrics"][METRIC]
    assert found["seeds"] == [0] and (found["low"], found["high"]) == (None, None)


def test_one_seed_has_no_spread_and_no_interval(tmp_path):
    data = read_results(*make_study(tmp_path / "s", {name: {0: mine[0]} for name, mine in VALUES.items()}))
    assert data["variants"][0]["summary"][METRIC]["sd"] is None
    assert "| ggdr | fd_offline1k_full | -10 |  | 1 of 1 | -10 |" in markdown(data)


def test_a_study_without_any_run_has_a_table(tmp_path):
    study, folder = make_study(tmp_path / "s", {"none": {0: ()}, "ggdr": {0: ()}})
    data = read_results(study, StudyFolder(tmp_path / "elsewhere", versions={}))
    assert data["variants"][0]["summary"] == {} and data["pairs"][0]["metrics"] == {} and data["metrics"] == []
    assert data["variants"][0]["hours"] is None and data["variants"][0]["runs"][0]["state"] == "missing"
    assert "0 of 2 runs finished, 12 kimg each." in markdown(data) and "No run has a metric yet." in markdown(data)


def test_a_value_that_is_no_number_is_left_out_and_noted(tmp_path):
    values = {"none": {0: (9.0, 8.0, 7.0)}, "ggdr": {0: (9.0, 6.0, math.nan)}}
    data = read_results(*make_study(tmp_path / "s", values))
    assert f"ggdr/seed0: {METRIC} is no number at 12 kimg, and left out" in data["notes"]
    assert data["pairs"][0]["metrics"][METRIC]["differences"] == [-2.0]  # at 8 kimg, the last that both have
    assert "is no number at 12 kimg" in markdown(data)


def test_variants_whose_snapshots_lie_elsewhere_are_compared_at_their_own_last_ones(tmp_path):
    study, folder = make_study(tmp_path / "s", VALUES)
    for seed in (0, 1, 2):
        add_metric(folder.path / "ggdr" / f"seed{seed}", dict(zip((4.5, 8.5, 12.5), VALUES["ggdr"][seed], strict=True)))
    data = read_results(study, folder)
    assert data["pairs"][0]["metrics"][METRIC]["differences"] == [-10, -11, -9]
    assert any("share no snapshot" in note and "compared at 12 and 12.5 kimg" in note for note in data["notes"])


def test_a_finished_run_without_the_metric_is_noted(tmp_path):
    study, folder = make_study(tmp_path / "s", VALUES)
    (folder.path / "ggdr" / "seed1" / f"metric-{METRIC}.jsonl").unlink()
    data = read_results(study, folder)
    assert data["pairs"][0]["metrics"][METRIC]["seeds"] == [0, 2]
    assert data["notes"].count(f"ggdr/seed1: finished without {METRIC}, and left out of it") == 1


def test_a_run_that_cannot_be_read_is_noted(tmp_path):
    study, folder = make_study(tmp_path / "s", VALUES)
    (folder.path / "ggdr" / "seed1" / "stats.jsonl").write_text("[]\n")
    data = read_results(study, folder)
    assert any("ggdr/seed1" in note and "line 1" in note for note in data["notes"])


def test_runs_of_another_version_or_machine_are_noted(tmp_path):
    study, folder = make_study(tmp_path / "s", VALUES)
    path = folder.path / "ggdr" / "seed1" / "training_options.json"
    options = json.loads(path.read_text())
    path.write_text(json.dumps({**options, "versions": {"torch": "0"}, "hardware": {"cpu": "another"}}))
    notes = read_results(study, folder)["notes"]
    assert "versions of software differ: ggdr/seed1 from none/seed0" in notes
    assert "machines differ: ggdr/seed1 from none/seed0" in notes


def test_the_table_shows_every_number_and_no_markup_of_files(data):
    text = markdown({**data, "notes": [f"{EVIL} | a | `b` \n# c"]})
    assert "| none | 62 | 2 | 60 | 62 | 64 |" in text and "| ggdr | 52 | 2.6458 | 50 | 51 | 55 |" in text
    assert "| ggdr | fd_offline1k_full | -10 | -12.484 to -7.5159 | 3 of 3 | -10, -11, -9 |" in text
    assert "| ggdr | fd_offline1k_full 62 of none | 7.6364 | " in text
    assert "| none | fd_offline1k_full 52 of ggdr | not reached |  |" in text
    assert text.count("ggdr train --outdir") == 6 and "<script" not in text and "\n# c" not in text
