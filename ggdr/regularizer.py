# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""GGDR as an object to attach to a generator and a discriminator."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ggdr.decoder import FeatureDecoder
from ggdr.loss import cosine_distance_loss
from ggdr.taps import Features, FeatureTap

Warp = Callable[[Tensor], Tensor]


class GuidedFeatures:
    """What one `watch` block saw: the generator's guides and the discriminator's encoder maps."""

    def __init__(self, guides: Features, encoder: Features) -> None:
        self.guides, self.encoder = guides, encoder


class GGDR:
    """Trains the discriminator to predict the generator's feature maps of the fake images that it sees.

    Neither network is changed: hooks live only inside `watch`, and the decoder is held here.

    Example:
        >>> ggdr = GGDR(G, D, guide="synthesis.b8", encoder=["b16", "b8"], probe=lambda: D(G(z)))
        >>> d_optimizer = Adam([*D.parameters(), *ggdr.parameters()], lr)
        >>> with ggdr.watch() as feats:
        ...     fake_logits = D(augment(G(z).detach()))
        >>> loss = adversarial(fake_logits) + ggdr.penalty(feats, warp=augment_features).mean()

    Source: Lee et al. 2022, arXiv:2207.13320.
    """

    name = "ggdr"

    def __init__(
        self,
        G: nn.Module,
        D: nn.Module,
        *,
        guide: str | Sequence[str],
        encoder: Sequence[str],
        probe: Callable[[], object],
        weight: float = 10.0,
    ) -> None:
        """Runs `probe` once to learn the shapes of the features, and builds the decoder for them.

        Args:
            guide:   dotted name of the layer of G to predict, or several.
            encoder: dotted names of layers of D, one a size; those not smaller than the guide are not used.
            probe:   runs G and D once, as `lambda: D(G(z))`; gradients are off, both networks in eval mode,
                     and torch's random state is put back afterwards.
            weight:  factor on the cosine distance. 0 makes it a probe: the decoder learns (at weight 1)
                     from detached features, and D is trained as without GGDR.

        Raises:
            ValueError: unknown layer names, a negative weight, or sizes that the decoder cannot join.
            RuntimeError: `probe` did not run a tapped layer, or ran it twice.
        """
        if weight < 0:
            raise ValueError(f"weight must not be negative, got {weight}")
        self.weight = float(weight)
        self._guide_names = [guide] if isinstance(guide, str) else list(guide)
        self._guide_tap = FeatureTap(G, self._guide_names, detach=True)
        self._encoder_tap = FeatureTap(D, list(encoder))
        shapes = self._probed_shapes(G, D, probe)
        self.decoder = FeatureDecoder(*shapes)
        self._encoder_tap = FeatureTap(D, self.decoder.encoder_names)
        device = next((p.device for p in D.parameters()), torch.device("cpu"))
        self.decoder.to(device)

    @property
    def guides(self) -> list[str]:
        """The names of the layers of G that are predicted."""
        return list(self._guide_names)

    @property
    def gain(self) -> float:
        """What `penalty` multiplies the distance by: the weight, or 1 for a probe (weight 0)."""
        return self.weight or 1.0

    @contextmanager
    def watch(self) -> Iterator[GuidedFeatures]:
        """Collects features while open; run G once and D once on its images inside."""
        with self._guide_tap as guides, self._encoder_tap as encoder:
            yield GuidedFeatures(guides, encoder)

    def predict(self, feats: GuidedFeatures) -> dict[str, Tensor]:
        """What the decoder sees in the images that D ran on, of whatever origin: [N, C, H, W] float32 by guide."""
        encoder = {name: feats.encoder[name] for name in feats.encoder}
        if self.weight == 0:
            encoder = {name: feat.detach() for name, feat in encoder.items()}
        return self.decoder(encoder)

    def distance(self, feats: GuidedFeatures, warp: Warp | None = None) -> Tensor:
        """Cosine distance of predicted and true guides, [N] float32 in [0, 2]; the mean over several guides.

        Args:
            feats: from `watch`.
            warp:  the geometry that the images went through between G and D, as a function of
                   [N, C, h, w] feature maps of any size; None for none.

        Raises:
            RuntimeError: a tapped layer did not run, or its output was changed in place.
            ValueError: G and D ran on batches of different size.
        """
        pred = self.predict(feats)
        distances = []
        for name in feats.guides:
            target = feats.guides[name].float()
            if len(target) != len(pred[name]):
                raise ValueError(
                    f"G ran on {len(target)} images and D on {len(pred[name])} inside one watch block; "
                    "D must see exactly the images that G made there"
                )
            with torch.no_grad():
                target = target if warp is None else warp(target)
            distances.append(cosine_distance_loss(pred[name], target))
        return torch.stack(distances).mean(dim=0)

    def penalty(self, feats: GuidedFeatures, warp: Warp | None = None) -> Tensor:
        """The term to add to the discriminator's loss, [N] float32: gain x distance (see `distance`)."""
        return self.distance(feats, warp) * self.gain

    def parameters(self) -> Iterator[nn.Parameter]:
        """The decoder's parameters, for the discriminator's optimiser."""
        return self.decoder.parameters()

    def state_dict(self) -> dict[str, Tensor]:
        """The decoder's parameters and buffers."""
        return self.decoder.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Loads what `state_dict` gave; every name and shape must fit."""
        self.decoder.load_state_dict(state, strict=True)

    def _probed_shapes(self, G: nn.Module, D: nn.Module, probe: Callable[[], object]):
        """Shapes (C, H, W) of encoder maps and guides, from one forward that leaves no trace."""
        modes = {module: module.training for net in (G, D) for module in net.modules()}
        devices = {p.device for net in (G, D) for p in net.parameters() if p.device.type == "cuda"}
        with torch.random.fork_rng(devices=list(devices)), torch.no_grad(), self.watch() as feats:
            try:
                for module in modes:
                    module.training = False
                probe()
            finally:
                for module, mode in modes.items():
                    module.training = mode
        encoder, guides = ({name: tuple(f[name].shape[1:]) for name in f} for f in (feats.encoder, feats.guides))
        return encoder, guides
