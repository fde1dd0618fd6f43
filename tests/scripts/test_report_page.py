# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The page of `ggdr report` in a real browser: headless Chromium, by playwright."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from ggdr.scripts.report import main
from ggdr.torch_utils.pictures.images import save_image
from tests.browser import background, heading_levels, launched, next_frame, opened, sync_api, unnamed
from tests.report_runs import EVIL, METRIC, add_clusters, add_metric, grid, make_run

FIRST, SECOND = "without", f"with {EVIL}"


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    """A page of two runs, one of which is named and labelled by somebody who means harm."""
    folder = tmp_path_factory.mktemp("report")
    a = make_run(folder / "a", ticks=8, snaps=(0, 4, 8))
    b = make_run(folder / "b", offset=1.0, options={"classes": [EVIL], "seed": 3})
    add_metric(b, {4: 9.0, 8: 7.0, 12: 8.0})
    add_clusters(b, title=EVIL)
    page = folder / "pages" / "report.html"
    page.parent.mkdir()
    result = CliRunner().invoke(main, [str(a), str(b), "--label", FIRST, "--label", SECOND, "--out", str(page)])
    assert result.exit_code == 0, result.output
    return page


@pytest.fixture(scope="module")
def browser():
    with launched() as browser:
        yield browser


@pytest.fixture(scope="module")
def _desktop(browser, report):
    page = opened(browser, report, viewport={"width": 1280, "height": 900}, color_scheme="light")
    yield page
    page.context.close()


@pytest.fixture
def desktop(_desktop):
    """The page on a desktop, as it was when it was opened."""
    # A mouse that an earlier test left over a chart would leave it, or move on it, some time after the page scrolls.
    _desktop.mouse.move(0, 0)
    _desktop.evaluate(
        "view.hidden.clear(); setRange(null); setCursor(null); byId('smooth').value = 0; byId('smooth').oninput();"
        "play(false); showSamples(0); byId('viewer').close(); document.activeElement.blur()"
    )
    next_frame(_desktop)
    return _desktop


@pytest.fixture(scope="module")
def phone(browser, report):
    size = {"width": 390, "height": 844}
    page = opened(browser, report, viewport=size, color_scheme="dark", is_mobile=True, has_touch=True)
    yield page
    page.context.close()


def panel(page, title: str):
    return page.locator("article.panel", has=page.get_by_role("heading", name=title, exact=True))


def ranges(page) -> list[list[float]]:
    return page.evaluate("view.panels.map((panel) => panel.plot.layout.xaxis.range)")


def traces(page, title: str) -> int:
    return panel(page, title).locator(".scatterlayer .trace").count()


def values(page, title: str) -> list[str]:
    return panel(page, title).locator(".values tbody td").all_text_contents()


def test_the_page_asks_for_nothing_but_itself_and_has_no_errors(desktop, phone, report):
    for page in (desktop, phone):
        page.get_by_role("button", name="Play").click()
        page.get_by_role("tab", name="16x16").click()
        assert page.heard == [report.as_uri()]


def test_nothing_from_a_run_folder_runs(desktop):
    assert desktop.evaluate("window.hacked") is None
    assert desktop.locator("img[src='x']").count() == 0
    assert desktop.get_by_role("heading", name=SECOND, exact=True).count() > 0  # it is shown, as text
    assert desktop.title().startswith(f"{FIRST} and {SECOND}")


def test_charts_have_a_trace_for_each_curve_of_each_run(desktop):
    assert [traces(desktop, title) for title in (METRIC, "Losses", "Gradient norms")] == [1, 4, 4]
    desktop.evaluate("byId('smooth').value = 50; byId('smooth').oninput()")
    next_frame(desktop)
    assert traces(desktop, "Losses") == 8  # each over its raw curve
    desktop.get_by_role("button", name=FIRST, exact=True).click()
    next_frame(desktop)
    assert traces(desktop, "Losses") == 4
    drawn = desktop.locator(".scatterlayer .trace path.js-line")
    assert drawn.count() > 0 and all(drawn.nth(i).get_attribute("d") for i in range(drawn.count()))


