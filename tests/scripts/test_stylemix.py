# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr stylemix`: what is in a table, and which layers are meant."""

from __future__ import annotations

import pytest

from ggdr.scripts.options.layer_sets import parse_layers, spans
from ggdr.stylegan2.latent.sampling import latents_of_seeds, map_latents, pictures
from tests.looking_cases import close, images_of, laid_out_sheets, ok, run_looking  # noqa: F401
from tests.tiny import tiny_generator


def test_style_mixing_names_its_panels_and_shows_its_sources(run, laid_out):
    result = ok(run("stylemix", "--rows", "0-1", "--cols", "2-4", "--layers", "all,coarse,1-2", "--trunc", "0.7"))
    assert "3 tables" in result.output
    titles = [options["title"] for _, options in laid_out]
    assert titles == ["All, layers 0-3 (4x4 to 8x8)", "Coarse, layer 0 (4x4)", "Layers 1-2 (8x8)"]
    images = images_of([0, 1, 2, 3, 4], truncation_psi=0.7)
    for cells, options in laid_out:
        assert options["rows"] == ["", "0", "1"] and options["columns"] == ["", "2", "3", "4"]
        assert cells[0][0] is None and [len(row) for row in cells] == [4, 4, 4]
        assert all(close(cells[1 + i][0], images[i]) for i in range(2))
        assert all(close(cells[0][1 + j], images[2 + j]) for j in range(3))
    # With all layers a table holds nothing but the columns' images.
    for row in laid_out[0][0][1:]:
        assert all(close(row[1 + j], images[2 + j]) for j in range(3))


@pytest.mark.parametrize("batch", ["1", "7"])
def test_style_mixing_puts_the_columns_styles_into_the_rows_images(run, laid_out, batch):
    ok(run("stylemix", "--rows", "0-1", "--cols", "2-4", "--layers", "0,2", "--batch", batch))
    G = tiny_generator()
    ws = map_latents(G, latents_of_seeds(range(5), G.z_dim))
    ((cells, _),) = laid_out
    for i in range(2):
        for j in range(3):
            mixed = ws[i].clone()
            mixed[[0, 2]] = ws[2 + j, [0, 2]]
            (expected,) = pictures(G, mixed[None], batch_size=1)
            assert close(cells[1 + i][1 + j], expected)


@pytest.mark.parametrize(
    ("text", "sets"),
    [
        ("coarse", ["coarse"]),
        ("Coarse, middle,coarse", ["coarse", "middle"]),
        ("0-2,5", [[0, 1, 2, 5]]),
        ("5,fine,0-2,1", [[0, 1, 2, 5], "fine"]),
    ],
)
def test_layers_are_names_and_numbers(text, sets):
    assert parse_layers(text) == sets


def test_a_misspelt_name_of_layers_is_answered_with_the_nearest():
    with pytest.raises(
        ValueError, match=r"expected coarse, middle, fine, all, .* got 'midle'; did you mean 'middle'\?"
    ):
        parse_layers("coarse,midle")


def test_numbers_are_written_as_ranges():
    assert spans([0, 1, 2, 5, 7, 8]) == "0-2, 5, 7-8"
