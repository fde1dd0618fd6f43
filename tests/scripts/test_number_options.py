# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What options that take numbers say of other values."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from ggdr.scripts.cli import COMMANDS
from ggdr.scripts.cli import main as ggdr
from ggdr.scripts.options.numbers import FiniteFloat, WholeNumber


def number_options() -> Iterator[tuple[list[str], click.Option]]:
    """The words of each command, and those of its options that take numbers."""
    for name in COMMANDS:
        command = ggdr.get_command(click.Context(ggdr), name)
        members = command.commands if isinstance(command, click.Group) else {}
        for words, each in [([name], command), *(([name, sub], member) for sub, member in members.items())]:
            for param in each.params:
                if isinstance(param.type, (click.types.IntParamType, click.types.FloatParamType)):
                    yield words, param


def text_of(result) -> str:
    return " ".join(result.output.split())


def test_every_option_for_numbers_says_so_in_words():
    seen = 0
    for words, param in number_options():
        result = CliRunner().invoke(ggdr, [*words, param.opts[0], "abc"])
        kind = "whole number" if isinstance(param.type, WholeNumber) else "number"
        assert f"Invalid value for '{param.opts[0]}': expected a {kind}" in text_of(result), (words, param)
        assert result.exit_code == 2 and "got 'abc'" in text_of(result)
        seen += 1
    assert seen > 50


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        (WholeNumber(min=1), "0", "expected a whole number from 1, got '0'"),
        (WholeNumber(min=1), "1.5", "expected a whole number from 1, got '1.5'"),
        (WholeNumber(0, 2**63 - 1), "-1", "expected a whole number from 0 to 9223372036854775807, got '-1'"),
        (WholeNumber(max=9), "10", "expected a whole number up to 9, got '10'"),
        (WholeNumber(), "x", "expected a whole number, got 'x'"),
        (WholeNumber(min=1, word="auto"), "0", "expected a whole number from 1 or auto, got '0'"),
        (FiniteFloat(), "nan", "expected a number, got 'nan'"),
        (FiniteFloat(min=0), "inf", "expected a number from 0, got 'inf'"),
        (FiniteFloat(min=0, min_open=True), "0", "expected a number above 0, got '0'"),
        (FiniteFloat(0, 1000, min_open=True), "-1", "expected a number above 0 and up to 1000, got '-1'"),
        (FiniteFloat(-1, 1, min_open=True, max_open=True), "1", "expected a number above -1 and below 1, got '1'"),
        (FiniteFloat(0.01, 1000), "2e3", "expected a number from 0.01 to 1000, got '2e3'"),
        (FiniteFloat(max=5, max_open=True), "5", "expected a number below 5, got '5'"),
    ],
)
def test_a_number_out_of_range_is_told_the_range(kind, value, message):
    with pytest.raises(click.BadParameter) as failure:
        kind.convert(value, None, None)
    assert failure.value.message == message


def test_numbers_in_range_are_taken():
    assert WholeNumber(1, 3).convert("3", None, None) == 3
    assert [WholeNumber(1, word="auto").convert(value, None, None) for value in ("3", "auto")] == [3, "auto"]
    assert FiniteFloat(0, 1, min_open=True).convert("1e-3", None, None) == 0.001


def test_help_shows_ranges_in_the_same_words():
    @click.command()
    @click.option("--num", type=WholeNumber(1, 9))
    @click.option("--lr", type=FiniteFloat(min=0, min_open=True))
    @click.option("--psi", type=FiniteFloat(), default=1.0, show_default=True)
    def command() -> None: ...

    shown = CliRunner().invoke(command, ["--help"]).output
    assert "[from 1 to 9]" in shown and "[above 0]" in shown and "[default: 1.0]" in shown
