# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What is computed from what while a network runs, and which maps a later layer can do without."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from torch import Tensor
from torch.overrides import TorchFunctionMode

LONGEST_BYPASS = 0.5  # of a network's layers; what goes round more of them makes no branch of all these
THINNEST_BYPASS = 0.25  # of a map's channels; images, masks and the like beside it do not replace it


class Step:
    """One result of an operation: where it comes from, but not the tensor."""

    __slots__ = ("index", "parents", "spatial")

    def __init__(self, index: int, parents: tuple[Step, ...], spatial: bool) -> None:
        self.index, self.parents, self.spatial = index, parents, spatial


class Stage(NamedTuple):
    """What a layer returned, [N, channels, H, W] or tokens [N, L, channels]."""

    step: Step
    channels: int
    area: int  # pixels, or tokens


class _Way(NamedTuple):
    """How a step is reached from others, and from a certain one."""

    source: int  # number of the last stage that reaches it by maps round that one, from 1; 0 for none
    after: int  # whether that one reaches it: 0, VECTOR or MAP


VECTOR, MAP = 1, 2
NO_WAY = _Way(0, 0)


class Dataflow(TorchFunctionMode):
    """Notes the operations of torch while open, in this thread; of those that torch does not show, see `join`."""

    def __init__(self) -> None:
        super().__init__()
        self._steps: list[Step] = []
        self._of: dict[int, tuple[weakref.ref[Tensor], Step]] = {}

    def __torch_function__(self, func, types, args=(), kwargs=None):
        parents = tuple({self.step(tensor): None for tensor in tensors_in((args, kwargs or {}))})
        result = func(*args, **(kwargs or {}))
        changed = args[:1] if getattr(func, "__name__", "") == "__setitem__" else ()
        for tensor in tensors_in((result, changed)):
            self._note(tensor, parents)
        return result

    def step(self, tensor: Tensor) -> Step:
        """The operation that a tensor comes from, or a new step without parents."""
        ref, step = self._of.get(id(tensor), (None, None))
        return step if ref is not None and ref() is tensor else self._note(tensor, ())

    def join(self, inputs: object, outputs: object) -> None:
        """Lets what a layer returned come from its inputs where operations in between were not seen."""
        sources = {self.step(tensor) for tensor in tensors_in(inputs)}
        if not sources:
            return
        for tensor in tensors_in(outputs):
            step = self.step(tensor)
            if step not in sources and not _comes_from(step, sources):
                self._note(tensor, (*step.parents, *sources))

    def branches(self, stages: Sequence[Stage], beside: Sequence[Stage] = ()) -> list[bool]:
        """Whether each stage lies in a branch: later ones get what came before it by a way that leads round it.

        Such is the inside of a residual block, which the shortcut leads round. A way round through larger maps makes no
        branch: it is the skip connection of an encoder-decoder. Nor does one round most of the network's layers, or
        through images (`THINNEST_BYPASS`), or through vectors, as styles are. A map that becomes a vector which is
        joined to maps that came before it, as channel attention is, lies in a branch too.

        Args:
            beside: more stages that may come before and after them.
        """
        everything = [*stages, *beside]
        numbers = self._longest_ways(everything)
        longest = LONGEST_BYPASS * max(numbers.values(), default=0)
        alike = {(stage.step, stage.channels, stage.area): stage for stage in stages}
        found = {key: self._is_branch(stage, everything, numbers, longest) for key, stage in alike.items()}
        return [found[stage.step, stage.channels, stage.area] for stage in stages]

    def sizes_seen(self, stages: Sequence[Stage]) -> list[int]:
        """Pixels of the largest stage that each comes from, or of itself."""
        areas = {stage.step: stage.area for stage in stages}
        seen: dict[Step, int] = {}
        for step in self._steps:
            seen[step] = max(areas.get(step, 0), *(seen[parent] for parent in step.parents), 0)
        return [seen[stage.step] for stage in stages]

    def _longest_ways(self, stages: Sequence[Stage]) -> dict[Step, int]:
        """By stage, how many stages lie on the longest way to it."""
        steps = {stage.step for stage in stages}
        ways: dict[Step, int] = {}
        for step in self._steps:
            ways[step] = max((ways[parent] for parent in step.parents), default=0) + (step in steps)
        return {step: ways[step] for step in steps}

    def _is_branch(self, stage: Stage, stages: Sequence[Stage], numbers: dict[Step, int], longest: float) -> bool:
        wide = [other for other in stages if other.channels >= THINNEST_BYPASS * stage.channels]
        before = _ancestors(stage.step)
        sources = [other for other in wide if other.step in before]
        small = [other for other in sources if other.area <= stage.area]
        ways = self._around(stage.step, sources, numbers)
        ways_from_small = self._around(stage.step, small, numbers) if len(small) < len(sources) else ways
        for end in wide:
            way = ways.get(end.step, NO_WAY)
            if way.source and way.after == VECTOR:
                return True
            # From a smaller map to any, or from any to a smaller map.
            way = way if end.area <= stage.area else ways_from_small.get(end.step, NO_WAY)
            if way.source and way.after == MAP and numbers[end.step] - way.source <= longest:
                return True
        return False

    def _around(self, step: Step, sources: Sequence[Stage], numbers: dict[Step, int]) -> dict[Step, _Way]:
        """The ways from the sources, and from `step`, to each later step."""
        found = {source.step: _Way(numbers[source.step], 0) for source in sources}
        if not found:
            return {}
        for later in self._steps[min(source.index for source in found) :]:
            if later is step:
                found[later] = _Way(0, MAP)
                continue
            ways = [found[parent] for parent in later.parents if parent in found]
            if ways:
                source, after = (max(values) for values in zip(found.get(later, NO_WAY), *ways, strict=True))
                if not later.spatial:
                    source, after = 0, min(after, VECTOR)
                elif after and not source:  # a vector that becomes a map again
                    after = MAP
                found[later] = _Way(source, after)
        return found

    def _note(self, tensor: Tensor, parents: tuple[Step, ...]) -> Step:
        step = Step(len(self._steps), parents, sum(size > 1 for size in tensor.shape[1:]) > 1)
        self._steps.append(step)
        self._of[id(tensor)] = (weakref.ref(tensor), step)
        return step


def tensors_in(value: object) -> Iterator[Tensor]:
    """All tensors, also in tuples, lists and dicts."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from tensors_in(tuple(value.values()))
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors_in(item)


def _ancestors(step: Step) -> set[Step]:
    found, ahead = set(), [step]
    while ahead:
        for parent in ahead.pop().parents:
            if parent not in found:
                found.add(parent)
                ahead.append(parent)
    return found


def _comes_from(step: Step, sources: set[Step]) -> bool:
    """Whether one of the sources is an ancestor."""
    earliest = min(source.index for source in sources)
    seen, ahead = set(), [step]
    while ahead:
        for parent in ahead.pop().parents:
            if parent in sources:
                return True
            if parent.index > earliest and parent not in seen:
                seen.add(parent)
                ahead.append(parent)
    return False
