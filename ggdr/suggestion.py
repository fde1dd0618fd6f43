# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Which layers of two unknown networks GGDR can use, and which it had better."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ggdr.candidates import Candidate, Recorder
from ggdr.dataflow import Dataflow
from ggdr.decoder import REACH
from ggdr.taps import plain_name, uncompiled

MIN_GUIDE, MAX_GUIDE = 8, 64  # pixels; the paper's guide is a quarter of the image's side, and 64 at 256
MIN_ENCODER = 4  # pixels, where the decoder starts in the paper


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
                rows.append((f"{title} {mark}", c.name, c.kind, str(c.channels), size, c.remark))
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


def suggest(
    G: nn.Module, D: nn.Module, probe: Callable[[], object], *, guide: str | Sequence[str] | None = None
) -> Suggestion:
    """Runs `probe` once and lists the layers of G and D that return feature maps, with a choice for GGDR.

    The guide is the outermost and last layer of G at the resolution nearest to a quarter of the image's side (8 to 64
    pixels), of those with a convolution before them and maps of D within reach; the encoder, the outermost and last
    layer of D at each scale from the deepest, of 4x4 or more, up to half the guide, on D's way down. Layers on the
    trunk come before those in branches, see `Dataflow.branches`.

    Args:
        probe: runs G and D once, as `lambda: D(G(z))`, in eval mode; it leaves no trace in the networks or in torch's
               random state.
        guide: name of a layer of G, or several, to choose the encoder for; None to choose the guide too.

    Raises:
        ValueError: there is no layer that fits (says what was found), or a network is TorchScript.
    """
    flow = Dataflow()
    with Recorder(G, flow) as of_g, Recorder(D, flow) as of_d, probing(D, G), flow:
        probe()
    image = of_g.image or of_d.input
    generator = of_g.candidates(image)
    discriminator = of_d.candidates(of_d.input or image, trained=trainable(D))
    if not generator:
        raise ValueError(f"found no layer of G to take as guide; {of_g.instead_of_maps()}")
    if not discriminator:
        raise ValueError(f"found no layer of D to predict a guide from; {of_d.instead_of_maps()}")
    named = [guide] if isinstance(guide, str) else guide or ()
    chosen, encoder = _choose(generator, discriminator, image, named)
    last = max(encoder, key=lambda c: c.order)
    return Suggestion(generator, discriminator, chosen.name, [c.name for c in encoder], of_d.tokens_after(last))


@contextmanager
def probing(D: nn.Module, *others: nn.Module) -> Iterator[None]:
    """All networks in eval mode, D cut off from the others; modes and torch's random state are put back afterwards.

    Gradients are on, so that a map of D requires one exactly if a trainable layer of D comes before it.
    """
    nets = (*others, D)
    modes = {module: module.training for net in nets for module in net.modules()}
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
        if type(p) is nn.Parameter and not (p.requires_grad or p.is_meta) and p.ndim == 1
    ]
    devices = {p.device for net in nets for p in net.parameters() if p.device.type == "cuda"}
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


def _detached(arg):
    """Tensors without their history, also in tuples, lists and dicts."""
    if isinstance(arg, Tensor):
        return arg.detach()
    if type(arg) in (tuple, list):
        return type(arg)(_detached(item) for item in arg)
    return {key: _detached(item) for key, item in arg.items()} if type(arg) is dict else arg


def _choose(
    of_g: Sequence[Candidate], of_d: Sequence[Candidate], image: torch.Size | None, named: Sequence[str]
) -> tuple[Candidate, list[Candidate]]:
    """The guide and the encoder, see `suggest`."""
    if image is None:
        last = of_g[-1]
        image = torch.Size((1, last.channels, last.height, last.width))
    of_user = [c for c in of_g if c.name in map(plain_name, named)]
    guides = [max(of_user, key=lambda c: c.area)] if of_user else _guides(of_g, image)
    if not guides:
        raise ValueError(f"found no layer of G to take as guide; {_found(of_g)}")
    trunk = [c for c in of_d if not c.branch]
    for candidates, guide in itertools.product((trunk, of_d), guides):
        encoder = _encoder(candidates, guide)
        if encoder and _within_reach(guide, encoder[0]):
            return guide, encoder
    sizes = " or ".join(f"{c.name!r} ({c.height}x{c.width})" for c in guides[:3])
    raise ValueError(
        f"found no layer of D to predict guide {sizes} from: it must have fewer pixels, and at least 1/{REACH} of the "
        f"guide's height and width; {_found(of_d)}"
    )


def _guides(candidates: Sequence[Candidate], image: torch.Size) -> list[Candidate]:
    """One layer of G for each height, the best first."""
    usable = [c for c in candidates if not c.problem and c.channels > max(image[1], 1)]
    usable = [c for c in usable if c.height <= image[2] and c.width <= image[3]]
    usable = [c for c in usable if c.convolved] or usable
    aim = min(max(image[2] / 4, MIN_GUIDE), MAX_GUIDE)
    # The lower of two that are equally near.
    heights = sorted({c.height for c in usable}, key=lambda height: (abs(math.log2(height / aim)), height))
    return [_best([c for c in usable if c.height == height]) for height in heights]


def _below(guide: Candidate, other: Candidate) -> bool:
    """Whether the decoder can start from the map of D and go up to the guide, however far."""
    fits = other.height <= guide.height and other.width <= guide.width and other.area < guide.area
    return fits and other.channels > 1 and not other.problem


def _within_reach(guide: Candidate, other: Candidate) -> bool:
    """Whether it is not too far either."""
    return guide.height <= REACH * other.height and guide.width <= REACH * other.width


def _encoder(candidates: Sequence[Candidate], guide: Candidate) -> list[Candidate]:
    """One layer of D at each scale from the deepest up to half the guide, each twice the one before; largest first."""
    usable = [c for c in candidates if _below(guide, c)]
    usable = [c for c in usable if min(c.height, c.width) >= MIN_ENCODER] or usable
    # Maps of nearly the guide's size would leave nothing to the smaller ones.
    usable = [c for c in usable if _octaves(c, guide)] or usable
    if not usable:
        return []
    smallest = min(usable, key=lambda c: c.area)
    deepest = _best_of_d([c for c in usable if not _octaves(smallest, c)])
    # Only on the way down: a U-Net's decoder comes by the same sizes again.
    by_scale: dict[int, list[Candidate]] = {}
    for c in usable:
        if c.order < deepest.order:
            by_scale.setdefault(_octaves(deepest, c), []).append(c)
    by_scale[0] = [deepest]
    return [_best_of_d(by_scale[scale]) for scale in sorted(by_scale, reverse=True) if scale >= 0]


def _octaves(small: Candidate, large: Candidate) -> int:
    """How often the sides of one map have to be doubled to be about those of the other."""
    return round(math.log2(large.area / small.area) / 2)


def _best(candidates: Sequence[Candidate]) -> Candidate:
    """On the trunk, outermost, last."""
    return min(candidates, key=lambda c: (c.branch, c.depth, -c.order))


def _best_of_d(candidates: Sequence[Candidate]) -> Candidate:
    """The same, of what sees the image at its largest, where parts of D see it smaller."""
    return _best([c for c in candidates if c.seen == max(c.seen for c in candidates)])


def _found(candidates: Sequence[Candidate]) -> str:
    """The layers for an error message."""
    return f"there are {', '.join(map(str, candidates[:20]))}"
