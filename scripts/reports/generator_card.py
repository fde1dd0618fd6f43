# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What a model card says of a generator of images, where that differs from a translator."""

from __future__ import annotations

import json
import shlex

from ggdr.scripts.reports.card_facts import Facts
from ggdr.scripts.reports.card_markdown import code
from ggdr.scripts.reports.read_run import as_text, finite_number
from ggdr.stylegan2.network_labels import labels_of_config

TASK, TASK_NAME = "unconditional-image-generation", "Image generation"
MODEL = "stylegan2-ada"
FEW_IMAGES = 10_000
CHANNELS = {1: "grey", 3: "RGB", 4: "RGBA"}
PAPERS = {
    MODEL: """@inproceedings{karras2020ada,
  title     = {Training Generative Adversarial Networks with Limited Data},
  author    = {Karras, Tero and Aittala, Miika and Hellsten, Janne and Laine, Samuli and Lehtinen, Jaakko and
               Aila, Timo},
  booktitle = {Advances in Neural Information Processing Systems (NeurIPS)},
  year      = {2020},
  eprint    = {2006.06676}
}""",
}


def model(facts: Facts) -> str:
    """What it was trained as, by its name in PAPERS."""
    return MODEL


def tags(facts: Facts) -> list[str]:
    """For the hub."""
    return ["gan", "stylegan2", MODEL, *(["ggdr"] if facts.has_ggdr else []), "image-generation", "pytorch"]


def summary(facts: Facts) -> str:
    """What it is, in a paragraph."""
    G, data = facts.G, facts.part("training", "data").get("path")
    kind = f"{_labels_in_words(facts)} of " if G.c_dim else ""
    with_ggdr = ", trained with generator-guided discriminator regularisation (GGDR)" if facts.has_ggdr else ""
    of_data = "" if data is None else f" Its training images: {code(data)}."
    return (
        f"A StyleGAN2 generator of {kind}{G.img_resolution}x{G.img_resolution} {CHANNELS[G.img_channels]} images"
        f"{with_ggdr}.{of_data} Weights are stored as safetensors: loading them runs no code."
    )


def usage(facts: Facts, repo: str, weights: str) -> str:
    """Code and a command."""
    G = facts.G
    examples = labels_of_config(facts.config, G.c_dim).examples
    label = f"c = torch.eye(G.c_dim)[torch.arange(16) % G.c_dim]  # one-hot labels of {G.c_dim} classes\n"
    if examples:
        label = f"c = torch.tensor([{list(examples[0])}]).expand(16, -1)  # a label of the training set\n"
    c, label = (", c", label) if G.c_dim else ("", "")
    shape = f"[16, {G.img_channels}, {G.img_resolution}, {G.img_resolution}]"
    choice = " --class 0" if G.c_dim else ""
    if examples:
        choice = f" --label {','.join(f'{x:.6g}' for x in examples[0])}"
    return f"""After `pip install -e '.[app]'` in a copy of the GGDR project, and `pip install huggingface_hub`:

```python
import torch
from huggingface_hub import hf_hub_download
from ggdr.stylegan2 import load_generator
from ggdr.torch_utils.pictures.images import make_grid, save_image

G = load_generator(hf_hub_download({json.dumps(repo)}, {json.dumps(weights)}))
z = torch.randn(16, G.z_dim)
{label}img = G(z{c}, truncation_psi=0.7, noise_mode="const")  # {shape} float32, about -1 to 1
save_image(make_grid(img, columns=4), "images.png")
```

Or from the command line, with a downloaded {code(weights)}:

```bash
ggdr generate --network {shlex.quote(weights)} --seeds 0-63{choice} --trunc 0.7 --outdir out
```"""


def network_rows(facts: Facts) -> list[tuple[str, str]]:
    """Its networks."""
    G, D = facts.G, facts.D
    discriminator = "" if D is None else f", {D.architecture} discriminator"
    rows = [
        ("Architecture", f"StyleGAN2, {G.architecture} generator{discriminator}"),
        ("Images", f"{G.img_resolution}x{G.img_resolution}, {CHANNELS[G.img_channels]}"),
        ("Labels", _labels_in_words(facts) if G.c_dim else "none: unconditional"),
        ("Latents", f"z {G.z_dim}, w {G.w_dim}, {G.mapping_num_layers} mapping layers"),
        ("Feature maps", f"{G.channels(4)} at 4x4 to {G.channels(G.img_resolution)} at the highest resolution"),
        ("Parameters", f"{facts.parameters['G']:,} of the generator"),
    ]
    if "D" in facts.parameters:
        rows.append(("", f"{facts.parameters['D']:,} of the discriminator"))
    return rows


def limitations(facts: Facts) -> list[str]:
    """What it cannot do."""
    res = f"{facts.G.img_resolution}x{facts.G.img_resolution}"
    lines = [f"It makes {res} images like those it was trained on, with their gaps and their biases, and no others."]
    num = finite_number(facts.part("training", "data").get("num_images"))
    if num is not None and num < FEW_IMAGES:
        lines.append(f"It was trained on {as_text(num)} images only: expect less variety, and images close to those.")
    return lines


def _labels_in_words(facts: Facts) -> str:
    """What a conditional network is given beside latents."""
    labels = labels_of_config(facts.config, facts.G.c_dim)
    return f"labels of {facts.G.c_dim} numbers" if labels.examples else f"{facts.G.c_dim} classes"
