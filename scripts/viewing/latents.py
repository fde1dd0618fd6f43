# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Latents of seeds and of files, and what pictures call them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ggdr.scripts.options.parameters import bad_parameter
from ggdr.scripts.terminal import say
from ggdr.stylegan2 import Generator
from ggdr.torch_utils.untrusted.npz import NpzError, open_npz
from ggdr.torch_utils.untrusted.text import printable, shortened

NAMES = ("ws", "w")  # of the latents in files, of `ggdr project` and of `ggdr generate --save-w`


@dataclass(frozen=True, eq=False)
class Latent:
    """One latent.

    Attributes:
        name: the seed's number, or the file's name without .npz; with a number if the file holds several.
        seed: None for one of a file.
        ws:   [num_ws, w_dim] float32 on the CPU, of one of a file.
    """

    name: str
    seed: int | None = None
    ws: Tensor | None = None

    @property
    def short_name(self) -> str:
        """What a picture calls it in few letters."""
        return shortened(self.name)

    @property
    def caption(self) -> str:
        """What a picture calls it."""
        return self.short_name if self.seed is None else f"seed {self.seed}"


def read_latents(listed: Sequence[int | Path], network: Path, G: Generator, option: str = "--seeds") -> list[Latent]:
    """The latents of seeds, and all that are in files.

    Raises:
        click.BadParameter: a file cannot be read, or its latents are not of G's kind.
    """
    latents: list[Latent] = []
    for item in listed:
        latents += [Latent(str(item), seed=item)] if isinstance(item, int) else _read_file(item, network, G, option)
    return latents


def _read_file(path: Path, network: Path, G: Generator, option: str) -> list[Latent]:
    where = printable(path)
    try:
        with open_npz(path) as file:
            found = [file[name] for name in NAMES if name in file]
            has_noise = any(name.startswith("noise") for name in file.names)
    except NpzError as error:
        raise bad_parameter(str(error), option) from error
    if not found:
        text = f"{where}: holds no latents: expected ws, as of ggdr project, or w, as of ggdr generate --save-w"
        raise bad_parameter(text, option)
    ws = found[0]
    if ws.ndim != 3 or ws.shape[1:] != (G.num_ws, G.w_dim) or not len(ws) or ws.dtype.kind != "f":
        expected = f"float [N, {G.num_ws}, {G.w_dim}] as those of {network}"
        raise bad_parameter(f"{where}: holds latents {ws.dtype} {list(ws.shape)}, expected {expected}", option)
    if not np.isfinite(ws).all():
        raise bad_parameter(f"{where}: its latents hold NaN or infinite numbers", option)
    if has_noise:
        say(f"note: {where}: its noise is not used, so the image differs from the projected one", err=True)
    tensors = torch.from_numpy(ws.astype(np.float32))
    names = [path.stem] if len(ws) == 1 else [f"{path.stem}-{i}" for i in range(len(ws))]
    return [Latent(name, ws=tensor) for name, tensor in zip(names, tensors, strict=True)]
