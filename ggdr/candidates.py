# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The layers of an unknown network that return feature maps, and what speaks against each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ggdr.dataflow import Dataflow, Stage, Step
from ggdr.taps import first_map, hookable, maps_in, named_layers

FROZEN = "no trainable layer before it"


@dataclass(frozen=True)
class Candidate:
    """A layer that returns feature maps."""

    name: str
    kind: str  # its class
    channels: int
    height: int
    width: int
    order: int  # in which layers finished
    depth: (
        int  # how many layers it ran inside of; lists of layers do not run, and those that return images do not count
    )
    convolved: bool  # whether it or a layer before it convolves; else a map of G is but z in another shape
    branch: bool  # whether later layers get what came before it by a way round it, see `Dataflow.branches`
    seen: int  # pixels of the largest map that it comes from
    problem: str | None  # why it cannot be used

    @property
    def area(self) -> int:
        """Pixels of a map."""
        return self.height * self.width

    @property
    def remark(self) -> str:
        """What speaks against it."""
        return self.problem or ("in a branch" if self.branch else "")

    def __str__(self) -> str:
        remark = f" ({self.remark})" if self.remark else ""
        return f"{self.name} {self.channels}x{self.height}x{self.width}{remark}"


class _Output(NamedTuple):
    """One output of a layer."""

    layer: str
    feat: Tensor
    step: Step
    convolved: bool


