# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Which layers of two unknown networks GGDR can use, and which it had better."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ggdr.taps import first_map, named_layers, uncompiled, version_of

MIN_GUIDE, MAX_GUIDE = 8, 64  # pixels; the paper's guide is a quarter of the image's side, and 64 at 256
MIN_ENCODER = 4  # pixels, where the decoder starts in the paper


@dataclass(frozen=True)
class Candidate:
    """A layer that returns feature maps."""

    name: str
    kind: str  # its class
    channels: int
    height: int
    width: int
    order: int  # in which layers finished
    problem: str | None  # why it cannot be used

    @property
    def depth(self) -> int:
        """How deep inside the network the layer is: of "synthesis.b8", 2."""
        return self.name.count(".") + 1

    @property
    def area(self) -> int:
        """Pixels of a map."""
        return self.height * self.width


@dataclass(frozen=True)
class Suggestion:
    """Layers to choose from, and a sensible choice; print it for a table."""

    generator: list[Candidate]
    discriminator: list[Candidate]
    guide: str
    encoder: list[str]

    def __str__(self) -> str:
        rows = [("", "layer", "class", "channels", "size", "")]
        chosen = {id(self.generator): {self.guide}, id(self.discriminator): set(self.encoder)}
        for title, side in (("G", self.generator), ("D", self.discriminator)):
            for c in side:
                mark = "*" if c.name in chosen[id(side)] else ""
                size = f"{c.height}x{c.width}"
                rows.append((f"{title} {mark}", c.name, c.kind, str(c.channels), size, c.problem or ""))
        widths = [max(len(row[i]) for row in rows) for i in range(5)]
        lines = ["  ".join([*(row[i].ljust(widths[i]) for i in range(5)), row[5]]).rstrip() for row in rows]
        encoder = ", ".join(f'"{name}"' for name in self.encoder)
        return "\n".join([*lines, f'* GGDR(G, D, guide="{self.guide}", encoder=[{encoder}], probe=probe)'])


def suggest(G: nn.Module, D: nn.Module, probe: Callable[[], object]) -> Suggestion:
    """Runs `probe` once and lists the layers of G and D that return feature maps, with a choice for GGDR.

    The guide is the last and outermost layer of G at the resolution nearest to a quarter of the image's side (8 to 64
    pixels); the encoder, the last and outermost layer of D at each smaller resolution from 4x4 up, on D's way down.

    Args:
        probe: runs G and D once, as `lambda: D(G(z))`, in eval mode; it leaves no trace in the networks or in torch's
               random state.

    Raises:
        ValueError: there is no layer that fits; says what was found.
    """
    with _Recorder(G) as of_g, _Recorder(D) as of_d, probing(G, D):
        probe()
    generator, discriminator = of_g.candidates(), of_d.candidates(trained=trainable(D))
    guide = _choose_guide(generator, of_g.image or of_d.input)
    return Suggestion(generator, discriminator, guide.name, _choose_encoder(discriminator, guide))


@contextmanager
def probing(G: nn.Module, D: nn.Module) -> Iterator[None]:
    """Both networks in eval mode, D cut off from G; modes and torch's random state are put back afterwards.

    Gradients are on, so that a map of D requires one exactly if a trainable layer of D comes before it.
    """
    modes = {module: module.training for net in (G, D) for module in net.modules()}
    devices = {p.device for net in (G, D) for p in net.parameters() if p.device.type == "cuda"}
    cut = D.register_forward_pre_hook(lambda module, args: tuple(_detached(arg) for arg in args))
    with torch.random.fork_rng(devices=list(devices)), torch.enable_grad(), uncompiled():
        try:
            for module in modes:
                module.training = False
            yield
        finally:
            cut.remove()
            for module, mode in modes.items():
                module.training = mode


def trainable(net: nn.Module) -> bool:
    """Whether any parameter is to be trained."""
    return any(p.requires_grad for p in net.parameters())


def _detached(arg: object) -> object:
    return arg.detach() if isinstance(arg, Tensor) else arg


