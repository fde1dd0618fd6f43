# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""ComboGAN as the training loop sees it: two of n domains in each iteration, with regularisers on D's new fakes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ggdr.torch_utils.distributed import ProcessGroup
from ggdr.torch_utils.gan import Batch, Panel, Phase, PhaseOutput, Picture
from ggdr.torch_utils.regularizers import Attachment, Regularizers
from ggdr.translation.combogan_networks import ComboGANDiscriminator, ComboGANGenerator
from ggdr.translation.config import ComboGANConfig
from ggdr.translation.generators import AT_LEAST, MULTIPLE
from ggdr.translation.host import TranslationHost, judge_both
from ggdr.translation.losses import coarse_distance, latent_distance, multiscale, smooth_l1_distance
from ggdr.translation.translator import ComboGANTranslator


class ComboGANTask(TranslationHost):
    """Networks, optimisers, losses and pools of one ComboGAN run, with regularisers on D's new fakes.

    Its batches are {"A": [N, C, H, W], "B": the same}, float32 in [-1, 1] with sides that are multiples of 4, and
    "domain_A", "domain_B": int64 [N] with the numbers of two different domains, each the same all over and on all
    processes, best on the CPU: on a GPU each phase waits for it.

    An iteration trains the two domains' discriminators, and then their encoders and decoders and what is shared. Each
    domain's weights and moments stay as they are in all iterations that have other domains: Adam passes over what has
    no gradient, and counts steps for each weight, so that one with a group for each domain is one for each domain.

    Source: Anoosheh et al. 2017, arXiv:1712.06909.

    Args:
        D:            one for each domain.
        regularizers: by domains; see `combogan_attachments`.
        domains:      what they are called; None: "0", "1" and so on.
        frozen:       domains of which nothing is trained, and whose D have no pools; of each two that are drawn, one
                      must be another. If there are any, shared blocks are frozen, too.

    Raises:
        ValueError: other numbers of D, or of names, than of domains; no domain is left to train; a regulariser is
            called as a network or a loss term is.
    """

    config: ComboGANConfig

    def __init__(
        self,
        G: ComboGANGenerator,
        D: Sequence[ComboGANDiscriminator],
        config: ComboGANConfig,
        *,
        regularizers: Mapping[int, Regularizers] | None = None,
        domains: Sequence[str] | None = None,
        frozen: Collection[int] = (),
        pictures: Sequence[Picture] = (),
        group: ProcessGroup | None = None,
        seed: int = 0,
        half_dtype: torch.dtype | None = None,
    ) -> None:
        numbers = range(G.config.domains)
        names = list(map(str, numbers)) if domains is None else list(domains)
        for what, items in (("a discriminator", D), ("a name", names)):
            if len(items) != len(numbers):
                raise ValueError(f"expected {what} for each of {len(numbers)} domains, got {len(items)}")
        self.trained = [i for i in numbers if i not in frozen]
        if not self.trained or not set(frozen) <= set(numbers):
            raise ValueError(f"frozen: expected some of the domains 0 to {len(numbers) - 1}, got {sorted(frozen)}")
        self.G, self.D = G, list(D)
        super().__init__(
            {"G": G, **{f"D_{i}": net for i, net in enumerate(D)}},
            config,
            regularizers={str(i): (regularizers or {}).get(i, Regularizers()) for i in numbers},
            pools={str(i): config.pool_size for i in self.trained},
            domains=names,
            pictures=pictures,
            group=group,
            seed=seed,
            half_dtype=half_dtype,
        )
        self._batch_size, self._plans = 0, {}
        for net in self.networks.values():
            net.requires_grad_(False)
        shared = [] if frozen else [*G.shared_encoder.parameters(), *G.shared_decoder.parameters()]
        G_groups = [[*G.encoders[i].parameters(), *G.decoders[i].parameters()] for i in self.trained]
        D_groups = [[*D[i].parameters(), *self.regularizers[str(i)].parameters()] for i in self.trained]
        optional = ("cycle", "identity", "latent", "forward")
        G_terms = ("G_gan", *(name for name in optional if getattr(config, f"{name}_weight")))
        cycle = Panel("cycle/distance", "cycle", "Cycle", "mean smooth L1", headline=True, axis="zero")
        self._start(
            [
                self._phase("D", D_groups, self._D_losses, ("D_fake", "D_real"), self._draw),
                self._phase("G", [*G_groups, shared] if shared else G_groups, self._G_losses, G_terms),
            ],
            [
                *(Panel(f"score/{name}", name, "Discriminator scores", "mean logit") for name in ("real", "fake")),
                *([cycle] if config.cycle_weight else []),
                *self.regularizers[str(self.trained[0])].panels,
                Panel("rate", "rate", "Learning rate", detail=True, axis="zero"),
            ],
        )

    def _phase(self, name: str, groups: Sequence[list[nn.Parameter]], *rest: Any) -> Phase:
        optimizer = self.adam([{"params": params} for params in groups])
        return Phase(name, [p for params in groups for p in params], optimizer, *rest)

    # Forward passes.

    def _draw(self, n: int, parts: int) -> dict[str, Any]:
        """Places in the batch, as its pools are known only when it is; and what regularisers of all domains draw."""
        self._batch_size, self._plans = n, {}
        regularizers = self.regularizers[str(self.trained[0])]
        return {"index": torch.arange(n), "regularizers": regularizers.draw(n, self.cpu_rng)}

    def _pool_draws(self, domain: int, index: Tensor) -> dict[str, Tensor]:
        """The share of the images at these places of what the whole batch draws from a domain's pool."""
        if domain not in self._plans:
            self._plans[domain] = self.pools[str(domain)].draw(self._batch_size)
        return {name: values[index] for name, values in self._plans[domain].items()}

    def _domains(self, batch: Batch) -> tuple[int, int]:
        """The two domains of a batch; ValueError unless its images can be trained on."""
        a, b = (int(batch[f"domain_{side}"][0]) for side in "AB")
        num = len(self.D)
        if a == b or not (0 <= a < num and 0 <= b < num):
            raise ValueError(f"expected a batch of two of the domains 0 to {num - 1}, got {a} and {b}")
        if not {a, b} & set(self.trained):
            raise ValueError(f"domains {a} and {b} of a batch are both frozen; one must be of {self.trained}")
        height, width = batch["A"].shape[2:]
        if height % MULTIPLE or width % MULTIPLE or min(height, width) < AT_LEAST:
            raise ValueError(
                f"expected images whose sides are multiples of {MULTIPLE}, from {AT_LEAST} pixels up, got "
                f"{width}x{height}"
            )
        return a, b

    def _translate(self, img: Tensor, source: int, target: int) -> Tensor:
        return self.G.decode(self.G.encode(img, source), target)

    def _D_losses(self, batch: Batch, draws: Mapping[str, Any]) -> PhaseOutput:
        a, b = self._domains(batch)
        outputs = [
            self._D_output(*args, draws)
            for args in ((batch["A"], batch["B"], a, b), (batch["B"], batch["A"], b, a))
            if args[3] in self.trained
        ]
        losses = {name: sum(out.losses[name] for out in outputs) for name in outputs[0].losses}
        observed = {name: sum(out.observed[name] for out in outputs) / len(outputs) for name in outputs[0].observed}
        return PhaseOutput(losses, observed)

    def _D_output(self, img: Tensor, real: Tensor, source: int, target: int, draws: Mapping[str, Any]) -> PhaseOutput:
        """The losses of the target's discriminator."""
        of_fake, of_real, guided = judge_both(
            partial(self._translate, img, source, target),
            real,
            self.D[target],
            self.regularizers[str(target)],
            pool=self.pools[str(target)],
            draws=self._pool_draws(target, draws["index"]),
            drawn=draws.get("regularizers"),
        )
        maps = {"fake": of_fake, "real": of_real}
        # Halved, so that D learns more slowly than G.
        losses = {f"D_{name}": multiscale(x, name == "real", self._loss) / 2 for name, x in maps.items()}
        observed = {f"score/{name}": _mean_logit(x) for name, x in maps.items()}
        return PhaseOutput({**losses, **guided.losses}, {**observed, **guided.observed})

    def _G_losses(self, batch: Batch, draws: None) -> PhaseOutput:
        a, b = self._domains(batch)
        one = self._G_output(batch["A"], a, b)
        other = self._G_output(batch["B"], b, a)
        losses = {name: one.losses[name] + other.losses[name] for name in one.losses}
        return PhaseOutput(losses, {name: (one.observed[name] + other.observed[name]) / 2 for name in one.observed})

    def _G_output(self, img: Tensor, source: int, target: int) -> PhaseOutput:
        """The losses of images on their way from one domain to another and back."""
        G, config = self.G, self.config
        code = G.encode(img, source)
        fake = G.decode(code, target)
        losses, observed = {"G_gan": multiscale(self.D[target](fake), True, self._loss)}, {}
        fake_code = G.encode(fake, target) if config.cycle_weight or config.latent_weight else None
        if config.cycle_weight:
            cycle = smooth_l1_distance(G.decode(fake_code, source), img)
            losses["cycle"], observed["cycle/distance"] = cycle * config.cycle_weight, cycle.detach()
        if config.identity_weight:
            losses["identity"] = coarse_distance(G.decode(code, source), img) * config.identity_weight
        if config.latent_weight:
            weight = config.latent_weight * config.latent_factor(self.nimg)
            losses["latent"] = latent_distance(fake_code, code) * weight
        if config.forward_weight:
            losses["forward"] = coarse_distance(fake, img) * config.forward_weight
        return PhaseOutput(losses, observed)

    def translate(self, img: Tensor, source: int, target: int) -> Tensor:
        """Images of one domain in another, [N, C, H, W] of any size -> the same shape, on the CPU; see Translator."""
        return ComboGANTranslator(self.G)(img, str(source), str(target))


