# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""A small classifier of CIFAR-10: a judge whose features know the ten classes.

It is trained in about ten minutes on two CPU cores. Its features serve `ggdr metrics --detector`, and its predictions
tell how many classes a generator makes.
"""

from __future__ import annotations

import os
from pathlib import Path

import click
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ggdr.torch_utils.data.dataset import ImageDataset

FILE = "CIFAR_CLASSIFIER"  # environment variable that names the weights for `features`
NUM_CLASSES, DIM = 10, 256
PAD = 4  # pixels around an image, of which training takes a random crop


def conv(c_in: int, c_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(c_in, c_out, 3, padding=1, bias=False), nn.BatchNorm2d(c_out), nn.ReLU())


class Residual(nn.Module):
    """Two convolutions, added to their input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convs = nn.Sequential(conv(channels, channels), conv(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.convs(x)


class Classifier(nn.Module):
    """Images uint8 [N, 3, 32, 32] -> features [N, 256] and logits [N, 10], float32."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv(3, 32),
            nn.MaxPool2d(2),
            conv(32, 64),
            Residual(64),
            nn.MaxPool2d(2),
            conv(64, 128),
            Residual(128),
            nn.MaxPool2d(2),
            conv(128, DIM),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.head = nn.Linear(DIM, NUM_CLASSES)

    def forward(self, images_u8: Tensor) -> tuple[Tensor, Tensor]:
        x = (images_u8.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)
        features = self.body(x)
        return features, self.head(features)


def load_classifier(path: str | os.PathLike) -> Classifier:
    """In evaluation mode, without gradients."""
    net = Classifier()
    net.load_state_dict(load_file(path))
    return net.to(memory_format=torch.channels_last).eval().requires_grad_(False)


def features(device: torch.device):
    """For `ggdr metrics --detector benchmarks.cifar_classifier:features`; the weights are $CIFAR_CLASSIFIER."""
    net = load_classifier(os.environ[FILE]).to(device)
    return lambda images_u8: net(images_u8)[0]


def class_entropy(logits: Tensor) -> float:
    """Entropy of the mean prediction, in nats: ln 10 = 2.30 where all classes are equally frequent."""
    p = logits.softmax(1).mean(0)
    return float(-(p * p.clamp_min(1e-12).log()).sum())


def augmented(images_u8: Tensor, rng: torch.Generator) -> Tensor:
    """Flipped at random, and cropped out of a border of grey."""
    n, _, height, width = images_u8.shape
    padded = F.pad(images_u8, (PAD,) * 4, value=127)
    top, left = (torch.randint(2 * PAD + 1, [n, 1], generator=rng) for _ in range(2))
    rows, columns = torch.arange(height) + top, torch.arange(width) + left
    columns = torch.where(torch.rand(n, 1, generator=rng) < 0.5, columns, columns.flip(1))
    return padded[torch.arange(n)[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def train(images_u8: Tensor, labels: Tensor, *, epochs: int, batch: int = 128, lr: float = 0.4) -> Classifier:
    """SGD with momentum and a rate that rises for a fifth of the time and then falls to 0."""
    torch.manual_seed(0)
    rng = torch.Generator().manual_seed(0)
    net = Classifier().to(memory_format=torch.channels_last)
    steps = epochs * (len(labels) // batch)
    optimizer = torch.optim.SGD(net.parameters(), lr, momentum=0.9, nesterov=True, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.2)
    for epoch in range(epochs):
        losses = []
        for chosen in torch.randperm(len(labels), generator=rng).split(batch):
            if len(chosen) < batch:
                continue
            _, logits = net(augmented(images_u8[chosen], rng))
            loss = F.cross_entropy(logits, labels[chosen], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.detach())
        click.echo(f"epoch {epoch + 1} of {epochs}: loss {torch.stack(losses).mean():.3f}")
    return net.eval().requires_grad_(False)


def read(path: str) -> tuple[Tensor, Tensor]:
    """All images uint8 [N, 3, 32, 32] and labels [N]."""
    data = ImageDataset(path, use_labels=True)
    every = range(len(data))
    return torch.from_numpy(data.images_u8(every)), torch.from_numpy(data.labels(every)).argmax(1)


@torch.inference_mode()
def accuracy(net: Classifier, images_u8: Tensor, labels: Tensor) -> float:
    right = [(net(x)[1].argmax(1) == y).sum() for x, y in zip(images_u8.split(500), labels.split(500), strict=True)]
    return float(torch.stack(right).sum() / len(labels))


@click.command()
@click.option("--train", "train_path", metavar="ZIP", required=True, help="Training images, as `ggdr dataset` makes.")
@click.option("--test", "test_path", metavar="ZIP", required=True, help="Test images.")
@click.option("--epochs", type=click.IntRange(1), default=10, show_default=True)
@click.option("--out", metavar="FILE", type=click.Path(path_type=Path), required=True, help="A .safetensors file.")
def main(train_path: str, test_path: str, epochs: int, out: Path) -> None:
    """Trains the classifier, and says how often it is right on test images.

    \b
    Example:
      python -m benchmarks.cifar_classifier --train cifar10.zip --test cifar10-test.zip --out classifier.safetensors
    """
    net = train(*read(train_path), epochs=epochs)
    click.echo(f"right on {accuracy(net, *read(test_path)):.1%} of the test images")
    out.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in net.state_dict().items()}, out)
    click.echo(f"Wrote {out}")


if __name__ == "__main__":
    main()
