# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""A DCGAN with GGDR in Lightning, on scikit-learn's digits; what GGDR needs is marked [GGDR].

python examples/with_lightning.py
python examples/with_lightning.py --devices 2                       # Lightning starts both processes
torchrun --nproc-per-node 2 examples/with_lightning.py --devices 2  # or torchrun does
"""

from __future__ import annotations

import argparse
from collections import OrderedDict
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import interpolate, softplus
from torch.utils.data import DataLoader, TensorDataset

from ggdr import GGDR  # [GGDR]

try:
    import lightning as L
    from lightning.pytorch.loggers import CSVLogger
except ImportError:
    raise SystemExit("this example needs Lightning: pip install lightning") from None

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


class GuidedGAN(L.LightningModule):
    """Both networks, both optimisers, and GGDR in the discriminator's step."""

    def __init__(self, weight: float = 10.0, lr: float = 4e-4) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.automatic_optimization = False
        self.G, self.D = generator(), discriminator()
        # [GGDR] It is no nn.Module, so this registers neither G nor D a second time ...
        self.ggdr = GGDR(self.G, self.D, guide="b16", encoder=["b8", "b4"], probe=self.probe, weight=weight)
        # [GGDR] ... but its decoder is, and as a child it is moved, saved and averaged like the networks.
        self.decoder = self.ggdr.decoder

    def probe(self) -> Tensor:
        return self.D(self.G(torch.randn(2, Z)))

    def configure_optimizers(self):
        lr, betas = self.hparams.lr, (0.5, 0.99)
        d_optimizer = torch.optim.Adam([*self.D.parameters(), *self.ggdr.parameters()], lr, betas)  # [GGDR]
        return d_optimizer, torch.optim.Adam(self.G.parameters(), lr, betas)

    def on_train_start(self) -> None:
        torch.manual_seed(self.global_step + self.global_rank)  # other latents on each device

    def training_step(self, batch, batch_idx: int) -> None:
        (real,) = batch
        d_optimizer, g_optimizer = self.optimizers()

        with self.ggdr.watch() as feats:  # [GGDR]
            with torch.no_grad():
                fake = self.G(torch.randn(len(real), Z, device=self.device))
            fake_logits = self.D(fake)
        d_loss = softplus(fake_logits).mean() + softplus(-self.D(real)).mean()
        penalty = self.ggdr.penalty(feats).mean()  # [GGDR]
        d_optimizer.zero_grad()
        self.manual_backward(d_loss + penalty)  # [GGDR]
        d_optimizer.step()

        g_loss = softplus(-self.D(self.G(torch.randn(len(real), Z, device=self.device)))).mean()
        g_optimizer.zero_grad()
        self.manual_backward(g_loss)
        g_optimizer.step()
        distance = penalty / self.ggdr.gain  # [GGDR]
        self.log_dict({"d_loss": d_loss, "g_loss": g_loss, "cosine_distance": distance}, prog_bar=True)


def loader(batch: int) -> DataLoader:
    img = torch.from_numpy(load_digits().images).float()[:, None] / 8 - 1
    return DataLoader(TensorDataset(interpolate(img, (32, 32), mode="bilinear")), batch, shuffle=True, drop_last=True)


def main(argv: list[str] | None = None) -> tuple[nn.Module, nn.Module, GGDR]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weight", type=float, default=10.0, help="of GGDR; 0 is a probe that leaves D alone")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch", type=int, default=64, help="per device")
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--accelerator", default="auto", help="cpu, gpu, ...")
    parser.add_argument("--precision", default="32-true", help="as Lightning names it: bf16-mixed, 16-mixed, ...")
    parser.add_argument("--resume", type=Path, metavar="FILE", help="checkpoint to go on from")
    parser.add_argument("--out", type=Path, default=Path("out"), metavar="FOLDER", help="for checkpoint and metrics")
    args = parser.parse_args(argv)

    L.seed_everything(0)
    model = GuidedGAN(weight=args.weight)
    trainer = L.Trainer(
        max_steps=2 * args.steps,  # Lightning counts the steps of both optimisers
        max_epochs=-1,
        accelerator=args.accelerator,
        devices=args.devices,
        precision=args.precision,
        # Each backward pass reaches G or D alone.
        strategy="ddp_find_unused_parameters_true" if args.devices > 1 else "auto",
        logger=CSVLogger(args.out, name="", version=""),
        log_every_n_steps=10,
        enable_checkpointing=False,
    )
    trainer.fit(model, loader(args.batch), ckpt_path=args.resume)
    trainer.save_checkpoint(args.out / "checkpoint.ckpt", weights_only=False)  # [GGDR] the decoder is in it
    return model.G, model.D, model.ggdr


if __name__ == "__main__":
    main()
