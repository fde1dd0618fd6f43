# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""A DCGAN in plain PyTorch, with GGDR or without; what GGDR needs is marked [GGDR].

python examples/plain_pytorch.py --ggdr                        # scikit-learn's digits, about a minute on a CPU
python examples/plain_pytorch.py --ggdr --data FOLDER --steps 20000
python examples/plain_pytorch.py --ggdr --resume out/checkpoint.pt --steps 1000
"""

from __future__ import annotations

import argparse
import os
from collections import OrderedDict
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.nn.functional import softplus

from ggdr import GGDR  # [GGDR]

Z = 64


def up(cin: int, cout: int) -> nn.Sequential:
    return nn.Sequential(nn.ConvTranspose2d(cin, cout, 4, 2, 1), nn.BatchNorm2d(cout), nn.ReLU())


def down(cin: int, cout: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(cin, cout, 4, 2, 1), nn.LeakyReLU(0.2))


def generator() -> nn.Module:
    """[N, Z] -> images [N, 3, 32, 32] in [-1, 1]."""
    first = nn.Sequential(nn.Unflatten(1, (Z, 1, 1)), nn.ConvTranspose2d(Z, 96, 4), nn.BatchNorm2d(96), nn.ReLU())
    last = nn.Sequential(nn.ConvTranspose2d(32, 3, 4, 2, 1), nn.Tanh())
    return nn.Sequential(OrderedDict(b4=first, b8=up(96, 64), b16=up(64, 32), b32=last))


def discriminator() -> nn.Module:
    """Images [N, 3, 32, 32] -> logits [N, 1]; named after the sizes of the outputs."""
    last = nn.Sequential(nn.Conv2d(96, 1, 4), nn.Flatten())
    return nn.Sequential(OrderedDict(b16=down(3, 32), b8=down(32, 64), b4=down(64, 96), out=last))


def load_images(folder: Path | None) -> Tensor:
    """[num, 3, 32, 32] uint8: the images of a folder, or scikit-learn's digits."""
    if folder is None:
        from sklearn.datasets import load_digits

        images = [Image.fromarray((img * 15.9).astype(np.uint8)) for img in load_digits().images]
    else:
        images = [Image.open(p) for p in sorted(folder.rglob("*")) if p.suffix.lower() in (".png", ".jpg", ".jpeg")]
    if not images:
        raise SystemExit(f"--data: {folder} holds no .png or .jpg")
    fitted = [np.asarray(ImageOps.fit(img.convert("RGB"), (32, 32))) for img in images]
    return torch.from_numpy(np.stack(fitted)).permute(0, 3, 1, 2)


def save_picture(images: Tensor, path: Path) -> None:
    """64 images [64, 3, 32, 32] in [-1, 1] as a square of eight by eight."""
    grid = images.unflatten(0, (8, 8)).permute(0, 3, 1, 4, 2).reshape(8 * 32, 8 * 32, 3)
    Image.fromarray(((grid + 1) * 127.5).round().byte().numpy()).save(path)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ggdr", action="store_true", help="train D with GGDR")
    parser.add_argument("--weight", type=float, default=10.0, help="of GGDR; 0 is a probe that leaves D alone")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="of images; without it, scikit-learn's digits")
    parser.add_argument("--steps", type=int, default=600, help="to train, after those of --resume")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--resume", type=Path, metavar="FILE", help="checkpoint to go on from")
    parser.add_argument("--out", type=Path, default=Path("out"), metavar="FOLDER", help="for samples and checkpoint")
    args = parser.parse_args(argv)

    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    data = load_images(args.data)
    G, D = generator().to(device), discriminator().to(device)

    def latents(num: int) -> Tensor:
        return torch.randn(num, Z).to(device)

    ggdr = None
    if args.ggdr:  # [GGDR] names of layers: of G, of D
        layers = {"guide": "b16", "encoder": ["b8", "b4"]}
        ggdr = GGDR(G, D, **layers, probe=lambda: D(G(latents(2))), weight=args.weight)  # [GGDR]
    decoder = ggdr.parameters() if ggdr else []  # [GGDR]
    d_optimizer = torch.optim.Adam([*D.parameters(), *decoder], 4e-4, betas=(0.5, 0.99))  # [GGDR]
    g_optimizer = torch.optim.Adam(G.parameters(), 4e-4, betas=(0.5, 0.99))
    parts = {"G": G, "D": D, "g_optimizer": g_optimizer, "d_optimizer": d_optimizer}
    if ggdr:
        parts["ggdr"] = ggdr  # [GGDR] saved and loaded with the rest

    start = 0
    if args.resume:
        state = torch.load(args.resume, map_location=device, weights_only=True)
        if ggdr and "ggdr" not in state:
            raise SystemExit(f"--resume: {args.resume} was trained without --ggdr")
        for name, part in parts.items():
            part.load_state_dict(state[name])
        start = state["step"]
        torch.set_rng_state(state["rng"].cpu())

    args.out.mkdir(parents=True, exist_ok=True)
    shown, last = torch.randn(64, Z, generator=torch.Generator().manual_seed(1)).to(device), start + args.steps
    for step in range(start + 1, last + 1):
        real = data[torch.randint(len(data), (args.batch,))].to(device) / 127.5 - 1

        # Discriminator: on fakes inside the watch block, on everything else outside.
        with ggdr.watch() if ggdr else nullcontext() as feats:  # [GGDR]
            fake_logits = D(G(latents(args.batch)).detach())
        d_loss = softplus(fake_logits).mean() + softplus(-D(real)).mean()
        penalty = ggdr.penalty(feats).mean() if ggdr else torch.zeros(())  # [GGDR]
        d_optimizer.zero_grad()
        (d_loss + penalty).backward()  # [GGDR]
        d_optimizer.step()

        # Generator: as ever.
        g_loss = softplus(-D(G(latents(args.batch)))).mean()
        g_optimizer.zero_grad()
        g_loss.backward()
        g_optimizer.step()

        if step % 50 == 0 or step == last:
            distance = f"  cosine distance {penalty.item() / ggdr.gain:.3f}" if ggdr else ""
            print(f"step {step:5d}  D {d_loss.item():.3f}  G {g_loss.item():.3f}{distance}", flush=True)
        if step % 500 == 0 or step == last:
            # Whole or not at all: under another name first.
            state = {name: part.state_dict() for name, part in parts.items()}
            torch.save({**state, "step": step, "rng": torch.get_rng_state()}, args.out / "checkpoint.tmp")
            os.replace(args.out / "checkpoint.tmp", args.out / "checkpoint.pt")
            with torch.no_grad():
                save_picture(G.eval()(shown).cpu(), args.out / "samples.png")
            G.train()
            print(f"wrote {args.out / 'samples.png'} and {args.out / 'checkpoint.pt'}")


if __name__ == "__main__":
    main()
