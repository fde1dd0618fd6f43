# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The discriminator predicts what a frozen network sees in real images."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ggdr.decoded import OfReals, Warp, Watched, warped_target
from ggdr.loss import cosine_distance_loss


class RealFeatures(OfReals):
    """Trains the discriminator to predict a frozen network's feature maps of the real images that it sees.

    Example:
        >>> features = RealFeatures(D, network=dino, channels=384, size=16, encoder=["b16", "b8"], probe=lambda: D(img))
        >>> with features.watch() as feats:
        ...     real_logits = D(augment(real))
        >>> loss = adversarial(real_logits) + features.penalty(feats, real, warp=augment_features).mean()

    The network sees the images before augmentation, and `warp` does to its features what augmentation did to them.
    It gets no gradient.

    Source: GGDR's decoder and distance (Lee et al. 2022, arXiv:2207.13320), with another target.
    """

    name = "features"
    quantity = "distance"
    of_reals = "img"

    def __init__(
        self,
        D: nn.Module,
        *,
        network: Callable[[Tensor], Tensor],
        channels: int,
        size: int | tuple[int, int],
        encoder: str | Sequence[str],
        probe: Callable[[], object],
        weight: float = 10.0,
    ) -> None:
        """See OfReals.

        Args:
            network:  from images [N, C, H, W], as D's before augmentation, to features [N, channels, h, w]; frozen.
            channels: of these features.
            size:     that they are resized to; the decoder goes up to it.
        """
        self.network, self.channels = network, channels
        super().__init__(D, channels=channels, size=size, encoder=encoder, probe=probe, weight=weight)

    def distance(self, feats: Watched, img: Tensor, warp: Warp | None = None, *, reals: slice | None = None) -> Tensor:
        """Cosine distance of predicted and computed features, [N] float32 in [0, 2].

        Args:
            feats: from `watch`.
            img:   the real images [N, C, H, W], before augmentation.
            warp:  what augmentation did to their geometry, on maps [N, C, h, w] of any size; None for nothing.
            reals: where in D's batch these images are; None if they are all of it.

        Raises:
            RuntimeError: D did not run in the block.
            ValueError: D saw another number of images; the network gives features of another shape; features of
                another regulariser.
            TypeError: `feats` is not from a `with` block.
        """
        pred = self.predict(feats, reals=reals)
        if len(img) != len(pred):
            raise ValueError(f"got {len(img)} real images, and D saw {len(pred)}; say which with `reals`")
        with torch.no_grad(), torch.autocast(img.device.type, enabled=False):
            target = self.network(img)
        check_features(target, img, self.channels)
        return cosine_distance_loss(pred, warped_target(target, warp, pred.shape[2:]))

    def penalty(self, feats: Watched, img: Tensor, warp: Warp | None = None, *, reals: slice | None = None) -> Tensor:
        """The term to add to the discriminator's loss, [N] float32: gain x distance (see `distance`).

        Raises:
            RuntimeError: D ran without gradients, and so would learn nothing; and what `distance` raises.
        """
        return self._weighted(feats, self.distance(feats, img, warp, reals=reals))


def check_features(features: object, img: Tensor, channels: int | None = None) -> None:
    """ValueError unless they are maps of these images, of so many channels if that is given."""
    shape = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
    is_map = isinstance(features, Tensor) and features.ndim == 4 and len(features) == len(img)
    if not is_map or channels not in (None, features.shape[1]):
        expected = f"[{len(img)}, {'C' if channels is None else channels}, h, w]"
        raise ValueError(f"the frozen network gives {shape} for images {tuple(img.shape)}, expected maps {expected}")