class _Recorder:
    """Notes what every layer of a network returns while open."""

    def __init__(self, net: nn.Module) -> None:
        self._layers = named_layers(net)
        self._outputs: list[tuple[str, Tensor, int | None]] = []
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        self.image: tuple[int, int, int] | None = None  # C, H, W of what the network itself returned
        self.input: tuple[int, int, int] | None = None  # and of what it was given

    def __enter__(self) -> _Recorder:
        for name, layer in self._layers.items():
            self._handles.append(layer.register_forward_hook(self._hook(name)))
        return self

    def __exit__(self, *exc: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _hook(self, name: str):
        def hook(module: nn.Module, args: tuple, output: object) -> None:
            feat = first_map(output)
            if not name:
                given = first_map(args)
                self.image = None if feat is None else tuple(feat.shape[1:])
                self.input = None if given is None else tuple(given.shape[1:])
            elif feat is not None:
                self._outputs.append((name, feat, version_of(feat)))

        return hook

    def candidates(self, *, trained: bool = False) -> list[Candidate]:
        """The layers that returned maps of more than one pixel, in the order in which they first did.

        `trained`: those that no trainable layer comes before cannot be used.
        """
        calls = Counter(name for name, _, _ in self._outputs)
        found: dict[str, Candidate] = {}
        for order, (name, feat, version) in enumerate(self._outputs):
            _, channels, height, width = feat.shape
            problem = None
            if calls[name] > 1:
                problem = f"runs {calls[name]} times"
            elif version_of(feat) != version:
                problem = "overwritten in place by a later layer"
            elif trained and not feat.requires_grad:
                problem = "no trainable layer before it"
            if height * width > 1 and name not in found:
                kind = type(self._layers[name]).__name__
                found[name] = Candidate(name, kind, channels, height, width, order, problem)
        return list(found.values())


def _choose_guide(candidates: Sequence[Candidate], image: tuple[int, int, int] | None) -> Candidate:
    """Of G's layers, see `suggest`."""
    if image is None and candidates:
        last = candidates[-1]
        image = (last.channels, last.height, last.width)
    usable = [c for c in candidates if not c.problem and c.channels > max(image[0], 1)]
    if not usable:
        raise ValueError(f"found no layer of G to take as guide; {_found(candidates)}")
    aim = min(max(image[1] / 4, MIN_GUIDE), MAX_GUIDE)
    # The lower of two that are equally near.
    nearest = min({c.height for c in usable}, key=lambda height: (abs(math.log2(height / aim)), height))
    return _outermost_last([c for c in usable if c.height == nearest])


def _choose_encoder(candidates: Sequence[Candidate], guide: Candidate) -> list[str]:
    """Of D's layers, see `suggest`; largest first, as D computes them."""
    usable = [c for c in candidates if not c.problem and c.channels > 1 and c.area < guide.area]
    usable = [c for c in usable if c.height <= guide.height and c.width <= guide.width]
    usable = [c for c in usable if min(c.height, c.width) >= MIN_ENCODER] or usable
    if not usable:
        raise ValueError(
            f"found no layer of D of fewer pixels than the guide {guide.name!r} ({guide.height}x{guide.width}); "
            f"{_found(candidates)}"
        )
    # Only on the way down: a U-Net's decoder comes by the same sizes again.
    deepest = _outermost_last([c for c in usable if c.area == min(c.area for c in usable)])
    down = [c for c in usable if c.order <= deepest.order]
    sizes = sorted({c.area for c in down}, reverse=True)
    return [_outermost_last([c for c in down if c.area == area]).name for area in sizes]


def _outermost_last(candidates: Sequence[Candidate]) -> Candidate:
    return min(candidates, key=lambda c: (c.depth, -c.order))


def _found(candidates: Sequence[Candidate]) -> str:
    """The layers for an error message."""
    if not candidates:
        return "no layer returned maps [N, C, H, W]; does `probe` run both networks?"
    listed = ", ".join(f"{c.name} {c.channels}x{c.height}x{c.width}" for c in candidates[:20])
    return f"there are {listed}"
