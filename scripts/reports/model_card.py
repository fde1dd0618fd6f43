# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""A model card: what a person who finds a network wants to know of it, and only what is known."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ggdr.scripts.importing.provenance import imported_from, started_from
from ggdr.scripts.importing.published import ADDRESS, LICENCE
from ggdr.scripts.reports import translator_card
from ggdr.scripts.reports.card_facts import Facts, is_plain
from ggdr.scripts.reports.card_markdown import code, md, section, table, yaml_lines
from ggdr.scripts.reports.read_run import as_text, finite_number
from ggdr.stylegan2.network_labels import labels_of_config
from ggdr.torch_utils.runlog import format_time

FEW_IMAGES = 10_000
COMPARABLE_FAKES = 50_000
CHANNELS = {1: "grey", 3: "RGB", 4: "RGBA"}
AUGMENTATIONS = {"ada": "adaptive (ADA)", "fixed": "fixed", "noaug": "none"}
PRECISIONS = {"fp32": "float32", "fp16": "float16 at the highest resolutions", "bf16": "bfloat16 at the highest"}
NETWORKS = {"G_ema": "averaged generator", "G": "generator", "D": "discriminator", "ggdr": "GGDR decoder"}
PAPERS = {
    "ggdr": """@inproceedings{lee2022ggdr,
  title     = {Generator Knows What Discriminator Should Learn in Unconditional {GAN}s},
  author    = {Lee, Gayoung and Kim, Hyunsu and Kim, Junho and Kim, Seonghyeon and Ha, Jung-Woo and Choi, Yunjey},
  booktitle = {European Conference on Computer Vision (ECCV)},
  year      = {2022},
  eprint    = {2207.13320}
}""",
    "stylegan2-ada": """@inproceedings{karras2020ada,
  title     = {Training Generative Adversarial Networks with Limited Data},
  author    = {Karras, Tero and Aittala, Miika and Hellsten, Janne and Laine, Samuli and Lehtinen, Jaakko and
               Aila, Timo},
  booktitle = {Advances in Neural Information Processing Systems (NeurIPS)},
  year      = {2020},
  eprint    = {2006.06676}
}""",
    **translator_card.PAPERS,
}


@dataclass(frozen=True)
class CardText:
    """What the author of a card chooses.

    Attributes:
        title:    its heading.
        repo:     USER/NAME on the hub, in the code that loads the network.
        weights:  name of the network's file there.
        license:  identifier as the hub knows it, such as cc-by-4.0; None: not chosen yet.
        samples:  file and description of the pictures; None: without.
        networks: state dicts in that file; None: those of the snapshot.
    """

    title: str
    repo: str = "USER/NAME"
    weights: str = "model.safetensors"
    license: str | None = None
    samples: tuple[str, str] | None = None
    networks: Sequence[str] | None = None


