# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Which runs of a study are started, when, with what share of the machine, and what comes of those that fail."""

from __future__ import annotations

import json
import os

import pytest
from click.testing import CliRunner

from ggdr.scripts.studies import machine_shares
from ggdr.scripts.studies.run_progress import how_far
from ggdr.scripts.training.run_folder import RunFolder
from tests.study_cases import SIDE_BY_SIDE, compare, definition, starts, table, use_toy_runs


@pytest.fixture(autouse=True)
def data(monkeypatch, tmp_path):
    return use_toy_runs(monkeypatch, tmp_path)


@pytest.fixture
def study(tmp_path):
    return tmp_path / "study"


def names(folder):
    return [start["run"] for start in starts(folder)]


def test_runs_take_no_module_from_the_current_folder(tmp_path, study, data, monkeypatch):
    (tmp_path / "photos").mkdir()
    for name in ("ggdr", "tests", "runpy", "json", "signal"):
        (tmp_path / "photos" / f"{name}.py").write_text("open(__file__ + '.executed', 'w')\n")
    monkeypatch.chdir(tmp_path / "photos")
    compare(*definition(study, data, seeds="0"))
    assert len(names(study)) == 2 and not list((tmp_path / "photos").glob("*.executed"))


def test_seeds_come_one_after_the_other_so_that_pairs_end_early(study, data):
    output = compare(*definition(study, data))
    assert names(study) == ["none/seed0", "ggdr/seed0", "none/seed1", "ggdr/seed1"]
    assert "0 of 4 runs are finished, 4 to go started none/seed0 (1 of 4) finished none/seed0 after" in output
    assert {path.name for path in study.iterdir()} >= {"study.json", "compare.md", "compare.html", "none", "ggdr"}
    assert (study / "none" / "seed0.log").read_text().startswith("$ ggdr train --outdir ")
    argv = starts(study)[0]["argv"]
    assert argv[0] == "train" and argv[-2:] == ["--resume", "latest"] and "--no-ggdr" in argv


def test_a_finished_study_starts_nothing(study, data):
    compare(*definition(study, data))
    before = table(study)
    assert "4 of 4 runs are finished results:" in compare("--outdir", study)
    assert len(names(study)) == 4 and table(study) == before


def test_what_is_added_runs_and_nothing_else(study, data):
    compare(*definition(study, data))
    written = {path: path.stat().st_mtime_ns for path in study.rglob("seed*/*")}
    compare("--outdir", study, "--seeds", "2", "--variant", "noaug=--aug noaug")
    added = ["noaug/seed0", "noaug/seed1", "none/seed2", "ggdr/seed2", "noaug/seed2"]
    assert names(study)[4:] == added
    assert {path: path.stat().st_mtime_ns for path in written} == written
    assert "| noaug | " in table(study) and "| seed 2 |" in table(study)


def test_a_run_whose_folder_was_removed_runs_again(study, data):
    compare(*definition(study, data))
    for path in (study / "ggdr" / "seed0").iterdir():
        path.unlink()
    compare("--outdir", study)
    assert names(study)[4:] == ["ggdr/seed0"]


def test_a_run_that_fails_leaves_the_others_going(study, data):
    output = compare(*definition(study, data, "--variant", "odd=--batch 3", seeds="0"), code=1)
    assert "FAILED with exit code 2: odd/seed0 after" in output and "--batch: 3 images are odd" in output
    assert "1 failed: odd/seed0" in output and names(study) == ["none/seed0", "ggdr/seed0", "odd/seed0"]
    text = (study / "compare.md").read_text()
    assert "| odd/seed0 | failed | 0 | 0 | ended with exit code 2: Error: --batch: 3 images are odd |" in text
    assert "2 of 3 runs finished" in text
    compare("--outdir", study, code=1)  # it is tried again
    assert names(study)[3:] == ["odd/seed0"]


def overlaps(folder):
    """The most runs that went on at once."""
    ends = {line["run"]: line["time"] for line in map(json.loads, (folder / "ends.jsonl").read_text().splitlines())}
    spans = [(start["time"], ends[start["run"]]) for start in starts(folder)]
    return max(sum(begin <= at < end for begin, end in spans) for at, _ in spans)


@pytest.mark.parametrize("jobs, threads", [(1, os.environ.get("OMP_NUM_THREADS")), (2, "2"), (3, "1")])
def test_jobs_are_runs_side_by_side_that_share_the_threads(study, data, jobs, threads):
    compare(*definition(study, data, "--jobs", jobs, options=("--gamma", 0.5)))
    assert overlaps(study) == jobs
    assert {start["OMP_NUM_THREADS"] for start in starts(study)} == {threads}


def test_each_gpu_gets_a_run(study, data, monkeypatch):
    monkeypatch.setattr(machine_shares, "find_gpus", lambda device: ["3", "5"])
    compare(*definition(study, data, options=("--gamma", 0.5)))
    assert overlaps(study) == 2
    assert sorted(start["CUDA_VISIBLE_DEVICES"] for start in starts(study)) == ["3", "3", "5", "5"]


def test_no_run_is_started_where_another_process_trains(study, data, monkeypatch):
    looks = []

    def in_use(folder):
        looks.append(folder.path)
        return len(looks) < 20

    monkeypatch.setattr(RunFolder, "in_use", in_use)
    output = compare(*definition(study, data, seeds="0"))
    assert output.count("waiting for none/seed0: another process trains in its folder") == 1
    assert sorted(names(study)) == ["ggdr/seed0", "none/seed0"]


