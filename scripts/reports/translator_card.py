# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What a model card says of a translator, where that differs from a generator of images."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING

from ggdr.scripts.reports.card_facts import Facts
from ggdr.scripts.reports.card_markdown import code, md
from ggdr.scripts.reports.read_run import as_text

if TYPE_CHECKING:
    from ggdr.translation.translator import Translator

TASK, TASK_NAME = "image-to-image", "Image translation"
KINDS = {
    "resnet_generator": "ResNet generator",
    "unet_generator": "U-Net generator",
    "patch_discriminator": "patch discriminator",
    "pixel_discriminator": "pixel discriminator",
    "combogan_generator": "encoders and decoders",
    "combogan_discriminator": "discriminator on luminance and blurred colours",
    "oasis_generator": "generator with SPADE norms",
    "oasis_discriminator": "segmentation U-Net",
    "cc_fpse_generator": "generator with predicted convolutions",
    "cc_fpse_discriminator": "feature pyramid",
}
LOSSES = {
    "gan_loss": "Adversarial loss",
    "l1_weight": "Weight of L1",
    "cycle_weight": "Weight of the cycle",
    "identity_weight": "Weight of identity",
    "latent_weight": "Weight of latent",
    "forward_weight": "Weight of forward",
    "pool_size": "Images in a pool",
    "labelmix_weight": "Weight of LabelMix",
    "feature_weight": "Weight of feature matching",
}
PAPERS = {
    "pix2pix": """@inproceedings{isola2017pix2pix,
  title     = {Image-to-Image Translation with Conditional Adversarial Networks},
  author    = {Isola, Phillip and Zhu, Jun-Yan and Zhou, Tinghui and Efros, Alexei A.},
  booktitle = {Conference on Computer Vision and Pattern Recognition (CVPR)},
  year      = {2017},
  eprint    = {1611.07004}
}""",
    "CycleGAN": """@inproceedings{zhu2017cyclegan,
  title     = {Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks},
  author    = {Zhu, Jun-Yan and Park, Taesung and Isola, Phillip and Efros, Alexei A.},
  booktitle = {International Conference on Computer Vision (ICCV)},
  year      = {2017},
  eprint    = {1703.10593}
}""",
    "ComboGAN": """@inproceedings{anoosheh2018combogan,
  title     = {{ComboGAN}: Unrestrained Scalability for Image Domain Translation},
  author    = {Anoosheh, Asha and Agustsson, Eirikur and Timofte, Radu and Van Gool, Luc},
  booktitle = {CVPR Workshops},
  year      = {2018},
  eprint    = {1712.06909}
}""",
    "OASIS": """@inproceedings{sushko2021oasis,
  title     = {You Only Need Adversarial Supervision for Semantic Image Synthesis},
  author    = {Sushko, Vadim and Sch{\"o}nfeld, Edgar and Zhang, Dan and Gall, Juergen and Schiele, Bernt and
               Khoreva, Anna},
  booktitle = {International Conference on Learning Representations (ICLR)},
  year      = {2021},
  eprint    = {2012.04781}
}""",
    "CC-FPSE": """@inproceedings{liu2019ccfpse,
  title     = {Learning to Predict Layout-to-image Conditional Convolutions for Semantic Image Synthesis},
  author    = {Liu, Xihui and Yin, Guojun and Shao, Jing and Wang, Xiaogang and Li, Hongsheng},
  booktitle = {Advances in Neural Information Processing Systems (NeurIPS)},
  year      = {2019},
  eprint    = {1910.06809}
}""",
}


def model(facts: Facts) -> str:
    """What it was trained as, by its name in PAPERS."""
    return facts.translator.model


def tags(facts: Facts) -> list[str]:
    """For the hub."""
    return ["gan", facts.translator.model.lower(), *(["ggdr"] if facts.has_ggdr else []), TASK, "pytorch"]


def summary(facts: Facts) -> str:
    """What it is, in a paragraph."""
    translator, data = facts.translator, facts.part("training", "data").get("path")
    source, target = directions(facts)[0]
    taken, made = translator.channels(source, target)
    if translator.returns:
        between = f"translates images between {len(translator.domains)} domains: {_domains(facts)}"
    else:
        between = f"turns {_taken(translator, taken)} into {_channels(made)} images"
    with_ggdr = ", trained with generator-guided discriminator regularisation (GGDR)" if facts.has_ggdr else ""
    of_data = "" if data is None else f" Its training images: {code(data)}."
    return (
        f"A {translator.model} translator, which {between}{with_ggdr}. It takes images of any size."
        f"{of_data} Weights are stored as safetensors: loading them runs no code."
    )


