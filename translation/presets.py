# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Settings of runs of image translation that go together. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class TranslationPreset:
    """What a run takes where nothing else is said.

    Attributes:
        generator:  "unet", "resnet", or the model's name if it has one kind only.
        crop:       side of the images in training, in pixels.
        channels:   feature maps of the first layers of G and D.
        norm:       of both.
        dropout:    whether G has noise.
        epochs:     with a constant learning rate, and with one that falls to 0; None where `kimg` says how long.
        each:       whether `epochs` are for each domain: so many times as many for all together.
        kimg:       length, half of it with a constant rate; None where `epochs` says how long.
        tick_kimg:  between reports.
        snap_ticks: between snapshots.
        workers:    processes that decode images; None: as many as the machine allows.
        optim:      settings of a model of label maps, by name, that are not as `layout_config` has them.
    """

    generator: str
    norm: str
    dropout: bool
    crop: int = 256
    channels: int = 64
    batch: int = 1
    lr: float = 2e-4
    epochs: tuple[int, int] | None = (100, 100)
    each: bool = False
    kimg: float | None = None
    tick_kimg: float = 1.0
    snap_ticks: int = 20
    workers: int | None = None
    optim: Mapping[str, float] = field(default_factory=dict)


# 32x32 images on a CPU, in minutes. Instance norms, since batch norms see other statistics in batches than alone.
_CPU = {"norm": "instance", "crop": 32, "channels": 16, "batch": 4, "epochs": None, "tick_kimg": 0.5, "workers": 0}
# Behind convolutions with spectral norm, each of which passes on half of what it is given, the last maps of OASIS' D
# have an RMS of 0.09. A gain of 8 makes logits of size 1 of them; from 0.02 Adam needs thousands of steps to get there.
_CPU_OASIS = {"G_gain": 1.0, "D_gain": 8.0, "labelmix_weight": 1.0}
_CPU_CC_FPSE = {"G_gain": 1.0}

PRESETS = {
    "pix2pix": {
        # Isola et al. 2016, arXiv:1611.07004, Section 3.3 and Appendix 6.2.
        "paper": TranslationPreset("unet", "batch", dropout=True),
        "cpu": TranslationPreset("unet", dropout=True, lr=1e-3, kimg=12.0, snap_ticks=8, **_CPU),
    },
    "cyclegan": {
        # Zhu et al. 2017, arXiv:1703.10593, Section 4 and Appendix 7.
        "paper": TranslationPreset("resnet", "instance", dropout=False),
        "cpu": TranslationPreset("resnet", dropout=False, lr=1e-3, kimg=12.0, snap_ticks=8, **_CPU),
    },
    "combogan": {
        # Anoosheh et al. 2017, arXiv:1712.06909, Section 4.
        "paper": TranslationPreset("combogan", "instance", dropout=False, epochs=(50, 50), each=True),
        "cpu": TranslationPreset("combogan", dropout=False, lr=1e-3, kimg=12.0, snap_ticks=8, **_CPU),
    },
    "oasis": {
        # Sushko et al. 2020, arXiv:2012.04781, Section 4.
        "paper": TranslationPreset("oasis", "batch", dropout=False, batch=20, lr=1e-4, epochs=(200, 0)),
        "cpu": TranslationPreset("oasis", dropout=False, lr=4e-4, kimg=12.0, snap_ticks=8, optim=_CPU_OASIS, **_CPU),
    },
    "cc-fpse": {
        # Liu et al. 2019, arXiv:1910.06809, Section 4.1; batch and lengths as SPADE's, arXiv:1903.07291, Section 4.
        "paper": TranslationPreset("cc-fpse", "batch", dropout=False, batch=32, lr=1e-4),
        "cpu": TranslationPreset(
            "cc-fpse", dropout=False, lr=2e-4, kimg=12.0, snap_ticks=8, optim=_CPU_CC_FPSE, **_CPU
        ),
    },
}