def test_an_error_of_the_study_leaves_no_run_behind(study, data, monkeypatch):
    monkeypatch.setattr("ggdr.scripts.studies.page.write_page", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        compare(*definition(study, data, "--jobs", 3, "--variant", "slow=--gamma 60", seeds="0"))
    for start in starts(study):
        with pytest.raises(ProcessLookupError):
            os.kill(start["pid"], 0)


def test_the_last_line_of_a_log_is_text_in_one_line(study, data):
    compare(*definition(study, data, seeds="0"))
    from ggdr.scripts.studies.study_folder import StudyFolder, runs_in_order

    folder = StudyFolder(study)
    run = runs_in_order(folder.read())[0]
    folder.log(run).write_bytes(b"x" * 100_000 + b"\n\x1b[31mred\xff \n\n")
    assert folder.last_line(run) == "\\x1b[31mred\ufffd"
    folder.log(run).unlink()
    assert folder.last_line(run) == "it printed nothing"


def test_progress_is_that_of_the_last_tick(tmp_path):
    assert how_far(tmp_path) == (0.0, None, None)
    (tmp_path / "training_options.json").write_text('{"command": {}, "loop": {"total_nimg": 6000}}')
    ticks = [{"nimg": 1000 * i, "time/sec_per_kimg": 2.0 + i} for i in (1, 2)]
    metric = {"nimg": 2000, "metric/fid": 3.0}
    lines = "".join(json.dumps(line) + "\n" for line in [*ticks, metric]) + '{"nimg": 30'
    (tmp_path / "stats.jsonl").write_text(lines)
    assert how_far(tmp_path) == (2.0, 6.0, 16.0)


def test_gpus_are_those_that_the_process_sees(monkeypatch):
    import torch

    monkeypatch.undo()
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert machine_shares.find_gpus("auto") == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4, 7")
    assert machine_shares.find_gpus("cuda") == ["4", "7"]
    assert machine_shares.find_gpus("cpu") == machine_shares.find_gpus("cuda:1") == []


def test_by_default_each_gpu_or_each_processor_has_a_run(monkeypatch):
    assert machine_shares.default_jobs(6, ["0", "1"]) == 2
    monkeypatch.setattr(machine_shares, "_memory_gib", lambda: 64.0)
    assert machine_shares.default_jobs(6, []) == SIDE_BY_SIDE
    assert machine_shares.default_jobs(2, []) == 2  # no more than there are runs
    monkeypatch.setattr(machine_shares, "_memory_gib", lambda: 7.5)
    assert machine_shares.default_jobs(6, []) == 2  # no more than memory allows
    monkeypatch.setattr(machine_shares, "_memory_gib", lambda: 1.0)
    assert machine_shares.default_jobs(6, []) == 1


def test_the_last_snapshot_of_each_run_gets_cluster_maps(study, data):
    options = ("--snap", 1, "--device", "cpu", "--ops", "reference")
    output = compare(*definition(study, data, seeds="0", options=options))
    assert "finished none/seed0" in output and "finished ggdr/seed0" in output
    for name in ("none/seed0", "ggdr/seed0"):
        about = json.loads((study / name / "clusters" / "clusters.json").read_text())
        assert about["of"] == "network-snapshot-000064.safetensors"
    log = (study / "none" / "seed0.log").read_text()
    assert "$ ggdr clusters --network" in log and log.rstrip().endswith("clusters --device cpu --ops reference")
    before = names(study)
    compare("--outdir", study)
    assert names(study) == before  # finished runs are not looked at again


def test_clusters_are_judged_too_where_the_data_have_label_maps(study, data):
    from ggdr.scripts.cli import main

    shapes = ["dataset", "shapes", str(data), "--resolution", "32", "--images", "4", "--workers", "1", "--overwrite"]
    assert CliRunner().invoke(main, shapes, catch_exceptions=False).exit_code == 0
    compare(*definition(study, data, seeds="0", options=("--snap", 1)))
    calls = [line for line in (study / "none" / "seed0.log").read_text().splitlines() if "ggdr clusters" in line]
    folders, labelled = zip(*(call.partition("--outdir ")[2].split(" ", 1) for call in calls), strict=True)
    assert folders == tuple(str(study / "none" / "seed0" / name) for name in ("clusters", "judged"))
    assert "--labels" not in labelled[0] and labelled[1].endswith(f" --labels {data}")
    assert (study / "ggdr" / "seed0" / "judged" / "clusters.json").is_file()
    assert json.loads((study / "study.json").read_text())["without_sheets"] == []


def test_a_run_without_cluster_maps_is_finished_all_the_same(tmp_path, study, data):
    (tmp_path / "no-clusters").touch()
    compare(*definition(study, data, seeds="0", options=("--snap", 1)))
    assert len(names(study)) == 2 and not list(study.glob("*/*/clusters"))
    compare("--outdir", study)
    assert len(names(study)) == 2
    assert "Error: no clusters" in (study / "none" / "seed0.log").read_text()


def test_cluster_maps_can_be_left_out(study, data):
    compare(*definition(study, data, "--no-clusters", seeds="0", options=("--snap", 1)))
    assert "ggdr clusters" not in (study / "none" / "seed0.log").read_text()
