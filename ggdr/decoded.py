# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What all regularisers with a decoder on the discriminator have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ggdr.decoder import FeatureDecoder, Shape
from ggdr.suggestion import probing, trainable
from ggdr.taps import Features, FeatureTap, uncompiled

Warp = Callable[[Tensor], Tensor]


class Watched:
    """What one `watch` block saw of the discriminator."""

    def __init__(self, owner: DecoderRegularizer, encoder: Features) -> None:
        self.owner, self.encoder = owner, encoder


class DecoderRegularizer:
    """A decoder that predicts something from the discriminator's features; a subclass knows what, and the loss.

    Neither network is changed: hooks live only inside `watch`, and the decoder is held here.

    `decoder` is an nn.Module of its own: wrap it where the networks are wrapped, as in
    `ggdr.decoder = DistributedDataParallel(ggdr.decoder)`.

    Attributes:
        weight:  factor on what is penalised; 0 makes it a probe, see `gain`. It may change during training.
        encoder: names of the layers of D that are used, from the smallest map up.
    """

    name: str  # of the loss term
    quantity: str  # what `penalty` is, over `gain`
    decoder: nn.Module
    encoder: list[str]

    def __init__(self, weight: float) -> None:
        """Raises ValueError if the weight is negative; `_attach` does the rest."""
        if weight < 0:
            raise ValueError(f"weight must not be negative, got {weight}")
        self.weight = float(weight)

    def _attach(self, D: nn.Module, probed: Mapping[str, Tensor], targets: Mapping[str, Shape]) -> None:
        """Builds the decoder for maps of D as they were probed, and for what it is to predict.

        Raises:
            ValueError: sizes that the decoder cannot join, or layers of D with nothing trainable before them.
        """
        decoder = FeatureDecoder(shapes_of(probed), targets)
        self.encoder = decoder.encoder_names
        self._taught = [name for name in self.encoder if probed[name].requires_grad]
        if self.weight > 0 and trainable(D) and not self._taught:
            raise ValueError(
                f"no trainable layer of D comes before {', '.join(self.encoder)}, so that {type(self).__name__} could "
                "teach D nothing; name later layers in `encoder` (`ggdr.suggest` lists them), or set weight=0 to "
                "measure only"
            )
        self._encoder_tap = FeatureTap(D, self.encoder)
        device = next((p.device for p in D.parameters()), torch.device("cpu"))
        self.decoder = decoder.to(device)

    @property
    def gain(self) -> float:
        """What `penalty` multiplies by: the weight, or 1 for a probe (weight 0)."""
        return self.weight or 1.0

    def _decode(self, feats: Watched, part: slice | None, call: int = 0) -> dict[str, Tensor]:
        """What the decoder sees in a part of D's batch, None for all of it: [N, C, H, W] float32 by name."""
        maps = feats.encoder.call(call)
        encoder = {name: maps[name] if part is None else maps[name][part] for name in self.encoder}
        if self.weight == 0:
            encoder = {name: feat.detach() for name, feat in encoder.items()}
        return self.decoder(encoder)

    def _check_watched(self, feats: Any, kind: type[Watched]) -> None:
        """TypeError if these are no features from a `with` block, ValueError if they are another regulariser's."""
        if not isinstance(feats, kind):
            text = f"expected what `with {self._variable}.watch() as feats:` gives"
            raise TypeError(f"{text}, got {type(feats).__name__}")
        if feats.owner is not self:
            raise ValueError(
                f"these features were watched by another {type(feats.owner).__name__}; give each its own watch block"
            )

    def _weighted(self, feats: Watched, value: Tensor) -> Tensor:
        """gain x value; RuntimeError if D ran without gradients, and so would learn nothing."""
        cut = [name for name in feats.encoder.without_gradients() if name in self._taught]
        if cut and self.weight > 0 and torch.is_grad_enabled():
            raise RuntimeError(
                f"layer {cut[0]!r} of D ran without gradients, so that {type(self).__name__} could teach D nothing: "
                "run D outside of torch.no_grad, and with torch.utils.checkpoint(use_reentrant=False); for the number "
                f"alone take {self._variable}.{self.quantity}, and weight=0 to train the decoder alone"
            )
        return value * self.gain

    @property
    def _variable(self) -> str:
        """What messages call this object."""
        return self.name.replace("-", "_")

    def parameters(self) -> Iterator[nn.Parameter]:
        """The decoder's parameters, for the discriminator's optimiser."""
        return self.decoder.parameters()

    def to(self, device: torch.device | str) -> DecoderRegularizer:
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


