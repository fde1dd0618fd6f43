# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What a study is made of: the same from options, YAML and study.json; and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from ggdr.scripts.errors import CliError
from ggdr.scripts.studies.definition import combine, read_words, read_yaml
from ggdr.scripts.studies.study_folder import StudyFolder, runs_in_order
from tests.conftest import ROOT
from tests.repository.test_command import without
from tests.study_cases import compare, definition

YAML = """
options: {data: data.zip, cfg: cpu, kimg: 60, mirror: true}
seeds: 0-2
variants:
  none: {ggdr: false}
  ggdr: {}
  strong: {ggdr-weight: 30, ggdr_res: [8, 16]}
metrics: [fd_offline5k_full]
"""


@pytest.fixture
def study_file(tmp_path):
    (tmp_path / "data.zip").touch()
    (tmp_path / "study.yaml").write_text(YAML)
    return tmp_path / "study.yaml"


def from_options(tmp_path, *more):
    variants = ["none=--no-ggdr", "ggdr=", "strong=--ggdr-weight 30 --ggdr-res 8 --ggdr-res 16"]
    words = ["--data", str(tmp_path / "data.zip"), "--cfg", "cpu", "--kimg", "60", "--mirror", *more]
    return read_words(words, variants)


def test_options_and_yaml_define_the_same(study_file, tmp_path):
    from_file, typed = read_yaml(study_file), from_options(tmp_path)
    assert from_file.options == typed.options and from_file.variants == typed.variants
    study = combine(None, from_file)
    assert study.seeds == (0, 1, 2) and study.metrics == ("fd_offline5k_full",)
    assert study.options_of(study.variants[2])["ggdr-res"] == [8, 16]
    words = study.words(study.variants[0], 1, "x")
    assert words[:3] == ["train", "--outdir", "x"] and "--no-ggdr" in words and "--mirror" in words
    assert words[words.index("--data") + 1] == str(tmp_path / "data.zip") and words[words.index("--seed") + 1] == "1"


def test_an_option_of_a_variant_comes_before_that_of_every_run(tmp_path):
    typed = read_words(["--data", "d", "--no-ggdr", "--batch", "8"], ["a=--ggdr", "b=--batch 16"])
    study = combine(None, replace(typed, seeds=(0,)))
    words = [study.words(variant, 0, "x") for variant in study.variants]
    assert [("--no-ggdr" in w, w[w.index("--batch") + 1]) for w in words] == [(False, "8"), (True, "16")]


@pytest.mark.parametrize(
    "weights, expected",
    [(None, ("fd_offline5k_full",)), ("lite.pth", ("fd_lite5k_full", "kd_lite5k_full", "mind_lite5k_full"))],
)
def test_metrics_are_by_default_the_best_that_need_no_download(tmp_path, monkeypatch, weights, expected):
    monkeypatch.setattr("ggdr.metrics.defaults.find_lite", lambda: weights)
    typed = replace(read_words(["--data", "d"], ["a="]), seeds=(0,))
    assert combine(None, typed).metrics == expected
    assert combine(None, replace(typed, metrics=())).metrics == ()


def test_study_json_is_read_as_it_was_written(study_file, tmp_path):
    study, folder = combine(None, read_yaml(study_file)), StudyFolder(tmp_path)
    folder.ended["none/seed0"] = 0
    folder.without_sheets.add("none/seed0")
    folder.write(study)
    again = StudyFolder(tmp_path)
    assert again.read() == study and again.ended == {"none/seed0": 0} and again.versions == folder.versions
    assert again.without_sheets == {"none/seed0"}
    assert again.versions["ggdr"] and StudyFolder(tmp_path / "elsewhere").read() is None


def test_seeds_are_the_outer_loop_of_runs(study_file):
    runs = runs_in_order(combine(None, read_yaml(study_file)))
    assert [run.name for run in runs[:4]] == ["none/seed0", "ggdr/seed0", "strong/seed0", "none/seed1"]


def test_variants_seeds_and_metrics_can_be_added(study_file, tmp_path):
    study = combine(None, read_yaml(study_file))
    assert combine(study, read_words([], [])) == study
    more = combine(study, replace(read_words([], ["noaug=--aug noaug", "none=--no-ggdr"]), seeds=(7,)))
    assert [x.name for x in more.variants] == ["none", "ggdr", "strong", "noaug"] and more.seeds == (0, 1, 2, 7)


