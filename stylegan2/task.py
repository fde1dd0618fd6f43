# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""StyleGAN2-ADA as the training loop sees it: four phases, a moving average, and a controller."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from ggdr.stylegan2.augment.ada import AdaController
from ggdr.stylegan2.augment.pipe import AugmentPipe, Draws
from ggdr.stylegan2.config import LossConfig, OptimConfig
from ggdr.stylegan2.discriminator import Discriminator
from ggdr.stylegan2.generator import Generator
from ggdr.stylegan2.losses import (
    fake_logistic_loss,
    generator_logistic_loss,
    mix_styles,
    path_lengths,
    r1_penalty,
    real_logistic_loss,
)
from ggdr.stylegan2.network_labels import NetworkLabels, labels_to_config
from ggdr.torch_utils.distributed import ProcessGroup
from ggdr.torch_utils.ema import averaged, ema_beta, update_ema
from ggdr.torch_utils.gan import Batch, Panel, Phase, PhaseOutput, Picture
from ggdr.torch_utils.moments import load_moments
from ggdr.torch_utils.regularizers import Reals, Regularizers

LabelSampler = Callable[[int, torch.Generator], Tensor]  # (n, generator) -> labels [n, c_dim] float32


class StyleGAN2Task:
    """Networks, optimisers and losses of one StyleGAN2-ADA run, with regularisers on D's fakes and reals.

    Its batches are {"img": [N, C, H, W] float32 in [-1, 1], "c": [N, c_dim] float32}, and whatever else regularisers on
    reals ask for.

    All random numbers come from two generators, one on the CPU and one on the device, in the same state on every
    process; see Phase.draw.

    Raises ValueError if a regulariser is called as a network or a loss term is.
    """

    def __init__(
        self,
        G: Generator,
        D: Discriminator,
        *,
        loss: LossConfig,
        optim: OptimConfig,
        sample_labels: LabelSampler,
        G_ema: Generator | None = None,
        augment: AugmentPipe | None = None,
        ada: AdaController | None = None,
        regularizers: Regularizers | None = None,
        pictures: Sequence[Picture] = (),
        labels: NetworkLabels | None = None,
        group: ProcessGroup | None = None,
        seed: int = 0,
    ) -> None:
        self.G, self.D = G.train(), D.train()
        self.G_ema = averaged(G) if G_ema is None else G_ema
        self.loss, self.optim = loss, optim
        self.sample_labels, self.augment, self.ada = sample_labels, augment, ada
        self.regularizers = regularizers or Regularizers()
        self.pictures = list(pictures)
        self.labels = labels or NetworkLabels()
        self.group = group or ProcessGroup()
        self.device = self.group.device
        self.cpu_rng = torch.Generator("cpu").manual_seed(seed)
        self.device_rng = torch.Generator(self.device).manual_seed(seed + 1)
        self.pl_mean = torch.zeros([], device=self.device)
        # Of this iteration, on this rank: sum and number of path lengths, sum of ws.
        self._pl_sum, self._pl_count = torch.zeros([], device=self.device), 0
        self._w_sum = torch.zeros([G.w_dim], device=self.device)
        self.phases = self._build_phases()
        self.regularizers.check_names([*self._networks(), *(term for phase in self.phases for term in phase.terms)])
        self.panels = self._build_panels()

    def _build_phases(self) -> list[Phase]:
        """G, G_pl, D, D_r1, in the order in which an iteration runs them."""
        o = self.optim
        for layer in freezable_layers(self.D)[: o.freeze_d]:
            layer.requires_grad_(False)
        D_params = [p for p in self.D.parameters() if p.requires_grad]
        D_params += self.regularizers.parameters()
        G_interval = o.G_reg_interval if self.loss.pl_weight > 0 else None
        D_interval = o.D_reg_interval if self.loss.r1_gamma > 0 else None
        G_opt = _lazy_adam(list(self.G.parameters()), o, G_interval)
        D_opt = _lazy_adam(D_params, o, D_interval)
        G_params = list(self.G.parameters())
        phases = [Phase("G", G_params, G_opt, self._G_losses, ("G",), self._draw_fake)]
        if G_interval is not None:
            phases.append(Phase("G_pl", G_params, G_opt, self._G_pl_losses, ("G_pl",), self._draw_pl, G_interval))
        terms = ("D_fake", "D_real")
        phases.append(Phase("D", D_params, D_opt, self._D_losses, terms, self._draw_D))
        if D_interval is not None:
            phases.append(Phase("D_r1", D_params, D_opt, self._D_r1_losses, ("D_r1",), self._draw_real, D_interval))
        return phases

    def _build_panels(self) -> list[Panel]:
        panels = [Panel(f"score/{name}", name, "Discriminator scores", "mean logit") for name in ("real", "fake")]
        panels += self.regularizers.panels
        if self.augment is not None:
            panels.append(Panel("ada/p", "augment", "ADA probability", "augmentation p", headline=True, axis="zero"))
        signs = "Discriminator signs", "mean sign of the logit"
        panels += [Panel(f"sign/{name}", name, *signs, detail=True) for name in ("real", "fake")]
        if any(phase.name == "G_pl" for phase in self.phases):
            panels.append(Panel("pl/length", "length", "Path length", "mean path length", detail=True))
        return panels

    # Random numbers, for the batch of all processes.

    def _draw_latents(self, n: int) -> dict[str, Any]:
        """Latents, labels, style mixing and noise for n images."""
        G, rng = self.G, self.device_rng
        draws = {
            "z": torch.randn([n, G.z_dim], device=self.device, generator=rng),
            "c": self.sample_labels(n, self.cpu_rng).to(self.device, non_blocking=True),
            "noise": G.synthesis.draw_noise(n, device=self.device, generator=rng),
        }
        if self.loss.style_mixing_prob > 0:
            cutoff = torch.randint(1, G.num_ws, [n], generator=self.cpu_rng)
            mixes = torch.rand([n], generator=self.cpu_rng) < self.loss.style_mixing_prob
            draws["cutoff"] = torch.where(mixes, cutoff, G.num_ws).to(self.device, non_blocking=True)
            draws["z_mix"] = torch.randn([n, G.z_dim], device=self.device, generator=rng)
        return draws

    def _draw_augment(self, n: int) -> Any:
        """Augmentation parameters for n images, independent of p."""
        return None if self.augment is None else self.augment.draw(n, generator=self.cpu_rng)

    def _draw_fake(self, n: int, parts: int) -> dict[str, Any]:
        return {**self._draw_latents(n), "fake_aug": self._draw_augment(n)}

    def _draw_real(self, n: int, parts: int) -> dict[str, Any]:
        return {"real_aug": self._draw_augment(n)}

    def _draw_D(self, n: int, parts: int) -> dict[str, Any]:
        draws = {**self._draw_fake(n, parts), **self._draw_real(n, parts)}
        return {**draws, "regularizers": self.regularizers.draw(n, self.cpu_rng)}

    def _draw_pl(self, n: int, parts: int) -> dict[str, Any]:
        """Path length regularisation works on part of the batch, but on at least one image a share."""
        n = max(n // self.loss.pl_batch_shrink // parts, 1) * parts
        size = [n, self.G.img_channels, self.G.img_resolution, self.G.img_resolution]
        return {
            **self._draw_latents(n),
            "pl_noise": torch.randn(size, device=self.device, generator=self.device_rng),
        }

    # Forward passes.

    def _run_G(self, draws: dict[str, Any], *, track_w: bool = False) -> tuple[Tensor, Tensor]:
        """Images and the ws they came from."""
        z, c = draws["z"], draws["c"]
        if "cutoff" in draws:
            # Both latents of an image at once: a pass of so few numbers costs what its operations cost to start.
            ws, ws_mix = self.G.mapping(torch.cat([z, draws["z_mix"]]), torch.cat([c, c])).chunk(2)
        else:
            ws = self.G.mapping(z, c)
        if track_w:
            self._w_sum += ws[:, 0].detach().sum(dim=0)
        if "cutoff" in draws:
            ws = mix_styles(ws, ws_mix, draws["cutoff"])
        return self.G.synthesis(ws, noise=draws["noise"]), ws

    def _augmentation(self, *draws: Any) -> Any:
        """The augmentation of an image of each of the draws in turn, or None."""
        if self.augment is None:
            return None
        size = (self.G.img_channels, self.G.img_resolution, self.G.img_resolution)
        return self.augment.augmentation(Draws.in_turn(*draws), size)

    def _G_losses(self, batch: Batch, draws: dict[str, Any]) -> PhaseOutput:
        img, _ = self._run_G(draws, track_w=True)
        aug = self._augmentation(draws["fake_aug"])
        logits = self.D(img if aug is None else aug(img), draws["c"])
        return PhaseOutput({"G": generator_logistic_loss(logits)})

    def _G_pl_losses(self, batch: Batch, draws: dict[str, Any]) -> PhaseOutput:
        """Penalises path lengths that differ from their moving average as it stood before this iteration."""
        img, ws = self._run_G(draws)
        lengths = path_lengths(img, ws, draws["pl_noise"])
        self._pl_sum += lengths.detach().sum()
        self._pl_count += len(lengths)
        penalty = (lengths - self.pl_mean).square() * self.loss.pl_weight
        return PhaseOutput({"G_pl": penalty}, {"pl/length": lengths.detach()})

    def _D_losses(self, batch: Batch, draws: dict[str, Any]) -> PhaseOutput:
        # Fakes and reals in turn: one pass of D takes half of the operations of two, and gives the same.
        fakes, reals = slice(0, None, 2), slice(1, None, 2)
        with self.regularizers.watch() as feats:
            with torch.no_grad():
                img, _ = self._run_G(draws)
                img = _in_turn(img, batch["img"])
                aug = self._augmentation(draws["fake_aug"], draws["real_aug"])
                img = img if aug is None else aug(img)
            logits = self.D(img, _in_turn(draws["c"], batch["c"]), num_batches=2)
        fake_logits, real_logits = logits[fakes], logits[reals]
        warp, real_warp = (None, None) if aug is None else (aug[fakes].warp, aug[reals].warp)
        guided = self.regularizers.penalties(
            feats, warp, fakes=fakes, reals=Reals(batch, reals, real_warp), draws=draws.get("regularizers")
        )
        if self.ada is not None:
            self.ada.observe(real_logits.detach())
        losses = {"D_fake": fake_logistic_loss(fake_logits), "D_real": real_logistic_loss(real_logits)}
        logits = {"fake": fake_logits.detach().flatten(), "real": real_logits.detach().flatten()}
        observed = {f"score/{name}": value for name, value in logits.items()}
        observed |= {f"sign/{name}": value.sign() for name, value in logits.items()}
        return PhaseOutput({**losses, **guided.losses}, {**observed, **guided.observed})

    def _D_r1_losses(self, batch: Batch, draws: dict[str, Any]) -> PhaseOutput:
        real_img = batch["img"].detach().requires_grad_()
        aug = self._augmentation(draws["real_aug"])
        logits = self.D(real_img if aug is None else aug(real_img), batch["c"])
        penalty = r1_penalty(logits, real_img, gamma=self.loss.r1_gamma)
        # A zero gradient for what R1 does not depend on (D's last bias, the decoder): Adam steps all that it holds.
        unused = logits.squeeze(1) + sum(p.sum() for p in self.regularizers.parameters())
        return PhaseOutput({"D_r1": penalty + 0 * unused})

    # Between iterations.

    @torch.no_grad()
    def step_end(self, nimg: int, batch_size: int) -> dict[str, float]:
        """Updates the mean w, the mean path length, the moving average of G, and p of the augmentation."""
        o, report = self.optim, {}
        self.G.mapping.w_avg.lerp_(self.group.sum_(self._w_sum) / batch_size, 0.005)
        self._w_sum.zero_()
        if self._pl_count > 0:
            mean = self.group.sum_(self._pl_sum) / (self._pl_count * self.group.world)
            # Where a float16 gradient overflowed, the mean stays, as the weights do.
            self.pl_mean.lerp_(torch.where(mean.isfinite(), mean, self.pl_mean), self.loss.pl_decay)
            self._pl_sum.zero_()
            self._pl_count = 0
        beta = ema_beta(batch_size, nimg, halflife_kimg=o.ema_halflife_kimg, rampup=o.ema_rampup)
        update_ema(self.G_ema, self.G, beta)
        if self.ada is not None:
            self.augment.p = self.ada.update(batch_size, reduce=self.group.sum_)
        if self.augment is not None:
            report["ada/p"] = float(self.augment.p)
        return report

    @torch.no_grad()
    def sample(self, z: Tensor, c: Tensor, *, batch: int = 32) -> Tensor:
        """G_ema's images with constant noise: z [N, z_dim], c [N, c_dim] -> [N, C, H, W] float32 on the CPU."""
        parts = zip(z.split(batch), c.split(batch), strict=True)
        imgs = [self.G_ema(z.to(self.device), c.to(self.device), noise_mode="const").cpu() for z, c in parts]
        return torch.cat(imgs)

    def snapshot(self) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
        """State dicts of G, D, G_ema and the regularisers, the settings that G and D are built from, and labels."""
        networks = {name: net.state_dict() for name, net in self._networks().items()}
        config = {"G": asdict(self.G.config), "D": asdict(self.D.config), **labels_to_config(self.labels)}
        return {**networks, **self.regularizers.state_dicts()}, config

    def state(self) -> dict[str, Any]:
        """Everything that an exact resume needs."""
        networks, _ = self.snapshot()
        return {
            "networks": networks,
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers()],
            "ada": None if self.ada is None else self.ada.state(),
            "pl_mean": self.pl_mean,
            "cpu_rng": self.cpu_rng.get_state(),
            "device_rng": self.device_rng.get_state(),
            "device_type": self.device.type,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Takes back what `state` gave; the device's random state only if the type of device is the same."""
        self.load_networks(state["networks"])
        for optimizer, saved in zip(self._optimizers(), state["optimizers"], strict=True):
            load_moments(optimizer, saved)
        if self.ada is not None and state["ada"] is not None:
            self.ada.load_state(state["ada"])
            self.augment.p = self.ada.p
        self.pl_mean.copy_(state["pl_mean"])
        self.cpu_rng.set_state(state["cpu_rng"])
        if state["device_type"] == self.device.type:
            self.device_rng.set_state(state["device_rng"])

    def load_networks(self, networks: Mapping[str, dict[str, Tensor]]) -> None:
        """Loads G, D, G_ema and the regularisers; all must be in `networks` and fit."""
        for name, net in self._networks().items():
            net.load_state_dict(networks[name], strict=True)
        self.regularizers.load_state_dicts(networks)

    def _networks(self) -> dict[str, torch.nn.Module]:
        return {"G": self.G, "D": self.D, "G_ema": self.G_ema}

    def _optimizers(self) -> list[torch.optim.Optimizer]:
        return list({id(phase.optimizer): phase.optimizer for phase in self.phases}.values())


def _in_turn(fakes: Tensor, reals: Tensor) -> Tensor:
    """[N, ...] twice -> [2N, ...]: a fake, a real, the next fake, ..."""
    return torch.stack([fakes, reals], dim=1).flatten(0, 1)


def freezable_layers(D: Discriminator) -> list[torch.nn.Module]:
    """Layers of D from the highest resolution down, in the order in which `--freezed N` freezes them.

    Source: Mo et al. 2020, "Freeze the Discriminator", arXiv:2002.10964.
    """
    blocks = [getattr(D, f"b{res}") for res in D.resolutions]
    names = ("fromrgb", "conv0", "conv1", "skip")
    return [getattr(block, name) for block in blocks for name in names if hasattr(block, name)]


def _lazy_adam(params: list[torch.nn.Parameter], o: OptimConfig, interval: int | None) -> torch.optim.Adam:
    """Adam whose rate and betas make up for the extra steps of a phase that runs every `interval` iterations.

    Source: Karras et al. 2020, arXiv:1912.04958, Appendix B ("Lazy regularization").
    """
    ratio = 1.0 if interval is None else interval / (interval + 1)
    betas = (o.beta1**ratio, o.beta2**ratio)
    return torch.optim.Adam(params, lr=o.lr * ratio, betas=betas, eps=o.eps, fused=True)
