# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The feature maps of a snapshot's networks, on images that its generator makes and on photographs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from ggdr import GGDR, FeatureTap, Semantic
from ggdr.scripts.training.regularizer_ggdr import guided
from ggdr.scripts.training.regularizers import REGULARIZERS
from ggdr.stylegan2.attachment import attachment
from ggdr.stylegan2.discriminator import Discriminator
from ggdr.stylegan2.latent.sampling import Label, images_of_seeds, repeat_label
from ggdr.stylegan2.snapshot import discriminator_of, generator_of
from ggdr.torch_utils.checkpoint import Snapshot, SnapshotError, load_snapshot
from ggdr.torch_utils.pictures.images import from_u8
from ggdr.torch_utils.untrusted.text import printable

DEFAULT_LAYERS = (8, 16, 32, 64)
GUIDED = ("ggdr", "ema-guide", "contrastive")  # regularisers whose decoder predicts G's features, best known first
SEMANTIC = "semantic"

Maps = dict[int, Tensor]  # [N, C, res, res] float32 by res


@dataclass
class SnapshotFeatures:
    """What the networks of one snapshot computed for some images, on their device.

    Attributes:
        img:       [N, C, H, W] float32 in about [-1, 1].
        generator: G's feature maps; empty for photographs.
        predicted: what the decoder on D predicts of them; empty without decoder.
        encoder:   D's own feature maps.
    """

    img: Tensor
    generator: Maps = field(default_factory=dict)
    predicted: Maps = field(default_factory=dict)
    encoder: Maps = field(default_factory=dict)


