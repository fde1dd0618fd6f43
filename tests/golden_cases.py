# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Our StyleGAN2 and GGDR against the reference vectors, on a CPU or a GPU; see tests/golden/README.md.

`python -m tests.golden_cases --device cuda` compares with all files of theirs. It ends with one line of JSON: by file
and array the error as a multiple of what is allowed. It needs no pytest.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from ggdr import FeatureDecoder, FeatureTap, cosine_distance_loss
from ggdr.stylegan2.augment.pipe import Augmentation
from ggdr.stylegan2.config import DiscriminatorConfig, GeneratorConfig
from ggdr.stylegan2.discriminator import Discriminator
from ggdr.stylegan2.generator import Generator
from ggdr.torch_utils.float32 import exact_float32
from ggdr.torch_utils.ops.bias_act import bias_act
from ggdr.torch_utils.ops.upfirdn2d import upfirdn2d
from tests.augment_cases import make_pipe
from tests.golden_steps import step_cases, step_errors
from tests.reference_vectors import Golden, golden_files, relative_error

Errors = dict[str, float]  # by name of an array, as multiples of what is allowed


def generator_errors(golden: Golden) -> Errors:
    """Mapping, truncation and images."""
    G = Generator(GeneratorConfig(**_pick(golden.meta, GeneratorConfig))).eval().to(golden.device)
    G.load_state_dict(golden.below("state"), strict=True)
    with torch.no_grad():
        ws = G.mapping(golden["z"], golden["c"])
        truncation = {k: golden.meta[k] for k in ("truncation_psi", "truncation_cutoff")}
        ws_truncated = G.mapping(golden["z"], golden["c"], **truncation)
        found = {
            "ws": ws,
            "ws_truncated": ws_truncated,
            "img_noise_const": G.synthesis(ws, noise_mode="const"),
            "img_truncated_noise_none": G.synthesis(ws_truncated, noise_mode="none"),
        }
    return {name: relative_error(value, golden[name]) for name, value in found.items()}


def discriminator_errors(golden: Golden) -> Errors:
    """Logits, R1, and the double backward of R1."""
    D = Discriminator(DiscriminatorConfig(**_pick(golden.meta, DiscriminatorConfig))).to(golden.device)
    D.load_state_dict(golden.below("state"), strict=True)
    img = golden["img"].requires_grad_()
    logits = D(img, golden["c"])
    (img_grad,) = torch.autograd.grad(logits.sum(), img, create_graph=True)
    penalty = img_grad.square().sum([1, 2, 3])
    penalty.mean().backward()
    found = {"logits": logits, "img_grad": img_grad, "r1_penalty": penalty}
    params = dict(D.named_parameters())
    found |= {f"r1_param_grad/{name}": params[name].grad for name in golden.below("r1_param_grad")}
    return {name: relative_error(value, golden[name]) for name, value in found.items()}


