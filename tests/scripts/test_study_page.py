# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The page of a comparison in a real browser."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ggdr.scripts.studies.page import write_page
from tests.browser import background, heading_levels, launched, next_frame, opened, sync_api, unnamed
from tests.report_runs import EVIL
from tests.study_data import FD, KD, LAST, MIND, study, study_folder

DESKTOP = {"width": 1280, "height": 900}


@pytest.fixture(scope="module")
def page_file(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    data = study()
    write_page(folder / "compare.html", data, study_folder(folder, data))
    return folder / "compare.html"


@pytest.fixture(scope="module")
def browser():
    with launched() as browser:
        yield browser


@pytest.fixture
def desktop(browser, page_file):
    page = opened(browser, page_file, viewport=DESKTOP, color_scheme="light")
    yield page
    page.context.close()


@pytest.fixture(scope="module")
def phone(browser, page_file):
    size = {"width": 390, "height": 844}
    page = opened(browser, page_file, viewport=size, color_scheme="dark", is_mobile=True, has_touch=True)
    yield page
    page.context.close()


def chart(page, title: str):
    return page.locator("article.panel", has=page.get_by_role("heading", name=title, exact=True))


def values(page, title: str) -> list[str]:
    return chart(page, title).locator(".values tbody td").all_text_contents()


def traces(page, title: str) -> int:
    next_frame(page)
    index = page.evaluate("(title) => curveView.charts.findIndex((chart) => chart.title === title)", title)
    return page.evaluate("(index) => curveView.charts[index].plot.data.length", index)


def sources(page, section: str) -> list[str]:
    return page.locator(f"#{section} figure img").evaluate_all("(images) => images.map((img) => img.src)")


def press(page, section: str, name: str) -> None:
    page.locator(section).get_by_role("button", name=name, exact=True).click()


def test_the_page_asks_for_nothing_but_itself_and_has_no_errors(desktop, phone, page_file):
    for page in (desktop, phone):
        next_frame(page)
        assert page.heard == [page_file.as_uri()]
        assert page.locator(".scatterlayer .trace").count() > 10


def test_the_outcome_comes_first_with_the_cost(desktop):
    first = desktop.locator("main section").first
    assert first.locator(".sentence").text_content().startswith("ggdr is better than none in 3 of 3 seeds by fd_lite5k")
    assert first.locator("dd").all_text_contents() == ["−23 %", "+4.6 %", "+18 %", "36 kimg, 60 % of the images"]
    others = first.locator(".outcomes li").all_text_contents()
    assert [text.split("g")[0] for text in others] == ["Better", "Not clearNo clear difference between "]


def test_the_table_marks_the_best_and_opens_its_seeds(desktop):
    section = desktop.locator("#results")
    heads = section.locator("thead th").all_text_contents()
    assert heads == ["Variant", *(f"{name}↓ lower is better" for name in (FD, KD, MIND))]
    cells = section.locator("tbody tr:not(.seed) td")
    assert cells.all_text_contents()[:2] == ["68.0 ± 1.0", "0.0530 ± 0.0018"]
    assert section.locator("td.best").all_text_contents() == cells.all_text_contents()[3:]
    assert cells.nth(0).get_attribute("title") == "seed 0: 66.9\nseed 1: 68.4\nseed 2: 68.7"
    rows = section.locator("tr.seed:visible")
    assert rows.count() == 0
    button = section.get_by_role("button", name="ggdr")
    button.focus()
    desktop.keyboard.press("Enter")
    assert button.get_attribute("aria-expanded") == "true"
    assert rows.all_text_contents()[0] == "seed 050.10.03713.52" and rows.count() == 3
    button.click()
    assert rows.count() == 0


def test_each_metric_has_a_dot_for_each_seed_and_an_interval(desktop):
    cards = desktop.locator("#differences article")
    assert cards.count() == 3
    track = cards.nth(0).get_by_role("img")
    assert track.get_attribute("aria-label") == f"ggdr minus none of {FD}: seed 0: −16.8, seed 1: −15.5, seed 2: −15.4"
    zero, mean = (track.locator(name).bounding_box()["x"] for name in (".zero", ".mean"))
    dots = [track.locator(".dot").nth(i).bounding_box()["x"] for i in range(3)]
    assert dots[0] < dots[1] < dots[2] < zero and dots[0] < mean < dots[2]
    interval = track.locator(".interval").bounding_box()
    assert interval["x"] < dots[0] and dots[2] < interval["x"] + interval["width"] < zero
    assert "better in 2 of 3" in cards.nth(2).text_content()
    bounds = cards.nth(2).locator(".interval").bounding_box()
    assert bounds["x"] < cards.nth(2).locator(".zero").bounding_box()["x"] < bounds["x"] + bounds["width"]


def test_the_axis_changes_between_kimg_and_hours(desktop):
    whole = "curveView.charts.map(({ plot }) => plot.layout.xaxis)"
    axes = desktop.evaluate(whole)
    assert all(axis["range"] == [0, 60] and axis["title"]["text"] == "kimg" for axis in axes)
    press(desktop, "#curve-tools", "hours")
    next_frame(desktop)
    axes = desktop.evaluate(whole)
    hours = pytest.approx([0, 60 * 50.3 / 3600], rel=1e-3)  # of the slower variant
    assert all(axis["range"] == hours and axis["title"]["text"] == "hours of training" for axis in axes)
    ends = desktop.evaluate("curveView.charts[0].shown.map(({ x }) => x.at(-1))")
    assert ends == pytest.approx([60 * 48.1 / 3600, 60 * 50.3 / 3600])
    press(desktop, "#curve-tools", "kimg")
    next_frame(desktop)
    assert desktop.evaluate(whole)[0]["range"] == [0, 60]


def test_bands_seeds_and_variants_are_shown_and_hidden(desktop):
    assert [traces(desktop, title) for title in (FD, "GGDR cosine distance: GGDR")] == [6, 3]  # two edges and the mean
    press(desktop, "#curve-tools", "Show a line for each seed")
    assert traces(desktop, FD) == 12
    press(desktop, "#curve-tools", "none")
    assert traces(desktop, FD) == 6
    drawn = desktop.evaluate("curveView.charts[0].plot.data.map(({ y }) => y.at(-1))")
    assert drawn == pytest.approx([50.1, 53.3, 50.1, 52.9, 53.3, 52.1])


def test_arrow_keys_and_the_mouse_read_charts_off(desktop):
    assert values(desktop, FD) == ["68.0", "66.9 to 68.7", "52.1", "50.1 to 53.3"]
    box = chart(desktop, FD).locator(".plot-box")
    box.focus()
    desktop.keyboard.press("ArrowRight")
    desktop.keyboard.press("ArrowRight")
    next_frame(desktop)
    assert desktop.locator("#cursor-text").text_content() == "Values at 12 kimg"
    assert float(values(desktop, FD)[0]) > 100
    desktop.keyboard.press("Escape")
    next_frame(desktop)
    assert desktop.locator("#cursor-text").text_content() == "Values: the last"


def test_numbers_say_of_how_many_seeds_they_are(browser, tmp_path):
    data = study()
    for variant, run in ((0, 0), (0, 1), (1, 2)):
        metrics = data["variants"][variant]["runs"][run]["metrics"]
        metrics[FD] = metrics[FD][:3]
    write_page(tmp_path / "compare.html", data, tmp_path)
    page = opened(browser, tmp_path / "compare.html", viewport=DESKTOP)
    next_frame(page)
    assert values(page, FD) == ["68.7", "(1 of 3)", "51.5", "50.1 to 52.9 (2 of 3)"]
    page.context.close()


def test_seed_buttons_switch_the_pictures_of_all_variants(desktop):
    first = sources(desktop, "samples")
    assert len(set(first)) == 2
    press(desktop, "#samples", "2")
    second = sources(desktop, "samples")
    assert len({*first, *second}) == 4
    assert desktop.locator("#samples figure img").nth(1).get_attribute("alt") == "Samples of ggdr, seed 2"
    press(desktop, "#samples", "0")
    assert sources(desktop, "samples") == first
    press(desktop, "#samples", "Show or hide Real images")
    assert len(sources(desktop, "samples")) == 3


def test_cluster_sheets_lie_side_by_side(desktop):
    first = sources(desktop, "clusters")
    press(desktop, "#clusters", "16x16")
    second = sources(desktop, "clusters")
    assert len(first) == len(second) == 2 and set(first).isdisjoint(second)
    assert desktop.locator("#clusters img").nth(0).get_attribute("alt") == "16x16 of none, seed 0"


def test_cells_say_what_models_differ_in(browser, tmp_path):
    data = study(pairs=[])
    folder = study_folder(tmp_path, data)
    options = {"command": {}, "pictures": [{"name": "fakes", "title": "Label map, result"}]}
    for run in data["variants"][1]["runs"]:
        (folder / run["folder"] / "training_options.json").write_text(json.dumps(options))
        (folder / run["folder"] / "clusters/clusters.json").unlink()
    data["variants"][0]["regularizers"], data["variants"][1]["regularizers"] = [], ["ggdr", "semantic"]
    write_page(tmp_path / "compare.html", data, folder)
    page = opened(browser, tmp_path / "compare.html", viewport=DESKTOP)
    texts = page.locator("#clusters .about-picture").all_text_contents()
    assert texts == ["no decoder on D", "D's decoder: ggdr, semantic"]
    assert page.locator("#clusters .no-picture").all_text_contents() == ["no cluster maps of this run"]
    assert page.locator("#samples .about-picture").all_text_contents() == ["Samples", "Label map, result"]
    alts = page.locator("#samples img").evaluate_all("(images) => images.map(({ alt }) => alt)")
    assert alts == ["Samples of none, seed 0", "Label map, result of ggdr, seed 0"]
    assert unnamed(page) == []
    page.context.close()


def test_pictures_can_be_shown_large_but_not_on_a_phone(desktop, phone):
    width = "document.querySelector('#clusters figure').clientWidth"
    before = desktop.evaluate(width)
    desktop.set_viewport_size({"width": 700, "height": 900})
    side_by_side = desktop.evaluate(width)
    press(desktop, "#clusters", "Show large pictures")
    assert desktop.evaluate(width) > 1.9 * side_by_side and before > side_by_side
    assert not phone.locator("#clusters .enlarge").is_visible()


def test_arrow_keys_change_variants_in_the_viewer(desktop):
    desktop.get_by_role("button", name="Enlarge Samples of none, seed 0").click()
    img = desktop.get_by_role("dialog").locator("img")
    assert img.get_attribute("alt") == "Samples of none, seed 0, 60 kimg"
    desktop.keyboard.press("ArrowRight")
    assert img.get_attribute("alt") == "Samples of ggdr, seed 0, 60 kimg"
    desktop.keyboard.press("Escape")
    assert not desktop.get_by_role("dialog").is_visible()


def test_cost_and_commands_are_told(desktop):
    rows = desktop.locator("#cost article").nth(0).locator("tbody tr").all_text_contents()
    assert rows == ["none48.10baseline48m 06s0.71", "ggdr50.30+4.6 %50m 18s0.84"]
    reached = desktop.locator("#cost article").nth(1).locator("tbody tr").all_text_contents()
    assert reached[:2] == [f"ggdr68.0 of none{FD}36 kimg60 %30m 11s", f"none52.1 of ggdr{FD}not reached––"]
    commands = desktop.locator("#commands code").all_text_contents()
    assert len(commands) == 8 and commands[0].startswith("ggdr train --data cifar10.zip") and "--no-ggdr" in commands[0]
    assert desktop.locator("#commands .badge.finished").count() == 6
    assert "dae9869" in desktop.locator("#about").text_content()


def test_the_theme_follows_the_system_and_the_button(desktop, phone):
    assert min(background(desktop)) > 200 and max(background(phone)) < 60
    line = "curveView.charts[0].plot.data.at(-1).line.color"
    light = desktop.evaluate(line)
    desktop.get_by_role("button", name="Change to dark colours").click()
    next_frame(desktop)
    assert max(background(desktop)) < 60 and desktop.evaluate(line) != light


def test_a_phone_never_scrolls_sideways(phone):
    assert phone.evaluate("document.documentElement.scrollWidth") == 390
    lefts = {box["x"] for box in (one.bounding_box() for one in phone.locator("article.panel").all())}
    assert len(lefts) == 1


def test_everything_that_can_be_used_has_a_name(desktop):
    assert unnamed(desktop) == [] and desktop.locator("img:not([alt])").count() == 0
    levels = heading_levels(desktop)
    assert levels[0] == 1 and all(b <= a + 1 for a, b in zip(levels, levels[1:], strict=False))
    ids = desktop.evaluate("[...document.querySelectorAll('[id]')].map(({ id }) => id)")
    assert len(ids) == len(set(ids))


NAN, HUGE = float("nan"), 1e308
HOSTILE = {name: {metric: [NAN, HUGE, -HUGE] for metric in (EVIL, "constructor")} for name in ("__proto__", EVIL)}


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"title": None, "variants": [None, {"name": "only"}], "metrics": [{"name": FD}], "pairs": [{}]},
        study({"none": {FD: [60.0]}, "ggdr": {FD: [50.0]}}, seeds=(0,)),
        study({"none": {FD: [0.0, 0.0]}, "ggdr": {FD: [0.0, 0.0]}}, seeds=(0, 0)),
        study({**LAST, "third": {FD: [1e-300, 5e-324, 0.0], KD: [-1.0, 2.0, NAN], MIND: [1e20, 1e22, 1e24]}}),
        study(HOSTILE, seeds=("__proto__", EVIL, "toString"), kimg=HUGE, title=EVIL, notes=[EVIL], machine={EVIL: 1}),
        study(panels=[{"key": "loss/D", "title": EVIL, "group": EVIL, "unit": EVIL}], budget_kimg=NAN),
    ],
    ids=["nothing", "little", "one seed", "zeros", "extremes", "hostile", "evil panels"],
)
def test_whatever_the_data_nothing_throws_and_nothing_runs(browser, tmp_path, data):
    for variant in data.get("variants", []):
        for run in (variant or {}).get("runs", []):
            run["folder"] = "run"
    write_page(tmp_path / "compare.html", data, tmp_path)
    page = opened(browser, tmp_path / "compare.html", viewport=DESKTOP)
    next_frame(page)
    page.evaluate(
        "document.querySelectorAll('main button').forEach((button) => { button.click(); byId('viewer').close(); })"
    )
    next_frame(page)
    assert page.heard == [(tmp_path / "compare.html").as_uri()]
    assert page.evaluate("window.hacked") is None and page.locator("img[src='x']").count() == 0
    assert page.locator("#outcome .sentence").count() >= 1 and page.get_by_role("button", name="colours").count() == 1
    page.context.close()


def test_a_study_that_goes_on_shows_what_there_is(browser, tmp_path):
    data = study(pairs=[])
    for run in data["variants"][1]["runs"]:
        run |= {"state": "missing", "kimg": None, "hours": None, "metrics": {}, "curves": {}}
    data["variants"][1]["summary"] = {}
    folder = study_folder(tmp_path, {**data, "variants": data["variants"][:1]})
    write_page(tmp_path / "compare.html", data, folder)
    page = opened(browser, tmp_path / "compare.html", viewport=DESKTOP)
    assert page.locator(".sentence").text_content() == "Nothing to compare yet: 3 of 6 runs finished."
    assert page.locator("#differences").count() == 0
    sync_api.expect(page.locator("#samples .no-picture")).to_have_text("no picture yet")
    assert page.locator("#results td.best").count() == 0
    page.context.close()
