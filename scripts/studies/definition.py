# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What a study is: variants of options, times seeds, on the same data; from options, from YAML, or from study.json."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ggdr.metrics.defaults import quick_judge
from ggdr.metrics.names import parse_metrics
from ggdr.scripts.errors import CliError, nearest
from ggdr.scripts.options.network import parse_seeds
from ggdr.scripts.options.option_words import (
    Scalar,
    brief,
    host_name,
    option_value,
    options_to_words,
    parse_mapping,
    parse_words,
    training_command,
)
from ggdr.scripts.options.training import NO_METRICS
from ggdr.torch_utils.untrusted.regular_files import read_regular
from ggdr.torch_utils.untrusted.text import printable

# Options in which variants may not differ.
SAME_DATA = ("data", "cond", "mirror", "subset", "direction", "metrics-data")
KEYS = ("command", "options", "seeds", "variants", "metrics")  # of a study's YAML
MAX_SEEDS, MAX_SEED = 1000, 2**32 - 2
MAX_RUNS = 10_000  # of a study
MAX_YAML, MAX_MERGED = 2**16, 1000  # bytes of a study's YAML, and keys of one mapping in it
# By the judge that is at hand.
DEFAULT_METRICS = {"lite": "fd_lite5k_full,kd_lite5k_full,mind_lite5k_full", "offline": "fd_offline5k_full"}
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._+-]{0,58}[A-Za-z0-9])?")  # a folder on any system
_FILES = ("study.json", "compare.html", "compare.md")  # beside the folders of variants


@dataclass(frozen=True)
class Variant:
    """Options, by their names without dashes, that make one of the things to compare."""

    name: str
    options: dict[str, Any] = field(hash=False)


@dataclass(frozen=True)
class Study:
    """What is compared.

    Attributes:
        command:  of each run, as "train".
        options:  of every run; those of a variant come before them.
        variants: the first one is the baseline.
        seeds:    of each variant, ascending.
        metrics:  names, of each snapshot.
    """

    command: str
    options: dict[str, Any]
    variants: tuple[Variant, ...]
    seeds: tuple[int, ...]
    metrics: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """In the form of the YAML."""
        return {
            "command": self.command,
            "options": self.options,
            "variants": {variant.name: variant.options for variant in self.variants},
            "seeds": list(self.seeds),
            "metrics": list(self.metrics),
        }

    def options_of(self, variant: Variant) -> dict[str, Any]:
        """All options of a variant's runs."""
        return {**self.options, **variant.options}

    def words(self, variant: Variant, seed: int, outdir: Path | str) -> list[str]:
        """What is typed after `ggdr` to start a run."""
        words = options_to_words(self.command, self.options_of(variant))
        metrics = ["--metrics", ",".join(self.metrics) or NO_METRICS]
        return [*self.command.split(), "--outdir", str(outdir), *words, "--seed", str(seed), *metrics]


@dataclass(frozen=True)
class Request:
    """What one start of `ggdr compare` asks for; None is what it does not say."""

    command: str | None = None
    options: dict[str, Any] | None = None
    variants: tuple[Variant, ...] | None = None
    seeds: tuple[int, ...] | None = None
    metrics: tuple[str, ...] | None = None


def read_words(words: Sequence[str], variants: Sequence[str], command: str = "train") -> Request:
    """From the command line.

    Args:
        words:    options of every run.
        variants: NAME=OPTIONS each.
        command:  of each run.

    Raises:
        CliError: they cannot be used; says why.
    """
    import shlex

    found = []
    for text in variants:
        name, equals, options = text.partition("=")
        if not equals:
            raise CliError(f"--variant: expected NAME=OPTIONS, as none=--no-ggdr, got {printable(text)!r}")
        try:
            typed = shlex.split(options)
        except ValueError as error:
            raise CliError(f"--variant {printable(name)}: {error}: {printable(options)!r}") from error
        found.append(Variant(name, parse_words(command, typed, f"--variant {printable(name)}", Path())))
    _check_names([variant.name for variant in found])
    options = parse_words(command, words, "options after --", Path()) if words else None
    return Request(command if words or found else None, options, tuple(found) or None)


