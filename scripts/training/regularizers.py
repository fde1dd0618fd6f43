# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The regularisers that training commands know by name: the one list of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import click

from ggdr.scripts.errors import OptionError, nearest
from ggdr.scripts.training.regularizer_contrastive import ContrastiveKind
from ggdr.scripts.training.regularizer_ema_guide import EMAGuideKind
from ggdr.scripts.training.regularizer_features import FeaturesKind
from ggdr.scripts.training.regularizer_ggdr import GGDRKind
from ggdr.scripts.training.regularizer_options import Site
from ggdr.scripts.training.regularizer_semantic import SemanticKind
from ggdr.torch_utils.untrusted.text import printable

if TYPE_CHECKING:
    from torch import Tensor

    from ggdr.torch_utils.gan import Panel
    from ggdr.torch_utils.regularizers import Attachment, Regularizer, Regularizers


class RegularizerKind(Protocol):
    """One regulariser as commands know it. Another one is a module with such an object, and its line in REGULARIZERS.

    Attributes:
        name:    of its settings, its loss term and its weights, and in --regularizer.
        options: click's options, given to each command that trains; None or () where they are not typed.
        fixed:   settings that a resumed run may not change.
    """

    name: str
    options: Sequence[Callable[[Any], Any]]
    fixed: tuple[str, ...]

    def resolve(self, command: Mapping[str, Any], site: Site) -> Any:
        """Its settings, a frozen dataclass; asked only if it is chosen. Raises OptionError.

        Args:
            command: a command's options by parameter name.
            site:    what the host offers.
        """

    def read(self, stored: Mapping[str, Any]) -> Any:
        """Settings that a run or snapshot stores; raises KeyError, TypeError or ValueError if they are damaged."""

    def build(self, attachment: Attachment, settings: Any) -> Regularizer: ...

    def panel(self, name: str) -> Panel:
        """Of what it penalises, which a run reports under `name`."""

    def summary(self, settings: Any) -> str:
        """A few words for the log."""


REGULARIZERS: dict[str, RegularizerKind] = {
    kind.name: kind for kind in (GGDRKind(), SemanticKind(), EMAGuideKind(), ContrastiveKind(), FeaturesKind())
}
NONE, DEFAULT = "none", "ggdr"
# By option, what a resumed run forgets when that is typed: --ggdr and --no-ggdr are short for a value of --regularizer.
REPLACES = {"regularizer": ("ggdr",), "ggdr": ("regularizer",)}

# Options that name code to run: a resumed run, which may be from anyone, is not asked for them.
CODE = ("features_network",)


class RegularizerNames(click.ParamType):
    """Names of regularisers with commas between them, or "none"."""

    name = "regularizer"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        known = (*REGULARIZERS, NONE)
        for name in value.split(","):
            if name not in known:
                self.fail(f"{printable(name)!r} is none of {', '.join(known)}{nearest(name, known)}", param, ctx)
        return value


_choice = (
    click.option("--ggdr/--no-ggdr", default=None, help="Short for --regularizer ggdr, and for --regularizer none."),
    click.option(
        "--regularizer",
        type=RegularizerNames(),
        multiple=True,
        metavar="NAME,...",
        help=f"What D learns beside telling reals from fakes: {', '.join(REGULARIZERS)}, or {NONE}. Several, with "
        f"commas or given one by one, add up.  [default: {DEFAULT}]",
    ),
)


def regularizer_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorates a command with the choice of regularisers, and the options of all of them."""
    options = [*_choice, *(option for kind in REGULARIZERS.values() for option in kind.options)]
    for option in reversed(options):
        command = option(command)
    return command


def regularizer_parameters() -> list[str]:
    """Parameter names of those options."""
    return [param.name for param in _params(regularizer_options)]


def _params(decorate: Callable[[click.Command], click.Command]) -> list[click.Parameter]:
    # A command takes decorators from the last one up, and keeps them in that order.
    return list(reversed(decorate(click.Command(None)).params))


def chosen_regularizers(command: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of those that a command asks for, in the order of REGULARIZERS; raises OptionError if it is not clear.

    Args:
        command: its options by parameter name.
    """
    names = [name for text in command.get("regularizer") or () for name in text.split(",")]
    flag = command.get("ggdr")
    if names and flag is not None:
        short = "--ggdr" if flag else "--no-ggdr"
        raise OptionError("--regularizer", f"{short} is short for --regularizer {DEFAULT if flag else NONE}: give one")
    if NONE in names and len(set(names)) > 1:
        raise OptionError("--regularizer", f"{NONE} leaves out all others, got {', '.join(names)}")
    names = names or [NONE if flag is False else DEFAULT]
    return tuple(name for name in REGULARIZERS if name in names)