class SnapshotNetworks:
    """The networks of a snapshot: the averaged G, and D and the decoders on it where it holds them.

    Attributes:
        decoders: those that predict G's features, by the regularisers that they are of; they differ in their losses
                  alone, and nobody asks for these here.
        semantic: the one that predicts label maps.

    Raises:
        SnapshotError: no snapshot, or one that cannot be read.
    """

    def __init__(self, path: Path, device: torch.device) -> None:
        self.path, self.device = path, device
        snapshot = load_snapshot(path)
        self.nimg = snapshot.nimg
        self.G = generator_of(snapshot, device)
        self.D = discriminator_of(snapshot, device) if "D" in snapshot.networks else None
        self.decoders: dict[str, GGDR] = {}
        self.semantic: Semantic | None = None
        if self.D is None:
            return
        # Only the logits, which nobody looks at, depend on the minibatch; any number of images will do.
        self.D.b4.mbstd_group_size = 1
        for name in (*GUIDED, SEMANTIC):
            if name in snapshot.networks:
                try:
                    self._add_decoder(name, snapshot)
                except (KeyError, TypeError, ValueError, RuntimeError) as error:
                    what = "GGDR" if name == "ggdr" else name
                    text = f"{path}: its {what} decoder does not fit its settings: {printable(error)}"
                    raise SnapshotError(text) from error

    def _add_decoder(self, name: str, snapshot: Snapshot) -> None:
        """Builds a decoder as its settings say, and gives it its weights."""
        kind, at = REGULARIZERS[name], attachment(self.G, self.D)
        settings = kind.read(snapshot.config["training"]["regularizers"][name])
        if name == SEMANTIC:
            decoder = self.semantic = kind.build(at, settings)
        else:
            decoder = self.decoders[name] = GGDR(self.G, self.D, **guided(at, settings))
        decoder.load_state_dict(snapshot.networks[name])

    def untrained(self, seed: int) -> SnapshotNetworks:
        """The same, but D is as its training began, without decoders."""
        other = copy.copy(self)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            other.D = Discriminator(self.D.config).eval().requires_grad_(False).to(self.device)
        other.D.b4.mbstd_group_size = 1
        other.decoders, other.semantic = {}, None
        return other

    @property
    def layers(self) -> list[int]:
        """The resolutions of G's feature maps."""
        return self.G.synthesis.resolutions

    def guides(self, decoder: str) -> list[int]:
        """The resolutions that a decoder predicts."""
        return [_res_of(name) for name in self.decoders[decoder].guides]

    def of_seeds(
        self,
        seeds: Sequence[int],
        layers: Sequence[int],
        *,
        label: Label,
        psi: float,
        batch_size: int,
        on_images: Callable[[int], None] = lambda done: None,
    ) -> SnapshotFeatures:
        """What they compute for the images of these seeds of `ggdr generate`; `on_images` hears how many are done."""

        def look_at(some: Sequence[int]) -> SnapshotFeatures:
            c = repeat_label(len(some), self.G.c_dim, label)
            names = {res: f"synthesis.b{res}" for res in layers}
            with ExitStack() as stack:
                feats = stack.enter_context(FeatureTap(self.G, list(names.values())))
                watched = self._watch_discriminator(stack, layers)
                img, _ = images_of_seeds(self.G, some, c, device=self.device, truncation_psi=psi)
                seen = watched(img, c.to(self.device))
            seen.generator = {res: feats[name].float() for res, name in names.items()}
            return seen

        def batches() -> Iterator[SnapshotFeatures]:
            for start in range(0, len(seeds), batch_size):
                on_images(start)
                yield look_at(seeds[start : start + batch_size])

        return _collected(batches(), len(seeds))

    def of_images(
        self, images_u8: Tensor, layers: Sequence[int], *, batch_size: int, decoder: str | None = None
    ) -> SnapshotFeatures:
        """What the discriminator computes for images uint8 [N, C, H, W] of the network's size.

        Args:
            decoder: whose prediction; None for that of the first of `decoders`.
        """

        def look_at(part: Tensor) -> SnapshotFeatures:
            with ExitStack() as stack:
                watched = self._watch_discriminator(stack, layers, decoder)
                return watched(from_u8(part.to(self.device)), self._no_class(len(part)))

        return _collected((look_at(part) for part in images_u8.split(batch_size)), len(images_u8))

    @torch.inference_mode()
    def label_maps_of(self, images_u8: Tensor, *, batch_size: int) -> Tensor:
        """The classes that the semantic decoder predicts for images uint8 [N, C, H, W]: [N, h, w] int64, on the CPU."""
        found = []
        for part in images_u8.split(batch_size):
            with self.semantic.watch() as watched:
                self.D(from_u8(part.to(self.device)), self._no_class(len(part)))
            found.append(self.semantic.predict(watched).argmax(dim=1).cpu())
        return torch.cat(found)

    def _no_class(self, num: int) -> Tensor:
        """Labels for D, whose features do not depend on them, only its logits."""
        return torch.zeros([num, self.G.c_dim], device=self.device)

    def _watch_discriminator(self, stack: ExitStack, layers: Sequence[int], decoder: str | None = None):
        """A function of images and labels that runs D, inside hooks that the stack holds; without D it does nothing."""
        if self.D is None:
            return lambda img, c: SnapshotFeatures(img)
        ggdr = self.decoders[decoder] if decoder else next(iter(self.decoders.values()), None)
        stack.enter_context(torch.inference_mode())
        # Block b16 works at 16x16 and hands on maps of 8x8.
        names = {res: f"b{2 * res}" for res in layers if 2 * res in self.D.resolutions}
        feats = stack.enter_context(FeatureTap(self.D, list(names.values())))
        watched = None if ggdr is None else stack.enter_context(ggdr.watch())

        def run(img: Tensor, c: Tensor) -> SnapshotFeatures:
            self.D(img, c)
            predicted = {} if watched is None else ggdr.predict(watched)
            return SnapshotFeatures(
                img,
                predicted={_res_of(name): pred for name, pred in predicted.items() if _res_of(name) in layers},
                encoder={res: feats[name].float() for res, name in names.items()},
            )

        return run


def cosine_maps(predicted: Tensor, generator: Tensor) -> Tensor:
    """How alike two maps [N, C, H, W] are at each pixel: cosine similarity [N, H, W] in [-1, 1]."""
    return torch.nn.functional.cosine_similarity(predicted, generator, dim=1)


def _res_of(name: str) -> int:
    """The resolution of a synthesis block, from its name."""
    return int(name.rpartition("b")[2])


def _collected(parts: Iterable[SnapshotFeatures], num: int) -> SnapshotFeatures:
    """Batches as one, without ever holding all of them twice."""
    whole, start = SnapshotFeatures(torch.empty(0)), 0
    for part in parts:
        stop = start + len(part.img)
        if start == 0:
            whole.img = part.img.new_empty([num, *part.img.shape[1:]])
        whole.img[start:stop] = part.img
        for kind in ("generator", "predicted", "encoder"):
            to: Maps = getattr(whole, kind)
            for res, feats in getattr(part, kind).items():
                to.setdefault(res, feats.new_empty([num, *feats.shape[1:]]))[start:stop] = feats
        start = stop
    return whole
