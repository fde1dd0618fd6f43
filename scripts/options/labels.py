# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Which class, or which label of numbers, a conditional network is to make."""

from __future__ import annotations

import math
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ggdr.scripts.options.parameters import bad_parameter
from ggdr.torch_utils.untrusted.text import printable

if TYPE_CHECKING:
    from ggdr.stylegan2 import Generator
    from ggdr.stylegan2.latent.sampling import Label
    from ggdr.stylegan2.network_labels import NetworkLabels

HELP = "What to make, which a conditional network needs: a class, by name or by number from 0 up; or the numbers of a "
HELP += "label, e.g. 0.2,0.5, for a network that was trained on such."
MOST_NAMED = 10  # classes in a message

label_option = click.option("--class", "--label", "label_text", metavar="NAME|IDX|NUMBERS", help=HELP)
class_option = click.option("--class", "label_text", metavar="NAME|IDX|NUMBERS", help=HELP)


def choose_label(network: Path, G: Generator, text: str | None, *, needed: bool = True) -> Label:
    """The label that `label_option` stands for: a class, the numbers of a label, or None.

    Args:
        needed: False where only latents of W are shown, which no label changes.

    Raises:
        click.BadParameter: it is given for an unconditional network, is missing, or is none of the network's.
    """
    if G.c_dim == 0:
        if text is not None:
            raise bad_parameter(f"{network} is unconditional: expected no class, got {text}", "--class")
        return None
    if text is None and not needed:
        return None

    from ggdr.stylegan2.network_labels import labels_of_config
    from ggdr.torch_utils.checkpoint import load_snapshot

    labels = labels_of_config(load_snapshot(network).config, G.c_dim)
    is_vector = bool(labels.examples) or (not labels.classes and "," in (text or ""))
    label = _read_numbers(text or "", G.c_dim) if is_vector else _find_class(text or "", G.c_dim, labels)
    if label is None:
        expected = _expected_numbers(G.c_dim, labels) if is_vector else _expected_class(text, G.c_dim, labels)
        if text is None:
            raise click.MissingParameter(f"{network} {expected}", param_hint="'--class'", param_type="option")
        raise bad_parameter(f"{network} {expected}, got {printable(text)}", "--class")
    return label


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


def _expected_class(text: str | None, c_dim: int, labels: NetworkLabels) -> str:
    if list(labels.classes) == [str(i) for i in range(c_dim)]:  # as of digits: the number is the name
        return f"has {c_dim} classes: expected one of 0 to {c_dim - 1}"
    some = get_close_matches(text or "", labels.classes, MOST_NAMED, cutoff=0.6) or labels.classes[:MOST_NAMED]
    more = ", ..." if len(labels.classes) > len(some) else ""
    names = f" or a name ({', '.join(printable(name, 40) for name in some)}{more})" if some else ""
    return f"has {c_dim} classes: expected one of 0 to {c_dim - 1}{names}"


def _expected_numbers(c_dim: int, labels: NetworkLabels) -> str:
    example = labels.examples[0] if labels.examples else [0.5] * c_dim
    shown = ",".join(f"{x:.3g}" for x in example[:MOST_NAMED]) + (",..." if c_dim > MOST_NAMED else "")
    return f"was trained on labels of {c_dim} numbers: expected as many, such as --label {shown}"
