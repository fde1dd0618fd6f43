# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What the page of a comparison says and shows, and what damaged results do to it."""

from __future__ import annotations

import copy
import json
import re
import shutil

import pytest

from ggdr.scripts.reports.page_html import json_for_html
from ggdr.scripts.studies.bands import MAX_POINTS, band
from ggdr.scripts.studies.outcome import decimals_of
from ggdr.scripts.studies.page import write_page
from ggdr.scripts.studies.page_data import page_data
from tests.conftest import ROOT
from tests.report_runs import EVIL, picture
from tests.study_data import FD, LAST, study, study_folder

NAN, INF = float("nan"), float("inf")


def outcome_of(none: list[float], ggdr: list[float], **changes) -> dict:
    """What the page says of two variants with these values of one metric."""
    seeds = range(len(none))
    return page_data(study({"none": {FD: none}, "ggdr": {FD: ggdr}}, seeds=seeds, **changes))["outcome"]


def written(tmp_path, data) -> dict:
    """The data in the page as it is written."""
    page = tmp_path / "compare.html"
    write_page(page, data, tmp_path)
    return json.loads(re.search(r'id="data">(.*?)</script>', page.read_text(errors="replace"), flags=re.S)[1])


def test_a_clear_win_is_told_with_seeds_means_difference_and_interval():
    assert page_data(study())["outcome"] == {
        "verdict": "better",
        "text": "ggdr is better than none in 3 of 3 seeds by fd_lite5k_full: 52.1 against 68.0, difference −15.9 "
        "(95 % interval −17.8 to −14.0).",
    }


def test_a_clear_loss_counts_the_seeds_that_lost():
    found = outcome_of([50.0, 51.0, 52.0], [60.0, 61.5, 62.0])
    assert found["verdict"] == "worse"
    assert found["text"].startswith("ggdr is worse than none in 3 of 3 seeds") and "difference +10.2" in found["text"]


def test_an_interval_over_zero_is_no_clear_difference():
    found = outcome_of([60.0, 61.0, 62.0], [59.0, 63.0, 60.0])
    assert found["verdict"] == "unclear" and found["text"].startswith("No clear difference between ggdr and none")
    assert "which contains 0)" in found["text"] and found["text"].endswith("ggdr is better in 2 of 3 seeds.")


def test_one_seed_says_that_it_is_one():
    found = outcome_of([68.0], [52.1])
    assert found == {
        "verdict": "single",
        "text": "ggdr is better than none in the only seed by fd_lite5k_full: 52.1 against 68.0, difference −15.9. "
        "One seed cannot tell this from chance.",
    }


def test_nothing_yet_says_how_far_the_runs_are():
    data = study()
    data["pairs"] = []
    data["variants"][1]["runs"][0]["state"] = "running"
    data["variants"][1]["runs"][1]["state"] = "failed"
    found = page_data(data)["outcome"]
    assert found == {"verdict": "none", "text": "Nothing to compare yet: 4 of 6 runs finished, 1 failed."}
    assert page_data({})["outcome"]["text"] == "Nothing to compare yet: no run has started."


def test_of_a_metric_that_should_be_high_a_positive_difference_is_better():
    data = study({"none": {FD: [60.0, 61.0, 62.0]}, "ggdr": {FD: [70.0, 71.5, 72.0]}})
    assert page_data(data)["outcome"]["verdict"] == "worse"
    data["metrics"][0]["better"] = "higher"
    found = page_data(data)["outcome"]
    assert found["verdict"] == "better" and "in 3 of 3 seeds" in found["text"]


def test_means_that_are_not_those_of_the_difference_are_not_told():
    data = study()
    data["pairs"][0]["metrics"][FD]["reach"]["a_last"] = 70.0
    found = page_data(data)["outcome"]["text"]
    assert "against" not in found and "difference −15.9" in found


def test_decimals_show_three_digits_and_differences():
    assert decimals_of([52.1, 68.0]) == 1 and decimals_of([520.4]) == 0 and decimals_of([0.0123]) == 4
    assert decimals_of([52.1, 68.0], [-0.04]) == 3  # two more at most
    assert decimals_of([]) == 2 and decimals_of([1e300]) == 0 and decimals_of([5e-324]) == 8


def test_a_band_spans_the_seeds_where_they_are():
    found = band([("0", [(0, 1.0), (10, 3.0)]), ("1", [(0, 5.0), (5, 5.0)]), ("2", [])])
    assert found["x"] == [0, 5, 10]
    assert found["mean"] == [3, 3.5, 3] and found["low"] == [1, 2, 3] and found["high"] == [5, 5, 3]
    assert found["seeds"] == [{"seed": "0", "y": [1, 2, 3]}, {"seed": "1", "y": [5, 5, None]}]
    assert band([]) is None and band([("0", [])]) is None


