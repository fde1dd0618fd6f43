# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""A DCGAN with GGDR in Hugging Face Accelerate, on scikit-learn's digits; what GGDR needs is marked [GGDR].

python examples/with_accelerate.py
accelerate launch examples/with_accelerate.py --bf16 --accumulate 2
torchrun --nproc-per-node 2 examples/with_accelerate.py --cpu
"""

from __future__ import annotations

import argparse
from collections import OrderedDict
from itertools import islice
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import interpolate, softplus
from torch.utils.data import DataLoader, TensorDataset

from ggdr import GGDR  # [GGDR]

try:
    from accelerate import Accelerator
    from accelerate.utils import set_seed
except ImportError:
    raise SystemExit("this example needs Accelerate: pip install accelerate") from None

Z = 64


def up(cin: int, cout: int) -> nn.Sequential:
    return nn.Sequential(nn.ConvTranspose2d(cin, cout, 4, 2, 1), nn.BatchNorm2d(cout), nn.ReLU())


def down(cin: int, cout: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(cin, cout, 4, 2, 1), nn.LeakyReLU(0.2))


def generator() -> nn.Module:
    """[N, Z] -> images [N, 1, 32, 32] in [-1, 1]."""
    first = nn.Sequential(nn.Unflatten(1, (Z, 1, 1)), nn.ConvTranspose2d(Z, 64, 4), nn.BatchNorm2d(64), nn.ReLU())
    last = nn.Sequential(nn.ConvTranspose2d(16, 1, 4, 2, 1), nn.Tanh())
    return nn.Sequential(OrderedDict(b4=first, b8=up(64, 32), b16=up(32, 16), b32=last))


def discriminator() -> nn.Module:
    """Images [N, 1, 32, 32] -> logits [N, 1]; named after the sizes of the outputs."""
    last = nn.Sequential(nn.Conv2d(64, 1, 4), nn.Flatten())
    return nn.Sequential(OrderedDict(b16=down(1, 16), b8=down(16, 32), b4=down(32, 64), out=last))


def loader(batch: int) -> DataLoader:
    img = torch.from_numpy(load_digits().images).float()[:, None] / 8 - 1
    return DataLoader(TensorDataset(interpolate(img, (32, 32), mode="bilinear")), batch, shuffle=True, drop_last=True)


def endless(batches):
    while True:
        yield from batches


def main(argv: list[str] | None = None) -> tuple[nn.Module, nn.Module, GGDR]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weight", type=float, default=10.0, help="of GGDR; 0 is a probe that leaves D alone")
    parser.add_argument("--steps", type=int, default=600, help="batches to go through")
    parser.add_argument("--batch", type=int, default=64, help="per process")
    parser.add_argument("--accumulate", type=int, default=1, metavar="N", help="batches for one step of the optimisers")
    parser.add_argument("--bf16", action="store_true", help="mixed precision")
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--resume", type=Path, metavar="FOLDER", help="state to go on from")
    parser.add_argument("--out", type=Path, default=Path("out"), metavar="FOLDER", help="for the state")
    args = parser.parse_args(argv)

    precision = "bf16" if args.bf16 else "no"
    accelerator = Accelerator(mixed_precision=precision, gradient_accumulation_steps=args.accumulate, cpu=args.cpu)
    set_seed(0)
    G, D = generator(), discriminator()

    # [GGDR] Attach to the plain networks, then prepare the decoder as a network of its own.
    ggdr = GGDR(G, D, guide="b16", encoder=["b8", "b4"], probe=lambda: D(G(torch.randn(2, Z))), weight=args.weight)
    d_optimizer = torch.optim.Adam([*D.parameters(), *ggdr.parameters()], 4e-4, betas=(0.5, 0.99))  # [GGDR]
    g_optimizer = torch.optim.Adam(G.parameters(), 4e-4, betas=(0.5, 0.99))
    G, D, ggdr.decoder, g_optimizer, d_optimizer, batches = accelerator.prepare(  # [GGDR]
        G, D, ggdr.decoder, g_optimizer, d_optimizer, loader(args.batch)
    )
    plain_D = accelerator.unwrap_model(D)
    set_seed(0, device_specific=True)
    if args.resume:
        accelerator.load_state(str(args.resume))

    def latents(num: int) -> Tensor:
        return torch.randn(num, Z, device=accelerator.device)

    for step, (real,) in enumerate(islice(endless(batches), args.steps), start=1):
        n = len(real)
        with accelerator.accumulate(G, D, ggdr.decoder):  # [GGDR]
            # Discriminator: once on fakes and reals, since DDP wants one forward for each backward.
            with ggdr.watch() as feats:  # [GGDR]
                with torch.no_grad():
                    fake = G(latents(n))
                fake_logits, real_logits = D(torch.cat([fake, real])).split(n)
            d_loss = softplus(fake_logits).mean() + softplus(-real_logits).mean()
            penalty = ggdr.penalty(feats, fakes=slice(0, n)).mean()  # [GGDR]
            accelerator.backward(d_loss + penalty)  # [GGDR]
            d_optimizer.step()
            d_optimizer.zero_grad()

            # Generator: through D, which collects no gradients, so past its DDP wrapper.
            plain_D.requires_grad_(False)
            g_loss = softplus(-plain_D(G(latents(n)))).mean()
            accelerator.backward(g_loss)
            g_optimizer.step()
            g_optimizer.zero_grad()
            plain_D.requires_grad_(True)

        if step % 50 == 0 or step == args.steps:
            distance = accelerator.reduce(penalty.detach() / ggdr.gain, "mean").item()  # [GGDR]
            text = f"step {step:5d}  D {d_loss.item():.3f}  G {g_loss.item():.3f}  cosine distance {distance:.3f}"
            accelerator.print(text, flush=True)

    accelerator.save_state(str(args.out))  # [GGDR] the decoder is in it
    accelerator.end_training()
    return G, D, ggdr


if __name__ == "__main__":
    main()