def read_yaml(path: Path) -> Request:
    """From a file; paths in it are relative to its folder.

    Raises:
        CliError: it is no definition of a study; says why.
        OSError:  it cannot be read.
        ModuleNotFoundError: PyYAML is not installed.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        """Refuses a key that is there twice, of which YAML's own reader takes the last, and mappings without end."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
            counts = Counter(key.value for key, _ in node.value if isinstance(key.value, str))
            twice = {printable(key) for key, count in counts.items() if count > 1}
            if twice:
                raise CliError(f"{path}, line {node.start_mark.line + 1}: {', '.join(sorted(twice))} is there twice")
            return super().construct_mapping(node, deep)

        def flatten_mapping(self, node: yaml.MappingNode) -> None:
            """What `<<: *name` means; a few lines of it could double a mapping with each."""
            super().flatten_mapping(node)
            if len(node.value) > MAX_MERGED:
                raise CliError(f"{path}, line {node.start_mark.line + 1}: more than {MAX_MERGED} keys")

    try:
        content = yaml.load(read_regular(path, MAX_YAML), Loader)
    except (yaml.YAMLError, RecursionError) as error:
        raise CliError(f"{path}: no YAML: {printable(' '.join(str(error).split()), 300)}") from error
    except (ValueError, TypeError) as error:  # of a date or number that is none, or a key that is a list
        raise CliError(f"{path}: {printable(error)}") from error
    return read_mapping(content, str(path), path.parent)


def read_mapping(content: Any, where: str, base: Path) -> Request:
    """From the mapping that a YAML or study.json holds; CliError if it cannot be used."""
    if not isinstance(content, Mapping):
        raise CliError(f"{where}: expected {', '.join(KEYS)} with values, got {brief(content)}")
    for key in content:
        if key not in KEYS:
            raise CliError(f"{where}: {printable(key)!r} is no part of a study{nearest(str(key), KEYS)}")
    command = content.get("command", "train")
    if not isinstance(command, str):
        raise CliError(f"{where}: command: expected text, got {printable(command)!r}")
    options = parse_mapping(command, content.get("options"), f"{where}: options", base)
    variants = content.get("variants")
    if not isinstance(variants, Mapping) or not variants:
        raise CliError(f"{where}: variants: expected names with options, got {brief(variants)}")
    _check_names(list(variants), f"{where}: ")
    found = tuple(
        Variant(name, parse_mapping(command, mine, f"{where}: variant {name}", base)) for name, mine in variants.items()
    )
    seeds = parse_seed_list(content["seeds"], f"{where}: seeds") if "seeds" in content else None
    metrics = content.get("metrics")
    if metrics is not None:
        metrics = parse_metric_list(metrics, f"{where}: metrics")
    return Request(command, options, found, seeds, metrics)


def parse_seed_list(seeds: Any, where: str) -> tuple[int, ...]:
    """Seeds of "0-2", of a number, or of a list of them; CliError for anything else."""
    text = _joined(seeds, where)
    try:
        found = sorted(set(parse_seeds(text)))
    except ValueError as error:
        raise CliError(f"{where}: {error}") from error
    if len(found) > MAX_SEEDS or found[-1] > MAX_SEED:
        raise CliError(f"{where}: expected {MAX_SEEDS} seeds at most, each up to {MAX_SEED}")
    return tuple(found)


def parse_metric_list(metrics: Any, where: str) -> tuple[str, ...]:
    """Names of metrics, of a list or of text with commas; CliError for anything else, none for an empty list."""
    text = _joined(metrics, where)
    try:
        return tuple(spec.name for spec in parse_metrics(text)) if text else ()
    except (ValueError, OverflowError) as error:
        raise CliError(f"{where}: {error}") from error


def _joined(values: Any, where: str) -> str:
    """A list of numbers or text, or one of them, as text with commas."""
    items = values if isinstance(values, list) else [values]
    for item in items:
        if isinstance(item, bool) or not isinstance(item, Scalar):
            raise CliError(f"{where}: expected a list of numbers or text, got {brief(item)}")
    return ",".join(map(str, items))


def combine(stored: Study | None, asked: Request) -> Study:
    """The study of a folder with what a start asks for.

    Variants, seeds and metrics may be added; those that are not named stay.

    Raises:
        CliError: it is another study, or not a whole one.
    """
    if stored is None:
        if asked.variants is None:
            raise CliError("no variants: give a STUDY.yaml, or --variant NAME=OPTIONS once for each")
        if asked.seeds is None:
            raise CliError("no seeds: give --seeds, as 0-2")
        metrics = asked.metrics
        if metrics is None:
            metrics = _default_metrics(asked)
        study = Study(asked.command or "train", asked.options or {}, asked.variants, asked.seeds, metrics)
    else:
        _refuse_others(stored, asked)
        names = {variant.name for variant in stored.variants}
        study = Study(
            stored.command,
            stored.options,
            stored.variants + tuple(variant for variant in asked.variants or () if variant.name not in names),
            tuple(sorted({*stored.seeds, *(asked.seeds or ())})),
            tuple(dict.fromkeys([*stored.metrics, *(asked.metrics or ())])),
        )
    _check_names([variant.name for variant in study.variants])
    if len(study.variants) * len(study.seeds) > MAX_RUNS:
        raise CliError(f"{len(study.variants)} variants of {len(study.seeds)} seeds: expected {MAX_RUNS} runs at most")
    _check_data(study)
    return study


