# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""From which domain to which images are translated, as --from, --to and the folders' names say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import click

from ggdr.scripts.errors import nearest
from ggdr.scripts.options.parameters import bad_parameter
from ggdr.torch_utils.data.labels import SPLITS
from ggdr.torch_utils.untrusted.text import printable
from ggdr.translation.translator import Translator

MOST_NAMED = 10  # domains in a message
MOST_COLUMNS = 20  # domains on a sheet


class Placed(NamedTuple):
    """An image, and the name of the folder that holds it."""

    where: str
    folder: str


def choose_directions(
    translator: Translator, network: Path, source: str | None, target: str | None, images: Sequence[Placed]
) -> list[tuple[str, str]]:
    """Source and target of each image.

    Of two domains one follows from the other. Where there are more, and no source is given, it is the domain that the
    image's folder is called by.

    Raises:
        click.BadParameter: a domain is unknown, missing, or source and target are the same.
    """
    if not translator.returns:
        for option, given in (("--from", source), ("--to", target)):
            if given is not None:
                text = f"{network} is a {translator.model}, which translates one way only: leave it out"
                raise bad_parameter(text, option)
        return [(translator.sources[0], translator.targets(translator.sources[0])[0])] * len(images)
    source = find_domain(translator, network, source, "--from")
    target = find_domain(translator, network, target, "--to")
    if len(translator.domains) == 2:
        a, b = translator.domains
        other = {a: b, b: a}
        target = target or other.get(source)
        source = source or other.get(target)
    if target is None:
        raise click.MissingParameter(
            f"{_describe(translator, network)}: say which the images become", param_hint="'--to'", param_type="option"
        )
    sources = choose_sources(translator, network, source, images)
    for image, each in zip(images, sources, strict=True):
        if each == target:
            why = "as --to" if source else f"as --to, by the name of its folder: {image.where}"
            raise bad_parameter(f"expected another domain than --to, got {target}, {why}", "--from")
    return [(each, target) for each in sources]


def choose_sources(translator: Translator, network: Path, source: str | None, images: Sequence[Placed]) -> list[str]:
    """The domain of each image: `source`, or else what its folder is called.

    Raises:
        click.BadParameter: a folder is called like no domain.
    """
    if not translator.returns:
        return [translator.sources[0]] * len(images)
    if source is not None:
        return [source] * len(images)
    found = [_of_folder(translator, image.folder) for image in images]
    for image, each in zip(images, found, strict=True):
        if each is None:
            folder = f"its folder, {printable(repr(image.folder), 40)}, is called like none"
            text = f"{_describe(translator, network)}: say which {image.where} is of; {folder}"
            raise click.MissingParameter(text, param_hint="'--from'", param_type="option")
    return found


def find_domain(translator: Translator, network: Path, name: str | None, option: str) -> str | None:
    """The domain of a name, in which capitals need not be right where that is clear.

    Raises:
        click.BadParameter: there is none.
    """
    if name is None:
        return None
    for same in (str, str.casefold):
        found = [each for each in translator.domains if same(each) == same(name)]
        if len(found) == 1:
            return found[0]
    text = f"{_describe(translator, network)}: expected one of them, got {printable(repr(name), 40)}"
    raise bad_parameter(text + nearest(name, translator.domains), option)


def _of_folder(translator: Translator, folder: str) -> str | None:
    """The domain that a folder is called by, as horse, or trainhorse and testhorse beside a training set's."""
    names = [folder, *(folder.removeprefix(split) for split in SPLITS if folder.startswith(split))]
    found = {name for name in names if name in translator.domains}
    return found.pop() if len(found) == 1 else None


def _describe(translator: Translator, network: Path) -> str:
    names = translator.domains
    shown = [*names[:MOST_NAMED], "..."] if len(names) > MOST_NAMED else names
    return f"{network} is a {translator.model} of {len(names)} domains, {', '.join(shown)}"


def choose_sheet(
    translator: Translator, network: Path, source: str | None, targets: Sequence[str], images: Sequence[Placed]
) -> tuple[list[str], list[str]]:
    """The domain of each image, and the domains that a sheet has columns for, in order.

    Raises:
        click.BadParameter: a domain is unknown, or unknown for an image; or there are too many to show all.
    """
    if not translator.returns:
        directions = choose_directions(translator, network, source, next(iter(targets), None), images)
        return [each for each, _ in directions], [directions[0][1]]
    source = find_domain(translator, network, source, "--from")
    named = [find_domain(translator, network, name, "--to") for name in targets]
    if source is None and len(translator.domains) == 2 and len(named) == 1:
        source = next(name for name in translator.domains if name != named[0])
    sources = choose_sources(translator, network, source, images)
    # Of what nobody asked for, only the domains that some image is translated to.
    possible = {target for each in sources for target in translator.targets(each)}
    columns = named or [name for name in translator.domains if name in possible]
    if len(columns) > MOST_COLUMNS:
        text = f"{_describe(translator, network)}: expected up to {MOST_COLUMNS} of them, got {len(columns)}"
        raise bad_parameter(text, "--to")
    if not set(columns) & possible:
        raise bad_parameter(f"expected another domain than that of the images, got {columns[0]}", "--to")
    return sources, list(dict.fromkeys(columns))
