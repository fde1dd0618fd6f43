# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What a run stored, which may have been changed by anyone, as far as it is sound."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import torch

from ggdr.torch_utils.checkpoint import MAX_NIMG, SnapshotError
from ggdr.torch_utils.gan import GANTask
from ggdr.torch_utils.untrusted.text import printable


def checked_options(stored: Mapping[str, Any], defaults: Mapping[str, Any], where: Path) -> dict[str, Any]:
    """The options that a run stores, as the command that runs now takes them from the command line.

    Args:
        stored:   by parameter name.
        defaults: what each is where it is not given.
        where:    the file that they are from.

    Raises:
        SnapshotError: one is none that could have been typed.
    """
    context = click.get_current_context(silent=True)
    params = {} if context is None else {param.name: param for param in context.command.params}
    found = dict(stored)
    for name in stored.keys() & params.keys():
        try:
            found[name] = _as_typed(params[name], stored[name], defaults[name], context)
        except (click.BadParameter, AttributeError, TypeError, ValueError, OverflowError) as error:
            text = error.message if isinstance(error, click.BadParameter) else error
            raise SnapshotError(f"{where}: {params[name].opts[0]} is damaged there: {printable(text)}") from error
    return found


def _as_typed(param: click.Parameter, value: Any, default: Any, context: click.Context) -> Any:
    """A stored value by its option's type; raises what that does, or ValueError for a value of another kind."""
    if value is None:
        if default is not None:
            raise ValueError("got null")
        return None
    typed = param.type_cast_value(context, value)
    plain = json.loads(json.dumps(typed, default=str))
    if plain != value or isinstance(plain, bool) != isinstance(value, bool):
        raise ValueError(f"got {value!r}")
    return typed


def check_state(state: Mapping[str, Any], where: Path) -> None:
    """Looks at all but the task's part of a training state.

    Raises:
        SnapshotError: it lacks something, or holds it in another form.
    """
    try:
        json.dumps(state["options"])
        counters, stats = state["counters"], state["stats"]
        checks = {
            "options": isinstance(state["options"], dict),
            "counters": counters.keys() == {"nimg", "step"} and all(map(_is_count, counters.values())),
            "stats": all(isinstance(name, str) and _is_sum(value) for name, value in stats.items()),
            "task": isinstance(state["task"], dict),
            "device_type": isinstance(state["device_type"], str),
        }
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise SnapshotError(f"{where}: a training state of other content: {_cause(error)}") from error
    wrong = [name for name, is_sound in checks.items() if not is_sound]
    if wrong:
        raise SnapshotError(f"{where}: a training state of other content: {', '.join(wrong)}")


def load_task(task: GANTask, state: Mapping[str, Any], where: Path) -> None:
    """Gives a task its part of a training state.

    Raises:
        SnapshotError: it does not fit.
    """
    try:
        task.load_state(state)
    except torch.OutOfMemoryError:
        raise
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        text = f"{where}: its networks, optimisers or random state do not fit this run: {_cause(error)}"
        raise SnapshotError(text) from error


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MAX_NIMG


def _is_sum(value: Any) -> bool:
    """Whether it is a sum and a count, as `StatsSum` keeps them."""
    return isinstance(value, torch.Tensor) and value.shape == (2,) and value.is_floating_point()


def _cause(error: Exception) -> str:
    kind = "it lacks " if isinstance(error, KeyError) else ""
    return f"{kind}{printable(error)}"