def _default_metrics(asked: Request) -> tuple[str, ...]:
    """What is measured where nothing says it: of translators, what their runs measure then."""
    command = asked.command or "train"
    if command == "train":
        return parse_metric_list(DEFAULT_METRICS[quick_judge()], "")
    from ggdr.scripts.training.hosts import HOSTS
    from ggdr.scripts.training.resume import Origin
    from ggdr.torch_utils.distributed import ProcessGroup

    options = {**(asked.options or {}), **asked.variants[0].options}
    words = [*options_to_words(command, options), "--outdir", "."]
    params = training_command(command).make_context(f"ggdr {command}", words).params
    if params["data"] is None:
        raise _missing_data()
    prepared = HOSTS[host_name(command, options)].prepare(params, Origin(), ProcessGroup())
    return prepared.settings.metrics


def check_data_is_there(study: Study) -> None:
    """CliError if the dataset is not there, of which otherwise each run would complain."""
    data = option_value(study.command, study.options_of(study.variants[0]), "data")
    if not Path(data).exists():
        raise CliError(f"--data: {data}: no such file")


def _refuse_others(stored: Study, asked: Request) -> None:
    """CliError where a start asks for other settings than those that the folder's runs have."""
    if asked.command not in (None, stored.command):
        raise CliError(f"--outdir holds a study of `ggdr {stored.command}`, got one of `ggdr {asked.command}`")
    if asked.options is not None:
        _refuse_changes(
            stored.options,
            asked.options,
            "options of every run",
            "Options of every run are repeated as they were, all of them, or left out",
        )
    old = {variant.name: variant.options for variant in stored.variants}
    for variant in asked.variants or ():
        if variant.name in old:
            _refuse_changes(
                old[variant.name],
                variant.options,
                f"variant {variant.name}",
                "Options of a variant are repeated as they were, all of them, or it is left out; other options need "
                "another name",
            )


def _refuse_changes(before: Mapping[str, Any], now: Mapping[str, Any], what: str, rule: str) -> None:
    """CliError that names the options that differ; only where none has another value, those that are missing."""
    changed = [name for name in now if before.get(name) != now[name]] or [name for name in before if name not in now]
    if changed:
        shown = ", ".join(f"--{name}: got {_shown(now, name)}, stored {_shown(before, name)}" for name in changed)
        raise CliError(
            f"--outdir holds a study of other settings: {what}: {shown}. {rule}; a new --outdir is another study"
        )


def _shown(options: Mapping[str, Any], name: str) -> str:
    return printable(options[name]) if name in options else "none"


def _check_names(names: Sequence[Any], where: str = "") -> None:
    """CliError for a variant's name that cannot be a folder's, or two of one name."""
    for name in names:
        if not isinstance(name, str):
            raise CliError(f"{where}variant {name!r}: expected a name that is text; write it in quotes")
        if _NAME.fullmatch(name) is None or name.lower() in _FILES:
            expected = "up to 60 letters, digits and ._+- that begin and end with a letter or digit"
            raise CliError(f"{where}variant {printable(name)!r}: expected a name that can be a folder: {expected}")
    counts = Counter(name.lower() for name in names)  # one folder where capitals do not count
    twice = [name for name in names if counts[name.lower()] > 1]
    if twice:
        raise CliError(f"{where}variants need different names, got {' and '.join(map(repr, twice))}")


def _check_data(study: Study) -> None:
    """CliError unless all variants train on the same data."""
    first, *others = study.variants
    for name in SAME_DATA:
        value = option_value(study.command, study.options_of(first), name)
        for variant in others:
            other = option_value(study.command, study.options_of(variant), name)
            if other != value:
                raise CliError(
                    f"variants {first.name!r} and {variant.name!r} differ in --{name} ({value} and {other}); "
                    "a study compares on the same data"
                )
    data = option_value(study.command, study.options_of(first), "data")
    if data is None:
        raise _missing_data()


def _missing_data() -> CliError:
    return CliError("--data is missing among the options of every run: the dataset to train on")
