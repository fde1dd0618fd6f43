# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The table of measured GPUs is the one that the script makes of the files that are kept."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from benchmarks.accept_table import BEGIN, END, KEPT, NOTHING, PAGE, ROOT, filled, main, read_gpu_results, tables
from ggdr.scripts.accepting.result_file import Results, write_results


def result(state="passed", **details):
    return {"state": state, "reason": "", "figure": "", "details": details, "seconds": 1.0, "output": []}


def speed(is_this_card=True):
    variants = {
        name: {"cfg": "auto", "resolution": 256, "batch": 16, "sec_per_kimg": seconds}
        for name, seconds in (("plain", 3.0), ("ggdr", 3.25), ("ada", 3.5), ("ggdr_ada", 4.0))
    }
    variants["ggdr_ada"]["counted"] = 2.5
    return result(variants=variants, is_this_card=is_this_card, compared_with="H100 SXM")


def accepted(card="NVIDIA H200", **steps):
    about = {"started": "2026-12-01T10:00:00+0000", "versions": {"torch": "2.11.0+cu130", "commit": "0123456789abcdef"}}
    return Results("cuda", [card], about, steps)


def test_the_page_is_filled_from_the_files_that_are_kept():
    page = PAGE.read_text()
    assert page == filled(page, tables([read_gpu_results(path) for path in sorted(KEPT.glob("*.json"))]))


def test_the_readme_says_that_nothing_has_run_on_a_gpu_as_long_as_that_is_so():
    says_so = "Nothing has run on a GPU yet" in " ".join((ROOT / "README.md").read_text().split())
    assert says_so == (not list(KEPT.glob("*.json")))


def test_without_files_the_page_says_that_no_gpu_has_been_measured():
    assert tables([]) == NOTHING and "No GPU has been measured" in NOTHING


def test_steps_and_times_of_a_card_are_in_the_tables():
    doctor = result(versions={"driver": "580.1"})
    memory = result(presets={"auto 256": {"measured_gib": 3.5, "counted_gib": 3.2}})
    steps = {"doctor": doctor, "waits": result("failed"), "memcheck": result("timed out"), "memory": memory}
    lines = tables([accepted(**steps, **{"speed-auto256": speed()})]).splitlines()
    where = "| NVIDIA H200 | 2026-12-01 | 2.11.0+cu130, 580.1 | 0123456789ab |"
    assert lines[2] == f"{where} 3 of 5 | failed: waits; timed out: memcheck |"
    assert lines[6] == "| NVIDIA H200 | `auto` | 256 | 16 | 3 | 3.25 | 3.5 | 4 | 2.5 | 1.60 | 3.5 (3.2) |"
    assert len({line.count("|") for line in lines[4:]}) == len({line.count("|") for line in lines[:3]}) == 1


def test_a_stand_in_for_the_card_is_named():
    assert "| 2.5 (H100 SXM) | 1.60 |" in tables([accepted("NVIDIA L40", **{"speed-auto256": speed(False)})])


def test_a_speed_that_was_not_counted_has_a_row_without():
    step = speed()
    del step["details"]["variants"]["ggdr_ada"]["counted"]
    memory = result(presets={"auto 256": {"measured_gib": 3.5}})
    assert "| 3.5 | 4 |  |  | 3.5 |" in tables([accepted(memory=memory, **{"speed-auto256": step})])


def test_a_speed_that_was_not_measured_has_no_row():
    assert "`auto`" not in tables([accepted(**{"speed-auto256": result("timed out")})])


def test_the_script_fills_a_page_again_and_again(tmp_path):
    page, file = tmp_path / "page.md", tmp_path / "h200.json"
    page.write_text(f"before\n\n{BEGIN}\n{END}\nafter\n")
    write_results(file, accepted(machine=result()))
    for _ in range(2):
        done = CliRunner().invoke(main, [str(file), "--page", str(page)])
        assert done.exit_code == 0, done.output
    text = page.read_text()
    assert text.count("NVIDIA H200") == 1 and text.startswith("before\n") and text.endswith("after\n")


@pytest.mark.parametrize("device", ["cpu", None])
def test_files_of_something_else_are_refused(tmp_path, device):
    file = tmp_path / "a.json"
    if device is None:
        file.write_text("{}")
    else:
        write_results(file, Results(device, ["AMD EPYC"]))
    done = CliRunner().invoke(main, [str(file)])
    assert done.exit_code == 2 and str(file) in done.output


def test_a_page_without_markers_is_refused(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("nothing\n")
    done = CliRunner().invoke(main, ["--page", str(page)])
    assert done.exit_code == 2 and BEGIN in done.output and page.read_text() == "nothing\n"
