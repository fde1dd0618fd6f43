# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""GGDR as an object to attach to a generator and a discriminator."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ggdr.decoder import FeatureDecoder, Shape
from ggdr.loss import cosine_distance_loss
from ggdr.suggestion import probing, suggest, trainable
from ggdr.taps import Features, FeatureTap, uncompiled

Warp = Callable[[Tensor], Tensor]


class GuidedFeatures:
    """What one `watch` block saw: the generator's guides and the discriminator's encoder maps."""

    def __init__(self, owner: GGDR, guides: Features, encoder: Features) -> None:
        self.owner, self.guides, self.encoder = owner, guides, encoder

    @property
    def num_calls(self) -> int:
        """How often D runs in the block."""
        return self.encoder.num_calls

    def d_ran_first(self) -> bool:
        """Whether D ran before G was done, so on images of another pass."""
        return min(self.encoder.times()) < max(self.guides.times())


class GGDR:
    """Trains the discriminator to predict the generator's feature maps of the fake images that it sees.

    Neither network is changed: hooks live only inside `watch`, and the decoder is held here.

    Example:
        >>> ggdr = GGDR(G, D, guide="synthesis.b8", encoder=["b16", "b8"], probe=lambda: D(G(z)))
        >>> d_optimizer = Adam([*D.parameters(), *ggdr.parameters()], lr)
        >>> with ggdr.watch() as feats:
        ...     fake_logits = D(augment(G(z).detach()))
        >>> loss = adversarial(fake_logits) + ggdr.penalty(feats, warp=augment_features).mean()

    `decoder` is an nn.Module of its own: wrap it where the networks are wrapped, as in
    `ggdr.decoder = DistributedDataParallel(ggdr.decoder)`.

    Source: Lee et al. 2022, arXiv:2207.13320.
    """

    name = "ggdr"
    quantity = "distance"  # what `penalty` is, over `gain`

    def __init__(
        self,
        G: nn.Module,
        D: nn.Module,
        *,
        guide: str | Sequence[str] | None = None,
        encoder: Sequence[str] | None = None,
        probe: Callable[[], object],
        weight: float = 10.0,
    ) -> None:
        """Runs `probe` to learn the shapes of the features, and builds the decoder for them.

        Args:
            guide:   dotted name of the layer of G to predict, or several; None for what `suggest` chooses.
            encoder: dotted names of layers of D, one a size; those not smaller than the guide are not used.
                     None for what `suggest` chooses.
            probe:   runs G and D once, as `lambda: D(G(z))`, in eval mode; it leaves no trace in the networks or
                     in torch's random state.
            weight:  factor on the cosine distance. 0 makes it a probe: the decoder learns (at weight 1)
                     from detached features, and D is trained as without GGDR.

        Raises:
            ValueError: unknown layer names, a negative weight, G and D swapped, sizes that the decoder cannot join,
                or layers of D with nothing trainable before them.
            RuntimeError: `probe` did not run a tapped layer, or ran it twice.
        """
        if weight < 0:
            raise ValueError(f"weight must not be negative, got {weight}")
        self.weight = float(weight)
        if guide is None or encoder is None:
            choice = suggest(G, D, probe, guide=guide)
            guide, encoder = guide or choice.guide, encoder or choice.encoder
        self._guide_tap = FeatureTap(G, [guide] if isinstance(guide, str) else list(guide), detach=True)
        self._encoder_tap = FeatureTap(D, [encoder] if isinstance(encoder, str) else list(encoder))
        with probing(G, D), self.watch() as feats:
            probe()
        encoder_shapes, guide_shapes = _shapes(feats.encoder), _shapes(feats.guides)
        if feats.d_ran_first():
            raise ValueError("D ran before G when probed; GGDR(G, D, ...) takes the generator first")
        decoder = FeatureDecoder(encoder_shapes, guide_shapes)
        self.guides, self.encoder = list(feats.guides), decoder.encoder_names
        self._taught = [name for name in self.encoder if feats.encoder[name].requires_grad]
        if self.weight > 0 and trainable(D) and not self._taught:
            raise ValueError(
                f"no trainable layer of D comes before {', '.join(self.encoder)}, so that GGDR could teach D nothing; "
                "name later layers in `encoder` (`ggdr.suggest` lists them), or set weight=0 to measure only"
            )
        self._encoder_tap = FeatureTap(D, self.encoder)
        device = next((p.device for p in D.parameters()), torch.device("cpu"))
        self.decoder: nn.Module = decoder.to(device)

    def __repr__(self) -> str:
        return f"GGDR(guide={self.guides}, encoder={self.encoder}, weight={self.weight:g})"

    @property
    def gain(self) -> float:
        """What `penalty` multiplies the distance by: the weight, or 1 for a probe (weight 0)."""
        return self.weight or 1.0

    @contextmanager
    def watch(self, calls: int = 1) -> Iterator[GuidedFeatures]:
        """Collects features while open; run G once and D once on its images inside.

        Networks compiled by torch.compile run uncompiled inside, where hooks see their layers.

        Args:
            calls: how often D runs inside, for several crops or views of the images.

        Raises:
            RuntimeError: inside a function that is being compiled.
            ValueError: fewer than one call.
        """
        if calls < 1:
            raise ValueError(f"D runs at least once in a watch block, got calls={calls}")
        encoder_tap = self._encoder_tap if calls == 1 else self._encoder_tap.repeated(calls)
        with uncompiled(), self._guide_tap as guides, encoder_tap as encoder:
            yield GuidedFeatures(self, guides, encoder)

    def predict(self, feats: GuidedFeatures, *, fakes: slice | None = None, call: int = 0) -> dict[str, Tensor]:
        """What the decoder sees in the images that D ran on, of whatever origin: [N, C, H, W] float32 by guide.

        Args:
            fakes: part of D's batch; None for all of it.
            call:  which of D's calls.
        """
        maps = feats.encoder.call(call)
        encoder = {name: maps[name] if fakes is None else maps[name][fakes] for name in self.encoder}
        if self.weight == 0:
            encoder = {name: feat.detach() for name, feat in encoder.items()}
        return self.decoder(encoder)

    def distance(
        self,
        feats: GuidedFeatures,
        warp: Warp | Sequence[Warp] | None = None,
        *,
        fakes: slice | None = None,
    ) -> Tensor:
        """Cosine distance of predicted and true guides, [N] float32 in [0, 2]; the mean over guides and calls of D.

        Args:
            feats: from `watch`.
            warp:  the geometry that the images went through between G and D, as a function of [N, C, h, w]
                   feature maps of any size; it may crop, and it may return several crops as a larger batch.
                   One a call of D, if there are several. None for none.
            fakes: where in D's batch G's images are, if it also ran on others, as slice(0, n) for
                   D(torch.cat([fake, real])); None if it ran on G's images alone.

        Raises:
            RuntimeError: a tapped layer did not run; D ran before G.
            ValueError: G and D ran on batches of different size; features of another GGDR; wrong number of warps.
            TypeError: `feats` is not from a `with` block.
        """
        if not isinstance(feats, GuidedFeatures):
            raise TypeError(f"expected what `with ggdr.watch() as feats:` gives, got {type(feats).__name__}")
        if feats.owner is not self:
            raise ValueError("these features were watched by another GGDR; give each its own watch block")
        warps = [warp] * feats.num_calls if warp is None or callable(warp) else list(warp)
        if len(warps) != feats.num_calls:
            raise ValueError(f"D runs {feats.num_calls} times in the watch block, got {len(warps)} warps; one a call")
        guides = {name: feats.guides[name] for name in self.guides}
        preds = [self.predict(feats, fakes=fakes, call=i) for i in range(feats.num_calls)]
        if feats.d_ran_first():
            raise RuntimeError(
                "D ran before G inside the watch block, so on images of an earlier batch; make the fake images "
                "inside the block, then run D on just these (with an image pool, run D on the new fakes too: an "
                "older one's features are gone)"
            )
        distances = [
            cosine_distance_loss(pred[name], _target(guides[name], warp, pred[name]))
            for pred, warp in zip(preds, warps, strict=True)
            for name in guides
        ]
        return torch.stack(distances).mean(dim=0)

    def penalty(
        self,
        feats: GuidedFeatures,
        warp: Warp | Sequence[Warp] | None = None,
        *,
        fakes: slice | None = None,
    ) -> Tensor:
        """The term to add to the discriminator's loss, [N] float32: gain x distance (see `distance`).

        Raises:
            RuntimeError: D ran without gradients, and so would learn nothing; and what `distance` raises.
        """
        distance = self.distance(feats, warp, fakes=fakes)
        cut = [name for name in feats.encoder.without_gradients() if name in self._taught]
        if cut and self.weight > 0 and torch.is_grad_enabled():
            raise RuntimeError(
                f"layer {cut[0]!r} of D ran without gradients, so that GGDR could teach D nothing: run D outside of "
                "torch.no_grad, and with torch.utils.checkpoint(use_reentrant=False); for the number alone take "
                "ggdr.distance, and weight=0 to train the decoder alone"
            )
        return distance * self.gain

    def parameters(self) -> Iterator[nn.Parameter]:
        """The decoder's parameters, for the discriminator's optimiser."""
        return self.decoder.parameters()

    def to(self, device: torch.device | str) -> GGDR:
        """Moves the decoder, as after moving the networks; before the optimiser is made."""
        self.decoder.to(device)
        return self

    def state_dict(self) -> dict[str, Tensor]:
        """The decoder's parameters and buffers."""
        return self._plain_decoder.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Loads what `state_dict` gave; every name and shape must fit."""
        self._plain_decoder.load_state_dict(state, strict=True)

    @property
    def _plain_decoder(self) -> FeatureDecoder:
        """The decoder inside its wrappers."""
        return next(module for module in self.decoder.modules() if isinstance(module, FeatureDecoder))


def _shapes(feats: Features) -> dict[str, Shape]:
    return {name: tuple(feats[name].shape[1:]) for name in feats}


def _target(guide: Tensor, warp: Warp | None, pred: Tensor) -> Tensor:
    """The guide as D sees it: warped, and at the size of the prediction, [N, C, H, W] float32."""
    with torch.no_grad():
        # Tensors of inference mode cannot take part in a loss; a copy can.
        target = guide.clone() if guide.is_inference() else guide
        target = target.float() if warp is None else warp(target.float())
        if len(target) != len(pred):
            raise ValueError(
                f"G ran on {len(target)} images and D on {len(pred)} inside one watch block; D must see exactly the "
                "images that G made there; if it saw others too, say which are G's: penalty(feats, fakes=slice(...))"
            )
        if target.shape[2:] != pred.shape[2:]:
            target = F.interpolate(target, pred.shape[2:], mode="bilinear", align_corners=False, antialias=True)
    return target