def model_card(facts: Facts, about: CardText) -> str:
    """The card in Markdown, with the hub's front matter."""
    sections = [
        _front_matter(facts, about),
        f"# {md(about.title)}",
        _summary(facts),
        "" if about.samples is None else f"![Samples]({about.samples[0]})\n\n{md(about.samples[1])}",
        section("How to use it", _usage(facts, about)),
        section("The network", table(_network(facts, about))),
        section("Training data", table(_data(facts))),
        section("Training", table(_training(facts))),
        section("Evaluation", _evaluation(facts)),
        section("Limitations", "\n".join(f"- {line}" for line in _limitations(facts))),
        section("Provenance", table(_provenance(facts))),
        section("Licence", _licence(facts, about)),
        section("Citation", "\n\n".join(f"```bibtex\n{PAPERS[name]}\n```" for name in _papers(facts))),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


# What the hub reads.


def _front_matter(facts: Facts, about: CardText) -> str:
    """YAML; its values are written as JSON, which is YAML too."""
    task, name = "unconditional-image-generation", "Image generation"
    tags = ["gan", "stylegan2", "stylegan2-ada", *(["ggdr"] if facts.has_ggdr else []), "image-generation", "pytorch"]
    if facts.translator is not None:
        task, name, tags = translator_card.TASK, "Image translation", translator_card.tags(facts)
    fields: dict[str, Any] = {"library_name": "ggdr", "pipeline_tag": task, "tags": tags}
    if about.license is not None:
        fields["license"] = about.license
    results = [
        {
            "task": {"type": task, "name": name},
            "dataset": {"type": dataset, "name": dataset},
            "metrics": [{"type": key, "name": key, "value": value} for key, value in values.items()],
        }
        for record in facts.metrics
        if (values := _values(record)) and (dataset := _dataset_of(facts, record))
    ]
    if results:
        fields["model-index"] = [{"name": about.title, "results": results}]
    return "\n".join(["---", *yaml_lines(fields), "---"])


def _dataset_of(facts: Facts, record: Mapping[str, Any]) -> str | None:
    """Name of the images that a result compares with; of those trained on, if it compares with none."""
    return record["choices"]["reals"].get("path") or facts.part("training", "data").get("path")


def _values(record: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name, value in record["results"].items() if finite_number(value) is not None}


# Sections.


def _summary(facts: Facts) -> str:
    if facts.translator is not None:
        return translator_card.summary(facts)
    G, data = facts.G, facts.part("training", "data").get("path")
    kind = f"{_labels_in_words(facts)} of " if G.c_dim else ""
    with_ggdr = ", trained with generator-guided discriminator regularisation (GGDR)" if facts.has_ggdr else ""
    of_data = "" if data is None else f" Its training images: {code(data)}."
    return (
        f"A StyleGAN2 generator of {kind}{G.img_resolution}x{G.img_resolution} {CHANNELS[G.img_channels]} images"
        f"{with_ggdr}.{of_data} Weights are stored as safetensors: loading them runs no code."
    )


def _labels_in_words(facts: Facts) -> str:
    """What a conditional network is given beside latents."""
    labels = labels_of_config(facts.config, facts.G.c_dim)
    return f"labels of {facts.G.c_dim} numbers" if labels.examples else f"{facts.G.c_dim} classes"


def _usage(facts: Facts, about: CardText) -> str:
    if facts.translator is not None:
        return translator_card.usage(facts, about.repo, about.weights)
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
    weights = shlex.quote(about.weights)
    return f"""After `pip install -e '.[app]'` in a copy of the GGDR project, and `pip install huggingface_hub`:

```python
import torch
from huggingface_hub import hf_hub_download
from ggdr.stylegan2 import load_generator
from ggdr.torch_utils.pictures.images import make_grid, save_image

G = load_generator(hf_hub_download({json.dumps(about.repo)}, {json.dumps(about.weights)}))
z = torch.randn(16, G.z_dim)
{label}img = G(z{c}, truncation_psi=0.7, noise_mode="const")  # {shape} float32, about -1 to 1
save_image(make_grid(img, columns=4), "images.png")
```

Or from the command line, with a downloaded {code(about.weights)}:

```bash
ggdr generate --network {weights} --seeds 0-63{choice} --trunc 0.7 --outdir out
```"""


def _network(facts: Facts, about: CardText) -> list[tuple[str, str]]:
    held = facts.networks if about.networks is None else about.networks
    in_file = ("In the file", ", ".join(NETWORKS.get(name, code(name)) for name in held))
    if facts.translator is not None:
        return [*translator_card.network_rows(facts), in_file]
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
    return [*rows, in_file]


def _shown(value: Any) -> str:
    return md(as_text(value))


def _data(facts: Facts) -> list[tuple[str, str]]:
    data = facts.part("training", "data")
    shown = {
        "path": ("File", code),
        "num_images": ("Images", _shown),
        "max_images": ("Subset", lambda x: f"{_shown(x)} images at most"),
        "mirror": ("Mirrored", lambda x: "yes: every image also as its x-flip" if x else "no"),
        "use_labels": ("Labels", lambda x: "used" if x else "not used"),
        "fingerprint": ("Fingerprint", code),
    }
    if facts.translator is not None:
        del shown["num_images"]  # pairs, or of each domain
    rows = [(name, show(data[key])) for key, (name, show) in shown.items() if data.get(key) is not None]
    return rows if facts.translator is None else [*rows, *translator_card.data_rows(facts)]


def _training(facts: Facts) -> list[tuple[str, str]]:
    training, imported = facts.part("training"), imported_from(facts.config)
    loop, augment, loss, optim = (facts.part("training", part) for part in ("loop", "augment", "loss", "optim"))
    rows: list[tuple[str, str]] = []

    def add(name: str, part: Mapping[str, Any], key: str, shown: Callable[[Any], str] = _shown) -> None:
        if part.get(key) is not None:
            rows.append((name, shown(part[key])))

    if facts.nimg is not None:
        planned = finite_number(loop.get("total_nimg"))
        of = f" of the {planned / 1000:g} planned" if planned and planned > facts.nimg else ""
        rows.append(("Images shown", f"{facts.nimg:,} ({facts.nimg / 1000:g} kimg{of})"))
    add("Preset", training, "cfg", code)
    add("Batch", loop, "batch")
    add("Learning rate", optim, "lr")
    add("R1 gamma", loss, "r1_gamma")
    add("Path length weight", loss, "pl_weight")
    add("Style mixing", loss, "style_mixing_prob")
    add("Half-life of the averaged weights, kimg", optim, "ema_halflife_kimg")
    if facts.translator is not None:
        rows += translator_card.training_rows(facts)
    rows += _regularizers(facts)
    mode = str(augment.get("mode"))
    add("Augmentation", augment, "mode", lambda _: AUGMENTATIONS.get(mode, md(mode)))
    if mode != "noaug":
        add("Augmentation pipeline", augment, "pipe", code)
    if mode == "fixed":
        add("Augmentation probability", augment, "p")
    add("Augmentation probability at the end", imported, "augment_p")
    add("Precision", training, "precision", lambda x: PRECISIONS.get(str(x), md(x)))
    add("Started from", training, "init_snapshot", code)
    add("Seed", training, "seed")
    if facts.seconds is not None:
        rows.append(("Duration", f"{format_time(facts.seconds)}, without snapshots and metrics"))
    rows += _reported(facts)
    return rows + [(md(name[:1].upper() + name[1:]), md(value)) for name, value in facts.machine]


def _regularizers(facts: Facts) -> list[tuple[str, str]]:
    """A row for each regulariser of the discriminator, and whether GGDR is one of them."""
    rows, names = [], facts.nested("training", "regularizers")
    for name in names or {}:
        settings = facts.part("training", "regularizers", name)
        # Of an imported network the decoder is known, but not its weight: a snapshot has ours there, to go on with.
        weight = f"weight {as_text(settings.pop('weight', None))}, " if facts.nested("training", "loop") else ""
        if name == "ggdr":
            guides = settings.get("guide_res", [])
            layers = ", ".join(f"{res}x{res}" for res in (guides if isinstance(guides, list) else [guides]))
            rows.append(("GGDR", md(f"{weight}guided by the features at {layers or 'unknown layers'}")))
        else:
            rows.append((md(f"Regulariser {name}"), md(weight + as_text(settings))))
    if names is not None and "ggdr" not in names:
        rows.append(("GGDR", "not used"))
    return rows


def _reported(facts: Facts) -> list[tuple[str, str]]:
    """A row for each plot of values that headline the run."""
    plots: dict[str, dict[str, str]] = {}
    for panel, value in facts.reported:
        plots.setdefault(panel.group, {})[panel.label] = f"{value:.3g}"
    rows = []
    for group, values in plots.items():
        shown = values.values() if len(values) == 1 else map(" ".join, values.items())
        rows.append((md(f"{group} at the end"), md("; ".join(shown))))
    return rows


def _evaluation(facts: Facts) -> str:
    if not facts.metrics:
        return "Not evaluated: no metric was computed of this snapshot."
    lines = ["| metric | value | computed on |", "| --- | --- | --- |"]
    for record in facts.metrics:
        values = {name.removeprefix(record["metric"]).strip("_"): value for name, value in _values(record).items()}
        shown = "; ".join(f"{name} {value:.5g}".strip() for name, value in values.items())
        lines.append(f"| {code(record['metric'])} | {md(shown)} | {_how(record)} |")
    warnings = dict.fromkeys(text for record in facts.metrics for text in record["warnings"])
    notes = "\n".join(f"- {md(text)}" for text in warnings)
    return "\n".join(lines) + (f"\n\nWhat to mind when comparing:\n\n{notes}" if notes else "")


def _how(record: Mapping[str, Any]) -> str:
    """The choices that a result depends on, as its line records them."""
    choices = record["choices"]
    fakes, reals = choices["fakes"], choices["reals"]
    parts = []
    if "num_fakes" in choices:
        parts.append(f"{as_text(choices['num_fakes'])} fakes")
    if fakes.get("psi") is not None:
        parts.append("not truncated" if fakes["psi"] == 1 else f"truncated, psi {as_text(fakes['psi'])}")
    if fakes.get("noise_mode"):
        parts.append(f"{fakes['noise_mode']} noise")
    if fakes.get("labels"):
        parts.append(f"labels {fakes['labels']}")
    if reals:
        num = f"{as_text(choices['num_reals'])} " if "num_reals" in choices else ""
        flips = {"True": " with flips", "False": " without flips"}.get(str(reals.get("flips")), "")
        hashed = f" ({reals['sha256']})" if reals.get("sha256") else ""
        parts.append(f"{num}reals of {reals.get('path', 'stored statistics')}{hashed}{flips}")
    known = {"mode": "mode {}", "resize": "{}", "quantisation": "{}", "seed": "seed {}"}
    parts += [form.format(as_text(choices[key])) for key, form in known.items() if choices.get(key) is not None]
    if choices.get("cov_ddof") is not None:
        parts.append(f"covariance / {'N' if choices['cov_ddof'] == 0 else 'N - 1'}")
    if choices.get("detector"):
        parts.append(f"{choices['detector']} {choices.get('detector_hash', '')}".strip())
    shown = {"mode", "num_fakes", "num_reals", "seed", "quantisation", "fakes", "reals", "versions", "cov_ddof"}
    shown |= {"detector", "detector_hash", "resize"}
    parts += [
        f"{key.replace('_', ' ')} {as_text(value)}"
        for key, value in choices.items()
        if key not in shown and is_plain(value)
    ]
    return md("; ".join(parts))


def _limits_of_generator(facts: Facts) -> list[str]:
    res = f"{facts.G.img_resolution}x{facts.G.img_resolution}"
    lines = [f"It makes {res} images like those it was trained on, with their gaps and their biases, and no others."]
    num = finite_number(facts.part("training", "data").get("num_images"))
    if num is not None and num < FEW_IMAGES:
        lines.append(f"It was trained on {as_text(num)} images only: expect less variety, and images close to those.")
    return lines


def _limitations(facts: Facts) -> list[str]:
    lines = _limits_of_generator(facts) if facts.translator is None else translator_card.limitations(facts)
    lines.append("Whether it reproduces training images was not examined.")
    if not facts.metrics:
        lines.append("No metric was computed: how good and how varied its images are is not known.")
    counts = [record["choices"].get("num_fakes") for record in facts.metrics]
    are_few = any(finite_number(count) is not None and count < COMPARABLE_FAKES for count in counts)
    if facts.translator is None and are_few:
        lines.append("Some metrics used fewer than 50,000 images; they do not compare with published values.")
    if any(record["metric"].startswith(("fd_", "kd_", "fdinf_", "intra_fd_")) for record in facts.metrics):
        lines.append("Metrics named `fd` or `kd` are on other features than FID and KID: they do not compare.")
    planned = finite_number(facts.part("training", "loop").get("total_nimg"))
    if planned and facts.nimg is not None and facts.nimg < planned:
        lines.append(f"Training had got to {facts.nimg / 1000:g} of {planned / 1000:g} kimg when it was written.")
    return lines


def _provenance(facts: Facts) -> list[tuple[str, str]]:
    rows = [("Snapshot", code(facts.file)), ("Its SHA-256", code(facts.sha256))]
    if facts.run is not None:
        rows.append(("Run", code(facts.run)))
    for label, source in (
        ("Imported from", imported_from(facts.config)),
        ("Training began with", started_from(facts.config)),
    ):
        names = {"file": label, "sha256": "SHA-256 of that file", "format": "Its format", "url": "Its address"}
        rows += [(name, code(source[key])) for key, name in names.items() if key in source]
        if source.get("url", "").startswith(ADDRESS):
            rows.append(("Its licence", LICENCE))
    best = facts.part("best")
    if best.get("metric"):
        rows.append(("Chosen as", f"the best of its run by {code(best['metric'])}"))
    return rows


def _licence(facts: Facts, about: CardText) -> str:
    if about.license is not None:
        return md(about.license)
    text = (
        "> **No licence has been chosen yet** (`license:` at the top of this file), so nobody can know what they may "
    )
    text += "do with these weights. What can be allowed depends on the licences of the training images"
    if facts.part("source"):
        return text + ", and of the weights that were imported."
    started = facts.part("training").get("init_snapshot") is not None
    return text + (", and of the weights that training started from." if started else ".")


def _papers(facts: Facts) -> Sequence[str]:
    own = "stylegan2-ada" if facts.translator is None else facts.translator.model
    return ["ggdr", own] if facts.has_ggdr else [own]
