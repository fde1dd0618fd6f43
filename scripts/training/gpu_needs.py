# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What a training iteration of StyleGAN2 asks of a GPU, counted without one."""

from __future__ import annotations

from dataclasses import replace

import torch

from ggdr.scripts.training.hosts import HOSTS
from ggdr.scripts.training.settings_stylegan2 import StyleGAN2Settings, with_every_transform
from ggdr.torch_utils.data.loader import ImageDataset
from ggdr.torch_utils.timing.step_trace import META, StepTrace, trace_step


def trace_settings(settings: StyleGAN2Settings, data: ImageDataset) -> StepTrace:
    """The trace of an iteration of one of the processes.

    Args:
        settings: resolved for GPUs.
        data:     whose images have the size that the networks are for; none is read.
    """
    host = HOSTS[settings.host]
    share = settings.loop.batch // settings.num_processes

    def batch() -> dict[str, torch.Tensor]:
        img = torch.empty([share, data.num_channels, data.resolution, data.resolution], device=META)
        c = torch.empty([share, data.c_dim], device=META)
        found = {"img": img.contiguous(memory_format=torch.channels_last), "c": c}
        if data.use_label_maps:
            found["label_map"] = torch.empty([share, 1, *img.shape[2:]], dtype=torch.uint8, device=META)
        return found

    tf32 = settings.precision != "fp32"  # as `tune_process` has it
    return trace_step(
        lambda group: host.build(settings, data, group), batch, replace(settings.loop, batch=share), tf32=tf32
    )


def gpu_memory_note(settings: StyleGAN2Settings, data: ImageDataset) -> str:
    """How much memory each GPU needs, in one line."""
    peak = trace_settings(with_every_transform(settings), data).peak
    return f"needs about {peak / 2**30:.1f} GiB on each GPU (counted, not measured), and what CUDA and cuDNN take"
