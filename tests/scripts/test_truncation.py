# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr truncation`: strengths side by side, and a sweep over them."""

from __future__ import annotations

import pytest

from ggdr.scripts.truncation import parse_psis
from tests.looking_cases import close, filmed_frames, images_of, laid_out_sheets, ok, run_looking  # noqa: F401


def test_psi_one_is_the_plain_image_and_psi_zero_the_same_for_all_seeds(run, laid_out):
    ok(run("truncation", "--seeds", "0-2", "--psis", "-0.5,0,1,1.5"))
    ((cells, options),) = laid_out
    assert options["columns"] == ["psi -0.5", "psi 0", "psi 1", "psi 1.5"]
    assert options["rows"] == ["seed 0", "seed 1", "seed 2"]
    for row, plain, beyond in zip(cells, images_of([0, 1, 2]), images_of([0, 1, 2], truncation_psi=1.5), strict=True):
        assert close(row[2], plain) and close(row[3], beyond)
        assert close(row[1], cells[0][1]) and not close(row[0], row[1])


def test_a_cutoff_leaves_the_layers_beyond_it(run, laid_out):
    ok(run("truncation", "--seeds", "0-1", "--psis", "0", "--trunc-cutoff", "2"))
    ((cells, _),) = laid_out
    expected = images_of([0, 1], truncation_psi=0, truncation_cutoff=2)
    assert all(close(row[0], image) for row, image in zip(cells, expected, strict=True))
    assert not close(cells[0][0], cells[1][0])


@pytest.mark.parametrize("kind", ["mp4", "gif", "webp"])
def test_a_sweep_goes_from_the_lowest_to_the_highest_and_back(run, tmp_path, filmed, laid_out, kind):
    out = tmp_path / f"psi.{kind}"
    options = ["--seeds", "0-7", "--psis", "1,-10,0.5", "--frames", "6", "--fps", "12"]
    result = ok(run("truncation", *options, "--out", str(out)))
    assert "6 frames, 0.5 s" in result.output and out.stat().st_size > 0
    assert len({frame.shape for frame in filmed}) == 1
    psis = [float(options["title"].removeprefix("psi ")) for _, options in laid_out]
    assert psis == [-10, -7.25, -1.75, 1, -1.75, -7.25]
    assert [len(row) for row in laid_out[0][0]] == [4, 4]
    for cell, image in zip(sum(laid_out[3][0], []), images_of(list(range(8))), strict=True):
        assert close(cell, image)


def test_strengths_are_read_in_order_and_once_each():
    assert parse_psis("1, -0.5,1.0,2") == [1, -0.5, 2]
