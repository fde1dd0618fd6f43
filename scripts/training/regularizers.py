# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The regularisers that training commands know by name: the one list of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import click

from ggdr.scripts.training.regularizer_ggdr import GGDRKind

if TYPE_CHECKING:
    from torch import Tensor

    from ggdr.torch_utils.gan import Panel
    from ggdr.torch_utils.regularizers import Attachment, Regularizer, Regularizers


class RegularizerKind(Protocol):
    """One regulariser as commands know it. Another one is a module with such an object, and its line in REGULARIZERS.

    Attributes:
        name:    of its settings, its loss term and its weights.
        options: click's options, given to each command that trains.
        fixed:   settings that a resumed run may not change.
    """

    name: str
    options: Sequence[Callable[[Any], Any]]
    fixed: tuple[str, ...]

    def resolve(self, command: Mapping[str, Any], resolution: int, guides: Sequence[int]) -> Any | None:
        """Its settings, a frozen dataclass; None if it is not used. Raises OptionError.

        Args:
            command:    a command's options by parameter name.
            resolution: of the images.
            guides:     sides of G's feature maps that D can be taught, in pixels, rising.
        """

    def read(self, stored: Mapping[str, Any]) -> Any:
        """Settings that a run or snapshot stores; raises KeyError, TypeError or ValueError if they are damaged."""

    def build(self, attachment: Attachment, settings: Any) -> Regularizer: ...

    def panel(self, name: str) -> Panel:
        """Of what it penalises, which a run reports under `name`."""

    def summary(self, settings: Any) -> str:
        """A few words for the log."""


REGULARIZERS: dict[str, RegularizerKind] = {kind.name: kind for kind in (GGDRKind(),)}


def regularizer_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorates a command with the options of all regularisers."""
    for kind in reversed(REGULARIZERS.values()):
        for option in reversed(kind.options):
            command = option(command)
    return command


def regularizer_parameters() -> list[str]:
    """Parameter names of those options."""
    # A command takes decorators from the last one up, and keeps them in that order.
    return [param.name for param in reversed(regularizer_options(click.Command(None)).params)]


def resolve_regularizers(command: Mapping[str, Any], resolution: int, guides: Sequence[int]) -> dict[str, Any]:
    """Settings of those that are used, by name; raises OptionError. See RegularizerKind.resolve."""
    found = {name: kind.resolve(command, resolution, guides) for name, kind in REGULARIZERS.items()}
    return {name: settings for name, settings in found.items() if settings is not None}


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
