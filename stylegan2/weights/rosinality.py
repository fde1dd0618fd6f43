# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Networks in the checkpoints of rosinality's stylegan2-pytorch and its many descendants.

Such a file is a dict of state dicts: `g_ema` and perhaps `g` and `d`, in names of their own, and perhaps `latent_avg`.
Weights are stored and scaled as in ours, so that only names and some shapes differ; docs/import.md has the table.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ggdr.stylegan2.weights.common import (
    GROUP_SIZE,
    ForeignNetworkError,
    ImportedNetworks,
    State,
    discriminator_config,
    fit_weights,
    generator_config,
    generator_weights,
)
from ggdr.torch_utils.ops.upfirdn2d import setup_filter
from ggdr.torch_utils.untrusted.pickle_reader import Record
from ggdr.torch_utils.untrusted.state_dicts import tensors_of
from ggdr.torch_utils.untrusted.text import printable

Rules = tuple[tuple[str, Callable[[re.Match], str], Callable[[Tensor], Tensor]], ...]

NAMESPACE = "argparse.Namespace"  # holds the options that a run was started with
DEFAULT_LR_MLP = 0.01


def is_rosinality(content: Any) -> bool:
    """Whether the content of a torch file is such a checkpoint."""
    return isinstance(content, dict) and any(isinstance(content.get(key), dict) for key in ("g_ema", "g", "d"))


def from_rosinality(content: Mapping[str, Any]) -> ImportedNetworks:
    """The networks of a checkpoint.

    Raises:
        ForeignNetworkError: they are none that ours can represent.
    """
    result = ImportedNetworks("checkpoint of stylegan2-pytorch (rosinality)", {})
    for key, name in (("g_ema", "G_ema"), ("g", "G")):
        if content.get(key) is not None:
            _add_generator(result, content, key, name)
    if content.get("d") is not None:
        state = _renamed(tensors_of(content["d"], "d"), _discriminator_rules(content["d"]), "d")
        result.D = discriminator_config(state, "d", mbstd_group_size=GROUP_SIZE)
        result.add("D", fit_weights(state, result.D, "d", filled=True))
    result.complete("g_ema", "g")
    p = content.get("ada_aug_p")
    if isinstance(p, float) and 0 <= p <= 1:
        result.facts["augment_p"] = p
    return result


def _add_generator(result: ImportedNetworks, content: Mapping[str, Any], key: str, name: str) -> None:
    tensors = tensors_of(content[key], key)
    state = _renamed(tensors, GENERATOR, key)
    args = content.get("args")
    options = args.state if isinstance(args, Record) and isinstance(args.state, dict) else {}
    lr_mlp = options.get("lr_mlp", DEFAULT_LR_MLP)
    if type(lr_mlp) is not float or not 0 < lr_mlp <= 1:
        raise ForeignNetworkError(f"args.lr_mlp is {printable(lr_mlp, 40)}; expected a number in (0, 1]")
    config = generator_config(state, key, mapping_lr_multiplier=lr_mlp)
    if result.G is not None and result.G != config:
        raise ForeignNetworkError("g and g_ema are of different sizes")
    latent_avg = content.get("latent_avg")
    if isinstance(latent_avg, Tensor) and latent_avg.shape[-1:] == (config.w_dim,) and latent_avg.is_floating_point():
        # Descendants that store one for each layer repeat it.
        state["mapping.w_avg"] = latent_avg.reshape(-1, config.w_dim).float().mean(dim=0)
    weights, has_mean = generator_weights(state, config, key, filled=True)
    if not has_mean:
        result.notes.append(f"the file has no latent_avg; the mean w of {name} was computed from 10,000 latents")
    result.add(name, weights)
    result.G = config


# Names, and what becomes of them. Filters are checked, not kept.


def _same(t: Tensor) -> Tensor:
    return t


def _first(t: Tensor) -> Tensor:
    """Without the leading side of 1 that stands for the batch."""
    return t[0] if t.ndim > 1 and len(t) == 1 else t


def _flat(t: Tensor) -> Tensor:
    return t.reshape(-1)


def _scalar(t: Tensor) -> Tensor:
    return t.reshape([]) if t.numel() == 1 else t


def _map(t: Tensor) -> Tensor:
    """[1, 1, res, res] -> [res, res]."""
    return t[0, 0] if t.shape[:2] == (1, 1) else t


def _conv(m: re.Match) -> str:
    """convs.0 and convs.1 are of 8x8, the next two of 16x16, and so on."""
    i = int(m[1])
    return f"synthesis.b{8 << i // 2}.conv{i % 2}"


def _noise(m: re.Match) -> str:
    """noise_0 is of 4x4, the next two of 8x8, and so on."""
    i = int(m[1]) + 1
    return f"synthesis.b{4 << i // 2}.conv{i % 2}.noise_const"


