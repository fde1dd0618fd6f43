# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Which class, or which label of numbers, a conditional network is to make."""

from __future__ import annotations

import math
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from ggdr.scripts.options.parameters import bad_parameter
from ggdr.torch_utils.untrusted.text import printable

if TYPE_CHECKING:
    from ggdr.stylegan2 import Generator
    from ggdr.stylegan2.latent.sampling import Label
    from ggdr.stylegan2.network_labels import NetworkLabels

CLASS_HELP = "What to make, which a conditional network needs: a class, by name or by number from 0 up"
LABEL_HELP = "the numbers of a label, e.g. 0.2,0.5, for a network that was trained on such."
MOST_NAMED = 10  # classes in a message
_LABEL_GIVEN = "ggdr.label"  # where the context of click keeps --label until --class is read


class AskedLabel(NamedTuple):
    """What was typed as a label.

    Attributes:
        text:           the value; None: none was given.
        option:         the option that it was given with.
        numbers_option: the one of this command that takes the numbers of a label.
    """

    text: str | None = None
    option: str = "--class"
    numbers_option: str = "--label"


def label_option(function: Callable) -> Callable:
    """--class and --label, one of which may be given; to the command they are `asked_label`, an AskedLabel."""
    # Eager: it is read before --class.
    function = click.option(
        "--label",
        "label_numbers",
        metavar="NUMBERS",
        is_eager=True,
        expose_value=False,
        callback=_keep_label,
        help=f"In place of --class: {LABEL_HELP}",
    )(function)
    kwargs = {"metavar": "NAME|IDX", "callback": _choose_given, "help": f"{CLASS_HELP}."}
    return click.option("--class", "asked_label", **kwargs)(function)


def class_option(function: Callable) -> Callable:
    """--class alone, where --label means something else; to the command it is `asked_label`, an AskedLabel."""
    kwargs = {"metavar": "NAME|IDX|NUMBERS", "callback": _ask_class, "help": f"{CLASS_HELP}; or {LABEL_HELP}"}
    return click.option("--class", "asked_label", **kwargs)(function)


def choose_label(network: Path, G: Generator, asked: AskedLabel, *, needed: bool = True) -> Label:
    """The label that `label_option` stands for: a class, the numbers of a label, or None.

    Args:
        needed: False where only latents of W are shown, which no label changes.

    Raises:
        click.BadParameter: it is given for an unconditional network, is missing, or is none of the network's.
    """
    if G.c_dim == 0:
        if asked.text is not None:
            text = f"{network} is unconditional: expected no class, got {printable(asked.text)}"
            raise bad_parameter(text, asked.option)
        return None
    if asked.text is None and not needed:
        return None

    from ggdr.stylegan2.network_labels import labels_of_config
    from ggdr.torch_utils.checkpoint import load_snapshot

    labels = labels_of_config(load_snapshot(network).config, G.c_dim)
    text = asked.text or ""
    is_vector = bool(labels.examples) or (not labels.classes and "," in text)
    label = _read_numbers(text, G.c_dim) if is_vector else _find_class(text, G.c_dim, labels)
    if label is None:
        option = asked.numbers_option if is_vector else "--class"
        expected = _expected_numbers(G.c_dim, labels, option) if is_vector else _expected_class(asked, G.c_dim, labels)
        if asked.text is None:
            raise click.MissingParameter(f"{network} {expected}", param_hint=f"'{option}'", param_type="option")
        raise bad_parameter(f"{network} {expected}, got {printable(asked.text)}", asked.option)
    return label


def _keep_label(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    ctx.meta[_LABEL_GIVEN] = value


def _choose_given(ctx: click.Context, param: click.Parameter, value: str | None) -> AskedLabel:
    numbers = ctx.meta.get(_LABEL_GIVEN)
    if numbers is None:
        return AskedLabel(value)
    if value is not None:
        raise click.UsageError("--class and --label: expected one of them, got both", ctx)
    return AskedLabel(numbers, "--label")


def _ask_class(ctx: click.Context, param: click.Parameter, value: str | None) -> AskedLabel:
    return AskedLabel(value, numbers_option="--class")


def _find_class(text: str, c_dim: int, labels: NetworkLabels) -> int | None:
    """The class of a number, or else of a name; capitals need not be right where that is clear."""
    if text.strip().isdecimal():
        number = int(text)
        return number if number < c_dim else None
    for same in (str, str.casefold):
        found = [i for i, name in enumerate(labels.classes) if same(name) == same(text)]
        if len(found) == 1:
            return found[0]
    return None


def _read_numbers(text: str, c_dim: int) -> tuple[float, ...] | None:
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        return None
    return numbers if len(numbers) == c_dim and all(math.isfinite(x) for x in numbers) else None


def _expected_class(asked: AskedLabel, c_dim: int, labels: NetworkLabels) -> str:
    with_option = "" if asked.option == "--class" else "--class with "
    expected = f"has {c_dim} classes: expected {with_option}one of 0 to {c_dim - 1}"
    if list(labels.classes) == [str(i) for i in range(c_dim)]:  # as of digits: the number is the name
        return expected
    some = get_close_matches(asked.text or "", labels.classes, MOST_NAMED, cutoff=0.6) or labels.classes[:MOST_NAMED]
    more = ", ..." if len(labels.classes) > len(some) else ""
    return expected + (f" or a name ({', '.join(printable(name, 40) for name in some)}{more})" if some else "")


def _expected_numbers(c_dim: int, labels: NetworkLabels, option: str) -> str:
    if not labels.examples:  # as of an imported network, which may know classes or numbers
        return f"takes labels of {c_dim} numbers: expected as many, or --class with one of 0 to {c_dim - 1}"
    example = labels.examples[0]
    shown = ",".join(f"{x:.3g}" for x in example[:MOST_NAMED]) + (",..." if c_dim > MOST_NAMED else "")
    return f"was trained on labels of {c_dim} numbers: expected as many, such as {option} {shown}"