def test_zooming_one_panel_zooms_all_and_fits_their_axes(desktop):
    whole = ranges(desktop)
    heights = desktop.evaluate("view.panels.map((panel) => panel.plot.layout.yaxis.range)")
    plot = panel(desktop, "Losses").locator(".nsewdrag")
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    desktop.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 60)
    desktop.mouse.down()
    desktop.mouse.move(box["x"] + box["width"] * 0.75, box["y"] + 60, steps=4)
    desktop.mouse.up()
    next_frame(desktop)
    zoomed = ranges(desktop)
    assert whole[0] == [0, 12] and zoomed[0] == pytest.approx([6, 9], abs=0.3)
    assert all(shown == zoomed[0] for shown in zoomed)
    losses = desktop.evaluate("view.panels.findIndex((panel) => panel.title === 'Losses')")
    fitted = desktop.evaluate("view.panels.map((panel) => panel.plot.layout.yaxis.range)")
    assert fitted[losses][1] < heights[losses][1]  # G's loss grows to 13
    assert desktop.get_by_label("First kimg shown").input_value() == str(round(zoomed[0][0], 3))
    desktop.get_by_role("button", name="All", exact=True).click()
    next_frame(desktop)
    assert ranges(desktop) == whole


def test_the_kimg_fields_zoom_too(desktop):
    desktop.get_by_label("First kimg shown").fill("2")
    desktop.get_by_label("Last kimg shown").fill("5")
    desktop.keyboard.press("Tab")
    next_frame(desktop)
    assert all(shown == [2, 5] for shown in ranges(desktop))


def test_the_mouse_reads_all_panels_off_at_one_kimg(desktop):
    assert values(desktop, "Losses") == ["0.1250", "8.000", "1.083", "13.00"]  # the last ones: at 8 and at 12 kimg
    plot = panel(desktop, "GGDR cosine distance").locator(".nsewdrag")
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    desktop.mouse.move(box["x"] + box["width"] * 4 / 12, box["y"] + 50)
    next_frame(desktop)
    assert values(desktop, "Losses") == ["0.2500", "4.000", "1.250", "5.000"]
    assert values(desktop, "GGDR cosine distance") == ["0.8600", "0.8600"]
    assert "at 4 kimg" in desktop.locator("#cursor-text").text_content()
    desktop.mouse.move(box["x"] + box["width"] * 11 / 12, box["y"] + 50)
    next_frame(desktop)
    assert values(desktop, "GGDR cosine distance") == ["–", "0.7900"]  # the first run ended at 8 kimg


def test_arrow_keys_read_a_chart_off(desktop):
    panel(desktop, "Losses").locator(".plot-box").focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowLeft"):
        desktop.keyboard.press(key)
    next_frame(desktop)
    assert desktop.evaluate("view.cursor") == 1 and values(desktop, "Losses") == ["1.000", "1.000", "2.000", "2.000"]
    desktop.keyboard.press("Escape")
    assert desktop.evaluate("view.cursor") is None


def test_smoothing_is_that_of_the_curves_command(desktop):
    from ggdr.scripts.reports.plot_runs import smoothed

    kimg, numbers = [0.0, 1.0, 2.0, 4.0, 5.0], [3.0, 1.0, 4.0, 1.0, 5.0]
    # Half-life of `ggdr curves`: a hundredth of the length.
    found = desktop.evaluate("([x, y]) => smoothed(x, y, 0.05)", [kimg, numbers])
    assert found == pytest.approx(smoothed(kimg, numbers))
    assert desktop.evaluate("smoothed([0, 1, 2], [1, null, 3], 1)")[1] is None


def test_log_axis_is_offered_where_all_values_are_positive(desktop):
    button = panel(desktop, "Losses").get_by_role("button", name="Logarithmic axis of Losses")
    button.click()
    assert desktop.evaluate("view.panels.find((panel) => panel.title === 'Losses').plot.layout.yaxis.type") == "log"
    button.click()
    assert panel(desktop, "Discriminator scores").get_by_role("button", name="Logarithmic").count() == 0


def test_axes_begin_as_the_run_declares(desktop):
    axes = desktop.evaluate("view.panels.map(({ title, plot }) => [title, plot.layout.yaxis])")
    kinds = {title: axis.get("type", "linear") for title, axis in axes}
    assert {title for title, kind in kinds.items() if kind == "log"} == {"Gradient norms", "Regularisation losses"}
    starts = {title: axis["range"][0] for title, axis in axes}
    assert starts["Memory"] == starts["Training time"] == 0 and starts["GGDR cosine distance"] > 0


