# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Times the augmentation of images and of feature maps, beside other ways to do the same."""

from __future__ import annotations

import time
from collections.abc import Callable

import click
import torch
import torch.nn.functional as F
from torch import Tensor

from ggdr.stylegan2.augment.pipe import PIPES, AugmentPipe


def fastest_ms(run: Callable[[], object], repeats: int, device: torch.device) -> float:
    """Milliseconds of the fastest call: what else runs on the machine only adds."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    return 1e3 * min(seconds)


def gradient_penalty(augment: Callable[[Tensor], Tensor], img: Tensor) -> None:
    """What R1 costs in the augmentation alone: forward, backward, and backward of the backward."""
    img = img.detach().requires_grad_()
    (grad,) = torch.autograd.grad(augment(img).square().sum(), img, create_graph=True)
    grad.square().sum().backward()


def natural_images(num: int, resolution: int, rng: torch.Generator) -> Tensor:
    """[num, 3, resolution, resolution]: noise of amplitude 1/f, the spectrum of photographs."""
    fy, fx = torch.fft.fftfreq(resolution)[:, None], torch.fft.rfftfreq(resolution)
    amplitude = 1 / (fy.square() + fx.square()).sqrt().clamp(min=1 / resolution)
    noise = torch.randn(num, 3, resolution, resolution, generator=rng)
    return torch.fft.irfft2(torch.fft.rfft2(noise) * amplitude, s=(resolution, resolution))


def warp_errors(resolution: int, factor: int, rng: torch.Generator) -> tuple[float, float, float]:
    """How far warped features are from the features of warped images, for averages over factor x factor pixels.

    Returns:
        Root mean square errors relative to the features' deviation, without the pixels at the edges: of the warp,
        of the image path at the features' resolution, and of features that are not warped.
    """
    img = natural_images(64, resolution, rng)
    pipe = AugmentPipe(PIPES["bg"], p=0.5)
    draws = pipe.draw(len(img), generator=rng)
    aug, feat = pipe.augmentation(draws, img.shape[1:]), F.avg_pool2d(img, factor)
    as_images = pipe.augmentation(draws, feat.shape[1:])
    expected = F.avg_pool2d(aug(img), factor)[..., 1:-1, 1:-1]
    errors = [(got[..., 1:-1, 1:-1] - expected).square().mean() for got in (aug.warp(feat), as_images(feat), feat)]
    warp, image_path, none = (torch.stack(errors) / expected.var()).sqrt().tolist()
    return warp, image_path, none


@click.command()
@click.option("--batch", type=click.IntRange(min=1), default=16, show_default=True, metavar="N")
@click.option("--resolution", type=click.IntRange(min=8), default=32, show_default=True, metavar="PIXELS")
@click.option("--features", type=click.IntRange(min=1), default=128, show_default=True, metavar="CHANNELS")
@click.option("--pipe", type=click.Choice(list(PIPES)), default="bgc", show_default=True)
@click.option("--p", type=click.FloatRange(0, 1), default=1.0, show_default=True)
@click.option("--device", default="cpu", show_default=True)
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, metavar="N")
@click.option("--repeats", type=click.IntRange(min=1), default=30, show_default=True, metavar="N")
def main(
    batch: int, resolution: int, features: int, pipe: str, p: float, device: str, threads: int, repeats: int
) -> None:
    """Prints milliseconds a batch, the fastest of several runs.

    \b
    Examples:
      python -m benchmarks.augment
      python -m benchmarks.augment --batch 8 --resolution 256 --features 256 --device cuda
    """
    torch.set_num_threads(threads)
    place = torch.device(device)
    rng = torch.Generator().manual_seed(0)
    augment, geometry = AugmentPipe(PIPES[pipe], p), AugmentPipe(PIPES["bg"], p)
    img = torch.randn(batch, 3, resolution, resolution, device=place)
    draws = augment.draw(batch, generator=rng)
    aug = augment.augmentation(draws, img.shape[1:])

    def report(name: str, run: Callable[[], object]) -> None:
        click.echo(f"{fastest_ms(run, repeats, place):9.3f} ms  {name}")

    click.echo(f"{batch} images of {resolution}x{resolution}, pipe {pipe}, p {p:g}, {device}, {threads} CPU thread(s)")
    report("draw and matrices", lambda: augment.sample(img, rng))
    with torch.no_grad():
        report("images", lambda: aug(img))
    report("images with first and second derivative, as for R1", lambda: gradient_penalty(aug, img))

    # Features: as they are warped, and as images of their resolution would be.
    with torch.no_grad():
        for res in (resolution // 4, resolution // 2):
            feat = torch.randn(batch, features, res, res, device=place)
            as_images = geometry.augmentation(draws, feat.shape[1:])
            report(f"features {features}x{res}x{res}, warp", lambda feat=feat: aug.warp(feat))
            report("  the same by the image path", lambda feat=feat, as_images=as_images: as_images(feat))

    errors = warp_errors(resolution, 4, rng)
    click.echo("error of features {:.2f} warped, {:.2f} by the image path, {:.2f} left as they are".format(*errors))


if __name__ == "__main__":
    main()