@pytest.mark.parametrize(
    "typed, differing",
    [
        (["--kimg", "80"], "--kimg: got 80.0, stored 60.0"),
        (["--batch", "8"], "--batch: got 8, stored none"),
    ],
)
def test_a_folder_of_other_settings_is_refused_by_what_differs(study_file, tmp_path, typed, differing):
    study = combine(None, read_yaml(study_file))
    for request in (from_options(tmp_path, *typed), read_words(typed, [])):  # all options, and the changed one alone
        with pytest.raises(CliError) as error:
            combine(study, request)
        assert str(error.value) == (
            f"--outdir holds a study of other settings: options of every run: {differing}. Options of every run are "
            "repeated as they were, all of them, or left out; a new --outdir is another study"
        )


def test_options_of_every_run_are_all_repeated_or_none(study_file, tmp_path):
    study = combine(None, read_yaml(study_file))
    assert combine(study, from_options(tmp_path)) == study
    with pytest.raises(CliError, match="options of every run: --cfg: got none, stored cpu, .*--mirror: got none"):
        combine(study, read_words(["--data", str(tmp_path / "data.zip"), "--kimg", "60"], []))


def test_a_variant_of_the_same_name_and_other_options_is_refused(study_file):
    study = combine(None, read_yaml(study_file))
    with pytest.raises(CliError, match="variant strong: --ggdr-weight: got 40.0, stored 30.0. .*need another name"):
        combine(study, read_words([], ["strong=--ggdr-weight 40 --ggdr-res 8 --ggdr-res 16"]))


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("kimg: 60", "kimgs: 60", "options: 'kimgs' is no option of `ggdr train`; did you mean 'kimg'?"),
        (
            "ggdr-weight: 30",
            "gdr_weight: 30",
            "variant strong: 'gdr_weight' is no option of `ggdr train`; did",
        ),
        ("seeds: 0-2", "sedes: 0-2", "'sedes' is no part of a study; did you mean 'seeds'?"),
        ("kimg: 60", "kimg: [60]", "kimg expects a number or text, got a list"),
        ("kimg: 60", "kimg: true", "kimg expects a number or text, got True"),
        ("kimg: 60", "kimg:", "kimg expects a number or text, got None"),
        ("kimg: 60", "kimg: .nan", "expected a number from 0.001 to 1000000000000, got 'nan'"),
        ("mirror: true", "mirror: 1", "mirror expects true or false, got 1"),
        ("cfg: cpu", "cfg: gpu", "'gpu' is not one of"),
        ("ggdr: {}", "ggdr: {mirror: false}", "variants 'none' and 'ggdr' differ in --mirror (True and False)"),
        ("ggdr: {}", "ggdr: {subset: 9}", "differ in --subset (None and 9)"),
        ("ggdr: {}", "ggdr: {cond: true}", "differ in --cond (False and True)"),
        ("ggdr: {}", "ggdr: {data: other.zip}", "differ in --data"),
        ("data: data.zip, ", "", "--data is missing"),
        ("data: data.zip", "data: absent.zip", "absent.zip: no such file"),
        ("ggdr: {}", "ggdr: {seed: 3}", "variant ggdr: --seed belongs to the study, which sets it for each run"),
        ("kimg: 60", "outdir: x", "--outdir belongs to the study"),
        ("kimg: 60", "resume: latest", "--resume belongs to the study"),
        ("kimg: 60", "dry_run: true", "--dry-run belongs to the study"),
        ("kimg: 60", "metrics: fid50k_full", "--metrics belongs to the study"),
        ("ggdr: {}", "none: {}", "line 5: none is there twice"),
        ("ggdr: {}", "NONE: {}", "variants need different names, got 'none' and 'NONE'"),
        ("ggdr: {}", "../x: {}", "variant '../x': expected a name that can be a folder"),
        ("ggdr: {}", "/x: {}", "variant '/x': expected a name that can be a folder"),
        ("ggdr: {}", "study.json: {}", "variant 'study.json': expected a name that can be a folder"),
        ("ggdr: {}", "no: {}", "variant False: expected a name that is text; write it in quotes"),
        ("ggdr: {}", "ggdr: false", "variant ggdr: expected options with values, got False"),
        ("ggdr: {}", "ggdr: 3", "variant ggdr: expected options with values, got 3"),
        ("seeds: 0-2", "", "no seeds: give --seeds"),
        ("seeds: 0-2", "seeds: []", "seeds: expected numbers and ranges"),
        ("seeds: 0-2", "seeds: two", "seeds: expected numbers and ranges"),
        ("seeds: 0-2", "seeds: 0-5000", "expected 1000 seeds at most"),
        ("seeds: 0-2", "seeds: [[0]]", "seeds: expected a list of numbers or text, got a list"),
        ("seeds: 0-2", "seeds: true", "seeds: expected a list of numbers or text, got True"),
        ("fd_offline5k_full", "fid", "'fid' is no metric"),
        ("options:", "command: generate\noptions:", "command: 'generate' is none of train"),
        (YAML, "- a\n- b", "expected command, options, seeds, variants, metrics with values, got a list"),
        (YAML, "", "expected command, options, seeds, variants, metrics with values, got None"),
        (YAML, "a: [", "no YAML"),
        (YAML, "a: !!python/object/apply:os.system [ls]", "no YAML"),
        (YAML, "seeds: 0-1", "variants: expected names with options, got None"),
    ],
)
def test_bad_yaml_is_named_and_nothing_is_written(study_file, tmp_path, old, new, message):
    assert old in YAML
    study_file.write_text(YAML.replace(old, new))
    assert message in compare(study_file, "--outdir", tmp_path / "study", code=2)
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize(
    "args, message",
    [
        (["--seeds", "0", "--variant", "a=--no-gdr", "--", "--data", "d"], "variant a: No such option"),
        (["--seeds", "0", "--variant", "a", "--", "--data", "d"], "expected NAME=OPTIONS, as none=--no-ggdr, got 'a'"),
        (["--seeds", "0", "--variant", "a='", "--", "--data", "d"], "--variant a: No closing quotation"),
        (["--seeds", "0", "--variant", "a=", "--variant", "a=--no-ggdr"], "variants need different names"),
        (["--seeds", "0", "--variant", "../x="], "variant '../x': expected a name that can be a folder"),
        (["--seeds", "0", "--variant", "a=", "--", "--data", "d", "--seed", "1"], "--seed belongs to the study"),
        (["--seeds", "0", "--variant", "a=", "--", "--data", "d", "x"], "unexpected word 'x'"),
        (["--seeds", "0", "--", "--data", "d"], "no variants: give a STUDY.yaml, or --variant"),
        (["--variant", "a=", "--", "--data", "d"], "no seeds: give --seeds, as 0-2"),
        (["--page-only", "--seeds", "0", "--variant", "a=", "--", "--data", "d"], "--page-only: no study in"),
        ([], "no variants"),
        (["study.yaml", "--variant", "a="], "belong into study.yaml"),
        (["absent.yaml"], "absent.yaml: No such file"),
    ],
)
def test_bad_options_are_named_and_nothing_is_written(tmp_path, monkeypatch, args, message):
    monkeypatch.chdir(tmp_path)
    assert message in compare("--outdir", "study", *args, code=2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"variants": {"../x": {}}, "seeds": [0]}'])
