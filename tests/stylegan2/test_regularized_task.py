# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Several regularisers on one StyleGAN2 run: each is a term of D's loss, and they add up."""

from __future__ import annotations

import pytest
import torch

from ggdr import Contrastive, EMAGuide, RealFeatures, Semantic
from ggdr.scripts.training.regularizer_contrastive import ContrastiveSettings
from ggdr.scripts.training.regularizer_features import FeaturesSettings
from ggdr.scripts.training.regularizer_ggdr import GGDRSettings
from ggdr.scripts.training.regularizer_semantic import SemanticSettings
from ggdr.scripts.training.regularizers import REGULARIZERS, build_regularizers
from ggdr.stylegan2.attachment import attachment
from ggdr.stylegan2.augment.pipe import PIPES, AugmentPipe
from ggdr.stylegan2.config import DiscriminatorConfig, GeneratorConfig, LossConfig, OptimConfig
from ggdr.stylegan2.discriminator import Discriminator
from ggdr.stylegan2.generator import Generator
from ggdr.stylegan2.task import StyleGAN2Task
from ggdr.torch_utils.distributed import ProcessGroup
from ggdr.torch_utils.ema import averaged
from ggdr.torch_utils.loop import LoopConfig, PhaseRunner, StatsSum
from tests.frozen_network import PATCHES

RES, BATCH = 16, 8
SETTINGS = {
    "ggdr": GGDRSettings((8,), 10.0),
    "semantic": SemanticSettings(8, 1.0, 3),
    "ema-guide": GGDRSettings((8,), 10.0),
    "contrastive": ContrastiveSettings((8,), 1.0, 15, 0.07),
    "features": FeaturesSettings(8, 10.0, PATCHES, "", 4, (4, 4)),
}
KINDS = {"semantic": Semantic, "ema-guide": EMAGuide, "contrastive": Contrastive, "features": RealFeatures}


def make_task(*names: str) -> StyleGAN2Task:
    """A tiny task; decoders have the same weights whatever regularisers there are."""
    torch.manual_seed(0)
    size = dict(img_resolution=RES, channel_base=64, channel_max=8)
    G = Generator(GeneratorConfig(**size, z_dim=8, w_dim=8, mapping_num_layers=2))
    D = Discriminator(DiscriminatorConfig(**size, mbstd_group_size=2))
    G_ema = averaged(G)
    regularizers = build_regularizers(attachment(G, D, G_ema), {name: SETTINGS[name] for name in names})
    for item in regularizers:
        torch.manual_seed(1)
        for p in item.parameters():
            torch.nn.init.normal_(p)
    with torch.no_grad():
        for p in G_ema.parameters():
            p.mul_(1.1)
    return StyleGAN2Task(
        G,
        D,
        loss=LossConfig(1.0),
        optim=OptimConfig(0.002, D_reg_interval=2, G_reg_interval=2, ema_halflife_kimg=0.05),
        sample_labels=lambda n, rng: torch.zeros(n, 0),
        G_ema=G_ema,
        augment=AugmentPipe(PIPES["bgc"], 0.5),
        regularizers=regularizers,
    )


def reals():
    rng = torch.Generator().manual_seed(5)
    return {
        "img": torch.rand([BATCH, 3, RES, RES], generator=rng) * 2 - 1,
        "c": torch.zeros(BATCH, 0),
        "label_map": torch.randint(3, [BATCH, 1, RES, RES], generator=rng, dtype=torch.uint8),
    }


def d_step(task, *, rounds=1):
    """Gradients of D after its phase, and what was reported."""
    runner = PhaseRunner(
        task, LoopConfig(1000, BATCH, BATCH // rounds, 100, 1), ProcessGroup(), stats := StatsSum(torch.device("cpu"))
    )
    runner.run(next(phase for phase in task.phases if phase.name == "D"), reals(), 0)
    return torch.cat([p.grad.flatten() for p in task.D.parameters()]), stats.means(ProcessGroup())


def test_every_regulariser_is_here():
    assert SETTINGS.keys() == REGULARIZERS.keys()


@pytest.mark.parametrize("name", KINDS)
def test_each_is_built_reported_and_trained_with_the_discriminator_alone(name):
    task = make_task(name)
    item = task.regularizers.by_name[name]
    grads, reported = d_step(task)
    assert isinstance(item, KINDS[name])
    assert reported[f"{name}/{item.quantity}"] * item.gain == pytest.approx(reported[f"loss_term/{name}"], rel=1e-5)
    assert {panel.name for panel in task.regularizers.panels} == {f"{name}/{item.quantity}"}
    assert all(p.grad is None for net in (task.G, task.G_ema) for p in net.parameters())
    assert all(p.grad.abs().sum() > 0 for p in item.parameters())
    plain, _ = d_step(make_task())
    assert not torch.allclose(grads, plain)


@pytest.mark.parametrize("pair", [("ggdr", "contrastive"), ("semantic", "ema-guide"), ("contrastive", "features")])
def test_two_together_are_the_sum_of_both(pair):
    (plain, without), (one, _), (other, _) = d_step(make_task()), *(d_step(make_task(name)) for name in pair)
    both, reported = d_step(make_task(*pair))
    torch.testing.assert_close(both - plain, one - plain + other - plain, rtol=1e-3, atol=1e-5)
    assert reported["loss_term/D_fake"] == without["loss_term/D_fake"]  # latents and augmentation are the same


@pytest.mark.parametrize("name", ["ema-guide", "contrastive", "features"])
def test_parts_of_a_batch_give_what_the_whole_gives(name):
    (whole, _), (parts, _) = d_step(make_task(name)), d_step(make_task(name), rounds=2)
    torch.testing.assert_close(parts, whole, rtol=1e-3, atol=1e-4)


def test_the_targets_of_reals_are_warped_by_the_draw_of_the_reals():
    task = make_task("features")
    seen = {}
    item = task.regularizers.by_name["features"]
    penalty = item.penalty

    def record(feats, img, warp=None, *, reals=None):
        seen.update(img=img, warp=warp, reals=reals)
        return penalty(feats, img, warp, reals=reals)

    item.penalty = record
    phase = next(phase for phase in task.phases if phase.name == "D")
    draws, batch = phase.draw(BATCH, 1), reals()
    phase.losses(batch, draws)
    ramp = torch.linspace(-1, 1, RES).expand(BATCH, 1, RES, RES)
    aug = task._augmentation(draws["fake_aug"], draws["real_aug"])
    assert torch.equal(seen["img"], batch["img"]) and seen["reals"] == slice(1, None, 2)
    assert torch.equal(seen["warp"](ramp), aug[1::2].warp(ramp)) and not torch.equal(seen["warp"](ramp), ramp)


def test_the_state_of_a_run_with_all_of_them_round_trips():
    one, two = make_task(*SETTINGS), make_task(*SETTINGS)
    d_step(one)
    two.load_state(one.state())
    assert torch.equal(d_step(one)[0], d_step(two)[0])
