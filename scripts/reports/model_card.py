# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""A model card: what a person who finds a network wants to know of it, and only what is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from ggdr.scripts.importing.provenance import imported_from, started_from
from ggdr.scripts.importing.published import ADDRESS, LICENCE
from ggdr.scripts.reports import generator_card, translator_card
from ggdr.scripts.reports.card_facts import Facts
from ggdr.scripts.reports.card_markdown import code, md, section, table, yaml_lines
from ggdr.scripts.reports.card_metrics import evaluation, metric_values
from ggdr.scripts.reports.read_run import as_text, finite_number
from ggdr.torch_utils.runlog import format_time

COMPARABLE_FAKES = 50_000
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
    **generator_card.PAPERS,
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
        _card_of(facts).summary(facts),
        "" if about.samples is None else f"![Samples]({about.samples[0]})\n\n{md(about.samples[1])}",
        section("How to use it", _card_of(facts).usage(facts, about.repo, about.weights)),
        section("The network", table(_network(facts, about))),
        section("Training data", table(_data(facts))),
        section("Training", table(_training(facts))),
        section("Evaluation", evaluation(facts)),
        section("Limitations", "\n".join(f"- {line}" for line in _limitations(facts))),
        section("Provenance", table(_provenance(facts))),
        section("Licence", _licence(facts, about)),
        section("Citation", "\n\n".join(f"```bibtex\n{PAPERS[name]}\n```" for name in _papers(facts))),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _card_of(facts: Facts) -> ModuleType:
    """What is said of this kind of network."""
    return generator_card if facts.translator is None else translator_card


# What the hub reads.


def _front_matter(facts: Facts, about: CardText) -> str:
    """YAML; its values are written as JSON, which is YAML too."""
    card = _card_of(facts)
    fields: dict[str, Any] = {"library_name": "ggdr", "pipeline_tag": card.TASK, "tags": card.tags(facts)}
    if about.license is not None:
        fields["license"] = about.license
    results = [
        {
            "task": {"type": card.TASK, "name": card.TASK_NAME},
            "dataset": {"type": dataset, "name": dataset},
            "metrics": [{"type": key, "name": key, "value": value} for key, value in values.items()],
        }
        for record in facts.metrics
        if (values := metric_values(record)) and (dataset := _dataset_of(facts, record))
    ]
    if results:
        fields["model-index"] = [{"name": about.title, "results": results}]
    return "\n".join(["---", *yaml_lines(fields), "---"])


def _dataset_of(facts: Facts, record: Mapping[str, Any]) -> str | None:
    """Name of the images that a result compares with; of those trained on, if it compares with none."""
    return record["choices"]["reals"].get("path") or facts.part("training", "data").get("path")


# Sections.


def _network(facts: Facts, about: CardText) -> list[tuple[str, str]]:
    held = facts.networks if about.networks is None else about.networks
    in_file = ("In the file", ", ".join(NETWORKS.get(name, code(name)) for name in held))
    return [*_card_of(facts).network_rows(facts), in_file]


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


def _limitations(facts: Facts) -> list[str]:
    lines = _card_of(facts).limitations(facts)
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
    own = _card_of(facts).model(facts)
    return ["ggdr", own] if facts.has_ggdr else [own]
