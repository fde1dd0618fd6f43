# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What GGDR does to discriminators of several sizes: gradients in their encoder, accuracy, and classes of the samples.

It looks at the last snapshots of studies on CIFAR-10 (`ggdr compare`), whose variants are sizes of networks and weights
of GGDR. Weight 0 trains the decoder alone; of runs without GGDR there is no gradient of it to look at.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor

from benchmarks.cifar_classifier import Classifier, class_entropy, load_classifier
from benchmarks.judges_order_images import moments
from ggdr import GGDR
from ggdr.metrics.fid import frechet_distance
from ggdr.metrics.mind import mind
from ggdr.scripts.training.regularizer_ggdr import GGDRKind
from ggdr.scripts.training.snapshot_files import PATTERN, snapshots_in
from ggdr.stylegan2.attachment import attachment
from ggdr.stylegan2.discriminator import Discriminator
from ggdr.stylegan2.generator import Generator
from ggdr.stylegan2.losses import fake_logistic_loss, real_logistic_loss
from ggdr.stylegan2.snapshot import discriminator_of, generator_of
from ggdr.torch_utils.checkpoint import load_snapshot
from ggdr.torch_utils.data.dataset import ImageDataset
from ggdr.torch_utils.pictures.images import from_u8, to_u8

BATCH = 16  # of a training step, for gradients
NUM_STEPS = 32  # batches that gradients are looked at on
NUM_IMAGES = 2000  # of each kind, for D's accuracy
NUM_FAKES, NUM_REALS = 5000, 10000  # for the classifier's judgement

COLUMNS = {
    "base": "{}",
    "variant": "{}",
    "weight": "{:g}",
    "seed": "{}",
    "adversarial": "{:.3f}",  # RMS over batches of the norm of the gradient in the encoder
    "ggdr": "{:.3f}",  # of weight x distance
    "ratio": "{:.2f}",
    "cosine": "{:+.2f}",  # between the two
    "distance": "{:.3f}",
    "margin": "{:.2f}",
    "real_train": "{:.1%}",
    "real_test": "{:.1%}",
    "fake": "{:.1%}",
    "fd_lite": "{:.0f}",
    "mind_lite": "{:.0f}",
    "fd_classes": "{:.1f}",
    "mind_classes": "{:.1f}",
    "entropy": "{:.2f}",
}


class Networks:
    """G, its average, D and GGDR of a snapshot, ready for gradients in D.

    Attributes:
        ggdr, weight: None of a run without it.
    """

    def __init__(self, path: Path) -> None:
        snapshot = load_snapshot(path)
        self.G_ema, self.G = generator_of(snapshot), generator_of(snapshot)
        self.G.load_state_dict(snapshot.networks["G"])
        self.D = discriminator_of(snapshot).requires_grad_(True)
        self.ggdr: GGDR | None = None
        self.weight: float | None = None
        if "ggdr" in snapshot.networks:
            kind = GGDRKind()
            settings = kind.read(snapshot.config["training"]["regularizers"]["ggdr"])
            self.ggdr, self.weight = kind.build(attachment(self.G, self.D), settings), settings.weight
            self.ggdr.load_state_dict(snapshot.networks["ggdr"])
            self.ggdr.weight = 1.0  # also of a probe, whose penalty would not reach D


def fakes_of(G: Generator, num: int, rng: torch.Generator, batch: int = 100) -> Tensor:
    """[num, 3, res, res] float32."""
    parts = torch.randn(num, G.z_dim, generator=rng).split(batch)
    return torch.cat([G(z, torch.zeros(len(z), G.c_dim)) for z in parts])


