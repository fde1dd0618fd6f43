# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""GGDR with a contrastive loss in place of the cosine distance."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ggdr.decoded import Warp
from ggdr.regularizer import GGDR, GuidedFeatures

MAX_NEGATIVES = 255
TEMPERATURE = 0.07


def draw_pixels(n: int, num: int, of: int, *, generator: torch.Generator | None = None) -> Tensor:
    """`num` different pixels of `of` for each of n images: int64 [n, num], from a generator on the CPU."""
    return torch.rand([n, of], generator=generator).topk(num, dim=1).indices


def pixel_nce_loss(
    pred: Tensor,
    target: Tensor,
    pixels: Tensor | None = None,
    *,
    temperature: float = TEMPERATURE,
    eps: float = 1e-8,
) -> Tensor:
    """InfoNCE over pixels: each predicted vector is to be told by its own target among those of other pixels.

    A pixel's logits are its cosine similarities to the targets of all chosen pixels of its image, over the
    temperature; the loss is their cross-entropy with the pixel's own target as the class, averaged over the chosen
    pixels. Negatives are of the same image, so that the loss of an image does not depend on the others of its batch.
    Pixels whose target is zero, as augmentation brings them in from outside, take no part.

    Args:
        pred:        [N, C, H, W] from FeatureDecoder; receives gradient.
        target:      [N, C, H, W] generator features; constant.
        pixels:      [N, P] int64, the chosen pixels, y W + x, different ones; None for all.
        temperature: above 0; the lower, the more the most similar negatives count.
        eps:         floor on the norms of the vectors.

    Returns:
        [N] float32, from 0; about ln P where the prediction says nothing. 0 where no pixel takes part.

    Raises:
        ValueError: shapes differ, or pixels are of another number of images.

    Source: van den Oord et al. 2018, arXiv:1807.03748; over pixels of one image, 255 negatives and
    temperature 0.07: Park et al. 2020, arXiv:2007.15651.
    """
    if pred.shape != target.shape:
        raise ValueError(f"prediction {tuple(pred.shape)} and target {tuple(target.shape)} differ in shape")
    if pixels is not None and len(pixels) != len(pred):
        raise ValueError(f"pixels are of {len(pixels)} images, expected {len(pred)}")
    with torch.autocast(pred.device.type, enabled=False):
        pred, target = (x.float().flatten(2).transpose(1, 2) for x in (pred, target))  # [N, H W, C]
        if pixels is not None:
            pred, target = (x.take_along_dim(pixels[:, :, None], dim=1) for x in (pred, target))  # [N, P, C]
        is_inside = target.detach().abs().amax(dim=2) > 0  # [N, P]
        similarity = F.normalize(pred, dim=2, eps=eps) @ F.normalize(target, dim=2, eps=eps).transpose(1, 2)
        # Of a pixel outside, a row that is not counted and a column that no softmax sees.
        logits = (similarity / temperature).masked_fill(~is_inside[:, None, :], -torch.inf)
        own = torch.diagonal(similarity, dim1=1, dim2=2) / temperature
        rows = torch.where(is_inside[:, None, :].any(dim=2, keepdim=True), logits, 0)
        loss = (rows.logsumexp(dim=2) - own) * is_inside
        return loss.sum(dim=1) / is_inside.sum(dim=1).clamp(min=1)


class Contrastive(GGDR):
    """GGDR, but a pixel's prediction is to be nearer to its own target than to those of other pixels.

    The cosine distance is small already where all predictions point along the mean of the features; InfoNCE is not.

    Example:
        >>> contrastive = Contrastive(G, D, guide="synthesis.b8", encoder=["b16", "b8"], probe=lambda: D(G(z)))
        >>> with contrastive.watch() as feats:
        ...     fake_logits = D(augment(G(z).detach()))
        >>> loss = adversarial(fake_logits) + contrastive.penalty(feats, warp=augment_features).mean()

    Source: see `pixel_nce_loss`; in place of GGDR's cosine distance it is this project's.
    """

    name = "contrastive"
    quantity = "nce"

    def __init__(
        self,
        G: nn.Module,
        D: nn.Module,
        *,
        guide: str | Sequence[str] | None = None,
        encoder: Sequence[str] | None = None,
        probe: Callable[[], object],
        weight: float = 1.0,
        negatives: int = MAX_NEGATIVES,
        temperature: float = TEMPERATURE,
    ) -> None:
        """See GGDR.

        Args:
            negatives:   most negatives of a pixel: `negatives` + 1 pixels of each image are drawn, or all if it has
                         no more.
            temperature: see `pixel_nce_loss`.

        Raises:
            ValueError: `negatives` is below 1, or `temperature` not above 0; and what GGDR raises.
        """
        if negatives < 1:
            raise ValueError(f"expected at least 1 negative, got {negatives}")
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0, got {temperature}")
        self.negatives, self.temperature = negatives, float(temperature)
        super().__init__(G, D, guide=guide, encoder=encoder, probe=probe, weight=weight)
        sizes = {level.guide: level.size for level in self.decoder.levels if level.guide is not None}
        self._num_pixels = {name: sizes[name][0] * sizes[name][1] for name in self.guides}

    def draw(self, n: int, *, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Pixels for n images of the size of the probe's, by guide, for `penalty`; none of guides that are used whole.

        Args:
            generator: of the CPU; None is torch's default one.
        """
        num = self.negatives + 1
        of = {name: pixels for name, pixels in self._num_pixels.items() if pixels > num}
        return {name: draw_pixels(n, num, pixels, generator=generator) for name, pixels in of.items()}

    def nce(
        self,
        feats: GuidedFeatures,
        warp: Warp | Sequence[Warp] | None = None,
        *,
        fakes: slice | None = None,
        draws: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """The mean over guides and calls of D of `pixel_nce_loss`, [N] float32.

        Args:
            feats, warp, fakes: as of GGDR.distance.
            draws:              from `draw`, for as many images; None to draw them now, from torch's default generator.

        Raises:
            As GGDR.distance.
        """

        def compare(name: str, pred: Tensor, target: Tensor) -> Tensor:
            num, of = self.negatives + 1, pred.shape[2] * pred.shape[3]
            pixels = None if draws is None else draws.get(name)
            if draws is None and of > num:
                pixels = draw_pixels(len(pred), num, of)
            if pixels is not None:
                pixels = pixels.to(pred.device, non_blocking=True)
            return pixel_nce_loss(pred, target, pixels, temperature=self.temperature)

        return self._compared(feats, warp, fakes, compare)

    def penalty(
        self,
        feats: GuidedFeatures,
        warp: Warp | Sequence[Warp] | None = None,
        *,
        fakes: slice | None = None,
        draws: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """The term to add to the discriminator's loss, [N] float32: gain x nce (see `nce`).

        Raises:
            RuntimeError: D ran without gradients, and so would learn nothing; and what `nce` raises.
        """
        return self._weighted(feats, self.nce(feats, warp, fakes=fakes, draws=draws))
