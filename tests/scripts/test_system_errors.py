# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What the system refuses ends in a message that names the right file."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from ggdr.scripts.cli import main
from ggdr.scripts.errors import write_error_text
from tests.conftest import python


@pytest.mark.parametrize(
    "args",
    [
        ["generate", "--network", "x" * 5000, "--seeds", "0", "--outdir", "out"],
        ["export", "--network", "NET", "--out", "x" * 5000 + ".onnx"],
        ["dataset", "x" * 5000, "out.zip"],
        ["dataset", "digits", "x" * 5000 + ".zip"],
        ["train", "--outdir", "x" * 5000, "--data", "NET"],
        ["train", "--outdir", "out", "--data", "x" * 5000],
        ["train", "--outdir", "out", "--data", "NET", "--resume", "x" * 5000],
        ["card", "--network", "NET", "--run", "x" * 5000, "--out", "README.md"],
        ["curves", "x" * 5000, "--out", "out.png"],
        ["metrics", "--network", "x" * 5000, "--metrics", "is50k"],
    ],
)
def test_a_path_that_is_too_long_is_a_message(tmp_path, monkeypatch, args):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "NET").touch()
    result = CliRunner().invoke(main, args)
    assert isinstance(result.exception, SystemExit) and result.exit_code == 2, result.output
    assert result.output.count("\n") < 10 and "Traceback" not in result.output


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_help_to_a_full_disk_is_a_message():
    code = "from ggdr.scripts.cli import main; main(['--help'])"
    process = python("-c", f"import os; os.dup2(os.open('/dev/full', os.O_WRONLY), 1)\n{code}")
    output = process.communicate()[0]
    assert process.returncode == 2 and output == "Error: No space left on device\n"


@pytest.mark.parametrize(
    ("filename", "expected"),
    [
        (None, "cannot write to out/a.png: broken"),
        ("out/a.png", "cannot write to out/a.png: broken"),
        ("out/.a.png.x1y2.partial", "cannot write to out/a.png: broken"),
        ("out", "cannot write to out/a.png: broken"),
        ("out/a.png/00000/img.png", "cannot write to out/a.png: broken"),
        ("run/stats.jsonl", "run/stats.jsonl: broken"),
        ("out/b.png", "out/b.png: broken"),
    ],
)
def test_the_file_is_named_that_the_error_is_about(tmp_path, monkeypatch, filename, expected):
    monkeypatch.chdir(tmp_path)
    assert write_error_text(Path("out/a.png"), OSError(5, "broken", filename)) == expected


@pytest.mark.parametrize(
    ("words", "bound"),
    [
        ("train --outdir out --tick 0.0004", "from 0.001"),
        ("train --outdir out --kimg 0.0004", "from 0.001"),
        ("train --outdir out --kimg 1e300", "from 0.001"),
        ("train --outdir out --workers 99999999999999999999", "from 0 to 1024"),
        ("train --outdir out --dist-timeout 0", "from 0.01 to 1440"),
        ("bench dataset --workers 99999999999999999999", "from 1 to 1024"),
        ("bench data --workers 99999999999999999999", "from 1 to 1024"),
        ("metrics --metrics is50k --workers 99999999999999999999", "from 0 to 1024"),
        ("dataset digits out.zip --workers 99999999999999999999", "from 1 to 1024"),
    ],
)
def test_numbers_that_mean_nothing_are_refused_with_their_bounds(words, bound):
    result = CliRunner().invoke(main, shlex.split(words))
    assert result.exit_code == 2 and bound in result.output, result.output