def usage(facts: Facts, repo: str, weights: str) -> str:
    """Code and a command."""
    translator = facts.translator
    source, target = directions(facts)[0]
    taken, made = translator.channels(source, target)
    named = f", {json.dumps(source)}, {json.dumps(target)}" if translator.returns else ""
    given = "your image, float32 in [-1, 1]" if translator.labels is None else "1 in the plane of each pixel's class"
    chosen = f" --from {shlex.quote(source)} --to {shlex.quote(target)}" if translator.returns else ""
    return f"""After `pip install -e '.[app]'` in a copy of the GGDR project, and `pip install huggingface_hub`:

```python
import torch
from huggingface_hub import hf_hub_download
from ggdr.translation.snapshot import load_translator

translate = load_translator(hf_hub_download({json.dumps(repo)}, {json.dumps(weights)}))
img = torch.zeros(1, {taken}, 256, 256)  # {given}, of any size
out = translate(img{named})  # [1, {made}, 256, 256] float32 in [-1, 1]
```

Or from the command line, with a downloaded {code(weights)}:

```bash
ggdr translate apply --network {shlex.quote(weights)}{chosen} photos --outdir out
```"""


def network_rows(facts: Facts) -> list[tuple[str, str]]:
    """Its networks."""
    translator = facts.translator
    rows = [("Model", translator.model)]
    if translator.returns:
        rows.append(("Domains", _domains(facts)))
    for name, config in facts.configs.items():
        settings = {key: value for key, value in vars(config).items() if value is not None}
        shown = ", ".join(f"{key.replace('_', ' ')} {as_text(value)}" for key, value in settings.items())
        rows.append((code(name), f"{KINDS.get(config.network, md(config.network))}: {md(shown)}"))
    num = sum(count for name, count in facts.parameters.items() if name.startswith("G"))
    rows.append(("Parameters", f"{num:,} of generators"))
    num = sum(count for name, count in facts.parameters.items() if name.startswith("D"))
    return [*rows, ("", f"{num:,} of discriminators")] if num else rows


def data_rows(facts: Facts) -> list[tuple[str, str]]:
    """What the training set was, beside its file and its fingerprint."""
    data = facts.part("training", "data")
    is_paired = not facts.translator.returns
    rows = [] if data.get("direction") is None else [("Direction", code(data["direction"]))]
    if data.get("num_images") is not None:
        each = data["num_images"]
        shown = ", ".join(map(as_text, each)) if isinstance(each, list) else as_text(each)
        rows.append(("Pairs" if is_paired else "Images of each domain", md(shown)))
    return rows


def training_rows(facts: Facts) -> list[tuple[str, str]]:
    """Crop, and losses beside those that every model has."""
    crop, optim = facts.part("training", "crop"), facts.part("training", "optim")
    rows = []
    if crop.get("size") is not None:
        size = as_text(crop["size"])
        rows.append(("Crops", md(f"{size}x{size} pixels")))
    return rows + [
        (name, md(as_text(optim[key]).replace("_", " "))) for key, name in LOSSES.items() if optim.get(key) is not None
    ]


def limitations(facts: Facts) -> list[str]:
    """What it cannot do."""
    lines = ["It translates images like those it was trained on, with their gaps and biases, and no others."]
    if facts.translator.returns:
        lines.append("It was trained without pairs: what an image should become was not known.")
        lines.append("Such networks hardly change shapes.")
    if any(getattr(config, "dropout", False) for config in facts.configs.values()):
        lines.append("Dropout is on when it is used, so that its images depend on a seed.")
    elif facts.translator.is_random:
        lines.append("A label map has many images, of which a seed chooses one.")
    return lines


def directions(facts: Facts) -> list[tuple[str, str]]:
    """Source and target of all translations to another domain."""
    translator = facts.translator
    return [(a, b) for a in translator.sources for b in translator.targets(a) if a != b]


def _domains(facts: Facts) -> str:
    return ", ".join(map(code, facts.translator.domains))


def _taken(translator: Translator, channels: int) -> str:
    if translator.labels is None:
        return f"{_channels(channels)} images"
    return f"label maps of {translator.labels.num} classes"


def _channels(num: int) -> str:
    return {1: "grey", 3: "colour"}.get(num, f"{num}-channel")