def test_a_damaged_study_is_named(tmp_path, content):
    (tmp_path / "study.json").write_text(content)
    assert "study.json" in compare("--outdir", tmp_path, code=2)


def test_a_second_start_is_kept_out(dataset_zip, tmp_path):
    with StudyFolder(tmp_path).locked():
        output = compare(*definition(tmp_path, dataset_zip), code=2)
    assert "another ggdr compare is at work" in output and not (tmp_path / "study.json").exists()


def test_without_pyyaml_one_line_says_what_to_install(study_file, tmp_path):
    command = [sys.executable, "-c", without("yaml"), "compare", str(study_file), "--outdir", str(tmp_path / "study")]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 2 and result.stderr.count("\n") == 1, result.stderr
    assert "the command needs yaml, which is not installed here; " in result.stderr and "pip install" in result.stderr


def test_study_json_can_be_read_by_anyone(study_file, tmp_path):
    StudyFolder(tmp_path).write(combine(None, read_yaml(study_file)))
    content = json.loads((tmp_path / "study.json").read_text())
    definition = ["command", "options", "variants", "seeds", "metrics"]
    assert list(content) == [*definition, "started", "versions", "ended", "without_sheets"]
    assert content["variants"]["none"] == {"ggdr": False} and content["options"]["data"] == str(tmp_path / "data.zip")