def encoder_gradients(nets: Networks, reals_u8: Tensor, rng: torch.Generator) -> dict[str, float]:
    """Norms of what the adversarial loss and weight x distance send into the part of D that both train.

    Empty without GGDR.
    """
    if nets.ggdr is None:
        return {}
    D, rows = nets.D, []
    params = list(D.parameters())
    for step in range(NUM_STEPS):
        real = from_u8(reals_u8[step * BATCH : (step + 1) * BATCH])
        c = torch.zeros(BATCH, 0)
        with nets.ggdr.watch() as feats:
            with torch.no_grad():
                img = nets.G(torch.randn(BATCH, nets.G.z_dim, generator=rng), c)
            fake_logits = D(img, c)
        distance = nets.ggdr.penalty(feats).mean()
        loss = fake_logistic_loss(fake_logits).mean() + real_logistic_loss(D(real, c)).mean()
        grads = torch.autograd.grad(distance, params, retain_graph=True, allow_unused=True)
        shared = [i for i, grad in enumerate(grads) if grad is not None]
        b = flat(grads[i] for i in shared)
        a = flat(torch.autograd.grad(loss, [params[i] for i in shared]))
        rows.append((a.norm(), b.norm(), torch.dot(a, b) / (a.norm() * b.norm()), distance.detach()))
    a, b, cosine, distance = torch.tensor(rows).T
    weight = nets.weight
    found = {"adversarial": rms(a), "ggdr": weight * rms(b), "ratio": weight * rms(b) / rms(a)}
    return {**found, "cosine": float(cosine.mean()), "distance": float(distance.mean())}


def flat(grads: Iterable[Tensor]) -> Tensor:
    return torch.cat([grad.flatten() for grad in grads])


def rms(values: Tensor) -> float:
    return math.sqrt(values.square().mean())


@torch.inference_mode()
def accuracies(D: Discriminator, fake: Tensor, train_u8: Tensor, test_u8: Tensor) -> dict[str, float]:
    """How often D is right on each kind of image, and how far apart it sees reals and fakes."""
    sets = {"fake": fake, "real_train": from_u8(train_u8), "real_test": from_u8(test_u8)}
    logits = {name: torch.cat([D(x, torch.zeros(len(x), 0)) for x in img.split(100)]) for name, img in sets.items()}
    right = {
        name: float(((values < 0) if name == "fake" else (values > 0)).float().mean())
        for name, values in logits.items()
    }
    return {**right, "margin": float(logits["real_test"].mean() - logits["fake"].mean())}


class ClassJudge:
    """How far images are from real ones in the features of a classifier, and how many classes they show."""

    def __init__(self, net: Classifier, reals_u8: Tensor) -> None:
        self.net = net
        self.real, _ = self._run(reals_u8)

    @torch.inference_mode()
    def _run(self, images_u8: Tensor) -> tuple[Tensor, Tensor]:
        features, logits = zip(*(self.net(part) for part in images_u8.split(500)), strict=True)
        return torch.cat(features), torch.cat(logits)

    def __call__(self, images_u8: Tensor) -> dict[str, float]:
        features, logits = self._run(images_u8)
        return {
            "fd_classes": frechet_distance(*moments(self.real), *moments(features)),
            "mind_classes": mind(self.real, features),
            "entropy": class_entropy(logits),
        }


def last_metric(run: Path, metric: str) -> float | None:
    """Of the last snapshot; None if it was not computed."""
    lines = [json.loads(line) for path in run.glob(f"metric-{metric}*.jsonl") for line in path.read_text().splitlines()]
    return float(next(iter(lines[-1]["results"].values()))) if lines else None


def look_at(run: Path, judge: ClassJudge | None, train_u8: Tensor, test_u8: Tensor) -> dict[str, Any]:
    """One row; without a judge, nothing of classes."""
    path = snapshots_in(run)[-1]
    nets = Networks(path)
    rng = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        fakes_u8 = to_u8(fakes_of(nets.G_ema, NUM_FAKES, rng))
        fake = fakes_of(nets.G, NUM_IMAGES, rng)
    config = nets.D.config
    options = json.loads((run / "training_options.json").read_text())
    row = {
        "base": f"{config.channel_base}/{config.channel_max}",
        "variant": run.parent.name,
        "weight": nets.weight,
        "seed": options["seed"],
        **encoder_gradients(nets, train_u8, rng),
        **accuracies(nets.D, fake, train_u8[:NUM_IMAGES], test_u8[:NUM_IMAGES]),
        "fd_lite": last_metric(run, "fd_lite"),
        "mind_lite": last_metric(run, "mind_lite"),
        **(judge(fakes_u8) if judge else {}),
    }
    return {name: value for name, value in row.items() if value is not None}


