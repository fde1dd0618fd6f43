# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Tiny tasks of the models that make images of label maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from ggdr.scripts.training.regularizer_ggdr import GGDRSettings
from ggdr.scripts.training.regularizers import build_regularizers
from ggdr.torch_utils.data.label_maps import IGNORED, numbered_classes
from ggdr.translation.cc_fpse import CCFPSETask, cc_fpse_attachment
from ggdr.translation.label_maps import one_hot
from ggdr.translation.layout_config import (
    CCFPSEConfig,
    CCFPSEDiscriminatorConfig,
    CCFPSEGeneratorConfig,
    OASISConfig,
    OASISDiscriminatorConfig,
    OASISGeneratorConfig,
)
from ggdr.translation.networks import build_network
from ggdr.translation.oasis import OASISTask, oasis_attachment
from ggdr.translation.spectral_norm import init_xavier
from tests.translation.hosts import BATCH, RES

CLASSES = numbered_classes(3)


@dataclass(frozen=True)
class Model:
    """What the tests need of a model."""

    G: Any
    D: Any
    config: Any
    task: Any
    attachment: Any


MODELS = {
    "oasis": Model(OASISGeneratorConfig, OASISDiscriminatorConfig, OASISConfig, OASISTask, oasis_attachment),
    "cc-fpse": Model(CCFPSEGeneratorConfig, CCFPSEDiscriminatorConfig, CCFPSEConfig, CCFPSETask, cc_fpse_attachment),
}


def layouts(n=BATCH, seed=5):
    """Blocks of classes, some of none, and an image in a colour for each."""
    rng = torch.Generator().manual_seed(seed)
    blocks = torch.randint(4, [n, 1, 4, 4], generator=rng)
    numbers = F.interpolate(torch.where(blocks == 3, IGNORED, blocks).float(), RES).to(torch.uint8)
    a = one_hot(numbers, 3)
    return {"A": a, "B": a * 1.6 - 0.8 + 0.05 * torch.randn(a.shape, generator=rng)}


def of_seed(seed):
    """A batch for each step."""
    return layouts(seed=seed)


def make_networks(model="oasis", norm="batch", seed=0):
    """G of 4, 8, 16 and 32 pixels, and D down to 2, with weights that are large enough to see what they do."""
    G = build_network(MODELS[model].G(3, 3, 4, 5, 3, norm))
    D = build_network(MODELS[model].D(3, 3, 4, 4))
    for net in (G, D):
        init_xavier(net, torch.Generator().manual_seed(seed), gain=0.5)
    return G, D


def make_task(model="oasis", *, weight=10.0, norm="batch", guide=8, config=None, seed=0, group=None, half_dtype=None):
    """A tiny task; weight None is without GGDR."""
    torch.manual_seed(seed)
    G, D = make_networks(model, norm, seed)
    settings = {} if weight is None else {"ggdr": GGDRSettings((guide,), weight)}
    regularizers = build_regularizers(MODELS[model].attachment(G, D, RES), settings)
    config = config or MODELS[model].config(0, 0)
    extra = {"regularizers": regularizers, "seed": seed, "group": group, "half_dtype": half_dtype}
    return MODELS[model].task(G, D, config, CLASSES, **extra)


def phase_of(task, name):
    return next(phase for phase in task.phases if phase.name == name)
