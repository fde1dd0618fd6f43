# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""GGDR as an object to attach to a generator and a discriminator."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

from ggdr.decoded import DecoderRegularizer, Warp, Watched, as_names, shapes_of, warped_target
from ggdr.loss import cosine_distance_loss
from ggdr.suggestion import probing, suggest
from ggdr.taps import Features, FeatureTap, uncompiled

Compare = Callable[[str, Tensor, Tensor], Tensor]  # (guide's name, prediction, target) -> [N]


class GuidedFeatures(Watched):
    """What one `watch` block saw: the generator's guides and the discriminator's encoder maps."""

    def __init__(self, owner: GGDR, guides: Features, encoder: Features) -> None:
        super().__init__(owner, encoder)
        self.guides = guides

    @property
    def num_calls(self) -> int:
        """How often D runs in the block."""
        return self.encoder.num_calls

    def d_ran_first(self) -> bool:
        """Whether D ran before G was done, so on images of another pass."""
        return min(self.encoder.times()) < max(self.guides.times())


class GGDR(DecoderRegularizer):
    """Trains the discriminator to predict the generator's feature maps of the fake images that it sees.

    Neither network is changed, see DecoderRegularizer.

    Example:
        >>> ggdr = GGDR(G, D, guide="synthesis.b8", encoder=["b16", "b8"], probe=lambda: D(G(z)))
        >>> d_optimizer = Adam([*D.parameters(), *ggdr.parameters()], lr)
        >>> with ggdr.watch() as feats:
        ...     fake_logits = D(augment(G(z).detach()))
        >>> loss = adversarial(fake_logits) + ggdr.penalty(feats, warp=augment_features).mean()

    Source: Lee et al. 2022, arXiv:2207.13320.
    """

    name = "ggdr"
    quantity = "distance"

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
        super().__init__(weight)
        if guide is None or encoder is None:
            choice = suggest(G, D, probe, guide=guide)
            guide, encoder = guide or choice.guide, encoder or choice.encoder
        teacher = self._teacher(G)
        self._guide_tap = FeatureTap(teacher, as_names(guide), detach=True)
        self._encoder_tap = FeatureTap(D, as_names(encoder))
        with probing(D, G, teacher), self.watch() as feats:
            probe()
        encoder_maps, guide_shapes = dict(feats.encoder), shapes_of(feats.guides)
        if feats.d_ran_first():
            raise ValueError(f"D ran before G when probed; {type(self).__name__}(G, D, ...) takes the generator first")
        self._attach(D, encoder_maps, guide_shapes)
        self.guides = list(feats.guides)

    def _teacher(self, G: nn.Module) -> nn.Module:
        """The network whose features are predicted."""
        return G

    def __repr__(self) -> str:
        return f"{type(self).__name__}(guide={self.guides}, encoder={self.encoder}, weight={self.weight:g})"

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
        return self._decode(feats, fakes, call)

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
        return self._compared(feats, warp, fakes, lambda name, pred, target: cosine_distance_loss(pred, target))

    def _compared(
        self, feats: GuidedFeatures, warp: Warp | Sequence[Warp] | None, fakes: slice | None, compare: Compare
    ) -> Tensor:
        """What `compare` says of predictions and guides, [N]: the mean over guides and calls. Raises as `distance`."""
        self._check_watched(feats, GuidedFeatures)
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
        values = [
            compare(name, pred[name], _target(guides[name], warp, pred[name]))
            for pred, warp in zip(preds, warps, strict=True)
            for name in guides
        ]
        return sum(values) / len(values) if len(values) > 1 else values[0]

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
        return self._weighted(feats, self.distance(feats, warp, fakes=fakes))


def _target(guide: Tensor, warp: Warp | None, pred: Tensor) -> Tensor:
    """The guide as D sees it; ValueError if G made other images than D saw."""
    target = warped_target(guide, warp, pred.shape[2:])
    if len(target) != len(pred):
        raise ValueError(
            f"G ran on {len(target)} images and D on {len(pred)} inside one watch block; D must see exactly the "
            "images that G made there; if it saw others too, say which are G's: penalty(feats, fakes=slice(...))"
        )
    return target