LAYER_PARTS = {
    "conv.weight": ("weight", _first),
    "conv.modulation.weight": ("affine.weight", _same),
    "conv.modulation.bias": ("affine.bias", _same),
    "noise.weight": ("noise_strength", _scalar),
    "activate.bias": ("bias", _flat),
}
RGB_PARTS = {
    "conv.weight": ("torgb.weight", _first),
    "conv.modulation.weight": ("torgb.affine.weight", _same),
    "conv.modulation.bias": ("torgb.affine.bias", _same),
    "bias": ("torgb.bias", _flat),
}
N = r"(\d{1,2})"
GENERATOR: Rules = (
    (rf"style\.{N}\.(weight|bias)", lambda m: f"mapping.fc{int(m[1]) - 1}.{m[2]}", _same),
    (r"input\.input", lambda m: "synthesis.b4.const", _first),
    *(
        (pattern, lambda m, place=place, ours=ours: f"{place(m)}.{ours}", change)
        for part, (ours, change) in LAYER_PARTS.items()
        for pattern, place in (
            (rf"conv1\.{re.escape(part)}", lambda m: "synthesis.b4.conv1"),
            (rf"convs\.{N}\.{re.escape(part)}", _conv),
        )
    ),
    *(
        (pattern, lambda m, place=place, ours=ours: f"{place(m)}.{ours}", change)
        for part, (ours, change) in RGB_PARTS.items()
        for pattern, place in (
            (rf"to_rgb1\.{re.escape(part)}", lambda m: "synthesis.b4"),
            (rf"to_rgbs\.{N}\.{re.escape(part)}", lambda m: f"synthesis.b{8 << int(m[1])}"),
        )
    ),
    (rf"noises\.noise_{N}", _noise, _map),
)


def _discriminator_rules(state: Mapping[str, Any]) -> Rules:
    """convs.0 reads the image; convs.1 is of its size, convs.2 of half of it, and so on down to 8x8."""
    blocks = [int(m[1]) for name in state if (m := re.match(rf"(?:module\.)?convs\.{N}\.", str(name)))]
    last = max(blocks, default=0)

    def block(layer: str) -> Callable[[re.Match], str]:
        return lambda m: f"b{8 << last - int(m[1])}.{layer}"

    return (
        (r"convs\.0\.0\.weight", lambda m: f"b{4 << last}.fromrgb.weight", _same),
        (r"convs\.0\.1\.bias", lambda m: f"b{4 << last}.fromrgb.bias", _flat),
        (rf"convs\.{N}\.conv1\.0\.weight", block("conv0.weight"), _same),
        (rf"convs\.{N}\.conv1\.1\.bias", block("conv0.bias"), _flat),
        (rf"convs\.{N}\.conv2\.1\.weight", block("conv1.weight"), _same),
        (rf"convs\.{N}\.conv2\.2\.bias", block("conv1.bias"), _flat),
        (rf"convs\.{N}\.skip\.1\.weight", block("skip.weight"), _same),
        (r"final_conv\.0\.weight", lambda m: "b4.conv.weight", _same),
        (r"final_conv\.1\.bias", lambda m: "b4.conv.bias", _flat),
        (r"final_linear\.0\.(weight|bias)", lambda m: f"b4.fc.{m[1]}", _same),
        (r"final_linear\.1\.(weight|bias)", lambda m: f"b4.out.{m[1]}", _same),
    )


def _renamed(state: State, rules: Rules, what: str) -> State:
    """The state dict in our names.

    Raises:
        ForeignNetworkError: a name is not in the table, or a filter is not [1, 3, 3, 1].
    """
    renamed: State = {}
    for name, tensor in state.items():
        if re.fullmatch(r".*\.kernel", name):
            _check_filter(name, tensor, what)
            continue
        for pattern, rename, change in rules:
            if m := re.fullmatch(pattern, name):
                renamed[rename(m)] = change(tensor)
                break
        else:
            raise ForeignNetworkError(
                f"{what} has a tensor {printable(name, 80)}, which StyleGAN2 in the layout of stylegan2-pytorch has not"
            )
    return renamed


def _check_filter(name: str, kernel: Tensor, what: str) -> None:
    """Upsampling layers store four times the filter, to make up for the zeros that they insert."""
    expected = setup_filter([1, 3, 3, 1])
    fits = kernel.shape == expected.shape and any(
        torch.allclose(kernel.float(), expected * gain, atol=1e-6) for gain in (1, 4)
    )
    if not fits:
        raise ForeignNetworkError(
            f"{what} resamples with another filter than [1, 3, 3, 1] ({printable(name, 80)}), and no other is supported"
        )