def test_slider_keys_and_play_button_change_the_pictures_of_all_runs(desktop):
    images = desktop.locator("#samples figure:not(.still) img")
    slider = desktop.get_by_label("Samples at")
    desktop.locator("#samples").scroll_into_view_if_needed()

    def sources() -> list[str]:
        return [images.nth(i).get_attribute("src") for i in range(2)]

    first = sources()
    assert first[0] == first[1]  # the same latents before training
    slider.focus()
    desktop.keyboard.press("ArrowRight")
    second = sources()
    assert slider.get_attribute("aria-valuetext") == "4 kimg" and second != first
    desktop.evaluate("document.activeElement.blur(); byId('samples').scrollIntoView()")
    for _ in range(2):
        desktop.keyboard.press("ArrowRight")  # wherever the focus is
    assert slider.get_attribute("aria-valuetext") == "12 kimg"
    last = sources()
    assert last[1] not in (second[1], first[1]) and last[0] != last[1]
    # The first run has no grid at 12 kimg: its last one stays, and says so.
    assert images.nth(0).get_attribute("alt") == f"Samples of {FIRST} at 8 kimg"
    desktop.evaluate("showSamples(0)")
    desktop.get_by_role("button", name="Play").click()
    sync_api.expect(slider).to_have_attribute("aria-valuetext", "12 kimg")
    sync_api.expect(desktop.get_by_role("button", name="Play")).to_be_visible()  # it stopped at the end


def test_kinds_of_pictures_are_chosen_by_their_titles(browser, tmp_path):
    evil = EVIL[:43]  # the whole script; longer titles are cut
    kinds = [
        {"name": "input", "title": "Photographs", "once": True},
        {"name": "fakes", "title": evil, "once": False},
        {"name": "again", "title": "Back again", "once": False},
    ]
    path = make_run(tmp_path / "run", options={"pictures": kinds})
    for kimg in (4, 8):
        save_image(grid(kimg + 20), path / f"again{kimg:06d}.png")
    save_image(grid(50), path / "input.png")
    result = CliRunner().invoke(main, [str(path)])
    assert result.exit_code == 0, result.output
    page = opened(browser, path / "report.html", viewport={"width": 1280, "height": 900})
    choice = page.get_by_role("group", name="Pictures shown")
    assert choice.get_by_role("button").all_text_contents() == [evil, "Back again", "Photographs"]

    def shown() -> list[str]:
        images = page.locator("#samples figure:visible img")
        return [images.nth(i).get_attribute("alt") for i in range(images.count())]

    assert shown() == [f"{evil} of run at 12 kimg", "Photographs"]
    choice.get_by_role("button", name="Show or hide Back again").click()
    assert shown() == [f"{evil} of run at 12 kimg", "Back again of run at 8 kimg", "Photographs"]
    choice.get_by_role("button", name=f"Show or hide {evil}").click()
    choice.get_by_role("button", name="Show or hide Photographs").click()
    page.get_by_label("Samples at").focus()
    page.keyboard.press("Home")
    assert shown() == ["Back again of run at 4 kimg"]  # there is none before
    page.get_by_role("button", name="Enlarge Back again of run").click()
    assert page.get_by_role("dialog").locator("img").get_attribute("alt") == "Back again of run, 4 kimg"
    page.context.close()


def test_pictures_that_are_made_once_need_no_slider(browser, tmp_path):
    path = make_run(tmp_path / "run", snaps=())
    save_image(grid(50), path / "reals.png")
    assert CliRunner().invoke(main, [str(path)]).exit_code == 0
    page = opened(browser, path / "report.html", viewport={"width": 390, "height": 844})
    assert page.locator("#samples figure:visible img").get_attribute("alt") == "Real images"
    assert page.get_by_label("Samples at").count() == 0 and page.heard == [(path / "report.html").as_uri()]
    page.context.close()


def test_a_picture_enlarges_and_steps_with_the_arrow_keys(desktop):
    desktop.get_by_role("button", name=f"Enlarge Samples of {FIRST}").click()
    viewer = desktop.get_by_role("dialog")
    assert "0 kimg" in viewer.locator("img").get_attribute("alt")
    desktop.keyboard.press("ArrowRight")
    assert "4 kimg" in viewer.locator("img").get_attribute("alt")
    desktop.keyboard.press("Escape")
    assert not viewer.is_visible()