class OfReals(DecoderRegularizer):
    """A regulariser on real images: the decoder predicts what is known of them, as `name` at the size `size`.

    Attributes:
        of_reals: what of the data it is given, "img" or "label_map".
        size:     height and width of what is predicted, for images as large as those of the probe.
    """

    of_reals: str

    def __init__(
        self,
        D: nn.Module,
        *,
        channels: int,
        size: int | tuple[int, int],
        encoder: str | Sequence[str],
        probe: Callable[[], object],
        weight: float,
    ) -> None:
        """Runs `probe` to learn the shapes of D's features, and builds the decoder for them.

        Args:
            channels: of what is predicted.
            size:     of what is predicted, in pixels; its height and width, or its side.
            encoder:  dotted names of layers of D, one a size; those not smaller than `size` are not used.
            probe:    runs D once, as `lambda: D(img)`, in eval mode; it leaves no trace.
            weight:   factor on what is penalised. 0 makes it a probe: the decoder learns (at weight 1) from detached
                      features, and D is trained as without it.

        Raises:
            ValueError: unknown layer names, a negative weight, sizes that the decoder cannot join, or layers of D
                with nothing trainable before them.
            RuntimeError: `probe` did not run a layer, or ran it twice.
        """
        super().__init__(weight)
        self.size = (size, size) if isinstance(size, int) else size
        self._encoder_tap = FeatureTap(D, as_names(encoder))
        with probing(D), self.watch() as feats:
            probe()
        self._attach(D, dict(feats.encoder), {self.name: (channels, *self.size)})

    def __repr__(self) -> str:
        size = "x".join(map(str, self.size))
        return f"{type(self).__name__}(size={size}, encoder={self.encoder}, weight={self.weight:g})"

    @contextmanager
    def watch(self) -> Iterator[Watched]:
        """Collects features while open; run D once inside, on the real images at least."""
        with uncompiled(), self._encoder_tap as encoder:
            yield Watched(self, encoder)

    def predict(self, feats: Watched, *, reals: slice | None = None) -> Tensor:
        """What the decoder sees in the images that D ran on: [N, channels, H, W] float32.

        Args:
            reals: part of D's batch; None for all of it.

        Raises:
            TypeError, ValueError: the features are of no block, or of another regulariser's.
        """
        self._check_watched(feats, Watched)
        return self._decode(feats, reals)[self.name]


def shapes_of(feats: Mapping[str, Tensor]) -> dict[str, Shape]:
    """Channels, height and width of each map."""
    return {name: tuple(feats[name].shape[1:]) for name in feats}


@torch.no_grad()
def warped_target(target: Tensor, warp: Warp | None, size: Sequence[int]) -> Tensor:
    """Feature maps as D sees them: warped, and resized to height and width; [N, C, H, W] float32."""
    # Tensors of inference mode cannot take part in a loss; a copy can.
    target = target.clone() if target.is_inference() else target
    target = target.float() if warp is None else warp(target.float())
    if target.shape[2:] != torch.Size(size):
        target = F.interpolate(target, tuple(size), mode="bilinear", align_corners=False, antialias=True)
    return target


def as_names(layers: str | Sequence[str]) -> list[str]:
    """One layer, or several, as a list."""
    return [layers] if isinstance(layers, str) else list(layers)