class Recorder:
    """Notes what every layer of a network returns while open."""

    def __init__(self, net: nn.Module, flow: Dataflow) -> None:
        """`flow`: to be open while the network runs.

        Raises:
            ValueError: the network is TorchScript.
        """
        hookable(net, type(net).__name__)
        self._layers = {
            name: layer for name, layer in named_layers(net).items() if not isinstance(layer, torch.jit.ScriptModule)
        }
        self._flow = flow
        self._outputs: list[_Output] = []
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        self._called: set[str] = set()
        self._convolved = False
        self._others: list[tuple[int, tuple[int, ...], Step]] = []  # maps before, shape and step of outputs not 4-D
        self.image: torch.Size | None = None  # N, C, H, W of what the network itself returned
        self.input: torch.Size | None = None  # and of what it was given

    def __enter__(self) -> Recorder:
        for name, layer in self._layers.items():
            self._handles.append(layer.register_forward_hook(self._hook(name), with_kwargs=True))
        return self

    def __exit__(self, *exc: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _hook(self, name: str):
        def hook(module: nn.Module, args: tuple, kwargs: dict, output: object) -> None:
            self._called.add(name)
            self._convolved = self._convolved or any(p.ndim >= 4 for p in module.parameters())
            self._flow.join((args, kwargs), output)
            feat = first_map(output)
            if not name:
                self.image, self.input = _image_size(output), _image_size((args, kwargs))
            elif feat is not None:
                self._outputs.append(_Output(name, feat, self._flow.step(feat), self._convolved))
            if isinstance(output, Tensor) and output.ndim != 4:
                self._others.append((len(self._outputs), tuple(output.shape), self._flow.step(output)))

        return hook

    def candidates(self, image: torch.Size | None, *, trained: bool = False) -> list[Candidate]:
        """The layers that returned maps of more than one pixel, in the order in which they first did.

        Args:
            image:   [N, C, H, W] that the network makes or judges, which maps have to fit.
            trained: those that no trainable layer comes before cannot be used.
        """
        calls = Counter(output.layer for output in self._outputs)
        tokens = {shape[1:] for _, shape, _ in self._others if len(shape) == 3}
        found: dict[str, tuple[int, _Output]] = {}
        for order, output in enumerate(self._outputs):
            if output.feat.shape[2:].numel() > 1:
                found.setdefault(output.layer, (order, output))
        values = image[1:].numel() if image else 0
        last = max((i for i, output in enumerate(self._outputs) if output.feat[0].numel() != values), default=-1)
        problems: dict[str, str | None] = {}
        for name, (order, output) in found.items():
            if calls[name] > 1:
                problems[name] = f"runs {calls[name]} times"
            elif trained and not output.feat.requires_grad:
                problems[name] = FROZEN
            elif image and order > last and output.feat.shape[1] > image[1]:  # wavelets, or what a pixel shuffle takes
                problems[name] = "the image in another shape"
            else:
                problems[name] = _misfit(output.feat, image, tokens)
        maps = {name: output for name, (_, output) in found.items() if problems[name] in (None, FROZEN)}
        places = self._places(maps)
        pictures = {name for name, (_, output) in found.items() if image and output.feat.shape[1] == image[1]}
        around = self._called - pictures
        return [
            Candidate(
                name,
                type(self._layers[name]).__name__,
                *output.feat.shape[1:],
                order,
                sum(parent in around for parent in _parents(name)),
                output.convolved,
                *places.get(name, (False, 0)),
                problems[name],
            )
            for name, (order, output) in found.items()
        ]

    def _places(self, maps: dict[str, _Output]) -> dict[str, tuple[bool, int]]:
        """By name of a layer, whether its map lies in a branch, and pixels of the largest map before it."""
        stages = [Stage(out.step, out.feat.shape[1], out.feat.shape[2:].numel()) for out in maps.values()]
        tokens = [Stage(step, shape[2], shape[1]) for _, shape, step in self._others if len(shape) == 3]
        branches, seen = self._flow.branches(stages, tokens), self._flow.sizes_seen(stages)
        return dict(zip(maps, zip(branches, seen, strict=True), strict=True))

    def tokens_after(self, last: Candidate) -> tuple[int, ...] | None:
        """The most common shape [N, L, C] after a layer, if there are more of such tensors than maps up to it."""
        shapes = [shape for maps_before, shape, _ in self._others if maps_before > last.order and len(shape) == 3]
        return Counter(shapes).most_common(1)[0][0] if len(shapes) > last.order + 1 else None

    def instead_of_maps(self) -> str:
        """For an error message, where there are no candidates."""
        if not self._others:
            return "no layer returned maps [N, C, H, W]; does `probe` run both networks?"
        largest = max((shape for _, shape, _ in self._others), key=len)
        return f"no layer returned maps [N, C, H, W] of more than a pixel, but tensors of shapes such as {largest}"


def _image_size(images: object) -> torch.Size | None:
    """[N, C, H, W] of the image, or of the largest where there is one a scale."""
    shapes = [image.shape for image in maps_in(images)]
    return max((shape for shape in shapes if shape[1] == shapes[0][1]), key=lambda shape: shape[2], default=None)


def _parents(name: str) -> Iterator[str]:
    """Names of the layers around a layer: "a" and "a.b" of "a.b.c"."""
    *parents, _ = accumulate(name.split("."), "{}.{}".format)
    return iter(parents)


def _misfit(feat: Tensor, image: torch.Size | None, tokens: set[tuple[int, ...]]) -> str | None:
    """Why a 4-D tensor is no map of the image; `tokens`: L and C of the tensors [N, L, C] beside it."""
    n, channels, height, width = feat.shape
    if not feat.is_floating_point():
        return f"made of {feat.dtype}".replace("torch.", "")
    if image is not None and n != image[0]:  # a kernel, or windows of the image
        return f"{n} maps of {image[0]} images"
    if image is not None and channels * image[3] == height * image[2] and height * image[3] != width * image[2]:
        return "channels last, [N, H, W, C]"
    feat = feat.detach().float()
    if feat.min() >= 0 and (feat.sum(dim=3) - 1).abs().max() < 0.01:
        return "attention weights"
    if _of_tokens(channels, height, width, tokens):
        return "tokens by attention heads"
    return None


def _of_tokens(channels: int, height: int, width: int, tokens: set[tuple[int, ...]]) -> bool:
    """Whether [N, channels, height, width] is [N, heads, L, C / heads], or has these in another order."""
    if any(length == height * width and dim == channels for length, dim in tokens):
        return False  # tokens that were put in their places in the image
    return any(
        (length, dim) in tokens
        for length, per_token in (
            (height, channels * width),
            (width, channels * height),
            (channels, height * width),
        )
        for dim in (per_token, 2 * per_token, 3 * per_token)  # queries, keys and values may be one tensor
    )
