# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Which layers of two unknown networks GGDR can use, and which it had better."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ggdr.decoder import REACH
from ggdr.taps import first_map, hookable, maps_in, named_layers, uncompiled, version_of

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
    depth: int  # how many layers it ran inside of; lists of layers do not run
    convolved: bool  # whether it or a layer before it convolves; else a map of G is but z in another shape
    problem: str | None  # why it cannot be used

    @property
    def area(self) -> int:
        """Pixels of a map."""
        return self.height * self.width

    def __str__(self) -> str:
        return f"{self.name} {self.channels}x{self.height}x{self.width}" + (
            f" ({self.problem})" if self.problem else ""
        )


@dataclass(frozen=True)
class Suggestion:
    """Layers to choose from, and a sensible choice; print it for a table."""

    generator: list[Candidate]
    discriminator: list[Candidate]
    guide: str
    encoder: list[str]
    tokens: tuple[int, ...] | None = None  # what most layers of D return, all of them after the encoder's

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
        lines.append(f'* GGDR(G, D, guide="{self.guide}", encoder=[{encoder}], probe=probe)')
        if self.tokens:
            lines.append(
                f"! after these, D goes on with tensors of shape {self.tokens}: GGDR teaches those layers nothing, "
                "unless D shows such tensors as maps [N, C, H, W] to an nn.Identity, to be named as encoder"
            )
        return "\n".join(lines)


def suggest(G: nn.Module, D: nn.Module, probe: Callable[[], object]) -> Suggestion:
    """Runs `probe` once and lists the layers of G and D that return feature maps, with a choice for GGDR.

    The guide is the last and outermost layer of G at the resolution nearest to a quarter of the image's side (8 to 64
    pixels), of those with a convolution before them and maps of D within reach; the encoder, the last and outermost
    layer of D at each smaller resolution from 4x4 up, on D's way down.

    Args:
        probe: runs G and D once, as `lambda: D(G(z))`, in eval mode; it leaves no trace in the networks or in torch's
               random state.

    Raises:
        ValueError: there is no layer that fits (says what was found), or a network is TorchScript.
    """
    with _Recorder(G) as of_g, _Recorder(D) as of_d, probing(G, D):
        probe()
    image = of_g.image or of_d.input
    generator, discriminator = of_g.candidates(image), of_d.candidates(of_d.input or image, trained=trainable(D))
    if not generator:
        raise ValueError(f"found no layer of G to take as guide; {of_g.instead_of_maps()}")
    guide = _choose_guide(generator, discriminator, image)
    if not discriminator:
        raise ValueError(f"found no layer of D to predict the guide {guide.name!r} from; {of_d.instead_of_maps()}")
    encoder = _choose_encoder(discriminator, guide)
    last = max((c for c in discriminator if c.name in encoder), key=lambda c: c.order)
    return Suggestion(generator, discriminator, guide.name, encoder, of_d.tokens_after(last))


@contextmanager
def probing(G: nn.Module, D: nn.Module) -> Iterator[None]:
    """Both networks in eval mode, D cut off from G; modes and torch's random state are put back afterwards.

    Gradients are on, so that a map of D requires one exactly if a trainable layer of D comes before it.
    """
    modes = {module: module.training for net in (G, D) for module in net.modules()}
    # Some layers count and average in eval mode too: they do it in copies.
    buffers = [
        (module, name, buffer)
        for module in modes
        if not isinstance(module, torch.jit.ScriptModule)
        for name, buffer in module._buffers.items()
        if buffer is not None and not is_lazy(buffer)
    ]
    # Home-made spectral norm keeps its vectors as frozen parameters, and goes on with them in eval mode.
    vectors = [
        (p, p.detach().clone())
        for module in modes
        for p in module.parameters(recurse=False)
        if type(p) is nn.Parameter and not p.requires_grad and p.ndim == 1
    ]
    devices = {p.device for net in (G, D) for p in net.parameters() if p.device.type == "cuda"}
    cut = D.register_forward_pre_hook(lambda module, args, kwargs: _detached((args, kwargs)), with_kwargs=True)
    with torch.random.fork_rng(devices=list(devices)), torch.enable_grad(), uncompiled():
        try:
            for module in modes:
                module.training = False
            for module, name, buffer in buffers:
                module._buffers[name] = buffer.clone()
            yield
        finally:
            cut.remove()
            for module, name, buffer in buffers:
                module._buffers[name] = buffer
            for p, value in vectors:
                if not torch.equal(p, value):
                    p.data = value
            for module, mode in modes.items():
                module.training = mode


def trainable(net: nn.Module) -> bool:
    """Whether any parameter is to be trained."""
    return any(p.requires_grad for p in net.parameters())


def _image_size(images: object) -> torch.Size | None:
    """[N, C, H, W] of the image, or of the largest where there is one a scale."""
    shapes = [image.shape for image in maps_in(images)]
    return max((shape for shape in shapes if shape[1] == shapes[0][1]), key=lambda shape: shape[2], default=None)