def _mean_logit(maps: Sequence[Tensor]) -> Tensor:
    """The mean over all maps' means, [N]."""
    return torch.stack([x.detach().flatten(1).mean(dim=1) for x in maps]).mean(dim=0)


def combogan_attachments(
    G: ComboGANGenerator, D: Sequence[ComboGANDiscriminator], resolution: int
) -> dict[int, Attachment]:
    """Where regularisers take hold of each domain's decoder and discriminator.

    Guides are the ends of the decoder's stages. Of the discriminator's two stacks it is that of the luminance, which
    sees the image in full sharpness.

    Args:
        resolution: side of the images in training, in pixels.

    Raises:
        ValueError: it is no multiple of 4.
    """
    if resolution % MULTIPLE:
        raise ValueError(f"regularisers need images whose side is a multiple of {MULTIPLE}, got {resolution}")
    blocks = G.config.decoder_blocks
    layers = {resolution // 4: blocks - 1, resolution // 2: blocks + 2, resolution: blocks + 5}

    def probe(domain: int) -> None:
        device = next(G.parameters()).device
        img = torch.zeros([1, G.config.img_channels, resolution, resolution], device=device)
        D[domain](G.decode(G.encode(img, domain), domain))

    return {
        i: Attachment(
            G,
            net,
            partial(probe, i),
            {res: f"decoders.{i}.model.{layer}" for res, layer in layers.items() if layer >= 0},
            [f"model_gray.{k}" for k in range(net.config.layers)],
        )
        for i, net in enumerate(D)
    }