def ggdr_errors(golden: Golden) -> Errors:
    """Logits, what the decoder predicts, the loss, and its gradients."""
    meta, state = golden.meta, golden.below("state")
    keys = ("img_resolution", "img_channels", "c_dim", "channel_base", "channel_max", "mbstd_group_size")
    D = Discriminator(DiscriminatorConfig(**{key: meta[key] for key in keys})).to(golden.device)
    D.load_state_dict({k: v for k, v in state.items() if "_dec." not in k}, strict=True)
    encoder = {f"b{r}": (D.config.channels(r // 2), r // 2, r // 2) for r in D.resolutions}
    # Every level is declared a guide, so that each level's output can be compared.
    levels = {int(k): tuple(v.shape[1:]) for k, v in golden.below("decoded").items()}
    decoder = FeatureDecoder(encoder, {f"guide{r}": shape for r, shape in levels.items()}).to(golden.device)
    decoder.load_state_dict({k: v for k, v in state.items() if "_dec." in k}, strict=True)
    with FeatureTap(D, decoder.encoder_names) as feats:
        found = {"logits": D(golden["img"])}
    pred = decoder(feats)
    found |= {f"decoded/{res}": pred[f"guide{res}"] for res in levels}
    loss = meta["weight"] * cosine_distance_loss(pred[f"guide{meta['guide_resolution']}"], golden["target"]).mean()
    found["loss"] = loss
    loss.backward()
    grads = {k: p.grad for net in (D, decoder) for k, p in net.named_parameters() if p.grad is not None}
    assert grads.keys() == golden.below("loss_param_grad").keys()
    found |= {f"loss_param_grad/{name}": grad for name, grad in grads.items()}
    return {name: relative_error(value, golden[name]) for name, value in found.items()}


def augment_errors(golden: Golden) -> Errors:
    """Each transform, at each percentile of its draws."""
    img, found = golden["img"], {}
    for name in golden.meta["pipes"]:
        for percentile in golden.meta["percentiles"]:
            key = f"{name}/{percentile}"
            found[key] = relative_error(at_percentile(name, percentile, tuple(img.shape))(img), golden[key])
    return found


def upfirdn2d_errors(golden: Golden) -> Errors:
    """Each case of upfirdn2d."""
    found = {}
    for i, case in enumerate(golden.meta["upfirdn2d"]):
        y = upfirdn2d(
            golden[f"{i}/x"],
            golden[f"{i}/f"],
            up=tuple(case["up_xy"]),
            down=tuple(case["down_xy"]),
            padding=tuple(case["padding_x0x1y0y1"]),
            flip_filter=case["flip_filter"],
            gain=case["gain"],
        )
        found[f"upfirdn2d case {i} {case}"] = relative_error(y, golden[f"{i}/y"])
    return found


def bias_act_errors(golden: Golden) -> Errors:
    """Each case of bias_act."""
    found = {}
    for i, case in enumerate(golden.meta["bias_act"]):
        y = bias_act(golden[f"bias_act/{i}/x"], golden[f"bias_act/{i}/b"], act=case["act"], clamp=case["clamp"])
        found[f"bias_act case {i} {case}"] = relative_error(y, golden[f"bias_act/{i}/y"])
    return found


def ops_errors(golden: Golden) -> Errors:
    """Both operations."""
    return upfirdn2d_errors(golden) | bias_act_errors(golden)


def trajectory_errors(golden: Golden) -> Errors:
    """Gradients, weights and Adam's state of every step that is kept."""
    found = {}
    for step, name in step_cases(golden):
        found |= {f"{step}/{name}/{key}": error for key, error in step_errors(golden, step, name).items()}
    return found


def at_percentile(name: str, percentile: float, shape: tuple[int, ...], **changed: float) -> Augmentation:
    """A transform with all draws at a percentile, but for those given by name."""
    pipe = make_pipe(name)
    draws = pipe.draw(shape[0], percentile=percentile)
    return pipe.augmentation(draws.replace(**changed), shape[1:])


def _pick(meta: dict, config_type: type) -> dict:
    return {k: v for k, v in meta.items() if k in config_type.__dataclass_fields__}


CASES: dict[str, Callable[[Golden], Errors]] = {
    "generator_": generator_errors,
    "discriminator_": discriminator_errors,
    "ggdr_": ggdr_errors,
    "augment_": augment_errors,
    "ops": ops_errors,
    "trajectory_": trajectory_errors,
}


def compare(path: Path, device: str) -> Errors:
    """All arrays of a file against what we compute on a device, in float32 without TF32."""
    (prefix,) = (prefix for prefix in CASES if path.name.startswith(prefix))
    with exact_float32(torch.device(device)):
        return CASES[prefix](Golden(path, device))


def reference_files() -> list[Path]:
    """All that a case is for."""
    return [path for prefix in CASES for path in golden_files(f"{prefix}*.npz")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    device = parser.parse_args().device
    found = {}
    for path in reference_files():
        print(f"{path.name} on {device}", file=sys.stderr, flush=True)
        found[path.stem] = compare(path, device)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
