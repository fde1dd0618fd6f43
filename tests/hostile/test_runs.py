# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Run folders made to do harm: what is in them stays text, and commands end in messages."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from ggdr.scripts.curves import main as curves
from ggdr.scripts.report import main as report
from ggdr.torch_utils.pictures.images import save_image

EVIL = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>\x1b[2J"


def make_run(path: Path, **files: str) -> Path:
    path.mkdir(parents=True)
    line = json.dumps({"nimg": 1000, "kimg": 1, "loss/D": 0.5, "time/sec_per_kimg": 2.0})
    for name, text in {"stats.jsonl": line + "\n", **files}.items():
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_text(text)
    return path


def test_text_of_a_run_cannot_act_in_its_report_or_on_the_terminal(tmp_path):
    name = EVIL.replace("/", "")  # a folder's name
    options = {"command": {}, "argv": [EVIL], "data": {"path": EVIL}, "history": [EVIL], "versions": {EVIL: EVIL}}
    options |= {"device": {"type": EVIL, "processes": EVIL, "operations": EVIL}, "regularizers": {EVIL: {EVIL: EVIL}}}
    options["panels"] = [{"name": "loss/D", "label": EVIL, "group": EVIL, "unit": EVIL}, {"name": EVIL, "group": EVIL}]
    options["pictures"] = [{"name": "fakes", "title": EVIL}, {"name": EVIL, "title": EVIL}]
    clusters = {"title": EVIL, "note": EVIL, "command": EVIL, "numbers": [{EVIL: EVIL}], "sheets": [], "animations": []}
    metric = {"metric": "fid4k_full", "kimg": 1, "results": {EVIL: 1, "fid4k_full": 2}}
    run = make_run(
        tmp_path / name,
        **{
            "training_options.json": json.dumps({**options, EVIL: EVIL}),
            "log.txt": EVIL,
            "metric-fid4k_full.jsonl": json.dumps(metric) + "\n",
            "maps/clusters.json": json.dumps(clusters),
        },
    )
    save_image(np.zeros([8, 8, 3], np.uint8), run / "fakes000001.png")
    out = tmp_path / "report.html"
    result = CliRunner().invoke(report, [str(run), "--out", str(out)])
    assert result.exit_code == 0 and "\x1b" not in result.output, result.output
    page = out.read_text()
    assert "<script>window" not in page and "<img src=x" not in page and page.count("</script>") == 3
    result = CliRunner().invoke(curves, [str(run), "--out", str(tmp_path / "c.png")])
    assert result.exit_code == 0 and "\x1b" not in result.output, result.output


NINES = "9" * 5000
DAMAGED = [
    ("training_options.json", "[" * 1_000_000),
    ("training_options.json", '{"command": {}, "history": 5, "hardware": {"memory_gib": "x", "gpus": 3}, "loop": []}'),
    ("training_options.json", '{"command": {"batch": {"a": [1e999]}}, "loop": {"total_nimg": 1e308}, "data": [NaN]}'),
    ("training_options.json", '{"command": {}, "panels": {"a": 1}, "pictures": 5, "argv": "x", "device": [1]}'),
    ("training_options.json", '{"command": {}, "device": {"type": {}, "processes": 1e999, "operations": null}}'),
    ("training_options.json", '{"command": {}, "panels": [[], null, {"name": [], "group": {}, "axis": []}]}'),
    (
        "training_options.json",
        f'{{"command": {{}}, "pictures": [{{"name": "../x"}}, {{"name": "a{NINES}", "once": true}}, 3]}}',
    ),
    ("training_options.json", '{"command": {}, "regularizers": {"ggdr": {"": {"a": {}}, "b": [{}]}, "x": 5}}'),
    ("stats.jsonl", json.dumps({"nimg": 1, **{f"{i}/a": 1.0 for i in range(5000)}}) + "\n"),
    ("stats.jsonl", json.dumps({"nimg": 1, **{f"a/{i}": 1.0 for i in range(5000)}, "/": 2, "": 3, "a/": 4}) + "\n"),
    ("log.txt", f"tick 1 kimg 1.2.3 cpumem 1.1.1G gpumem {NINES}G\n"),
    ("maps/clusters.json", '{"sheets": 1}'),
    ("maps/clusters.json", '{"sheets": [], "animations": [], "numbers": [{"a": NaN, "b": [1e999]}], "note": {}}'),
    ("maps/clusters.json", '{"sheets": [{"title": 1, "file": "../../x.png"}], "animations": []}'),
    ("metric-fid4k_full.jsonl", '{"metric": "fid4k_full", "kimg": [1], "results": {}}\n'),
    ("metric-fid4k_full.jsonl", '{"metric": 5, "kimg": 1, "results": {}}\n'),
    ("metric-fid4k_full.jsonl", '{"metric": "fid4k_full", "kimg": 1, "results": {"a": 1, "fid4k_full": "x"}}\n'),
    ("stats.jsonl", '{"nimg": NaN}\n'),
    ("stats.jsonl", '{"nimg": 1' + "0" * 400 + "}\n"),
    ("stats.jsonl", '{"nimg": 1, "loss/D": "x", "result/evil": 1, "score/real": 1' + "0" * 400 + "}\n"),
    ("stats.jsonl", '{"nimg": 1, "loss/D": 1e308, "time/sec_per_kimg": 1e308}\n{"nimg": 2000, "loss/D": -1e308}\n'),
    ("stats.jsonl", "\xff" * 10 + "\n"),
]


@pytest.mark.parametrize(("name", "text"), DAMAGED, ids=range(len(DAMAGED)))
def test_damaged_run_folders_end_in_messages(tmp_path, name, text):
    run = make_run(tmp_path / "run", **{name: text})
    for command, out in ((report, "r.html"), (curves, "c.png")):
        result = CliRunner().invoke(command, [str(run), "--out", str(tmp_path / out)])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert result.exit_code in (0, 2) and (tmp_path / out).exists() == (result.exit_code == 0), result.output


def test_links_out_of_a_run_folder_are_not_copied_into_its_report(tmp_path):
    (tmp_path / "secret").write_text("do not publish")
    clusters = {"sheets": [], "animations": [{"title": "a", "file": "a.gif"}]}
    run = make_run(tmp_path / "run", **{"maps/clusters.json": json.dumps(clusters)})
    (run / "log.txt").symlink_to(tmp_path / "secret")
    (run / "maps" / "a.gif").symlink_to(tmp_path / "secret")
    private = make_run(tmp_path / "private", **{"maps/clusters.json": '{"sheets": [], "animations": []}'})
    save_image(np.zeros([8, 8, 3], np.uint8), private / "a.png")
    for name in ("fakes000001.png", "reals.png"):
        (run / name).symlink_to(private / "a.png")
    (run / "more").symlink_to(private / "maps")
    out = tmp_path / "report.html"
    result = CliRunner().invoke(report, [str(run), "--out", str(out)])
    assert result.exit_code == 0 and result.output.count("link to elsewhere") == 2, result.output
    assert "with 0 pictures" in result.output
    assert "do not publish" not in out.read_text() and "ZG8gbm90IHB1Ymxpc2g" not in out.read_text()


def test_pipes_in_a_run_folder_do_not_hang_its_report(tmp_path):
    run = make_run(tmp_path / "run", **{"maps/x": ""})
    for name in ("training_options.json", "log.txt", "fakes000001.png", "reals.png", "network-best.safetensors"):
        os.mkfifo(run / name)
    os.mkfifo(run / "maps" / "clusters.json")
    os.mkfifo(run / "metric-fid4k_full.jsonl")
    result = CliRunner().invoke(report, [str(run), "--out", str(tmp_path / "r.html")])
    assert result.exit_code == 0, result.output