def options_of_others(command: Mapping[str, Any]) -> set[str]:
    """Parameter names of the options of those that a command does not ask for; raises as `chosen_regularizers`."""
    chosen = chosen_regularizers(command)
    others = [kind for name, kind in REGULARIZERS.items() if name not in chosen]
    return {param.name for kind in others for option in kind.options or () for param in _params(option)}


def needs_label_maps(command: Mapping[str, Any]) -> bool:
    """Whether one of those that a command asks for looks at the label maps of the data; raises OptionError."""
    return any(getattr(REGULARIZERS[name], "of_reals", None) == "label_map" for name in chosen_regularizers(command))


def without_regularizers(command: Mapping[str, Any]) -> dict[str, Any]:
    """A command's options, without any regulariser."""
    plain = {param.name: () if param.multiple else None for param in _params(regularizer_options)}
    return {**command, **plain, "ggdr": False}


def resolve_regularizers(
    command: Mapping[str, Any], resolution: int, guides: Sequence[int], **offers: Any
) -> dict[str, Any]:
    """Settings of those that are used, by name; raises OptionError. See RegularizerKind.resolve.

    Args:
        offers: what else the host offers, as in Site.
    """
    site, chosen = Site(resolution, guides, **offers), chosen_regularizers(command)
    for name, kind in REGULARIZERS.items():
        if name not in chosen:
            _refuse_options(command, kind, chosen)
    return {name: REGULARIZERS[name].resolve(command, site) for name in chosen}


def _refuse_options(command: Mapping[str, Any], kind: RegularizerKind, chosen: Sequence[str]) -> None:
    """Raises OptionError for an option of a regulariser that is not chosen."""
    for option in kind.options:
        (param,) = _params(option)
        if command.get(param.name) not in (None, (), []):
            how = "--ggdr" if kind.name == DEFAULT else f"--regularizer {kind.name}"
            got = f"--regularizer {','.join(chosen)}" if chosen else "--no-ggdr"
            raise OptionError(param.opts[0], f"needs {how}, got {got}")


def build_regularizers(attachment: Attachment, settings: Mapping[str, Any]) -> Regularizers:
    """Those of `resolve_regularizers`, attached to a host."""
    from ggdr.torch_utils.regularizers import Regularizers, reported_name

    items = {name: REGULARIZERS[name].build(attachment, mine) for name, mine in settings.items()}
    panels = [REGULARIZERS[name].panel(reported_name(item)) for name, item in items.items()]
    return Regularizers(list(items.values()), panels)


def load_networks(
    task: Any, networks: Mapping[str, dict[str, Tensor]], own: Mapping[str, dict[str, Tensor]], origin: object
) -> list[str]:
    """Gives a host's task the weights of a snapshot; regularisers that it lacks stay as they are.

    Args:
        networks: state dicts of the snapshot.
        own:      state dicts of the task's regularisers, by the names that snapshots have.
        origin:   the snapshot's path.

    Returns:
        What to tell about it.

    Raises:
        SnapshotError: the weights do not fit.
    """
    from ggdr.torch_utils.checkpoint import SnapshotError
    from ggdr.torch_utils.untrusted.text import printable

    lacking = {
        name: state for name, state in own.items() if state and _shapes(networks.get(name, {})) != _shapes(state)
    }
    try:
        task.load_networks({**networks, **lacking})
    except (KeyError, RuntimeError) as error:
        raise SnapshotError(f"{origin}: weights do not fit: {printable(error)}") from error
    return [f"{origin} has no weights of {name} like this run's; it starts untrained" for name in lacking]


def _shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in state.items()}


def describe_regularizers(settings: Mapping[str, Any]) -> str:
    """A few words for the log."""
    return ", ".join(REGULARIZERS[name].summary(mine) for name, mine in settings.items()) or "no regulariser"


def is_fixed(name: str) -> bool:
    """Whether a setting, as "regularizers.ggdr.guide_res", may not change on resume; nor may what is used."""
    part, _, rest = name.partition(".")
    regularizer, _, field = rest.partition(".")
    if part != "regularizers":
        return False
    return not field or (regularizer in REGULARIZERS and field in REGULARIZERS[regularizer].fixed)
