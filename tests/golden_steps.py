# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Single optimiser steps of the training loop from the states that the reference vectors hold, on a CPU or a GPU."""

from __future__ import annotations

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
from tests.reference_vectors import Golden

PHASES = ("G", "D", "D_r1")
GRAD_TOLERANCE, WEIGHT_TOLERANCE = 1e-4, 1e-5  # of a gradient's norm; of a weight after the step


def step_cases(golden: Golden) -> list[tuple[int, str]]:
    """Steps and phases that a file holds."""
    return [(step, name) for step in golden.meta["kept_steps"] for name in PHASES]


def make_task(meta: dict, group: ProcessGroup) -> StyleGAN2Task:
    """A task with the file's settings."""
    size = {key: meta[key] for key in ("img_resolution", "channel_base", "channel_max")}
    latents = {key: meta[key] for key in ("z_dim", "w_dim", "mapping_num_layers")}
    G = Generator(GeneratorConfig(**size, **latents, architecture=meta["architecture_G"]))
    G = G.to(group.device)
    mbstd = meta["mbstd_group_size"]
    D = Discriminator(DiscriminatorConfig(**size, architecture=meta["architecture_D"], mbstd_group_size=mbstd))
    D = D.to(group.device)
    ggdr = GGDR(
        G,
        D,
        guide=f"synthesis.b{meta['guide_resolution']}",
        encoder=[f"b{res}" for res in D.resolutions],
        probe=lambda: D(G(torch.zeros(1, G.z_dim, device=group.device))),
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
        group=group,
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
        state = {
            "step": torch.tensor(step, device=_step_device(optimizer, value)),
            "exp_avg": torch.zeros_like(value),
            "exp_avg_sq": value,
        }
        optimizer.state[params[name]] = state


def named_params(task: StyleGAN2Task, phase: Phase) -> dict[str, Tensor]:
    """The parameters that the phase's optimiser holds, by their published names."""
    modules = (task.G,) if phase.name == "G" else (task.D, decoder_of(task))
    return {name: p for module in modules for name, p in module.named_parameters()}


def _step_device(optimizer: torch.optim.Adam, value: Tensor) -> torch.device:
    """Where Adam counts: beside the weights if it is fused, else on the CPU."""
    return value.device if optimizer.param_groups[0].get("fused") else torch.device("cpu")


def run_step(task: StyleGAN2Task, phase: Phase, real_img: Tensor, z: Tensor, group: ProcessGroup) -> None:
    """One step of `phase` as the loop takes it, with the stored noise for every image."""
    n = len(real_img)
    layers = [layer for block in task.G.synthesis.blocks for layer in block.convs]
    c = torch.zeros(n, 0, device=group.device)
    noise = [layer.noise_const.expand(n, 1, -1, -1) for layer in layers]
    draws = {"z": z, "c": c, "noise": noise, "fake_aug": None, "real_aug": None}
    phase.draw = lambda n, parts: draws
    runner = PhaseRunner(task, LoopConfig(n, n, n, n, 1), group, StatsSum(group.device))
    runner.run(phase, {"img": real_img, "c": c}, 0)


def step_errors(golden: Golden, step: int, name: str) -> dict[str, float]:
    """Of gradients, weights after the step and Adam's state, as multiples of what is allowed."""
    group, at = ProcessGroup(device=golden.device), f"{step}/{name}"
    task = make_task(golden.meta, group)
    phase = next(phase for phase in task.phases if phase.name == name)
    params, count = named_params(task, phase), golden[f"{at}/step"].item()
    load_before(task, golden.below(f"{at}/before"))
    load_adam(phase.optimizer, params, count, golden.below(f"{at}/exp_avg_sq"))
    run_step(task, phase, golden[f"{at}/real"], golden[f"{at}/z"], group)

    grads, after = golden.below(f"{at}/grad"), golden.below(f"{at}/after")
    assert params.keys() == grads.keys() == after.keys()
    found = {}
    for key, p in params.items():
        assert p.grad is not None, f"{key} got no gradient, so that Adam left it out"
        found[f"grad/{key}"] = _over((p.grad - grads[key]).norm(), GRAD_TOLERANCE * grads[key].norm())
        found[f"after/{key}"] = _over((p - after[key]).abs().max(), WEIGHT_TOLERANCE)
        assert phase.optimizer.state[p]["step"] == count + 1, f"Adam's count of {key}"
    if name == "D":
        # The next phase of the same optimiser starts from what this one leaves.
        for key, moment in golden.below(f"{step}/D_r1/exp_avg_sq").items():
            difference = (phase.optimizer.state[params[key]]["exp_avg_sq"] - moment).abs()
            found[f"exp_avg_sq/{key}"] = _over((difference / (1e-9 + 1e-4 * moment.abs())).max(), 1.0)
        assert golden[f"{step}/D_r1/step"] == count + 1
    return found


def _over(error: Tensor, allowed: Tensor | float) -> float:
    """An error as a multiple of what is allowed; infinite if it is no number."""
    error, allowed = error.item(), float(allowed)
    return 0.0 if error == 0 else error / allowed if allowed and error == error else float("inf")