def test_cluster_sheets_lie_in_tabs_with_their_animation_and_numbers(desktop):
    section = desktop.locator("#clusters")
    section.get_by_role("tab", name="8x8", exact=True).click()
    source = section.get_by_role("tabpanel").locator("img").get_attribute("src")
    desktop.keyboard.press("ArrowRight")
    assert section.get_by_role("tab", selected=True).text_content() == "16x16"
    assert section.get_by_role("tabpanel").locator("img").get_attribute("src") != source
    assert section.get_by_alt_text("Over training").is_visible()
    assert section.locator("td").all_text_contents() == ["net", "8", "0.5000", "–"]


def test_the_best_snapshot_is_marked_and_links_lead_to_files(desktop, report):
    best = desktop.locator("#snapshots tr", has=desktop.locator(".best"))
    assert best.count() == 1 and "7.000 ★ best" in best.text_content()
    link = best.get_by_role("link").evaluate("(link) => link.href")
    assert link == (report.parents[1] / "b" / "network-snapshot-000008.safetensors").as_uri()


def test_settings_show_what_differs_first(desktop):
    rows = desktop.locator("#settings .settings tbody tr")
    assert all("≠" in text for text in rows.all_text_contents()) and rows.count() == 2  # classes and seed
    desktop.locator("#settings").get_by_label("Only what differs").uncheck()
    assert rows.count() > 5
    assert desktop.locator("#machine tr", has_text="processor").is_visible()  # the same in both runs


def test_the_theme_follows_the_system_and_the_button(desktop, phone):
    assert min(background(desktop)) > 200 and max(background(phone)) < 60
    line = "view.panels[0].plot.data[0].line.color"
    light = desktop.evaluate(line)
    desktop.get_by_role("button", name="Change to dark colours").click()
    next_frame(desktop)
    assert max(background(desktop)) < 60 and desktop.evaluate(line) != light
    desktop.get_by_role("button", name="Change to light colours").click()
    next_frame(desktop)
    assert min(background(desktop)) > 200 and desktop.evaluate(line) == light


def test_a_phone_shows_one_column_and_never_scrolls_sideways(phone):
    assert phone.evaluate("document.documentElement.scrollWidth") == 390
    phone.evaluate("scrollTo(100, 0)")
    assert phone.evaluate("scrollX") == 0
    charts = phone.locator("article.panel")
    lefts = {charts.nth(i).bounding_box()["x"] for i in range(charts.count())}
    assert charts.count() > 4 and len(lefts) == 1
    assert phone.get_by_label("Samples at").bounding_box()["height"] >= 44  # room for a thumb


def test_a_finger_reads_charts_off(phone):
    plot = panel(phone, "Losses").locator(".plot-box")
    plot.scroll_into_view_if_needed()
    plot.tap()
    next_frame(phone)
    assert phone.evaluate("view.cursor") == pytest.approx(5, abs=2)
    assert phone.locator("#cursor-text").text_content().startswith("Values at")


def test_everything_that_can_be_used_has_a_name(desktop):
    assert unnamed(desktop) == []
    assert desktop.locator("img:not([alt])").count() <= 1  # the viewer's, which gets one when it opens
    levels = heading_levels(desktop)
    assert levels[0] == 1 and all(b <= a + 1 for a, b in zip(levels, levels[1:], strict=False))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(desktop, scheme):
    contrasts = desktop.evaluate(
        """(scheme) => {
          document.documentElement.dataset.theme = scheme;
          const luminance = (name) => {
            const parts = cssColor(name).match(/[\\d.]+/g).slice(0, 3).map((part) => part / 255);
            const [r, g, b] = parts.map((x) => (x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4));
            return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05;
          };
          const ratio = (a, b) => Math.max(luminance(a), luminance(b)) / Math.min(luminance(a), luminance(b));
          const inks = ["--ink", "--muted", "--accent", "--good", "--warm"];
          const found = inks.flatMap((ink) => ["--page", "--card"].map((ground) => [ink, ground, ratio(ink, ground)]));
          delete document.documentElement.dataset.theme;
          return found;
        }""",
        scheme,
    )
    assert len(contrasts) == 10 and all(ratio >= 4.5 for _, _, ratio in contrasts), contrasts