def place(row: Mapping[str, Any]) -> tuple[int, str, int]:
    """What tells rows apart, and their order."""
    return int(row["base"].split("/")[0]), row["variant"], row["seed"]


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown."""
    lines = [" | ".join(COLUMNS), " | ".join(["---"] * len(COLUMNS))]
    for row in rows:
        lines.append(" | ".join(form.format(row[name]) if name in row else "" for name, form in COLUMNS.items()))
    return "\n".join(f"| {line} |" for line in lines)


# Of the summary over seeds: the column that a number comes from, and how it is written.
SUMMARY = {
    "gradients, GGDR / adversarial": ("ratio", "{:.2f}"),
    "margin": ("margin", "{:.2f}"),
    "right on test reals": ("real_test", "{:.0%}"),
    "right on fakes": ("fake", "{:.0%}"),
    "`fd_lite`": ("fd_lite", "{:.0f}"),
    "`mind_lite`": ("mind_lite", "{:.0f}"),
    "`fd_classes`": ("fd_classes", "{:.1f}"),
    "entropy": ("entropy", "{:.2f}"),
}


def summary(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown: means over the seeds of one size and weight, with the least and the greatest value."""
    groups: dict[tuple[str, float | None], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["base"], row.get("weight")), []).append(row)
    lines = [" | ".join(["networks", "weight", "seeds", *SUMMARY]), " | ".join(["---"] * (3 + len(SUMMARY)))]
    for (base, weight), group in sorted(
        groups.items(), key=lambda item: (int(item[0][0].split("/")[0]), item[0][1] or -1)
    ):
        cells = [base, "no GGDR" if weight is None else f"{weight:g}", str(len(group))]
        for name, form in SUMMARY.values():
            values = [row[name] for row in group if name in row]
            cells.append(spread(values, form) if values else "")
        lines.append(" | ".join(cells))
    return "\n".join(f"| {line} |" for line in lines)


def spread(values: Sequence[float], form: str) -> str:
    """Mean, least and greatest."""
    mean, low, high = (form.format(x) for x in (statistics.fmean(values), min(values), max(values)))
    return mean if len(values) == 1 else f"{mean} ({low} to {high})"


@click.command()
@click.option("--study", metavar="DIR", type=click.Path(path_type=Path, exists=True), multiple=True)
@click.option("--train", metavar="ZIP", help="CIFAR-10's training images, as `ggdr dataset` makes it.")
@click.option("--test", metavar="ZIP", help="Its test images.")
@click.option("--classifier", metavar="FILE", help="Of benchmarks.cifar_classifier; without it, its columns are empty.")
@click.argument("values", metavar="FILE.json", type=click.Path(path_type=Path))
def main(study: Sequence[Path], train: str, test: str, classifier: str | None, values: Path) -> None:
    """Looks at the last snapshot of every run of studies, adds what it found to a file, and prints tables.

    Rows of the same networks, variant and seed are replaced. Without --study it prints the tables of the file.

    \b
    Example:
      python -m benchmarks.small_networks --study runs/small --train cifar10.zip --test cifar10-test.zip \\
          --classifier runs/classifier.safetensors runs/small.json
      python -m benchmarks.small_networks runs/small.json
    """
    if study:
        real, held_out = ImageDataset(train, max_images=NUM_REALS), ImageDataset(test, max_images=NUM_IMAGES)
        train_u8 = torch.from_numpy(real.images_u8(range(len(real))))
        test_u8 = torch.from_numpy(held_out.images_u8(range(len(held_out))))
        judge = ClassJudge(load_classifier(classifier), train_u8) if classifier else None
        kept = json.loads(values.read_text()) if values.exists() else []
        rows = {place(row): row for row in kept}
        for run in sorted({path.parent for folder in study for path in folder.glob(f"*/seed*/{PATTERN}")}):
            row = look_at(run, judge, train_u8, test_u8)
            rows[place(row)] = row
            click.echo(table([row]).splitlines()[-1])
        values.write_text(json.dumps([rows[key] for key in sorted(rows)], indent=1) + "\n")
    rows = json.loads(values.read_text())
    click.echo(table(rows))
    click.echo()
    click.echo(summary(rows))


if __name__ == "__main__":
    main()
