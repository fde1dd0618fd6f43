# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Names of any script are drawn in a font that has them, or said in another way; never as boxes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ggdr.stylegan2.samples import class_caption, undrawable_classes
from ggdr.torch_utils.data.dataset import ImageDataset
from ggdr.torch_utils.pictures import fonts
from ggdr.torch_utils.pictures.fonts import PILLOWS_OWN, can_draw, dejavu, has_letters, lettering
from ggdr.torch_utils.pictures.images import make_grid
from ggdr.torch_utils.pictures.plot_style import plain_text
from ggdr.torch_utils.pictures.sheets import contact_sheet
from tests.torch_utils.data.conftest import CLASSES, our_files, write

RUSSIAN, CHINESE = "собака", "猫"


@pytest.fixture
def no_system_fonts(monkeypatch):
    """A machine with Pillow and matplotlib alone."""
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(fonts, "_system_fonts", lambda: ())


def test_pillows_own_font_draws_what_it_has():
    assert has_letters(PILLOWS_OWN, "Cat, 3: naive") and lettering("Cat", 15).text == "Cat"


def test_letters_that_pillow_lacks_are_those_of_another_font(no_system_fonts):
    assert not has_letters(PILLOWS_OWN, RUSSIAN) and has_letters(dejavu(), RUSSIAN)
    text, font = lettering(RUSSIAN, 15)
    assert text == RUSSIAN and font.getname()[0] == "DejaVu Sans" and can_draw(f"{RUSSIAN}\n1")


def test_letters_that_no_font_has_are_escaped(no_system_fonts):
    assert not can_draw(CHINESE)
    assert lettering(f"a {CHINESE} {RUSSIAN}", 15).text == rf"a \u732b {RUSSIAN}"
    assert lettering("caf\udce9", 15).text == r"caf\udce9"
    assert plain_text(f"{CHINESE} {RUSSIAN}$\n2") == rf"\u732b {RUSSIAN}\$" + "\n2"


def test_fonts_of_the_system_are_asked_last(monkeypatch):
    monkeypatch.setattr(fonts, "_system_fonts", lambda: ("found",))
    monkeypatch.setattr(fonts, "_has_letter", lambda source, letter: source == "found" or letter.isascii())
    monkeypatch.setattr(fonts, "_load", lambda source, size: source)
    assert [lettering(text, 15).font for text in ("cat", CHINESE)] == [PILLOWS_OWN, "found"]


def test_grids_and_sheets_tell_names_of_other_scripts_apart(no_system_fonts):
    images = torch.zeros(2, 3, 32, 32)
    for first, second in ((RUSSIAN, "кошка!"), (CHINESE, "犬")):
        grid = make_grid(images, 1, row_labels=[first, second])
        assert (grid[:32] != grid[32:]).any()
        cells = [[np.zeros((32, 32, 3), np.uint8)]]
        assert not np.array_equal(
            *(contact_sheet(cells, rows=[name], title=name, note=name) for name in (first, second))
        )


def test_classes_without_a_font_go_by_number_and_long_ones_are_cut(no_system_fonts, tmp_path):
    names = [RUSSIAN, CHINESE, "a class name so long that it would take half of the picture"]
    data = write(tmp_path / "d.zip", our_files(labels=CLASSES, classes=names))
    dataset = ImageDataset(data, use_labels=True)
    assert [class_caption(dataset, i) for i in range(3)] == [RUSSIAN, "class 1", "a class name… the picture"]
    assert undrawable_classes(dataset) == {1: CHINESE} and undrawable_classes(ImageDataset(data)) == {}
