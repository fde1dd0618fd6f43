# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Options of a training command: from a mapping or from words, to one plain form, and back to words."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from ggdr.scripts.errors import CliError, nearest
from ggdr.scripts.options.parameters import typed_words
from ggdr.torch_utils.untrusted.text import printable

# The training commands that a study can run, and where they are.
COMMANDS = {"train": ("ggdr.scripts.train", "main"), "translate train": ("ggdr.scripts.translating.train", "train")}
Scalar = bool | int | float | str
OWNED = ("outdir", "resume", "seed", "dry-run", "metrics")  # options that a study sets itself


def training_command(name: str) -> click.Command:
    """The command `ggdr NAME`, which is imported only here; CliError if it trains nothing."""
    if name not in COMMANDS:
        raise CliError(f"command: {printable(name)!r} is none of {', '.join(COMMANDS)}{nearest(name, COMMANDS)}")
    module, function = COMMANDS[name]
    return getattr(importlib.import_module(module), function)


def host_name(command: str, options: Mapping[str, Any]) -> str:
    """The host that a training command trains with these options."""
    return option_value(command, options, "model") or "stylegan2"


def measured_data(command: str, options: Mapping[str, Any]) -> str:
    """The data that the metrics of a run with these options are measured on."""
    return option_value(command, options, "metrics-data") or option_value(command, options, "data")


def parse_words(command: str, words: Sequence[str], where: str, base: Path) -> dict[str, Any]:
    """Options by their names without dashes, as JSON can hold them: numbers, text, truth values, lists.

    Args:
        words: as they are typed after `ggdr train`.
        where: they stand, for messages.
        base:  the folder that paths in them are relative to.

    Raises:
        CliError: an option is unknown, is one of the study, or has a value that it cannot have.
    """
    main = training_command(command)
    ctx = click.Context(main, info_name=f"ggdr {command}")
    params = {param.name: param for param in main.params}
    try:
        typed, rest, _ = main.make_parser(ctx).parse_args(list(words))
        if rest:
            raise click.UsageError(f"unexpected word {rest[0]!r}")
        _refuse_owned([_option_name(params[name]) for name in typed if name in params], where)
        unknown = [name for name in typed if name not in params]
        if unknown:
            raise click.UsageError(f"--{unknown[0]} is no option of a run")
        return {
            _option_name(param): _plain(param, param.type_cast_value(ctx, typed[name]), base)
            for name, param in params.items()
            if name in typed
        }
    except click.UsageError as error:
        raise CliError(f"{where}: {error.format_message()}") from error


def parse_mapping(command: str, options: Any, where: str, base: Path) -> dict[str, Any]:
    """The same from a mapping, as YAML and JSON have it: `-` and `_` are alike, true and false are flags."""
    if options is None:  # as YAML reads a name with nothing behind it
        return {}
    if not isinstance(options, Mapping):
        raise CliError(f"{where}: expected options with values, got {brief(options)}")
    _refuse_owned([str(key).replace("_", "-") for key in options], where)
    return parse_words(command, mapping_words(command, options, where), where, base)


def mapping_words(command: str, options: Mapping[Any, Any], where: str) -> list[str]:
    """The words that give a training command the options of a mapping; raises CliError as `parse_mapping`."""
    known = {_option_name(param): param for param in training_command(command).params}
    words: list[str] = []
    for key, value in options.items():
        name = str(key).replace("_", "-")
        if name not in known:
            raise CliError(f"{where}: {printable(key)!r} is no option of `ggdr {command}`{nearest(name, known)}")
        words += _words_of(known[name], name, value, where)
    return words


def options_to_words(command: str, options: Mapping[str, Any]) -> list[str]:
    """The words that give a training command these options, also those that are at their defaults."""
    main = training_command(command)
    values = {param.name: options.get(_option_name(param)) for param in main.params}
    return typed_words(main, values, with_defaults=True)


def option_value(command: str, options: Mapping[str, Any], name: str) -> Any:
    """The value of an option, or its default, None if there is none or the command has no such option."""
    if name in options:
        return options[name]
    default = next((x.default for x in training_command(command).params if _option_name(x) == name), None)
    return default if isinstance(default, Scalar) else None


def brief(value: Any) -> str:
    """A value for a message; of a list or mapping, which can be endless, only what it is."""
    return printable(repr(value), 60) if isinstance(value, Scalar | None) else f"a {type(value).__name__}"


def _option_name(param: click.Parameter) -> str:
    return param.opts[0].removeprefix("--")


def _refuse_owned(names: Sequence[str], where: str) -> None:
    """CliError if an option is among them that a study sets itself."""
    for name in names:
        if name in OWNED:
            remedy = {"seed": "; give --seeds", "metrics": "; give metrics of the whole study"}.get(name, "")
            raise CliError(f"{where}: --{name} belongs to the study, which sets it for each run{remedy}")


def _words_of(param: click.Parameter, name: str, value: Any, where: str) -> list[str]:
    """One option of a mapping as words."""
    if param.is_flag:
        if not isinstance(value, bool):
            raise CliError(f"{where}: {name} expects true or false, got {brief(value)}")
        return [(param.opts if value else param.secondary_opts)[0]]
    values = value if isinstance(value, (list, tuple)) and param.multiple else [value]
    values = [os.fspath(item) if isinstance(item, os.PathLike) else item for item in values]
    for item in values:
        if isinstance(item, bool) or not isinstance(item, Scalar):
            raise CliError(f"{where}: {name} expects a number or text, got {brief(item)}")
    return [word for item in values for word in (param.opts[0], str(item))]


def _plain(param: click.Parameter, value: Any, base: Path) -> Any:
    """A value as JSON can hold it; paths become absolute, since runs may be started from elsewhere."""
    if isinstance(value, (tuple, list)):
        return [_plain(param, item, base) for item in value]
    return os.path.abspath(base / value) if isinstance(value, Path) else value