def _detached(arg):
    """Tensors without their history, also in tuples, lists and dicts."""
    if isinstance(arg, Tensor):
        return arg.detach()
    if type(arg) in (tuple, list):
        return type(arg)(_detached(item) for item in arg)
    return {key: _detached(item) for key, item in arg.items()} if type(arg) is dict else arg


class _Output(NamedTuple):
    """One output of a layer."""

    layer: str
    feat: Tensor
    version: int | None
    convolved: bool


class _Recorder:
    """Notes what every layer of a network returns while open."""

    def __init__(self, net: nn.Module) -> None:
        hookable(net, type(net).__name__)
        self._layers = {
            name: layer for name, layer in named_layers(net).items() if not isinstance(layer, torch.jit.ScriptModule)
        }
        self._outputs: list[_Output] = []
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        self._called: set[str] = set()
        self._convolved = False
        self._others: list[tuple[int, tuple[int, ...]]] = []  # maps before it, and shape, of each output not 4-D
        self.image: torch.Size | None = None  # N, C, H, W of what the network itself returned
        self.input: torch.Size | None = None  # and of what it was given

    def __enter__(self) -> _Recorder:
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
            feat = first_map(output)
            if not name:
                self.image, self.input = _image_size(output), _image_size((args, kwargs))
            elif feat is not None:
                self._outputs.append(_Output(name, feat, version_of(feat), self._convolved))
            if isinstance(output, Tensor) and output.ndim != 4:
                self._others.append((len(self._outputs), tuple(output.shape)))

        return hook

    def candidates(self, image: torch.Size | None, *, trained: bool = False) -> list[Candidate]:
        """The layers that returned maps of more than one pixel, in the order in which they first did.

        Args:
            image:   [N, C, H, W] that the network makes or judges, which maps have to fit.
            trained: those that no trainable layer comes before cannot be used.
        """
        calls = Counter(output.layer for output in self._outputs)
        found: dict[str, Candidate] = {}
        for order, (name, feat, version, convolved) in enumerate(self._outputs):
            _, channels, height, width = feat.shape
            problem = None
            if calls[name] > 1:
                problem = f"runs {calls[name]} times"
            elif version_of(feat) != version:
                problem = "overwritten in place by a later layer"
            elif trained and not feat.requires_grad:
                problem = "no trainable layer before it"
            else:
                problem = _misfit(feat, image)
            if height * width > 1 and name not in found:
                kind = type(self._layers[name]).__name__
                *parents, _ = accumulate(name.split("."), "{}.{}".format)
                depth = sum(parent in self._called for parent in parents)
                found[name] = Candidate(name, kind, channels, height, width, order, depth, convolved, problem)
        return list(found.values())

    def tokens_after(self, last: Candidate) -> tuple[int, ...] | None:
        """The most common shape [N, L, C] after a layer, if there are more of such tensors than maps up to it."""
        shapes = [shape for maps_before, shape in self._others if maps_before > last.order and len(shape) == 3]
        return Counter(shapes).most_common(1)[0][0] if len(shapes) > last.order + 1 else None

    def instead_of_maps(self) -> str:
        """For an error message, where there are no candidates."""
        if not self._others:
            return "no layer returned maps [N, C, H, W]; does `probe` run both networks?"
        largest = max((shape for _, shape in self._others), key=len)
        return f"no layer returned maps [N, C, H, W] of more than a pixel, but tensors of shapes such as {largest}"


def _misfit(feat: Tensor, image: torch.Size | None) -> str | None:
    """Why a 4-D tensor is no map of the image."""
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
    return None


def _choose_guide(candidates: Sequence[Candidate], of_d: Sequence[Candidate], image: torch.Size | None) -> Candidate:
    """Of G's layers, see `suggest`."""
    if image is None:
        last = candidates[-1]
        image = torch.Size((1, last.channels, last.height, last.width))
    usable = [c for c in candidates if not c.problem and c.channels > max(image[1], 1)]
    if not usable:
        raise ValueError(f"found no layer of G to take as guide; {_found(candidates)}")
    usable = [c for c in usable if c.convolved] or usable
    usable = [c for c in usable if any(_within_reach(c, other) for other in of_d)] or usable
    aim = min(max(image[2] / 4, MIN_GUIDE), MAX_GUIDE)
    # The lower of two that are equally near.
    nearest = min({c.height for c in usable}, key=lambda height: (abs(math.log2(height / aim)), height))
    return _outermost_last([c for c in usable if c.height == nearest])


def _below(guide: Candidate, other: Candidate) -> bool:
    """Whether the decoder can start from the map of D and go up to the guide, however far."""
    fits = other.height <= guide.height and other.width <= guide.width and other.area < guide.area
    return fits and other.channels > 1 and not other.problem


def _within_reach(guide: Candidate, other: Candidate) -> bool:
    """Whether it is not too far either."""
    near = guide.height <= REACH * other.height and guide.width <= REACH * other.width
    return _below(guide, other) and near


def _choose_encoder(candidates: Sequence[Candidate], guide: Candidate) -> list[str]:
    """Of D's layers, see `suggest`; largest first, as D computes them."""
    usable = [c for c in candidates if _below(guide, c)]
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
    return f"there are {', '.join(map(str, candidates[:20]))}"
