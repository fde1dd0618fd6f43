# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Frozen networks to predict the features of, as `--features-network` names them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

PATCHES = "tests.frozen_network:patches"


def patches(device: torch.device) -> nn.Module:
    """Images [N, 3, H, W] -> [N, 4, H/4, W/4]."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Conv2d(3, 4, 4, 4).to(device)


def function(device: torch.device):
    """The same shapes, from a function that is no network."""
    return lambda img: nn.functional.avg_pool2d(img.mean(dim=1, keepdim=True), 4).repeat(1, 4, 1, 1)


def vectors(device: torch.device) -> nn.Module:
    """No maps."""
    return nn.Flatten()


def of_four_channels(device: torch.device) -> nn.Module:
    """Takes no RGB images."""
    return nn.Conv2d(4, 4, 1)


def other_weights(device: torch.device) -> nn.Module:
    """As `patches`, trained further."""
    net = patches(device)
    with torch.no_grad():
        net.weight.mul_(2)
    return net


def mean_of_patches(img: Tensor) -> Tensor:
    """What a TorchScript file of these tests holds."""
    return nn.functional.avg_pool2d(img, 4)
