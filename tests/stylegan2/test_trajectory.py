# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Whole optimiser steps of the training loop against those of the published GGDR training code."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ggdr import GGDR
from ggdr.stylegan2.config import DiscriminatorConfig, GeneratorConfig, LossConfig, OptimConfig
from ggdr.stylegan2.discriminator import Discriminator
from ggdr.stylegan2.generator import Generator
from ggdr.stylegan2.task import StyleGAN2Task
from ggdr.torch_utils.distributed import ProcessGroup
from ggdr.torch_utils.gan import Phase
from ggdr.torch_utils.loop import LoopConfig, PhaseRunner, StatsSum
from ggdr.torch_utils.regularizers import Regularizers
from tests.reference_vectors import Golden, golden_params

STEPS = [
    pytest.param(file.values[0], step, name, id=f"{file.id}-{step}-{name}")
    for file in golden_params("trajectory_")
    for step in Golden(file.values[0]).meta["kept_steps"]
    for name in ("G", "D", "D_r1")
]


def make_task(meta: dict) -> StyleGAN2Task:
    """A task with the file's settings."""
    size = {key: meta[key] for key in ("img_resolution", "channel_base", "channel_max")}
    latents = {key: meta[key] for key in ("z_dim", "w_dim", "mapping_num_layers")}
    G = Generator(GeneratorConfig(**size, **latents, architecture=meta["architecture_G"]))
    mbstd = meta["mbstd_group_size"]
    D = Discriminator(DiscriminatorConfig(**size, architecture=meta["architecture_D"], mbstd_group_size=mbstd))
    ggdr = GGDR(
        G,
        D,
        guide=f"synthesis.b{meta['guide_resolution']}",
        encoder=[f"b{res}" for res in D.resolutions],
        probe=lambda: D(G(torch.zeros(1, G.z_dim))),
        weight=meta["ggdr_weight"],
    )
    adam = {key: meta[key] for key in ("lr", "beta1", "beta2", "eps", "D_reg_interval")}
    return StyleGAN2Task(
        G,
        D,
        loss=LossConfig(meta["r1_gamma"], style_mixing_prob=0, pl_weight=0),
        optim=OptimConfig(**adam),
        sample_labels=lambda n, rng: torch.zeros(n, 0),
        regularizers=Regularizers([ggdr]),
    )


def decoder_of(task: StyleGAN2Task) -> torch.nn.Module:
    return task.regularizers.by_name["ggdr"].decoder


def load_before(task: StyleGAN2Task, before: dict[str, Tensor]) -> None:
    """Weights of both networks; the published D holds the decoder, ours stands beside it."""
    D = {name.removeprefix("D."): value for name, value in before.items() if name.startswith("D.")}
    own = {name: value for name, value in D.items() if "_dec." not in name}
    task.D.load_state_dict(own, strict=True)
    decoder_of(task).load_state_dict({name: D[name] for name in D.keys() - own.keys()}, strict=True)
    G = {name.removeprefix("G."): value for name, value in before.items() if name.startswith("G.")}
    # Training does not read the mean w, and the file leaves it out.
    task.G.load_state_dict({**G, "mapping.w_avg": task.G.mapping.w_avg}, strict=True)


def load_adam(optimizer: torch.optim.Adam, params: dict[str, Tensor], step: float, exp_avg_sq: dict) -> None:
    """Adam's state as the file has it; with beta1 = 0 the first moment has no effect."""
    for name, value in exp_avg_sq.items():
        state = {"step": torch.tensor(step), "exp_avg": torch.zeros_like(value), "exp_avg_sq": value}
        optimizer.state[params[name]] = state


def named_params(task: StyleGAN2Task, phase: Phase) -> dict[str, Tensor]:
    """The parameters that the phase's optimiser holds, by their published names."""
    modules = (task.G,) if phase.name == "G" else (task.D, decoder_of(task))
    return {name: p for module in modules for name, p in module.named_parameters()}


def run_step(task: StyleGAN2Task, phase: Phase, real_img: Tensor, z: Tensor) -> None:
    """One step of `phase` as the loop takes it, with the stored noise for every image."""
    n = len(real_img)
    layers = [layer for block in task.G.synthesis.blocks for layer in block.convs]
    draws = {
        "z": z,
        "c": torch.zeros(n, 0),
        "noise": [layer.noise_const.expand(n, 1, -1, -1) for layer in layers],
        "fake_aug": None,
        "real_aug": None,
    }
    phase.draw = lambda n, parts: draws
    runner = PhaseRunner(task, LoopConfig(n, n, n, n, 1), ProcessGroup(), StatsSum(torch.device("cpu")))
    runner.run(phase, {"img": real_img, "c": torch.zeros(n, 0)}, 0)


@pytest.mark.parametrize(("path", "step", "name"), STEPS)
def test_one_step_gives_the_published_gradients_weights_and_moments(path, step, name):
    golden, at = Golden(path), f"{step}/{name}"
    task = make_task(golden.meta)
    phase = next(phase for phase in task.phases if phase.name == name)
    params, count = named_params(task, phase), golden[f"{at}/step"].item()
    load_before(task, golden.below(f"{at}/before"))
    load_adam(phase.optimizer, params, count, golden.below(f"{at}/exp_avg_sq"))
    run_step(task, phase, golden[f"{at}/real"], golden[f"{at}/z"])

    grads, after = golden.below(f"{at}/grad"), golden.below(f"{at}/after")
    assert params.keys() == grads.keys() == after.keys()
    for key, p in params.items():
        assert p.grad is not None, f"{key} got no gradient, so that Adam left it out"
        assert (p.grad - grads[key]).norm() <= 1e-4 * grads[key].norm(), f"gradient of {key}"
        assert (p - after[key]).abs().max() <= 1e-5, f"{key} after the step"
        assert phase.optimizer.state[p]["step"] == count + 1, f"Adam's count of {key}"
    if name == "D":
        # The next phase of the same optimiser starts from what this one leaves.
        for key, moment in golden.below(f"{step}/D_r1/exp_avg_sq").items():
            torch.testing.assert_close(phase.optimizer.state[params[key]]["exp_avg_sq"], moment, rtol=1e-4, atol=1e-9)
        assert golden[f"{step}/D_r1/step"] == count + 1