def test_a_long_curve_is_drawn_as_means_of_parts():
    found = band([("0", [(i, float(i % 2)) for i in range(10 * MAX_POINTS)])])
    assert len(found["x"]) == MAX_POINTS and set(found["mean"][1:-1]) == {0.5}


def test_what_no_run_has_a_number_for_has_no_chart():
    data = study()
    data["panels"] = [*data["panels"], {"key": "no/such", "title": "none"}, {"key": "loss/D"}, "nonsense", {"key": 3}]
    titles = [chart["title"] for chart in page_data(data)["charts"]]
    assert titles[-4:] == ["Losses: D", "Losses: G", "GGDR cosine distance: GGDR", "ADA probability: p"]
    distance = page_data(data)["charts"][-2]["curves"]
    assert distance[0] is None and len(distance[1]["seeds"]) == 3


def test_pictures_are_the_last_of_each_run_and_reals_are_there_once(tmp_path):
    data = study()
    shown = written(study_folder(tmp_path, data), data)
    samples, reals = shown["samples"]
    assert [(one["variant"], one["seed"], one["kimg"]) for one in samples["pictures"]] == [
        (v, seed, 60) for seed in "012" for v in (0, 1)
    ]
    assert (reals["title"], len(reals["pictures"])) == ("Real images", 1)
    assert samples["pictures"][1]["link"] == "ggdr/seed0/fakes000060.png"
    assert len({one["image"] for one in samples["pictures"]}) == 6
    assert picture(shown, samples["pictures"][0]["image"]).shape == (32 // 4, 32 // 4, 3)
    assert [sheet["title"] for sheet in shown["clusters"]] == ["8x8", "16x16"]
    assert all(len(sheet["pictures"]) == 6 for sheet in shown["clusters"])


def reasons(gallery) -> dict[str, list[tuple]]:
    """Why which runs lack a picture, by its title."""
    return {kind["title"]: [(one["variant"], one["seed"], one["why"]) for one in kind["missing"]] for kind in gallery}


def test_a_sheet_that_a_run_lacks_says_why(tmp_path):
    data = study({**LAST, "semantic": LAST["ggdr"], "later": LAST["ggdr"]}, pairs=[])
    for variant, names in zip(data["variants"], ([], ["ggdr"], ["semantic"], ["ggdr"]), strict=True):
        variant |= {"model": "stylegan2", "regularizers": names, "runs": variant["runs"][:1]}
    folder = study_folder(tmp_path, data)
    about = json.loads((folder / "semantic/seed0/clusters/clusters.json").read_text())
    about["sheets"].append({"file": "b8.png", "title": "Segmentation, 8x8"})
    (folder / "semantic/seed0/clusters/clusters.json").write_text(json.dumps(about))
    for name in ("ggdr", "later"):
        (folder / name / "seed0/clusters/clusters.json").unlink()
    data["variants"][3]["runs"][0]["state"] = "running"
    found = reasons(written(folder, data)["clusters"])
    no_maps = (1, "0", "no cluster maps of this run")
    assert found["8x8"] == [no_maps]  # the run that goes on has none yet
    assert found["Segmentation, 8x8"] == [(0, "0", "no decoder, whose predictions this shows"), no_maps]


def test_sheets_of_several_folders_of_a_run_are_shown(tmp_path):
    data = study()
    folder = study_folder(tmp_path, data)
    for variant in data["variants"]:
        again = folder / variant["name"] / "seed0/judged"
        shutil.copytree(folder / variant["name"] / "seed0/clusters", again)
        sheets = [{"file": "b8.png", "title": "8x8"}, {"file": "b16.png", "title": "Segmentation, 8x8"}]
        (again / "clusters.json").write_text(json.dumps({"title": "Judged", "sheets": sheets, "animations": []}))
    shown = {sheet["title"]: len(sheet["pictures"]) for sheet in written(folder, data)["clusters"]}
    # A title that both folders of a run have stands behind the folder's own.
    both = {"What G knows: 8x8": 2, "16x16": 6, "Judged: 8x8": 2, "Segmentation, 8x8": 2}
    assert shown == {**both, "8x8": 4}


def test_models_that_draw_other_things_share_a_kind_by_its_name(tmp_path):
    data = study({"oasis": LAST["none"], "pix2pix": LAST["ggdr"]}, pairs=[])
    kinds = {"oasis": {"fakes": "Label map, result", "reals": "Seen by D"}, "pix2pix": {"fakes": "Input, output"}}
    folder = study_folder(tmp_path, data, clusters=False)
    for variant in data["variants"]:
        variant |= {"model": variant["name"], "runs": variant["runs"][:1]}
        declared = [{"name": name, "title": title} for name, title in kinds[variant["name"]].items()]
        options = json.dumps({"command": {}, "pictures": declared})
        (folder / variant["name"] / "seed0/training_options.json").write_text(options)
    (folder / "oasis/seed0/reals.png").rename(folder / "oasis/seed0/reals000060.png")
    shown = written(folder, data)["samples"]
    assert [picture["title"] for picture in shown[0]["pictures"]] == ["Label map, result", "Input, output"]
    assert reasons(shown) == {"Label map, result": [], "Seen by D": [(1, "0", "pix2pix draws none")]}


def test_kinds_of_one_title_are_told_apart(tmp_path):
    data = study()
    folder = study_folder(tmp_path, data, clusters=False)
    declared = [{"name": name, "title": "Results"} for name in ("fakes", "others")]
    options = json.dumps({"command": {}, "pictures": declared})
    (folder / "none/seed0/training_options.json").write_text(options)
    (folder / "none/seed0/fakes000060.png").rename(folder / "none/seed0/others000060.png")
    titles = [kind["title"] for kind in written(folder, data)["samples"]]
    assert titles == ["Results", "Results (others)", "Real images"]


def test_no_picture_outside_the_study_is_read(tmp_path):
    data = study()
    folder = study_folder(tmp_path / "study", data, clusters=False)
    outside = study_folder(tmp_path / "elsewhere", data, clusters=False)
    data["variants"][0]["runs"][0]["folder"] = "../elsewhere/none/seed0"
    data["variants"][0]["runs"][1]["folder"] = str(outside / "none" / "seed1")
    link = folder / "none" / "seed2" / "fakes000060.png"
    link.unlink()
    link.symlink_to(outside / "none" / "seed2" / "fakes000060.png")
    (folder / "ggdr" / "seed0" / "fakes000060.png").write_bytes(b"no picture")
    data["variants"][1]["runs"][1]["folder"] = "ggdr/\0"
    data["variants"][1]["runs"][2]["folder"] = ""
    shown = written(folder, data)
    (samples,) = [kind for kind in shown["samples"] if kind["title"] == "Samples"]
    assert [(one["variant"], one["seed"], one["kimg"]) for one in samples["pictures"]] == [(0, "2", 0)]
    assert any("fakes000060.png" in note for note in shown["notes"])


def nests(data, path=()):
    """The path to everything in a nest."""
    inner = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in inner:
        yield (*path, key)
        if len(path) < 6:
            yield from nests(value, (*path, key))


def replaced(data, path, value):
    """A copy with something else at a path; without it if `value` is `del`."""
    changed = copy.deepcopy(data)
    at = changed
    for key in path[:-1]:
        at = at[key]
    if value is del_:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    return changed


del_ = object()


@pytest.mark.parametrize("value", [None, NAN, INF, -(10**400), EVIL, [], {}, [None], [[1]], {"a": [NAN]}, True, del_])
def test_anything_may_be_missing_or_damaged(value):
    data = study({name: {FD: values[FD][:2]} for name, values in LAST.items()}, seeds=(0, 1))
    for variant in data["variants"]:
        for run in variant["runs"]:
            run["curves"] = {key: points[:2] for key, points in run["curves"].items()}
    paths = list(nests(data))
    assert len(paths) > 150
    for path in paths:
        text = json_for_html(page_data(replaced(data, path, value)))
        assert "<" not in text and "NaN" not in text and "Infinity" not in text, path


def test_no_text_can_leave_the_data(tmp_path):
    data = study({EVIL: LAST["none"], "b" + EVIL: LAST["ggdr"]}, title=EVIL, notes=[EVIL], versions={EVIL: EVIL})
    for variant in data["variants"]:
        for run in variant["runs"]:
            run["folder"] = "none"
    write_page(tmp_path / "compare.html", data, tmp_path)
    html = (tmp_path / "compare.html").read_text()
    assert "<script>window" not in html and "<img src=x" not in html and html.count("</script>") == 3


def test_a_page_needs_no_results_and_names_nothing_to_fetch(tmp_path):
    write_page(tmp_path / "compare.html", {}, tmp_path / "nowhere")
    html = (tmp_path / "compare.html").read_text()
    assert "<title>Comparison · GGDR comparison</title>" in html and "default-src 'none'" in html
    sources = "".join(path.read_text() for path in (ROOT / "scripts" / "studies" / "page").iterdir())
    assert not re.search(r"https?://|innerHTML|outerHTML|insertAdjacentHTML|document\.write|fetch\(|url\(", sources)


def test_an_old_page_stays_if_the_new_one_cannot_be_written(tmp_path):
    with pytest.raises(OSError):
        write_page(tmp_path / "nowhere" / "compare.html", study(), tmp_path)
